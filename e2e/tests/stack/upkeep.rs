//! What the operator keeps true, and that it is quiet when all is true.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::cluster::audit::Mark;
use e2e::stack::OPERATOR_NAMESPACE;
use e2e::wait::wait_until;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::world::World;

/// How soon a change of an owned object must be undone.
const REPAIR: Duration = Duration::from_secs(5);
/// How long the operator is watched for writes.
const WINDOW: Duration = Duration::from_secs(60);
/// The operator, as the API server's audit log names it.
const OPERATOR: &str = "system:serviceaccount:persesstack-system:persesstack-operator";
const MANAGED: &str = "app.kubernetes.io/managed-by=persesstack-operator,app.kubernetes.io/instance=perses";

/// The kinds that the operator makes, and an edit of a field that it owns.
fn kinds() -> Vec<(&'static str, &'static str, &'static str, &'static str, Value)> {
    let label = json!({"metadata": {"labels": {"app.kubernetes.io/part-of": "somebody-else"}}});
    vec![
        (
            "apps",
            "v1",
            "Deployment",
            "deployments",
            json!({"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 777}}}}),
        ),
        ("", "v1", "Service", "services", json!({"spec": {"selector": {"app.kubernetes.io/component": "nobody"}}})),
        ("", "v1", "ServiceAccount", "serviceaccounts", label.clone()),
        (
            "autoscaling",
            "v2",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
            json!({"spec": {"maxReplicas": 77}}),
        ),
        ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", label.clone()),
        ("", "v1", "ConfigMap", "configmaps", label),
    ]
}

fn api(world: &World, group: &str, version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    Api::namespaced_with(world.stack.client.clone(), &world.stack.namespace, &resource)
}

/// Spec, data and labels: what a repair must bring back.
fn wanted(object: &DynamicObject) -> Value {
    let mut wanted = object.data.clone();
    if let Some(map) = wanted.as_object_mut() {
        map.remove("status");
        // a Service gets another address when it is made again
        if let Some(spec) = map.get_mut("spec").and_then(Value::as_object_mut) {
            for field in ["clusterIP", "clusterIPs", "replicas"] {
                spec.remove(field);
            }
        }
    }
    json!({"data": wanted, "labels": object.metadata.labels})
}

#[tokio::test]
async fn every_owned_object_comes_back_within_five_seconds() -> Result<()> {
    let world = World::enter().await?;
    let mut seen = 0;
    for (group, version, kind, plural, edit) in kinds() {
        let api = api(&world, group, version, kind, plural);
        for object in api.list(&ListParams::default().labels(MANAGED)).await?.items {
            let name = object.metadata.name.clone().context("an object without name")?;
            let before = wanted(&object);
            seen += 1;

            api.patch(&name, &PatchParams::apply("drift-test"), &Patch::Merge(&edit)).await?;
            let started = Instant::now();
            wait_until(&format!("the edited {kind} {name} to be repaired"), REPAIR, || async {
                Ok(wanted(&api.get(&name).await?) == before)
            })
            .await?;
            eprintln!("      {kind} {name}: edited, back after {:.1} s", started.elapsed().as_secs_f32());

            let uid = api.get(&name).await?.metadata.uid;
            api.delete(&name, &DeleteParams::background()).await?;
            let started = Instant::now();
            wait_until(&format!("the deleted {kind} {name} to be there again"), REPAIR, || async {
                let found = api.get_opt(&name).await?;
                Ok(found.is_some_and(|found| found.metadata.uid != uid && found.metadata.deletion_timestamp.is_none()))
            })
            .await?;
            eprintln!("      {kind} {name}: deleted, back after {:.1} s", started.elapsed().as_secs_f32());
            world.stack.wait_ready(e2e::stack::READY_DEADLINE, |_| {}).await?;
        }
    }
    ensure!(seen >= 10, "only {seen} objects carry the label {MANAGED}");
    Ok(())
}

#[tokio::test]
async fn a_steady_stack_is_never_written_also_after_a_restart() -> Result<()> {
    let world = World::enter().await?;
    settled(&world).await?;
    quiet(&world, "a steady stack").await?;

    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(world.stack.client.clone(), OPERATOR_NAMESPACE);
    for pod in pods.list(&ListParams::default()).await?.items {
        pods.delete(&pod.metadata.name.context("a pod without name")?, &DeleteParams::default()).await?;
    }
    let kubectl = &world.stack.kubectl;
    kubectl.run(&["-n", OPERATOR_NAMESPACE, "rollout", "status", "deployment", "--timeout=120s"]).await?;
    quiet(&world, "a restarted operator").await?;

    // One owned field changed: one write, and then quiet again.
    let services = api(&world, "", "v1", "Service", "services");
    let mark = world.cluster.audit()?.mark()?;
    let edit = json!({"spec": {"selector": {"app.kubernetes.io/component": "nobody"}}});
    services.patch("perses-redis", &PatchParams::apply("drift-test"), &Patch::Merge(&edit)).await?;
    wait_until("the Service to be repaired", REPAIR, || async {
        let service = services.get("perses-redis").await?;
        Ok(service.data["spec"]["selector"]["app.kubernetes.io/component"] == "redis")
    })
    .await?;
    settled(&world).await?;
    let writes = writes(&world, mark)?;
    ensure!(writes.len() == 1, "one changed field took {} writes: {writes:#?}", writes.len());
    Ok(())
}

/// Waits until the operator has written nothing for ten seconds.
async fn settled(world: &World) -> Result<()> {
    let mut mark = world.cluster.audit()?.mark()?;
    let mut since = Instant::now();
    wait_until("the operator to settle", Duration::from_secs(120), || {
        let found = writes(world, mark);
        if found.as_ref().is_ok_and(|found| !found.is_empty()) {
            since = Instant::now();
            if let Ok(now) = world.cluster.audit().and_then(|audit| audit.mark()) {
                mark = now;
            }
        }
        let quiet = since.elapsed() >= Duration::from_secs(10);
        async move { found.map(|_| quiet) }
    })
    .await
}

/// The operator's writes since a mark, without leases and access reviews.
fn writes(world: &World, mark: Mark) -> Result<Vec<String>> {
    let events = world.cluster.audit()?.since(mark)?;
    let ours =
        events.iter().filter(|event| event.user.username == OPERATOR && event.is_write() && !event.is_housekeeping());
    Ok(ours.map(ToString::to_string).collect())
}

/// Watches the audit log for the whole window: the only way to show that nothing happens.
async fn quiet(world: &World, what: &str) -> Result<()> {
    let mark = world.cluster.audit()?.mark()?;
    tokio::time::sleep(WINDOW).await;
    let writes = writes(world, mark)?;
    ensure!(writes.is_empty(), "{what}: {} write requests in {} s: {writes:#?}", writes.len(), WINDOW.as_secs());
    Ok(())
}
