//! A stack falls asleep and wakes in order, and loses nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;
use persesstack_operator::api::v1alpha1::PersesStack;
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::conditions::find;
use serde_json::json;

use crate::cluster::{DEADLINE, Operator, Space, World, generated, within};
use crate::lifecycle::quiet;

/// For each component the number of pods; a change of it is a line of the record.
type Record = Arc<Mutex<Vec<BTreeMap<String, usize>>>>;

fn record(space: &Space) -> (tokio::task::JoinHandle<()>, Record) {
    let record = Record::default();
    let (pods, lines): (Api<Pod>, _) = (Api::namespaced(space.client.clone(), &space.namespace), record.clone());
    let mut events = watcher(pods, watcher::Config::default()).default_backoff().boxed();
    let task = tokio::spawn(async move {
        let mut alive: BTreeMap<String, String> = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                    let component = pod.labels().get("app.kubernetes.io/component").cloned().unwrap_or_default();
                    alive.insert(pod.name_any(), component);
                }
                Ok(watcher::Event::Delete(pod)) => drop(alive.remove(&pod.name_any())),
                _ => {}
            }
            let mut counts = BTreeMap::new();
            for component in alive.values() {
                *counts.entry(component.clone()).or_default() += 1;
            }
            lines.lock().push(counts);
        }
    });
    (task, record)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_sleeps_and_wakes_in_order_and_loses_nothing() {
    let space = Space::new("sleep").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10, "api": {"minReplicas": 2, "maxReplicas": 6}})).await;
    space.settled().await;
    let secrets = generated(&space).await;
    let claim = space.get(Kind::PersistentVolumeClaim, "perses-db").await.unwrap()["metadata"]["uid"].clone();
    let scale = kube::api::Patch::Merge(json!({"spec": {"replicas": 5}}));
    let params = kube::api::PatchParams {
        field_manager: Some("kube-controller-manager".to_owned()),
        ..kube::api::PatchParams::default()
    };
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> =
        Api::namespaced(space.client.clone(), &space.namespace);
    deployments.patch_scale("perses-api", &params, &scale).await.unwrap();
    space.settled().await;

    let (task, lines) = record(&space);
    let of = |line: &BTreeMap<String, usize>, part: &str| line.get(part).copied().unwrap_or(0);
    within("the record to begin", DEADLINE, async || lines.lock().last().filter(|line| of(line, "api") == 5).map(drop))
        .await;
    lines.lock().clear();
    space.change(&json!({"suspend": true})).await;
    space.condition("Suspended", "True", "Suspended").await;
    let stack = space.stacks().get("perses").await.unwrap();
    let status = stack.status.unwrap();
    for type_ in ["Ready", "ApiReady", "PoolerReady", "CacheReady", "DatabaseReady"] {
        let found = find(&status.conditions, type_).unwrap();
        assert_eq!((found.status.as_str(), found.reason.as_str()), ("False", "Suspended"), "{type_}");
    }
    assert_eq!(find(&status.conditions, "Reconciling").unwrap().status, "False");
    assert!(status.suspension.unwrap().suspended_at.is_some());
    // The one before is gone before the next one loses its first pod.
    let order = ["api", "pgbouncer", "redis", "database"];
    let full = |part: &str| if part == "api" { 5 } else { of(&lines.lock()[0], part) };
    let expected: Vec<usize> = order.iter().map(|part| full(part)).collect();
    for line in lines.lock().iter() {
        for (index, part) in order.iter().enumerate().skip(1) {
            let before = order[..index].iter().map(|part| of(line, part)).sum::<usize>();
            let whole = of(line, part) >= expected[index];
            assert!(before == 0 || whole, "{part} lost pods while those before it ran: {line:?}");
        }
    }
    assert_eq!(generated(&space).await, secrets);
    let kept = space.get(Kind::PersistentVolumeClaim, "perses-db").await.unwrap();
    assert_eq!(kept["metadata"]["uid"], claim);
    assert!(space.get(Kind::HorizontalPodAutoscaler, "perses-api").await.is_some());
    // The events of the last status follow it.
    operator.reconciled_again(&space).await;
    quiet(&space, &operator).await;
    operator.stop().await;

    // Another operator wakes it: nothing is remembered.
    let operator = Operator::start(&space);
    quiet(&space, &operator).await;
    assert_eq!(operator.faults.count(), 0, "asleep, a restart writes nothing");
    lines.lock().clear();
    space.change(&json!({"suspend": false})).await;
    let stack = space.settled().await;
    let status = stack.status.unwrap();
    assert!(find(&status.conditions, "Suspended").is_none());
    let suspension = status.suspension.unwrap();
    assert!(suspension.suspended_at.is_none() && suspension.last_wake_seconds.is_some(), "{suspension:?}");
    for line in lines.lock().iter() {
        for (index, part) in order.iter().enumerate().take(3) {
            // A part has pods only when those that it needs have all of theirs.
            let needs = order.iter().zip(&expected).skip(index + 1);
            let ready = needs.clone().all(|(part, count)| of(line, part) >= *count);
            assert!(of(line, part) == 0 || ready, "{part} began too early: {line:?}");
        }
    }
    task.abort();
    let replicas = async || space.get(Kind::Deployment, "perses-api").await.unwrap()["spec"]["replicas"].clone();
    assert_eq!(replicas().await, 2, "it begins with the fewest");
    // And the number is the autoscaler's again.
    let scale = kube::api::Patch::Merge(json!({"spec": {"replicas": 4}}));
    deployments.patch_scale("perses-api", &params, &scale).await.unwrap();
    space.change(&json!({"users": 12})).await;
    let four = |stack: &PersesStack| {
        let api = stack.status.as_ref().and_then(|status| status.api.as_ref());
        api.is_some_and(|api| (api.replicas, api.ready) == (4, 4))
    };
    space.until("four API pods", four).await;
    space.settled().await;
    operator.reconciled_again(&space).await;
    quiet(&space, &operator).await;
    assert_eq!(replicas().await, 4);
    assert_eq!(generated(&space).await, secrets);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_can_be_born_asleep_and_change_its_image_in_its_sleep() {
    let space = Space::new("born").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10, "suspend": true})).await;
    space.condition("Suspended", "True", "Suspended").await;
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), &space.namespace);
    assert!(pods.list(&kube::api::ListParams::default()).await.unwrap().items.is_empty(), "no pod, no migration");
    space.change(&json!({"images": {"apiServer": "example.com/api:2"}})).await;
    within("the new image", DEADLINE, async || {
        let api = space.get(Kind::Deployment, "perses-api").await?;
        (api["spec"]["template"]["spec"]["containers"][0]["image"] == "example.com/api:2").then_some(())
    })
    .await;
    space.change(&json!({"suspend": false})).await;
    space.settled().await;
    let jobs = space.objects().await.into_iter().filter(|object| object["kind"] == "Job");
    let images: Vec<_> = jobs
        .map(|job| job["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(images, ["example.com/api:2"], "only the schema of the image that starts was made");
    drop(operator);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_still_ends_keeps_what_it_needs() {
    let space = Space::new("ending").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10})).await;
    space.settled().await;
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), &space.namespace);
    let api = kube::api::ListParams::default().labels("app.kubernetes.io/component=api");
    let last = pods.list(&api).await.unwrap().items.remove(0).name_any();
    let hold = async |finalizers: serde_json::Value| {
        let patch = kube::api::Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
        pods.patch(&last, &kube::api::PatchParams::default(), &patch).await.unwrap();
    };
    hold(json!(["example.com/requests-in-flight"])).await;
    space.change(&json!({"suspend": true})).await;
    within("the Deployment to have no pod that stays", DEADLINE, async || {
        let pod = pods.get(&last).await.unwrap();
        let deployment = space.get(Kind::Deployment, "perses-api").await.unwrap();
        let none = deployment["status"]["replicas"].as_i64().unwrap_or_default() == 0;
        (pod.metadata.deletion_timestamp.is_some() && none).then_some(())
    })
    .await;
    // Looked at from the beginning since then.
    operator.reconciled("waiting").await;
    operator.reconciled("waiting").await;
    let message = space.condition("Suspended", "False", "Suspending").await;
    assert!(message.contains("left: API, PgBouncer, Redis, PostgreSQL"), "{message}");
    let others =
        [(Kind::Deployment, "perses-pgbouncer"), (Kind::Deployment, "perses-redis"), (Kind::StatefulSet, "perses-db")];
    for (kind, name) in others {
        let replicas = space.get(kind, name).await.unwrap()["spec"]["replicas"].clone();
        assert_ne!(replicas, 0, "{name} was stopped under the API's last pod");
    }
    hold(json!([])).await;
    space.condition("Suspended", "True", "Suspended").await;
}
