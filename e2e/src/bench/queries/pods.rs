//! Pods that share a Redis: a crowd at two cold ones, and Redis killed under load.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::{runtime::Runtime, time::Instant};

use super::{Bench, Finding, PROXY, datasource, load, range, source::STEP};
use crate::{
    bench::subject::{self, Backend},
    load::{self as generator, Plan},
    services::{Postgres, Redis, TcpProxy, USER},
};

const CLIENTS: usize = 500;
const SLOW: Duration = Duration::from_millis(200);

fn cache(redis: &Redis) -> Value {
    json!({"l1_max_bytes": 200 << 20, "redis": {"addr": redis.address()}})
}

/// Half of the clients at each of two pods, at one instant; nothing is known anywhere.
pub(super) fn crowd(bench: &Bench, runtime: &Runtime) -> Result<Vec<Finding>> {
    runtime.block_on(async {
        let (postgres, redis) = (Arc::new(Postgres::start().await?), Redis::start().await?);
        postgres.sql("postgres", &format!("CREATE DATABASE bench OWNER {USER}")).await?;
        let prometheus = load::prometheus().await?;
        let slow = TcpProxy::to_port(prometheus.port()).await?;
        slow.delay(SLOW).await;
        let backend = Backend::Shared(postgres, cache(&redis));
        let start = |name| subject::start_server(name, &bench.server, &backend, bench.cores, bench.folder.path());
        let (_one, one) = start("perses-api-server, pod 1").await?;
        let (_two, two) = start("perses-api-server, pod 2").await?;
        datasource(&one, &format!("http://127.0.0.1:{}", slow.port())).await?;
        // Both know the datasource, and have connections to all they need.
        for (pod, query) in [(&one, "vector(1)"), (&two, "vector(2)")] {
            let path = range(PROXY, query, 1_700_000_010, 1_700_000_040);
            let known = || async { Ok(pod.get(&path).await?.status.is_success().then_some(())) };
            crate::wait::wait_for("the pods to know the datasource", Duration::from_secs(30), known).await?;
        }
        let (mut upstream, mut slowest) = (Vec::new(), Vec::new());
        for chart in load::charts().iter().take(5) {
            let end = load::now() / STEP * STEP;
            let path = range(PROXY, chart, end - 3600, end);
            let before = prometheus.query_total().await?;
            let started = Instant::now();
            let asks = (0..CLIENTS).map(|client| {
                let (pod, path) = (if client % 2 == 0 { one.clone() } else { two.clone() }, path.clone());
                tokio::spawn(async move { pod.get(&path).await?.ok() })
            });
            let mut bodies = Vec::new();
            for answer in join_all(asks).await {
                bodies.push(answer.context("a client ended")??.body);
            }
            ensure!(bodies.iter().all(|body| *body == bodies[0]), "the clients got different answers");
            slowest.push(started.elapsed().as_millis());
            upstream.push(prometheus.query_total().await? - before);
        }
        Ok(vec![Finding {
            what: format!(
                "{CLIENTS} cold clients at one instant, two pods, Prometheus {} ms slow: queries upstream",
                SLOW.as_millis()
            ),
            aim: "1".to_owned(),
            measured: format!("{upstream:?}; all answered after {slowest:?} ms"),
        }])
    })
}

/// The seed's load, and Redis is gone from one moment to the next.
pub(super) fn redis_killed(bench: &Bench, runtime: &Runtime) -> Result<Vec<Finding>> {
    let (redis, prometheus) =
        runtime.block_on(async { anyhow::Ok((Redis::start().await?, load::prometheus().await?)) })?;
    let (name, backend) = ("perses-api-server, Redis", Backend::Cached(cache(&redis)));
    let start = subject::start_server(name, &bench.server, &backend, bench.cores, bench.folder.path());
    let (server, client) = runtime.block_on(start)?;
    runtime.block_on(datasource(&client, &prometheus.url()))?;
    let run = |end: u64, seconds: u64| {
        let plan: Plan = load::plan(&server, &client, &load::charts(), end)?;
        load::good(generator::run(&plan, Duration::from_secs(seconds))?)
    };
    let (end, _) = load::next_bucket();
    run(end, 5)?;
    let before = run(end, 5)?;
    let (end, _) = load::next_bucket();
    // In the first second of a bucket: everything has to be asked for and to be kept.
    let killing = runtime.spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        redis.kill().await
    });
    let during = run(end, 1)?;
    runtime.block_on(killing)??;
    let after = run(end, 5)?;
    let (end, _) = load::next_bucket();
    let next = run(end, 5)?;
    Ok(vec![Finding {
        what: "Redis killed under the seed's load: p99 before, in the second of it, after it, in the next bucket"
            .to_owned(),
        aim: "no error; p99 < 50 ms again within 1 s".to_owned(),
        measured: format!(
            "0 errors; {:.1}, {:.1}, {:.1}, {:.1} ms",
            before.latency.p99, during.latency.p99, after.latency.p99, next.latency.p99
        ),
    }])
}
