//! After the load of [`crate::autoscaler`]: the autoscaler takes its pod back.

use std::time::Duration;

use anyhow::Result;
use e2e::wait::wait_until;

use crate::autoscaler::wanted_and_least;
use crate::world::World;

/// The seed's window of 5 minutes, one pod in 2 minutes, and some patience.
const DEADLINE: Duration = Duration::from_secs(600);

#[tokio::test]
async fn the_autoscaler_takes_its_pod_back() -> Result<()> {
    let world = World::enter().await?;
    wait_until("the autoscaler to want its minimum again", DEADLINE, || async {
        let (wanted, least) = wanted_and_least(&world).await?;
        Ok(wanted == least)
    })
    .await
}
