//! The query cache: right answers first, then few questions to Prometheus.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::http::HeaderValue;
use axum::response::Response;
use e2e::services::{Prometheus, Redis, TcpProxy};
use futures::future::join_all;
use perses_api_server::config;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::pod::{Pod, until};
use crate::upstream::{OnDrop, Upstream, json as json_answer};

pub const BASE: &str = "/proxy/globaldatasources/prom/api/v1";
const RANGE: &str = "query=demo%7Bjob%3D%22a%22%7D&start=1700000000&end=1700003600&step=15";
/// Ten series of ten hours every 15 seconds, in a past that never changes.
pub const FIRST: i64 = 1_700_000_000;

pub fn samples() -> String {
    let mut text = String::from("# TYPE demo gauge\n");
    for series in 0..10 {
        for at in 0..2400 {
            let value = f64::from(series * 100_000 + at) / 7.0;
            let time = FIRST + i64::from(at) * 15;
            writeln!(text, "demo{{job=\"a\",series=\"{series}\"}} {value} {time}").unwrap();
        }
    }
    text + "# EOF\n"
}

pub async fn prometheus() -> Prometheus {
    Prometheus::start_with(&[], Some(&samples())).await.unwrap()
}

async fn pod_for(url: &str) -> Pod {
    let pod = Pod::start().await;
    pod.datasource(url, Value::Null).await;
    pod
}

pub fn status(response: &reqwest::Response) -> &str {
    response.headers().get("cache-status").map_or("", |value| value.to_str().unwrap())
}

pub async fn direct(url: &str, endpoint: &str, params: &str) -> String {
    let client = crate::http::client().build().unwrap();
    client.get(format!("{url}/api/v1/{endpoint}?{params}")).send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn equals_prometheus_and_asks_it_once() {
    let prometheus = prometheus().await;
    let pod = pod_for(&prometheus.url()).await;
    for (endpoint, params) in [
        ("query_range", RANGE),
        ("query_range", "query=sum+by+(job)+(rate(demo%5B5m%5D))&start=1700000007.25&end=1700007200&step=60"),
        ("query", "query=demo&time=1700001234"),
        ("query", "query=none&time=1700001234"),
    ] {
        let expected = direct(&prometheus.url(), endpoint, params).await;
        let before = prometheus.query_total().await.unwrap();

        let first = pod.get(&format!("{BASE}/{endpoint}?{params}")).await;
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(status(&first), "perses; fwd=miss", "{params}");
        assert_eq!(first.headers()["content-type"], "application/json");
        assert_eq!(first.text().await.unwrap(), expected, "{params}");

        let second = pod.get(&format!("{BASE}/{endpoint}?{params}")).await;
        let left = status(&second).strip_prefix("perses; hit; ttl=").and_then(|rest| rest.strip_suffix("; detail=l1"));
        let left: u64 = left.unwrap_or_else(|| panic!("{second:?}")).parse().unwrap();
        assert!((840..=900).contains(&left), "the past may be served for 15 minutes: {left}");
        assert!(second.headers().contains_key("age"));
        assert_eq!(second.text().await.unwrap(), expected);

        // The same question as the UI sends it: a form.
        let form: Vec<(String, String)> = url_pairs(params);
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let third = pod.post_form(&format!("{BASE}/{endpoint}"), &form).await;
        assert!(status(&third).contains("; hit; "), "{third:?}");
        assert_eq!(third.text().await.unwrap(), expected);

        assert_eq!(prometheus.query_total().await.unwrap(), before + 1, "{params}");
    }
    assert!(pod.metric("perses_cache_requests_total{cache=\"query\",tier=\"l1\",result=\"hit\"}").await >= 8.0);
    let asked = pod.metric("perses_upstream_query_duration_seconds_count{endpoint=\"query_range\"}").await;
    assert!((asked - 2.0).abs() < 0.5, "{asked}");
}

fn url_pairs(params: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(params.as_bytes()).into_owned().collect()
}

/// Points without a life are not put together, and nothing is asked twice for that.
#[tokio::test]
async fn points_may_be_switched_off() {
    let prometheus = prometheus().await;
    let pod = Pod::start_with(|config| config.query.settled = config::ConfigDuration::from_secs(0)).await;
    pod.datasource(&prometheus.url(), Value::Null).await;
    let before = prometheus.query_total().await.unwrap();
    let answer = pod.get(&format!("{BASE}/query_range?{RANGE}")).await;
    assert_eq!(status(&answer), "perses; fwd=miss");
    let asked = prometheus.query_total().await.unwrap();
    assert_eq!(asked, before + 1);
    assert_eq!(answer.text().await.unwrap(), direct(&prometheus.url(), "query_range", RANGE).await);
}

#[tokio::test]
async fn many_at_once_are_one_question() {
    let prometheus = prometheus().await;
    let pod = pod_for(&prometheus.url()).await;
    let expected = direct(&prometheus.url(), "query_range", RANGE).await;
    let before = prometheus.query_total().await.unwrap();
    // The questions are under way together: Prometheus answers when all have been asked.
    prometheus.pause().await.unwrap();
    let path = format!("{BASE}/query_range?{RANGE}");
    let asked = join_all((0..50).map(|_| pod.get(&path)));
    let resumed = async {
        let shared = "perses_cache_requests_total{cache=\"query\",tier=\"flight\",result=\"shared\"}";
        until("49 wait for the first", || async { (pod.metric(shared).await - 49.0).abs() < 0.5 }).await;
        prometheus.resume().await.unwrap();
    };
    let (answers, ()) = tokio::join!(asked, resumed);
    let mut details = Vec::new();
    for answer in answers {
        assert_eq!(answer.status(), StatusCode::OK);
        details.push(status(&answer).split("detail=").nth(1).unwrap_or("fwd").to_owned());
        assert_eq!(answer.text().await.unwrap(), expected);
    }
    assert_eq!(details.iter().filter(|detail| *detail == "shared").count(), 49, "{details:?}");
    assert_eq!(prometheus.query_total().await.unwrap(), before + 1);
}

pub async fn pod_with_redis(address: String, url: &str) -> Pod {
    let pod = Pod::start_with(|config| {
        config.cache.redis = Some(config::Redis { addr: address, ..config::Redis::default() });
    })
    .await;
    pod.datasource(url, Value::Null).await;
    pod
}

#[tokio::test]
async fn the_other_pod_answers_from_redis() {
    let (prometheus, redis) = tokio::join!(prometheus(), Redis::start());
    let redis = redis.unwrap();
    let url = prometheus.url();
    let (one, other) = tokio::join!(pod_with_redis(redis.address(), &url), pod_with_redis(redis.address(), &url));
    let path = format!("{BASE}/query_range?{RANGE}");
    let expected = direct(&prometheus.url(), "query_range", RANGE).await;
    let before = prometheus.query_total().await.unwrap();
    // Redis is connected to in the background; an answer that came too early is only in the first pod's memory.
    until("the answer is in Redis", || async {
        let answer =
            one.client.get(format!("{}{path}", one.url)).header("cache-control", "no-cache").send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), expected);
        redis.cli(&["--scan", "--pattern", "v1:query:result:*"]).await.unwrap().contains("v1:query:result:")
    })
    .await;
    let asked = prometheus.query_total().await.unwrap();
    assert!(asked > before);

    until("the other pod reaches Redis", || async {
        let answer = other.get(&path).await;
        assert_eq!(status(&answer).split("detail=").nth(1), Some("l2"), "{answer:?}");
        answer.text().await.unwrap() == expected
    })
    .await;
    let again = other.get(&path).await;
    assert!(status(&again).ends_with("detail=l1"), "{again:?}");
    assert_eq!(again.text().await.unwrap(), expected);
    assert_eq!(prometheus.query_total().await.unwrap(), asked);

    // A datasource that points elsewhere under the same name has nothing to do with these answers.
    let stranger = Upstream::saying(r#"{"status":"success","data":"elsewhere"}"#).await;
    other.datasource(&stranger.url(), Value::Null).await;
    assert!(other.get(&path).await.text().await.unwrap().contains("elsewhere"));
}

#[tokio::test]
async fn without_redis_answers_are_right() {
    let (prometheus, redis) = tokio::join!(prometheus(), Redis::start());
    let redis = redis.unwrap();
    let line = TcpProxy::to_port(redis.port()).await.unwrap();
    let pod = pod_with_redis(format!("127.0.0.1:{}", line.port()), &prometheus.url()).await;
    let ask = |end: i64| {
        let (pod, prometheus) = (&pod, &prometheus);
        async move {
            let params = format!("query=demo&start={FIRST}&end={end}&step=15");
            let answer = pod.get(&format!("{BASE}/query_range?{params}")).await;
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.text().await.unwrap(), direct(&prometheus.url(), "query_range", &params).await);
        }
    };
    ask(FIRST + 60).await;
    line.stall().await;
    ask(FIRST + 120).await;
    line.cut().await;
    ask(FIRST + 180).await;
    redis.kill().await.unwrap();
    ask(FIRST + 240).await;
}

#[tokio::test]
async fn what_prometheus_refuses_is_passed_on_and_not_kept() {
    let prometheus = prometheus().await;
    let pod = pod_for(&prometheus.url()).await;
    for params in ["query=sum(&time=1", "query=up&time=1&timeout=x", "query=label_replace(up,%22a%22,%22b%22)&time=1"] {
        let expected = direct(&prometheus.url(), "query", params).await;
        let before = prometheus.query_total().await.unwrap();
        for _ in 0..2 {
            let answer = pod.get(&format!("{BASE}/query?{params}")).await;
            assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{params}");
            assert!(!status(&answer).contains("hit"), "{answer:?}");
            assert_eq!(answer.text().await.unwrap(), expected);
        }
        assert_eq!(prometheus.query_total().await.unwrap(), before + 2, "{params}");
    }
}

/// Answers its n-th request with `answers[n]`, the last one for ever; and how often it was asked.
async fn scripted(answers: Vec<(u16, &'static str, &'static str)>) -> Upstream {
    let next = Arc::new(AtomicUsize::new(0));
    Upstream::start(move |_| {
        let at = next.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        let (code, cache_control, body) = answers[at];
        Box::pin(async move {
            let mut response: Response = json_answer(body);
            *response.status_mut() = axum::http::StatusCode::from_u16(code).unwrap();
            if !cache_control.is_empty() {
                response.headers_mut().insert("cache-control", HeaderValue::from_static(cache_control));
            }
            response
        })
    })
    .await
}

#[tokio::test]
async fn only_whole_successes_are_kept() {
    const GOOD: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
    for (code, cache_control, body) in [
        (503, "", r#"{"status":"error","errorType":"unavailable","error":"x"}"#),
        (200, "", r#"{"status":"error","errorType":"internal","error":"x"}"#),
        (200, "no-store", GOOD),
        (200, "", r#"{"status":"success","data":{"result":[]},"warnings":["fetch series for store 1: timeout"]}"#),
        (200, "", r#"{"status":"success","data":{"resultType":"#),
    ] {
        let upstream = scripted(vec![(code, cache_control, body), (200, "", GOOD)]).await;
        let pod = pod_for(&upstream.url()).await;
        let path = format!("{BASE}/query_range?{RANGE}");
        let first = pod.get(&path).await;
        assert_eq!((first.status().as_u16(), status(&first)), (code, "perses; fwd=miss"), "{body}");
        assert_eq!(first.text().await.unwrap(), body);
        let second = pod.get(&path).await;
        assert_eq!(status(&second), "perses; fwd=miss", "{body}");
        assert_eq!(second.text().await.unwrap(), GOOD);
        assert!(status(&pod.get(&path).await).contains("hit"), "{body}");
        assert_eq!(upstream.seen().len(), 2);
    }
}

#[tokio::test]
async fn a_client_can_demand_a_fresh_answer() {
    let upstream = scripted(vec![
        (200, "", r#"{"status":"success","data":1}"#),
        (200, "", r#"{"status":"success","data":2}"#),
        (200, "", r#"{"status":"success","data":3}"#),
    ])
    .await;
    let pod = pod_for(&upstream.url()).await;
    let ask = |control: Option<&'static str>| {
        let mut request = pod.client.get(format!("{}{BASE}/query_range?{RANGE}", pod.url));
        if let Some(control) = control {
            request = request.header("cache-control", control);
        }
        async {
            let response = request.send().await.unwrap();
            let how = status(&response).to_owned();
            let body: Value = response.json().await.unwrap();
            (body["data"].as_i64().unwrap(), how)
        }
    };
    assert_eq!(ask(None).await, (1, "perses; fwd=miss".to_owned()));
    assert_eq!(ask(Some("no-cache")).await, (2, "perses; fwd=bypass".to_owned()));
    assert_eq!(ask(None).await.0, 2, "the fresh answer is kept");
    assert_eq!(ask(Some("no-store")).await, (3, "perses; fwd=bypass".to_owned()));
    assert_eq!(ask(None).await.0, 2, "this one is not");
    assert_eq!(upstream.seen().len(), 3);
}

#[tokio::test]
async fn tenants_do_not_share_answers() {
    let upstream = Upstream::start(|seen| {
        let tenant = seen.header("x-scope-orgid").unwrap_or("none").to_owned();
        Box::pin(async move { json_answer(format!(r#"{{"status":"success","data":"{tenant}"}}"#)) })
    })
    .await;
    let pod = pod_for(&upstream.url()).await;
    for round in 0..2 {
        for tenant in ["a", "b"] {
            let request =
                pod.client.get(format!("{}{BASE}/query_range?{RANGE}", pod.url)).header("x-scope-orgid", tenant);
            let response = request.send().await.unwrap();
            assert_eq!(status(&response).contains("hit"), round == 1);
            assert!(response.text().await.unwrap().contains(&format!("\"{tenant}\"")));
        }
    }
    // What does not change an answer does not split the cache, and is not sent along for all.
    let request =
        pod.client.get(format!("{}{BASE}/query_range?{RANGE}&timeout=5s", pod.url)).header("x-scope-orgid", "a");
    let response = request.header("user-agent", "other").header("accept-encoding", "gzip").send().await.unwrap();
    assert!(status(&response).contains("hit"));
    assert_eq!(upstream.seen().len(), 2);
    assert_eq!(upstream.last().header("accept-encoding"), Some("identity"));
    assert_eq!(upstream.last().header("x-forwarded-for"), None);
}

#[tokio::test]
async fn too_large_answers_pass_through_and_are_not_kept() {
    let prometheus = prometheus().await;
    let pod = Pod::start_with(|config| config.query.max_cached_bytes = 10_000).await;
    pod.datasource(&prometheus.url(), Value::Null).await;
    let expected = direct(&prometheus.url(), "query_range", RANGE).await;
    assert!(expected.len() > 20_000);
    let before = prometheus.query_total().await.unwrap();
    let path = format!("{BASE}/query_range?{RANGE}");
    // Concurrent ones cannot share a stream: each gets the whole answer all the same.
    for answer in join_all((0..4).map(|_| pod.get(&path))).await {
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(!status(&answer).contains("hit"), "{answer:?}");
        assert_eq!(answer.text().await.unwrap(), expected);
    }
    let asked = prometheus.query_total().await.unwrap() - before;
    assert!((2..=4).contains(&asked), "{asked}");
    assert!(status(&pod.get(&format!("{BASE}/query?query=none&time=1")).await).contains("fwd=miss"));
    assert!(status(&pod.get(&format!("{BASE}/query?query=none&time=1")).await).contains("hit"), "small ones are kept");
}

#[tokio::test]
async fn a_flight_lasts_as_long_as_somebody_waits() {
    let (gate, left) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicBool::new(false)));
    let (pass, flag) = (gate.clone(), left.clone());
    let upstream = Upstream::start(move |_| {
        let (pass, guard) = (pass.clone(), OnDrop(flag.clone()));
        Box::pin(async move {
            pass.acquire().await.unwrap().forget();
            std::mem::forget(guard);
            json_answer(r#"{"status":"success","data":1}"#)
        })
    })
    .await;
    let pod = pod_for(&upstream.url()).await;
    let ask = || tokio::spawn(pod.client.get(format!("{}{BASE}/query_range?{RANGE}", pod.url)).send());
    let in_flight = "perses_http_requests_in_flight";
    let shared = "perses_cache_requests_total{cache=\"query\",tier=\"flight\",result=\"shared\"}";

    let leader = ask();
    until("the question arrives", || async { upstream.seen().len() == 1 }).await;
    let follower = ask();
    until("the second one waits", || async { pod.metric(shared).await > 0.5 }).await;
    leader.abort();
    // The server has noticed when only the follower (and the question for metrics) is left.
    until("the first one has left", || async { pod.metric(in_flight).await < 2.5 }).await;
    assert!(!left.load(Ordering::SeqCst), "the second one still waits");
    gate.add_permits(1);
    assert_eq!(follower.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(upstream.seen().len(), 1);

    let path = format!("{}{BASE}/query_range?query=other&start=1&end=2&step=1", pod.url);
    let alone = tokio::spawn(pod.client.get(path).send());
    until("the question arrives", || async { upstream.seen().len() == 2 }).await;
    alone.abort();
    until("the datasource is left alone", || async { left.load(Ordering::SeqCst) }).await;
    let gauge = "perses_upstream_queries_in_flight{endpoint=\"query_range\"}";
    until("nothing is in flight", || async { pod.metric(gauge).await < 0.5 }).await;
}

#[tokio::test]
async fn switched_off_it_only_passes_through() {
    let prometheus = prometheus().await;
    let pod = Pod::start_with(|config| config.query.cache = false).await;
    pod.datasource(&prometheus.url(), json!({})).await;
    let expected = direct(&prometheus.url(), "query_range", RANGE).await;
    let before = prometheus.query_total().await.unwrap();
    for _ in 0..2 {
        let answer = pod.get(&format!("{BASE}/query_range?{RANGE}")).await;
        assert_eq!(status(&answer), "");
        assert_eq!(answer.text().await.unwrap(), expected);
    }
    assert_eq!(prometheus.query_total().await.unwrap(), before + 2);
}
