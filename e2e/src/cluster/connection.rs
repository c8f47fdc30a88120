//! The cluster that end-to-end tests run against: the one in `KUBECONFIG`, else the local one.

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::audit::AuditLog;
use super::node::{DEFAULT_NAME, Node, State};
use super::{install_crypto, kubeconfig};
use crate::build::go;
use crate::stack::Kubectl;
use crate::wait::wait_until;

/// A cluster that is up.
pub struct Cluster {
    client: Client,
    kubectl: Kubectl,
    node: Option<Node>,
}

impl Cluster {
    /// The cluster in `KUBECONFIG`, when that is set and not empty; else the local one (named by `PSTACK_CLUSTER`, when
    /// that is set), which must be up.
    pub async fn connect() -> Result<Self> {
        let name = std::env::var("PSTACK_CLUSTER").ok().filter(|name| !name.is_empty());
        let name = name.as_deref().unwrap_or(DEFAULT_NAME);
        let Some(file) = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty()).map(PathBuf::from) else {
            return Self::local(Node::new(name, None)?).await;
        };
        let local = Node::new(name, None).ok().filter(|node| node.kubeconfig() == file);
        if let Some(node) = local {
            return Self::local(node).await;
        }
        install_crypto();
        let client = Client::try_from(kubeconfig::config(&file).await?)?;
        client.apiserver_version().await.with_context(|| format!("asking the cluster in {}", file.display()))?;
        // The kubectl of this machine, when there is one, fits that cluster better than ours.
        let program = go::CLUSTER.built()?.map_or_else(|| PathBuf::from("kubectl"), |folder| folder.join("kubectl"));
        Ok(Self { client, kubectl: Kubectl::new(program, file), node: None })
    }

    /// A local cluster, which must be up.
    pub async fn local(node: Node) -> Result<Self> {
        match node.state().await? {
            State::Up => Ok(Self { client: node.client().await?, kubectl: node.kubectl()?, node: Some(node) }),
            State::Broken => bail!("the local cluster does not serve: `make cluster-up` repairs it"),
            State::Absent => bail!("no cluster: start one with `make cluster-up`, or name one with KUBECONFIG"),
        }
    }

    /// A client that may do everything.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// kubectl for it.
    pub fn kubectl(&self) -> Kubectl {
        self.kubectl.clone()
    }

    /// The local cluster, when it is one.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// The API server's audit log: that of a local cluster, or the file in `PSTACK_AUDIT_LOG`.
    pub fn audit(&self) -> Result<AuditLog> {
        let named = std::env::var_os("PSTACK_AUDIT_LOG").map(|file| AuditLog::new(PathBuf::from(file)));
        let log = self.node.as_ref().map(Node::audit).or(named);
        log.context("the audit log of this cluster is not known: set PSTACK_AUDIT_LOG to its file")
    }

    /// Runs `test` in a namespace of its own. When it fails or panics, what was in the namespace goes to standard error;
    /// the namespace is removed in any case.
    pub async fn with_temp_namespace<T, F, Fut>(&self, prefix: &str, test: F) -> Result<T>
    where
        F: FnOnce(String) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = serde_json::from_value(json!({"metadata": {"generateName": format!("{prefix}-")}}))?;
        let created = namespaces.create(&PostParams::default(), &namespace).await.context("making a namespace")?;
        let name = created.metadata.name.context("the new namespace has no name")?;
        let result = AssertUnwindSafe(test(name.clone())).catch_unwind().await;
        if !matches!(result, Ok(Ok(_))) {
            eprintln!("{}", self.dump(&name).await);
        }
        namespaces.delete(&name, &DeleteParams::default()).await.with_context(|| format!("removing {name}"))?;
        wait_until(&format!("namespace {name} to go"), Duration::from_mins(2), || async {
            Ok(namespaces.get_opt(&name).await?.is_none())
        })
        .await?;
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Objects, events and logs of a namespace, as text for a person who looks for the cause of a failure.
    pub async fn dump(&self, namespace: &str) -> String {
        let mut text = format!("--- namespace {namespace}\n");
        let in_namespace = ["-n", namespace];
        let mut show = async |arguments: &[&str]| {
            let arguments: Vec<_> = in_namespace.iter().chain(arguments).copied().collect();
            let answer = self.kubectl.run(&arguments).await.unwrap_or_else(|error| format!("{error:#}\n"));
            text.extend(["--- kubectl ", &arguments.join(" "), "\n", &answer]);
        };
        show(&["get", "all,pvc,hpa,pdb", "-o", "wide"]).await;
        show(&["get", "events", "--sort-by=.lastTimestamp"]).await;
        show(&["describe", "pods"]).await;
        let pods = self.kubectl.run(&["-n", namespace, "get", "pods", "-o", "name"]).await.unwrap_or_default();
        for pod in pods.lines() {
            show(&["logs", "--all-containers", "--tail=50", "--prefix", pod]).await;
        }
        text
    }
}
