//! A stack with `cache.type: Sentinel` on a real API server: made, repaired, put to sleep, taken away, and its credentials
//! rotated in a way that the real Redis and sentinels go along with.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::conditions::find;
use serde_json::{Value, json};

use crate::cluster::{DEADLINE, Operator, REPAIR, Space, World, generated, within};
use crate::lifecycle::quiet;
use crate::rotation::{ask, rotated};
use crate::sentinels::{Cache, Files, Server};

fn spec() -> Value {
    json!({"users": 10, "database": {"type": "Standalone"}, "cache": {"type": "Sentinel"}})
}

/// What only three Redis have.
const PARTS: [(Kind, &str); 4] = [
    (Kind::StatefulSet, "perses-redis"),
    (Kind::Service, "perses-redis-peers"),
    (Kind::Secret, "perses-redis-config"),
    (Kind::PodDisruptionBudget, "perses-redis"),
];

async fn are_there(space: &Space, there: bool) {
    for (kind, name) in PARTS {
        let as_wanted = async || (space.get(kind, name).await.is_some() == there).then_some(());
        within(&format!("{kind:?} {name} to be there: {there}"), DEADLINE, as_wanted).await;
    }
    let as_wanted = async || (space.get(Kind::Deployment, "perses-redis").await.is_none() == there).then_some(());
    within("the one Redis to be there otherwise", DEADLINE, as_wanted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_redis_are_made_repaired_put_to_sleep_and_taken_away() {
    let space = Space::new("sentinel").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&spec()).await;
    let status = space.settled().await.status.unwrap();
    are_there(&space, true).await;
    let cache = find(&status.conditions, "CacheReady").unwrap();
    assert_eq!(cache.message, "3 of 3 Redis pods are ready");
    let endpoint = format!("perses-redis.{}.svc:26379", space.namespace);
    assert_eq!(status.endpoints.unwrap().cache, Some(endpoint));
    quiet(&space, &operator).await;
    operator.stop().await;
    let operator = Operator::start(&space);
    quiet(&space, &operator).await;
    assert_eq!(operator.faults.count(), 0, "a restart writes nothing: {:?}", operator.faults.writes());

    let edits = [
        (Kind::StatefulSet, "perses-redis", json!({"spec": {"replicas": 1}}), "/spec/replicas"),
        (
            Kind::Service,
            "perses-redis-peers",
            json!({"spec": {"publishNotReadyAddresses": false}}),
            "/spec/publishNotReadyAddresses",
        ),
        (Kind::Secret, "perses-redis-config", json!({"data": {"users.acl": "eA=="}}), "/data"),
        (Kind::PodDisruptionBudget, "perses-redis", json!({"spec": {"maxUnavailable": 3}}), "/spec/maxUnavailable"),
    ];
    for (kind, name, edit, field) in edits {
        let read = async || space.get(kind, name).await.unwrap().pointer(field).cloned();
        let wanted = read().await;
        space.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(&edit)).await.unwrap();
        let repaired = async || (read().await == wanted).then_some(());
        within(&format!("{field} of {kind:?} {name} to come back"), REPAIR, repaired).await;
    }

    let secrets = generated(&space).await;
    space.change(&json!({"suspend": true})).await;
    space.condition("Suspended", "True", "Suspended").await;
    assert_eq!(space.get(Kind::StatefulSet, "perses-redis").await.unwrap()["spec"]["replicas"], 0);
    space.change(&json!({"suspend": false})).await;
    space.settled().await;
    assert_eq!(space.get(Kind::StatefulSet, "perses-redis").await.unwrap()["spec"]["replicas"], 3);

    // To one and back: the passwords stay.
    for (type_, three) in [("Standalone", false), ("Sentinel", true), ("None", false), ("Sentinel", true)] {
        space.change(&json!({"cache": {"type": type_}})).await;
        if type_ == "None" {
            let gone = async || space.get(Kind::StatefulSet, "perses-redis").await.is_none().then_some(());
            within("the three to go", DEADLINE, gone).await;
        } else {
            are_there(&space, three).await;
        }
        space.settled().await;
    }
    assert_eq!(generated(&space).await, secrets);
    quiet(&space, &operator).await;
}

/// Configurations as the operator writes them, one after the other.
fn record(space: &Space) -> (Arc<Mutex<Vec<Files>>>, tokio::task::JoinHandle<()>) {
    let record: Arc<Mutex<Vec<Files>>> = Arc::default();
    let seen = Arc::clone(&record);
    let secrets: Api<Secret> = Api::namespaced(space.client.clone(), &space.namespace);
    let mut events = watcher(secrets, watcher::Config::default()).default_backoff().applied_objects().boxed();
    let task = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let Ok(secret) = event else { continue };
            if secret.name_any() == "perses-redis-config" {
                let files: Files = secret.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect();
                let mut seen = seen.lock();
                if seen.last() != Some(&files) {
                    seen.push(files);
                }
            }
        }
    });
    (record, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_rotated_under_a_server_that_uses_the_three() {
    let space = Space::new("sentinel-rotate").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&spec()).await;
    space.settled().await;
    let before = generated(&space).await;
    let (record, watching) = record(&space);
    within("the record to begin", DEADLINE, async || (!record.lock().is_empty()).then_some(())).await;
    ask(&space, &["redis"], "1").await;
    rotated(&space, &["redis"], "1").await;
    let after = generated(&space).await;
    for (secret, key) in [("perses-redis", "password"), ("perses-redis-peers", "password")] {
        let old = &before[secret][key];
        let left = after[secret].as_object().unwrap().values().filter(|value| *value == old).count();
        assert_eq!(left, 0, "{secret} still holds the old value");
    }
    quiet(&space, &operator).await;
    watching.abort();
    let steps = record.lock().clone();
    assert_eq!(steps.len(), 4, "before, both count, the new ones are used, only they count");

    // Now the same with real ones: pod by pod, as a StatefulSet does it.
    let set: StatefulSet = serde_json::from_value(space.get(Kind::StatefulSet, "perses-redis").await.unwrap()).unwrap();
    let pods = set.spec.unwrap().template.spec.unwrap();
    let mut cache = Cache::new(&pods, steps[0].clone()).await;
    let all = [0, 1, 2];
    cache.start(&all).await;
    cache.are_ready(&all).await;
    let password = |secrets: &BTreeMap<String, Value>| {
        let value = STANDARD.decode(secrets["perses-redis"]["password"].as_str().unwrap()).unwrap();
        ("perses".to_owned(), String::from_utf8(value).unwrap())
    };
    let mut server = Server::start(&api_config(&space).await, password(&before), &cache).await;
    server.caches_in(&cache, 0).await;
    let load = server.load().await;
    for (step, files) in steps.iter().enumerate().skip(1) {
        cache.change(files.clone());
        if step == 2 {
            server.sign_in_with(password(&after));
        }
        for pod in all.into_iter().rev() {
            cache.leave(pod).await;
            cache.replace(pod).await;
            cache.start(&[pod]).await;
            cache.are_ready(&[pod]).await;
        }
        let leader = cache.led(&all, &[]).await;
        server.caches_in(&cache, leader).await;
    }
    let report = load.stop().await.unwrap();
    assert!(report.requests > 100, "{} requests", report.requests);
    assert_eq!(report.failed, 0, "{:?}", report.failures);
}

/// The configuration that the API pods have.
async fn api_config(space: &Space) -> Value {
    let api = space.get(Kind::Deployment, "perses-api").await.unwrap();
    let volumes = api["spec"]["template"]["spec"]["volumes"].as_array().unwrap().clone();
    let config = volumes.iter().find(|volume| volume["name"] == "config").unwrap();
    let secret = space.get(Kind::Secret, config["secret"]["secretName"].as_str().unwrap()).await.unwrap();
    let text = STANDARD.decode(secret["data"]["config.yaml"].as_str().unwrap()).unwrap();
    serde_saphyr::from_str(std::str::from_utf8(&text).unwrap()).unwrap()
}
