//! The pooler's certificate is renewed in time, in the cluster; what is due when is tested beside the code.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::certificate::State;
use serde_json::{Value, json};

use crate::cluster::{DEADLINE, Operator, Space, World, within};
use crate::lifecycle::quiet;

const SECRET: &str = "perses-pgbouncer-tls";
const ANNOTATION: &str = "persesstack.io/rotation";
const DAY: i64 = 24 * 60 * 60;

async fn secret(space: &Space) -> (Value, State) {
    let secret = space.get(Kind::Secret, SECRET).await.unwrap();
    let state = State::of(secret["metadata"]["annotations"][ANNOTATION].as_str().unwrap()).unwrap();
    (secret["data"].clone(), state)
}

/// Says that it is older than it is, and waits until the operator has done something about it.
async fn age(space: &Space, state: &State) -> (Value, State) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION: state.text()}}}));
    space.api(Kind::Secret).patch(SECRET, &PatchParams::default(), &patch).await.unwrap();
    within("the renewal", DEADLINE, async || (secret(space).await.1 != *state).then_some(())).await;
    space.settled().await;
    secret(space).await
}

async fn started_for(space: &Space, name: &str) -> Value {
    space.get(Kind::Deployment, name).await.unwrap()["spec"]["template"].clone()
}

fn authorities(data: &Value) -> usize {
    let text = STANDARD.decode(data["ca.crt"].as_str().unwrap()).unwrap();
    String::from_utf8(text).unwrap().matches("BEGIN CERTIFICATE").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_and_its_authority_follow_each_other_without_the_api_pods() {
    let space = Space::new("renewed").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10, "pooler": {"tls": {}}})).await;
    space.settled().await;
    let (made, state) = secret(&space).await;
    let (api, pooler) = (started_for(&space, "perses-api").await, started_for(&space, "perses-pgbouncer").await);
    let now = Timestamp::now().as_second();
    assert!((state.since - now).abs() < DAY && state.next.is_none(), "{state:?}");

    // Eight months: another certificate, and new pods of the pooler.
    let (renewed, state) = age(&space, &State { since: state.since - 250 * DAY, ..state }).await;
    assert!(renewed["tls.crt"] != made["tls.crt"] && renewed["ca.crt"] == made["ca.crt"]);
    let after = started_for(&space, "perses-pgbouncer").await;
    assert_ne!(after, pooler);
    // Seven years: the next authority, for which nothing starts anew.
    let (both, state) = age(&space, &State { authority: state.authority - 7 * 365 * DAY, ..state }).await;
    assert!(both["tls.crt"] == renewed["tls.crt"] && authorities(&both) == 2 && state.next.is_some());
    assert_eq!(started_for(&space, "perses-pgbouncer").await, after);
    quiet(&space, &operator).await;
    // A day later it signs.
    let (succeeded, state) = age(&space, &State { next: state.next.map(|next| next - DAY), ..state }).await;
    assert!(succeeded["tls.crt"] != both["tls.crt"] && succeeded["ca.crt"] == both["ca.crt"] && state.next.is_none());
    assert_ne!(started_for(&space, "perses-pgbouncer").await, after);
    assert_eq!(started_for(&space, "perses-api").await, api, "the API pods read the authorities for each connection");
    quiet(&space, &operator).await;
}
