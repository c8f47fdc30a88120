//! The client's deadline, retries and faults against an HTTP server that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use persesstack_operator::client::fault::{Failure, Fault, Faults};
use persesstack_operator::client::{ClientOptions, build};
use serde_json::json;

/// Answers what the name asks for: `<code>-<times>[-<retry-after>]`, then a ConfigMap; `slow` never.
#[derive(Clone, Default)]
struct Server {
    requests: Arc<AtomicUsize>,
}

async fn answer(State(server): State<Server>, method: Method, uri: Uri) -> Response {
    let number = server.requests.fetch_add(1, Ordering::SeqCst) + 1;
    let name = uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    if name == "slow" {
        std::future::pending::<()>().await;
    }
    let mut parts = name.split('-').map(str::parse::<u16>);
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"method": method.as_str()}}});
    match (parts.next(), parts.next(), parts.next()) {
        (Some(Ok(code)), Some(Ok(times)), after) if number <= usize::from(times) => {
            let body =
                json!({"kind": "Status", "apiVersion": "v1", "code": code, "status": "Failure", "reason": "Test"});
            let mut response = (StatusCode::from_u16(code).unwrap(), axum::Json(body)).into_response();
            if let Some(Ok(after)) = after {
                response.headers_mut().insert("retry-after", after.into());
            }
            response
        }
        _ => axum::Json(object).into_response(),
    }
}

async fn server(faults: Option<Faults>) -> (Server, Client, Api<ConfigMap>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Server::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(server.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    let options = ClientOptions { request_timeout: Duration::from_millis(700), faults, ..ClientOptions::default() };
    let client = build(config, &options).unwrap();
    (server, client.clone(), Api::namespaced(client, "a"))
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        other => panic!("{other:?}"),
    }
}

fn named(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

#[tokio::test]
async fn a_read_is_repeated_twice_at_most() {
    let (server, _, api) = server(None).await;
    assert_eq!(api.get("503-2").await.unwrap().metadata.name.as_deref(), Some("503-2"));
    assert_eq!(server.requests.load(Ordering::SeqCst), 3);
    server.requests.store(0, Ordering::SeqCst);
    assert_eq!(code(&api.get("503-9").await.unwrap_err()), 503);
    assert_eq!(server.requests.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_apply_is_repeated_and_a_long_pause_is_not_waited_for() {
    let (server, _, api) = server(None).await;
    let params = PatchParams::apply("test");
    api.patch("503-1", &params, &Patch::Apply(named("503-1"))).await.unwrap();
    assert_eq!(server.requests.load(Ordering::SeqCst), 2, "an apply is repeated");
    server.requests.store(0, Ordering::SeqCst);
    let started = Instant::now();
    assert_eq!(code(&api.get("429-5-60").await.unwrap_err()), 429);
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_with_the_deadline() {
    let (server, _, api) = server(None).await;
    let error = api.get("slow").await.unwrap_err();
    assert!(format!("{error:?}").contains("Timeout"), "{error:?}");
    assert_eq!(server.requests.load(Ordering::SeqCst), 1, "the caller has waited long enough");
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    let writes = |fault| async move {
        let faults = Faults::with(fault);
        let (server, _, api) = server(Some(faults.clone())).await;
        let (params, object) = (PostParams::default(), named("x"));
        let create = api.create(&params, &object);
        let result = tokio::time::timeout(Duration::from_millis(300), create).await;
        (server.requests.load(Ordering::SeqCst), result.ok().map(|result| result.is_ok()), faults.count())
    };
    assert_eq!(writes(Fault::CrashBefore(1)).await, (0, None, 1));
    assert_eq!(writes(Fault::CrashAfter(1)).await, (1, None, 1));
    assert_eq!(writes(Fault::CrashBefore(2)).await, (1, Some(true), 1));
    assert_eq!(writes(Fault::Duplicate(1)).await, (2, Some(true), 1));
    assert_eq!(writes(Fault::Fail(1, Failure::Conflict)).await, (0, Some(false), 1));
    assert_eq!(writes(Fault::Fail(1, Failure::Unsent)).await, (0, Some(false), 1));
    assert_eq!(writes(Fault::Fail(1, Failure::LostReply)).await, (1, Some(false), 1));
    assert_eq!(writes(Fault::Fail(1, Failure::GatewayTimeout)).await, (1, Some(false), 1), "a create is not repeated");
    assert_eq!(writes(Fault::Fail(1, Failure::Unavailable)).await, (0, Some(false), 1));
}

#[tokio::test]
async fn nothing_leaves_a_crashed_process() {
    let faults = Faults::with(Fault::CrashBefore(1));
    let (server, _, api) = server(Some(faults.clone())).await;
    let params = DeleteParams::default();
    let dead = api.delete("x", &params);
    tokio::select! {
        _ = dead => panic!("a dead process got an answer"),
        () = faults.crashed() => {}
    }
    let late = tokio::time::timeout(Duration::from_millis(200), api.get("x")).await;
    assert!(late.is_err(), "reads hang too");
    assert_eq!(server.requests.load(Ordering::SeqCst), 0);
}
