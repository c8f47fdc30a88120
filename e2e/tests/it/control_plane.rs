//! The light control plane.

use std::path::Path;
use std::time::Duration;

use e2e::cluster::ControlPlane;
use e2e::wait::wait_until;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn two_side_by_side_serve_and_leave_nothing() {
    let (first, second) = tokio::join!(ControlPlane::start(), ControlPlane::start());
    let (first, second) = (first.unwrap(), second.unwrap());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "only-in-the-first"}})).unwrap();
    Api::all(first.client().unwrap()).create(&PostParams::default(), &namespace).await.unwrap();
    let others: Api<Namespace> = Api::all(second.client().unwrap());
    assert!(others.get_opt("only-in-the-first").await.unwrap().is_none());

    let folders: Vec<_> = [&first, &second].map(|c| c.kubeconfig().parent().unwrap().to_owned()).into();
    assert!(folders.iter().all(|folder| folder.is_dir() && !processes_with(folder).is_empty()));
    drop((first, second));
    for folder in folders {
        assert!(!folder.exists(), "{} is left", folder.display());
        assert_eq!(processes_with(&folder), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn controllers_work_and_the_audit_log_counts_by_user_agent() {
    let mut control_plane = ControlPlane::start().await.unwrap();
    let client = control_plane.client_named("some-operator/1.2").unwrap();
    let audit = control_plane.audit();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "none"}]}}}});
    let mark = audit.mark().unwrap();
    deployments.patch("web", &PatchParams::apply("test"), &Patch::Apply(&deployment)).await.unwrap();
    deployments.list(&ListParams::default()).await.unwrap();
    let ours = |event: &e2e::cluster::audit::Event| event.user_agent.starts_with("some-operator/");
    let writes = audit.writes_since(mark, ours).unwrap();
    assert_eq!(writes.len(), 1, "{writes:?}");
    assert_eq!((writes[0].verb.as_str(), writes[0].object_ref.resource.as_str()), ("patch", "deployments"));
    assert_eq!((writes[0].object_ref.name.as_str(), writes[0].response_status.code), ("web", 201));

    wait_until("the controllers to make two pods", Duration::from_secs(30), || async {
        let status = deployments.get_status("web").await?.status.unwrap_or_default();
        Ok(status.replicas == Some(2) && status.observed_generation == Some(1))
    })
    .await
    .unwrap();

    // An API server that goes away and comes back: the same data, the same log.
    control_plane.kill_apiserver().unwrap();
    assert!(deployments.get("web").await.is_err());
    control_plane.start_apiserver().await.unwrap();
    assert_eq!(deployments.get("web").await.unwrap().metadata.generation, Some(1));
    deployments.delete("web", &DeleteParams::background()).await.unwrap();
    assert!(audit.writes_since(mark, ours).unwrap().iter().any(|event| event.verb == "delete"));
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_removed_by_the_controllers() {
    let control_plane = ControlPlane::start().await.unwrap();
    let client = control_plane.client().unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": "short-lived"}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, "short-lived");
    let map = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    namespaces.delete("short-lived", &DeleteParams::default()).await.unwrap();
    wait_until("the namespace to go", Duration::from_mins(1), || async {
        Ok(namespaces.get_opt("short-lived").await?.is_none())
    })
    .await
    .unwrap();
}

/// Command lines of living processes that name `folder`.
fn processes_with(folder: &Path) -> Vec<String> {
    let needle = folder.to_str().unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(needle))
        .collect()
}
