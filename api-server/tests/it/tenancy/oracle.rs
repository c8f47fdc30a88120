//! What a project sees is what a Prometheus says that has its series and no others.

use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::services::Prometheus;
use futures::StreamExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use super::draws::Draw;
use super::samples::{self, FIRST, LAST};
use super::{project, tags};
use crate::pod::{Pod, prometheus};

/// Questions of one run of the suite.
const DRAWS: usize = 1_200;
const SEED: u64 = 5;
const BASE: &str = "/proxy/projects/team-a/datasources/prom";

/// One question.
#[derive(Debug)]
struct Ask {
    endpoint: String,
    params: Vec<(&'static str, String)>,
    is_post: bool,
}

fn draw(rng: &mut StdRng) -> Ask {
    let start = rng.random_range(FIRST..LAST);
    let window = |end: i64| vec![("start", start.to_string()), ("end", end.to_string())];
    let end = start + rng.random_range(0..1800);
    let kind = rng.random_range(0..20);
    let is_post = rng.random();
    let (endpoint, params, is_post) = match kind {
        0..9 => (
            "query_range".to_owned(),
            [window(end), vec![("step", "45".to_owned()), ("query", Draw(rng).query())]].concat(),
            is_post,
        ),
        9..16 => ("query".to_owned(), vec![("query", Draw(rng).query()), ("time", start.to_string())], is_post),
        kind => {
            let mut params = window(LAST);
            let most = if kind == 16 { 1..3 } else { 0..3 };
            for _ in 0..rng.random_range(most) {
                params.push(("match[]", Draw(rng).series()));
            }
            match kind {
                16 => ("series".to_owned(), params, is_post),
                17 => ("labels".to_owned(), params, is_post),
                _ => {
                    let label = ["namespace", "__name__", "job", "odd"][rng.random_range(0..4)];
                    (format!("label/{label}/values"), params, false)
                }
            }
        }
    };
    Ask { endpoint, params, is_post }
}

async fn ask(client: &Client, base: &str, ask: &Ask) -> (StatusCode, Value) {
    let url = format!("{base}/api/v1/{}", ask.endpoint);
    let request = if ask.is_post { client.post(url).form(&ask.params) } else { client.get(url).query(&ask.params) };
    let response = request.send().await.unwrap();
    let (status, text) = (response.status(), response.text().await.unwrap());
    let mut answer: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{ask:?}: {status} {text}"));
    // The order of an instant vector is free.
    if let Some(Value::Array(series)) = answer.pointer_mut("/data/result") {
        series.sort_by_cached_key(ToString::to_string);
    }
    // Their order is free, and places in them are those of the limited text.
    for words in ["warnings", "infos"] {
        answer.as_object_mut().unwrap().remove(words);
    }
    (status, answer)
}

#[tokio::test]
async fn a_project_sees_what_a_prometheus_of_its_own_would_say() {
    let (all, own) = (samples::of(|_| true), samples::of(|namespace| ["team-a", "c"].contains(&namespace)));
    let (all, own) = tokio::join!(Prometheus::start_with(&[], Some(&all)), Prometheus::start_with(&[], Some(&own)));
    let (all, own) = (all.unwrap(), own.unwrap());
    let pod = Pod::start_with(|config| {
        let rule = json!({"datasources": [{"name": "prom", "tenancy": {"labels": [
            {"label": "namespace", "values": ["{project}"], "tags": "ns:"}]}}]});
        config.query = serde_json::from_value(rule).unwrap();
    })
    .await;
    project(&pod, "team-a").await;
    tags(&pod, "team-a", &["ns:c"]).await;
    pod.apply("projects/team-a/datasources", "Datasource", "prom", &prometheus(&all.url(), Value::Null)).await;

    let mut rng = StdRng::seed_from_u64(SEED);
    let asks: Vec<Ask> = (0..DRAWS).map(|_| draw(&mut rng)).collect();
    let (base, own, all) = (&format!("{}{BASE}", pod.url), &own.url(), &all.url());
    let client = &crate::http::client().build().unwrap();
    let [good, refused, would_leak] = [const { AtomicUsize::new(0) }; 3];
    let compare = |one: Ask| {
        let (good, refused, would_leak) = (&good, &refused, &would_leak);
        async move {
            let ((status, seen), (expected_status, expected)) =
                tokio::join!(ask(client, base, &one), ask(client, own, &one));
            let shown = || format!("{one:?}\nseen {status}: {seen}\nexpected {expected_status}: {expected}");
            if expected_status.is_success() {
                let is_refused = seen["error"]
                    .as_str()
                    .is_some_and(|text| text.contains("what is not understood is not let through"));
                if is_refused {
                    refused.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                assert!(status.is_success() && seen == expected, "{}", shown());
                good.fetch_add(1, Ordering::Relaxed);
                let (_, everything) = ask(client, all, &one).await;
                would_leak.fetch_add(usize::from(everything != expected), Ordering::Relaxed);
            } else {
                assert!(!status.is_success() && seen["status"] == "error", "{}", shown());
            }
        }
    };
    futures::stream::iter(asks).map(compare).buffer_unordered(8).collect::<Vec<()>>().await;
    let [good, refused, would_leak] = [good, refused, would_leak].map(AtomicUsize::into_inner);
    // Most draws are questions, and without the matchers many of them would say something else.
    assert!(good >= DRAWS / 2, "{good} good of {DRAWS}");
    assert!(would_leak >= good / 3, "{would_leak} of {good} depend on the tenant");
    assert!(refused <= DRAWS / 50, "{refused} of {DRAWS} were refused");
    println!("{DRAWS} draws: {good} alike, of which {would_leak} depend on the tenant, {refused} refused");
}
