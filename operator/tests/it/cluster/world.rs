//! Plays the kubelet of one namespace: pods run and are ready, pods of Jobs succeed.

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::Space;

/// Runs until it is dropped.
pub(crate) struct World(JoinHandle<()>);

impl World {
    /// Every pod gets well.
    pub(crate) fn start(space: &Space) -> Self {
        Self::with(space, |_| true)
    }

    /// Pods of a component (label `app.kubernetes.io/component`) get well where `works` says so; others do not start, and
    /// those of Jobs fail.
    pub(crate) fn with(space: &Space, works: impl Fn(&str) -> bool + Send + 'static) -> Self {
        Self::judging(space, move |component, _| if works(component) { Fate::Works } else { Fate::Fails(1) })
    }

    /// Pods of a component and an image meet what `fate` says.
    pub(crate) fn judging(space: &Space, fate: impl Fn(&str, &str) -> Fate + Send + 'static) -> Self {
        let pods: Api<Pod> = Api::namespaced(space.client.clone(), &space.namespace);
        let client = space.client.clone();
        Self(tokio::spawn(async move {
            let mut events = watcher(pods, watcher::Config::default()).default_backoff().applied_objects().boxed();
            while let Some(event) = events.next().await {
                let Ok(pod) = event else { continue };
                let component = pod.labels().get("app.kubernetes.io/component").cloned().unwrap_or_default();
                let started = pod.status.as_ref().is_some_and(|status| status.start_time.is_some());
                if started || pod.metadata.deletion_timestamp.is_some() {
                    continue;
                }
                let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
                let (name, image) = container
                    .map(|container| (container.name.clone(), container.image.clone().unwrap_or_default()))
                    .unwrap_or_default();
                let fate = fate(&component, &image);
                if let Some(status) = status(&component, &name, fate) {
                    set(&client, &pod, &status).await;
                }
            }
        }))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What becomes of a pod.
#[derive(Clone, Copy)]
pub(crate) enum Fate {
    /// It gets ready; that of a Job succeeds.
    Works,
    /// It does not start; the container of a Job ends with this status.
    Fails(i32),
    /// It runs, and neither gets ready nor comes to its end.
    Hangs,
}

fn status(component: &str, container: &str, fate: Fate) -> Option<Value> {
    let now = k8s_openapi::jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let job = component == "migration";
    match (job, fate) {
        (true, Fate::Works) => Some(json!({"phase": "Succeeded", "startTime": now})),
        (true, Fate::Fails(code)) => Some(json!({"phase": "Failed", "startTime": now, "containerStatuses": [
            {"name": container, "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": code, "reason": "Error", "startedAt": now, "finishedAt": now}}}]})),
        (false, Fate::Works) => Some(json!({"phase": "Running", "startTime": now, "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": now},
            {"type": "ContainersReady", "status": "True", "lastTransitionTime": now}]})),
        (false, Fate::Fails(_)) => None,
        (_, Fate::Hangs) => Some(json!({"phase": "Running", "startTime": now})),
    }
}

async fn set(client: &Client, pod: &Pod, status: &Value) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({"metadata": {"uid": pod.uid()}, "status": status}));
    // A pod that is gone by now needs no fate.
    let _ = pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch).await;
}
