//! Provisioning folders, applied to a real store through the whole service.

use std::fs;
use std::path::Path;

use perses_api_server::config;
use perses_api_server::service::provisioning::{Provisioner, Report};
use serde_json::{Value, json};

use crate::http::Server;

fn provisioner(server: &Server, folder: &Path) -> Provisioner {
    let config: config::Provisioning = serde_json::from_value(json!({"folders": [folder]})).unwrap();
    Provisioner::new(server.state.resources.clone(), server.state.metrics.clone(), &config)
}

fn counts(report: &Report) -> (usize, usize, usize, usize) {
    (report.created, report.updated, report.unchanged, report.errors.len())
}

fn secret(password: &str) -> Value {
    json!([{"kind": "GlobalSecret", "metadata": {"name": "prometheus"}, "spec": {"basicAuth": {"username": "u", "password": password}}}])
}

fn datasource(url: &str) -> Value {
    json!([{"kind": "GlobalDatasource", "metadata": {"name": "prometheus"}, "spec": {"default": true, "plugin": {
        "kind": "PrometheusDatasource", "spec": {"proxy": {"kind": "HTTPProxy", "spec": {"url": url, "secret": "prometheus"}}}}}}])
}

const DASHBOARDS: &str = "\
kind: Dashboard
metadata: {name: d, project: p, tags: [a, b]}
spec:
  variables:
    - {kind: ListVariable, spec: {name: v, defaultValue: [x], plugin: {kind: StaticListVariable, spec: {values: [x]}}}}
---
kind: Project
metadata: {name: P}
";

async fn version(server: &Server, path: &str) -> u64 {
    server.get(path).await.ok()["metadata"]["version"].as_u64().unwrap()
}

#[tokio::test]
async fn writes_what_differs_and_nothing_else() {
    let server = Server::open().await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    write("globalsecrets.json", secret("sesame").to_string());
    write("globaldatasources.json", datasource("http://prometheus:9090").to_string());
    write("dashboards.yaml", DASHBOARDS.to_owned());
    let provisioner = provisioner(&server, folder.path());
    let first = provisioner.round().await;
    assert_eq!(counts(&first), (4, 0, 0, 0), "{first:?}");
    // Upstream's own defaults, encrypted secrets and the order of tags are no difference.
    let second = provisioner.round().await;
    assert_eq!(counts(&second), (0, 0, 4, 0), "{second:?}");
    write("dashboards.yaml", DASHBOARDS.replace("[a, b]", "[b, a]"));
    assert_eq!(counts(&provisioner.round().await), (0, 0, 4, 0));
    assert_eq!(version(&server, "/api/v1/projects/p/dashboards/d").await, 0);
    assert_eq!(server.get("/api/v1/projects/p/dashboards/d").await.ok()["spec"]["duration"], "1h");

    write("globalsecrets.json", secret("other").to_string());
    write("globaldatasources.json", datasource("http://elsewhere:9090").to_string());
    assert_eq!(counts(&provisioner.round().await), (0, 2, 2, 0));
    assert_eq!(version(&server, "/api/v1/globalsecrets/prometheus").await, 1);

    // What was changed by hand is set right again; what is not in the folders stays.
    let mut edited = server.get("/api/v1/globaldatasources/prometheus").await.ok();
    edited["spec"]["default"] = json!(false);
    server.send("PUT", "/api/v1/globaldatasources/prometheus", &edited).await.ok();
    server.project("mine").await;
    assert_eq!(counts(&provisioner.round().await), (0, 1, 3, 0));
    assert_eq!(version(&server, "/api/v1/projects/mine").await, 0);
    fs::remove_file(folder.path().join("dashboards.yaml")).unwrap();
    assert_eq!(counts(&provisioner.round().await), (0, 0, 2, 0));
    assert_eq!(version(&server, "/api/v1/projects/p/dashboards/d").await, 0, "nothing is deleted");
    let left = provisioner.round().await.left;
    assert_eq!(left, ["Dashboard p/d", "Project p"], "but reported");
    assert!(server.get("/metrics").await.body.contains("\nperses_provisioning_left 2\n"));
}

#[tokio::test]
async fn what_left_the_folders_is_deleted_when_that_is_wanted_and_nothing_else() {
    let server = Server::open().await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
    let config: config::Provisioning =
        serde_json::from_value(json!({"folders": [folder.path()], "prune": true})).unwrap();
    let provisioner = Provisioner::new(server.state.resources.clone(), server.state.metrics.clone(), &config);
    write("secret.json", secret("sesame").to_string());
    write("dashboards.yaml", DASHBOARDS.to_owned());
    provisioner.round().await;
    let mine = json!({"kind": "Dashboard", "metadata": {"name": "mine"}, "spec": {"panels": {}, "layouts": []}});
    server.send("POST", "/api/v1/projects/p/dashboards", &mine).await.ok();

    // As long as anything in the folders cannot be read, nothing is known to be gone.
    fs::remove_file(folder.path().join("dashboards.yaml")).unwrap();
    write("broken.json", "{".to_owned());
    let report = provisioner.round().await;
    assert_eq!((report.pruned, report.left.len()), (0, 2), "{report:?}");
    fs::remove_file(folder.path().join("broken.json")).unwrap();
    let report = provisioner.round().await;
    assert_eq!((report.pruned, report.left.len()), (1, 2), "{report:?}");
    assert_eq!(server.get("/api/v1/projects/p/dashboards/d").await.status.as_u16(), 404);
    server.get("/api/v1/projects/p/dashboards/mine").await.ok();
    server.get("/api/v1/globalsecrets/prometheus").await.ok();
    assert!(server.get("/metrics").await.body.contains("\nperses_provisioning_left 1\n"), "the project is in use");
    server.delete("/api/v1/projects/p/dashboards/mine").await;
    assert_eq!(provisioner.round().await.pruned, 1);
    assert_eq!(server.get("/api/v1/projects/p").await.status.as_u16(), 404);

    // Where a document comes from is not forgotten when the server is started again.
    let text = fs::read_to_string(server.folder.path().join("db/globalsecrets/prometheus.json")).unwrap();
    assert!(text.contains(r#""metadata":{"origin":"provisioned","#), "{text}");
    assert!(!server.get("/api/v1/globalsecrets/prometheus").await.body.contains("origin"));
}

#[tokio::test]
async fn a_bad_document_is_reported_and_does_not_hold_up_the_others() {
    let server = Server::open().await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("a.json", "{");
    write(
        "b.json",
        r#"[{"kind":"Nothing","metadata":{"name":"x"},"spec":{}},
        {"kind":"Dashboard","metadata":{"name":"d","project":"absent"},"spec":{}},
        {"kind":"GlobalSecret","metadata":{"name":"s"},"spec":{"basicAuth":{"username":"u","password":"hunter2","passwordFile":"f"}}},
        {"kind":"Project","metadata":{"name":"good"},"spec":{}}]"#,
    );
    let provisioner = provisioner(&server, folder.path());
    let report = provisioner.round().await;
    assert_eq!(counts(&report), (1, 0, 0, 4), "{report:?}");
    let text = report.errors.join("\n");
    for part in [
        "a.json: EOF",
        "b.json, resource 1 (Nothing x)",
        "metadata.project \"absent\" doesn't exist",
        "resource 3 (GlobalSecret s)",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
    assert!(server.get("/metrics").await.body.contains("\nperses_provisioning_errors 4\n"));
    server.get("/api/v1/projects/good").await.ok();
    write("a.json", "[]");
    write("b.json", "[]");
    assert_eq!(counts(&provisioner.round().await), (0, 0, 0, 0));
    assert!(server.get("/metrics").await.body.contains("\nperses_provisioning_errors 0\n"));
}

#[tokio::test]
async fn several_pods_at_once_end_with_one_document_each() {
    let server = Server::open().await;
    let folder = tempfile::tempdir().unwrap();
    let projects: Vec<Value> = (0..20)
        .map(|n| json!({"kind": "Project", "metadata": {"name": format!("p{n}")}, "spec": {"display": {"name": "x"}}}))
        .collect();
    fs::write(folder.path().join("p.json"), Value::from(projects).to_string()).unwrap();
    let pods =
        [provisioner(&server, folder.path()), provisioner(&server, folder.path()), provisioner(&server, folder.path())];
    let reports = futures::future::join_all(pods.iter().map(Provisioner::round)).await;
    assert!(reports.iter().all(|report| report.errors.is_empty()), "{reports:?}");
    assert_eq!(reports.iter().map(|report| report.created).sum::<usize>(), 20);
    assert_eq!(
        reports.iter().map(|report| report.updated).sum::<usize>(),
        0,
        "the loser compares and finds nothing to do"
    );
    assert_eq!(server.get("/api/v1/projects").await.ok().as_array().map(Vec::len), Some(20));
}

#[tokio::test]
async fn a_running_server_applies_at_start_and_when_a_file_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.yaml");
    fs::write(&file, "kind: Project\nmetadata: {name: one}\n").unwrap();
    let server = Server::start(json!({"provisioning": {"folders": [folder.path()], "interval": "1h"}})).await;
    appears(&server, "/api/v1/projects/one").await;
    fs::write(&file, "kind: Project\nmetadata: {name: two}\n").unwrap();
    appears(&server, "/api/v1/projects/two").await;
}

async fn appears(server: &Server, path: &str) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while server.get(path).await.status.as_u16() != 200 {
        assert!(tokio::time::Instant::now() < deadline, "{path} does not appear");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
