//! The seed's load (section 4): 500 users with three dashboards of five charts, each asked again every 15 seconds. Open loop.

use std::{
    fmt::Write as _,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use anyhow::{Result, ensure};
use jiff::Timestamp;
use tokio::runtime::Runtime;

use super::{Bench, Finding, PROXY, datasource, float, range, source::STEP};
use crate::{
    bench::{
        cases::bearer,
        pin::Busy,
        subject::{self, Backend, Subject},
    },
    load::{self, Order, Pace, Plan, Report, Request},
    perses::Perses,
    progress::step,
    services::Prometheus,
};

const USERS: usize = 500;
const CHARTS: usize = 15;
/// Requests a second.
const RATE: f64 = 500.0;
const HOUR: u64 = 3600;
/// Series of a query.
const SERIES: usize = 5;

/// A Prometheus with an hour and a half of samples up to now, and a server in front of it.
struct Scene {
    prometheus: Prometheus,
    server: Subject,
    client: Perses,
}

impl Scene {
    async fn start(bench: &Bench, name: &'static str) -> Result<Self> {
        let prometheus = prometheus().await?;
        let (server, client) =
            subject::start_server(name, &bench.server, &Backend::Files, bench.cores, bench.folder.path()).await?;
        datasource(&client, &prometheus.url()).await?;
        Ok(Self { prometheus, server, client })
    }

    fn plan(&self, queries: &[String], end: u64) -> Result<Plan> {
        plan(&self.server, &self.client, queries, end)
    }
}

/// Range queries of an hour up to `end`, at the seed's rate.
pub(super) fn plan(server: &Subject, client: &Perses, queries: &[String], end: u64) -> Result<Plan> {
    let (host, authorization) = (server.address().to_string(), bearer(client)?);
    let request = |query: &String| {
        Request::get(&host, &range(PROXY, query, end - HOUR, end), &[("Authorization", &authorization)])
    };
    let requests: Vec<_> = queries.iter().map(request).collect();
    Ok(Plan { pace: Pace::PerSecond(RATE), connections: USERS, ..Plan::new(server.address(), requests) })
}

pub(super) async fn prometheus() -> Result<Prometheus> {
    let now = now();
    let mut text = String::new();
    for chart in 0..CHARTS {
        _ = writeln!(text, "# TYPE bench_{chart:03} gauge");
        for series in 0..SERIES {
            for time in (now - 5400..=now).step_by(15) {
                _ = writeln!(text, "bench_{chart:03}{{instance=\"host-{series:03}:9100\"}} {} {time}", time % 9_973);
            }
        }
    }
    text += "# EOF\n";
    Prometheus::start_with(&[], Some(&text)).await
}

/// The charts that all users look at.
pub(super) fn charts() -> Vec<String> {
    (0..CHARTS).map(|chart| format!("bench_{chart:03}")).collect()
}

/// All users look at the same: 15 queries.
pub(super) fn same(bench: &Bench, runtime: &Runtime) -> Result<Vec<Finding>> {
    let scene = runtime.block_on(Scene::start(bench, "perses-api-server, seed"))?;
    let queries = charts();
    let (mut upstream, mut p95, mut busy) = (Vec::new(), Vec::new(), Vec::new());
    for bucket in 0..=bench.args.buckets {
        let (end, left) = next_bucket();
        let plan = scene.plan(&queries, end)?;
        let before = runtime.block_on(scene.prometheus.query_total())?;
        let server = Busy::of_process(scene.server.pid())?;
        let report = good(load::run(&plan, left)?)?;
        let asked = runtime.block_on(scene.prometheus.query_total())? - before;
        step(format!("bucket {bucket}: {asked} queries upstream, p95 {:.1} ms", report.latency.p95));
        if bucket > 0 {
            upstream.push(asked);
            p95.push(report.latency.p95);
            busy.push(server.fraction()?);
        }
    }
    let worst = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        Finding {
            what: format!("{USERS} users, {CHARTS} charts each, all the same, 15 s: queries upstream in a bucket"),
            aim: format!("<= {CHARTS}"),
            measured: format!("{upstream:?}"),
        },
        Finding {
            what: "the same: p95 of the worst bucket".to_owned(),
            aim: "< 50 ms".to_owned(),
            measured: format!("{:.1} ms", worst(&p95)),
        },
        Finding {
            what: "the same: part of a core, worst bucket".to_owned(),
            aim: "< 10 %".to_owned(),
            measured: format!("{:.1} %", worst(&busy) * 100.0),
        },
    ])
}

/// Every user has variables of his own: 7,500 queries.
pub(super) fn distinct(bench: &Bench, runtime: &Runtime) -> Result<Vec<Finding>> {
    let scene = runtime.block_on(Scene::start(bench, "perses-api-server, distinct"))?;
    let of_user =
        |user: usize| (0..CHARTS).map(move |chart| format!("bench_{chart:03}{{instance!=\"user-{user:03}\"}}"));
    let queries: Vec<String> = (0..USERS).flat_map(of_user).collect();
    // What an hour costs when it is asked for directly, of one user's charts.
    let direct = runtime.block_on(async {
        let before = samples(&scene.prometheus).await?;
        let end = now() / STEP * STEP;
        for query in &queries[..CHARTS] {
            let (start, end, step) = ((end - HOUR).to_string(), end.to_string(), STEP.to_string());
            let parameters = [("query", query.as_str()), ("start", &start), ("end", &end), ("step", &step)];
            scene.prometheus.api("query_range", &parameters).await?;
        }
        anyhow::Ok(float(samples(&scene.prometheus).await? - before) / float(CHARTS as u64))
    })?;
    step("the first look of everybody");
    let all = |end, pace| -> Result<Plan> {
        let order = Order::InTurn(Arc::new(AtomicUsize::new(0)));
        Ok(Plan { order, pace, ..scene.plan(&queries, end)? })
    };
    let mut first = all(now() / STEP * STEP, Pace::Closed)?;
    first.connections = 4;
    let position = Arc::new(AtomicUsize::new(0));
    first.order = Order::InTurn(position.clone());
    while position.load(std::sync::atomic::Ordering::Relaxed) < queries.len() {
        good(load::run(&first, Duration::from_secs(2))?)?;
    }
    let (mut fetched, mut p95) = (Vec::new(), Vec::new());
    for bucket in 0..=bench.args.buckets {
        let (end, left) = next_bucket();
        let plan = all(end, Pace::PerSecond(RATE))?;
        let before = runtime.block_on(samples(&scene.prometheus))?;
        let report = good(load::run(&plan, left)?)?;
        let samples = float(runtime.block_on(samples(&scene.prometheus))? - before);
        let part = samples / (direct * float(report.requests));
        step(format!("bucket {bucket}: {:.2} % of the samples, p95 {:.1} ms", part * 100.0, report.latency.p95));
        if bucket > 0 {
            fetched.push(part);
            p95.push(report.latency.p95);
        }
    }
    let worst = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    Ok(vec![
        Finding {
            what: format!(
                "{USERS} users, {} queries, all different: samples read, of those asked for directly",
                queries.len()
            ),
            aim: "<= 10 %".to_owned(),
            measured: format!("{:.1} % in the worst bucket", worst(&fetched) * 100.0),
        },
        Finding {
            what: "the same: p95 of the worst bucket".to_owned(),
            aim: "< 500 ms".to_owned(),
            measured: format!("{:.1} ms", worst(&p95)),
        },
    ])
}

/// How many samples Prometheus has read for queries until now.
async fn samples(prometheus: &Prometheus) -> Result<u64> {
    prometheus.counter("prometheus_engine_query_samples_total").await
}

/// Waits for the start of a bucket; its first second, and how long it lasts.
pub(super) fn next_bucket() -> (u64, Duration) {
    let millis = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
    let end = (millis / 1000 / STEP + 1) * STEP;
    std::thread::sleep(Duration::from_millis(end * 1000 - millis));
    (end, Duration::from_secs(STEP).saturating_sub(Duration::from_millis(300)))
}

pub(super) fn good(report: Report) -> Result<Report> {
    ensure!(report.failed == 0 && report.requests > 0, "not every answer was right\n{report}");
    Ok(report)
}

pub(super) fn now() -> u64 {
    u64::try_from(Timestamp::now().as_second()).unwrap_or(0)
}
