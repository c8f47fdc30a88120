//! What passes the proxy and what does not, and over which connections.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::response::Response;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{SUCCESS, message};
use crate::pod::{Pod, prometheus};
use crate::upstream::Upstream;

#[tokio::test]
async fn credentials_of_this_server_never_leave_it() {
    let upstream = Upstream::saying(SUCCESS).await;
    let pod = Pod::start().await;
    pod.datasource(&upstream.url(), json!({"headers": {"X-Team": "a", "Authorization": "Bearer ignored"}})).await;
    for path in ["/api/v1/rules", "/api/v1/query?query=up&time=1", "/api/v1/query?query=up&stats=all"] {
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
        // Queries are told how long they may take.
        assert_eq!(seen.target.split("&timeout=").next(), Some(path));
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
            let answer = answer.header("access-control-allow-origin", "*").header("www-authenticate", "Basic");
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
    for dropped in ["set-cookie", "x-hop", "access-control-allow-origin", "www-authenticate"] {
        assert!(!response.headers().contains_key(dropped), "{dropped}");
    }
    assert_eq!(response.text().await.unwrap(), "short and stout");

    for (path, target) in [("", "/base/"), ("/", "/base/"), ("?q=1", "/base/?q=1")] {
        pod.get(&format!("/proxy/globaldatasources/prom{path}")).await;
        assert_eq!(upstream.last().target, target, "{path}");
    }
}

#[tokio::test]
async fn redirects_are_neither_followed_nor_handed_on() {
    let upstream = Upstream::start(|seen| {
        Box::pin(async move {
            let (status, location) = seen.header("x-answer").unwrap().split_once(' ').unwrap();
            Response::builder().status(status).header("location", location).body(Body::empty()).unwrap()
        })
    })
    .await;
    let pod = Pod::start().await;
    pod.datasource(&upstream.url(), Value::Null).await;
    let ask = |answer: &str| {
        let request = pod.client.get(format!("{}/proxy/globaldatasources/prom/graph", pod.url));
        request.header("x-answer", answer).send()
    };
    for (answer, place) in [
        ("302 http://me:hunter2@127.0.0.1:1/login?token=hunter2", "http://127.0.0.1:1/login,"),
        ("301 https://prom/", "https://prom/,"),
        // Followed by a browser these would be requests of the user to this server.
        ("307 /api/v1/projects", "/api/v1/projects,"),
        ("308 //perses/api/auth/logout", "http://perses/api/auth/logout,"),
        ("303 http://[", "another place,"),
    ] {
        let response = ask(answer).await.unwrap();
        assert!(!response.headers().contains_key("location"), "{answer}");
        let (status, text) = message(response).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{answer}");
        assert!(text.contains(place) && text.contains("\"prom\"") && !text.contains("hunter2"), "{answer}: {text}");
    }
    assert_eq!(upstream.seen().len(), 5);
    let created = ask("201 /new").await.unwrap();
    assert_eq!((created.status(), &created.headers()["location"]), (StatusCode::CREATED, &"/new".parse().unwrap()));
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
            0 => pod.get(&format!("{base}/api/v1/rules?{at}")).await,
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
