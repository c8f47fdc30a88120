//! A stack on Crunchy's operator, which the tests play by hand: its status and its Secrets.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use persesstack_operator::api::v1alpha1::DatabaseType;
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::conditions::{find, is_true};
use serde_json::{Value, json};

use crate::cluster::pgo::{CLUSTER, Pgo, cluster, look, publish};
use crate::cluster::{DEADLINE, Operator, REPAIR, STACK, Space, World, equipped, generated, within};

/// What is changed in a status.
type Edit = fn(&mut Value);

async fn ready(space: &Space) {
    publish(space, "of-crunchys-making").await;
    look(space, |_| {}).await;
}

/// The writes of the operator while it is woken twice.
async fn writes(space: &Space, operator: &Operator) -> usize {
    let before = operator.faults.count();
    for round in 0..2 {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"round": round.to_string()}}}));
        tokio::join!(operator.reconciled("ok"), async {
            space.stacks().patch(STACK, &PatchParams::default(), &patch).await.unwrap();
        });
    }
    // The status of the stack is not among them: nothing changes it.
    operator.faults.count() - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_made_waited_for_and_kept() {
    let Some(plane) = equipped() else { return };
    let space = Space::on(plane, "crunchy").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    // Auto: Crunchy's operator is there.
    space.create(&json!({"users": 100, "exposure": {"type": "None"}})).await;
    let made = cluster(&space).await;
    assert!(made["metadata"]["ownerReferences"].is_null(), "it holds data");
    assert_eq!(made["spec"]["instances"][0]["replicas"], 3);
    assert_eq!(made["spec"]["config"]["parameters"]["max_connections"], 100, "the schema was found");
    let message = space.condition("DatabaseReady", "False", "ClusterNotObserved").await;
    assert!(message.contains("is it running"), "{message}");
    let message = space.condition("Reconciling", "True", "WaitingForCrunchy").await;
    assert!(message.contains("perses-db-pguser-perses"), "{message}");
    within("what needs no database", DEADLINE, async || space.get(Kind::Deployment, "perses-redis").await).await;
    assert!(space.get(Kind::Deployment, "perses-pgbouncer").await.is_none());

    // Credentials alone are not enough: pods would crash-loop.
    publish(&space, "of-crunchys-making").await;
    look(&space, |status| status["patroni"] = json!({"systemIdentifier": ""})).await;
    space.condition("DatabaseReady", "False", "ClusterBootstrapping").await;
    assert!(space.get(Kind::Deployment, "perses-pgbouncer").await.is_none());
    look(&space, |_| {}).await;
    let status = space.settled().await.status.unwrap();
    assert_eq!(status.database.unwrap().type_, DatabaseType::Crunchy);
    let address = status.endpoints.unwrap().database.unwrap();
    assert!(address.starts_with("perses-db-primary."), "{address}");
    assert_eq!(writes(&space, &operator).await, 0);

    // Every line of the formula, broken once; what runs goes on.
    let lines: [(&str, Edit); 7] = [
        ("ClusterNotObserved", |status| status["observedGeneration"] = json!(0)),
        ("ClusterBlocked", |status| {
            status["conditions"].as_array_mut().unwrap().push(json!({"type": "Progressing", "status": "False",
                "reason": "Paused", "message": "paused", "lastTransitionTime": "2026-01-01T00:00:00Z"}));
        }),
        ("ClusterBootstrapping", |status| status["patroni"] = json!({"systemIdentifier": ""})),
        ("InstancesNotReady", |status| status["instances"][0]["readyReplicas"] = json!(2)),
        ("UsersNotCreated", |status| status["usersRevision"] = json!("")),
        ("DatabaseNotCreated", |status| status["databaseRevision"] = json!("")),
        ("BackupsNotReady", |status| status["conditions"][1]["status"] = json!("False")),
    ];
    for (reason, edit) in lines {
        look(&space, edit).await;
        space.condition("DatabaseReady", "False", reason).await;
        let stack = space.stacks().get(STACK).await.unwrap();
        assert!(is_true(&stack.status.unwrap().conditions, "Ready"), "{reason}: the pods still answer");
    }
    look(&space, |_| {}).await;
    space.settled().await;

    // Somebody scales it down by hand; somebody's own annotation is none of our business.
    let api = space.api(Kind::PostgresCluster);
    let edit = json!({"metadata": {"annotations": {"somebody": "x"}}, "spec": {"shutdown": true}});
    api.patch(CLUSTER, &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
    let drift = json!([{"op": "replace", "path": "/spec/instances/0/replicas", "value": 1}]);
    let drift = Patch::<()>::Json(serde_json::from_value(drift).unwrap());
    api.patch(CLUSTER, &PatchParams::default(), &drift).await.unwrap();
    within("the repair", REPAIR, async || {
        (cluster(&space).await["spec"]["instances"][0]["replicas"] == 3).then_some(())
    })
    .await;
    let after = cluster(&space).await;
    assert!(after["metadata"]["annotations"]["somebody"] == "x" && after["spec"]["shutdown"] == true);

    // A rotated password reaches the pooler.
    look(&space, |_| {}).await;
    let old = space.get(Kind::Secret, "perses-pgbouncer").await.unwrap()["data"]["pgbouncer.ini"].clone();
    publish(&space, "rotated").await;
    within("the pooler to follow", REPAIR, async || {
        (space.get(Kind::Secret, "perses-pgbouncer").await?["data"]["pgbouncer.ini"] != old).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_outlives_the_stack_and_its_choices_are_for_good() {
    let Some(plane) = equipped() else { return };
    let space = Space::on(plane, "keeps").await;
    let (_world, _operator) = (World::start(&space), Operator::start(&space));
    let spec = json!({"users": 20, "exposure": {"type": "None"}, "pooler": {"type": "Crunchy"}});
    space.create(&spec).await;
    ready(&space).await;
    let stack = space.settled().await;
    assert!(is_true(&stack.status.unwrap().conditions, "PoolerReady"));
    let made = cluster(&space).await;
    assert_eq!(made["spec"]["proxy"]["pgBouncer"]["config"]["databases"]["*"], "host=perses-db-primary port=5432");
    assert!(space.get(Kind::Deployment, "perses-pgbouncer").await.is_none());

    // Another store needs its name a second time.
    space.change(&json!({"database": {"type": "Standalone"}, "pooler": {"type": "PgBouncer"}})).await;
    let message = space.condition("Stalled", "True", "DatabaseHoldsData").await;
    assert!(message.contains("persesstack.io/confirm-database-change=Standalone"), "{message}");
    // The end of backups too.
    let off = json!({"type": "Crunchy", "crunchy": {"backups": {"type": "None"}}});
    space.change(&json!({"database": off, "pooler": {"type": "Crunchy"}})).await;
    let message = space.condition("Stalled", "True", "BackupsEnd").await;
    assert!(message.contains("persesstack.io/confirm-backup-removal=perses-db"), "{message}");
    assert!(cluster(&space).await["spec"]["backups"].is_object(), "nothing was changed");
    let confirm = json!({"metadata": {"annotations": {"persesstack.io/confirm-backup-removal": CLUSTER}}});
    space.stacks().patch(STACK, &PatchParams::default(), &Patch::Merge(confirm)).await.unwrap();
    within("the backups to end", DEADLINE, async || {
        let found = cluster(&space).await;
        let allowed =
            found["metadata"]["annotations"]["postgres-operator.crunchydata.com/authorizeBackupRemoval"].clone();
        (found["spec"]["backups"].is_null() && allowed == "true").then_some(())
    })
    .await;
    look(&space, |_| {}).await;
    space.settled().await;

    // Made again, the stack takes up the same cluster.
    let uid = cluster(&space).await["metadata"]["uid"].clone();
    space.delete().await;
    assert_eq!(cluster(&space).await["metadata"]["uid"], uid);
    space.create(&spec).await;
    within("backups, as the new spec says", DEADLINE, async || {
        cluster(&space).await["spec"]["backups"].is_object().then_some(())
    })
    .await;
    look(&space, |_| {}).await;
    space.settled().await;
    assert_eq!(cluster(&space).await["metadata"]["uid"], uid);

    // A cluster that is deleted behind our back is made again; its status says that it is not ready.
    space.api(Kind::PostgresCluster).delete(CLUSTER, &DeleteParams::default()).await.unwrap();
    within("another cluster", DEADLINE, async || {
        (space.get(Kind::PostgresCluster, CLUSTER).await?["metadata"]["uid"] != uid).then_some(())
    })
    .await;
    space.condition("DatabaseReady", "False", "ClusterNotObserved").await;

    // With deletionPolicy Delete it goes with the stack.
    space.change(&json!({"database": {"deletionPolicy": "Delete"}})).await;
    within("an owner", DEADLINE, async || {
        cluster(&space).await["metadata"]["ownerReferences"].is_array().then_some(())
    })
    .await;
    space.delete().await;
    assert!(space.get(Kind::PostgresCluster, CLUSTER).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_store_that_is_confirmed_leaves_the_old_one_and_stays() {
    let Some(plane) = equipped() else { return };
    let space = Space::on(plane, "moves").await;
    let (_world, _operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 20, "exposure": {"type": "None"}})).await;
    ready(&space).await;
    space.settled().await;
    let confirm = json!({
        "metadata": {"annotations": {"persesstack.io/confirm-database-change": "Standalone"}},
        "spec": {"database": {"type": "Standalone"}},
    });
    space.stacks().patch(STACK, &PatchParams::default(), &Patch::Merge(confirm)).await.unwrap();
    let moved = space.until("the new store", |stack| {
        let status = stack.status.as_ref();
        let there = status.and_then(|status| status.database.as_ref());
        there.is_some_and(|database| database.type_ == DatabaseType::Standalone)
    });
    moved.await;
    let status = space.settled().await.status.unwrap();
    let message = &find(&status.conditions, "DatabaseReady").unwrap().message;
    assert!(message.contains("for development"), "{message}");
    assert!(space.get(Kind::StatefulSet, CLUSTER).await.is_some());
    assert!(space.get(Kind::PostgresCluster, CLUSTER).await.is_some(), "the old data stays");
    // Auto stays with what is in use, though the other one is still there.
    let back = json!({"metadata": {"annotations": null}, "spec": {"database": {"type": "Auto"}}});
    space.stacks().patch(STACK, &PatchParams::default(), &Patch::Merge(back)).await.unwrap();
    let status = space.settled().await.status.unwrap();
    assert_eq!(status.database.unwrap().type_, DatabaseType::Standalone);
}

/// Pods of the stack that run or start.
async fn pods(space: &Space) -> Vec<String> {
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), &space.namespace);
    let all = pods.list(&ListParams::default()).await.unwrap().items;
    let component = |pod: &Pod| pod.labels().get("app.kubernetes.io/component").cloned();
    all.iter().filter_map(component).filter(|component| component != "migration").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_falls_asleep_last_and_wakes_first() {
    let Some(plane) = equipped() else { return };
    let space = Space::on(plane, "night").await;
    let (_world, operator, pgo) = (World::start(&space), Operator::start(&space), Pgo::start(&space));
    space.create(&json!({"users": 20, "exposure": {"type": "None"}})).await;
    space.settled().await;
    let (secrets, uid) = (generated(&space).await, cluster(&space).await["metadata"]["uid"].clone());
    drop(pgo);

    space.change(&json!({"suspend": true})).await;
    within("the cluster to be shut down", DEADLINE, async || {
        (cluster(&space).await["spec"]["shutdown"] == true).then_some(())
    })
    .await;
    // Nothing of the stack starts while it is asleep, so what is gone now was gone before.
    assert_eq!(pods(&space).await, Vec::<String>::new(), "who uses the database ends before it");
    let message = space.condition("Suspended", "False", "Suspending").await;
    assert!(message.ends_with("left: PostgreSQL"), "{message}");
    look(&space, |_| {}).await;
    space.condition("Suspended", "True", "Suspended").await;
    let conditions = space.stacks().get(STACK).await.unwrap().status.unwrap().conditions;
    for type_ in ["Ready", "ApiReady", "PoolerReady", "CacheReady", "DatabaseReady"] {
        let found = find(&conditions, type_).unwrap();
        assert_eq!((found.status.as_str(), found.reason.as_str()), ("False", "Suspended"), "{type_}");
    }
    assert_eq!(find(&conditions, "Reconciling").unwrap().status, "False");
    assert_eq!(writes(&space, &operator).await, 0);
    operator.stop().await;

    // Another operator wakes it: nothing is remembered.
    let operator = Operator::start(&space);
    operator.reconciled("ok").await;
    assert_eq!(operator.faults.count(), 0, "asleep, a restart writes nothing: {:?}", operator.faults.writes());
    space.change(&json!({"suspend": false})).await;
    within("the cluster to be started", DEADLINE, async || {
        cluster(&space).await["spec"]["shutdown"].is_null().then_some(())
    })
    .await;
    space.condition("Suspended", "False", "Waking").await;
    // Not looked at, without a ready instance, with too few of them: nobody would find a database.
    let stages: [(&str, Edit); 2] = [
        ("none is ready", |status| status["instances"] = json!([{"name": "pg", "replicas": 2}])),
        ("one is missing", |status| status["instances"][0]["readyReplicas"] = json!(1)),
    ];
    operator.reconciled_again(&space).await;
    assert_eq!(pods(&space).await, Vec::<String>::new(), "Crunchy's operator has not looked");
    for (what, edit) in stages {
        look(&space, edit).await;
        operator.reconciled_again(&space).await;
        assert_eq!(pods(&space).await, Vec::<String>::new(), "{what}");
    }
    look(&space, |_| {}).await;
    let status = space.settled().await.status.unwrap();
    assert!(find(&status.conditions, "Suspended").is_none() && status.suspension.unwrap().last_wake_seconds.is_some());
    assert_eq!(generated(&space).await, secrets);
    assert_eq!(cluster(&space).await["metadata"]["uid"], uid);
    assert_eq!(writes(&space, &operator).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn born_asleep_a_cluster_waits_to_be_woken() {
    let Some(plane) = equipped() else { return };
    let space = Space::on(plane, "unborn").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 20, "exposure": {"type": "None"}, "suspend": true})).await;
    assert_eq!(cluster(&space).await["spec"]["shutdown"], true);
    publish(&space, "of-crunchys-making").await;
    // Nothing has been initialised: that needs a pod.
    let unborn: Edit = |status| {
        status["patroni"] = json!({});
        (status["usersRevision"], status["databaseRevision"]) = (json!(""), json!(""));
    };
    look(&space, unborn).await;
    space.condition("Suspended", "True", "Suspended").await;
    space.condition("Reconciling", "False", "Suspended").await;
    space.change(&json!({"suspend": false})).await;
    within("the cluster to be started", DEADLINE, async || {
        cluster(&space).await["spec"]["shutdown"].is_null().then_some(())
    })
    .await;
    look(&space, |status| status["usersRevision"] = json!("")).await;
    operator.reconciled_again(&space).await;
    assert_eq!(pods(&space).await, Vec::<String>::new(), "nobody could sign in");
    look(&space, |_| {}).await;
    space.settled().await;
}
