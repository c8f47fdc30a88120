//! `limits_file`: limits that change while the server runs.

use serde_json::{Value, json};

use crate::http::{Reply, Server};
use crate::pod::until;

fn dashboard(query: &str) -> Value {
    let query = json!({"kind": "TimeSeriesQuery", "spec": {"plugin": {"kind": "PrometheusTimeSeriesQuery", "spec": {"query": query}}}});
    json!({"kind": "Dashboard", "metadata": {"name": "d", "project": "p"}, "spec": {"duration": "1h", "layouts": [], "panels": {
        "p": {"kind": "Panel", "spec": {"plugin": {"kind": "TimeSeriesChart", "spec": {}}, "queries": [query]}}}}})
}

async fn validate(server: &Server) -> Reply {
    server.send("POST", "/api/validate/dashboards", &dashboard("sum(rate(requests_total[5m]))")).await
}

fn metric(server: &Server, line: &str) -> Option<String> {
    let text = server.state.metrics.encode().unwrap();
    text.lines().find_map(|found| Some(found.strip_prefix(line)?.strip_prefix(' ')?.to_owned()))
}

/// The series of limits in force.
fn in_force(server: &Server) -> Vec<String> {
    let text = server.state.metrics.encode().unwrap();
    text.lines().filter(|line| line.starts_with("perses_limits_applied{")).map(str::to_owned).collect()
}

fn applied(text: &str) -> Vec<String> {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(text).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    vec![format!("perses_limits_applied{{sha256=\"{digest}\"}} 1")]
}

#[tokio::test]
async fn limits_are_read_again_while_the_server_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("limits.yaml");
    let strict = "validation:\n  mode: enforce\n  query_limits: {max_query_length: 5}\n";
    std::fs::write(&file, strict).unwrap();
    let server = Server::with_auth(json!({"limits_file": file, "validation": {"mode": "off"},
        "security": {"authentication": {"rate_limit": {"per_login": 0, "per_address": 0}}}}))
    .await;
    // From the first request on.
    validate(&server).await.assert_error_with(400, "at most 5 are allowed");
    assert_eq!(in_force(&server), applied(strict));
    for _ in 0..5 {
        server.login("admin", "wrong").await.assert_error_with(400, "wrong login");
    }

    let other =
        "validation: {query_limits: {max_query_length: 5}}\nsecurity: {authentication: {rate_limit: {per_login: 1}}}\n";
    std::fs::write(&file, other).unwrap();
    until("the other limits", || async { in_force(&server) == applied(other) }).await;
    let reply = validate(&server).await;
    assert_eq!((reply.status.as_u16(), reply.headers.get("warning")), (200, None), "the configured mode is off");
    server.login("admin", "wrong").await.assert_error_with(400, "wrong login");
    server.login("admin", "wrong").await.assert_error_with(429, "too many failed sign-ins");

    // What cannot be used is said, and nothing changes.
    std::fs::write(&file, "validation: {mode: sometimes}").unwrap();
    until("the refusal", || async { metric(&server, "perses_limits_rejected").as_deref() == Some("1") }).await;
    assert_eq!(in_force(&server), applied(other));
    std::fs::write(&file, strict).unwrap();
    until("the first limits", || async { in_force(&server) == applied(strict) }).await;
    assert_eq!(metric(&server, "perses_limits_rejected").as_deref(), Some("0"));
    validate(&server).await.assert_error_with(400, "at most 5 are allowed");
    server.login("admin", "secret").await.ok();
}

#[tokio::test]
async fn a_server_does_not_start_with_limits_that_it_cannot_use() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("limits.yaml");
    let start = |file: &std::path::Path| {
        let config = json!({"limits_file": file, "database": {"file": {"folder": folder.path().join("db")}}});
        let config = serde_json::from_value(config).unwrap();
        perses_api_server::state::AppState::build(config, None).map(drop).unwrap_err()
    };
    assert!(start(&file).contains("cannot read limits_file"));
    std::fs::write(&file, "limits: {}").unwrap();
    assert!(start(&file).contains("it may have validation, security.authentication.rate_limit, query.limits"));
}
