//! `persesstack-operator run`: the process around the [manager](crate::manager).

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Readiness};
use crate::client::{self, ClientOptions};
use crate::controllers::persesdev::server::services;
use crate::leader::Timing;
use crate::manager::Manager;
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::telemetry::{self, LogFormat};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Address of `/metrics`.
    #[arg(long, env = "METRICS_ADDRESS", default_value = "0.0.0.0:8080")]
    metrics_address: SocketAddr,
    /// Address of `/healthz` and `/readyz`.
    #[arg(long, env = "PROBE_ADDRESS", default_value = "0.0.0.0:8081")]
    probe_address: SocketAddr,
    /// Unique name of this process.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// Run without an election: there is no other process.
    #[arg(long, env = "NO_LEADER_ELECTION")]
    no_leader_election: bool,
    /// Stacks that replace their pods at the same time when a newer operator brings new images or templates; 0 is no limit.
    #[arg(long, env = "MAX_ROLLING_STACKS", default_value_t = 3)]
    max_rolling: usize,
    /// Level, or directives as `info,kube=debug`.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    log_level: String,
    /// Form of the log lines.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When the process cannot start: no cluster configuration, or an address that cannot be bound.
pub fn run(args: RunArgs, settings: Settings) -> anyhow::Result<()> {
    telemetry::init(&args.log_level, args.log_format).context("start logging")?;
    // The one crypto provider of the workspace; an error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(args, settings))
}

async fn serve(args: RunArgs, settings: Settings) -> anyhow::Result<()> {
    let settings = Settings { max_rolling: args.max_rolling, ..settings };
    let config = kube::Config::infer()
        .await
        .context("find the cluster: run in a pod with a service account, or set KUBECONFIG")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), cluster = %config.cluster_url, "starting");
    let client = client::build(config, &ClientOptions::default())?;
    let (metrics, readiness) = (Metrics::new(), Readiness::default());
    let stop = CancellationToken::new();
    let identity = args.identity.unwrap_or_else(|| format!("{:016x}", rand::random::<u64>()));
    let manager = Manager {
        client,
        settings,
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        identity,
        election: (!args.no_leader_election).then(Timing::default),
        addresses: services(),
    };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let signalled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        signalled.cancel();
    });
    // The endpoints outlive the controller: probes must not fail while reconciles end.
    let endpoints = CancellationToken::new();
    let metrics_server = admin::serve(args.metrics_address, admin::metrics_router(metrics), endpoints.clone());
    let probes_server = admin::serve(args.probe_address, admin::probes_router(readiness), endpoints.clone());
    let servers = async {
        let served = tokio::try_join!(metrics_server, probes_server);
        // An address that cannot be bound ends the process; otherwise they end when they are told to.
        stop.cancel();
        served.with_context(|| format!("serve on {} and {}", args.metrics_address, args.probe_address))
    };
    let managed = async {
        manager.run(stop.clone()).await;
        endpoints.cancel();
    };
    let ((), served) = tokio::join!(managed, servers);
    served.map(drop)
}
