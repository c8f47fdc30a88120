//! One cluster with one stack for all tests of this binary; they take turns.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::cluster::Cluster;
use e2e::demo;
use e2e::perses::Perses;
use e2e::stack::{READY_DEADLINE, Stack};
use e2e::wait::wait_for;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use tokio::sync::{Mutex, MutexGuard};

static TURN: LazyLock<Mutex<Installed>> = LazyLock::new(|| Mutex::new(Installed(false)));

struct Installed(bool);

/// What a test works with. Holds the turn: no other test runs meanwhile.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) stack: Stack,
    /// Signed in at the API's Service.
    pub(crate) perses: Perses,
    /// Prometheus itself, past the stack.
    pub(crate) prometheus: Perses,
    _turn: MutexGuard<'static, Installed>,
}

impl World {
    /// Waits for its turn, installs what is missing, and waits until the stack is ready.
    pub(crate) async fn enter() -> Result<Self> {
        let mut turn = TURN.lock().await;
        let cluster = Cluster::connect().await?;
        let (client, kubectl) = (cluster.client().clone(), cluster.kubectl());
        let stack = if turn.0 {
            let stack = Stack { client, kubectl, namespace: demo::NAMESPACE.to_owned(), name: "perses".to_owned() };
            stack.wait_ready(READY_DEADLINE, |_| {}).await?;
            stack
        } else {
            demo::up(client, kubectl, |stack| async move { stack.address().await }).await?.0
        };
        turn.0 = true;
        let perses = wait_for("sign-in through the Service", Duration::from_secs(30), || {
            let stack = stack.clone();
            async move { Ok(Some(stack.sign_in().await?)) }
        })
        .await?;
        let services: Api<Service> = Api::namespaced(stack.client.clone(), &stack.namespace);
        let address = services.get("prometheus").await?.spec.and_then(|spec| spec.cluster_ip);
        let prometheus = Perses::new(&format!("http://{}:9090", address.context("Prometheus has no cluster IP")?))?;
        Ok(Self { cluster, stack, perses, prometheus, _turn: turn })
    }

    /// The stack's API, signed in, at each ready pod: (pod, client).
    pub(crate) async fn api_pods(&self) -> Result<Vec<(String, Perses)>> {
        let pods = self.stack.pods("api").await?;
        Ok(pods.into_iter().map(|(name, ip)| (name, self.perses.at(&format!("http://{ip}:8080")))).collect())
    }

    /// Waits until so many API pods are ready.
    pub(crate) async fn api_pods_at_least(&self, count: usize, deadline: Duration) -> Result<Vec<(String, Perses)>> {
        wait_for(&format!("{count} ready API pods"), deadline, || async {
            let pods = self.api_pods().await?;
            Ok((pods.len() >= count).then_some(pods))
        })
        .await
    }
}

impl World {
    /// Kills the server in a pod, as the kernel does when memory runs out: no signal that it could handle.
    pub(crate) async fn kill_server(&self, pod: &str) -> Result<()> {
        let node = self.cluster.node().context("processes of pods can only be killed on the local cluster")?;
        let pods: Api<Pod> = Api::namespaced(self.stack.client.clone(), &self.stack.namespace);
        let uid = pods.get(pod).await?.metadata.uid.context("a pod without uid")?;
        let process = node.processes().into_iter().find(|process| {
            let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
            read("cgroup").contains(&uid) && read("cmdline").starts_with("/usr/bin/perses-api-server")
        });
        let process =
            process.and_then(rustix::process::Pid::from_raw).with_context(|| format!("no server runs in {pod}"))?;
        Ok(rustix::process::kill_process(process, rustix::process::Signal::KILL)?)
    }
}

/// The real percli, built with the other tools.
pub(crate) fn percli() -> Result<PathBuf> {
    Ok(e2e::build::go::PERCLI.require()?.join("percli"))
}
