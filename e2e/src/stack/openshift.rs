//! The shape of OpenShift on a plain Kubernetes, as far as pods see it: user ids come from the platform
//! (`e2e/assets/openshift`).

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use super::Kubectl;
use crate::paths::workspace_dir;
use crate::wait::{wait_for, wait_until};

const RANGE: &str = "openshift.io/sa.scc.uid-range";
const DEADLINE: Duration = Duration::from_mins(1);

/// Installs the policies, which touch only namespaces of [`namespace`].
pub async fn install(kubectl: &Kubectl) -> Result<()> {
    let platform = workspace_dir().join("e2e/assets/openshift/platform.yaml");
    let platform = platform.to_string_lossy();
    let needs = "the cluster must serve MutatingAdmissionPolicy (admissionregistration.k8s.io/v1beta1)";
    kubectl.run(&["apply", "--server-side", "-f", &platform]).await.context(needs)?;
    let definition = "crd/securitycontextconstraints.security.openshift.io";
    kubectl.run(&["wait", "--for=condition=Established", "--timeout=60s", definition]).await.map(drop)
}

/// Makes a namespace, or changes it, so that its pods run as a user of its own, and waits until that is in force. Gives
/// the user's id.
pub async fn namespace(client: &kube::Client, name: &str) -> Result<u32> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let known = namespaces.get_opt(name).await?.and_then(|found| found.metadata.annotations?.remove(RANGE));
    let known = known.and_then(|range| range.split('/').next()?.parse().ok());
    // Ranges as OpenShift gives them: ten thousand ids each, from a thousand million on. A namespace keeps its own, for its
    // volumes have files of that user.
    let id: u32 = known.unwrap_or_else(|| 1_000_000_000 + 10_000 * rand::random_range(1..90_000_u32));
    let ours = PatchParams::apply("e2e-openshift").force();
    let shape = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": name, "labels": {"e2e.persesstack.io/platform": "openshift"},
        "annotations": {(RANGE): format!("{id}/10000")}}});
    namespaces.patch(name, &ours, &Patch::Apply(&shape)).await?;
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), name);
    let line = format!("{id}:x:{id}:0:{id} user:/:/sbin/nologin\n");
    let passwd = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "platform-passwd"},
        "data": {"passwd": format!("root:x:0:0:root:/:/sbin/nologin\n{line}")}});
    configs.patch("platform-passwd", &ours, &Patch::Apply(&passwd)).await?;

    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
    wait_for("the account of the pods", DEADLINE, || async { Ok(accounts.get_opt("default").await?) }).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), name);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let pod = |security: serde_json::Value| {
        serde_json::from_value::<Pod>(json!({"metadata": {"name": "probe"},
            "spec": {"securityContext": security, "containers": [{"name": "a", "image": "a"}]}}))
    };
    let asks_for_nothing = pod(json!({}))?;
    wait_until("the platform to give user ids", DEADLINE, || async {
        let made = pods.create(&dry, &asks_for_nothing).await?;
        let container = made.spec.and_then(|spec| spec.containers.into_iter().next()).context("a pod of nothing")?;
        Ok(container.security_context.and_then(|context| context.run_as_user) == Some(id.into()))
    })
    .await?;
    // Each policy is in force a moment after it was made.
    for fixed in [json!({"runAsUser": 999}), json!({"fsGroup": 999})] {
        let chosen = pod(fixed.clone())?;
        wait_until(&format!("the platform to refuse pods with {fixed}"), DEADLINE, || async {
            Ok(pods.create(&dry, &chosen).await.is_err())
        })
        .await?;
    }
    Ok(id)
}
