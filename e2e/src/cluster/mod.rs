//! Real Kubernetes on this machine, without Docker.
//!
//! [`ControlPlane`] is the light variant: etcd, kube-apiserver and kube-controller-manager on loopback, a few seconds
//! from nothing to ready, without root. It proves everything that needs no running pod. [`Node`] is a whole cluster that
//! runs pods, in a network namespace of its own. [`Cluster`] is what tests use: that one, or any other.

pub mod audit;
mod components;
mod connection;
mod control_plane;
mod guard;
mod kubeconfig;
mod node;
mod pki;
mod program;

pub use connection::Cluster;
pub use control_plane::ControlPlane;
pub use guard::Guard;
pub use node::{DEFAULT_NAME, Node, State};

/// Does kube-apiserver say that it is ready?
async fn is_ready(client: &kube::Client) -> anyhow::Result<bool> {
    Ok(client.request_text(http::Request::get("/readyz").body(Vec::new())?).await? == "ok")
}

/// Chooses ring for TLS. A second provider, should anybody link one, would make the choice ambiguous.
fn install_crypto() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
