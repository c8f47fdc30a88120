//! `pstack`: the developer's tool of this workspace. `make` calls it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use e2e::bench;
use e2e::build::{go, upstream};
use e2e::cluster::{Cluster, ControlPlane, DEFAULT_NAME, Node, State};
use e2e::demo;
use e2e::images::product::{self, Profile};
use e2e::load;

/// Test cluster, images and demo of Perses Stack.
#[derive(Parser)]
#[command(name = "pstack", disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the Go programs that the test cluster and the tests need; what is built already is left alone.
    BuildTools {
        /// Modules under e2e/go; all when none is given.
        modules: Vec<String>,
        /// Build nothing: print each folder and whether it is there.
        #[arg(long)]
        list: bool,
    },
    /// Write the container images as archives.
    Images {
        /// How the programs are compiled.
        #[arg(long, value_enum, default_value = "release")]
        profile: Profile,
        /// Folder of the archives; target/images when not given.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// The local Kubernetes.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Run a command with a cluster of its own that has the images of this workspace, and remove the cluster afterwards.
    WithCluster {
        /// The command; it finds the cluster through KUBECONFIG.
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<OsString>,
    },
    /// Send HTTP requests at a rate, or as fast as it goes, and check every answer.
    Load(load::cli::LoadArgs),
    /// Measure the server beside nginx.
    Bench(bench::BenchArgs),
    /// Measure the query path beside nginx, Prometheus and Thanos' query frontend.
    BenchQueries(bench::QueriesArgs),
    /// The whole product on a cluster: the one in KUBECONFIG, else the local one.
    #[command(subcommand)]
    Demo(DemoCommand),
}

#[derive(Args)]
struct Which {
    /// Name of the cluster.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Folder for all its files; in the cache folder when not given.
    #[arg(long)]
    state: Option<PathBuf>,
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Start it, or repair it; nothing happens when it is up.
    Up {
        #[command(flatten)]
        which: Which,
        /// Control plane only, on loopback, without root, until Ctrl-C.
        #[arg(long)]
        light: bool,
    },
    /// Stop it and remove every trace.
    Down(Which),
    /// Say whether it is up; the exit status is 0 only then.
    Status(Which),
    /// Print the path of its kubeconfig.
    Kubeconfig(Which),
    /// Load image archives.
    LoadImage {
        #[command(flatten)]
        which: Which,
        /// Archives; those that `pstack images` writes when none is given.
        archives: Vec<PathBuf>,
    },
}

#[derive(Subcommand)]
enum DemoCommand {
    /// Build, start and install what is missing, and print where the UI is.
    Up {
        /// How the programs are compiled.
        #[arg(long, value_enum, default_value = "release")]
        profile: Profile,
    },
    /// Remove the local cluster, or the demo from the cluster in KUBECONFIG.
    Down,
}

impl Which {
    fn node(self) -> Result<Node> {
        Node::new(&self.name, self.state)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(status) => status,
        Err(error) => {
            eprintln!("pstack: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::BuildTools { modules, list } => build_tools(&modules, list)?,
        Command::Images { profile, out } => {
            product::write_all(profile, &out.unwrap_or_else(product::default_folder))?;
        }
        Command::Cluster(command) => return cluster(command).await,
        Command::WithCluster { command } => return with_cluster(&command).await,
        // Both bring a runtime of their own.
        Command::Load(arguments) => tokio::task::spawn_blocking(|| arguments.run()).await??,
        Command::Bench(arguments) => tokio::task::spawn_blocking(|| arguments.run()).await??,
        Command::BenchQueries(arguments) => tokio::task::spawn_blocking(|| arguments.run()).await??,
        Command::Demo(DemoCommand::Up { profile }) => demo_up(profile).await?,
        Command::Demo(DemoCommand::Down) => demo_down().await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn build_tools(modules: &[String], list: bool) -> Result<()> {
    if let Some(unknown) = modules.iter().find(|name| !go::ALL.iter().any(|module| module.name == name.as_str())) {
        let known: Vec<_> = go::ALL.iter().map(|module| module.name).collect();
        bail!("no module {unknown:?} under e2e/go; there are {}", known.join(", "));
    }
    for module in go::ALL.iter().filter(|module| modules.is_empty() || modules.iter().any(|name| name == module.name)) {
        if list {
            let state = if module.built()?.is_some() { "built" } else { "missing" };
            println!("{state}\t{}", module.folder()?.display());
        } else {
            println!("{}", module.ensure()?.display());
        }
    }
    if modules.is_empty() && !list {
        println!("{}", upstream::ensure()?.display());
    }
    Ok(())
}

async fn cluster(command: ClusterCommand) -> Result<ExitCode> {
    match command {
        ClusterCommand::Up { light: true, .. } => {
            let control_plane = ControlPlane::start().await?;
            println!("export KUBECONFIG={}\nCtrl-C ends it.", control_plane.kubeconfig().display());
            tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")?;
        }
        ClusterCommand::Up { which, light: false } => {
            let node = which.node()?;
            node.up().await?;
            println!("{}", node.kubeconfig().display());
        }
        ClusterCommand::Down(which) => which.node()?.down()?,
        ClusterCommand::Status(which) => {
            let state = which.node()?.state().await?;
            let (text, status) = match state {
                State::Absent => ("absent", 3),
                State::Broken => ("broken: `pstack cluster up` repairs it", 1),
                State::Up => ("up", 0),
            };
            println!("{text}");
            return Ok(ExitCode::from(status));
        }
        ClusterCommand::Kubeconfig(which) => println!("{}", which.node()?.kubeconfig().display()),
        ClusterCommand::LoadImage { which, archives } => load_images(&which.node()?, archives)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Loads `archives`, or all those of the default folder.
fn load_images(node: &Node, mut archives: Vec<PathBuf>) -> Result<()> {
    if archives.is_empty() {
        let names = product::PROGRAMS.iter().map(|program| program.image).chain([product::SERVICES]);
        archives = names.map(|name| product::default_folder().join(format!("{name}.tar"))).collect();
    }
    archives.iter().try_for_each(|archive| node.load_image(archive))
}

/// The cluster of `with-cluster`.
const TEST_CLUSTER: &str = "test";

async fn with_cluster(command: &[OsString]) -> Result<ExitCode> {
    let node = Node::new(TEST_CLUSTER, None)?;
    let mut archives = product::write_all(Profile::Dev, &product::default_folder())?;
    archives.push(product::write_later(&product::default_folder())?);
    // A cluster that an interrupted run left behind may hold a half-made stack.
    node.down()?;
    node.up().await?;
    load_images(&node, archives)?;
    let [program, arguments @ ..] = command else { bail!("no command was given") };
    let status = tokio::process::Command::new(program)
        .args(arguments)
        .env("KUBECONFIG", node.kubeconfig())
        .env("PSTACK_CLUSTER", TEST_CLUSTER)
        .status()
        .await
        .with_context(|| format!("starting {}", program.display()))?;
    if !status.success() {
        let cluster = Cluster::local(Node::new(TEST_CLUSTER, None)?).await?;
        for namespace in [demo::NAMESPACE, e2e::stack::OPERATOR_NAMESPACE] {
            eprintln!("{}", cluster.dump(namespace).await);
        }
    }
    node.down()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn demo_up(profile: Profile) -> Result<()> {
    let foreign = std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty());
    if !foreign {
        let node = Node::new(DEFAULT_NAME, None)?;
        let archives = product::write_all(profile, &product::default_folder())?;
        node.up().await?;
        load_images(&node, archives)?;
    }
    let cluster = Cluster::connect().await?;
    let (stack, _) =
        demo::up(cluster.client().clone(), cluster.kubectl(), |stack| async move { stack.address().await }).await?;
    let address = stack.address().await?;
    let environment = format!("  export KUBECONFIG={}\n", stack.kubectl.kubeconfig().display());
    println!("{}", demo::summary(&stack, &address, &environment));
    Ok(())
}

async fn demo_down() -> Result<()> {
    if std::env::var_os("KUBECONFIG").is_none_or(|value| value.is_empty()) {
        return Node::new(DEFAULT_NAME, None)?.down();
    }
    let kubectl = Cluster::connect().await?.kubectl();
    kubectl.run(&["delete", "namespace", demo::NAMESPACE, "--ignore-not-found", "--timeout=300s"]).await?;
    let overlay = e2e::paths::workspace_dir().join("config/local");
    kubectl.run(&["delete", "--ignore-not-found", "-k", &overlay.to_string_lossy()]).await?;
    Ok(())
}
