//! The light variant: a control plane on loopback that ends with the value that holds it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use tempfile::TempDir;

use super::audit::AuditLog;
use super::components::{self, Layout};
use super::guard::Guard;
use super::kubeconfig;
use super::pki::{Authority, write_private};
use super::program::Program;
use crate::build::go;
use crate::wait::{wait_for, wait_until};

/// How long a program may take to answer, on a machine that compiles something at the same time.
const START_DEADLINE: Duration = Duration::from_secs(90);
/// How often to try other ports, when somebody took ours between finding and using them.
const ATTEMPTS: usize = 4;

/// etcd, kube-apiserver and kube-controller-manager on free ports of the loopback. Needs no root.
///
/// There is no scheduler and no node: pods stay `Pending`. Dropping it ends the programs and removes their files; when
/// this process is killed, a watcher does the same.
pub struct ControlPlane {
    // In this order: programs end before the watcher lets go of them, files are removed last.
    controller_manager: Option<Program>,
    apiserver: Option<Program>,
    etcd: Option<Program>,
    guard: Guard,
    ports: Ports,
    kubeconfig: PathBuf,
    config: kube::Config,
    folder: TempDir,
}

#[derive(Clone, Copy)]
struct Ports {
    apiserver: u16,
    etcd: u16,
    peer: u16,
}

impl Ports {
    fn free() -> Result<Self> {
        // All held at once, so that they differ.
        let held = [(); 3].map(|()| TcpListener::bind(("127.0.0.1", 0)));
        let mut ports = [0; 3];
        for (port, listener) in ports.iter_mut().zip(held) {
            *port = listener.context("finding a free port on 127.0.0.1")?.local_addr()?.port();
        }
        let [apiserver, etcd, peer] = ports;
        Ok(Self { apiserver, etcd, peer })
    }
}

impl ControlPlane {
    /// Starts one and waits until it serves and its controllers work. Takes a few seconds; several may live side by side.
    pub async fn start() -> Result<Self> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match Self::attempt().await {
                Ok(control_plane) => return Ok(control_plane),
                Err(error) if format!("{error:#}").contains("address already in use") => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no attempt was made")))
    }

    async fn attempt() -> Result<Self> {
        super::install_crypto();
        let folder = tempfile::Builder::new().prefix("pstack-control-plane-").tempdir()?;
        let guard = Guard::new()?;
        guard.remove(folder.path())?;
        let ports = Ports::free()?;
        let files = folder.path();
        let authority = Authority::new("perses-stack-light")?;
        let names =
            ["localhost", "127.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "10.96.0.1"];
        components::write_files(files, &authority, &names)?;
        let server = format!("https://127.0.0.1:{}", ports.apiserver);
        for (file, user, group) in [
            ("kubeconfig", "admin", Some("system:masters")),
            ("controller-manager.kubeconfig", "system:kube-controller-manager", None),
        ] {
            let pair = authority.client(user, group)?;
            let text = kubeconfig::text("perses-stack-light", &server, &authority.cert(), user, &pair);
            write_private(&files.join(file), &text)?;
        }
        let kubeconfig = files.join("kubeconfig");
        let config = kubeconfig::config(&kubeconfig).await?;
        let mut started =
            Self { controller_manager: None, apiserver: None, etcd: None, guard, ports, kubeconfig, config, folder };
        started.start_etcd()?;
        started.start_apiserver().await?;
        started.start_controller_manager()?;
        started.controllers_work().await?;
        Ok(started)
    }

    /// The kubeconfig file of a user who may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The same as a value.
    pub fn config(&self) -> kube::Config {
        self.config.clone()
    }

    /// A client for it.
    pub fn client(&self) -> Result<Client> {
        Client::try_from(self.config()).context("making a client for the control plane")
    }

    /// A client that signs every request with this `User-Agent`, by which the audit log tells it apart.
    pub fn client_named(&self, user_agent: &str) -> Result<Client> {
        let mut config = self.config();
        let value = user_agent.parse().with_context(|| format!("{user_agent:?} as a User-Agent"))?;
        config.headers.push((reqwest::header::USER_AGENT, value));
        Client::try_from(config).context("making a client for the control plane")
    }

    /// The audit log.
    pub fn audit(&self) -> AuditLog {
        AuditLog::new(self.folder.path().join("audit.log"))
    }

    /// Ends kube-apiserver at once, as a crash does. The other programs stay.
    pub fn kill_apiserver(&mut self) -> Result<()> {
        match self.apiserver.take() {
            Some(program) => program.end(&self.guard),
            None => bail!("kube-apiserver is not running"),
        }
    }

    /// Starts kube-apiserver again, on the same port and with the same data, and waits until it is ready.
    pub async fn start_apiserver(&mut self) -> Result<()> {
        let controlplane = go::CLUSTER.require()?.join("controlplane");
        let arguments = components::apiserver(&self.layout());
        let mut program = self.spawn("kube-apiserver", &controlplane, &arguments)?;
        let client = self.client()?;
        let result = wait_until("kube-apiserver to be ready", START_DEADLINE, || {
            let exited = program.exited();
            let client = client.clone();
            async move {
                exited?;
                super::is_ready(&client).await
            }
        })
        .await;
        result.with_context(|| program.tail())?;
        self.apiserver = Some(program);
        Ok(())
    }

    fn start_etcd(&mut self) -> Result<()> {
        let url = |port| format!("http://127.0.0.1:{port}");
        let arguments =
            components::etcd(&self.folder.path().join("etcd"), &url(self.ports.etcd), &url(self.ports.peer));
        self.etcd = Some(self.spawn("etcd", Path::new("etcd"), &arguments)?);
        Ok(())
    }

    fn start_controller_manager(&mut self) -> Result<()> {
        let controlplane = go::CLUSTER.require()?.join("controlplane");
        let kubeconfig = self.folder.path().join("controller-manager.kubeconfig");
        let mut arguments = components::controller_manager(&self.layout(), &kubeconfig);
        // No pod has a node here: it would take each that is about to end for one that was forgotten.
        arguments.push("--controllers=*,-pod-garbage-collector-controller".into());
        self.controller_manager = Some(self.spawn("kube-controller-manager", &controlplane, &arguments)?);
        Ok(())
    }

    /// The service account `default` is made by a controller: once it is there, they work.
    async fn controllers_work(&mut self) -> Result<()> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client()?, "default");
        let mut program = self.controller_manager.take().context("kube-controller-manager was not started")?;
        let result = wait_for("the controllers to make the service account default", START_DEADLINE, || {
            let exited = program.exited();
            let accounts = accounts.clone();
            async move {
                exited?;
                Ok(accounts.get_opt("default").await?)
            }
        })
        .await;
        let tail = program.tail();
        self.controller_manager = Some(program);
        result.context(tail).map(drop)
    }

    fn layout(&self) -> Layout {
        Layout {
            folder: self.folder.path().to_owned(),
            etcd: format!("http://127.0.0.1:{}", self.ports.etcd),
            bind: "127.0.0.1".into(),
            advertise: "127.0.0.1".into(),
            publish: false,
            port: self.ports.apiserver,
            services: "10.96.0.0/16".into(),
            pods: "10.244.0.0/16".into(),
        }
    }

    fn spawn(&self, name: &'static str, program: &Path, arguments: &[String]) -> Result<Program> {
        Program::start(name, program, arguments, self.folder.path(), &self.guard)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        for program in [&mut self.controller_manager, &mut self.apiserver, &mut self.etcd] {
            if let Some(program) = program.take() {
                let _ = program.end(&self.guard);
            }
        }
    }
}
