//! `pstack bench`: our server beside nginx and the real Perses, each alone on one core, in turns.
//!
//! nginx serves files of the same bytes, so it is what the network stack costs; the ratio is what we add. Perses (Go)
//! serves the same documents from its own files. A second server of ours, on PostgreSQL and without caches, shows what the
//! database costs.

mod cases;
mod database;
mod pin;
mod queries;
mod subject;
mod table;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

pub use queries::QueriesArgs;
pub use table::{Case, Measured, Memory, Results, Round};

use crate::{
    bench::{
        cases::{Contest, Dashboards, Doors},
        pin::{Busy, Cores},
        subject::{Backend, Subject},
    },
    load::{self, Plan},
    paths,
    progress::step,
    services::{PgBouncer, PoolSettings, Postgres},
};

/// Options of `pstack bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Our server; the release build of this workspace when not given
    #[arg(long)]
    server: Option<PathBuf>,
    /// Leave out what needs PostgreSQL
    #[arg(long)]
    no_database: bool,
    /// Rounds; the table shows their medians
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Connections of the load generator
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Dashboards, half of them small and half large
    #[arg(long, default_value_t = 500)]
    dashboards: usize,
    /// Leave the real Perses out
    #[arg(long)]
    no_perses: bool,
    /// Print JSON instead of Markdown
    #[arg(long)]
    json: bool,
}

impl BenchArgs {
    /// Runs the benchmark and prints the result. Not for use inside a runtime.
    pub fn run(self) -> Result<()> {
        let results = self.measure()?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&results)?);
        } else {
            print!("{}", results.markdown());
        }
        Ok(())
    }

    fn measure(&self) -> Result<Results> {
        ensure!(self.rounds > 0 && self.dashboards > 0, "rounds and dashboards must be above 0");
        let cores = Cores::choose()?;
        cores.enter_clients()?;
        let folder = tempfile::Builder::new().prefix("perses-stack-bench-").tempdir().context("create a folder")?;
        let files = folder.path().join("files");
        fs::create_dir_all(&files).context("create nginx' files")?;
        fs::write(files.join("ready"), "").context("write a file for nginx")?;
        // The editing client works in this runtime while this thread is the load generator.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;

        step("starting the servers");
        let binary = self.server.clone().unwrap_or_else(|| paths::target_dir().join("release/perses-api-server"));
        let start = |name, backend: &Backend| {
            runtime.block_on(subject::start_server(name, &binary, backend, cores, folder.path()))
        };
        let (server, client) = start("perses-api-server", &Backend::Files)?;
        let services = if self.no_database { None } else { Some(runtime.block_on(database_services())?) };
        let on_database = match &services {
            Some(services) => Some(start("perses-api-server without caches", services)?),
            None => None,
        };
        let nginx = runtime.block_on(subject::start_nginx(&files, cores, folder.path()))?;
        let prometheus = runtime.block_on(cases::prometheus())?;

        step(format!("creating {} dashboards", self.dashboards));
        let dashboards = std::sync::Arc::new(runtime.block_on(Dashboards::create(&client, self.dashboards, &files))?);
        let others = database::others();
        step(format!("creating {} documents of other projects", others.len()));
        runtime.block_on(database::create(&client, &others))?;
        if let Some((_, client)) = &on_database {
            runtime.block_on(database::create(client, &others))?;
            runtime.block_on(database::create(client, &dashboards.with_project()))?;
        }
        let perses = if self.no_perses {
            None
        } else {
            let documents = [others, dashboards.with_project()].concat();
            Some(runtime.block_on(perses(cores, &documents))?)
        };
        let plan = |subject: &Subject| Plan { connections: self.connections, ..Plan::new(subject.address(), []) };
        let doors = Doors {
            ours: plan(&server),
            nginx: plan(&nginx),
            perses: perses.as_ref().map(|peer| (plan(&peer.subject), peer.authorization.clone())),
        };
        let contests = runtime.block_on(async {
            let mut contests = vec![
                dashboards.reads(&client, &doors, false, &files)?,
                dashboards.reads(&client, &doors, true, &files)?,
                dashboards.compressed_reads(&client, &doors, &files).await?,
                Dashboards::lists(&client, &doors, false).await?,
                Dashboards::lists(&client, &doors, true).await?,
                cases::queries(&client, &prometheus, &doors, &files).await?,
            ];
            if let Some((subject, client)) = &on_database {
                let door = plan(subject);
                contests.push(database::cold_reads(client, &door, self.dashboards).await?);
                contests.push(database::lists(client, &door, false).await?);
                contests.push(database::lists(client, &door, true).await?);
                contests.push(database::dashboard_writes(client, &door)?);
                contests.push(database::folder_writes(client, &door, doors.perses.as_ref())?);
            }
            anyhow::Ok(contests)
        })?;
        let servers: Vec<&Subject> = [&server, &nginx]
            .into_iter()
            .chain(perses.iter().map(|peer| &peer.subject))
            .chain(on_database.iter().map(|(subject, _)| subject))
            .collect();
        // From here on an answer can only come from the cache.
        runtime.block_on(prometheus.pause())?;
        let editing = {
            let dashboards = std::sync::Arc::clone(&dashboards);
            let client = client.clone();
            runtime.spawn(async move { dashboards.keep_editing(&client).await })
        };

        let start = |server: &&Subject| Ok(Memory { name: server.name(), before: server.resident()?, rounds: vec![] });
        let mut memory: Vec<_> = servers.iter().map(start).collect::<Result<_>>()?;
        let mut answered = vec![0; servers.len()];
        let mut cases: Vec<_> = contests.iter().map(|contest| empty_case(contest, &servers)).collect::<Result<_>>()?;
        for round in 0..=self.rounds {
            // The first round warms caches and is not counted.
            step(if round == 0 { "warming up".to_owned() } else { format!("round {round} of {}", self.rounds) });
            for (contest, case) in contests.iter().zip(&mut cases) {
                for (plan, measured) in contest.plans.iter().zip(&mut case.servers) {
                    let index = server_of(plan, &servers)?;
                    let (result, requests) = measure_round(&contest.name, plan, servers[index], self.seconds)?;
                    answered[index] += requests;
                    if round > 0 {
                        measured.rounds.push(result);
                    }
                }
            }
            for ((memory, server), requests) in memory.iter_mut().zip(&servers).zip(&answered) {
                memory.rounds.push((*requests, server.resident()?));
            }
        }
        ensure!(!editing.is_finished(), "the editing client gave up: {:?}", runtime.block_on(editing));
        ensure!(dashboards.edits() > 0, "no dashboard was edited during the benchmark");
        editing.abort();
        runtime.block_on(prometheus.resume())?;
        Ok(Results { machine: machine()?, method: self.method(), cases, memory })
    }

    fn method(&self) -> String {
        format!(
            "{} rounds of {} s, servers in turns, each alone on one core, the clients on another; {} keep-alive connections; \
             {} dashboards picked at random out of about 10,000, kept in files, one edit a second; sign-in on (bearer token); \
             every answer checked: status, length, and the version of a dashboard or each byte of a query's answer. PostgreSQL \
             and its pooler work on the clients' core.",
            self.rounds, self.seconds, self.connections, self.dashboards,
        )
    }
}

/// Measures a server with a plan for so many seconds; what a wrong answer makes of it is an error.
fn measure_round(what: &str, plan: &Plan, subject: &Subject, seconds: f64) -> Result<(Round, u64)> {
    let (server, client) = (Busy::of_process(subject.pid())?, Busy::of_this_thread()?);
    let report = load::run(plan, Duration::try_from_secs_f64(seconds).context("bad --seconds")?)?;
    let (server_busy, client_busy) = (server.fraction()?, client.fraction()?);
    ensure!(report.failed == 0, "{what} at {}: not every answer was right\n{report}", subject.name());
    let load::Latency { p50, p95, p99, .. } = report.latency;
    Ok((Round { rate: report.rate(), p50, p95, p99, server_busy, client_busy }, report.requests))
}

async fn perses(cores: Cores, documents: &[serde_json::Value]) -> Result<subject::Peer> {
    let program = tokio::task::spawn_blocking(crate::build::upstream::ensure).await??;
    subject::start_perses(&program, cores, documents).await
}

async fn database_services() -> Result<Backend> {
    let postgres = Postgres::start().await?;
    postgres.sql("postgres", &format!("CREATE DATABASE bench OWNER {}", crate::services::USER)).await?;
    let pooler = PgBouncer::start(&postgres, PoolSettings::default()).await?;
    Ok(Backend::Database(Box::new((postgres, pooler))))
}

/// The server that a plan asks.
fn server_of(plan: &Plan, servers: &[&Subject]) -> Result<usize> {
    servers.iter().position(|server| server.address() == plan.address).context("a plan asks no server of the benchmark")
}

fn empty_case(contest: &Contest, servers: &[&Subject]) -> Result<Case> {
    let measured = contest
        .plans
        .iter()
        .map(|plan| Ok(Measured { name: servers[server_of(plan, servers)?].name(), rounds: Vec::new() }));
    let Contest { name, body_bytes, bound_by_server, .. } = contest;
    let servers = measured.collect::<Result<_>>()?;
    Ok(Case { name: name.clone(), body_bytes: *body_bytes, bound_by_server: *bound_by_server, servers })
}

fn machine() -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown CPU", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from).max(cpuinfo.matches("processor\t").count());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's version")?;
    let nginx = std::process::Command::new("nginx").arg("-v").output().context("run nginx -v")?;
    let nginx = String::from_utf8_lossy(&nginx.stderr);
    let nginx = nginx.trim().trim_start_matches("nginx version: ").replace('/', " ");
    Ok(format!("{model}, {cores} cores, Linux {}, {nginx}.", kernel.trim()))
}
