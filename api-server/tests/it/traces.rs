//! Traces of the server as a process, sent to a small OTLP receiver; and the log of slow operations.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Response;
use axum::routing::post;
use e2e::services::{Port, shared};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use perses_api_server::config;
use prost::Message as _;
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::backends;
use crate::pod::{prometheus, until};
use crate::upstream::Upstream;

/// What arrived, with the name of the service that sent it.
type Received = Arc<Mutex<Vec<(String, Span)>>>;

/// A receiver of OTLP over HTTP with protobuf; its address and what arrived.
async fn receiver() -> (String, Received) {
    let received = Received::default();
    let log = received.clone();
    let router = Router::new().route(
        "/v1/traces",
        post(move |body: Bytes| async move {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            for resource in request.resource_spans {
                let attributes = resource.resource.unwrap().attributes;
                let name = attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
                let Some(AnyValue::StringValue(name)) = name.value.clone().unwrap().value else { panic!("{name:?}") };
                for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                    log.lock().push((name.clone(), span));
                }
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, received)
}

/// The server as a process.
struct Process {
    url: String,
    folder: TempDir,
    child: Child,
    client: Client,
    _port: Port,
}

impl Process {
    async fn start(database: &config::Postgres, more: Value, variables: &BTreeMap<&str, String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut postgres = serde_json::to_value(database).unwrap();
        postgres["password"] = json!(database.password.as_ref().unwrap().expose());
        if let Value::Object(more) = &more["postgres"] {
            postgres.as_object_mut().unwrap().extend(more.clone());
        }
        let mut config = json!({"database": {"postgres": postgres}});
        if !more["cache"].is_null() {
            config["cache"] = more["cache"].clone();
        }
        std::fs::write(folder.path().join("config.yaml"), config.to_string()).unwrap();
        let port = Port::reserve().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_perses-api-server"))
            .arg("--config")
            .arg(folder.path().join("config.yaml"))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
            .args(["--log.format=json", "--log.level=warn"])
            .envs(variables)
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let url = format!("http://127.0.0.1:{}", port.number());
        let client = crate::http::client().build().unwrap();
        let process = Self { url, folder, child, client, _port: port };
        let is_ready = async || {
            process.client.get(format!("{}/readyz", process.url)).send().await.is_ok_and(|r| r.status() == 200)
        };
        until("the server is ready", is_ready).await;
        process
    }

    async fn post(&self, path: &str, body: &Value) {
        let reply = self.client.post(format!("{}{path}", self.url)).json(body).send().await.unwrap();
        assert_eq!(reply.status(), 200, "{path}: {}", reply.text().await.unwrap());
    }

    async fn get(&self, path: &str, traceparent: &str) -> u16 {
        let request = self.client.get(format!("{}{path}", self.url)).header("traceparent", traceparent);
        request.send().await.unwrap().status().as_u16()
    }

    /// Stops it gracefully, which sends what is left; returns its log.
    async fn stop(mut self) -> Vec<Value> {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").arg(&id).status().await.unwrap().success());
        self.child.wait().await.unwrap();
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

#[tokio::test]
async fn one_trace_spans_the_client_the_server_its_stores_and_the_datasource() {
    let (collector, received) = receiver().await;
    let datasource = Upstream::start(|_| {
        Box::pin(async {
            let body = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
            Response::builder().header("content-type", "application/json").body(Body::from(body)).unwrap()
        })
    })
    .await;
    let database = backends::migrated(shared::postgres().await.unwrap()).await;
    let redis = shared::redis().await.unwrap();
    let mut cache = json!({"redis": {"addr": redis.address()}});
    if let Some((user, password)) = redis.credentials() {
        cache["redis"]["username"] = json!(user);
        cache["redis"]["password"] = json!(password);
    }
    let variables = BTreeMap::from([
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
        ("OTEL_SERVICE_NAME", "perses-under-test".to_owned()),
    ]);
    let server = Process::start(&database, json!({"cache": cache}), &variables).await;
    server.post("/api/v1/projects", &json!({"kind": "Project", "metadata": {"name": "p"}})).await;
    let spec = prometheus(&format!("http://{}", datasource.address), json!({}));
    server
        .post(
            "/api/v1/globaldatasources",
            &json!({"kind": "GlobalDatasource", "metadata": {"name": "prom"}, "spec": spec}),
        )
        .await;
    let parent = format!("00-{TRACE}-{CALLER}-01");
    assert_eq!(server.get("/api/v1/projects/p/dashboards/none", &parent).await, 404);
    assert_eq!(server.get("/proxy/globaldatasources/prom/api/v1/query?query=up&time=1700000000", &parent).await, 200);
    let unsampled = format!("00-{}-{CALLER}-00", "1".repeat(32));
    assert_eq!(server.get("/api/v1/projects/p", &unsampled).await, 200);
    server.stop().await;

    let received = received.lock();
    assert!(received.iter().all(|(service, _)| service == "perses-under-test"));
    let spans: Vec<&Span> = received.iter().map(|(_, span)| span).filter(|span| hex(&span.trace_id) == TRACE).collect();
    let named =
        |name: &str| *spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:#?}"));
    let read = named("GET /api/v1/projects/{project}/dashboards/{name}");
    assert_eq!(hex(&read.parent_span_id), CALLER);
    assert_eq!(attribute(read, "http.response.status_code"), "404");
    assert_eq!(attribute(read, "url.path"), "/api/v1/projects/p/dashboards/none");
    for (name, system) in [("get", "postgresql"), ("GET", "redis")] {
        let span = named(name);
        assert_eq!(span.parent_span_id, read.span_id, "{name}");
        assert_eq!(attribute(span, "db.system.name"), system);
    }
    let query = named("GET /proxy/globaldatasources/{name}/{*path}");
    let upstream = named("GET prom");
    assert_eq!(upstream.parent_span_id, query.span_id);
    assert_eq!(attribute(upstream, "http.response.status_code"), "200");
    let sent = datasource.seen().pop().unwrap().header("traceparent").unwrap().to_owned();
    assert_eq!(sent, format!("00-{TRACE}-{}-01", hex(&upstream.span_id)), "the datasource goes on with our span");
    assert!(!received.iter().any(|(_, span)| hex(&span.trace_id) == "1".repeat(32)), "the caller does not sample");
    assert!(!received.iter().any(|(_, span)| span.name == "tail"), "what the server does by itself is not traced");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(AnyValue::StringValue(text)) => text,
        Some(AnyValue::IntValue(number)) => number.to_string(),
        other => panic!("{key}: {other:?} in {span:#?}"),
    }
}

#[tokio::test]
async fn slow_operations_are_logged_by_name_and_audit_lines_at_every_level() {
    let postgres = shared::postgres().await.unwrap();
    let database = backends::migrated(postgres).await;
    let more = json!({"postgres": {"slow_query_threshold": "200ms"}});
    let server = Process::start(&database, more, &BTreeMap::new()).await;
    // Somebody else holds what the write needs, for a while.
    let sql = "BEGIN; LOCK TABLE perses.resource IN EXCLUSIVE MODE; SELECT pg_sleep(1); COMMIT";
    let name = database.dbname.clone();
    let holder = tokio::spawn(async move { postgres.sql(&name, sql).await.unwrap() });
    let held = "SELECT count(*) FROM pg_locks WHERE mode = 'ExclusiveLock' AND granted AND relation = 'perses.resource'::regclass";
    until("the table is locked", async || postgres.sql(&database.dbname, held).await.unwrap().trim() == "1").await;
    server.post("/api/v1/projects", &json!({"kind": "Project", "metadata": {"name": "hidden-value"}})).await;
    holder.await.unwrap();
    let text = server.client.get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("perses_db_slow_queries_total{operation=\"create\"} 1"), "{text}");
    let log = server.stop().await;
    let of = |target: &str| log.iter().filter(|line| line["target"] == target).collect::<Vec<_>>();
    let slow = of("slow_query");
    let create = slow.iter().find(|line| line["fields"]["operation"] == "create").unwrap();
    assert!(create["fields"]["ms"].as_u64().unwrap() >= 200, "{create}");
    assert!(!create.to_string().contains("hidden-value"), "{create}");
    let audit = of("audit");
    assert_eq!(audit.len(), 1, "{log:?}");
    assert_eq!((&audit[0]["fields"]["name"], &audit[0]["fields"]["verb"]), (&json!("hidden-value"), &json!("create")));
    assert_eq!(audit[0]["fields"]["status"], 200);
}
