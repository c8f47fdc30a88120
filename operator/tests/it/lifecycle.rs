//! From a spec to a running stack and back, and what happens when something is in the way.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use persesstack_operator::api::v1alpha1::PersesStack;
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::conditions::is_true;
use serde_json::{Value, json};

use crate::cluster::{DEADLINE, Operator, REPAIR, STACK, Space, World, control_plane, generated, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_becomes_ready_and_then_nothing_is_written() {
    let space = Space::new("create").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10})).await;
    let stack = space.settled().await;

    let status = stack.status.unwrap();
    assert_eq!(status.url.as_deref(), Some(format!("http://perses-api.{}.svc:8080", space.namespace).as_str()));
    let api = status.api.unwrap();
    assert_eq!(api.summary, format!("{0}/{0}", api.replicas));
    for (kind, name) in [
        (Kind::Deployment, "perses-api"),
        (Kind::Service, "perses-api"),
        (Kind::HorizontalPodAutoscaler, "perses-api"),
        (Kind::PodDisruptionBudget, "perses-api"),
        (Kind::Deployment, "perses-redis"),
        (Kind::Deployment, "perses-pgbouncer"),
        (Kind::StatefulSet, "perses-db"),
        (Kind::PersistentVolumeClaim, "perses-db"),
        (Kind::Secret, "perses-keys"),
        (Kind::Secret, "perses-admin"),
    ] {
        assert!(space.get(kind, name).await.is_some(), "{kind:?} {name}");
    }

    quiet(&space, &operator).await;
    operator.stop().await;
    let restarted = Operator::start(&space);
    quiet(&space, &restarted).await;
    assert_eq!(restarted.faults.count(), 0, "a restart writes nothing: {:?}", restarted.faults.writes());
}

/// Lets the last events arrive, then counts at the API server that nothing is written while the operator is woken again
/// and again.
pub(crate) async fn quiet(space: &Space, operator: &Operator) {
    let agent = format!("operator-of-{}", space.namespace);
    within("the operator to have looked", DEADLINE, async || (operator.reconciles("ok") > 0).then_some(())).await;
    // What a reconcile does last, its events, may be on their way: the second of two that follow each other began after them.
    operator.reconciled_again(space).await;
    let log = control_plane().audit();
    let mark = log.mark().unwrap();
    for round in 0..3 {
        // A label of our own on the stack wakes the operator and gives it nothing to do.
        let patch = Patch::Merge(json!({"metadata": {"labels": {"round": round.to_string()}}}));
        let woken = operator.reconciled("ok");
        tokio::join!(woken, async {
            space.stacks().patch(STACK, &PatchParams::default(), &patch).await.unwrap();
        });
    }
    let writes = log.writes_since(mark, |event| event.user_agent == agent).unwrap();
    assert!(writes.is_empty(), "{writes:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_edited_field_is_exactly_one_write() {
    let space = Space::new("one").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10})).await;
    space.settled().await;
    quiet(&space, &operator).await;
    let (before, looks) = (operator.faults.count(), operator.reconciles("ok"));
    let patch = Patch::Merge(json!({"spec": {"ports": [{"name": "http", "port": 8080, "targetPort": 9999}]}}));
    space.api(Kind::Service).patch("perses-api", &PatchParams::default(), &patch).await.unwrap();
    within("the repair", REPAIR, async || {
        let service = space.get(Kind::Service, "perses-api").await?;
        (service["spec"]["ports"] == json!([{"name": "http", "port": 8080, "protocol": "TCP", "targetPort": "http"}]))
            .then_some(())
    })
    .await;
    // Until the reconcile that repaired it has ended, its request may be missing in the log.
    within("the reconcile to end", DEADLINE, async || (operator.reconciles("ok") > looks).then_some(())).await;
    quiet(&space, &operator).await;
    let writes = operator.faults.writes().split_off(before);
    assert_eq!(writes.len(), 1, "{writes:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_missing_is_waited_for() {
    let space = Space::new("waits").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    let database = json!({"type": "External", "external": {"secretRef": {"name": "pg"}, "maxConnections": 200}});
    space.create(&json!({"users": 10, "database": database})).await;
    let message = space.condition("Reconciling", "True", "SecretNotFound").await;
    assert!(message.contains("Secret pg"), "{message}");
    within("what does not need it", DEADLINE, async || space.get(Kind::Service, "perses-api").await).await;
    for name in ["perses-pgbouncer", "perses-api"] {
        assert!(space.get(Kind::Deployment, name).await.is_none(), "{name}");
    }

    let secrets: Api<Secret> = Api::namespaced(space.client.clone(), &space.namespace);
    let secret = json!({"metadata": {"name": "pg"}, "stringData": {
        "host": "pg.example", "dbname": "perses", "user": "perses", "password": "secret-word"}});
    let started = std::time::Instant::now();
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    within("the stack to go on", REPAIR, async || space.get(Kind::Deployment, "perses-pgbouncer").await).await;
    assert!(started.elapsed() < REPAIR);
    space.settled().await;
    assert!(space.get(Kind::StatefulSet, "perses-db").await.is_none());

    // A rotated password reaches the pooler without anybody telling the operator.
    let old = space.get(Kind::Secret, "perses-pgbouncer").await.unwrap()["data"].clone();
    let patch = Patch::Merge(json!({"stringData": {"password": "another-word"}}));
    secrets.patch("pg", &PatchParams::default(), &patch).await.unwrap();
    within("the pooler's configuration to follow", REPAIR, async || {
        let new = space.get(Kind::Secret, "perses-pgbouncer").await?["data"].clone();
        (new != old).then_some(())
    })
    .await;
    drop(operator);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spec_that_cannot_be_carried_out_is_told_and_writes_nothing() {
    let space = Space::new("impossible").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 500})).await;
    let message = space.condition("Stalled", "True", "DatabaseNotChosen").await;
    assert!(message.contains("spec.database.type"), "{message}");
    assert!(space.objects().await.is_empty());
    // The way out that the message names.
    space.change(&json!({"database": {"type": "Standalone"}})).await;
    let stack = space.settled().await;
    assert!(!is_true(&stack.status.unwrap().conditions, "Stalled"));
    drop(operator);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_object_is_left_alone_and_the_rest_goes_on() {
    let space = Space::new("foreign").await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "perses-redis"},
                         "spec": {"ports": [{"port": 1}]}});
    let service = serde_json::from_value(service).unwrap();
    let before = space.api(Kind::Service).create(&PostParams::default(), &service).await.unwrap();
    let (_world, _operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10})).await;
    let message = space.condition("NameConflict", "True", "ForeignObject").await;
    assert!(message.contains("Service perses-redis"), "{message}");
    within("the rest", DEADLINE, async || space.get(Kind::Deployment, "perses-api").await).await;
    let after = space.api(Kind::Service).get("perses-redis").await.unwrap();
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version, "it was not touched");

    space.api(Kind::Service).delete("perses-redis", &DeleteParams::default()).await.unwrap();
    // The operator does not watch what is not its own: the next look notices.
    space.change(&json!({"users": 11})).await;
    let stack = space.settled().await;
    assert!(!is_true(&stack.status.unwrap().conditions, "NameConflict"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_longer_wanted_is_deleted() {
    let space = Space::new("prune").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10})).await;
    space.settled().await;
    let configs = || async { names(&space, "Secret", "perses-api-config-").await };
    let first = configs().await;
    space.change(&json!({"cache": {"type": "None"}})).await;
    within("Redis to go", DEADLINE, async || {
        let left = names(&space, "Deployment", "perses-redis").await.len()
            + names(&space, "Service", "perses-redis").await.len();
        (left == 0).then_some(())
    })
    .await;
    space.settled().await;
    let second = configs().await;
    assert!(
        first.iter().all(|name| second.contains(name)),
        "the ReplicaSet to roll back to needs {first:?}: {second:?}"
    );
    assert_eq!(second.len(), 2);
    assert!(generated(&space).await.contains_key("perses-redis"), "a password is kept");
    drop(operator);
}

async fn names(space: &Space, kind: &str, prefix: &str) -> Vec<String> {
    let objects = space.objects().await.into_iter().filter(|object| object["kind"] == kind);
    let names = objects.filter_map(|object| object["metadata"]["name"].as_str().map(str::to_owned));
    names.filter(|name| name.starts_with(prefix)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_and_credentials_survive_the_stack() {
    let space = Space::new("retain").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10})).await;
    space.settled().await;
    let (secrets, claim) =
        (generated(&space).await, space.get(Kind::PersistentVolumeClaim, "perses-db").await.unwrap());
    assert_eq!(secrets.len(), 5);
    space.delete().await;
    let left: Vec<Value> = space.objects().await;
    let left: Vec<_> = left.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(left.len(), 6, "five Secrets and the claim: {left:?}");
    assert_eq!(generated(&space).await, secrets);

    space.create(&json!({"users": 10})).await;
    space.settled().await;
    assert_eq!(generated(&space).await, secrets, "adopted");
    let adopted = space.get(Kind::PersistentVolumeClaim, "perses-db").await.unwrap();
    assert_eq!(adopted["metadata"]["uid"], claim["metadata"]["uid"]);

    // With `Delete` nothing is left.
    space.change(&json!({"database": {"deletionPolicy": "Delete"}})).await;
    within("the owner references", DEADLINE, async || {
        let owned = space.objects().await.iter().all(|object| object["metadata"]["ownerReferences"].is_array());
        owned.then_some(())
    })
    .await;
    space.delete().await;
    assert!(space.objects().await.is_empty());
    drop(operator);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_encryption_key_is_never_made_anew() {
    let space = Space::new("lost").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10})).await;
    space.settled().await;
    operator.stop().await;
    let key = space.get(Kind::Secret, "perses-keys").await.unwrap();
    space.api(Kind::Secret).delete("perses-keys", &DeleteParams::default()).await.unwrap();
    // Nobody who remembers it runs.
    let operator = Operator::start(&space);
    let message = space.condition("Reconciling", "True", "EncryptionKeyLost").await;
    assert!(message.contains("backup"), "{message}");
    assert!(space.get(Kind::Secret, "perses-keys").await.is_none());

    let mut backup = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "perses-keys"}});
    backup["metadata"]["labels"] = key["metadata"]["labels"].clone();
    backup["data"] = key["data"].clone();
    let backup = serde_json::from_value(backup).unwrap();
    space.api(Kind::Secret).create(&PostParams::default(), &backup).await.unwrap();
    space.settled().await;
    assert_eq!(space.get(Kind::Secret, "perses-keys").await.unwrap()["data"], key["data"]);
    drop(operator);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replicas_belong_to_the_autoscaler() {
    let space = Space::new("replicas").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10, "api": {"minReplicas": 2, "maxReplicas": 6}})).await;
    space.settled().await;
    let replicas = || async { space.get(Kind::Deployment, "perses-api").await.unwrap()["spec"]["replicas"].clone() };
    assert_eq!(replicas().await, 2);
    // As the autoscaler does it: through the scale subresource.
    let scale = Patch::Merge(json!({"spec": {"replicas": 5}}));
    let params = PatchParams { field_manager: Some("kube-controller-manager".to_owned()), ..PatchParams::default() };
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> =
        Api::namespaced(space.client.clone(), &space.namespace);
    deployments.patch_scale("perses-api", &params, &scale).await.unwrap();
    // Every kind of change of ours, and a restart, with the number where it is.
    let observer = watch_replicas(&space);
    space.settled().await;
    space.change(&json!({"users": 12})).await;
    space.settled().await;
    space.change(&json!({"images": {"apiServer": "example.com/api:2"}})).await;
    space.settled().await;
    operator.stop().await;
    let restarted = Operator::start(&space);
    quiet(&space, &restarted).await;
    assert_eq!(replicas().await, 5);
    assert_eq!(observer.finish(), [5], "never reset, not even for a moment");
}

/// Records every value of the API Deployment's `spec.replicas`.
struct Observer {
    task: tokio::task::JoinHandle<()>,
    seen: std::sync::Arc<parking_lot::Mutex<Vec<i64>>>,
}

impl Observer {
    fn finish(self) -> Vec<i64> {
        self.task.abort();
        self.seen.lock().clone()
    }
}

fn watch_replicas(space: &Space) -> Observer {
    use futures::StreamExt;
    use kube::runtime::{WatchStreamExt, watcher};
    let seen = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
    let record = seen.clone();
    let config = watcher::Config::default().fields("metadata.name=perses-api");
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> =
        Api::namespaced(space.client.clone(), &space.namespace);
    let mut events = watcher(deployments, config).default_backoff().applied_objects().boxed();
    let task = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let Some(replicas) = event.ok().and_then(|found| found.spec?.replicas).map(i64::from) else { continue };
            let mut record = record.lock();
            if record.last() != Some(&replicas) {
                record.push(replicas);
            }
        }
    });
    Observer { task, seen }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_waits_for_the_schema_and_never_for_less() {
    let space = Space::new("schema").await;
    let operator = Operator::start(&space);
    let world = World::with(&space, |component| component != "migration");
    space.create(&json!({"users": 10})).await;
    space.condition("DatabaseReady", "False", "Migrating").await;
    space
        .until("the database, not the API", |stack: &PersesStack| {
            stack
                .status
                .as_ref()
                .is_some_and(|status| status.conditions.iter().any(|found| found.reason == "WaitingForSchema"))
        })
        .await;
    assert!(space.get(Kind::Deployment, "perses-api").await.is_none());
    drop(world);
    let _world = World::start(&space);
    // The pods that failed are replaced by the Job's controller after ten seconds.
    space.settled().await;

    // The Job is gone and cannot run: a change of the configuration alone is rolled out all the same.
    let job = names(&space, "Job", "perses-migrate-").await.remove(0);
    let before = space.get(Kind::Deployment, "perses-api").await.unwrap()["metadata"]["generation"].clone();
    space.api(Kind::Job).delete(&job, &DeleteParams::background()).await.unwrap();
    space.change(&json!({"api": {"config": {"security": {"readonly": true}}}})).await;
    within("the rollout", Duration::from_secs(20), async || {
        let now = space.get(Kind::Deployment, "perses-api").await?["metadata"]["generation"].clone();
        (now != before).then_some(())
    })
    .await;
    drop(operator);
}
