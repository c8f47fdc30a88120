//! One cluster with one stack for all tests of this binary; they take turns.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::cluster::Cluster;
use e2e::demo;
use e2e::perses::Perses;
use e2e::stack::{READY_DEADLINE, Stack, openshift};
use e2e::wait::wait_for;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Api;
use tokio::sync::{Mutex, MutexGuard};

static TURN: LazyLock<Mutex<Installed>> = LazyLock::new(|| Mutex::new(Installed(None)));

/// The id of the user as whom all pods of the stack's namespace run, once all is installed.
struct Installed(Option<u32>);

/// What a test works with. Holds the turn: no other test runs meanwhile.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) stack: Stack,
    /// Signed in at the API's Service.
    pub(crate) perses: Perses,
    /// Prometheus itself, past the stack.
    pub(crate) prometheus: Perses,
    /// As whom the platform runs the pods of the stack's namespace.
    pub(crate) user: u32,
    _turn: MutexGuard<'static, Installed>,
}

impl World {
    /// Waits for its turn, installs what is missing, and waits until the stack is ready.
    pub(crate) async fn enter() -> Result<Self> {
        let mut turn = TURN.lock().await;
        let cluster = Cluster::connect().await?;
        let (client, kubectl) = (cluster.client().clone(), cluster.kubectl());
        let (user, stack) = if let Some(user) = turn.0 {
            let stack = Stack { client, kubectl, namespace: demo::NAMESPACE.to_owned(), name: "perses".to_owned() };
            stack.wait_ready(READY_DEADLINE, |_| {}).await?;
            (user, stack)
        } else {
            // Before the operator, which asks at its start what platform it is on.
            openshift::install(&kubectl).await?;
            let user = openshift::namespace(&client, demo::NAMESPACE).await?;
            (user, demo::up(client, kubectl, |stack| async move { stack.address().await }).await?.0)
        };
        turn.0 = Some(user);
        let perses = wait_for("sign-in through the Service", Duration::from_secs(30), || {
            let stack = stack.clone();
            async move { Ok(Some(stack.sign_in().await?)) }
        })
        .await?;
        let services: Api<Service> = Api::namespaced(stack.client.clone(), &stack.namespace);
        let address = services.get("prometheus").await?.spec.and_then(|spec| spec.cluster_ip);
        let prometheus = Perses::new(&format!("http://{}:9090", address.context("Prometheus has no cluster IP")?))?;
        Ok(Self { cluster, stack, perses, prometheus, user, _turn: turn })
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
    /// The processes of a pod on the local cluster, the one that holds its namespaces left out.
    pub(crate) async fn processes(&self, pod: &str) -> Result<Vec<i32>> {
        let node = self.cluster.node().context("processes of pods can only be seen on the local cluster")?;
        let pods: Api<Pod> = Api::namespaced(self.stack.client.clone(), &self.stack.namespace);
        let uid = pods.get(pod).await?.metadata.uid.context("a pod without uid")?;
        let read = |process: &i32, file| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
        let mut found = node.processes();
        found.retain(|process| {
            read(process, "cgroup").contains(&uid) && !read(process, "cmdline").starts_with("/pause")
        });
        Ok(found)
    }

    /// Kills the server in a pod, as the kernel does when memory runs out: no signal that it could handle.
    pub(crate) async fn kill_server(&self, pod: &str) -> Result<()> {
        let process = self.processes(pod).await?.into_iter().find(|process| {
            let command = std::fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
            command.starts_with("/usr/bin/perses-api-server")
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
