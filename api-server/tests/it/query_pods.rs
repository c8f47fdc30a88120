//! The query cache over several pods: what one has asked for, none asks for again.

use std::sync::Arc;
use std::time::Duration;

use e2e::services::{Redis, TcpProxy};
use futures::future::join_all;
use reqwest::StatusCode;
use tokio::sync::Semaphore;

use crate::pod::{Pod, until};
use crate::query::{BASE, FIRST, direct, pod_with_redis, prometheus, status};
use crate::upstream::{Upstream, json as json_answer};

fn range(first: i64, points: i64) -> String {
    let start = FIRST + first * 15;
    format!("query=demo&start={start}&end={}&step=15", start + (points - 1) * 15)
}

async fn reached(pod: &Pod) {
    until("the pod has reached Redis", || async { pod.state().redis.as_ref().unwrap().is_available() }).await;
}

/// Two pods that share a Redis and have reached it.
async fn pods(redis: &Redis, url: &str) -> [Pod; 2] {
    let (one, other) = tokio::join!(pod_with_redis(redis.address(), url), pod_with_redis(redis.address(), url));
    let pods = [one, other];
    for pod in &pods {
        reached(pod).await;
    }
    pods
}

#[tokio::test]
async fn points_are_shared() {
    let (prometheus, redis) = tokio::join!(prometheus(), Redis::start());
    let redis = redis.unwrap();
    let url = prometheus.url();
    let [one, other] = pods(&redis, &url).await;
    let ask = async |pod: &Pod, params: &str| {
        let expected = direct(&url, "query_range", params).await;
        let before = prometheus.query_total().await.unwrap();
        let answer = pod.get(&format!("{BASE}/query_range?{params}")).await;
        let said = status(&answer).to_owned();
        assert_eq!(answer.text().await.unwrap(), expected, "{params}");
        (said, prometheus.query_total().await.unwrap() - before)
    };
    let chunks = async || {
        let names = redis.cli(&["--scan", "--pattern", "v2:query:chunk:*"]).await.unwrap();
        names.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ask(&one, &range(0, 400)).await.1, 1);
    until("all points are in Redis", || async { chunks().await.len() >= 4 }).await;
    // Another window, on another pod.
    let (said, asked) = ask(&other, &range(50, 300)).await;
    assert!(said.contains("hit") && said.ends_with("detail=points"), "{said}");
    assert_eq!(asked, 0);
    // Further: what is new is asked for, and then the first pod has it.
    assert_eq!(ask(&other, &range(300, 300)).await, ("perses; fwd=partial; stored".to_owned(), 1));
    until("they are in Redis", || async { chunks().await.len() >= 6 }).await;
    until("the first pod has them", || async { ask(&one, &range(350, 200)).await.1 == 0 }).await;

    // What is not what we wrote is not used.
    for name in chunks().await {
        redis.cli(&["set", &name, "nonsense"]).await.unwrap();
    }
    let third = pod_with_redis(redis.address(), &url).await;
    reached(&third).await;
    assert_eq!(ask(&third, &range(10, 200)).await.1, 1);
    let looks = "perses_cache_requests_total{cache=\"query\",tier=\"l2_points\",result=\"miss\"}";
    assert!(third.metric(looks).await > 0.5);
}

/// Prometheus takes 200 ms; 500 clients ask two pods at one instant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stampede_is_one_question() {
    let (prometheus, redis) = tokio::join!(prometheus(), Redis::start());
    let redis = redis.unwrap();
    let slow = TcpProxy::to_port(prometheus.port()).await.unwrap();
    slow.delay(Duration::from_millis(100)).await;
    let pods = pods(&redis, &format!("http://127.0.0.1:{}", slow.port())).await;
    for (params, kind) in [(range(0, 240), "range"), ("query=demo&time=1700001234".to_owned(), "instant")] {
        let endpoint = if kind == "range" { "query_range" } else { "query" };
        let expected = direct(&prometheus.url(), endpoint, &params).await;
        let before = prometheus.query_total().await.unwrap();
        let path = format!("{BASE}/{endpoint}?{params}");
        let answers = join_all((0..500).map(|n| pods[n % 2].get(&path))).await;
        for answer in answers {
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.text().await.unwrap(), expected);
        }
        // Of each pod at most one: where Redis takes too long for once, a pod asks for itself.
        let asked = prometheus.query_total().await.unwrap() - before;
        assert!((1..=2).contains(&asked), "{kind}: {asked}");
    }
}

/// An upstream that answers nothing before it is told to.
async fn held() -> (Upstream, Arc<Semaphore>) {
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
    (upstream, gate)
}

#[tokio::test]
async fn another_pod_takes_over() {
    let redis = Redis::start().await.unwrap();
    let (upstream, gate) = held().await;
    let [one, other] = pods(&redis, &upstream.url()).await;
    let ask = |pod: &Pod| tokio::spawn(pod.client.get(format!("{}{BASE}/query?query=demo&time=1", pod.url)).send());
    let leader = ask(&one);
    until("the question arrives", || async { upstream.seen().len() == 1 }).await;
    let waiting = ask(&other);
    let in_flight = "perses_http_requests_in_flight";
    until("the other pod waits", || async { other.metric(in_flight).await > 0.5 }).await;
    leader.abort();
    until("the other pod asks itself", || async { upstream.seen().len() == 2 }).await;
    gate.add_permits(2);
    assert_eq!(waiting.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_failed_question_is_not_waited_for() {
    let redis = Redis::start().await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let pass = gate.clone();
    let upstream = Upstream::start(move |_| {
        let pass = pass.clone();
        Box::pin(async move {
            pass.acquire().await.unwrap().forget();
            let mut response = json_answer(r#"{"status":"error","errorType":"execution","error":"too many samples"}"#);
            *response.status_mut() = axum::http::StatusCode::UNPROCESSABLE_ENTITY;
            response
        })
    })
    .await;
    let pods = pods(&redis, &upstream.url()).await;
    let asked = pods
        .each_ref()
        .map(|pod| tokio::spawn(pod.client.get(format!("{}{BASE}/query?query=demo&time=1", pod.url)).send()));
    until("the question arrives", || async { upstream.seen().len() == 1 }).await;
    gate.add_permits(2);
    for asked in asked {
        assert_eq!(asked.await.unwrap().unwrap().status(), StatusCode::UNPROCESSABLE_ENTITY);
    }
}

#[tokio::test]
async fn redis_may_die_while_pods_wait_for_each_other() {
    let redis = Redis::start().await.unwrap();
    let (upstream, gate) = held().await;
    let pods = pods(&redis, &upstream.url()).await;
    let asked = pods
        .each_ref()
        .map(|pod| tokio::spawn(pod.client.get(format!("{}{BASE}/query?query=demo&time=1", pod.url)).send()));
    until("the question arrives", || async { upstream.seen().len() == 1 }).await;
    redis.kill().await.unwrap();
    until("the other pod asks itself", || async { upstream.seen().len() == 2 }).await;
    gate.add_permits(2);
    for asked in asked {
        assert_eq!(asked.await.unwrap().unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn kept_answers_go_out_compressed() {
    let prometheus = prometheus().await;
    let pod = Pod::start().await;
    pod.datasource(&prometheus.url(), serde_json::Value::Null).await;
    let path = format!("{BASE}/query_range?{}", range(0, 240));
    let expected = direct(&prometheus.url(), "query_range", &range(0, 240)).await;
    for round in 0..2 {
        let request = pod.client.get(format!("{}{path}", pod.url)).header("accept-encoding", "gzip");
        let answer = request.send().await.unwrap();
        assert_eq!(status(&answer).contains("hit"), round == 1);
        assert_eq!(
            (&answer.headers()["content-encoding"], &answer.headers()["vary"]),
            (&"gzip".parse().unwrap(), &"Accept-Encoding".parse().unwrap())
        );
        let packed = answer.bytes().await.unwrap();
        assert!(packed.len() * 2 < expected.len(), "{} of {}", packed.len(), expected.len());
        assert_eq!(perses_api_server::negotiate::gunzip(&packed).unwrap(), expected.as_bytes());
        let plain = pod.get(&path).await;
        assert_eq!(plain.headers().get("content-encoding"), None);
        assert_eq!(plain.text().await.unwrap(), expected);
    }
}
