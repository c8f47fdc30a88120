//! Credentials of datasources: from Secrets of the cluster to the requests that the server sends.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, header};
use kube::api::{Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use persesstack_operator::controllers::persesdev::kind::Kind;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{Fixture, becomes, datasource, stored};
use crate::cluster::{DEADLINE, within};

/// Something that is queried; it remembers the last `Authorization`.
async fn upstream() -> (String, Arc<Mutex<String>>) {
    let seen = Arc::new(Mutex::new(String::new()));
    let last = seen.clone();
    let answer = async move |headers: HeaderMap| {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().clone_into(&mut last.lock());
        "{}"
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, Router::new().fallback(answer)).await });
    (url, seen)
}

fn basic(password: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("ann:{password}")))
}

async fn set(fixture: &Fixture, password: &str) {
    let body = Patch::Merge(json!({"stringData": {"password": password}}));
    fixture.secrets().patch("login", &PatchParams::default(), &body).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_secret_reaches_the_datasource() {
    let Some(fixture) = Fixture::new("rotate").await else { return };
    let stack = fixture.stack("perses").await;
    let server = stack.client().await.unwrap();
    let (url, seen) = upstream().await;
    let project = fixture.space.namespace.clone();
    let client = json!({"basicAuth": {"type": "secret", "namespace": project, "name": "login", "username": "ann",
                                      "passwordPath": "password"}});
    fixture
        .create_whole(
            Kind::Datasource,
            json!({"metadata": {"name": "metrics"},
                   "spec": {"config": datasource(&url, Some("metrics-secret")), "client": client,
                            "instanceSelector": fixture.selector(&json!({}))}}),
        )
        .await;
    let running = fixture.run();
    let message = fixture.says(Kind::Datasource, "metrics", "CredentialsMissing").await;
    assert!(message.contains(&format!("Secret {project}/login does not exist")), "{message}");

    let secret = json!({"metadata": {"name": "login"}, "stringData": {"password": "first"}});
    fixture.secrets().create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let message = fixture.says(Kind::Datasource, "metrics", "Synced").await;
    assert!(!message.contains("first"));
    let ask = async || {
        let path = format!("/proxy/projects/{project}/datasources/metrics/api/v1/labels");
        server.get(&path).await.unwrap().ok().unwrap();
        seen.lock().clone()
    };
    assert_eq!(ask().await, basic("first"));
    let before = running.writes();
    set(&fixture, "second").await;
    within("the new password", DEADLINE, async || (ask().await == basic("second")).then_some(())).await;
    assert_eq!(running.writes().len(), before.len() + 1, "one update: {:?}", running.writes());

    // A restart knows the credentials again without seeing them; what somebody else wrote is found.
    running.stop().await;
    let path = format!("/api/v1/projects/{project}/secrets/metrics-secret");
    let mut stolen: Value = stored(&server, &path).await.unwrap();
    stolen["spec"]["basicAuth"] = json!({"username": "ann", "password": "stolen"});
    let running = fixture.run();
    fixture.merge(Kind::Datasource, "metrics", json!({"metadata": {"labels": {"a": "b"}}})).await;
    fixture.says(Kind::Datasource, "metrics", "Synced").await;
    assert!(running.writes().is_empty(), "{:?}", running.writes());
    running.stop().await;
    server.send(Method::PUT, &path, Some(&stolen)).await.unwrap().ok().unwrap();
    assert_eq!(ask().await, basic("stolen"));
    let running = fixture.run();
    within("the repair", DEADLINE, async || (ask().await == basic("second")).then_some(())).await;

    // Credentials that are not wanted any more go, and with the datasource everything does.
    fixture
        .merge(Kind::Datasource, "metrics", json!({"spec": {"client": null, "config": datasource(&url, None)}}))
        .await;
    let open = json!({"spec": {"config": {"plugin": {"spec": {"proxy": {"spec": {"secret": null}}}}}}});
    fixture.merge(Kind::Datasource, "metrics", open).await;
    becomes(&server, &path, false).await;
    assert_eq!(ask().await, "");
    fixture.delete(Kind::Datasource, "metrics").await;
    fixture.gone(Kind::Datasource, "metrics").await;
    assert!(stored(&server, &format!("/api/v1/projects/{project}/datasources/metrics")).await.is_none());
    drop(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_of_other_namespaces_are_not_for_namespaced_datasources() {
    let Some(fixture) = Fixture::new("borrow").await else { return };
    let stack = fixture.stack("perses").await;
    let server = stack.client().await.unwrap();
    let project = fixture.space.namespace.clone();
    let client = json!({"basicAuth": {"type": "secret", "namespace": "kube-system", "name": "any", "username": "ann",
                                      "passwordPath": "password"}});
    let spec = json!({"config": datasource("http://attacker", Some("metrics-secret")), "client": client,
                      "instanceSelector": fixture.selector(&json!({}))});
    fixture.create_whole(Kind::Datasource, json!({"metadata": {"name": "metrics"}, "spec": spec})).await;
    let running = fixture.run();
    let message = fixture.says(Kind::Datasource, "metrics", "Invalid").await;
    assert!(message.contains("its own namespace"), "{message}");
    assert!(running.writes().is_empty());
    assert!(stored(&server, &format!("/api/v1/projects/{project}/datasources/metrics")).await.is_none());
}
