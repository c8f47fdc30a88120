//! What a kept point costs: resident memory of the server while more and more queries are known, labels and all included.
//!
//! Finished answers have a budget of their own. Once it is full, what still grows are points.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::runtime::Runtime;

use super::{
    Bench, Finding, PROXY, datasource, float, range,
    source::{self, Source},
};
use crate::{
    bench::subject::{self, Backend},
    perses::Perses,
};

const START: u64 = 1_700_000_000 - 1_700_000_000 % source::STEP;
const HOUR: u64 = 3600;
/// Queries until the budget of finished answers is full, and queries more.
const FIRST: usize = 3_000;
const MORE: usize = 6_000;

pub(super) fn measure(bench: &Bench, runtime: &Runtime) -> Result<Vec<Finding>> {
    runtime.block_on(async {
        let source = Source::start().await?;
        let backend = Backend::Cached(json!({"l1_max_bytes": 512 << 20}));
        let name = "perses-api-server, memory";
        let (server, client) =
            subject::start_server(name, &bench.server, &backend, bench.cores, bench.folder.path()).await?;
        datasource(&client, &source.url()).await?;
        ask(&client, 0..FIRST).await?;
        let before = server.resident()?;
        ask(&client, FIRST..FIRST + MORE).await?;
        let after = server.resident()?;
        // All are known: nothing is asked for again.
        let asked = source.asked().0;
        ask(&client, 0..100).await?;
        ensure!(source.asked().0 == asked, "points were dropped: the measurement means nothing");
        let points = float(MORE as u64 * source::SERIES * (HOUR / source::STEP + 1));
        Ok(vec![Finding {
            what: format!("resident bytes a kept point: {MORE} queries more, counters of an hour at 15 s, {before:.0} -> {after:.0} MB"),
            aim: "<= 4".to_owned(),
            measured: format!("{:.1}", (after - before) * 1e6 / points),
        }])
    })
}

async fn ask(client: &Perses, queries: std::ops::Range<usize>) -> Result<()> {
    for query in queries {
        let path = range(PROXY, &format!("bench_{query:05}"), START, START + HOUR);
        client.get(&path).await?.ok().context("a range query")?;
    }
    Ok(())
}
