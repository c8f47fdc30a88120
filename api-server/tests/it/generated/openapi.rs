//! `docs/reference/openapi.json`, and that it describes every route and nothing else.

use std::collections::BTreeSet;

use perses_api_server::openapi;
use serde_json::{Value, json};

use super::check;
use crate::http::Server;
use crate::routes;

/// With everything switched on that adds routes.
async fn with_everything() -> Server {
    Server::with_auth(json!({"ephemeral_dashboard": {"enable": true}})).await
}

#[test]
fn the_openapi_document_is_current() {
    let text = serde_json::to_string_pretty(&openapi::document("")).unwrap() + "\n";
    check("docs/reference/openapi.json", &text);
}

#[tokio::test]
async fn every_route_is_described_and_every_description_has_a_route() {
    let server = with_everything().await;
    let mut real = BTreeSet::new();
    for (route, methods) in routes::of(&server).await {
        // A path below a datasource; without it the same.
        let path = route.replace("{*path}", "{path}");
        if route.starts_with("/proxy/") && !path.ends_with("{path}") {
            continue;
        }
        for method in methods {
            match method.as_str() {
                "HEAD" => {}
                "*" => real
                    .extend(["get", "post", "put", "patch", "delete"].map(|method| (path.clone(), method.to_owned()))),
                method => drop(real.insert((path.clone(), method.to_lowercase()))),
            }
        }
    }
    let document = openapi::document("");
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())))
        .collect();
    let missing: Vec<_> = real.difference(&described).collect();
    let invented: Vec<_> = described.difference(&real).collect();
    assert!(missing.is_empty() && invented.is_empty(), "not described: {missing:?}; without a route: {invented:?}");
}

#[test]
fn references_lead_somewhere_and_identifiers_are_unique() {
    let document = openapi::document("/prefix");
    assert_eq!(document["servers"][0]["url"], "/prefix");
    let mut identifiers = BTreeSet::new();
    visit(&document, &mut |value| {
        if let Some(reference) = value["$ref"].as_str() {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
        }
        if let Some(identifier) = value["operationId"].as_str() {
            assert!(identifiers.insert(identifier.to_owned()), "{identifier} is there twice");
            assert!(!value["responses"].as_object().unwrap().is_empty());
        }
    });
    assert!(identifiers.len() > 100, "{}", identifiers.len());
}

fn visit(value: &Value, look: &mut impl FnMut(&Value)) {
    look(value);
    match value {
        Value::Object(map) => map.values().for_each(|inner| visit(inner, look)),
        Value::Array(list) => list.iter().for_each(|inner| visit(inner, look)),
        _ => {}
    }
}

#[tokio::test]
async fn it_is_served() {
    let server = Server::open().await;
    assert_eq!(server.get("/api/v1/openapi.json").await.ok(), openapi::document(""));
}
