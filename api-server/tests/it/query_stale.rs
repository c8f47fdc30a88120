//! Answers whose time is over: nobody waits for a fresh one, and charts go on without their datasource.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use e2e::services::Prometheus;
use perses_api_server::config::ConfigDuration;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::pod::{Pod, until};
use crate::query::{BASE, status};
use crate::upstream::{Upstream, json as json_answer};

#[tokio::test]
async fn nobody_waits_while_a_fresh_answer_is_on_its_way() {
    let gate = Arc::new(Semaphore::new(1));
    let (pass, next) = (gate.clone(), Arc::new(std::sync::atomic::AtomicUsize::new(1)));
    let upstream = Upstream::start(move |_| {
        let (pass, next) = (pass.clone(), next.clone());
        Box::pin(async move {
            pass.acquire().await.unwrap().forget();
            let number = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            json_answer(format!(r#"{{"status":"success","data":{number}}}"#))
        })
    })
    .await;
    let pod = Pod::start_with(|config| {
        config.query.ttl.historical = ConfigDuration::from_secs(1);
        config.query.stale.while_revalidate = ConfigDuration::from_secs(600);
    })
    .await;
    pod.datasource(&upstream.url(), Value::Null).await;
    let ask = async || {
        let answer = pod.get(&format!("{BASE}/query?query=demo&time=1")).await;
        let said = status(&answer).to_owned();
        let body: Value = answer.json().await.unwrap();
        (body["data"].as_i64().unwrap(), said, body["warnings"].clone())
    };
    assert_eq!(ask().await, (1, "perses; fwd=miss".to_owned(), Value::Null));
    // The second answer is held back.
    until("the time of the first one is over", || async {
        let (number, said, warnings) = ask().await;
        assert!(number == 1 && said.starts_with("perses; hit; ") && warnings.is_null(), "{number} {said} {warnings}");
        said.ends_with("detail=stale")
    })
    .await;
    until("one asks for a fresh one", || async { upstream.seen().len() == 2 }).await;
    assert!(ask().await.1.ends_with("detail=stale"));
    assert_eq!(upstream.seen().len(), 2, "and only one");
    gate.add_permits(1);
    until("the fresh one is there", || async {
        let (number, said, _) = ask().await;
        assert!(said.contains("; hit; "), "{said}");
        number == 2
    })
    .await;
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

#[tokio::test]
async fn charts_go_on_without_prometheus() {
    let prometheus = Prometheus::start(&[]).await.unwrap();
    let pod = Pod::start_with(|config| {
        config.query.freshness = ConfigDuration::from_secs(2);
        config.query.ttl.realtime = ConfigDuration::from_secs(1);
        config.query.stale.while_revalidate = ConfigDuration::from_secs(0);
    })
    .await;
    pod.datasource(&prometheus.url(), Value::Null).await;
    let begun = now();
    let get = async |path: String, control: &str| {
        let request = pod.client.get(format!("{}{BASE}/{path}", pod.url)).header("cache-control", control);
        let answer = request.send().await.unwrap();
        let (code, said) = (answer.status(), status(&answer).to_owned());
        let age = answer.headers().contains_key("age");
        (code, said, age, answer.json::<Value>().await.unwrap())
    };
    let window = |end: i64| format!("query_range?query=process_cpu_seconds_total&start={}&end={end}&step=1", begun - 5);
    let points = |answer: &Value| answer["data"]["result"][0]["values"].as_array().cloned().unwrap_or_default();
    let mut end = begun;
    until("there is something to show", || {
        end = now();
        let asked = get(window(end), "");
        async move { points(&asked.await.3).len() >= 8 }
    })
    .await;
    let instant = |time: i64| format!("query?query=up&time={time}");
    let (_, _, _, up) = get(instant(end), "").await;
    assert_eq!(up["data"]["result"][0]["value"][1], "1");
    let (_, _, _, before) = get(window(end), "").await;

    prometheus.stop().await.unwrap();
    for path in [window(end + 2), instant(end + 2)] {
        let (code, said, has_age, answer) = get(path.clone(), "").await;
        assert_eq!(code, StatusCode::OK, "{path}: {answer}");
        assert!(said.starts_with("perses; hit; ttl=-") && said.ends_with("detail=stale") && has_age, "{path}: {said}");
        let warning = answer["warnings"][0].as_str().unwrap();
        assert!(warning.starts_with("the datasource cannot answer") && warning.ends_with(" ago"), "{warning}");
        if path.starts_with("query_range") {
            let (old, new) = (points(&before), points(&answer));
            assert!(old.len() >= 8 && new.starts_with(&old), "{new:?} / {old:?}");
        } else {
            assert_eq!(answer["data"], up["data"]);
        }
    }
    // Who demands a fresh answer is told, and so is who asks for what nobody has asked for.
    assert_eq!(get(window(end + 2), "no-cache").await.0, StatusCode::BAD_GATEWAY);
    assert_eq!(get(instant(end + 2).replace("up", "down"), "").await.0, StatusCode::BAD_GATEWAY);
    // Nor is the past of long ago shown for now.
    assert_eq!(get(instant(end + 3600), "").await.0, StatusCode::BAD_GATEWAY);

    prometheus.start_again().await.unwrap();
    until("the chart is fresh", || async {
        let (code, said, _, answer) = get(window(now()), "").await;
        code == StatusCode::OK && !said.contains("stale") && answer["warnings"].is_null() && points(&answer).len() >= 8
    })
    .await;
    until("the same window is fresh", || async { !get(window(end + 2), "").await.1.contains("stale") }).await;
}
