//! Whatever is asked through the cache, in whatever order, the answer is the one that Prometheus gives itself.
//!
//! Conversations: one query on one grid, asked again and again as dashboards do: the same window, windows that slide, grow,
//! jump and overlap, through both pods. Every answer is compared with a direct one, text for text; only the order of series is
//! free. What fails is printed with what is needed to ask again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use e2e::services::{Prometheus, Redis};
use futures::StreamExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::pod::Pod;
use crate::query::pod_with_redis;

const BASE: &str = "/proxy/globaldatasources/prom/api/v1";
/// The beginning of the samples, and how long they go on.
pub const FIRST: i64 = 1_700_000_000;
pub const HOURS: i64 = 6;
const SCRAPE: i64 = 15;
/// Comparisons of one run of the suite.
const DRAWS: usize = 10_000;
/// Comparisons of one conversation.
const TURNS: usize = 10;

/// Queries of every kind that a dashboard may hold.
const QUERIES: [&str; 48] = [
    "gauge",
    "gauge{job=\"a\"}",
    "gauge{job=~\"a|b\",instance!=\"2\"} > 50",
    "counter_total",
    "rate(counter_total[5m])",
    "sum by (job) (rate(counter_total[2m]))",
    "sum without (instance) (increase(counter_total[10m]))",
    "irate(counter_total[1m])",
    "avg_over_time(gauge[3m])",
    "max_over_time(gauge[90s]) - min_over_time(gauge[90s])",
    "stddev_over_time(gauge[5m])",
    "quantile_over_time(0.9, gauge[5m])",
    "histogram_quantile(0.95, sum by (le) (rate(latency_bucket[5m])))",
    "histogram_quantile(0.5, rate(latency_bucket[2m]))",
    "topk(2, gauge)",
    "bottomk(1, rate(counter_total[5m]))",
    "count_values(\"v\", round(gauge, 25))",
    "quantile(0.5, gauge)",
    "group by (job) (gauge)",
    "absent(gauge{job=\"nobody\"})",
    "absent(short_lived)",
    "absent_over_time(short_lived[2m])",
    "short_lived",
    "changes(short_lived[10m])",
    "resets(counter_total[30m])",
    "gauge offset 7m",
    "gauge offset -3m",
    "rate(counter_total[5m] offset 11m) - rate(counter_total[5m])",
    "gauge @ 1700005000",
    "gauge - gauge @ 1700009000.5",
    "gauge @ start()",
    "gauge @ end()",
    "sum(rate(counter_total[5m] @ end()))",
    "max_over_time(rate(counter_total[1m])[5m:30s])",
    "avg_over_time(sum(gauge)[10m:])",
    "sum_over_time(gauge[2m:7s] offset 1m)",
    "gauge and on (job, instance) counter_total",
    "gauge or short_lived",
    "gauge unless on (instance) short_lived",
    "gauge / on (job, instance) group_left counter_total",
    "label_replace(gauge, \"to\", \"$1-x\", \"job\", \"(.*)\")",
    "label_join(gauge, \"both\", \"/\", \"job\", \"instance\")",
    "time() - timestamp(gauge)",
    "vector(time())",
    "scalar(sum(gauge)) * 2",
    "predict_linear(gauge[10m], 600)",
    "clamp(sqrt(gauge - 50), 1, 5)",
    "odd",
];

pub fn samples() -> String {
    let mut rng = StdRng::seed_from_u64(11);
    let mut text = String::new();
    let times = || (0..HOURS * 3600 / SCRAPE).map(|n| FIRST + n * SCRAPE);
    text.push_str("# TYPE counter counter\n");
    for (job, instance) in [("a", 1), ("a", 2), ("b", 1)] {
        let mut sum = 0_u32;
        for time in times() {
            // Restarts, and scrapes that fail.
            sum = if rng.random_ratio(1, 400) { 0 } else { sum + rng.random_range(0..200) };
            if !rng.random_ratio(1, 30) {
                writeln!(text, "counter_total{{job=\"{job}\",instance=\"{instance}\"}} {sum} {time}").unwrap();
            }
        }
    }
    text.push_str("# TYPE gauge gauge\n");
    for (job, instance) in [("a", 1), ("a", 2), ("b", 1), ("b", 2)] {
        let mut value = 50.0_f64;
        for time in times() {
            value += rng.random_range(-3.0..3.0);
            if rng.random_ratio(19, 20) {
                writeln!(text, "gauge{{job=\"{job}\",instance=\"{instance}\"}} {value} {time}").unwrap();
            }
        }
    }
    text.push_str("# TYPE latency histogram\n");
    let mut counts = [0_u32; 4];
    for time in times() {
        for count in &mut counts {
            *count += rng.random_range(0..20);
        }
        let mut all = 0;
        for (le, count) in ["0.1", "0.5", "2.5", "+Inf"].iter().zip(counts) {
            all += count;
            writeln!(text, "latency_bucket{{le=\"{le}\"}} {all} {time}").unwrap();
        }
        writeln!(text, "latency_count {all} {time}\nlatency_sum {} {time}", f64::from(all) / 3.0).unwrap();
    }
    text.push_str("# TYPE odd gauge\n");
    for (n, time) in times().enumerate() {
        let odd = ["NaN", "+Inf", "-Inf", "1e-9", "1e22", "-0", "0.1", "123456789012345678"];
        writeln!(text, "odd{{kind=\"é\\\"{{\"}} {} {time}", odd[n % odd.len()]).unwrap();
    }
    text.push_str("# TYPE short_lived gauge\n");
    for start in (0..HOURS * 3600).step_by(2_700) {
        for time in (start..start + 900).step_by(15) {
            let pod = start / 2_700;
            writeln!(text, "short_lived{{instance=\"{pod}\"}} {} {}", time % 7, FIRST + time).unwrap();
        }
    }
    text + "# EOF\n"
}

/// One window of one query, as it is asked for.
#[derive(Debug, Clone)]
struct Ask {
    query: &'static str,
    /// Milliseconds.
    start: i64,
    end: i64,
    step: i64,
    more: &'static str,
    is_post: bool,
    /// Which pod.
    pod: usize,
    kind: Kind,
}

/// What a window is to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    New,
    Again,
    Slid,
}

impl Ask {
    /// Whether points do not depend on the window.
    fn is_pure(&self) -> bool {
        !["@ start()", "@ end()"].iter().any(|bound| self.query.contains(bound)) && !self.more.starts_with("limit")
    }

    fn pairs(&self) -> Vec<(String, String)> {
        let seconds = |millis: i64| format!("{}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000));
        let mut pairs = vec![
            ("query".to_owned(), self.query.to_owned()),
            ("start".to_owned(), seconds(self.start)),
            ("end".to_owned(), seconds(self.end)),
            ("step".to_owned(), seconds(self.step)),
        ];
        pairs.extend(form_urlencoded::parse(self.more.as_bytes()).into_owned());
        pairs
    }

    fn encoded(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(self.pairs()).finish()
    }
}

/// A conversation about one query on one grid.
fn conversation(rng: &mut StdRng) -> Vec<Ask> {
    let query = QUERIES[rng.random_range(0..QUERIES.len())];
    let step = [1_000, 5_000, 7_500, 15_000, 15_000, 15_000, 30_000, 60_000, 61_001, 300_000][rng.random_range(0..10)];
    let all = HOURS * 3_600_000 / step;
    let phase = if rng.random_bool(0.5) { 0 } else { rng.random_range(0..step) };
    let base = FIRST * 1000 + phase;
    let mut points = rng.random_range(1..=all.min(250));
    let mut first = rng.random_range(0..=all - points);
    let more = ["", "", "", "timeout=30s", "lookback_delta=2m", "limit=3"][rng.random_range(0..6)];
    let mut asks = Vec::with_capacity(TURNS);
    for turn in 0..TURNS {
        let mut kind = Kind::New;
        if turn > 0 {
            match rng.random_range(0..10) {
                // The same again.
                0..6 => kind = Kind::Again,
                // On, as time does.
                6..8 => {
                    first += rng.random_range(1..=4);
                    // Else nothing of it was asked for before.
                    kind = if points > 8 { Kind::Slid } else { Kind::New };
                }
                // Further in, further out, elsewhere.
                8 if rng.random_bool(0.5) => {
                    first += points / 3;
                    points = (points / 2).max(1);
                }
                8 => {
                    first -= points / 2;
                    points = (points * 2).min(400);
                }
                _ => first = rng.random_range(-20..=all),
            }
        }
        let start = base + first * step;
        // Ends between two instants ask for the same points.
        let end = start + (points - 1) * step + if rng.random_bool(0.3) { rng.random_range(0..step) } else { 0 };
        let pod = usize::from(rng.random_bool(0.2));
        asks.push(Ask { query, start, end, step, more, is_post: rng.random_bool(0.5), pod, kind });
    }
    asks
}

/// What an answer says, whatever the order of its series.
fn meaning(body: &str) -> Result<BTreeMap<String, Value>, String> {
    let mut answer: Value = serde_json::from_str(body).map_err(|error| format!("{error}: {body:.200}"))?;
    let mut found = BTreeMap::new();
    if let Some(result) = answer.pointer_mut("/data/result").map(Value::take) {
        for series in result.as_array().ok_or("the result is no list")? {
            if found.insert(series["metric"].to_string(), series.clone()).is_some() {
                return Err(format!("{} twice", series["metric"]));
            }
        }
    }
    found.insert("the rest".to_owned(), answer);
    Ok(found)
}

/// How two answers differ, in one line.
fn difference(direct: &str, cached: &str) -> Option<String> {
    if direct == cached {
        return None;
    }
    match (meaning(direct), meaning(cached)) {
        (Ok(direct), Ok(cached)) if direct == cached => None,
        (Ok(direct), Ok(cached)) => {
            let name = direct.keys().chain(cached.keys()).find(|name| direct.get(*name) != cached.get(*name))?;
            Some(format!(
                "{name}: {:?} / {:?}",
                direct.get(name).map(Value::to_string),
                cached.get(name).map(Value::to_string)
            ))
        }
        (direct, cached) => Some(format!("{:?} / {:?}", direct.err(), cached.err())),
    }
}

/// How the comparisons went.
#[derive(Default)]
struct Score {
    asked: AtomicUsize,
    hits: AtomicUsize,
    partial: AtomicUsize,
    /// Windows that were asked for before or slid on, of queries whose points do not depend on the window.
    warm: AtomicUsize,
    /// Of these: nothing, or only what was new, was asked for.
    warm_hits: AtomicUsize,
}

async fn converse(pods: &[Pod; 2], url: &str, seed: u64, score: &Score) -> Vec<String> {
    let client = crate::http::client().build().unwrap();
    let mut wrong = Vec::new();
    for (turn, ask) in conversation(&mut StdRng::seed_from_u64(seed)).into_iter().enumerate() {
        let encoded = ask.encoded();
        let pod = &pods[ask.pod];
        let cached = if ask.is_post {
            let pairs = ask.pairs();
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            pod.post_form(&format!("{BASE}/query_range"), &pairs).await
        } else {
            pod.get(&format!("{BASE}/query_range?{encoded}")).await
        };
        let direct = client.get(format!("{url}/api/v1/query_range?{encoded}")).send().await.unwrap();
        let said = cached.headers().get("cache-status").map_or("", |value| value.to_str().unwrap()).to_owned();
        score.asked.fetch_add(1, Ordering::Relaxed);
        score.hits.fetch_add(usize::from(said.contains("; hit;")), Ordering::Relaxed);
        score.partial.fetch_add(usize::from(said.contains("fwd=partial")), Ordering::Relaxed);
        if ask.is_pure() && ask.kind != Kind::New {
            let is_known = said.contains("; hit;") || ask.kind == Kind::Slid && said.contains("fwd=partial");
            score.warm.fetch_add(1, Ordering::Relaxed);
            score.warm_hits.fetch_add(usize::from(is_known), Ordering::Relaxed);
        }
        let statuses = (direct.status(), cached.status());
        let (direct, cached) = (direct.text().await.unwrap(), cached.text().await.unwrap());
        let differs =
            if statuses.0 == statuses.1 { difference(&direct, &cached) } else { Some(format!("{statuses:?}")) };
        if let Some(how) = differs {
            wrong.push(format!("seed {seed} turn {turn} ({said}): query_range?{encoded}: {how:.600}"));
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_the_one_that_prometheus_gives() {
    let text = samples();
    let (prometheus, redis) = tokio::join!(Prometheus::start_with(&[], Some(&text)), Redis::start());
    let (prometheus, redis) = (prometheus.unwrap(), redis.unwrap());
    let url = prometheus.url();
    let (one, other) = tokio::join!(pod_with_redis(redis.address(), &url), pod_with_redis(redis.address(), &url));
    let (pods, score) = ([one, other], Score::default());
    let draws: usize = std::env::var("ORACLE_DRAWS").ok().map_or(DRAWS, |text| text.parse().expect("a number"));
    let seed: u64 = std::env::var("ORACLE_SEED").ok().map_or(1, |text| text.parse().expect("a number"));
    let seeds = (0..u64::try_from(draws / TURNS).unwrap()).map(|n| seed.wrapping_mul(1 << 32) + n);
    let before = prometheus.query_total().await.unwrap();
    let wrong: Vec<String> = futures::stream::iter(seeds)
        .map(|seed| converse(&pods, &url, seed, &score))
        .buffer_unordered(6)
        .collect::<Vec<_>>()
        .await
        .concat();
    let asked = score.asked.load(Ordering::Relaxed);
    let hits = score.hits.load(Ordering::Relaxed);
    let [partial, warm, warm_hits] =
        [&score.partial, &score.warm, &score.warm_hits].map(|count| count.load(Ordering::Relaxed));
    let by_counter = prometheus.query_total().await.unwrap() - before - u64::try_from(asked).unwrap();
    eprintln!(
        "oracle: {asked} answers compared, {} wrong, {hits} hits, {partial} partial, {warm_hits} of {warm} warm and slid ones \
         known, {by_counter} requests of the pods to Prometheus",
        wrong.len(),
    );
    assert!(
        wrong.is_empty(),
        "{} of {asked} differ; the first:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(5)].join("\n")
    );
    // Six of ten windows are those before; of the others something is new.
    assert!(hits * 100 >= asked * 53, "{hits} of {asked} came from the cache");
    assert!((hits + partial) * 100 >= asked * 65, "{hits} and a part of {partial} of {asked} came from the cache");
    assert!(warm_hits * 100 >= warm * 90, "{warm_hits} of {warm} warm and slid ones came from the cache");
    // Prometheus' own counter says the same: what was a hit was not asked for.
    assert!(
        usize::try_from(by_counter).unwrap() <= (asked - hits) * 2,
        "{by_counter} requests, {hits} hits of {asked}"
    );
}

/// The comparison sees what must be seen.
#[test]
fn a_wrong_answer_is_seen() {
    let body = |result: &str| format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{result}]}}}}"#);
    let (a, b) = (r#"{"metric":{"s":"a"},"values":[[1,"1"],[2,"2"]]}"#, r#"{"metric":{"s":"b"},"values":[[1,"NaN"]]}"#);
    let right = body(&format!("{a},{b}"));
    assert_eq!(difference(&right, &body(&format!("{b},{a}"))), None);
    for wrong in [
        body(a),
        body(&format!("{a},{b}")).replace("[2,", "[3,"),
        body(&format!("{a},{b}")).replace("NaN", "0"),
        body(&format!("{a},{b}")).replace("\"2\"", "\"2.0\""),
        body(&format!("{a},{a}")),
        format!("{},\"warnings\":[\"w\"]}}", right.trim_end_matches('}')) + "}",
        String::new(),
    ] {
        assert!(difference(&right, &wrong).is_some(), "{wrong}");
    }
}

/// Points of now: those that are older than the freshness are right, the others are as old as they may be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tail_of_now_settles() {
    let prometheus = Prometheus::start(&[]).await.unwrap();
    let pod = Pod::start_with(|config| {
        config.query.freshness = perses_api_server::config::ConfigDuration(std::time::Duration::from_secs(10));
        config.query.ttl.realtime = perses_api_server::config::ConfigDuration(std::time::Duration::from_secs(1));
    })
    .await;
    pod.datasource(&prometheus.url(), Value::Null).await;
    let client = crate::http::client().build().unwrap();
    let now = || i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let begun = now();
    let mut compared = 0;
    // Scrapes come once a second; after 20 of them enough has settled.
    while compared < 100 {
        assert!(now() < begun + 90, "only {compared} points had settled");
        let (start, end) = (begun - 5, now());
        let params = format!("query=process_cpu_seconds_total&start={start}&end={end}&step=1");
        let asked_at = now();
        let cached = pod.get(&format!("{BASE}/query_range?{params}")).await.text().await.unwrap();
        let direct = client.get(format!("{}/api/v1/query_range?{params}", prometheus.url())).send().await.unwrap();
        let settled = |body: &str| {
            let answer: Value = serde_json::from_str(body).unwrap();
            let series = answer["data"]["result"].as_array().unwrap().first().cloned().unwrap_or_default();
            let values = series["values"].as_array().cloned().unwrap_or_default();
            // A second of doubt for whole seconds.
            values.into_iter().filter(|value| value[0].as_i64().unwrap() < asked_at - 11).collect::<Vec<_>>()
        };
        let (direct, cached) = (settled(&direct.text().await.unwrap()), settled(&cached));
        assert_eq!(direct, cached, "{params}");
        compared += direct.len();
        tokio::time::sleep(std::time::Duration::from_millis(150)).await;
    }
}
