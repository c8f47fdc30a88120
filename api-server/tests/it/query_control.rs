//! What people do with the query cache: ask past it, flush it in all pods, have it explained.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::services::{Prometheus, Redis};
use perses_api_server::commands;
use perses_api_server::config::{self, Config};
use perses_api_server::service::flush::Flush;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::oracle::{FIRST, samples};
use crate::pod::{Pod, until};
use crate::query::pod_with_redis;
use crate::upstream::{Upstream, json as json_answer};

const PROM: &str = "/proxy/globaldatasources/prom";

/// Each answer has another number.
async fn counting() -> Upstream {
    let next = Arc::new(AtomicUsize::new(1));
    Upstream::start(move |_| {
        let number = next.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { json_answer(format!(r#"{{"status":"success","data":{number}}}"#)) })
    })
    .await
}

async fn number(pod: &Pod, path: &str) -> u64 {
    let answer: Value = pod.get(&format!("{PROM}/api/v1/{path}")).await.json().await.unwrap();
    answer["data"].as_u64().unwrap_or_else(|| panic!("{answer}"))
}

async fn post(pod: &Pod, path: &str, body: &Value) -> (StatusCode, Value) {
    let answer = pod.client.post(format!("{}{path}", pod.url)).json(body).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

async fn flush(pod: &Pod, body: &Value) -> Value {
    let (status, answer) = post(pod, "/api/v1/cache/flush", body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

async fn explain(pod: &Pod, endpoint: &str, parameters: &Value) -> Value {
    let body = json!({"path": format!("{PROM}/api/v1/{endpoint}"), "parameters": parameters});
    let (status, answer) = post(pod, "/api/v1/query/explain", &body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

#[tokio::test]
async fn nocache_asks_the_datasource_and_goes_no_further() {
    let upstream = counting().await;
    let pod = Pod::start().await;
    pod.datasource(&upstream.url(), Value::Null).await;
    assert_eq!(number(&pod, "query?query=up&time=1").await, 1);
    assert_eq!(number(&pod, "query?nocache=1&query=up&time=1").await, 2);
    let target = upstream.last().target;
    assert!(target.starts_with("/api/v1/query?query=up&time=1&timeout=") && !target.contains("nocache"), "{target}");
    assert_eq!(
        number(&pod, "query?query=up&time=1&nocache=0").await,
        2,
        "the fresh answer is kept, under the same key"
    );
    let form = [("query", "up"), ("nocache", "true"), ("time", "1")];
    let answer = pod.post_form(&format!("{PROM}/api/v1/query"), &form).await;
    assert_eq!(answer.headers()["cache-status"], "perses; fwd=bypass");
    assert_eq!(upstream.last().body, "query=up&time=1");
    // Labels are answered from the cache, too; what Prometheus takes no forms for is passed on.
    assert_eq!(number(&pod, "label/job/values?start=1&end=2").await, 4);
    assert_eq!(number(&pod, "label/job/values?end=2.0&start=1").await, 4);
    let passed = pod.post_form(&format!("{PROM}/api/v1/label/job/values"), &[("start", "1"), ("end", "2")]).await;
    assert!(!passed.headers().contains_key("cache-status"), "{passed:?}");
    assert_eq!(upstream.seen().len(), 5);
}

#[tokio::test]
async fn a_flush_drops_what_it_names_and_nothing_else() {
    let upstream = counting().await;
    let pod = Pod::start().await;
    pod.datasource(&upstream.url(), Value::Null).await;
    let up = "query?query=rate(up%5B5m%5D)&time=1";
    let down = "query?query=down&time=1";
    let values = "label/job/values?match[]=up&start=1&end=2";
    let any = "query?query=%7Bjob=%22x%22%7D&time=1";
    let ask = async || {
        let mut numbers = Vec::new();
        for path in [up, down, values, any] {
            numbers.push(number(&pod, path).await);
        }
        numbers
    };
    assert_eq!(ask().await, [1, 2, 3, 4]);
    assert_eq!(ask().await, [1, 2, 3, 4]);
    let answer = flush(&pod, &json!({"metric": "up"})).await;
    assert_eq!(
        (&answer["dropped"]["answers"], &answer["dropped"]["everywhere"]),
        (&json!(3), &json!(false)),
        "{answer}"
    );
    assert_eq!(ask().await, [5, 2, 6, 7], "a selector without a name may read it");
    flush(&pod, &json!({"datasource": "other"})).await;
    flush(&pod, &json!({"project": "p"})).await;
    assert_eq!(ask().await, [5, 2, 6, 7]);
    flush(&pod, &json!({"datasource": "PROM", "metric": "down"})).await;
    assert_eq!(ask().await, [5, 8, 6, 9], "names of documents have no case here");
    let key = explain(&pod, "query", &json!({"query": "down", "time": 1})).await["keys"]["answer"].clone();
    assert_eq!(flush(&pod, &json!({"key": key})).await["dropped"]["answers"], 1);
    assert_eq!(ask().await, [5, 10, 6, 9]);
    assert_eq!(flush(&pod, &json!({"all": true})).await["dropped"]["answers"], 4);
    assert_eq!(ask().await, [11, 12, 13, 14]);

    pod.apply("projects", "Project", "p", &json!({})).await;
    let query = json!({"kind": "TimeSeriesQuery", "spec": {"plugin": {"kind": "PrometheusTimeSeriesQuery", "spec": {
        "query": "sum(down{job=\"$job\"})", "datasource": {"kind": "PrometheusDatasource", "name": "prom"}}}}});
    let panel = json!({"kind": "Panel", "spec": {"display": {"name": "one"},
        "plugin": {"kind": "TimeSeriesChart", "spec": {}}, "queries": [query]}});
    let variable = json!({"kind": "TextVariable", "spec": {"name": "job", "value": "x"}});
    let spec = json!({"duration": "1h", "panels": {"one": panel}, "layouts": [], "variables": [variable]});
    pod.apply("projects/p/dashboards", "Dashboard", "d", &spec).await;
    let answer = flush(&pod, &json!({"project": "p", "dashboard": "d"})).await;
    assert_eq!(answer["scopes"], json!([{"datasource": "prom", "metric": "down"}]));
    assert_eq!(ask().await, [11, 15, 13, 16]);

    for (body, part) in [
        (json!({}), "say what"),
        (json!({"all": true, "metric": "up"}), "alone"),
        (json!({"dashboard": "d"}), "with its project"),
        (json!({"metrics": "up"}), "metrics"),
    ] {
        let (status, answer) = post(&pod, "/api/v1/cache/flush", &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(part), "{answer}");
    }
    let (status, _) = post(&pod, "/api/v1/cache/flush", &json!({"project": "p", "dashboard": "none"})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_flush_holds_in_the_other_pod_and_in_redis() {
    let (upstream, redis) = tokio::join!(counting(), Redis::start());
    let redis = redis.unwrap();
    let url = upstream.url();
    let (one, other) = tokio::join!(pod_with_redis(redis.address(), &url), pod_with_redis(redis.address(), &url));
    let path = "query?query=up&time=1";
    let l2 = async |pod: &Pod| explain(pod, "query", &json!({"query": "up", "time": 1})).await["l2"].clone();
    for pod in [&one, &other] {
        until("the pod is connected to Redis", || async { l2(pod).await["why"] == "not there" }).await;
    }
    let shared = number(&one, path).await;
    until("the answer is in Redis", || async { l2(&other).await["found"] == true }).await;
    assert_eq!(number(&other, path).await, shared);
    let answer = flush(&one, &json!({"datasource": "prom"})).await;
    assert_eq!(answer["dropped"]["everywhere"], true, "{answer}");
    assert_eq!(l2(&one).await["why"], "flushed");
    let fresh = number(&one, path).await;
    assert!(fresh > shared, "{fresh}: the pod that was asked has flushed when it answers");
    until("the other pod has flushed", || async { number(&other, path).await > shared }).await;

    // By the command line, in both.
    let (before, before_other) = (number(&one, path).await, number(&other, path).await);
    let config = Config {
        cache: config::Cache {
            redis: Some(config::Redis { addr: redis.address(), ..config::Redis::default() }),
            ..config::Cache::default()
        },
        ..Config::default()
    };
    let all = Flush { metric: Some("up".to_owned()), ..Flush::default() };
    let said = commands::cache::flush(&config, &all).await.unwrap();
    assert!(said.contains("metric up"), "{said}");
    until("both pods have flushed", || async {
        number(&one, path).await > before && number(&other, path).await > before_other
    })
    .await;
    assert!(commands::cache::flush(&Config::default(), &all).await.unwrap_err().contains("cache.redis"));

    // A pod that begins later does not take from Redis what was flushed before.
    let before = number(&one, path).await;
    flush(&one, &json!({"all": true})).await;
    let late = pod_with_redis(redis.address(), &url).await;
    until("the late pod is connected to Redis", || async { l2(&late).await["why"] == "flushed" }).await;
    assert!(number(&late, path).await > before);
}

#[tokio::test]
async fn an_answer_on_its_way_does_not_survive_a_flush() {
    let gate = Arc::new(Semaphore::new(0));
    let next = Arc::new(AtomicUsize::new(1));
    let held = gate.clone();
    let upstream = Upstream::start(move |_| {
        let (gate, number) = (held.clone(), next.fetch_add(1, Ordering::SeqCst));
        Box::pin(async move {
            // Only the first one is slow.
            if number == 1 {
                gate.acquire().await.unwrap().forget();
            }
            json_answer(format!(r#"{{"status":"success","data":{number}}}"#))
        })
    })
    .await;
    let pod = Pod::start().await;
    pod.datasource(&upstream.url(), Value::Null).await;
    let path = "query?query=up&time=1";
    let slow = number(&pod, path);
    let flushed = async {
        until("the slow one is under way", || async { upstream.seen().len() == 1 }).await;
        flush(&pod, &json!({"datasource": "prom"})).await;
        // Who asks now does not wait for the slow one.
        assert_eq!(number(&pod, path).await, 2);
        gate.add_permits(1);
    };
    let (slow, ()) = tokio::join!(slow, flushed);
    assert_eq!(slow, 1, "who asked before the flush gets what they asked for");
    assert_eq!(number(&pod, path).await, 2, "and nobody else does");
}

#[allow(clippy::cast_precision_loss, reason = "seconds of our time fit")]
fn stretch(first: i64, last: i64, points: u64) -> Value {
    json!([{"start": first as f64, "end": last as f64, "points": points}])
}

#[tokio::test]
async fn explain_says_where_an_answer_would_come_from() {
    let prometheus = Prometheus::start_with(&[], Some(&samples())).await.unwrap();
    let pod = Pod::start().await;
    pod.datasource(&prometheus.url(), Value::Null).await;
    let window = |start: i64, end: i64| json!({"query": "rate(gauge[5m])", "start": start, "end": end, "step": 15});
    let (first, last) = (FIRST + 600, FIRST + 1200);
    let before = explain(&pod, "query_range", &window(first, last)).await;
    assert_eq!((&before["class"], &before["from"]), (&json!("immutable"), &json!("datasource")), "{before}");
    assert_eq!(before["metrics"], json!(["gauge"]));
    assert_eq!(before["points_per_series"], 41);
    assert_eq!(before["l1"], json!({"found": false, "why": "not there"}));
    assert_eq!(before["l2"]["why"], "no Redis is configured");
    assert_eq!(before["points"]["asked"], stretch(first, last, 41));
    assert_eq!(prometheus.query_total().await.unwrap(), 0, "nothing is asked");

    let params = format!("query=rate(gauge%5B5m%5D)&start={first}&end={last}&step=15");
    assert_eq!(pod.get(&format!("{PROM}/api/v1/query_range?{params}")).await.status(), StatusCode::OK);
    let known = explain(&pod, "query_range", &window(first, last)).await;
    assert_eq!(known["from"], "l1", "{known}");
    assert!(known["l1"]["left_seconds"].as_f64().unwrap() > 800.0, "{known}");
    let inside = explain(&pod, "query_range", &window(first + 60, last)).await;
    assert_eq!(inside["from"], "points", "{inside}");
    assert_eq!((&inside["points"]["known"][0]["state"], &inside["points"]["series"]), (&json!("settled"), &json!(4)));
    assert_eq!(inside["estimated_points"], 37 * 4);
    let slid = explain(&pod, "query_range", &window(first + 60, last + 60)).await;
    assert_eq!(slid["from"], "partial", "{slid}");
    assert_eq!(slid["points"]["asked"], stretch(last + 15, last + 60, 4));
    flush(&pod, &json!({"metric": "gauge"})).await;
    assert_eq!(explain(&pod, "query_range", &window(first, last)).await["from"], "datasource");

    let bound =
        explain(&pod, "query_range", &json!({"query": "gauge @ end()", "start": first, "end": last, "step": 15})).await;
    assert!(bound["advice"][0].as_str().unwrap().contains("@ end()"), "{bound}");
    let stats = explain(&pod, "query", &json!({"query": "up", "stats": "all"})).await;
    assert_eq!((&stats["class"], &stats["from"]), (&json!("uncacheable"), &json!("datasource")), "{stats}");
    assert!(stats["reason"].as_str().unwrap().contains("stats"), "{stats}");
    let far = explain(&pod, "query", &json!({"query": "max_over_time(up[30d])"})).await;
    assert!(far["advice"][0].as_str().unwrap().contains("looks back 30d"), "{far}");
    let series = explain(&pod, "series", &json!({"match[]": ["up", "{job=\"x\"}"]})).await;
    assert_eq!((&series["class"], &series["other_metrics"]), (&json!("window-bound"), &json!(true)), "{series}");
    let other = explain(&pod, "rules", &json!({})).await;
    assert!(other["reason"].as_str().unwrap().contains("no endpoint"), "{other}");
    let (status, _) =
        post(&pod, "/api/v1/query/explain", &json!({"path": "/proxy/globaldatasources/none/api/v1/query"})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(pod.metric("perses_query_cache_bytes{tier=\"points\"}").await >= 0.0);
    let answers = "perses_query_answers_total{endpoint=\"query_range\",class=\"immutable\",from=\"datasource\"}";
    assert!((pod.metric(answers).await - 1.0).abs() < 0.5);
}
