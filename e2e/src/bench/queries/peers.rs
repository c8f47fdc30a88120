//! What ours is compared with: Thanos' query frontend with its cache in memory, and Prometheus itself, each on the server's core.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    bench::{pin::Cores, subject::Subject},
    build::thanos,
    services::{Port, root},
};

/// Starts the frontend before a datasource. Nothing of its defaults is changed but the log, the address, the size of its cache
/// (as large as ours) and the retries.
pub(super) async fn start_frontend(upstream: &str, cores: Cores, folder: &Path, name: &'static str) -> Result<Subject> {
    let program = tokio::task::spawn_blocking(thanos::ensure).await??;
    let port = Port::reserve()?;
    let cache = folder.join(format!("{name}-cache.yaml"));
    fs::write(&cache, "type: IN-MEMORY\nconfig: {max_size: 200MB, max_size_items: 0, validity: 1h}\n")
        .context("write the frontend's cache configuration")?;
    let mut command = cores.on_server(program);
    command.args(["query-frontend", "--log.level=error"]);
    command.arg(format!("--http-address=127.0.0.1:{}", port.number()));
    command.arg(format!("--query-frontend.downstream-url={upstream}"));
    command.arg(format!("--query-range.response-cache-config-file={}", cache.display()));
    command.args(["--query-range.max-retries-per-request=0", "--cache-compression-type="]);
    command.env("GOMAXPROCS", "1");
    let mut frontend = Subject::start(name, command, port, folder)?;
    frontend.ready("/-/ready").await.context("Thanos' query frontend")?;
    Ok(frontend)
}

/// Starts a Prometheus with these samples (OpenMetrics), which scrapes nothing.
pub(super) async fn start_prometheus(samples: &str, cores: Cores, folder: &Path) -> Result<Subject> {
    let root = tokio::task::spawn_blocking(root::ensure).await??;
    let program = |name: &str| -> PathBuf { root.join("usr/bin").join(name) };
    let (text, data) = (folder.join("samples.txt"), folder.join("tsdb"));
    fs::write(&text, samples).context("write samples")?;
    let made = Command::new(program("promtool"))
        .args(["tsdb", "create-blocks-from", "openmetrics", "--quiet"])
        .args([&text, &data])
        .output()
        .context("run promtool")?;
    ensure!(made.status.success(), "promtool failed: {}", String::from_utf8_lossy(&made.stderr));
    let config = folder.join("prometheus.yml");
    fs::write(&config, "scrape_configs: []\n").context("write the configuration of Prometheus")?;
    let port = Port::reserve()?;
    let mut command = cores.on_server(program("prometheus"));
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", data.display()));
    command.args(["--storage.tsdb.retention.time=100y", "--log.level=error"]);
    command.arg(format!("--web.listen-address={}", SocketAddr::from(([127, 0, 0, 1], port.number()))));
    command.env("GOMAXPROCS", "1");
    let mut prometheus = Subject::start("Prometheus", command, port, folder)?;
    prometheus.ready("/-/ready").await?;
    Ok(prometheus)
}
