//! Which datasource and which path of it, and what is said when there is none.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{SUCCESS, message, raw_get};
use crate::pod::{Pod, prometheus};
use crate::upstream::Upstream;

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

    let sql = json!({"default": false, "plugin": {"kind": "PostgresDatasource", "spec": {"proxy":
        {"kind": "SQLProxy", "spec": {"driver": "postgres", "host": "db:5432", "database": "d"}}}}});
    pod.apply("globaldatasources", "GlobalDatasource", "sql", &sql).await;
    let posted =
        pod.client.post(format!("{}/proxy/globaldatasources/sql", pod.url)).json(&json!({"query": "select 1"}));
    let (status, text) = message(posted.send().await.unwrap()).await;
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
    assert!(text.contains("SQLProxy"), "{text}");

    // A port that nobody listens on.
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    pod.datasource(&format!("http://user:hunter2@127.0.0.1:{port}"), Value::Null).await;
    for path in ["/api/v1/rules", "/api/v1/query?query=up"] {
        let (status, text) = message(pod.get(&format!("/proxy/globaldatasources/prom{path}")).await).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
        assert!(text.contains("\"prom\"") && text.contains("refused") && !text.contains("hunter2"), "{text}");
    }

    pod.datasource("http://127.0.0.1:1", json!({"secret": "missing"})).await;
    assert_eq!(message(pod.get("/proxy/globaldatasources/prom").await).await.0, StatusCode::NOT_FOUND);
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
