//! Pods of Redis with a sentinel beside each, made of the files and commands that somebody else gives them.
//!
//! Each pod has an address of its own on loopback and the ports that it would have in a cluster. A file of hosts, which
//! every process gets as its `/etc/hosts`, stands for DNS.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;

use crate::services::sandbox::{DATA, Sandbox};

const END: Duration = Duration::from_secs(30);
/// Where the files are in a sandbox.
const FOLDER: &str = "config";

/// What all pods have in common.
#[derive(Debug, Clone)]
pub struct RedisPodTemplate {
    /// Names of the pods, and under which host each is known to the others.
    pub pods: Vec<(String, String)>,
    /// Command of the container that runs Redis.
    pub server: Vec<String>,
    /// Command of the container that runs the sentinel.
    pub sentinel: Vec<String>,
    /// Where the commands expect the files.
    pub folder: String,
    /// The files.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A container of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Redis, on 6379.
    Server,
    /// The sentinel, on 26379.
    Sentinel,
}

impl Part {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Server, Self::Sentinel];

    fn port(self) -> &'static str {
        match self {
            Self::Server => "6379",
            Self::Sentinel => "26379",
        }
    }
}

/// The pods. Dropping them stops all.
#[derive(Debug)]
pub struct RedisPods {
    template: RedisPodTemplate,
    pods: Vec<Pod>,
    addresses: Vec<String>,
    hosts: NamedTempFile,
}

#[derive(Debug)]
struct Pod {
    server: Sandbox,
    sentinel: Sandbox,
}

impl RedisPods {
    /// Makes the pods, which do not run yet.
    pub async fn new(template: RedisPodTemplate) -> Result<Self> {
        let net = format!("127.{}.{}", rand::random_range(1..=254), rand::random_range(0..=255));
        let addresses: Vec<_> = (1..=template.pods.len()).map(|number| format!("{net}.{number}")).collect();
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for ((name, host), address) in template.pods.iter().zip(&addresses) {
            _ = writeln!(text, "{address} {host} {name}");
        }
        let hosts = NamedTempFile::new()?;
        std::fs::write(hosts.path(), text)?;
        let mut all = Self { template, pods: Vec::new(), addresses, hosts };
        for _ in 0..all.template.pods.len() {
            let pod = all.fresh().await?;
            all.pods.push(pod);
        }
        Ok(all)
    }

    /// The file in the shape of `/etc/hosts` that knows the pods.
    pub fn hosts(&self) -> &Path {
        self.hosts.path()
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.pods.len()
    }

    /// The number of the pod that others know by this host.
    pub fn number(&self, host: &str) -> Option<usize> {
        self.template.pods.iter().position(|(_, known)| known == host)
    }

    /// Gives pods that are made from now on other files.
    pub fn change(&mut self, files: BTreeMap<String, Vec<u8>>) {
        self.template.files = files;
    }

    /// Starts a container; one that ran before finds what it left.
    pub async fn start(&self, pod: usize, part: Part) -> Result<()> {
        let command = match part {
            Part::Server => &self.template.server,
            Part::Sentinel => &self.template.sentinel,
        };
        let mut words = vec!["env".to_owned(), format!("POD_NAME={}", self.name(pod)?)];
        words.extend(command.iter().map(|word| self.inside(word)));
        // In a pod it would be all addresses.
        words.extend(["--bind".to_owned(), self.address(pod)?.to_owned()]);
        self.sandbox(pod, part)?.start(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// Starts both containers of a pod.
    pub async fn start_pod(&self, pod: usize) -> Result<()> {
        for part in Part::ALL {
            self.start(pod, part).await?;
        }
        Ok(())
    }

    /// Ends a container at once.
    pub async fn kill(&self, pod: usize, part: Part) -> Result<()> {
        self.sandbox(pod, part)?.end("KILL", END).await
    }

    /// Asks both containers to end, and puts a new pod in their place that has nothing of them and does not run yet.
    pub async fn replace(&mut self, pod: usize) -> Result<()> {
        for part in Part::ALL {
            self.sandbox(pod, part)?.end("TERM", END).await?;
        }
        let fresh = self.fresh().await?;
        *self.pods.get_mut(pod).context("no such pod")? = fresh;
        Ok(())
    }

    /// Runs a command beside the server of a pod, as a probe or a hook does.
    pub async fn run(&self, pod: usize, command: &[String]) -> Result<Output> {
        let words: Vec<_> = command.iter().map(|word| self.inside(word)).collect();
        let (program, args) = words.split_first().context("no command")?;
        self.sandbox(pod, Part::Server)?.run(program, args, &[("POD_NAME", self.name(pod)?)], "").await
    }

    /// A command to Redis or the sentinel of a pod, as this user. An error of Redis is an error here.
    pub async fn cli(&self, pod: usize, part: Part, login: (&str, &str), command: &[&str]) -> Result<String> {
        let (user, password) = login;
        let args = ["-h", self.address(pod)?, "-p", part.port(), "--user", user, "-e", "--raw"];
        let args = [&args, command].concat();
        let output = self.sandbox(pod, part)?.run_ok("redis-cli", &args, &[("REDISCLI_AUTH", password)], "").await?;
        Ok(output.trim_end().to_owned())
    }

    /// The end of what a container wrote.
    pub fn log(&self, pod: usize, part: Part) -> String {
        self.sandbox(pod, part).map(Sandbox::log_tail).unwrap_or_default()
    }

    async fn fresh(&self) -> Result<Pod> {
        Ok(Pod { server: self.made("redis").await?, sentinel: self.made("sentinel").await? })
    }

    async fn made(&self, name: &'static str) -> Result<Sandbox> {
        let sandbox = Sandbox::new(name).await?;
        std::fs::create_dir(sandbox.data().join(FOLDER))?;
        for (file, content) in &self.template.files {
            let text = std::str::from_utf8(content).with_context(|| format!("{file} is no text"))?;
            sandbox.write(&format!("{FOLDER}/{file}"), text)?;
        }
        sandbox.know_hosts(&std::fs::read_to_string(self.hosts.path())?).await?;
        Ok(sandbox)
    }

    fn inside(&self, word: &str) -> String {
        word.replace(&self.template.folder, &format!("{DATA}/{FOLDER}"))
    }

    fn name(&self, pod: usize) -> Result<&str> {
        self.template.pods.get(pod).map(|(name, _)| name.as_str()).context("no such pod")
    }

    fn address(&self, pod: usize) -> Result<&str> {
        self.addresses.get(pod).map(String::as_str).context("no such pod")
    }

    fn sandbox(&self, pod: usize, part: Part) -> Result<&Sandbox> {
        let pod = self.pods.get(pod).context("no such pod")?;
        Ok(if part == Part::Server { &pod.server } else { &pod.sentinel })
    }
}
