//! Datasources that are not saved: the body carries the spec.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use super::{SUCCESS, message};
use crate::pod::{Pod, prometheus};
use crate::upstream::Upstream;

const GLOBAL: &str = "/proxy/unsaved/globaldatasources";

async fn post(pod: &Pod, path: &str, body: &Value) -> Response {
    pod.client.post(format!("{}{path}", pod.url)).json(body).send().await.unwrap()
}

fn loki(url: &str) -> Value {
    json!({"plugin": {"kind": "LokiDatasource", "spec": {"proxy": {"kind": "HTTPProxy", "spec": {"url": url}}}}})
}

#[tokio::test]
async fn method_and_body_are_those_inside() {
    let upstream = Upstream::saying(SUCCESS).await;
    let pod = Pod::start().await;
    let request = pod.client.post(format!("{}{GLOBAL}/api/v1/labels?a=b%20c", pod.url));
    let spec = prometheus(&format!("{}/base", upstream.url()), json!({"headers": {"X-Team": "a"}}));
    let request = request.json(&json!({"method": "GET", "spec": spec}));
    let request =
        request.header("cookie", "jwtPayload=a").header("authorization", "Bearer perses").header("x-own", "1");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-security-policy"], "sandbox");
    assert_eq!(response.text().await.unwrap(), SUCCESS);
    let seen = upstream.last();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/base/api/v1/labels?a=b%20c"));
    assert!(seen.body.is_empty());
    assert_eq!((seen.header("x-team"), seen.header("x-own")), (Some("a"), Some("1")));
    for dropped in ["cookie", "authorization", "content-type", "content-length"] {
        assert_eq!(seen.header(dropped), None, "{dropped}");
    }

    let form = STANDARD.encode("query=up&time=1");
    for (spec, kind) in [(spec, "application/x-www-form-urlencoded"), (loki(&upstream.url()), "application/json")] {
        for method in ["POST", "PUT", "DELETE"] {
            let body = json!({"method": method, "body": form, "spec": spec});
            assert_eq!(post(&pod, &format!("{GLOBAL}/api/v1/query"), &body).await.status(), StatusCode::OK);
            let seen = upstream.last();
            assert_eq!((seen.method.as_str(), seen.body.as_ref()), (method, b"query=up&time=1".as_slice()));
            assert_eq!((seen.header("content-type"), seen.header("content-length")), (Some(kind), Some("15")));
        }
    }
    // Each is asked anew: nothing of it is kept.
    let before = upstream.seen().len();
    let body = json!({"method": "GET", "spec": prometheus(&upstream.url(), Value::Null)});
    for _ in 0..3 {
        let response = post(&pod, &format!("{GLOBAL}/api/v1/query?query=up&time=1"), &body).await;
        assert!(!response.headers().contains_key("cache-status"));
        response.bytes().await.unwrap();
    }
    assert_eq!(upstream.seen().len(), before + 3);
    let peers: std::collections::HashSet<_> = upstream.seen()[before..].iter().map(|seen| seen.peer).collect();
    assert_eq!(peers.len(), 1, "but the connection is");
}

#[tokio::test]
async fn every_level_with_its_secrets() {
    let upstream = Upstream::saying(SUCCESS).await;
    let pod = Pod::start().await;
    pod.apply("projects", "Project", "demo", &json!({})).await;
    for (collection, kind, user) in
        [("globalsecrets", "GlobalSecret", "all"), ("projects/demo/secrets", "Secret", "team")]
    {
        pod.apply(collection, kind, "s", &json!({"basicAuth": {"username": user, "password": "p"}})).await;
    }
    let body = json!({"method": "GET", "spec": prometheus(&upstream.url(), json!({"secret": "s"}))});
    for (path, user) in [
        ("/proxy/unsaved/globaldatasources/x", "all:p"),
        ("/proxy/unsaved/projects/demo/datasources/x", "team:p"),
        ("/proxy/unsaved/projects/DEMO/datasources", "team:p"),
        ("/proxy/unsaved/projects/demo/dashboards/not-saved-either/datasources/x", "team:p"),
    ] {
        assert_eq!(post(&pod, path, &body).await.status(), StatusCode::OK, "{path}");
        let expected = format!("Basic {}", STANDARD.encode(user));
        assert_eq!(upstream.last().header("authorization"), Some(expected.as_str()), "{path}");
    }
    // A changed secret counts at once.
    pod.apply("globalsecrets", "GlobalSecret", "s", &json!({"authorization": {"credentials": "t"}})).await;
    post(&pod, GLOBAL, &body).await;
    assert_eq!(upstream.last().header("authorization"), Some("Bearer t"));

    let arrived = upstream.seen().len();
    let missing = json!({"method": "GET", "spec": prometheus(&upstream.url(), json!({"secret": "none"}))});
    for (path, body, expected) in [
        (GLOBAL, &missing, (404, "document not found")),
        (
            "/proxy/unsaved/projects/none/datasources/x",
            &body,
            (400, "bad request: metadata.project \"none\" doesn't exist"),
        ),
        ("/proxy/unsaved/projects/a%2fb/datasources/x", &body, (404, "document not found")),
        ("/proxy/unsaved/other/x", &body, (404, "Not Found")),
    ] {
        let (status, text) = message(post(&pod, path, body).await).await;
        assert_eq!((status.as_u16(), text.as_str()), expected, "{path}");
    }
    assert_eq!(upstream.seen().len(), arrived);
}

#[tokio::test]
async fn wrong_bodies_say_what_is_wrong_and_leak_nothing() {
    let upstream = Upstream::saying(SUCCESS).await;
    let pod = Pod::start_with(|config| config.server.max_body_bytes = 4000).await;
    let spec = |proxy: Value| json!({"plugin": {"kind": "X", "spec": {"proxy": proxy}}});
    let good = prometheus(&upstream.url(), Value::Null);
    let limited =
        prometheus(&upstream.url(), json!({"allowedEndpoints": [{"endpointPattern": "/labels", "method": "GET"}]}));
    for (body, status, part) in [
        (json!({"spec": good}), 400, "missing field 'method'"),
        (json!({"method": "TRACE", "spec": good}), 400, "invalid method \"TRACE\""),
        (json!({"method": "GET", "body": "%", "spec": good}), 400, "base64"),
        (json!({"method": "GET"}), 400, "HTTPProxy"),
        (json!({"method": "GET", "spec": {"plugin": {"spec": {"directUrl": "http://p"}}}}), 400, "directUrl"),
        (
            json!({"method": "GET", "spec": spec(json!({"kind": "HTTPProxy", "spec": {"url": "http://u:hunter2@"}}))}),
            400,
            "url",
        ),
        (json!({"method": "GET", "spec": spec(json!({"kind": "HTTPProxy", "spec": {"url": 5}}))}), 400, "spec"),
        (json!({"method": "POST", "spec": spec(json!({"kind": "SQLProxy", "spec": {}}))}), 501, "SQLProxy"),
        (json!({"method": "GET", "spec": limited}), 403, "allowedEndpoints"),
        (json!({"method": "GET", "body": "A".repeat(5000), "spec": good}), 413, "4000"),
        (json!(5), 400, "line 1"),
    ] {
        let (found, text) = message(post(&pod, &format!("{GLOBAL}/api/v1/query?query=up"), &body).await).await;
        assert_eq!(found.as_u16(), status, "{body}: {text}");
        assert!(text.contains(part) && !text.contains("hunter2"), "{body}: {text}");
    }
    let good = json!({"method": "GET", "spec": good});
    let (status, _) = message(post(&pod, &format!("{GLOBAL}/..%2fx"), &good).await).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let plain = pod.client.post(format!("{}{GLOBAL}", pod.url)).body(good.to_string()).send().await.unwrap();
    let (status, text) = message(plain).await;
    assert_eq!((status.as_u16(), text.as_str()), (400, "bad request: code=415, message=Unsupported Media Type"));
    assert_eq!(pod.get(&format!("{GLOBAL}/x")).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn switches_and_sign_in_hold_here_too() {
    let pod = Pod::start_with(|config| {
        config.datasource.global.disable = true;
        config.datasource.disable_local = true;
        config.security.enable_auth = true;
        config.security.encryption_key = Some("0123456789abcdef0123456789abcdef".into());
        config.security.authentication.providers.enable_native = true;
    })
    .await;
    let body = json!({"method": "GET", "spec": prometheus("http://127.0.0.1:1", Value::Null)});
    for (path, status) in [
        (GLOBAL, 404),
        ("/proxy/unsaved/projects/p/dashboards/d/datasources/x", 404),
        ("/proxy/unsaved/projects/p/datasources/x", 401),
    ] {
        assert_eq!(post(&pod, path, &body).await.status().as_u16(), status, "{path}");
    }
}
