//! Kubeconfig files.

use base64::Engine;
use serde_json::{Value, json};

use super::pki::Pair;

/// The text of a kubeconfig that trusts `authority` (PEM) and signs in with a client certificate.
///
/// JSON, which every reader of YAML takes.
pub(super) fn text(cluster: &str, server: &str, authority: &str, user: &str, pair: &Pair) -> String {
    let encode = |pem: &str| base64::engine::general_purpose::STANDARD.encode(pem);
    let config: Value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": encode(authority)}}],
        "users": [{"name": user, "user": {
            "client-certificate-data": encode(&pair.cert),
            "client-key-data": encode(&pair.key),
        }}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": user}}],
        "current-context": cluster,
    });
    format!("{config:#}\n")
}

/// A client made from the kubeconfig in `file`.
pub(super) async fn config(file: &std::path::Path) -> anyhow::Result<kube::Config> {
    use anyhow::Context;
    let parsed = kube::config::Kubeconfig::read_from(file).with_context(|| format!("reading {}", file.display()))?;
    let mut config = kube::Config::from_custom_kubeconfig(parsed, &kube::config::KubeConfigOptions::default())
        .await
        .with_context(|| format!("using {}", file.display()))?;
    // Proxy variables of the environment are not meant for a cluster on this machine.
    config.proxy_url = None;
    Ok(config)
}
