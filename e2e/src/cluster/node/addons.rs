//! What runs as pods in every cluster: CoreDNS and metrics-server; and the storage class.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node as KubeNode;
use kube::api::DynamicObject;
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};

use super::network::Network;
use super::{Node, PAUSE, files};
use crate::images::{Config, Files, Image, write_archive};
use crate::paths::workspace_dir;
use crate::wait::{wait_for, wait_until};

const MANIFESTS: [&str; 3] = ["storage.yaml", "coredns.yaml", "metrics-server.yaml"];

/// Makes and loads the images of the add-ons and of the process that holds a pod's namespaces. Each is one static program.
pub(super) fn load_images(node: &Node, cluster: &Path, metrics_server: &Path) -> Result<()> {
    let programs = [
        ("pause", cluster.join("pause"), PAUSE.to_owned()),
        ("coredns", cluster.join("coredns"), crate::images::product::name("coredns")),
        ("metrics-server", metrics_server.join("metrics-server"), crate::images::product::name("metrics-server")),
    ];
    let mut images = Vec::new();
    for (program, file, name) in programs {
        let mut layer = Files::default();
        layer.copy(file, program, 0o755).folder("tmp", 0o1777);
        let config =
            Config { entrypoint: vec![format!("/{program}")], user: "65532:65532".into(), ..Config::default() };
        images.push(Image { name, config, layers: vec![layer.finish()?] });
    }
    let archive = node.folder().join("add-ons.tar");
    write_archive(&images, &archive)?;
    node.load_image(&archive)?;
    std::fs::remove_file(archive).context("removing the archive of the add-ons")
}

/// Applies the manifests of `e2e/assets/cluster` with this cluster's addresses and certificates.
pub(super) async fn apply(node: &Node, network: Network) -> Result<()> {
    let kubectl = node.kubectl()?;
    let pki = |name: &str| -> Result<String> {
        let file = node.folder().join("pki").join(name);
        let content = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok(base64::engine::general_purpose::STANDARD.encode(content))
    };
    for name in MANIFESTS {
        let file = workspace_dir().join("e2e/assets/cluster").join(name);
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let text = text
            .replace("${DNS}", &network.dns())
            .replace("${METRICS_CERT}", &pki("metrics-server.crt")?)
            .replace("${METRICS_KEY}", &pki("metrics-server.key")?)
            .replace("${CA}", &pki("ca.crt")?);
        kubectl.apply("kube-system", &text).await.with_context(|| format!("applying {name}"))?;
    }
    Ok(())
}

/// Waits until the node is ready and the add-ons serve; `check` ends the wait when it fails.
pub(super) async fn wait(client: &Client, deadline: Duration, check: impl Fn() -> Result<()>) -> Result<()> {
    let nodes: Api<KubeNode> = Api::all(client.clone());
    wait_for("the node to be ready", deadline, || async {
        check()?;
        let status = nodes.get_opt(files::NODE).await?.and_then(|node| node.status);
        let conditions = status.and_then(|status| status.conditions).unwrap_or_default();
        let Some(ready) = conditions.into_iter().find(|condition| condition.type_ == "Ready") else { return Ok(None) };
        anyhow::ensure!(ready.status == "True", ready.message.unwrap_or_default());
        Ok(Some(()))
    })
    .await?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "kube-system");
    for name in ["coredns", "metrics-server"] {
        wait_until(&format!("{name} to be available"), deadline, || async {
            check()?;
            let status = deployments.get(name).await?.status.unwrap_or_default();
            Ok(status.available_replicas.unwrap_or_default() > 0)
        })
        .await?;
    }
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apiregistration.k8s.io", "v1", "APIService"));
    let services: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    wait_until("the API metrics.k8s.io to be available", deadline, || async {
        let service = services.get("v1beta1.metrics.k8s.io").await?;
        let conditions = service.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions.iter().any(|condition| condition["type"] == "Available" && condition["status"] == "True"))
    })
    .await
}
