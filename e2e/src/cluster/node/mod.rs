//! A one-node Kubernetes in a network namespace of its own: etcd, control plane, containerd, kubelet, kube-proxy, CoreDNS,
//! metrics-server and a default storage class.
//!
//! It outlives the command that starts it. Everything that belongs to it is found again through its folder, its control
//! groups and its namespace, so that it can be repaired or removed after any crash.

mod addons;
mod cgroup;
mod command;
mod daemon;
mod files;
mod network;
mod privileges;
mod remains;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::Client;
use serde::{Deserialize, Serialize};

use self::cgroup::Group;
use self::command::run;
use self::daemon::Place;
use self::network::Network;
use super::audit::AuditLog;
use super::kubeconfig;
use crate::build::go;
use crate::paths;
use crate::progress::step;
use crate::stack::Kubectl;
use crate::wait::{wait_for, wait_until};

/// The image of the process that holds a pod's namespaces.
const PAUSE: &str = "localhost/perses-stack/pause:dev";
/// The name of the cluster when none is given.
pub const DEFAULT_NAME: &str = "pstack";

/// How long kube-apiserver may take on a busy machine.
const API_DEADLINE: Duration = Duration::from_mins(2);
/// How long pods of the add-ons may take.
const PODS_DEADLINE: Duration = Duration::from_mins(3);

/// A cluster's place on this machine; it need not run.
pub struct Node {
    name: String,
    folder: PathBuf,
    group: Group,
}

/// What is kept about a cluster, written before anything is made.
#[derive(Serialize, Deserialize)]
struct Record {
    network: Network,
    /// All files are written and namespace and control groups made: programs can be started.
    prepared: bool,
}

/// What `pstack cluster status` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is nothing of it.
    Absent,
    /// Some of it is there, but it does not serve.
    Broken,
    /// Every program runs and the API server is ready.
    Up,
}

impl Node {
    /// The cluster called `name`, with its files under `folder` (by default in the cache folder).
    pub fn new(name: &str, folder: Option<PathBuf>) -> Result<Self> {
        network::check_name(name)?;
        let folder = match folder {
            Some(folder) => folder,
            None => paths::cache_dir()?.join("clusters").join(name),
        };
        let folder = std::path::absolute(&folder)?;
        let text = folder.to_string_lossy();
        // containerd.sock.ttrpc is the longest socket under it; a socket's path has at most 107 bytes.
        if text.len() > 80 || text.contains(char::is_whitespace) {
            bail!("{text} cannot hold a cluster: its path must have at most 80 bytes and no white space; use --state");
        }
        let group = Group::of(name)?;
        Ok(Self { name: name.to_owned(), folder, group })
    }

    /// The kubeconfig of a user who may do everything; usable on the host.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// kubectl, bound to this cluster.
    pub fn kubectl(&self) -> Result<Kubectl> {
        Ok(Kubectl::new(go::CLUSTER.require()?.join("kubectl"), self.kubeconfig()))
    }

    /// The API server's audit log.
    pub fn audit(&self) -> AuditLog {
        AuditLog::new(self.folder.join("audit.log"))
    }

    /// The folder with everything that the cluster keeps, logs in `log/`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ids of all processes of the cluster, containers included.
    pub fn processes(&self) -> Vec<i32> {
        self.group.processes()
    }

    /// The id of one of the node's programs (`etcd`, `containerd`, `kube-apiserver`, `kubelet`, ...), when it runs.
    pub fn program(&self, name: &str) -> Option<u32> {
        self.place().process(name)
    }

    /// Is it up?
    pub async fn state(&self) -> Result<State> {
        let Some(record) = self.record()? else { return Ok(State::Absent) };
        if !record.prepared || self.check_programs(record.network).is_err() {
            return Ok(State::Broken);
        }
        let ready = match self.client().await {
            Ok(client) => super::is_ready(&client).await.unwrap_or(false),
            Err(_) => false,
        };
        Ok(if ready { State::Up } else { State::Broken })
    }

    /// A client for it.
    pub async fn client(&self) -> Result<Client> {
        super::install_crypto();
        Ok(Client::try_from(kubeconfig::config(&self.kubeconfig()).await?)?)
    }

    /// Starts the cluster and waits until it can run pods. One that is up is left alone; programs that have ended are
    /// started again; what cannot be repaired is removed first.
    pub async fn up(&self) -> Result<()> {
        let _lock = self.lock()?;
        if self.state().await? == State::Up && self.folder.join("complete").exists() {
            return Ok(());
        }
        privileges::check()?;
        let tools = go::CLUSTER.ensure()?;
        let metrics_server = go::METRICS_SERVER.ensure()?;
        let network = match self.record()? {
            Some(record) if record.prepared && network::path(&self.namespace()).exists() && self.group_exists() => {
                step(format!("cluster {}: starting what has ended", self.name));
                record.network
            }
            found => {
                if found.is_some() {
                    step(format!("cluster {}: removing what is left of an earlier one", self.name));
                }
                self.remove()?;
                self.prepare()?
            }
        };
        let programs = files::programs(&self.folder, &tools, network);
        let start = |names: &dyn Fn(&str) -> bool| -> Result<()> {
            for program in programs.iter().filter(|program| names(program.name)) {
                self.place().ensure(program.name, &program.file, &program.arguments)?;
            }
            Ok(())
        };
        step(format!("cluster {}: starting etcd, kube-apiserver and containerd", self.name));
        start(&|name| files::BEFORE_API.contains(&name))?;
        let client = self.client().await?;
        wait_until("kube-apiserver to be ready", API_DEADLINE, || async {
            self.place().check("etcd")?;
            self.place().check("kube-apiserver")?;
            super::is_ready(&client).await
        })
        .await?;
        step(format!("cluster {}: starting controllers, kubelet and kube-proxy", self.name));
        self.wait_for_containerd().await?;
        addons::load_images(self, &tools, &metrics_server)?;
        start(&|_| true)?;
        addons::apply(self, network).await?;
        step(format!("cluster {}: waiting for the node, DNS and metrics", self.name));
        addons::wait(&client, PODS_DEADLINE, || self.check_programs(network)).await?;
        std::fs::write(self.folder.join("complete"), "")?;
        step(format!("cluster {} is up: export KUBECONFIG={}", self.name, self.kubeconfig().display()));
        Ok(())
    }

    /// Ends the cluster and removes every trace, in whatever state it is.
    pub fn down(&self) -> Result<()> {
        let _lock = self.lock()?;
        self.remove()
    }

    /// Loads an image archive; the one that was loaded last under this file name is not loaded again.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let mut hash = blake3::Hasher::new();
        let missing = || format!("opening {}: `make images` writes the archives", archive.display());
        hash.update_reader(File::open(archive).with_context(missing)?)?;
        let digest = hash.finalize().to_hex();
        let mark = self.folder.join("images").join(archive.file_name().context("the archive has no name")?);
        if std::fs::read_to_string(&mark).is_ok_and(|kept| kept == digest.as_str()) {
            return Ok(());
        }
        self.ctr(&["images", "import", &archive.display().to_string()])
            .with_context(|| format!("loading {} into cluster {}", archive.display(), self.name))?;
        std::fs::create_dir_all(self.folder.join("images"))?;
        std::fs::write(&mark, digest.as_str()).with_context(|| format!("writing {}", mark.display()))
    }

    /// Gives an image that is there a second name.
    pub fn tag_image(&self, image: &str, name: &str) -> Result<()> {
        self.ctr(&["images", "tag", "--force", image, name]).map(drop)
    }

    fn ctr(&self, arguments: &[&str]) -> Result<String> {
        let socket = self.folder.join("containerd.sock").display().to_string();
        run("ctr", ["--address", &socket, "--namespace", "k8s.io"].into_iter().chain(arguments.iter().copied()))
    }

    async fn wait_for_containerd(&self) -> Result<()> {
        wait_for("containerd to answer", API_DEADLINE, || async {
            self.place().check("containerd")?;
            self.ctr(&["images", "list", "--quiet"]).map(|_| Some(()))
        })
        .await
    }

    /// Chooses addresses, and makes files, control groups and the namespace.
    fn prepare(&self) -> Result<Network> {
        std::fs::create_dir_all(&self.folder).with_context(|| format!("making {}", self.folder.display()))?;
        // Two clusters that start at once must not choose the same addresses.
        let choosing = File::create(paths::cache_dir()?.join("clusters.lock"))?;
        choosing.lock()?;
        let network = Network::choose(&self.name)?;
        self.write_record(&Record { network, prepared: false })?;
        network.create(&self.namespace())?;
        drop(choosing);
        self.group.create()?;
        files::write(&self.folder, &self.name, network, &self.group.root())?;
        self.write_record(&Record { network, prepared: true })?;
        Ok(network)
    }

    fn remove(&self) -> Result<()> {
        let record = self.record()?;
        let sockets = remains::shim_sockets(&self.folder);
        self.group.kill()?;
        remains::unmount(&self.folder)?;
        remains::remove_strays(&self.folder, &files::cni_network(&self.name), &sockets)?;
        if let Some(record) = record {
            record.network.remove(&self.namespace())?;
        }
        self.group.remove()?;
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder).with_context(|| format!("removing {}", self.folder.display()))?;
        }
        Ok(())
    }

    fn check_programs(&self, network: Network) -> Result<()> {
        let tools = go::CLUSTER.folder()?;
        files::programs(&self.folder, &tools, network).iter().try_for_each(|program| self.place().check(program.name))
    }

    fn group_exists(&self) -> bool {
        self.group.members().exists()
    }

    fn place(&self) -> Place<'_> {
        Place { folder: &self.folder, group: &self.group, namespace: self.group.root_name() }
    }

    fn namespace(&self) -> String {
        self.group.root_name().to_owned()
    }

    /// One command at a time per cluster. The lock's file stays beside the folder, which may be removed under it.
    fn lock(&self) -> Result<File> {
        let folder = paths::cache_dir()?.join("clusters");
        std::fs::create_dir_all(&folder)?;
        let file = File::create(folder.join(format!("{}.lock", self.name)))?;
        file.lock().context("waiting for another command on this cluster")?;
        Ok(file)
    }

    fn record(&self) -> Result<Option<Record>> {
        match std::fs::read(self.folder.join("cluster.json")) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text).context("reading cluster.json")?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("reading cluster.json"),
        }
    }

    fn write_record(&self, record: &Record) -> Result<()> {
        let file = self.folder.join("cluster.json");
        std::fs::write(&file, serde_json::to_vec(record)?).with_context(|| format!("writing {}", file.display()))
    }
}
