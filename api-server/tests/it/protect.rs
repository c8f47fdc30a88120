//! Limits of queries and answers, and what stands around a datasource that has too much to do.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::body::Body;
use bytes::Bytes;
use e2e::services::{Port, Prometheus};
use futures::StreamExt as _;
use futures::future::join_all;
use perses_api_server::config::{Config, ConfigDuration, DatasourceLimits, DatasourceQuery, LimitMode};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::http;
use crate::pod::{Pod, prometheus as spec, until};
use crate::upstream::{OnDrop, Upstream, json as json_answer};

const BASE: &str = "/proxy/globaldatasources/prom/api/v1";
const FIRST: i64 = 1_700_000_000;
const SERIES: usize = 600;
const POINTS: i64 = 20;
/// All points of all series.
const ALL: &str = "query_range?query=many&start=1700000000&end=1700000285&step=15";

/// More series than a chart may have.
async fn prometheus() -> Prometheus {
    let mut text = String::from("# TYPE many gauge\n");
    for series in 0..SERIES {
        for at in 0..POINTS {
            writeln!(text, "many{{namespace=\"a\",series=\"{series}\"}} {at} {}", FIRST + at * 15).unwrap();
        }
    }
    Prometheus::start_with(&[], Some(&(text + "# EOF\n"))).await.unwrap()
}

/// A pod whose datasource `prom` has these limits.
async fn pod_with(url: &str, limits: Value, more: impl FnOnce(&mut Config)) -> Pod {
    let limits: DatasourceLimits = serde_json::from_value(limits).unwrap();
    let pod = Pod::start_with(|config| {
        let entry = DatasourceQuery { name: "prom".to_owned(), limits: Some(limits), ..DatasourceQuery::default() };
        config.query.datasources = vec![entry];
        more(config);
    })
    .await;
    pod.datasource(url, Value::Null).await;
    pod
}

/// Checks a refusal: status, and the form of Prometheus; gives its text.
async fn refusal(response: Response, status: u16, kind: &str) -> String {
    assert_eq!(response.status().as_u16(), status, "{response:?}");
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["status"], &body["errorType"]), (&json!("error"), &json!(kind)), "{body}");
    assert_eq!(body["error"], body["message"]);
    body["error"].as_str().unwrap().to_owned()
}

fn retry_after(response: &Response) -> u64 {
    response.headers()["retry-after"].to_str().unwrap().parse().unwrap()
}

fn warnings(response: &Response) -> Vec<&str> {
    response.headers().get_all("warning").iter().map(|value| value.to_str().unwrap()).collect()
}

/// The datasource was told a little less than the deadline.
fn assert_told(text: &str, before: &str, deadline: u32) {
    let told: f64 = text.strip_prefix(before).unwrap_or_else(|| panic!("{text}")).parse().unwrap();
    let deadline = f64::from(deadline);
    assert!(told <= deadline - 1.0 && told > deadline - 30.0, "{text}");
}

async fn direct(url: &str, path: &str) -> String {
    http::client().build().unwrap().get(format!("{url}/api/v1/{path}")).send().await.unwrap().text().await.unwrap()
}

/// The key of a limit, its value, a query that is over it, and what is said.
const BEFORE: [(&str, &str, &str, &str); 6] = [
    (
        "max_query_length",
        "5",
        "query?query=count(many)&time=1700000000",
        "the query has 11 characters, at most 5 are allowed",
    ),
    (
        "max_lookback_window",
        "\"1h\"",
        "query?query=count(max_over_time(many%5B2h%5D))&time=1700000000",
        "looks back 2h, at most 1h is allowed",
    ),
    (
        "max_lookback_window",
        "\"1m\"",
        "query_range?query=count(many)&start=1700000000&end=1700000100&step=15",
        "the window is 1m40s, at most 1m is allowed",
    ),
    (
        "required_label_filters",
        "[\"namespace\"]",
        "query?query=count(many)&time=1700000000",
        "many on \\\"namespace\\\"",
    ),
    (
        "max_points_per_series",
        "10",
        "query_range?query=count(many)&start=1700000000&end=1700000285&step=15",
        "asks for 20 points per series, at most 10 are allowed",
    ),
    ("unread", "", "query?query=sum(&time=1700000000", "not understood as PromQL"),
];

fn limit(key: &str, value: &str, mode: &str) -> Value {
    let mut limits = json!({"mode": mode, "contact": "#observability"});
    if !value.is_empty() {
        limits[key] = serde_json::from_str(value).unwrap();
    }
    limits
}

#[tokio::test]
async fn queries_over_a_limit_are_told_or_refused_before_they_are_asked() {
    let prometheus = prometheus().await;
    let (url, counter) = (prometheus.url(), "perses_query_limits_total");
    for (key, value, path, text) in BEFORE {
        let expected = direct(&url, path).await;
        let pod = pod_with(&url, limit(key, value, "warn"), |_| ()).await;
        // A hit is told as well.
        for _ in 0..2 {
            let answer = pod.get(&format!("{BASE}/{path}")).await;
            let told = warnings(&answer);
            assert!(
                told.len() == 1 && told[0].starts_with("299 perses \"") && told[0].contains(text),
                "{key}: {told:?}"
            );
            assert_eq!(answer.text().await.unwrap(), expected, "{key}");
        }
        let counted = pod.metric(&format!("{counter}{{limit=\"{key}\",mode=\"warn\"}}")).await;
        assert!((counted - 2.0).abs() < 0.5, "{key}: {counted}");

        let pod = pod_with(&url, limit(key, value, "enforce"), |_| ()).await;
        let before = prometheus.query_total().await.unwrap();
        let said = refusal(pod.get(&format!("{BASE}/{path}")).await, 400, "bad_data").await;
        assert!(said.contains(&text.replace('\\', "")) && said.contains("ask #observability"), "{said}");
        assert!(key == "unread" || said.contains(&format!("(query.limits.{key})")), "{said}");
        assert_eq!(prometheus.query_total().await.unwrap(), before, "{key}");
        let counted = pod.metric(&format!("{counter}{{limit=\"{key}\",mode=\"enforce\"}}")).await;
        assert!((counted - 1.0).abs() < 0.5, "{key}: {counted}");

        let pod = pod_with(&url, limit(key, value, "off"), |_| ()).await;
        let answer = pod.get(&format!("{BASE}/{path}")).await;
        assert_eq!(warnings(&answer), Vec::<&str>::new());
        assert_eq!(answer.text().await.unwrap(), expected, "{key}");
    }
}

#[tokio::test]
async fn answers_over_a_limit_are_told_or_refused_on_every_path() {
    let prometheus = prometheus().await;
    let url = prometheus.url();
    let instant = "query?query=many&time=1700000000";
    for (key, value, path, text) in [
        ("max_series", "599", ALL, "more than 599 time series"),
        ("max_series", "599", instant, "more than 599 time series"),
        ("max_points", "11999", ALL, "more than 11999 points"),
        ("max_bytes", "20000", ALL, "more than 20000 bytes"),
        ("max_bytes", "20000", instant, "more than 20000 bytes"),
    ] {
        let expected = direct(&url, path).await;
        let limit = |mode: &str| {
            let mut limits = json!({"mode": mode, "contact": "#observability", "max_series": 1000});
            limits[key] = serde_json::from_str(value).unwrap();
            limits
        };
        for cache in [true, false] {
            let pod = pod_with(&url, limit("warn"), |config| config.query.cache = cache).await;
            let answer = pod.get(&format!("{BASE}/{path}")).await;
            let told = warnings(&answer).join(" ");
            assert!(told.contains(text) && told.contains(&format!("query.limits.{key}")), "{told}");
            assert_eq!(answer.text().await.unwrap(), expected);

            let pod = pod_with(&url, limit("enforce"), |config| config.query.cache = cache).await;
            for past in ["", "&stats=all"] {
                let said = refusal(pod.get(&format!("{BASE}/{path}{past}")).await, 422, "execution").await;
                assert!(said.contains(text) && said.contains("ask #observability"), "{said}");
            }
        }
    }
    // Exactly as much is fine, by all paths.
    let exact = json!({"mode": "enforce", "max_series": SERIES, "max_points": 12_000});
    let pod = pod_with(&url, exact, |_| ()).await;
    for path in [ALL, instant] {
        assert_eq!(pod.get(&format!("{BASE}/{path}")).await.text().await.unwrap(), direct(&url, path).await);
    }
}

/// What is asked for is within the limit, what was there before makes it too much.
#[tokio::test]
async fn what_is_put_together_is_counted_whole() {
    let prometheus = prometheus().await;
    let limits = json!({"mode": "enforce", "max_series": 1000, "max_points": 7000});
    let pod = pod_with(&prometheus.url(), limits, |_| ()).await;
    let ask = |end: i64| format!("{BASE}/query_range?query=many&start={FIRST}&end={end}&step=15");
    assert_eq!(pod.get(&ask(FIRST + 9 * 15)).await.status(), StatusCode::OK);
    let before = prometheus.query_total().await.unwrap();
    let said = refusal(pod.get(&ask(FIRST + 19 * 15)).await, 422, "execution").await;
    assert!(said.contains("more than 7000 points"), "{said}");
    assert_eq!(prometheus.query_total().await.unwrap(), before + 1);
}

#[tokio::test]
async fn no_other_form_of_a_request_is_a_way_around() {
    let upstream = Upstream::saying(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#).await;
    let pod = pod_with(&upstream.url(), json!({}), |config| {
        config.query.limits.mode = LimitMode::Enforce;
        config.query.limits.max_query_length = 5;
        // Not for who gives a datasource of their own this name.
        let lax = DatasourceLimits { mode: Some(LimitMode::Off), ..DatasourceLimits::default() };
        let lax = DatasourceQuery { name: "lax".to_owned(), limits: Some(lax), ..DatasourceQuery::default() };
        config.query.datasources.push(lax);
    })
    .await;
    let url = format!("{}{BASE}/query", pod.url);
    let long = "query=toolong%7B%7D";
    let form = "application/x-www-form-urlencoded";
    for request in [
        pod.client.get(format!("{url}?{long}")),
        pod.client.get(format!("{url}?query=a&{long}")),
        pod.client.get(format!("{url}?%71uery=toolong")),
        pod.client.get(format!("{url}?query=a;b")),
        pod.client.post(&url).header("content-type", form).body(long),
        pod.client.post(format!("{url}?query=a")).header("content-type", form).body(long),
        pod.client.post(format!("{url}?{long}")).json(&json!({})),
        pod.client
            .post(&url)
            .header("content-type", "multipart/form-data; boundary=x")
            .body("--x\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\ntoolong\r\n--x--\r\n"),
        pod.client.put(format!("{url}?query=a")),
    ] {
        refusal(request.send().await.unwrap(), 400, "bad_data").await;
    }
    assert_eq!(upstream.seen().len(), 0);
    let fine = pod.client.post(&url).header("content-type", form).body("query=a&timeout=5").send().await.unwrap();
    assert_eq!(fine.status(), StatusCode::OK);
    assert_told(std::str::from_utf8(&upstream.last().body).unwrap(), "query=a&timeout=", 60);

    let mut lax = spec(&upstream.url(), Value::Null);
    lax["display"] = json!({"name": "lax"});
    let url = format!("{}/proxy/unsaved/globaldatasources/api/v1/query?{long}", pod.url);
    let unsaved = pod.client.post(url).json(&json!({"method": "GET", "spec": lax}));
    refusal(unsaved.send().await.unwrap(), 400, "bad_data").await;
}

/// A body that is being read.
struct Reading(Arc<AtomicU64>);

impl Reading {
    fn begin(readers: &Arc<AtomicU64>) -> Self {
        readers.fetch_add(1, Ordering::SeqCst);
        Self(readers.clone())
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The beginning of an answer that never ends.
fn endless(taken: Arc<AtomicU64>, readers: &Arc<AtomicU64>) -> Body {
    let reading = Reading::begin(readers);
    let series = r#"{"metric":{"__name__":"m","a":"b"},"values":[[1700000000,"1"],[1700000015,"2"]]},"#;
    let chunk = Bytes::from(series.repeat(1000));
    let head = Bytes::from_static(br#"{"status":"success","data":{"resultType":"matrix","result":["#);
    let chunks = futures::stream::repeat(chunk).map(move |chunk| {
        let _reading = &reading;
        taken.fetch_add(chunk.len() as u64, Ordering::SeqCst);
        chunk
    });
    Body::from_stream(futures::stream::iter([head]).chain(chunks).map(Ok::<_, std::io::Error>))
}

#[tokio::test]
async fn a_stream_over_a_limit_looks_broken_and_the_datasource_is_left_alone() {
    let readers = Arc::new(AtomicU64::new(0));
    let counted = readers.clone();
    let upstream = Upstream::raw(move |_| {
        let body = endless(Arc::default(), &counted);
        Box::pin(async move { json_answer(body) })
    })
    .await;
    let limits = json!({"mode": "enforce", "max_series": 100_000, "max_points": 0, "max_bytes": 0});
    let pod = pod_with(&upstream.url(), limits, |config| config.query.max_cached_bytes = 100_000).await;
    let answer = pod.get(&format!("{BASE}/query_range?query=m&start=1&end=2&step=1")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let (mut read, mut broken) = (0, false);
    let mut stream = answer.bytes_stream();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => read += piece.len(),
            Err(_) => broken = true,
        }
    }
    assert!(broken, "a valid answer of {read} bytes");
    assert!(read > 1_000_000, "{read}");
    until("the datasource is left alone", || async { readers.load(Ordering::SeqCst) == 0 }).await;
    let counted = pod.metric("perses_query_limits_total{limit=\"max_series\",mode=\"enforce\"}").await;
    assert!((counted - 1.0).abs() < 0.5, "{counted}");
}

#[tokio::test]
async fn a_user_who_asks_too_often_waits_and_others_do_not() {
    let upstream = Upstream::saying(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#).await;
    let pod = pod_with(&upstream.url(), json!({"mode": "enforce", "user_rate": 1, "user_burst": 3}), |config| {
        config.server.trusted_proxies = vec!["127.0.0.1".to_owned()];
    })
    .await;
    let ask = |from: &str, query: String| {
        let request = pod.client.get(format!("{}{BASE}/query?query={query}&time=1", pod.url));
        request.header("x-forwarded-for", from).send()
    };
    assert_eq!(ask("10.0.0.1", "known".to_owned()).await.unwrap().status(), StatusCode::OK);
    let answers = join_all((0..30).map(|at| ask("10.0.0.1", format!("q{at}")))).await;
    let mut refused = 0;
    for answer in answers {
        let answer = answer.unwrap();
        if answer.status() == StatusCode::OK {
            continue;
        }
        assert!(retry_after(&answer) >= 1);
        let said = refusal(answer, 429, "too_many_requests").await;
        assert!(said.contains("at most 1 a second, 3 at once (query.limits.user_rate)"), "{said}");
        refused += 1;
    }
    assert!((10..=28).contains(&refused), "{refused} of 30");
    assert_eq!(upstream.seen().len(), 31 - refused);
    // What is known costs nothing, and each user has their own.
    for _ in 0..20 {
        assert_eq!(ask("10.0.0.1", "known".to_owned()).await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(ask("10.0.0.2", "other".to_owned()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn all_queries_of_a_user_have_a_limit_too() {
    let upstream = Upstream::saying(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#).await;
    for (mode, expected) in [("enforce", true), ("warn", false)] {
        let limits = json!({"mode": mode, "user_total_rate": 1, "user_total_burst": 2});
        let pod = pod_with(&upstream.url(), limits, |_| ()).await;
        let path = format!("{BASE}/query?query=a&time=1");
        let answers = join_all((0..30).map(|_| pod.get(&path))).await;
        let refused = answers.iter().filter(|answer| answer.status() == StatusCode::TOO_MANY_REQUESTS).count();
        let told = answers.iter().filter(|answer| warnings(answer).join("").contains("user_total_rate")).count();
        assert_eq!((refused > 10, told > 10), (expected, !expected), "{mode}: {refused} refused, {told} told");
    }
}

#[tokio::test]
async fn a_datasource_computes_so_many_at_once_and_the_rest_waits() {
    let prometheus = prometheus().await;
    let limits = json!({"mode": "enforce", "max_concurrent": 2, "max_queued": 1, "max_queue_wait": "1m"});
    let pod = pod_with(&prometheus.url(), limits, |_| ()).await;
    let before = prometheus.query_total().await.unwrap();
    prometheus.pause().await.unwrap();
    let ask = |at: i64| pod.client.get(format!("{}{BASE}/query?query=count(many)&time={}", pod.url, FIRST + at)).send();
    let waiting = || async {
        let under_way = "perses_upstream_queries_in_flight{endpoint=\"query\"}";
        until("three are under way", || async { pod.metric(under_way).await > 2.5 }).await;
        let refused = ask(4).await.unwrap();
        assert!((1..=5).contains(&retry_after(&refused)));
        let said = refusal(refused, 503, "unavailable").await;
        assert!(said.contains("computes 2 queries") && said.contains("1 wait (query.limits.max_concurrent)"), "{said}");
        prometheus.resume().await.unwrap();
    };
    let (answers, ()) = tokio::join!(join_all((1..=3).map(ask)), waiting());
    for answer in answers {
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(prometheus.query_total().await.unwrap(), before + 3);
}

#[tokio::test]
async fn who_waits_in_the_queue_too_long_is_refused_and_warned_ones_do_not_wait() {
    let gate = Arc::new(Semaphore::new(0));
    let pass = gate.clone();
    let upstream = Upstream::start(move |_| {
        let pass = pass.clone();
        Box::pin(async move {
            pass.acquire().await.unwrap().forget();
            json_answer(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#)
        })
    })
    .await;
    let limits = |mode: &str| json!({"mode": mode, "max_concurrent": 1, "max_queue_wait": "100ms"});
    let pod = pod_with(&upstream.url(), limits("enforce"), |_| ()).await;
    let ask = |pod: &Pod, at: usize| {
        tokio::spawn(pod.client.get(format!("{}{BASE}/query?query=a&time={at}", pod.url)).send())
    };
    let first = ask(&pod, 1);
    until("the first one is asked", || async { upstream.seen().len() == 1 }).await;
    let said = refusal(ask(&pod, 2).await.unwrap().unwrap(), 503, "unavailable").await;
    assert!(said.contains("none of them ended in time"), "{said}");
    gate.add_permits(1);
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);

    let pod = pod_with(&upstream.url(), limits("warn"), |_| ()).await;
    let asked = [ask(&pod, 1), ask(&pod, 2)];
    until("both are asked", || async { upstream.seen().len() == 3 }).await;
    gate.add_permits(2);
    let mut told = 0;
    for answer in asked {
        told += warnings(&answer.await.unwrap().unwrap()).len();
    }
    assert_eq!(told, 1);
}

#[tokio::test]
async fn a_datasource_that_fails_is_left_alone_and_tried_again() {
    let prometheus = prometheus().await;
    let limits = json!({"mode": "enforce", "breaker_failures": 3, "breaker_pause": "5s"});
    let pod = pod_with(&prometheus.url(), limits, |_| ()).await;
    let path = format!("{BASE}/query?query=count(many)&time={FIRST}");
    let ask = || pod.get(&path);
    prometheus.stop().await.unwrap();
    for _ in 0..3 {
        assert_eq!(ask().await.status(), StatusCode::BAD_GATEWAY);
    }
    let refused = ask().await;
    assert!((1..=5).contains(&retry_after(&refused)));
    let said = refusal(refused, 503, "unavailable").await;
    assert!(said.contains("failed 3 times in a row and is left alone (query.limits.breaker_failures)"), "{said}");
    prometheus.start_again().await.unwrap();
    until("the datasource is tried again", || async { ask().await.status() == StatusCode::OK }).await;
}

/// Errors of a Prometheus that lives do not open the breaker.
#[tokio::test]
async fn a_datasource_that_refuses_is_no_failing_one() {
    for (kind, expected) in [("application/json", 5), ("text/html", 2)] {
        let upstream = Upstream::start(move |_| {
            Box::pin(async move {
                let mut response = json_answer(r#"{"status":"error","errorType":"timeout","error":"x"}"#);
                *response.status_mut() = axum::http::StatusCode::SERVICE_UNAVAILABLE;
                response.headers_mut().insert("content-type", kind.parse().unwrap());
                response
            })
        })
        .await;
        let pod =
            pod_with(&upstream.url(), json!({"mode": "enforce", "breaker_failures": 2, "breaker_pause": "1h"}), |_| ())
                .await;
        for _ in 0..5 {
            assert_eq!(
                pod.get(&format!("{BASE}/query?query=a&time=1")).await.status(),
                StatusCode::SERVICE_UNAVAILABLE
            );
        }
        assert_eq!(upstream.seen().len(), expected, "{kind}");
    }
}

#[tokio::test]
async fn a_short_timeout_ends_the_wait_of_its_client_only() {
    let (gate, left) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(false)));
    let (pass, flag) = (gate.clone(), left.clone());
    let upstream = Upstream::start(move |_| {
        let (pass, guard) = (pass.clone(), OnDrop(flag.clone()));
        Box::pin(async move {
            pass.acquire().await.unwrap().forget();
            std::mem::forget(guard);
            json_answer(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#)
        })
    })
    .await;
    let pod =
        pod_with(&upstream.url(), json!({}), |config| config.query.timeout = ConfigDuration::from_secs(300)).await;
    let url = format!("{}{BASE}/query?query=a&time=1", pod.url);
    let patient = tokio::spawn(pod.client.get(&url).send());
    until("the question arrives", || async { upstream.seen().len() == 1 }).await;
    let said = refusal(pod.client.get(format!("{url}&timeout=0.2")).send().await.unwrap(), 503, "timeout").await;
    assert!(said.contains("its timeout of 0.2 s") && said.contains("at most 300 s (query.timeout)"), "{said}");
    assert!(!left.load(Ordering::SeqCst), "the other one still waits");
    gate.add_permits(1);
    assert_eq!(patient.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(upstream.seen().len(), 1);
    assert_told(&upstream.last().target, "/api/v1/query?query=a&time=1&timeout=", 300);

    // The last one to leave ends it.
    let alone = pod.client.get(format!("{}{BASE}/query?query=b&time=1&timeout=200ms", pod.url)).send().await.unwrap();
    refusal(alone, 503, "timeout").await;
    until("the datasource is left alone", || async { left.load(Ordering::SeqCst) }).await;
    assert_told(&upstream.last().target, "/api/v1/query?query=b&time=1&timeout=", 300);
}

#[tokio::test]
async fn limits_change_while_the_server_runs() {
    let prometheus = prometheus().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("limits.yaml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("query: {limits: {mode: enforce, max_series: 10}}");
    let pod = Pod::start_with(|config| {
        config.limits_file = Some(file.clone());
        config.query.limits.mode = LimitMode::Off;
    })
    .await;
    pod.datasource(&prometheus.url(), Value::Null).await;
    let path = format!("{BASE}/{ALL}");
    let ask = || pod.get(&path);
    refusal(ask().await, 422, "execution").await;
    write(
        "query:\n  limits: {mode: enforce, max_series: 10}\n  datasources:\n  - {name: prom, limits: {max_series: 600}}\n",
    );
    until("the datasource has more", || async { ask().await.status() == StatusCode::OK }).await;
    write("query: {limits: {mode: warn, max_query_length: 3}}");
    until("the limit of queries", || async { warnings(&ask().await).join("").contains("at most 3 are allowed") }).await;
    write("");
    until("no limits", || async { warnings(&ask().await).is_empty() }).await;
}

/// A server as a process of its own, on files.
struct Server {
    child: tokio::process::Child,
    url: String,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
    _port: Port,
}

impl Server {
    async fn start(mut config: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        config["database"] = json!({"file": {"folder": folder.path().join("db")}});
        let path = folder.path().join("config.yaml");
        // JSON is YAML.
        std::fs::write(&path, config.to_string()).unwrap();
        let port = Port::reserve().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = tokio::process::Command::new(env!("CARGO_BIN_EXE_perses-api-server"))
            .arg("serve")
            .arg(format!("--config={}", path.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let url = format!("http://127.0.0.1:{}", port.number());
        let server = Self { child, url, client: http::client().build().unwrap(), _folder: folder, _port: port };
        until("the server is ready", || async {
            let answer = server.client.get(format!("{}/readyz", server.url)).send().await;
            answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
        })
        .await;
        server
    }

    fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    /// Bytes of memory that it uses.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

/// Clients that do not read: what they were to read stays in the datasource.
#[tokio::test]
async fn a_client_that_does_not_read_costs_bounded_memory() {
    const CLIENTS: usize = 5;
    const MEGABYTE: u64 = 1 << 20;
    let (taken, readers) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (count, reading) = (taken.clone(), readers.clone());
    let upstream = Upstream::raw(move |_| {
        let body = endless(count.clone(), &reading);
        Box::pin(async move { json_answer(body) })
    })
    .await;
    let server = Server::start(json!({"query": {"max_cached_bytes": MEGABYTE, "limits": {"max_bytes": 0}}})).await;
    let created = server.client.post(format!("{}/api/v1/globaldatasources", server.url));
    let body =
        json!({"kind": "GlobalDatasource", "metadata": {"name": "prom"}, "spec": spec(&upstream.url(), Value::Null)});
    assert_eq!(created.json(&body).send().await.unwrap().status(), StatusCode::OK);
    let before = server.resident();
    let mut clients = Vec::new();
    for at in 0..CLIENTS {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let request = format!("GET {BASE}/query_range?query=m&start={at}&end=9&step=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        clients.push(stream);
    }
    // All that can be sent has been when the datasource has got rid of nothing for a second.
    let (mut last, mut same) = (0, 0);
    until("nothing moves any more", || {
        let now = taken.load(Ordering::SeqCst);
        same = if now == last { same + 1 } else { 0 };
        last = now;
        let still = same > 100;
        async move { still }
    })
    .await;
    let grown = server.resident().saturating_sub(before);
    assert!(grown < CLIENTS as u64 * 10 * MEGABYTE, "{grown} bytes for {CLIENTS} clients");
    assert_eq!(readers.load(Ordering::SeqCst), CLIENTS as u64, "all are being read");
    drop(clients);
    until("the datasource is left alone", || async { readers.load(Ordering::SeqCst) == 0 }).await;
}
