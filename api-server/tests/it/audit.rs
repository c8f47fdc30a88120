//! The audit log: every write and every sign-in leaves a record, on both stores.

use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use e2e::services::shared;
use perses_api_server::config::{self, Config};
use perses_api_server::state::AppState;
use serde_json::{Value, json};

use crate::backends;
use crate::http::{KEY, Server};
use crate::pod::until;
use crate::routes;

/// The newest records that match.
async fn records(server: &Server, query: &str) -> Vec<Value> {
    let page = server.get(&format!("/api/v1/audit?{query}")).await.ok();
    page["items"].as_array().unwrap().clone()
}

/// Waits until so many records match; they are written in the background.
async fn wait_for(server: &Server, query: &str, count: usize) -> Vec<Value> {
    until(&format!("{count} records of {query}"), async || records(server, query).await.len() >= count).await;
    records(server, query).await
}

/// With PostgreSQL as its store.
async fn on_postgres(config: &config::Postgres) -> Server {
    Server::start(json!({"ephemeral_dashboard": {"enable": true}, "database": {"postgres": config_of(config)}})).await
}

fn config_of(config: &config::Postgres) -> Value {
    let mut value = serde_json::to_value(config).unwrap();
    value["password"] = json!(config.password.as_ref().unwrap().expose());
    value
}

#[tokio::test]
async fn each_changing_route_leaves_a_record() {
    let server = Server::signed_in().await;
    let reading = ["/proxy/", "/api/validate/", "/api/v1/view", "/api/migrate"];
    let mut seen = 0;
    for (route, methods) in routes::of(&server).await {
        // Beginning the device flow is no sign-in yet.
        let is_query = route.ends_with("/dashboards/{name}/query") || route == "/api/v1/query/explain";
        if is_query || reading.iter().any(|start| route.starts_with(start)) || route.ends_with("/device/code") {
            continue;
        }
        for method in methods.iter().filter(|method| !matches!(method.as_str(), "GET" | "HEAD")) {
            assert_ne!(method, "*", "{route} takes every method: say what it changes");
            let id = format!("walk-{seen}");
            let request = server
                .builder(method, &routes::filled(&route))
                .header("x-request-id", &id)
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from("{}"))
                .unwrap();
            let reply = server.raw(request).await;
            let newest = &records(&server, "limit=1").await[0];
            assert_eq!(newest["requestId"], *id, "{method} {route} left no record");
            assert_eq!(newest["status"], reply.status.as_u16(), "{method} {route}: {newest}");
            seen += 1;
        }
    }
    assert!(seen > 30, "only {seen} routes change something");
}

#[tokio::test]
async fn a_record_says_who_what_when_from_where_and_with_which_result() {
    let postgres = backends::migrated(shared::postgres().await.unwrap()).await;
    for server in [Server::open().await, on_postgres(&postgres).await] {
        server.project("p").await;
        let document = json!({"kind": "Folder", "metadata": {"name": "f", "project": "p"}, "spec": {}});
        let send = async |method: &str, path: &str, id: &str| {
            let request = server
                .builder(method, path)
                .header("content-type", "application/json")
                .header("user-agent", "x".repeat(1000))
                .header("x-forwarded-for", "192.0.2.1, 198.51.100.2")
                .header("x-request-id", id)
                .body(Body::from(document.to_string()))
                .unwrap();
            server.raw(request).await.status.as_u16()
        };
        assert_eq!(send("POST", "/api/v1/folders", "one").await, 200);
        assert_eq!(send("POST", "/api/v1/folders", "two").await, 409);
        assert_eq!(send("PUT", "/api/v1/projects/p/folders/f", "three").await, 200);
        assert_eq!(send("DELETE", "/api/v1/projects/p/folders/f", "four").await, 204);
        assert_eq!(send("DELETE", "/api/v1/projects/p/folders/F", "five").await, 404);
        let found = wait_for(&server, "kind=Folder", 5).await;
        let fields = |record: &Value| {
            let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
            (text("requestId"), text("verb"), record["status"].as_u64().unwrap(), record["version"].as_u64())
        };
        let wanted = [
            ("five", "delete", 404, None),
            ("four", "delete", 204, None),
            ("three", "update", 200, Some(1)),
            ("two", "create", 409, None),
            ("one", "create", 200, Some(0)),
        ];
        let wanted = wanted.map(|(id, verb, status, version)| (id.to_owned(), verb.to_owned(), status, version));
        assert_eq!(found.iter().map(fields).collect::<Vec<_>>(), wanted);
        let one = &found[4];
        assert_eq!((&one["project"], &one["name"], &one["kind"]), (&json!("p"), &json!("f"), &json!("Folder")));
        assert_eq!(one["client"], "127.0.0.1");
        assert_eq!(one["forwardedFor"], "192.0.2.1, 198.51.100.2");
        assert_eq!(one["userAgent"].as_str().unwrap().len(), 256, "capped");
        let age = jiff::Timestamp::now().duration_since(one["time"].as_str().unwrap().parse().unwrap());
        assert!((0.0..60.0).contains(&age.as_secs_f64()), "{one}");
        assert_eq!(wait_for(&server, "kind=project&name=P&project=", 1).await[0]["verb"], "create");
        assert_eq!(records(&server, "kind=Folder&name=other").await, Vec::<Value>::new());
        assert_eq!(records(&server, "from=2999-01-01T00:00:00Z").await, Vec::<Value>::new());
        assert_eq!(records(&server, "to=2020-01-01T00:00:00Z").await, Vec::<Value>::new());
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repetition() {
    let postgres = backends::migrated(shared::postgres().await.unwrap()).await;
    for server in [Server::open().await, on_postgres(&postgres).await] {
        for number in 0..25 {
            server.project(&format!("p{number}")).await;
        }
        wait_for(&server, "limit=1000", 25).await;
        let (mut names, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = server.get(&format!("/api/v1/audit?limit=10&cursor={cursor}")).await.ok();
            names.extend(
                page["items"].as_array().unwrap().iter().map(|record| record["name"].as_str().unwrap().to_owned()),
            );
            match page["next"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        let wanted: Vec<String> = (0..25).rev().map(|number| format!("p{number}")).collect();
        assert_eq!(names, wanted);
    }
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    let server = Server::open().await;
    for (query, part) in [
        ("limit=0", "query parameter limit"),
        ("limit=1001", "query parameter limit"),
        ("from=yesterday", "query parameter from"),
        ("to=1", "query parameter to"),
        ("cursor=abc", "query parameter cursor"),
        ("kind=Thing", "query parameter kind"),
    ] {
        server.get(&format!("/api/v1/audit?{query}")).await.assert_error_with(400, part);
    }
    let off = Server::start(json!({"audit": {"enable": false}})).await;
    off.get("/api/v1/audit").await.assert_error_with(400, "audit.enable");
}

#[tokio::test]
async fn sign_ins_are_recorded_without_what_was_typed() {
    let server = Server::signed_in().await;
    server.login("admin", "hunter2").await;
    server.login("correct-horse", "battery-staple").await;
    let found = records(&server, "limit=3").await;
    let is = |record: &Value| (record["verb"].clone(), record["user"].clone(), record["status"].clone());
    assert_eq!(
        is(&found[0]),
        (json!("sign-in"), json!(null), json!(400)),
        "that name is nobody's: it may be a password"
    );
    assert_eq!(is(&found[1]), (json!("sign-in"), json!("admin"), json!(400)));
    assert_eq!(is(&found[2]), (json!("sign-in"), json!("admin"), json!(200)));
    let refused = server.send("POST", "/api/auth/refresh", &json!({"refresh_token": "nonsense"})).await;
    assert_eq!(refused.status, 400);
    assert_eq!(is(&records(&server, "limit=1").await[0]), (json!("refresh"), json!(null), json!(400)));
    // The first user was made by the server itself.
    let made = records(&server, "kind=User").await;
    assert_eq!(is(&made[0]), (json!("create"), json!("(first user)"), json!(200)));
    let everything = Value::from(records(&server, "limit=1000").await).to_string();
    for secret in ["hunter2", "correct-horse", "battery-staple", "nonsense", KEY] {
        assert!(!everything.contains(secret), "{secret} in {everything}");
    }
}

#[tokio::test]
async fn writes_without_a_sign_in_are_recorded_as_refused() {
    let server = Server::with_auth(json!({})).await;
    let reply = server.send("POST", "/api/v1/projects", &json!({"kind": "Project", "metadata": {"name": "p"}})).await;
    assert_eq!(reply.status, 401);
    server.get("/api/v1/audit").await.assert_error_with(401, "jwt");
    let log = server.state.audit.as_ref().unwrap();
    let found = log.search(&perses_api_server::domain::audit::Query { limit: 1, ..Default::default() }).await.unwrap();
    assert_eq!((found[0].status, found[0].user.clone()), (401, None));
}

#[tokio::test]
async fn records_outlive_an_outage_of_the_database_and_go_with_the_retention() {
    let database = e2e::services::Postgres::start().await.unwrap();
    let mut config = backends::migrated(&database).await;
    config.acquire_timeout = config::ConfigDuration(Duration::from_millis(300));
    let server = on_postgres(&config).await;
    server.project("before").await;
    wait_for(&server, "name=before", 1).await;
    database.stop().await.unwrap();
    let refused = server.send("POST", "/api/v1/projects", &json!({"kind": "Project", "metadata": {"name": "p"}})).await;
    assert_eq!(refused.status, 503);
    database.start_again().await.unwrap();
    let until_back = async || server.get("/api/v1/audit").await.status == 200;
    until("the database is back", until_back).await;
    let found = wait_for(&server, "name=p", 1).await;
    assert_eq!(
        (&found[0]["status"], &found[0]["name"]),
        (&json!(503), &json!("p")),
        "written when the database was back"
    );
    assert_eq!(server.state.metrics.audit_dropped.get(), 0);

    // Twice the same batch, as after a lost answer to COMMIT.
    let store = server.state.store.audit().unwrap();
    let everything = perses_api_server::domain::audit::Query { limit: 1000, ..Default::default() };
    let all = store.search(&everything).await.unwrap();
    store.append(&all).await.unwrap();
    assert_eq!(store.search(&everything).await.unwrap(), all);
    let newest = all[0].time;
    assert_eq!(store.remove_before(newest).await.unwrap(), all.len() as u64 - 1);
    assert_eq!(store.search(&everything).await.unwrap().len(), 1);

    // What waits is bounded, and what does not fit is counted.
    database.stop().await.unwrap();
    for _ in 0..5_800 {
        let refused = server.text("POST", "/api/v1/projects", "text/plain", "x").await;
        assert_eq!(refused.status, 415);
    }
    let dropped = server.state.metrics.audit_dropped.get();
    assert!((1..=800).contains(&dropped), "{dropped} records did not fit");
}

#[tokio::test]
async fn a_client_that_leaves_leaves_a_record() {
    let server = Server::open().await;
    let body = Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let request = server.builder("POST", "/api/v1/projects").header("content-type", "application/json").body(body);
    let request = server.raw(request.unwrap());
    assert!(tokio::time::timeout(Duration::from_millis(50), request).await.is_err());
    assert_eq!(records(&server, "limit=1").await[0]["status"], 499);
}

#[tokio::test]
async fn a_prefix_changes_nothing() {
    let server = Server::start(json!({"api_prefix": "/x"})).await;
    let body = json!({"kind": "Project", "metadata": {"name": "p"}});
    server.send("POST", "/x/api/v1/projects", &body).await.ok();
    assert_eq!(server.delete("/x/api/v1/projects/P").await.status, 204);
    assert_eq!(server.delete("/x/api/v1/projects/P").await.status, 404);
    let found = server.get("/x/api/v1/audit").await.ok()["items"].clone();
    let is = |at: usize| (found[at]["verb"].clone(), found[at]["name"].clone(), found[at]["status"].clone());
    assert_eq!(is(2), (json!("create"), json!("p"), json!(200)));
    assert_eq!(is(1), (json!("delete"), json!("p"), json!(204)));
    assert_eq!(is(0), (json!("delete"), json!("P"), json!(404)), "as it was asked for");
}

#[tokio::test]
async fn what_is_left_is_written_at_the_stop() {
    let config = backends::migrated(shared::postgres().await.unwrap()).await;
    let full =
        Config { database: config::Database { postgres: Some(config), ..Default::default() }, ..Config::default() };
    let state = AppState::build(full, None).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api/v1/projects", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(perses_api_server::server::run(listener, state.clone(), async {
        let _ = stopped.await;
    }));
    let client = crate::http::client().build().unwrap();
    for number in 0..50 {
        let body = json!({"kind": "Project", "metadata": {"name": format!("p{number}")}});
        assert_eq!(client.post(&url).json(&body).send().await.unwrap().status(), 200);
    }
    stop.send(()).unwrap();
    running.await.unwrap();
    let everything = perses_api_server::domain::audit::Query { limit: 1000, ..Default::default() };
    assert_eq!(state.store.audit().unwrap().search(&everything).await.unwrap().len(), 50);
}
