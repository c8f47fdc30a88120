//! The product on a cluster: operator installed, a `PersesStack` applied, a Prometheus beside it. Used by the demo and by
//! the end-to-end tests.

mod kubectl;
pub mod openshift;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

use crate::paths::workspace_dir;
use crate::perses::Perses;

pub use kubectl::Kubectl;

/// Namespace of the operator (`config/default`).
pub const OPERATOR_NAMESPACE: &str = "persesstack-system";
/// How long a stack may take to become ready on a small node.
pub const READY_DEADLINE: Duration = Duration::from_mins(4);

/// Installs CRD, RBAC and operator for local images and waits until the operator serves. Changes nothing when all is there.
pub async fn install_operator(kubectl: &Kubectl) -> Result<()> {
    let overlay = workspace_dir().join("config/local");
    kubectl.run(&["apply", "--server-side", "--force-conflicts", "-k", &overlay.to_string_lossy()]).await?;
    kubectl
        .run(&["-n", OPERATOR_NAMESPACE, "rollout", "status", "deployment", "--timeout=180s"])
        .await
        .context("the operator did not become ready")?;
    Ok(())
}

/// Applies a Prometheus that scrapes itself and the stack, and waits until it serves. Returns its address in the cluster.
pub async fn install_prometheus(kubectl: &Kubectl, namespace: &str) -> Result<String> {
    let manifest = workspace_dir().join("e2e/assets/demo/prometheus.yaml");
    kubectl.run(&["-n", namespace, "apply", "--server-side", "-f", &manifest.to_string_lossy()]).await?;
    kubectl.run(&["-n", namespace, "rollout", "status", "deployment/prometheus", "--timeout=180s"]).await?;
    Ok(format!("http://prometheus.{namespace}.svc:9090"))
}

/// One `PersesStack` of a cluster.
#[derive(Clone)]
pub struct Stack {
    /// The cluster's client.
    pub client: kube::Client,
    /// kubectl for the same cluster.
    pub kubectl: Kubectl,
    /// Namespace of the stack.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Stack {
    /// The custom resource as the API server has it.
    pub async fn resource(&self) -> Result<Value> {
        let object = self.api().get(&self.name).await?;
        Ok(serde_json::to_value(object)?)
    }

    fn api(&self) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("persesstack.io", "v1alpha1", "PersesStack");
        Api::namespaced_with(
            self.client.clone(),
            &self.namespace,
            &ApiResource::from_gvk_with_plural(&kind, "persesstacks"),
        )
    }

    /// The status and message of a condition.
    pub fn condition(resource: &Value, kind: &str) -> Option<(String, String)> {
        let conditions = resource["status"]["conditions"].as_array()?;
        let found = conditions.iter().find(|condition| condition["type"] == kind)?;
        let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        Some((text("status"), format!("{}: {}", text("reason"), text("message"))))
    }

    /// Waits until `Ready` is `True` for the current generation; `progress` sees each new message of the condition.
    pub async fn wait_ready(&self, deadline: Duration, mut progress: impl FnMut(&str)) -> Result<()> {
        let mut last = String::new();
        let started = std::time::Instant::now();
        loop {
            let resource = self.resource().await?;
            let (status, message) = Self::condition(&resource, "Ready")
                .unwrap_or_else(|| (String::new(), "the operator has not looked at it yet".to_owned()));
            if message != last {
                progress(&message);
                last = message;
            }
            if status == "True" && resource["status"]["observedGeneration"] == resource["metadata"]["generation"] {
                return Ok(());
            }
            if started.elapsed() > deadline {
                let conditions = &resource["status"]["conditions"];
                bail!("{}/{} is not Ready after {} s: {conditions:#}", self.namespace, self.name, deadline.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Name and password of the administrator.
    pub async fn admin(&self) -> Result<(String, String)> {
        let secret = self.secret(&format!("{}-admin", self.name)).await?;
        Ok((value(&secret, "username")?, value(&secret, "password")?))
    }

    /// A Secret of the namespace.
    pub async fn secret(&self, name: &str) -> Result<Secret> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        api.get(name).await.with_context(|| format!("reading Secret {}/{name}", self.namespace))
    }

    /// Address of the API's Service, as reachable from the host of a local cluster.
    pub async fn address(&self) -> Result<String> {
        let api: Api<Service> = Api::namespaced(self.client.clone(), &self.namespace);
        let service = api.get(&format!("{}-api", self.name)).await?;
        let ip = service.spec.and_then(|spec| spec.cluster_ip).context("the API's Service has no cluster IP")?;
        Ok(format!("http://{ip}:8080"))
    }

    /// A client of the Service, signed in as administrator.
    pub async fn sign_in(&self) -> Result<Perses> {
        let (user, password) = self.admin().await?;
        Perses::new(&self.address().await?)?.sign_in(&user, &password).await
    }

    /// The ready pods of a component (`api`, `redis`, `database`, `pgbouncer`), as (name, address), sorted by name.
    pub async fn pods(&self, component: &str) -> Result<Vec<(String, String)>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let selector = format!("app.kubernetes.io/instance={},app.kubernetes.io/component={component}", self.name);
        let mut pods: Vec<(String, String)> = api
            .list(&ListParams::default().labels(&selector))
            .await?
            .items
            .into_iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod))
            .filter_map(|pod| Some((pod.metadata.name?, pod.status?.pod_ip?)))
            .collect();
        pods.sort();
        Ok(pods)
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|list| list.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}

/// A value of a Secret as text.
pub fn value(secret: &Secret, key: &str) -> Result<String> {
    let data = secret.data.as_ref().and_then(|data| data.get(key));
    let data = data.with_context(|| format!("the Secret has no key {key}"))?;
    String::from_utf8(data.0.clone()).with_context(|| format!("the Secret's {key} is not text"))
}

/// The base64 form of bytes, as Secrets in manifests have it.
pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
