//! Requests a second: finished answers, and windows that slide.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicUsize},
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::runtime::Runtime;

use super::{
    Bench, PROXY, datasource, peers, range,
    source::{self, Source},
};
use crate::{
    bench::{
        Case, Measured, Memory, Results,
        cases::bearer,
        machine, measure_round,
        subject::{self, Backend, Subject},
    },
    load::{Check, Failure, Order, Plan, Request, expect_status},
    perses::Perses,
    progress::step,
};

/// Queries of the hits; with these series and points an answer has about 77 KB.
const QUERIES: usize = 200;
const SERIES: usize = 20;
const POINTS: u64 = 164;
const START: u64 = 1_700_000_000 - 1_700_000_000 % source::STEP;
/// Points of the window that slides: an hour.
const HOUR: u64 = 3600;
/// How often each query slides by a step before the load begins again (at the same windows).
const SLIDES: u64 = 1_500;

/// One kind of request: who is asked, ours first.
struct Contest<'a> {
    name: &'static str,
    body_bytes: usize,
    sides: Vec<(&'a Subject, Plan)>,
}

pub(super) fn measure(bench: &Bench, runtime: &Runtime) -> Result<Results> {
    let (cores, folder) = (bench.cores, bench.folder.path());
    let files = folder.join("files");
    fs::create_dir_all(&files).context("create nginx' files")?;
    fs::write(files.join("ready"), "").context("write a file for nginx")?;

    step("starting the servers");
    let prometheus = runtime.block_on(peers::start_prometheus(&samples(), cores, folder))?;
    let prometheus_url = format!("http://{}", prometheus.address());
    let source = runtime.block_on(Source::start())?;
    let nginx = runtime.block_on(subject::start_nginx(&files, cores, folder))?;
    let start = |name| runtime.block_on(subject::start_server(name, &bench.server, &Backend::Files, cores, folder));
    let (hits, hits_client) = start("perses-api-server")?;
    let (slides, slides_client) = start("perses-api-server, sliding")?;
    runtime.block_on(datasource(&hits_client, &prometheus_url))?;
    runtime.block_on(datasource(&slides_client, &source.url()))?;
    let frontends = if bench.args.no_thanos {
        None
    } else {
        let start = |url: &str, name| runtime.block_on(peers::start_frontend(url, cores, folder, name));
        Some((
            start(&prometheus_url, "Thanos query-frontend")?,
            start(&source.url(), "Thanos query-frontend, sliding")?,
        ))
    };

    step(format!("asking each of {QUERIES} queries once"));
    let bodies = runtime.block_on(bodies(&hits_client, &files))?;
    let door = |subject: &Subject| Plan { connections: bench.args.connections, ..Plan::new(subject.address(), []) };
    let mut same = vec![
        (&hits, same_window(&door(&hits), PROXY, &[("Authorization", &bearer(&hits_client)?)], exact(&bodies))),
        (&nginx, nginx_files(&door(&nginx), exact(&bodies))),
        (&prometheus, same_window(&door(&prometheus), "", &[], exact(&bodies))),
    ];
    let mut sliding = vec![(
        &slides,
        sliding_windows(&door(&slides), PROXY, &[("Authorization", &bearer(&slides_client)?)], exact_window()),
    )];
    if let Some((on_prometheus, on_source)) = &frontends {
        same.push((on_prometheus, same_window(&door(on_prometheus), "", &[], about(&bodies))));
        sliding.push((on_source, sliding_windows(&door(on_source), "", &[], about_window())));
    }
    let contests = [
        Contest {
            name: "same window, hit",
            body_bytes: bodies.iter().map(Bytes::len).sum::<usize>() / QUERIES,
            sides: same,
        },
        Contest {
            name: "an hour that slides, each window once",
            body_bytes: source::window(&query(0), START, START + HOUR).len(),
            sides: sliding,
        },
    ];
    let results = rounds(bench, &contests)?;
    let (asked, points) = source.asked();
    step(format!("the sliding windows cost {asked} queries and {points} points at their source, all servers together"));
    Ok(results)
}

fn rounds(bench: &Bench, contests: &[Contest<'_>]) -> Result<Results> {
    let empty = |contest: &Contest<'_>| Case {
        name: contest.name.to_owned(),
        body_bytes: super::float(contest.body_bytes as u64),
        bound_by_server: true,
        servers: contest.sides.iter().map(|(subject, _)| Measured { name: subject.name(), rounds: vec![] }).collect(),
    };
    let mut cases: Vec<_> = contests.iter().map(empty).collect();
    let subjects = || contests.iter().flat_map(|contest| contest.sides.iter().map(|(subject, _)| *subject));
    let memory = |subject: &Subject| Ok(Memory { name: subject.name(), before: subject.resident()?, rounds: vec![] });
    let mut memory: Vec<Memory> = subjects().map(memory).collect::<Result<_>>()?;
    let mut answered = vec![0; memory.len()];
    for number in 0..=bench.args.rounds {
        // The first round warms caches and is not counted.
        step(if number == 0 { "warming up".to_owned() } else { format!("round {number} of {}", bench.args.rounds) });
        let mut place = 0;
        for (contest, case) in contests.iter().zip(&mut cases) {
            for ((subject, plan), measured) in contest.sides.iter().zip(&mut case.servers) {
                let (result, requests) = measure_round(contest.name, plan, subject, bench.args.seconds)?;
                answered[place] += requests;
                memory[place].rounds.push((answered[place], subject.resident()?));
                place += 1;
                if number > 0 {
                    measured.rounds.push(result);
                }
            }
        }
    }
    let method = format!(
        "{} rounds of {} s, servers in turns, each alone on one core, the clients and the source of the sliding windows on another; \
         {} keep-alive connections; {QUERIES} queries, sign-in on (bearer token); ours, nginx and Prometheus checked byte for byte, \
         Thanos by length and ends.",
        bench.args.rounds, bench.args.seconds, bench.args.connections,
    );
    Ok(Results { machine: machine()?, method, cases, memory })
}

fn query(index: usize) -> String {
    format!("bench_{index:03}{{job=\"node\"}}")
}

/// Gauges with values of seven digits, as OpenMetrics.
fn samples() -> String {
    let mut random = SmallRng::seed_from_u64(42);
    let mut text = String::new();
    for query in 0..QUERIES {
        _ = writeln!(text, "# TYPE bench_{query:03} gauge");
        for series in 0..SERIES {
            for point in 0..POINTS {
                let (value, time) =
                    (f64::from(random.random_range(100_000..999_999)) / 1000.0, START + point * source::STEP);
                _ = writeln!(
                    text,
                    "bench_{query:03}{{instance=\"host-{series:03}:9100\",job=\"node\"}} {value} {time}"
                );
            }
        }
    }
    text += "# EOF\n";
    text
}

/// Asks for each query, and once more to see that it is kept; the answers become files for nginx.
async fn bodies(client: &Perses, files: &Path) -> Result<Arc<[Bytes]>> {
    let mut bodies = Vec::new();
    for index in 0..QUERIES {
        let path = range(PROXY, &query(index), START, START + (POINTS - 1) * source::STEP);
        client.get(&path).await?.ok().context("the first range query")?;
        let answer = client.get(&path).await?.ok().context("the second range query")?;
        ensure!(answer.cache_status.contains("hit"), "no hit: Cache-Status {:?}", answer.cache_status);
        fs::write(files.join(index.to_string()), &answer.body).context("write a file for nginx")?;
        bodies.push(answer.body);
    }
    Ok(bodies.into())
}

fn same_window(door: &Plan, below: &str, headers: &[(&str, &str)], check: Check) -> Plan {
    let host = door.address.to_string();
    let path = |index| range(below, &query(index), START, START + (POINTS - 1) * source::STEP);
    let requests = (0..QUERIES).map(|index| Request::get(&host, &path(index), headers)).collect();
    Plan { requests, check, ..door.clone() }
}

fn nginx_files(door: &Plan, check: Check) -> Plan {
    let host = door.address.to_string();
    let requests = (0..QUERIES).map(|index| Request::get(&host, &format!("/{index}"), &[])).collect();
    Plan { requests, check, ..door.clone() }
}

/// Each query by turns, then each one step later.
fn sliding_windows(door: &Plan, below: &str, headers: &[(&str, &str)], check: Check) -> Plan {
    let host = door.address.to_string();
    let slides = (0..SLIDES).flat_map(|slide| (0..QUERIES).map(move |index| (slide, index)));
    let requests = slides.map(|(slide, index)| {
        let start = START + slide * source::STEP;
        Request::get(&host, &range(below, &query(index), start, start + HOUR), headers)
    });
    Plan { requests: requests.collect(), order: Order::InTurn(Arc::new(AtomicUsize::new(0))), check, ..door.clone() }
}

/// The query and the first instant of a request of [`sliding_windows`].
fn of_request(request: usize) -> (String, u64) {
    (query(request % QUERIES), START + (request / QUERIES) as u64 * source::STEP)
}

fn exact(bodies: &Arc<[Bytes]>) -> Check {
    let bodies = Arc::clone(bodies);
    Arc::new(move |sent, response| {
        expect_status(response, 200)?;
        if response.body == bodies[sent.request] { Ok(()) } else { Err(other()) }
    })
}

/// Thanos prints the same, with its own order of labels and fields.
fn about(bodies: &Arc<[Bytes]>) -> Check {
    let bodies = Arc::clone(bodies);
    Arc::new(move |sent, response| {
        expect_status(response, 200)?;
        if response.body.len().abs_diff(bodies[sent.request].len()) < 200 { Ok(()) } else { Err(other()) }
    })
}

/// Every tenth body whole (making what is right costs more than serving it), the others by length, first and last point.
fn exact_window() -> Check {
    Arc::new(move |sent, response| {
        expect_status(response, 200)?;
        if sent.request % 10 != 0 {
            return ends(sent.request, response.body);
        }
        let (query, start) = of_request(sent.request);
        if response.body == source::window(&query, start, start + HOUR).as_bytes() { Ok(()) } else { Err(other()) }
    })
}

fn about_window() -> Check {
    Arc::new(move |sent, response| {
        expect_status(response, 200)?;
        ends(sent.request, response.body)
    })
}

/// The first instant is in the first part of the body, the last one near its end, and the length is that of an hour.
fn ends(request: usize, body: &[u8]) -> Result<(), Failure> {
    let (_, start) = of_request(request);
    let has = |part: &[u8], time: u64| {
        let text = format!("[{time},");
        part.windows(text.len()).any(|window| window == text.as_bytes())
    };
    let (first, last) = (&body[..body.len().min(1_000)], &body[body.len().saturating_sub(300)..]);
    let whole = body.len() > 10 * 230 * 20;
    if whole && has(first, start) && has(last, start + HOUR) { Ok(()) } else { Err(other()) }
}

fn other() -> Failure {
    Failure::Check("other bytes than expected".to_owned())
}
