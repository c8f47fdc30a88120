//! `pstack bench-queries`: the query path beside nginx, Prometheus itself and Thanos' query frontend.
//!
//! Rates ([`rates`]) are measured as in `pstack bench`: each server alone on one core, in turns. The rest are situations that
//! have one right outcome: the seed's load ([`load`]), a crowd at two cold pods, Redis killed ([`pods`]), memory ([`memory`]).

mod load;
mod memory;
mod peers;
mod pods;
mod rates;
mod source;

use std::{fmt::Write as _, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::{
    bench::{machine, pin::Cores},
    paths,
    perses::Perses,
    progress::step,
};

/// Options of `pstack bench-queries`.
#[derive(Debug, Args)]
pub struct QueriesArgs {
    /// Our server; the release build of this workspace when not given
    #[arg(long)]
    server: Option<PathBuf>,
    /// Rounds of the rates; the table shows their medians
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement of a rate
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Connections of the load generator
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Buckets of 15 seconds that a load lasts which has to last
    #[arg(long, default_value_t = 4)]
    buckets: usize,
    /// Leave Thanos' query frontend out
    #[arg(long)]
    no_thanos: bool,
    /// Only these parts; all when not given
    #[arg(long, value_enum)]
    only: Vec<Part>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Hits and sliding windows, beside the peers.
    Rates,
    /// 500 users of the same dashboards.
    Seed,
    /// 500 users, each with queries of their own.
    Distinct,
    /// 500 clients at one instant at two cold pods.
    Crowd,
    /// Redis killed under load.
    Redis,
    /// Bytes of a kept point.
    Memory,
}

/// What the parts have in common.
#[derive(Debug)]
struct Bench {
    server: PathBuf,
    cores: Cores,
    folder: tempfile::TempDir,
    args: QueriesArgs,
}

/// An outcome, beside what is aimed at.
#[derive(Debug)]
struct Finding {
    what: String,
    aim: String,
    measured: String,
}

impl QueriesArgs {
    /// Runs the benchmark and prints the result. Not for use inside a runtime.
    pub fn run(self) -> Result<()> {
        ensure!(self.rounds > 0 && self.buckets > 0, "rounds and buckets must be above 0");
        let cores = Cores::choose()?;
        cores.enter_clients()?;
        let folder = tempfile::Builder::new().prefix("perses-stack-bench-").tempdir().context("create a folder")?;
        let server = self.server.clone().unwrap_or_else(|| paths::target_dir().join("release/perses-api-server"));
        let has = |part: Part| self.only.is_empty() || self.only.contains(&part);
        let (rates, seed, distinct) = (has(Part::Rates), has(Part::Seed), has(Part::Distinct));
        let (crowd, redis, memory) = (has(Part::Crowd), has(Part::Redis), has(Part::Memory));
        let bench = Bench { server, cores, folder, args: self };
        // The source and the clients of single requests work in this runtime while this thread is the load generator.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;

        if rates {
            print!("{}", rates::measure(&bench, &runtime)?.markdown());
        } else {
            println!("{}", machine()?);
        }
        let mut findings = Vec::new();
        if seed {
            step("the seed's load: 500 users of the same three dashboards");
            findings.extend(load::same(&bench, &runtime)?);
        }
        if distinct {
            step("500 users, each with queries of their own");
            findings.extend(load::distinct(&bench, &runtime)?);
        }
        if crowd {
            step("a crowd at two cold pods");
            findings.extend(pods::crowd(&bench, &runtime)?);
        }
        if redis {
            step("Redis killed under load");
            findings.extend(pods::redis_killed(&bench, &runtime)?);
        }
        if memory {
            step("filling memory with points");
            findings.extend(memory::measure(&bench, &runtime)?);
        }
        if !findings.is_empty() {
            print!("{}", table(&findings));
        }
        Ok(())
    }
}

fn table(findings: &[Finding]) -> String {
    let mut text = "\n| situation | aim | measured |\n|---|---|---|\n".to_owned();
    for Finding { what, aim, measured } in findings {
        _ = writeln!(text, "| {what} | {aim} | {measured} |");
    }
    text
}

/// The global datasource that all queries go to.
async fn datasource(client: &Perses, url: &str) -> Result<()> {
    let datasource: Value = json!({
        "kind": "GlobalDatasource",
        "metadata": {"name": "prometheus"},
        "spec": {"default": true, "plugin": {"kind": "PrometheusDatasource", "spec": {
            "proxy": {"kind": "HTTPProxy", "spec": {"url": url}},
        }}},
    });
    client.apply(&datasource).await?;
    Ok(())
}

/// Path and parameters of a range query; `below` is what is in front of `/api/v1`.
fn range(below: &str, query: &str, start: u64, end: u64) -> String {
    let mut url = reqwest::Url::parse("http://host/").unwrap_or_else(|_| unreachable!("a constant"));
    url.query_pairs_mut()
        .append_pair("query", query)
        .append_pair("start", &start.to_string())
        .append_pair("end", &end.to_string())
        .append_pair("step", &source::STEP.to_string());
    format!("{below}/api/v1/query_range?{}", url.query().unwrap_or_default())
}

/// What is in front of `/api/v1` at our server.
const PROXY: &str = "/proxy/globaldatasources/prometheus";

#[expect(clippy::cast_precision_loss, reason = "counts for people, far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}
