//! The datasource proxy, from a client's socket to a datasource's.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use perses_api_server::config::ConfigDuration;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::pod::{Pod, prometheus, until};
use crate::upstream::{OnDrop, Upstream, json as json_answer};

const SUCCESS: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;

async fn message(response: reqwest::Response) -> (StatusCode, String) {
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    (status, body["message"].as_str().unwrap().to_owned())
}

/// Sends a request line as it is (clients of libraries tidy paths up) and returns status and body.
async fn raw_get(pod: &Pod, target: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(pod.address()).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", pod.address());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn credentials_of_this_server_never_leave_it() {
    let upstream = Upstream::saying(SUCCESS).await;
    let pod = Pod::start().await;
    pod.datasource(&upstream.url(), json!({"headers": {"X-Team": "a", "Authorization": "Bearer ignored"}})).await;
    for path in ["/api/v1/labels", "/api/v1/query?query=up&time=1", "/api/v1/query?query=up&stats=all"] {
        let request = pod.client.get(format!("{}/proxy/globaldatasources/prom{path}", pod.url));
        let response = request
            .header("cookie", "jwtPayload=header.payload; jwtSignature=sig; jwtRefreshToken=refresh; other=1")
            .header("authorization", "Bearer perses-token")
            .header("x-custom", "kept")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let seen = upstream.last();
        assert_eq!(seen.target, path);
        for dropped in ["cookie", "authorization", "proxy-authorization", "origin", "referer"] {
            assert_eq!(seen.header(dropped), None, "{path}: {dropped}");
        }
        assert_eq!(seen.header("x-custom"), Some("kept"));
        assert_eq!(seen.header("x-team"), Some("a"), "headers of the datasource are set");
        assert_eq!(seen.header("host"), Some(upstream.address.to_string().as_str()), "Host is the datasource's");
    }
    assert_eq!(upstream.seen().len(), 3);
}

#[tokio::test]
async fn everything_else_passes_in_both_directions() {
    let upstream = Upstream::start(|_| {
        Box::pin(async {
            let answer =
                Response::builder().status(418).header("x-answer", "1").header("set-cookie", "jwtPayload=evil");
            answer.header("connection", "x-hop").header("x-hop", "1").body(Body::from("short and stout")).unwrap()
        })
    })
    .await;
    let pod = Pod::start().await;
    pod.datasource(&format!("{}/base/", upstream.url()), Value::Null).await;
    let request = pod.client.put(format!("{}/proxy/globaldatasources/prom/a%2Fb/%C3%A4?x=1&x=%202+3", pod.url));
    let response =
        request.header("x-forwarded-for", "1.2.3.4").header("te", "trailers").body("content").send().await.unwrap();

    let seen = upstream.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("PUT", "/base/a%2Fb/%C3%A4?x=1&x=%202+3"));
    assert_eq!(seen.body, "content");
    assert_eq!(seen.header("content-length"), Some("7"), "the framing is the client's");
    assert_eq!(seen.header("x-forwarded-for"), Some("1.2.3.4, 127.0.0.1"));
    assert_eq!(seen.header("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("te"), None);

    assert_eq!(response.status().as_u16(), 418);
    assert_eq!(response.headers()["x-answer"], "1");
    assert_eq!(response.headers()["content-security-policy"], "sandbox");
    for dropped in ["set-cookie", "x-hop"] {
        assert!(!response.headers().contains_key(dropped), "{dropped}");
    }
    assert_eq!(response.text().await.unwrap(), "short and stout");

    for (path, target) in [("", "/base/"), ("/", "/base/"), ("?q=1", "/base/?q=1")] {
        pod.get(&format!("/proxy/globaldatasources/prom{path}")).await;
        assert_eq!(upstream.last().target, target, "{path}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let upstream = Upstream::start(|_| {
        Box::pin(async {
            Response::builder().status(302).header("location", "http://127.0.0.1:1/").body(Body::empty()).unwrap()
        })
    })
    .await;
    let pod = Pod::start().await;
    pod.datasource(&upstream.url(), Value::Null).await;
    let response = pod.get("/proxy/globaldatasources/prom/graph").await;
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(response.headers()["location"], "http://127.0.0.1:1/");
}

#[tokio::test]
async fn no_path_leaves_the_base_path() {
    let upstream = Upstream::saying(SUCCESS).await;
    let pod = Pod::start().await;
    pod.datasource(&format!("{}/inside", upstream.url()), Value::Null).await;
    for path in [
        "/../outside",
        "/a/../../outside",
        "/%2e%2e/outside",
        "/..%2foutside",
        "/.%2E/outside",
        "/..%5coutside",
        "/..\\outside",
        "/..;/outside",
        "/%2e%2e%3b/outside",
        "/a%00",
        "/a%0d%0aX-Injected:%201",
    ] {
        let (status, body) = raw_get(&pod, &format!("/proxy/globaldatasources/prom{path}")).await;
        assert!(status == 400 || status == 404, "{path}: {status} {body}");
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(raw_get(&pod, "/proxy/globaldatasources/prom/a..b/...").await.0, 200);
    assert_eq!(upstream.last().target, "/inside/a..b/...");
}

#[tokio::test]
async fn allowed_endpoints_are_all_there_is() {
    let upstream = Upstream::saying(SUCCESS).await;
    let pod = Pod::start().await;
    let allowed = json!([{"endpointPattern": "^/api/v1/query$", "method": "POST"}, {"endpointPattern": "/labels", "method": "GET"}]);
    pod.datasource(&upstream.url(), json!({"allowedEndpoints": allowed})).await;
    let base = "/proxy/globaldatasources/prom";
    assert_eq!(pod.get(&format!("{base}/api/v1/labels")).await.status(), StatusCode::OK);
    assert_eq!(pod.post_form(&format!("{base}/api/v1/query"), &[("query", "up")]).await.status(), StatusCode::OK);
    let arrived = upstream.seen().len();
    let (status, text) = message(pod.get(&format!("{base}/api/v1/query?query=up")).await).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "the cached answer of POST is not for GET");
    assert!(text.starts_with("forbidden access: ") && text.contains("GET /api/v1/query"), "{text}");
    assert_eq!(pod.get(&format!("{base}/api/v1/admin/tsdb/delete_series")).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(pod.get(&format!("{base}/api/v1/admin%2Fapi%2Fv1%2Fquery")).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(upstream.seen().len(), arrived);
}

#[tokio::test]
async fn all_levels_and_what_is_missing() {
    let upstream = Upstream::saying(SUCCESS).await;
    let pod = Pod::start().await;
    let spec = prometheus(&upstream.url(), Value::Null);
    pod.apply("projects", "Project", "demo", &json!({})).await;
    pod.apply("projects/demo/datasources", "Datasource", "prom", &spec).await;
    let dashboard = json!({"duration": "1h", "datasources": {"Local": spec}, "panels": {}, "layouts": []});
    pod.apply("projects/demo/dashboards", "Dashboard", "board", &dashboard).await;
    for path in [
        "/proxy/projects/demo/datasources/prom/x",
        "/proxy/projects/DEMO/datasources/Prom/x",
        "/proxy/projects/demo/dashboards/board/datasources/Local/x",
    ] {
        assert_eq!(pod.get(path).await.status(), StatusCode::OK, "{path}");
    }
    for (path, expected) in [
        ("/proxy/globaldatasources/prom/x", (404, "document not found")),
        ("/proxy/projects/demo/datasources/none", (404, "document not found")),
        ("/proxy/projects/demo/dashboards/none/datasources/Local", (404, "document not found")),
        ("/proxy/projects/demo/dashboards/board/datasources/other", (404, "document not found")),
        ("/proxy/projects/none/datasources/prom", (400, "bad request: metadata.project \"none\" doesn't exist")),
    ] {
        let (status, text) = message(pod.get(path).await).await;
        assert_eq!((status.as_u16(), text.as_str()), expected, "{path}");
    }
    let put = pod.client.put(format!("{}/proxy/projects/none/datasources/prom", pod.url)).send().await.unwrap();
    assert_eq!(message(put).await.0, StatusCode::NOT_FOUND, "the project is checked for GET and POST only");
}

#[tokio::test]
async fn unusable_datasources_say_why_and_leak_nothing() {
    let pod = Pod::start().await;
    pod.apply(
        "globaldatasources",
        "GlobalDatasource",
        "direct",
        &json!({"default": false, "plugin":
        {"kind": "PrometheusDatasource", "spec": {"directUrl": "http://prometheus:9090"}}}),
    )
    .await;
    let (status, text) = message(pod.get("/proxy/globaldatasources/direct/api/v1/query?query=up").await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("direct") && text.contains("directUrl"), "{text}");

    // A port that nobody listens on.
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    pod.datasource(&format!("http://user:hunter2@127.0.0.1:{port}"), Value::Null).await;
    for path in ["/api/v1/labels", "/api/v1/query?query=up"] {
        let (status, text) = message(pod.get(&format!("/proxy/globaldatasources/prom{path}")).await).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
        assert!(text.contains("\"prom\"") && text.contains("refused") && !text.contains("hunter2"), "{text}");
    }

    pod.datasource("http://127.0.0.1:1", json!({"secret": "missing"})).await;
    assert_eq!(message(pod.get("/proxy/globaldatasources/prom").await).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn secrets_of_the_same_level_authenticate() {
    let upstream = Upstream::saying(SUCCESS).await;
    let pod = Pod::start().await;
    pod.apply(
        "globalsecrets",
        "GlobalSecret",
        "creds",
        &json!({"basicAuth": {"username": "me", "password": "open sesame"}}),
    )
    .await;
    pod.datasource(&upstream.url(), json!({"secret": "creds"})).await;
    let ask = || async {
        let request = pod.client.get(format!("{}/proxy/globaldatasources/prom/x", pod.url));
        let response = request.header("authorization", "Bearer perses").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        upstream.last().header("authorization").map(str::to_owned)
    };
    assert_eq!(ask().await.as_deref(), Some("Basic bWU6b3BlbiBzZXNhbWU="));

    // A changed secret counts from the next request on.
    pod.apply("globalsecrets", "GlobalSecret", "creds", &json!({"authorization": {"credentials": "token"}})).await;
    assert_eq!(ask().await.as_deref(), Some("Bearer token"));

    // A client of the API cannot have the server's files sent to a place of its choice.
    pod.apply(
        "globalsecrets",
        "GlobalSecret",
        "creds",
        &json!({"authorization": {"credentialsFile": "/etc/hostname"}}),
    )
    .await;
    let arrived = upstream.seen().len();
    let (status, text) = message(pod.get("/proxy/globaldatasources/prom/x").await).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(text.contains("datasource.secret_file_folders"), "{text}");
    assert_eq!(upstream.seen().len(), arrived);
}

#[tokio::test]
async fn connections_are_kept_and_changes_count_at_once() {
    let (one, other) = (Upstream::saying(SUCCESS).await, Upstream::saying(SUCCESS).await);
    let pod = Pod::start().await;
    pod.datasource(&one.url(), Value::Null).await;
    for at in 0..20 {
        pod.get(&format!("/proxy/globaldatasources/prom/{at}")).await.bytes().await.unwrap();
    }
    let connections: HashSet<_> = one.seen().iter().map(|seen| seen.peer).collect();
    assert_eq!((one.seen().len(), connections.len()), (20, 1), "one connection serves all");
    for round in 1..=5 {
        for upstream in [&other, &one] {
            pod.datasource(&upstream.url(), Value::Null).await;
            pod.get(&format!("/proxy/globaldatasources/prom/round-{round}")).await;
            assert_eq!(upstream.last().target, format!("/round-{round}"));
        }
    }
    assert_eq!((one.seen().len(), other.seen().len()), (25, 5));
}

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
    let pod = Pod::start_with(|config| config.query.timeout = ConfigDuration(Duration::from_millis(300))).await;
    pod.datasource(&upstream.url(), Value::Null).await;
    for path in ["/api/v1/labels", "/api/v1/query?query=up", "/api/v1/query?query=up&stats=all"] {
        left.store(false, Ordering::SeqCst);
        let (status, text) = message(pod.get(&format!("/proxy/globaldatasources/prom{path}")).await).await;
        assert_eq!(status, StatusCode::GATEWAY_TIMEOUT, "{path}");
        assert!(text.contains("query.timeout"), "{text}");
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
    let pod = Pod::start_with(|config| config.query.timeout = ConfigDuration(Duration::from_millis(300))).await;
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
    for (at, path) in ["/api/v1/labels", "/api/v1/query?query=up"].into_iter().enumerate() {
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
async fn tls_follows_the_secret() {
    let (upstream, ca) = Upstream::over_tls("prom.test", SUCCESS).await;
    let pod = Pod::start().await;
    let url = format!("https://{}", upstream.address);
    pod.datasource(&url, json!({"secret": "tls"})).await;
    for (tls, expected) in [
        (json!({"ca": ca, "serverName": "prom.test"}), StatusCode::OK),
        (json!({"ca": ca}), StatusCode::BAD_GATEWAY),
        (json!({"ca": ca, "serverName": "other.test"}), StatusCode::BAD_GATEWAY),
        (json!({"serverName": "prom.test"}), StatusCode::BAD_GATEWAY),
        (json!({"insecureSkipVerify": true}), StatusCode::OK),
        (json!({"ca": "no certificate"}), StatusCode::BAD_GATEWAY),
    ] {
        pod.apply("globalsecrets", "GlobalSecret", "tls", &json!({"tlsConfig": tls})).await;
        for path in ["/api/v1/labels", "/api/v1/query?query=up&time=1"] {
            let response = pod.get(&format!("/proxy/globaldatasources/prom{path}")).await;
            let status = response.status();
            assert_eq!(status, expected, "{tls}: {}", response.text().await.unwrap());
        }
    }
    assert_eq!(upstream.seen().len(), 4);
    for seen in upstream.seen() {
        assert_eq!(seen.header("host"), Some(upstream.address.to_string().as_str()), "the TLS name is not the host");
    }
}

#[tokio::test]
async fn only_signed_in_users_reach_datasources() {
    let upstream = Upstream::saying(SUCCESS).await;
    let pod = Pod::start_with(|config| {
        config.security.enable_auth = true;
        config.security.encryption_key = Some("0123456789abcdef0123456789abcdef".into());
        config.security.authentication.providers.enable_native = true;
    })
    .await;
    let response = pod.get("/proxy/globaldatasources/prom/api/v1/query?query=up").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn works_below_a_prefix() {
    let upstream = Upstream::saying(SUCCESS).await;
    let pod = Pod::start_with(|config| config.api_prefix = "/proxy/perses".to_owned()).await;
    let spec = prometheus(&upstream.url(), Value::Null);
    let body = json!({"kind": "GlobalDatasource", "metadata": {"name": "prom"}, "spec": spec});
    let created =
        pod.client.post(format!("{}/proxy/perses/api/v1/globaldatasources", pod.url)).json(&body).send().await;
    assert_eq!(created.unwrap().status(), StatusCode::OK);
    let response = pod.get("/proxy/perses/proxy/globaldatasources/prom/api/v1/labels?a=b").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(upstream.last().target, "/api/v1/labels?a=b");
}

/// Answers the first request of each connection and closes it when the second has arrived, unanswered: what a client sees
/// whose kept connection was closed just as it was taken. Counts requests.
async fn closes_on_the_second() -> (String, Arc<AtomicU64>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicU64::new(0));
    let counter = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counter = counter.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                if stream.read(&mut buffer).await.unwrap() > 0 {
                    counter.fetch_add(1, Ordering::SeqCst);
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
                    let answer = format!("{head}content-length: {}\r\n\r\n{SUCCESS}", SUCCESS.len());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                if stream.read(&mut buffer).await.unwrap() > 0 {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    (url, asked)
}

#[tokio::test]
async fn a_closed_connection_is_no_error_of_what_only_reads() {
    let (url, asked) = closes_on_the_second().await;
    let pod = Pod::start().await;
    pod.datasource(&url, Value::Null).await;
    let base = "/proxy/globaldatasources/prom";
    for at in 0..6 {
        let response = match at % 2 {
            0 => pod.get(&format!("{base}/api/v1/labels?{at}")).await,
            _ => pod.post_form(&format!("{base}/api/v1/query"), &[("query", "up"), ("time", &at.to_string())]).await,
        };
        assert_eq!(response.status(), StatusCode::OK, "{at}");
        response.bytes().await.unwrap();
    }
    let before = asked.load(Ordering::SeqCst);
    // What may have had an effect is not sent twice.
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(pod.client.post(format!("{}{base}/api/v1/write", pod.url)).send().await.unwrap().status());
    }
    assert!(statuses.contains(&StatusCode::BAD_GATEWAY), "{statuses:?}");
    assert_eq!(asked.load(Ordering::SeqCst), before + 2);
}
