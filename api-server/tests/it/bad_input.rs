//! What is wrong gets a clear error and changes nothing.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::http::Server;
use crate::pod::Pod;

const PATH: &str = "/api/v1/projects/home/dashboards";

fn dashboard(name: &str) -> Value {
    json!({"kind": "Dashboard", "metadata": {"name": name}, "spec": {"duration": "1h", "panels": {}}})
}

async fn server() -> (Server, String) {
    let server = Server::open().await;
    server.project("home").await;
    let body = server.send("POST", PATH, &dashboard("kept")).await.body;
    (server, body)
}

/// The document of before is there, unchanged, and alone.
async fn assert_nothing_changed(server: &Server, body: &str) {
    assert_eq!(server.get(&format!("{PATH}/kept")).await.body, body);
    assert_eq!(server.get("/api/v1/dashboards").await.ok().as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn malformed_json_says_where() {
    let (server, before) = server().await;
    for (body, part) in [
        ("", "EOF"),
        ("{", "EOF while parsing an object at line 1 column 1"),
        ("{\"kind\": \"Dashboard\",}", "line 1 column 22"),
        ("[]", "invalid"),
        ("{\"kind\": 5}", "invalid type: integer"),
        ("{\"metadata\": {\"name\": [\"x\"]}}", "invalid type"),
        ("{\"kind\":\"Dashboard\"} trailing", "trailing characters"),
        ("\u{0}", "line 1 column 1"),
    ] {
        for (method, path) in [("POST", PATH.to_owned()), ("PUT", format!("{PATH}/kept"))] {
            server.text(method, &path, "application/json", body).await.assert_error_with(400, part);
        }
    }
    // Deep nesting must not take the process.
    let deep = format!(
        r#"{{"kind":"Dashboard","metadata":{{"name":"deep"}},"spec":{}{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert_eq!(server.text("POST", PATH, "application/json", deep).await.status.as_u16(), 400);
    let invalid = [b"{\"kind\":\"Dashboard\",\"metadata\":{\"name\":\"a\xff\"},\"spec\":{}}".as_slice()].concat();
    assert_eq!(server.text("POST", PATH, "application/json", invalid).await.status.as_u16(), 400);
    assert_nothing_changed(&server, &before).await;
}

#[tokio::test]
async fn another_content_type_is_415() {
    let (server, before) = server().await;
    for kind in ["", "text/plain", "application/yaml", "application/x-www-form-urlencoded"] {
        let body = dashboard("x").to_string();
        server.text("POST", PATH, kind, body.clone()).await.assert_error(415, "unsupported media type");
        server.text("PUT", &format!("{PATH}/kept"), kind, body).await.assert_error(415, "unsupported media type");
    }
    assert_nothing_changed(&server, &before).await;
}

#[tokio::test]
async fn an_unknown_project_is_named_as_percli_expects() {
    let (server, before) = server().await;
    let message = "bad request: metadata.project \"nowhere\" doesn't exist";
    let mut body = dashboard("x");
    server.send("POST", "/api/v1/projects/nowhere/dashboards", &body).await.assert_error(400, message);
    server
        .send("POST", "/api/v1/dashboards", &body)
        .await
        .assert_error(400, "bad request: metadata.project cannot be empty");
    body["metadata"]["project"] = json!("nowhere");
    server.send("POST", "/api/v1/dashboards", &body).await.assert_error(400, message);
    server.send("PUT", "/api/v1/projects/nowhere/dashboards/x", &body).await.assert_error(404, "document not found");
    server.delete("/api/v1/projects/nowhere/dashboards/x").await.assert_error(404, "document not found");
    assert_nothing_changed(&server, &before).await;
}

#[tokio::test]
async fn names_outside_the_rule_are_refused() {
    let (server, before) = server().await;
    for (name, part) in [
        (String::new(), "name cannot be empty"),
        ("x".repeat(76), "cannot contain more than 75 characters"),
        ("a b".to_owned(), "is not a correct name"),
        ("a/b".to_owned(), "is not a correct name"),
        ("é".to_owned(), "is not a correct name"),
        ("..".to_owned(), "must not start or end with '.'"),
        ("../../etc".to_owned(), "is not a correct name"),
        ("a..b".to_owned(), "must not start or end with '.', nor contain '..'"),
        ("a\0b".to_owned(), "is not a correct name"),
    ] {
        server.send("POST", PATH, &dashboard(&name)).await.assert_error_with(400, part);
        let project = json!({"kind": "Project", "metadata": {"name": name}, "spec": {}});
        server.send("POST", "/api/v1/projects", &project).await.assert_error_with(400, part);
    }
    // In the path they find nothing, whatever they mean to a file system.
    for name in ["..", "%2e%2e", "..%2f..%2fkept", "a%00b", "%ff"] {
        let status = server.get(&format!("{PATH}/{name}")).await.status.as_u16();
        assert!(matches!(status, 400 | 404), "{name}: {status}");
        let status = server.delete(&format!("{PATH}/{name}")).await.status.as_u16();
        assert!(matches!(status, 400 | 404 | 405), "{name}: {status}");
    }
    assert_nothing_changed(&server, &before).await;
}

#[tokio::test]
async fn kind_and_path_must_agree_with_the_body() {
    let (server, before) = server().await;
    let mut body = dashboard("kept");
    body["kind"] = json!("Folder");
    let one = format!("{PATH}/kept");
    let message = "bad request: invalid kind: \"Folder\" for a Dashboard type";
    server.send("POST", PATH, &body).await.assert_error(400, message);
    server.send("PUT", &one, &body).await.assert_error(400, message);
    body["kind"] = json!("");
    server.send("PUT", &one, &body).await.assert_error(400, "bad request: invalid kind: \"\" for a Dashboard type");
    server
        .send("PUT", &one, &dashboard("other"))
        .await
        .assert_error(400, "bad request: name parameter value 'kept' does not match provided metadata value 'other'");
    let mut body = dashboard("kept");
    body["metadata"]["project"] = json!("elsewhere");
    server.send("PUT", &one, &body).await.assert_error(
        400,
        "bad request: project parameter value 'home' does not match provided metadata value 'elsewhere'",
    );
    assert_nothing_changed(&server, &before).await;

    // What the body leaves out, the path says.
    let mut body = dashboard("kept");
    body["metadata"] = json!({});
    body["kind"] = json!("dashboard");
    let updated = server.send("PUT", &one, &body).await.ok();
    assert_eq!(updated["kind"], "Dashboard");
    assert_eq!((&updated["metadata"]["name"], &updated["metadata"]["project"]), (&json!("kept"), &json!("home")));
}

#[tokio::test]
async fn bodies_over_the_limit_are_413() {
    let server = Server::start(json!({"server": {"max_body_bytes": 2000}})).await;
    server.project("home").await;
    let mut body = dashboard("big");
    let message = "request entity too large: the limit is 2000 bytes (server.max_body_bytes)";
    body["spec"]["display"] = json!({"name": "x".repeat(2000)});
    server.send("POST", PATH, &body).await.assert_error(413, message);
    // Without a declared length it is cut off while it is read.
    let pieces = futures::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>("x".repeat(100))));
    server.text("POST", PATH, "application/json", Body::from_stream(pieces)).await.assert_error(413, message);
    server.send("POST", "/api/validate/dashboards", &body).await.assert_error(413, message);
    body["spec"]["display"] = json!({"name": "x".repeat(1000)});
    server.send("POST", PATH, &body).await.ok();
}

#[tokio::test]
async fn specs_are_checked_with_the_place() {
    let (server, before) = server().await;
    let mut body = dashboard("x");
    body["spec"] = Value::Null;
    server.send("POST", PATH, &body).await.assert_error(400, "bad request: spec cannot be empty");
    for (spec, message) in [
        (json!({"duration": "soon"}), "bad request: spec.duration: not a valid duration string: \"soon\""),
        (
            json!({"layouts": [{"kind": "Grid", "spec": {"items": [{"content": {"$ref": "#/spec/panels/none"}}]}}]}),
            "bad request: spec.layouts[0].spec.items[0].content: no panel found for ref \"none\"",
        ),
    ] {
        body["spec"] = spec;
        server.send("POST", PATH, &body).await.assert_error_with(400, message);
    }
    for (tags, part) in [
        (json!([" x"]), "metadata.tags"),
        (json!([""]), "metadata.tags"),
        (json!(["x".repeat(51)]), "metadata.tags"),
        (Value::from((0..21).map(|n| n.to_string()).collect::<Vec<_>>()), "at most 20"),
    ] {
        let mut body = dashboard("x");
        body["metadata"]["tags"] = tags;
        server.send("POST", PATH, &body).await.assert_error_with(400, part);
    }
    assert_nothing_changed(&server, &before).await;
}

#[tokio::test]
async fn unknown_routes_and_methods_answer_as_echo_does() {
    let (server, before) = server().await;
    server.send("POST", "/api/v1/nothing", &json!({})).await.assert_error(404, "Not Found");
    server.send("PATCH", PATH, &json!({})).await.assert_error(405, "Method Not Allowed");
    server.delete(PATH).await.assert_error(405, "Method Not Allowed");
    assert_nothing_changed(&server, &before).await;
}

/// Where a body goes that somebody sends.
const BODIES: [(&str, &str); 9] = [
    ("POST", "/api/v1/projects"),
    ("POST", "/api/v1/dashboards"),
    ("POST", "/api/v1/projects/home/dashboards"),
    ("PUT", "/api/v1/projects/home/dashboards/kept"),
    ("PUT", "/api/v1/projects/home/secrets/s"),
    ("POST", "/api/v1/users"),
    ("POST", "/api/validate/dashboards"),
    ("POST", "/api/v1/view"),
    ("POST", "/proxy/unsaved/globaldatasources/x"),
];

#[tokio::test]
async fn every_body_may_be_hostile() {
    let (server, before) = server().await;
    let nested = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    let bodies: Vec<Vec<u8>> = vec![
        nested("[", "]").into_bytes(),
        nested("{\"spec\":", "}").replace(":}", ":1}").into_bytes(),
        format!(r#"{{"kind":"Dashboard","metadata":{{"name":"x"}},"method":"GET","spec":{}}}"#, nested("[", "]"))
            .into_bytes(),
        format!(r#"{{"kind":"Dashboard","metadata":{},"spec":{{}}}}"#, nested("{\"name\":", "}").replace(":}", ":1}"))
            .into_bytes(),
        b"{\"metadata\":{\"name\":\"\xff\xfe\"},\"spec\":{}}".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"{\"metadata\":{\"name\":\"\\ud800\"},\"spec\":{}}".to_vec(),
        vec![0; 1000],
        b"{\"kind\":1e999999}".to_vec(),
        b"nul".to_vec(),
    ];
    for (method, path) in BODIES {
        for body in &bodies {
            let reply = server.text(method, path, "application/json", body.clone()).await;
            let start = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            assert!(reply.status.is_client_error(), "{method} {path} {start}: {reply:?}");
            let message = reply.json()["message"].as_str().unwrap_or_default().to_owned();
            assert!(!message.is_empty(), "{method} {path} {start}: {reply:?}");
        }
    }
    assert_nothing_changed(&server, &before).await;
}

#[tokio::test]
async fn every_path_and_query_may_be_hostile() {
    let (server, before) = server().await;
    let long = "x".repeat(76);
    for name in ["..", ".", "%2e%2e", "%2E%2e%2f", "a%00b", "%ff", "%c0%ae", "a%20b", "..%5c..", "%25", &long] {
        for path in [
            format!("{PATH}/{name}"),
            format!("/api/v1/projects/{name}"),
            format!("/api/v1/projects/{name}/dashboards"),
            format!("/api/v1/projects/{name}/dashboards/kept"),
            format!("/api/v1/users/{name}"),
            format!("/proxy/globaldatasources/{name}/x"),
            format!("/proxy/projects/{name}/datasources/x"),
        ] {
            let reply = server.get(&path).await;
            assert!(reply.status.is_client_error(), "{path}: {reply:?}");
            assert!(!reply.json()["message"].as_str().unwrap_or_default().is_empty(), "{path}: {reply:?}");
        }
        let reply = server.get(&format!("/api/v1/dashboards?project={name}")).await;
        let fine = reply.status.is_client_error() && !reply.json()["message"].as_str().unwrap_or_default().is_empty();
        assert!(fine, "project={name}: {reply:?}");
        let reply = server.get(&format!("/api/v1/dashboards?name={name}")).await;
        assert_eq!(reply.ok(), json!([]), "a prefix that nothing starts with: {name}");
    }
    // What the framework refuses has the shape of every error.
    server.get(&format!("{PATH}?name=a&name=b")).await.assert_error_with(400, "duplicate field");
    server.get(&format!("{PATH}/%ff")).await.assert_error_with(400, "Invalid UTF-8");
    assert_nothing_changed(&server, &before).await;
}

#[tokio::test]
async fn fifty_megabytes_are_413_for_who_sends_them() {
    let pod = Pod::start().await;
    pod.apply("projects", "Project", "home", &json!({})).await;
    pod.datasource("http://127.0.0.1:1", Value::Null).await;
    let query = ("POST", "/proxy/globaldatasources/prom/api/v1/query");
    let zeros = bytes::Bytes::from(vec![b' '; 50 << 20]);
    for (method, path) in BODIES.into_iter().chain([query]) {
        let kind = if path == query.1 { "application/x-www-form-urlencoded" } else { "application/json" };
        let request = pod.client.request(Method::from_bytes(method.as_bytes()).unwrap(), format!("{}{path}", pod.url));
        let answer = request.header("content-type", kind).body(zeros.clone()).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: the answer was not seen: {error}"));
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "{method} {path}");
        let text = answer.text().await.unwrap();
        assert!(text.contains("4194304 bytes"), "{method} {path}: {text}");
    }
    assert_eq!(pod.get("/livez").await.status(), StatusCode::OK);
}
