//! Whatever is deleted or edited comes back within five seconds.

use kube::api::{DeleteParams, Patch, PatchParams};
use persesstack_operator::apply::kind::Kind;
use serde_json::{Value, json};

use crate::cluster::{Operator, REPAIR, Space, World, generated, within};

const INSTANCE: &str = "app.kubernetes.io/instance";

/// Kind and name of every object of the stack.
async fn ours(space: &Space) -> Vec<(Kind, String)> {
    let ours = |object: &Value| object["metadata"]["labels"][INSTANCE] == "perses";
    let named = |object: Value| {
        let kind = Kind::all().find(|kind| object["kind"] == kind.name())?;
        Some((kind, object["metadata"]["name"].as_str()?.to_owned()))
    };
    space.objects().await.into_iter().filter(ours).filter_map(named).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_object_that_is_deleted_comes_back() {
    let space = Space::new("deleted").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10})).await;
    space.settled().await;
    let (all, secrets) = (ours(&space).await, generated(&space).await);
    assert!(all.len() > 20, "{all:?}");
    for (kind, name) in all {
        let uid = space.get(kind, &name).await.unwrap()["metadata"]["uid"].clone();
        space.api(kind).delete(&name, &DeleteParams::background()).await.unwrap();
        within(&format!("{kind:?} {name} to come back"), REPAIR, async || {
            let again = space.get(kind, &name).await?;
            (again["metadata"]["uid"] != uid && again["metadata"]["deletionTimestamp"].is_null()).then_some(())
        })
        .await;
    }
    assert_eq!(generated(&space).await, secrets, "a deleted key or password comes back with its value");
    space.settled().await;
    drop(operator);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_object_that_is_edited_is_repaired() {
    let space = Space::new("edited").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10})).await;
    space.settled().await;
    // A label of ours on every object: the one that the watches select on, and another.
    for key in ["app.kubernetes.io/managed-by", "app.kubernetes.io/part-of"] {
        for (kind, name) in ours(&space).await {
            let wanted = space.get(kind, &name).await.unwrap()["metadata"]["labels"].clone();
            let patch = Patch::Merge(json!({"metadata": {"labels": {(key): null}}}));
            space.api(kind).patch(&name, &PatchParams::default(), &patch).await.unwrap();
            within(&format!("label {key} of {kind:?} {name} to come back"), REPAIR, async || {
                (space.get(kind, &name).await?["metadata"]["labels"] == wanted).then_some(())
            })
            .await;
        }
    }
    // A field of each kind whose content is ours.
    let other_script = json!({"data": {"start.sh": "exit 0"}});
    // Another port under the same name: an apply alone would be refused.
    let other_port = json!({"spec": {"ports": [{"name": "http", "port": 9999, "targetPort": "http"}]}});
    let edits = [
        (Kind::Service, "perses-api", other_port, "/spec/ports"),
        (Kind::Deployment, "perses-pgbouncer", json!({"spec": {"replicas": 7}}), "/spec/replicas"),
        (Kind::Deployment, "perses-redis", json!({"spec": {"revisionHistoryLimit": 9}}), "/spec/revisionHistoryLimit"),
        (Kind::StatefulSet, "perses-db", json!({"spec": {"replicas": 0}}), "/spec/replicas"),
        (Kind::Service, "perses-db", json!({"spec": {"selector": {"app.kubernetes.io/name": "x"}}}), "/spec/selector"),
        (Kind::ConfigMap, "perses-db", other_script, "/data"),
        (Kind::Secret, "perses-provisioning", json!({"data": {"globaldatasources.json": "W10K"}}), "/data"),
        (Kind::HorizontalPodAutoscaler, "perses-api", json!({"spec": {"maxReplicas": 99}}), "/spec/maxReplicas"),
        (Kind::PodDisruptionBudget, "perses-api", json!({"spec": {"maxUnavailable": 2}}), "/spec/maxUnavailable"),
        (
            Kind::ServiceAccount,
            "perses-api",
            json!({"automountServiceAccountToken": true}),
            "/automountServiceAccountToken",
        ),
    ];
    for (kind, name, edit, field) in edits {
        let read = async || space.get(kind, name).await.unwrap().pointer(field).cloned();
        let wanted = read().await;
        space.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(&edit)).await.unwrap();
        within(&format!("{field} of {kind:?} {name} to come back"), REPAIR, async || {
            (read().await == wanted).then_some(())
        })
        .await;
    }
    // What others add is theirs.
    let added = Patch::Merge(json!({"metadata": {"annotations": {"example.com/note": "mine"}}}));
    space.api(Kind::Service).patch("perses-api", &PatchParams::default(), &added).await.unwrap();
    operator.reconciled("ok").await;
    let service = space.get(Kind::Service, "perses-api").await.unwrap();
    assert_eq!(service["metadata"]["annotations"]["example.com/note"], "mine");
}
