//! Several servers on one database: what only one of them may do, and what must not be lost between them.

use std::fs;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use e2e::services::shared;
use futures::future::join_all;
use jiff::{Timestamp, ToSpan as _};
use perses_api_server::config;
use perses_api_server::service::ephemeral;
use perses_api_server::service::provisioning::Provisioner;
use perses_api_server::store::postgres::PostgresStore;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::backends::migrated;
use crate::http::Server;
use crate::replicas::eventually;

/// Servers with a store of their own each, on one new database.
async fn servers(count: usize) -> (Vec<Server>, config::Postgres) {
    let config = migrated(shared::postgres().await.unwrap()).await;
    let config = config::Postgres { port: shared::pgbouncer().await.unwrap().port(), ..config };
    let start = |_| Server::on(Arc::new(PostgresStore::new(&config).unwrap()));
    (join_all((0..count).map(start)).await, config)
}

fn document(kind: &str, project: &str, name: &str, spec: &Value) -> Value {
    let mut document = json!({"kind": kind, "metadata": {"name": name}, "spec": spec});
    if !project.is_empty() {
        document["metadata"]["project"] = json!(project);
    }
    document
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_creates_at_once_on_two_servers_one_wins_and_the_rest_hear_of_it() {
    let (servers, _) = servers(2).await;
    servers[0].project("p").await;
    let body = document("Dashboard", "p", "d", &json!({"panels": {}, "layouts": []}));
    for (path, body) in
        [("/api/v1/projects/p/dashboards", &body), ("/api/v1/projects", &document("Project", "", "q", &json!({})))]
    {
        let requests = (0..20).map(|number| servers[number % 2].send("POST", path, body));
        let mut statuses: Vec<u16> = join_all(requests).await.into_iter().map(|reply| reply.status.as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [[200].as_slice(), &[409; 19]].concat(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_in_a_project_that_is_deleted_meanwhile() {
    let (servers, config) = servers(2).await;
    for round in 0..10 {
        let name = format!("p{round}");
        servers[0].project(&name).await;
        let path = format!("/api/v1/projects/{name}/dashboards");
        let creating = join_all((0..6).map(|number| {
            let body = document("Dashboard", &name, &format!("d{number}"), &json!({"panels": {}, "layouts": []}));
            let (servers, path) = (&servers, &path);
            async move { servers[1].send("POST", path, &body).await }
        }));
        let project = format!("/api/v1/projects/{name}");
        let (created, deleted) = tokio::join!(creating, servers[0].delete(&project));
        assert_eq!(deleted.status.as_u16(), 204);
        for reply in created {
            match reply.status.as_u16() {
                200 => {}
                _ => reply.assert_error(400, &format!("bad request: metadata.project \"{name}\" doesn't exist")),
            }
        }
    }
    let left = "SELECT count(*) FROM perses.resource";
    assert_eq!(shared::postgres().await.unwrap().sql(&config.dbname, left).await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn if_match_guards_updates_and_deletions() {
    let (servers, _) = servers(2).await;
    servers[0].project("p").await;
    let body = document("Dashboard", "p", "d", &json!({"panels": {}, "layouts": []}));
    let path = "/api/v1/projects/p/dashboards/d";
    let create = async || {
        let reply = servers[0].send("POST", "/api/v1/projects/p/dashboards", &body).await;
        reply.headers[header::ETAG].clone()
    };
    let send = async |server: &Server, method: &str, etag: &HeaderValue| {
        let request = server.builder(method, path).header(header::IF_MATCH, etag);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let text = if method == "PUT" { body.to_string() } else { String::new() };
        server.raw(request.body(Body::from(text)).unwrap()).await
    };
    let first = create().await;
    let second = send(&servers[1], "PUT", &first).await;
    assert_eq!(second.status.as_u16(), 200);
    for method in ["PUT", "DELETE"] {
        send(&servers[0], method, &first).await.assert_error_with(412, "precondition failed");
        let odd = HeaderValue::from_static("\"x\"");
        send(&servers[0], method, &odd).await.assert_error_with(400, "If-Match");
    }
    let second = second.headers[header::ETAG].clone();
    assert_eq!(send(&servers[0], "DELETE", &second).await.status.as_u16(), 204);
    // The same name and version again is another document.
    let again = create().await;
    assert_ne!(again, first);
    send(&servers[1], "PUT", &first).await.assert_error_with(412, "precondition failed");
    send(&servers[1], "DELETE", &first).await.assert_error_with(412, "precondition failed");
    let any = HeaderValue::from_static("*");
    assert_eq!(send(&servers[1], "DELETE", &any).await.status.as_u16(), 204);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn folders_are_applied_by_one_server_and_the_next_one_takes_over() {
    let (servers, _) = servers(3).await;
    let folders: Vec<_> = servers.iter().map(|_| tempfile::tempdir().unwrap()).collect();
    let write = |number: usize, title: &str| {
        let project = document("Project", "", "p", &json!({"display": {"name": title}}));
        fs::write(folders[number].path().join("p.json"), project.to_string()).unwrap();
    };
    // During a roll the folders differ: without one who leads they would undo each other's work for ever.
    (0..3).for_each(|number| write(number, &format!("of {number}")));
    let mut running = Vec::new();
    for (server, folder) in servers.iter().zip(&folders) {
        let config: config::Provisioning = serde_json::from_value(json!({"folders": [folder.path()]})).unwrap();
        let provisioner = Provisioner::new(server.state.resources.clone(), server.state.metrics.clone(), &config);
        let stop = CancellationToken::new();
        running.push((stop.clone(), tokio::spawn(provisioner.run(stop))));
    }
    let title = async || {
        let reply = servers[0].get("/api/v1/projects?name=p").await;
        let found = reply.json()[0].clone();
        (found["spec"]["display"]["name"].as_str().map(str::to_owned), found["metadata"]["version"].as_u64())
    };
    eventually("the project", async || title().await.0.is_some()).await;
    let (first, version) = title().await;
    assert_eq!(version, Some(0));
    let leader: usize = first.unwrap().trim_start_matches("of ").parse().unwrap();
    write(leader, "changed");
    eventually("the change", async || title().await == (Some("changed".to_owned()), Some(1))).await;
    let (stop, task) = running.remove(leader);
    stop.cancel();
    task.await.unwrap();
    // Another one takes over with its own folder, once.
    eventually("another leader", async || title().await.1 == Some(2)).await;
    for (stop, task) in running {
        stop.cancel();
        task.await.unwrap();
    }
    assert_eq!(title().await.1, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_dashboards_go_when_their_time_is_over() {
    let (servers, config) = servers(2).await;
    servers[0].project("p").await;
    for (name, ttl) in [("short", "1h"), ("long", "3h")] {
        let body = document("EphemeralDashboard", "p", name, &json!({"ttl": ttl, "panels": {}, "layouts": []}));
        servers[0].send("POST", "/api/v1/projects/p/ephemeraldashboards", &body).await.ok();
    }
    let later = Timestamp::now() + 2.hours();
    let (one, other) = tokio::join!(
        ephemeral::clean(&servers[0].state.resources, later),
        ephemeral::clean(&servers[1].state.resources, later)
    );
    assert_eq!(one.unwrap() + other.unwrap(), 1, "once");
    let names = "SELECT name FROM perses.resource WHERE kind = 'EphemeralDashboard'";
    let postgres = shared::postgres().await.unwrap();
    assert_eq!(postgres.sql(&config.dbname, names).await.unwrap(), "long");

    // Running servers share the rounds.
    let stop = CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    for (number, server) in servers.iter().enumerate() {
        let (resources, stop) = (server.state.resources.clone(), stop.clone());
        let interval = std::time::Duration::from_secs(1);
        tokio::spawn(ephemeral::run(resources, interval, format!("server-{number}"), stop));
    }
    let age = "UPDATE perses.resource SET updated_at = now() - interval '4 hours' WHERE kind = 'EphemeralDashboard'";
    postgres.sql(&config.dbname, age).await.unwrap();
    eventually("the other one to go", async || postgres.sql(&config.dbname, names).await.unwrap().is_empty()).await;
    let path = "/api/v1/projects/p/ephemeraldashboards/long";
    eventually("every server to know", async || servers[1].get(path).await.status.as_u16() == 404).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn search_ranks_what_it_finds() {
    let (servers, _) = servers(1).await;
    let server = &servers[0];
    for project in ["p", "q"] {
        server.project(project).await;
    }
    for (project, name, title) in
        [("p", "b", "Everything about CPUs"), ("p", "a", "CPU"), ("q", "node-cpu", ""), ("q", "disk", "Disks")]
    {
        let spec = json!({"display": {"name": title}, "panels": {}, "layouts": []});
        server.send("POST", "/api/v1/dashboards", &document("Dashboard", project, name, &spec)).await.ok();
    }
    let find = async |query: &str| server.get(&format!("/api/v1/search/dashboards?{query}")).await.ok();
    let found = find("query=cpu").await;
    let names: Vec<&str> =
        found.as_array().unwrap().iter().map(|one| one["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "node-cpu", "b"]);
    assert_eq!(found[1]["displayName"], "node-cpu", "a dashboard without a title is called by its name");
    assert_eq!(found[2]["original"], "Everything about CPUs");
    assert_eq!(found[2]["intervals"], json!([{"from": 17, "to": 19}]));
    assert!(found[0]["score"].as_f64() > found[2]["score"].as_f64());
    assert_eq!(found[0]["metadata"]["project"], "p");
    assert!(found[0].get("spec").is_none());
    assert_eq!(find("query=cpu&project=q").await.as_array().unwrap().len(), 1);
    assert_eq!(find("query=").await, json!([]));
    assert_eq!(find("query=cpu&project=none").await, json!([]));
    server.get("/api/v1/search/dashboards?query=x&project=a%2fb").await.assert_error_with(400, "invalid");
}

/// The extension is there or not; the answers are the same, and `migrate` says what it did.
#[tokio::test(flavor = "multi_thread")]
async fn search_works_with_and_without_the_trigram_index() {
    let server = shared::postgres().await.unwrap();
    let config = migrated(server).await;
    let index = "SELECT count(*) FROM pg_indexes WHERE indexname = 'resource_search'";
    assert_eq!(server.sql(&config.dbname, index).await.unwrap(), "1", "the owner of a database may make the extension");
    let many = "INSERT INTO perses.project VALUES ('p'); INSERT INTO perses.resource \
                (kind, project, name, spec, display_name, revision, created_at, updated_at) \
                SELECT 'Dashboard', 'p', 'd' || n, '{}', md5(n::text), n, now(), now() FROM generate_series(1, 20000) n; \
                ANALYZE perses.resource";
    server.sql(&config.dbname, many).await.unwrap();
    let plan = "EXPLAIN SELECT name FROM perses.resource WHERE kind = 'Dashboard' AND \
                (name ILIKE '%cpu0%' OR display_name ILIKE '%cpu0%')";
    let plan = server.sql(&config.dbname, plan).await.unwrap();
    assert!(plan.contains("resource_search"), "{plan}");

    let bare = crate::backends::empty_database(server).await;
    let owner = format!("{}_poor", bare.dbname);
    let sql = format!(
        "CREATE ROLE {owner} LOGIN PASSWORD 'x'; ALTER DATABASE {0} OWNER TO postgres; CREATE SCHEMA perses AUTHORIZATION {owner}",
        bare.dbname
    );
    server.sql(&bare.dbname, &sql).await.unwrap();
    let bare = config::Postgres { user: Some(owner), password: Some("x".into()), ..bare };
    let report = perses_api_server::store::postgres::migrate(&bare).await.unwrap();
    assert!(report.unindexed_search.is_some() && report.to_string().contains("CREATE EXTENSION pg_trgm"), "{report}");
    let server = Server::on(Arc::new(PostgresStore::new(&bare).unwrap())).await;
    server.project("p").await;
    let spec = json!({"panels": {}, "layouts": []});
    server.send("POST", "/api/v1/dashboards", &document("Dashboard", "p", "node-cpu", &spec)).await.ok();
    let found = server.get("/api/v1/search/dashboards?query=cpu").await.ok();
    assert_eq!(found[0]["metadata"]["name"], "node-cpu");
}
