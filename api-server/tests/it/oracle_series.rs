//! Whatever is asked about series through the cache, the answer is the one that Prometheus gives itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::services::{Prometheus, Redis};
use futures::StreamExt as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::oracle::{FIRST, HOURS, samples};
use crate::pod::{Pod, until};
use crate::query::pod_with_redis;

const BASE: &str = "/proxy/globaldatasources/prom/api/v1";
/// Comparisons of one run of the suite.
const DRAWS: usize = 2_000;

/// Selectors, each with other spellings of the same.
const SELECTORS: [&[&str]; 8] = [
    &["gauge", "gauge{}", " {__name__=\"gauge\"}"],
    &["gauge{job=\"a\",instance=\"1\"}", "{instance='1',job=\"a\",__name__=\"gauge\"}"],
    &["{job=~\"a|b\"}", "{ job =~ `a|b` , }"],
    &["counter_total{instance!=\"2\"}"],
    &["{__name__=~\"latency_.*\"}", "{__name__=~\"latency_.*\"} # buckets"],
    &["short_lived"],
    &["nothing_at_all"],
    // Refused.
    &["{}", "gauge[5m]", "sum(gauge)", "gauge offset"],
];

/// A question: endpoint, parameters, whether as a form, and to which pod.
#[derive(Debug)]
struct Ask {
    endpoint: &'static str,
    pairs: Vec<(&'static str, String)>,
    is_post: bool,
    pod: usize,
}

fn ask(rng: &mut StdRng) -> Ask {
    let endpoint = [
        "series",
        "series",
        "labels",
        "label/job/values",
        "label/__name__/values",
        "label/le/values",
        "metadata",
        "query_exemplars",
    ];
    let endpoint = *endpoint.choose(rng).unwrap();
    let mut pairs = Vec::new();
    match endpoint {
        "metadata" => {
            let metric = *["prometheus_build_info", "nothing"].choose(rng).unwrap();
            pairs.push(("metric", metric.to_owned()));
        }
        "query_exemplars" => {
            pairs.push(("query", (*["gauge", "rate(counter_total[5m])", "sum("].choose(rng).unwrap()).to_owned()));
        }
        _ => {
            for _ in 0..rng.random_range(0..3) {
                // Most ask for what exists.
                let spellings = if rng.random_ratio(1, 20) { SELECTORS[7] } else { SELECTORS[rng.random_range(0..7)] };
                pairs.push(("match[]", (*spellings.choose(rng).unwrap()).to_owned()));
            }
        }
    }
    if endpoint != "metadata" {
        let hour = |n: i64| FIRST + n * 3600;
        let window = [
            (None, None),
            (Some(FIRST), None),
            (None, Some(hour(3))),
            (Some(FIRST), Some(hour(HOURS))),
            (Some(hour(1)), Some(hour(2))),
        ];
        let (start, end) = *window.choose(rng).unwrap();
        // Prometheus scrapes itself: without an end only what is of ours stands still.
        if end.is_none() && endpoint != "query_exemplars" && !pairs.iter().any(|(name, _)| *name == "match[]") {
            pairs.push(("match[]", SELECTORS[2][0].to_owned()));
        }
        // The same time in other words.
        let word =
            |time: i64, rng: &mut StdRng| if rng.random_bool(0.5) { format!("{time}.000") } else { time.to_string() };
        pairs.extend(start.map(|time| ("start", word(time, rng))));
        pairs.extend(end.map(|time| ("end", word(time, rng))));
    }
    if rng.random_ratio(1, 8) {
        pairs.push(("limit", "2".to_owned()));
    }
    pairs.shuffle(rng);
    let takes_forms = !endpoint.starts_with("label/") && endpoint != "metadata";
    Ask { endpoint, pairs, is_post: takes_forms && rng.random_bool(0.5), pod: usize::from(rng.random_bool(0.3)) }
}

/// What an answer says, whatever the order of a list.
fn meaning(body: &str) -> Value {
    let mut answer: Value =
        serde_json::from_str(body).unwrap_or_else(|error| Value::String(format!("{error}: {body:.200}")));
    if let Some(list) = answer.get_mut("data").and_then(Value::as_array_mut) {
        list.sort_by_key(Value::to_string);
    }
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_about_series_is_the_one_that_prometheus_gives() {
    let text = samples();
    let (prometheus, redis) = tokio::join!(Prometheus::start_with(&[], Some(&text)), Redis::start());
    let (prometheus, redis) = (prometheus.unwrap(), redis.unwrap());
    let url = prometheus.url();
    let (one, other) = tokio::join!(pod_with_redis(redis.address(), &url), pod_with_redis(redis.address(), &url));
    let pods: [Pod; 2] = [one, other];
    let client = crate::http::client().build().unwrap();
    until("Prometheus has scraped itself", || async {
        let known = prometheus.api("metadata", &[("metric", "prometheus_build_info")]).await.unwrap();
        known.get("prometheus_build_info").is_some()
    })
    .await;
    let seed: u64 = std::env::var("ORACLE_SEED").ok().map_or(1, |text| text.parse().expect("a number"));
    let mut rng = StdRng::seed_from_u64(seed);
    let asks: Vec<Ask> = (0..DRAWS).map(|_| ask(&mut rng)).collect();
    let (hits, good) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let compare = async |ask: &Ask| {
        let encoded: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(&ask.pairs).finish();
        let pod = &pods[ask.pod];
        let cached = if ask.is_post {
            let pairs: Vec<(&str, &str)> = ask.pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
            pod.post_form(&format!("{BASE}/{}", ask.endpoint), &pairs).await
        } else {
            pod.get(&format!("{BASE}/{}?{encoded}", ask.endpoint)).await
        };
        let direct = client.get(format!("{url}/api/v1/{}?{encoded}", ask.endpoint)).send().await.unwrap();
        let said = cached.headers().get("cache-status").map_or("", |value| value.to_str().unwrap()).to_owned();
        good.fetch_add(usize::from(direct.status().is_success()), Ordering::Relaxed);
        hits.fetch_add(usize::from(said.contains("; hit;")), Ordering::Relaxed);
        let statuses = (direct.status(), cached.status());
        let (direct, cached) = (direct.text().await.unwrap(), cached.text().await.unwrap());
        let same = statuses.0 == statuses.1 && meaning(&direct) == meaning(&cached);
        (!same).then(|| format!("{}?{encoded} ({said}) {statuses:?}: {direct:.300} / {cached:.300}", ask.endpoint))
    };
    let wrong: Vec<Option<String>> = futures::stream::iter(&asks).map(compare).buffer_unordered(4).collect().await;
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(
        wrong.is_empty(),
        "{} of {DRAWS} differ; the first:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(5)].join("\n")
    );
    let (hits, good) = (hits.into_inner(), good.into_inner());
    assert!(good * 2 > DRAWS, "only {good} of {DRAWS} questions were answered");
    assert!(hits * 10 >= good * 6, "{hits} of {good} came from the cache");
}
