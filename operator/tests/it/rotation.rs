//! Credentials are rotated: every step on a real API server, with an operator that dies between any two writes, and with
//! every write failing.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use futures::future::{join, join_all};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::client::fault::{Fault, Faults, Often};
use persesstack_operator::conditions::find;
use serde_json::{Value, json};

use crate::cluster::{DEADLINE, Operator, STACK, Space, World, generated, normalised, within};
use crate::crash::assert_same;
use crate::lifecycle::quiet;

const ALL: [&str; 4] = ["admin", "database", "keys", "redis"];

/// A stack whose sign-ins end soon: what they were signed with is kept for no longer.
fn spec() -> Value {
    let config = json!({"security": {"authentication": {"access_token_ttl": "1s", "refresh_token_ttl": "1s"}}});
    json!({"users": 10, "database": {"type": "Standalone"}, "api": {"config": config}})
}

pub(crate) async fn ask(space: &Space, what: &[&str], value: &str) {
    let annotations: BTreeMap<_, _> =
        what.iter().map(|what| (format!("persesstack.io/rotate-{what}"), value)).collect();
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    space.stacks().patch(STACK, &PatchParams::default(), &patch).await.unwrap();
}

/// Waits until all that was asked for with this value is done.
pub(crate) async fn rotated(space: &Space, what: &[&str], value: &str) {
    let done: Vec<_> = what.iter().map(|what| format!("{what} (\"{value}\"): only the new value counts")).collect();
    space
        .until("the rotation to be done", |stack| {
            let conditions = stack.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            let rotated = find(conditions, "CredentialsRotated");
            rotated.is_some_and(|found| {
                found.reason == "RotationCompleted" && done.iter().all(|line| found.message.contains(line))
            })
        })
        .await;
    space.settled().await;
}

fn text(secrets: &BTreeMap<String, Value>, secret: &str, key: &str) -> String {
    let value = STANDARD.decode(secrets[secret][key].as_str().unwrap_or_default()).unwrap();
    String::from_utf8_lossy(&value).into_owned()
}

/// What must have become of the generated Secrets.
fn assert_replaced(before: &BTreeMap<String, Value>, after: &BTreeMap<String, Value>) {
    for (secret, key) in [
        ("perses-admin", "password"),
        ("perses-db", "password"),
        ("perses-keys", "encryption-key"),
        ("perses-redis", "password"),
    ] {
        let [old, new] = [before, after].map(|secrets| secrets[secret][key].clone());
        assert!(old != new, "{secret} has its old value");
        // The role that was locked has a password that nothing was ever told.
        let left = after[secret].as_object().unwrap().values().filter(|value| **value == old).count();
        assert_eq!(left, 0, "{secret} still holds the old value");
    }
    let key = after["perses-keys"]["encryption-key"].as_str().unwrap_or_default();
    assert_eq!(STANDARD.decode(key).unwrap().len(), 32);
    let acl = text(after, "perses-redis", "users.acl");
    assert!(acl.contains(&format!(" on >{} ~", text(after, "perses-redis", "password"))), "{acl}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_rotated_and_then_nothing_is_written() {
    let space = Space::new("rotate").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&spec()).await;
    space.settled().await;
    let before = generated(&space).await;
    let database = space.get(Kind::StatefulSet, "perses-db").await.unwrap()["metadata"]["generation"].clone();
    let (jobs, watching) = record_jobs(&space);
    for (round, user) in [("1", "perses_b"), ("2", "perses")] {
        let old = generated(&space).await;
        ask(&space, &ALL, round).await;
        rotated(&space, &ALL, round).await;
        let new = generated(&space).await;
        assert_replaced(&old, &new);
        assert_eq!(text(&new, "perses-db", "user"), user);
        let pooler = space.get(Kind::Secret, "perses-pgbouncer").await.unwrap()["data"]["pgbouncer.ini"].clone();
        let ini = String::from_utf8(STANDARD.decode(pooler.as_str().unwrap()).unwrap()).unwrap();
        let login = format!("user='{user}' password='{}'", text(&new, "perses-db", "password"));
        assert!(ini.contains(&login), "the pooler signs in with it");
    }
    assert_replaced(&before, &generated(&space).await);
    let now = space.get(Kind::StatefulSet, "perses-db").await.unwrap()["metadata"]["generation"].clone();
    assert_eq!(database, now, "the database is not started anew");
    let left = space.objects().await.into_iter().filter(|object| object["kind"] == "Job").count();
    assert_eq!(left, 1, "of the Jobs the migration is left");
    let commands = jobs.lock().clone();
    let ran = |command: &str| commands.values().filter(|args| args.starts_with(command)).count();
    let counts = ["secrets re-encrypt", "users renew-admin-password", "login"].map(ran);
    assert_eq!(counts, [2, 2, 4], "{commands:?}");
    watching.abort();

    quiet(&space, &operator).await;
    operator.stop().await;
    let restarted = Operator::start(&space);
    quiet(&space, &restarted).await;
    assert_eq!(restarted.faults.count(), 0, "{:?}", restarted.faults.writes());
}

/// Arguments of the pods of Jobs, by name.
fn record_jobs(space: &Space) -> (Arc<Mutex<BTreeMap<String, String>>>, tokio::task::JoinHandle<()>) {
    let record = Arc::new(Mutex::new(BTreeMap::new()));
    let (pods, lines): (Api<Pod>, _) = (Api::namespaced(space.client.clone(), &space.namespace), record.clone());
    let labels = watcher::Config::default().labels("app.kubernetes.io/component=migration");
    let mut events = watcher(pods, labels).default_backoff().applied_objects().boxed();
    let task = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let Ok(pod) = event else { continue };
            let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
            let args = container.and_then(|container| container.args.clone()).unwrap_or_default();
            lines.lock().insert(pod.name_any(), args.join(" "));
        }
    });
    (record, task)
}

/// An operator that lives for one write: each goes on where the Secrets stand, and no value is made twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_that_dies_after_every_write_comes_to_the_same_end() {
    let space = Space::new("rotate-crash").await;
    let _world = World::start(&space);
    let first = Operator::start(&space);
    space.create(&spec()).await;
    space.settled().await;
    first.stop().await;
    let before = generated(&space).await;
    ask(&space, &ALL, "1").await;
    let mut deaths = 0;
    let last = loop {
        let faults = Faults::with(Fault::CrashAfter(1));
        let operator = Operator::with(&space, faults.clone());
        tokio::select! {
            () = rotated(&space, &ALL, "1") => break operator,
            () = faults.crashed() => deaths += 1,
        }
    };
    drop(last);
    assert!(deaths > 20, "only {deaths} operators died");
    assert_replaced(&before, &generated(&space).await);
    let survivor = Operator::start(&space);
    space.settled().await;
    quiet(&space, &survivor).await;
}

/// What became of a rotation of everything, with faults.
struct Rotated {
    state: BTreeMap<String, Value>,
    /// Writes without those of the status.
    lasting: usize,
}

async fn rotate(faults: Faults) -> Rotated {
    let space = Space::new("rotate-faults").await;
    let _world = World::start(&space);
    let first = Operator::start(&space);
    space.create(&spec()).await;
    space.settled().await;
    first.stop().await;
    let before = generated(&space).await;
    let (history, watching) = record_secrets(&space, &before);
    let operator = Operator::with(&space, faults.clone());
    ask(&space, &ALL, "1").await;
    rotated(&space, &ALL, "1").await;
    operator.stop().await;
    let after = generated(&space).await;
    assert_replaced(&before, &after);
    let is_whole =
        |history: &History| after.iter().all(|(name, data)| history[name].last().map(|(_, last)| last) == Some(data));
    within("the record to be whole", DEADLINE, async || is_whole(&history.lock()).then_some(())).await;
    watching.abort();
    assert_understood(&history.lock());
    let state = normalised(&space).await;
    space.remove().await;
    let lasting = faults.writes().iter().filter(|write| !write.path.ends_with("/status")).count();
    Rotated { state, lasting }
}

/// For each generated Secret its step and values, one after the other.
type History = BTreeMap<String, Vec<(String, Value)>>;

fn record_secrets(
    space: &Space,
    before: &BTreeMap<String, Value>,
) -> (Arc<Mutex<History>>, tokio::task::JoinHandle<()>) {
    let begin = before.iter().map(|(name, data)| (name.clone(), vec![(String::new(), data.clone())]));
    let history: Arc<Mutex<History>> = Arc::new(Mutex::new(begin.collect()));
    let (secrets, record) = (space.api(Kind::Secret), history.clone());
    let mut events = watcher(secrets, watcher::Config::default()).default_backoff().applied_objects().boxed();
    let task = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let Ok(secret) = event else { continue };
            let state = secret.annotations().get("persesstack.io/rotation").cloned().unwrap_or_default();
            let state: Value = serde_json::from_str(&state).unwrap_or_default();
            let entry = (state["step"].as_str().unwrap_or_default().to_owned(), secret.data["data"].clone());
            if let Some(lines) = record.lock().get_mut(&secret.name_any())
                && lines.last() != Some(&entry)
            {
                lines.push(entry);
            }
        }
    });
    (history, task)
}

/// Each step was taken once, so no value was made twice; and at each, who has the values of the step before and who has those
/// of the next one sign in and are let in.
fn assert_understood(history: &History) {
    for (secret, used, steps) in [
        ("perses-admin", "password", "accept apply done"),
        ("perses-db", "password", "apply issue retire done"),
        ("perses-keys", "encryption-key", "accept issue apply expire done"),
        ("perses-redis", "password", "accept issue done"),
    ] {
        let lines = &history[secret];
        let taken: Vec<_> = lines.iter().skip(1).map(|(step, _)| step.as_str()).collect();
        assert_eq!(taken.join(" "), steps, "{secret}");
        for pair in lines.windows(2) {
            for (user, server) in [(&pair[0].1, &pair[1].1), (&pair[1].1, &pair[0].1)] {
                let value = decoded(&user[used]);
                assert!(accepted(secret, user, server).contains(&value), "{secret}: {} to {}", pair[0].0, pair[1].0);
            }
        }
    }
}

fn decoded(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap_or_default()).unwrap()
}

/// What counts for whoever has the values of `server`, when somebody comes who has those of `user`.
fn accepted(secret: &str, user: &Value, server: &Value) -> Vec<Vec<u8>> {
    let keys: &[&str] = match secret {
        "perses-admin" => &["password", "next-password", "previous-password"],
        "perses-keys" => &["encryption-key", "next-encryption-key", "previous-encryption-key"],
        // Two roles, each with one password; that of the one that rests is changed by a Job meanwhile.
        "perses-db" if user["user"] == server["user"] => &["password"],
        "perses-db" => &["other-password", "other-password-until-now"],
        _ => &[],
    };
    let acl = String::from_utf8(decoded(&server["users.acl"])).unwrap();
    let passwords = acl.split_whitespace().filter_map(|word| word.strip_prefix('>'));
    keys.iter().map(|key| decoded(&server[*key])).chain(passwords.map(|word| word.as_bytes().to_vec())).collect()
}

/// Each of these operators finds every write broken once; among all of them, every write is broken in every way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_failure_of_every_write_comes_to_the_same_end() {
    let runs = join_all((0..Often::WAYS).map(|way| rotate(Faults::often(Often { every: 1, skip: 0, way }))));
    let (reference, runs) = Box::pin(join(rotate(Faults::none()), runs)).await;
    for (way, run) in runs.into_iter().enumerate() {
        assert_same(&reference.state, &run.state, &format!("from way {way} on"));
        let most = 2 * reference.lasting + 4;
        assert!(run.lasting <= most, "from way {way} on: {} writes, {} are usual", run.lasting, reference.lasting);
        assert!(run.lasting > reference.lasting * 3 / 2, "from way {way} on: {} writes were broken", run.lasting);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_at_the_creation_is_done_and_what_cannot_be_done_is_told() {
    let space = Space::new("rotate-first").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    let annotations = json!({"persesstack.io/rotate-keys": "1", "persesstack.io/rotate-redis": "1"});
    let stack = json!({"metadata": {"name": STACK, "annotations": annotations},
        "spec": {"users": 10, "cache": {"type": "None"}}});
    space.stacks().create(&PostParams::default(), &serde_json::from_value(stack).unwrap()).await.unwrap();
    let message = space.condition("CredentialsRotated", "False", "RotationRefused").await;
    assert!(message.contains("keys (\"1\"): only the new value counts"), "made new: {message}");
    assert!(message.contains("redis: not rotated"), "{message}");
    space.settled().await;
    let keys = generated(&space).await["perses-keys"].clone();
    assert_eq!(keys.as_object().unwrap().len(), 1, "nothing was rotated");
    drop(operator);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_on_while_the_stack_sleeps() {
    let space = Space::new("rotate-sleep").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&spec()).await;
    space.settled().await;
    space.change(&json!({"suspend": true})).await;
    space.condition("Suspended", "True", "Suspended").await;
    let before = generated(&space).await;
    ask(&space, &["keys", "database"], "1").await;
    operator.reconciled_again(&space).await;
    assert_eq!(before, generated(&space).await);
    space.change(&json!({"suspend": false})).await;
    rotated(&space, &["keys", "database"], "1").await;
    assert_ne!(before["perses-keys"]["encryption-key"], generated(&space).await["perses-keys"]["encryption-key"]);
}
