//! Several pods on one database: rights that are gone are gone everywhere, and those known outlive the database.

use std::time::{Duration, Instant};

use e2e::services::{TcpProxy, shared};
use e2e::wait::wait_until;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};

use super::{Caller, binding, dashboard, on_port, postgres, server};
use crate::backends;
use crate::http::Server;

/// The bound of the design.
const LIMIT: Duration = Duration::from_secs(1);
/// Timers and scheduling of a busy machine are not what is measured.
const SLACK: Duration = Duration::from_millis(500);

/// Waits until a request gets this answer; how long it took.
async fn until(caller: &Caller<'_>, path: &str, status: u16) -> Duration {
    let since = Instant::now();
    while caller.status(path).await != status {
        assert!(since.elapsed() < LIMIT + SLACK, "no {status} on {path} after {:?}", since.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_right_is_gone_from_every_pod_within_a_second() {
    for redis in [false, true] {
        let database = postgres().await;
        let mut more = json!({});
        if redis {
            more["cache"]["redis"]["addr"] = json!(shared::redis().await.unwrap().address());
        }
        let one = server(Some(&database), more.clone()).await;
        let two = server(Some(&database), more).await;
        let admin = one.caller("admin");
        admin.users(&["ada"]).await;
        admin.project("p").await.ok();
        admin.send("POST", "/api/v1/dashboards", &dashboard("p", "d")).await.ok();
        let (here, there) = (one.caller("ada"), two.caller("ada"));
        let path = "/api/v1/projects/p/dashboards/d";
        let mut slowest = Duration::ZERO;
        for _ in 0..5 {
            admin.bind(Some("p"), "b", "viewer", &["ada"]).await;
            assert_eq!(here.status(path).await, 200, "where it is written it counts at once");
            until(&there, path, 200).await;
            // The other pod has the dashboard in its cache by now, and has answered it to her.
            admin.delete("/api/v1/projects/p/rolebindings/b").await;
            assert_eq!(here.status(path).await, 403);
            slowest = slowest.max(until(&there, path, 403).await);
        }
        // By a role that changes, and by a user that goes.
        admin.role(Some("p"), "r", &["read"], &["*"]).await;
        admin.bind(Some("p"), "b", "r", &["ada"]).await;
        until(&there, path, 200).await;
        let less = json!({"kind": "Role", "metadata": {"name": "r", "project": "p"}, "spec": {"permissions": [{"actions": ["read"], "scopes": ["Folder"]}]}});
        admin.send("PUT", "/api/v1/projects/p/roles/r", &less).await.ok();
        slowest = slowest.max(until(&there, path, 403).await);
        admin.delete("/api/v1/projects/p/rolebindings/b").await;
        admin.bind(Some("p"), "b", "viewer", &["ada"]).await;
        until(&there, path, 200).await;
        admin.delete("/api/v1/users/ada").await;
        slowest = slowest.max(until(&there, path, 403).await);
        println!("redis: {redis}; slowest revocation on the other pod: {slowest:?}");
        assert!(slowest < LIMIT + SLACK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_the_last_rights_go_on_and_changes_are_caught_up_with() {
    let postgres = shared::postgres().await.unwrap();
    let config = backends::migrated(postgres).await;
    let proxy = TcpProxy::to_port(postgres.port()).await.unwrap();
    let direct = on_port(&config.dbname, postgres.port(), postgres.password());
    let cut = on_port(&config.dbname, proxy.port(), postgres.password());
    let (one, two) = (server(Some(&direct), json!({})).await, server(Some(&cut), json!({})).await);
    let admin = one.caller("admin");
    admin.users(&["ada", "bob"]).await;
    admin.project("p").await.ok();
    admin.send("POST", "/api/v1/dashboards", &dashboard("p", "d")).await.ok();
    admin.bind(Some("p"), "b", "viewer", &["ada"]).await;
    let (ada, bob) = (two.caller("ada"), two.caller("bob"));
    let path = "/api/v1/projects/p/dashboards/d";
    until(&ada, path, 200).await;

    proxy.cut().await;
    let (place, other) = binding(Some("p"), "b", "viewer", &["bob"]);
    admin.send("PUT", &format!("{place}/b"), &other).await.ok();
    for _ in 0..20 {
        assert_eq!(ada.status(path).await, 200, "the last rights that were known, and the cached dashboard");
        assert_eq!(bob.status(path).await, 403);
    }
    assert_eq!(two.get("/readyz").await.status.as_u16(), 200);
    proxy.heal().await;
    let caught_up = async || Ok(ada.status(path).await == 403 && bob.status(path).await == 200);
    wait_until("the rights of now", Duration::from_secs(30), caught_up).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn before_rights_are_known_nobody_passes() {
    let postgres = shared::postgres().await.unwrap();
    let config = backends::migrated(postgres).await;
    // A server before made the first user and a project.
    let direct = on_port(&config.dbname, postgres.port(), postgres.password());
    let before = server(Some(&direct), json!({})).await;
    before.caller("admin").project("p").await.ok();
    let proxy = TcpProxy::to_port(postgres.port()).await.unwrap();
    proxy.cut().await;
    let security = json!({"enable_auth": true, "encryption_key": crate::http::KEY,
        "authentication": {"providers": {"enable_native": true}},
        "authorization": {"guest_permissions": [{"actions": ["*"], "scopes": ["*"]}]}});
    let database: Value = on_port(&config.dbname, proxy.port(), postgres.password());
    let server = Server::start(json!({"security": security, "database": database})).await;
    let admin = server.caller("admin");
    for path in ["/api/v1/projects", "/api/v1/projects/p", "/api/v1/users", "/api/v1/users/admin/permissions"] {
        let reply = admin.get(path).await;
        assert_eq!(reply.status.as_u16(), 503, "{path}: {reply:?}");
        assert!(reply.headers.contains_key("retry-after"));
    }
    assert_eq!(admin.project("q").await.status.as_u16(), 503);
    assert_eq!(server.get("/readyz").await.status.as_u16(), 503);
    proxy.heal().await;
    let serves = async || Ok(admin.status("/api/v1/projects/p").await == 200);
    wait_until("the rights", Duration::from_secs(30), serves).await.unwrap();
    let ready = async || Ok(server.get("/readyz").await.status.as_u16() == 200);
    wait_until("readiness", Duration::from_secs(30), ready).await.unwrap();
}

/// 10,000 users with a binding each, in 500 projects.
const MANY: &str = "
    INSERT INTO perses.project (name) SELECT 'p' || n FROM generate_series(0, 499) AS n;
    INSERT INTO perses.resource (kind, project, name, spec, revision, created_at, updated_at)
    SELECT kind, project, name, spec, nextval('perses.revision'), now(), now() FROM (
        SELECT 'Project' AS kind, NULL AS project, 'p' || n AS name, '{}' AS spec FROM generate_series(0, 499) AS n
        UNION ALL SELECT 'Role', 'p' || n, 'viewer', '{\"permissions\":[{\"actions\":[\"read\"],\"scopes\":[\"*\"]}]}'
            FROM generate_series(0, 499) AS n
        UNION ALL SELECT 'User', NULL, 'u' || n, '{}' FROM generate_series(0, 9999) AS n
        UNION ALL SELECT 'RoleBinding', 'p' || (n % 500), 'b' || n,
            '{\"role\":\"viewer\",\"subjects\":[{\"kind\":\"User\",\"name\":\"u' || n || '\"}]}'
            FROM generate_series(0, 9999) AS n) AS many";

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_users_and_bindings_are_followed_as_fast() {
    let postgres = shared::postgres().await.unwrap();
    let config = backends::migrated(postgres).await;
    let mut connection = PgConnection::connect(&postgres.url(&config.dbname)).await.unwrap();
    connection.execute(MANY).await.unwrap();
    let database = on_port(&config.dbname, postgres.port(), postgres.password());
    let started = Instant::now();
    let one = server(Some(&database), json!({})).await;
    println!("a server with all rights and its first user after {:?}", started.elapsed());
    let two = server(Some(&database), json!({})).await;
    let admin = one.caller("admin");
    let (here, there) = (one.caller("u777"), two.caller("u777"));
    let path = "/api/v1/projects/p277/dashboards";
    assert_eq!((here.status(path).await, there.status(path).await), (200, 200));
    assert_eq!(there.names("/api/v1/projects").await, ["p277"]);
    let (mut writes, mut slowest) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..3 {
        let started = Instant::now();
        assert_eq!(admin.delete("/api/v1/projects/p277/rolebindings/b777").await.status.as_u16(), 204);
        writes = writes.max(started.elapsed());
        assert_eq!(here.status(path).await, 403);
        slowest = slowest.max(until(&there, path, 403).await);
        admin.bind(Some("p277"), "b777", "viewer", &["u777"]).await;
        until(&there, path, 200).await;
    }
    println!("slowest write {writes:?}, slowest revocation on the other pod {slowest:?}");
}
