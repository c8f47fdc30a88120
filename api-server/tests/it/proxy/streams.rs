//! Bodies and time: nothing is held back, nothing waits for ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use perses_api_server::config::ConfigDuration;
use reqwest::StatusCode;
use serde_json::Value;

use super::{SUCCESS, message};
use crate::pod::{Pod, until};
use crate::upstream::{OnDrop, Upstream, json as json_answer};

/// A body of `total` bytes that counts what was taken of it.
fn counted(total: u64, taken: Arc<AtomicU64>) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> {
    static CHUNK: [u8; 64 * 1024] = [b'x'; 64 * 1024];
    let size = CHUNK.len() as u64;
    futures::stream::iter(0..total / size).map(move |_| {
        taken.fetch_add(size, Ordering::SeqCst);
        Ok(Bytes::from_static(&CHUNK))
    })
}

/// What the four sockets on the way may hold (their buffers grow to some 40 MB each on Linux); far below the size of the
/// bodies.
const IN_BETWEEN: u64 = 160 << 20;

const LARGE: u64 = 512 << 20;

#[tokio::test]
async fn large_answers_stream_with_bounded_memory() {
    let taken = Arc::new(AtomicU64::new(0));
    let source = taken.clone();
    let upstream = Upstream::raw(move |_| {
        let source = source.clone();
        Box::pin(async move { json_answer(Body::from_stream(counted(LARGE, source))) })
    })
    .await;
    let pod = Pod::start().await;
    pod.datasource(&upstream.url(), Value::Null).await;
    for path in ["/api/v1/export", "/api/v1/query_range?query=up&start=1&end=2&step=1"] {
        taken.store(0, Ordering::SeqCst);
        let response = pod.get(&format!("/proxy/globaldatasources/prom{path}")).await;
        assert_eq!(response.status(), StatusCode::OK);
        let (mut stream, mut read) = (response.bytes_stream(), 0);
        while let Some(chunk) = stream.next().await {
            read += chunk.unwrap().len() as u64;
            // The server, this client and all sockets in between hold no more than the difference.
            let held = taken.load(Ordering::SeqCst) - read;
            assert!(held <= IN_BETWEEN, "{path}: {held} bytes are held after {read}");
        }
        assert_eq!(read, LARGE, "{path}");
    }
}

#[tokio::test]
async fn large_requests_stream_with_bounded_memory() {
    let (taken, arrived) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (source, sink) = (taken.clone(), arrived.clone());
    let upstream = Upstream::raw(move |request| {
        let (source, sink) = (source.clone(), sink.clone());
        Box::pin(async move {
            let mut body = request.into_body().into_data_stream();
            while let Some(chunk) = body.next().await {
                let read = sink.fetch_add(chunk.unwrap().len() as u64, Ordering::SeqCst);
                let held = source.load(Ordering::SeqCst).saturating_sub(read);
                if held > IN_BETWEEN {
                    return Response::builder().status(507).body(Body::from(held.to_string())).unwrap();
                }
            }
            json_answer(SUCCESS)
        })
    })
    .await;
    let pod = Pod::start().await;
    pod.datasource(&upstream.url(), Value::Null).await;
    let body = reqwest::Body::wrap_stream(counted(LARGE, taken));
    let request = pod.client.post(format!("{}/proxy/globaldatasources/prom/api/v1/write", pod.url)).body(body);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(arrived.load(Ordering::SeqCst), LARGE);
}

/// A datasource that never answers; the flag is set when it notices that nobody waits.
async fn hanging() -> (Upstream, Arc<AtomicBool>) {
    let left = Arc::new(AtomicBool::new(false));
    let flag = left.clone();
    let upstream = Upstream::start(move |_| {
        let guard = OnDrop(flag.clone());
        Box::pin(async move {
            let _guard = guard;
            std::future::pending().await
        })
    })
    .await;
    (upstream, left)
}

#[tokio::test]
async fn a_slow_datasource_is_a_timeout() {
    let (upstream, left) = hanging().await;
    let pod = Pod::start_with(|config| {
        config.query.timeout = ConfigDuration(Duration::from_millis(300));
        config.datasource.header_timeout = ConfigDuration(Duration::from_millis(400));
    })
    .await;
    pod.datasource(&upstream.url(), Value::Null).await;
    for (path, key) in [
        ("/api/v1/rules", "datasource.header_timeout"),
        ("/api/v1/query?query=up", "query.timeout"),
        ("/api/v1/query?query=up&stats=all", "query.timeout"),
    ] {
        left.store(false, Ordering::SeqCst);
        let (status, text) = message(pod.get(&format!("/proxy/globaldatasources/prom{path}")).await).await;
        assert_eq!(status, StatusCode::GATEWAY_TIMEOUT, "{path}");
        assert!(text.contains(key), "{text}");
        until("the datasource is left alone", || async { left.load(Ordering::SeqCst) }).await;
    }
}

#[tokio::test]
async fn an_answer_that_stands_still_is_broken_off() {
    let upstream = Upstream::raw(|_| {
        let stalled = futures::stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"{")) })
            .chain(futures::stream::pending());
        Box::pin(async move { json_answer(Body::from_stream(stalled)) })
    })
    .await;
    let pod = Pod::start_with(|config| {
        config.query.timeout = ConfigDuration(Duration::from_millis(1000));
        config.datasource.idle_timeout = ConfigDuration(Duration::from_millis(1000));
    })
    .await;
    pod.datasource(&upstream.url(), Value::Null).await;
    let response = pod.get("/proxy/globaldatasources/prom/export").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.bytes().await.is_err(), "a broken answer must not look whole");
    let response = pod.get("/proxy/globaldatasources/prom/api/v1/query?query=up").await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_request_to_the_datasource() {
    let (upstream, left) = hanging().await;
    let pod = Pod::start().await;
    pod.datasource(&upstream.url(), Value::Null).await;
    for (at, path) in ["/api/v1/rules", "/api/v1/query?query=up"].into_iter().enumerate() {
        left.store(false, Ordering::SeqCst);
        let request = pod.client.get(format!("{}/proxy/globaldatasources/prom{path}", pod.url)).send();
        let request = tokio::spawn(request);
        until("the request arrives", || async { upstream.seen().len() == at + 1 }).await;
        assert!(!left.load(Ordering::SeqCst));
        request.abort();
        until("the datasource is left alone", || async { left.load(Ordering::SeqCst) }).await;
    }
}

#[tokio::test]
async fn an_upload_may_take_longer_than_the_answer() {
    let upstream = Upstream::saying(SUCCESS).await;
    let limit = Duration::from_millis(1500);
    let pod = Pod::start_with(|config| config.datasource.header_timeout = ConfigDuration(limit)).await;
    pod.datasource(&upstream.url(), Value::Null).await;
    let started = std::time::Instant::now();
    let pieces = futures::stream::iter(0..20).then(|_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok::<_, std::io::Error>(Bytes::from_static(b"piece"))
    });
    let request = pod.client.post(format!("{}/proxy/globaldatasources/prom/api/v1/write", pod.url));
    let response = request.body(reqwest::Body::wrap_stream(pieces)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(started.elapsed() > limit);
    assert_eq!(upstream.last().body.len(), 100);
}
