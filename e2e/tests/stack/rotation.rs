//! No failed request while every generated credential is replaced.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::stack::{READY_DEADLINE, Stack, value};
use e2e::wait::wait_until;

use crate::availability::patch;
use crate::steady::Steady;
use crate::storage::sample_paths;
use crate::world::World;

const RATE: u32 = 50;
/// Several rolls of the API pods, which drain for a while, one after the other.
const ROTATED: Duration = Duration::from_mins(15);

#[tokio::test]
async fn no_request_fails_while_credentials_are_rotated() -> Result<()> {
    let world = World::enter().await?;
    let values = async || {
        let mut values = Vec::new();
        for (secret, key) in [("perses-admin", "password"), ("perses-db", "password"), ("perses-redis", "password")] {
            values.push(value(&world.stack.secret(secret).await?, key)?);
        }
        anyhow::Ok(values)
    };
    let before = values().await?;
    let load = Steady::start(&world.perses, sample_paths(), RATE);
    let asked = ["admin", "database", "keys", "redis"].map(|what| format!(r#""persesstack.io/rotate-{what}":"1""#));
    patch(&world, &format!(r#"{{"metadata":{{"annotations":{{{}}}}}}}"#, asked.join(","))).await?;
    // The load goes on with its sign-in of before: the old key counts until that has ended, a day later.
    let done = [r#"admin ("1"): only"#, r#"database ("1"): only"#, r#"redis ("1"): only"#, r#"keys ("1"): sign-ins"#];
    wait_until("the rotation", ROTATED, || async {
        let resource = world.stack.resource().await?;
        let (_, message) = Stack::condition(&resource, "CredentialsRotated").unwrap_or_default();
        Ok(done.iter().all(|line| message.contains(line)))
    })
    .await?;
    world.stack.wait_ready(READY_DEADLINE, |_| {}).await?;
    load.finish().await?.all_good("all credentials rotated")?;
    let after = values().await?;
    ensure!(before.iter().zip(&after).all(|(before, after)| before != after), "a password is the old one");
    // With the administrator's new password.
    world.stack.sign_in().await.map(drop)
}
