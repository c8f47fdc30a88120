//! Requests that are no plain verb: the proxy, views, secrets of datasources, the administrator's question.

use perses_api_server::auth::authorize::{Action, Reach};
use perses_api_server::domain::kind::Kind;
use serde_json::{Value, json};

use super::{dashboard, server};
use crate::upstream::Upstream;

fn datasource(kind: &str, name: &str, url: &str, secret: &Value) -> Value {
    json!({"kind": kind, "metadata": {"name": name}, "spec": {"default": false, "plugin": {
        "kind": "PrometheusDatasource", "spec": {"proxy": {"kind": "HTTPProxy", "spec": {"url": url, "secret": secret}}}}}})
}

#[tokio::test]
async fn the_proxy_needs_the_right_to_read_the_datasource() {
    let upstream = Upstream::saying("{}").await;
    let server = server(None, json!({})).await;
    let admin = server.caller("admin");
    admin.users(&["ada", "bob"]).await;
    admin.project("p").await.ok();
    admin.bind(Some("p"), "viewers", "viewer", &["ada"]).await;
    admin.role(None, "reader", &["read"], &["GlobalDatasource"]).await;
    admin.bind(None, "readers", "reader", &["bob"]).await;
    let url = upstream.url();
    admin
        .send("POST", "/api/v1/globaldatasources", &datasource("GlobalDatasource", "prom", &url, &Value::Null))
        .await
        .ok();
    let own = datasource("Datasource", "prom", &url, &Value::Null);
    admin.send("POST", "/api/v1/projects/p/datasources", &own).await.ok();
    let mut local = dashboard("p", "d");
    local["spec"]["datasources"] = json!({"prom": own["spec"]});
    admin.send("POST", "/api/v1/dashboards", &local).await.ok();

    let paths = [
        "/proxy/globaldatasources/prom/api/v1/labels",
        "/proxy/projects/p/datasources/prom/api/v1/labels",
        "/proxy/projects/P/dashboards/d/datasources/prom/api/v1/labels",
    ];
    let (ada, bob) = (server.caller("ada"), server.caller("bob"));
    let mut statuses = Vec::new();
    for path in paths {
        statuses.push((ada.status(path).await, bob.status(path).await));
    }
    assert_eq!(statuses, [(403, 200), (200, 403), (200, 403)]);
    assert_eq!(upstream.seen().len(), 3, "what is refused is not sent");
    ada.get(paths[0])
        .await
        .assert_error(403, "forbidden access: missing 'read' global permission for 'GlobalDatasource' kind");
    bob.get(paths[2])
        .await
        .assert_error(403, "forbidden access: missing 'read' permission in 'p' project for 'Datasource' kind");
    bob.get("/proxy/projects/none/datasources/prom/x").await.assert_error_with(400, "doesn't exist");
}

#[tokio::test]
async fn an_unsaved_datasource_needs_the_right_to_create_it_and_to_read_its_secret() {
    let upstream = Upstream::saying("{}").await;
    let server = server(None, json!({})).await;
    let admin = server.caller("admin");
    admin.users(&["viewer", "maker", "editor"]).await;
    admin.project("p").await.ok();
    admin.role(Some("p"), "maker", &["create"], &["Datasource"]).await;
    for role in ["viewer", "maker", "editor"] {
        admin.bind(Some("p"), &format!("{role}s"), role, &[role]).await;
    }
    let secret = json!({"kind": "Secret", "metadata": {"name": "s"}, "spec": {"authorization": {"credentials": "t"}}});
    admin.send("POST", "/api/v1/projects/p/secrets", &secret).await.ok();
    let body = |secret: &Value| json!({"method": "GET", "spec": datasource("Datasource", "x", &upstream.url(), secret)["spec"]});
    let (plain, with_secret) = (body(&Value::Null), body(&json!("s")));
    let mut statuses = Vec::new();
    for name in ["viewer", "maker", "editor"] {
        let caller = server.caller(name);
        for path in ["/proxy/unsaved/projects/p/datasources/x", "/proxy/unsaved/projects/p/dashboards/d/datasources/x"]
        {
            for body in [&plain, &with_secret] {
                statuses.push(caller.send("POST", path, body).await.status.as_u16());
            }
        }
        let global = caller.send("POST", "/proxy/unsaved/globaldatasources/x", &plain).await;
        global.assert_error(403, "forbidden access: missing 'create' global permission for 'GlobalDatasource' kind");
    }
    assert_eq!(statuses, [403, 403, 403, 403, 200, 403, 200, 403, 200, 200, 200, 200]);
    assert_eq!(upstream.seen().len(), 6, "what is refused is not sent");
    let refused = server.caller("maker").send("POST", "/proxy/unsaved/projects/p/datasources/x", &with_secret).await;
    refused.assert_error(403, "forbidden access: missing 'read' permission in 'p' project for 'Secret' kind");
    assert_eq!(admin.send("POST", "/proxy/unsaved/globaldatasources/x", &plain).await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_view_needs_the_right_to_read_the_dashboard() {
    let server = server(None, json!({})).await;
    let admin = server.caller("admin");
    admin.users(&["ada"]).await;
    admin.project("p").await.ok();
    admin.send("POST", "/api/v1/dashboards", &dashboard("p", "d")).await.ok();
    let view = json!({"project": "p", "dashboard": "d", "render_time": 1.0, "render_errors": 0});
    assert_eq!(admin.send("POST", "/api/v1/view", &view).await.status.as_u16(), 200);
    let refused = "unauthorized: missing 'read' permission in 'p' project for 'Dashboard' kind";
    server.caller("ada").send("POST", "/api/v1/view", &view).await.assert_error(401, refused);
}

#[tokio::test]
async fn to_use_a_secret_in_a_datasource_one_must_be_allowed_to_read_secrets() {
    let server = server(None, json!({})).await;
    let admin = server.caller("admin");
    admin.users(&["ada"]).await;
    admin.project("p").await.ok();
    admin.role(Some("p"), "writer", &["*"], &["Datasource", "Dashboard", "EphemeralDashboard"]).await;
    admin.bind(Some("p"), "writers", "writer", &["ada"]).await;
    admin.role(None, "writer", &["*"], &["GlobalDatasource"]).await;
    admin.bind(None, "writers", "writer", &["ada"]).await;
    let ada = server.caller("ada");
    let url = "http://prometheus:9090";
    let (secret, none) = (json!("s"), json!(""));
    let refused = "forbidden access: missing 'read' permission in 'p' project for 'Secret' kind";
    let all = "/api/v1/projects/p/datasources";
    ada.send("POST", all, &datasource("Datasource", "a", url, &secret)).await.assert_error(403, refused);
    ada.send("POST", all, &datasource("Datasource", "a", url, &none)).await.ok();
    let one = format!("{all}/a");
    ada.send("PUT", &one, &datasource("Datasource", "a", url, &secret)).await.assert_error(403, refused);
    // A letter of the name by its number is the same name.
    let hidden = datasource("Datasource", "a", url, &secret).to_string().replace("\"secret\"", "\"\\u0073ecret\"");
    ada.request("PUT", &one, hidden.into()).await.assert_error(403, refused);
    ada.send("POST", "/api/v1/globaldatasources", &datasource("GlobalDatasource", "g", url, &secret))
        .await
        .assert_error(403, "forbidden access: missing 'read' global permission for 'GlobalSecret' kind");

    let mut local = dashboard("p", "d");
    local["spec"]["datasources"] = json!({"own": datasource("Datasource", "", url, &secret)["spec"]});
    ada.send("POST", "/api/v1/dashboards", &local).await.assert_error(403, refused);
    local["spec"]["datasources"] = json!({"own": datasource("Datasource", "", url, &none)["spec"]});
    ada.send("POST", "/api/v1/dashboards", &local).await.ok();
    admin.role(Some("p"), "trusted", &["read"], &["Secret"]).await;
    admin.bind(Some("p"), "trusted", "trusted", &["ada"]).await;
    ada.send("PUT", &one, &datasource("Datasource", "a", url, &secret)).await.ok();
}

#[tokio::test]
async fn other_parts_ask_the_same_question() {
    let server = server(None, json!({})).await;
    let admin = server.caller("admin");
    admin.users(&["ada"]).await;
    admin.project("p").await.ok();
    admin.bind(Some("p"), "owners", "owner", &["ada"]).await;
    let authorizer = &server.state.authorizer;
    let principal = |caller: &super::Caller<'_>| {
        server.state.tokens.verify_access(&caller.token, None, jiff::Timestamp::now()).unwrap()
    };
    let (ada, admin) = (principal(&server.caller("ada")), principal(&admin));
    assert!(authorizer.is_administrator(Some(&admin)).await.unwrap());
    assert!(!authorizer.is_administrator(Some(&ada)).await.unwrap());
    assert!(authorizer.is_administrator(None).await.is_err(), "nobody is no administrator");
    assert!(authorizer.allows(None, Action::Read, Kind::Dashboard, Some("p")).await.is_err());
    assert_eq!(authorizer.readable(Some(&admin), Kind::Dashboard).await.unwrap(), Reach::Everywhere);
    assert_eq!(
        authorizer.readable(Some(&ada), Kind::Dashboard).await.unwrap(),
        Reach::Projects(["p".to_owned()].into())
    );
}

#[tokio::test]
async fn to_try_a_datasource_one_must_be_allowed_to_create_it_and_to_read_the_secret_it_names() {
    let upstream = Upstream::saying("{}").await;
    let server = server(None, json!({})).await;
    let admin = server.caller("admin");
    admin.users(&["ada", "bob"]).await;
    admin.project("p").await.ok();
    admin.bind(Some("p"), "viewers", "viewer", &["ada"]).await;
    admin.role(Some("p"), "trier", &["create"], &["Datasource"]).await;
    admin.bind(Some("p"), "triers", "trier", &["bob"]).await;
    let secret =
        json!({"kind": "Secret", "metadata": {"name": "s"}, "spec": {"basicAuth": {"username": "u", "password": "p"}}});
    admin.send("POST", "/api/v1/projects/p/secrets", &secret).await.ok();
    let body = |secret: Value| json!({"method": "GET", "spec": datasource("Datasource", "", &upstream.url(), &secret)["spec"]});
    let path = "/proxy/unsaved/projects/p/datasources/api/v1/labels";
    let (ada, bob) = (server.caller("ada"), server.caller("bob"));
    ada.send("POST", path, &body(Value::Null))
        .await
        .assert_error(403, "forbidden access: missing 'create' permission in 'p' project for 'Datasource' kind");
    bob.send("POST", path, &body(Value::Null)).await.ok();
    bob.send("POST", path, &body(json!("s")))
        .await
        .assert_error(403, "forbidden access: missing 'read' permission in 'p' project for 'Secret' kind");
    bob.send("POST", "/proxy/unsaved/globaldatasources/api/v1/labels", &body(Value::Null))
        .await
        .assert_error(403, "forbidden access: missing 'create' global permission for 'GlobalDatasource' kind");
    assert_eq!(upstream.seen().len(), 1);
    admin.send("POST", path, &body(json!("s"))).await.ok();
    assert!(upstream.last().header("authorization").is_some_and(|value| value.starts_with("Basic ")));
}

#[tokio::test]
async fn the_audit_log_is_for_administrators() {
    let server = server(None, json!({})).await;
    server.caller("somebody").get("/api/v1/audit").await.assert_error_with(403, "only administrators");
    let page = server.caller("admin").get("/api/v1/audit?user=(first%20user)").await.ok();
    assert!(!page["items"].as_array().unwrap().is_empty(), "what the server did itself: {page}");
}

#[tokio::test]
async fn a_refused_write_and_the_default_roles_of_a_project_are_audited() {
    let server = server(None, json!({})).await;
    let project = json!({"kind": "Project", "metadata": {"name": "p"}, "spec": {}});
    assert_eq!(server.caller("somebody").send("POST", "/api/v1/projects", &project).await.status, 403);
    let admin = server.caller("admin");
    admin.send("POST", "/api/v1/projects", &project).await.ok();
    let records = admin.get("/api/v1/audit?limit=6").await.ok()["items"].clone();
    let is = |record: &serde_json::Value| {
        [&record["user"], &record["kind"], &record["status"]].map(ToString::to_string).join(" ")
    };
    let mut found: Vec<String> = records.as_array().unwrap().iter().map(is).collect();
    found.sort();
    let wanted = [
        "\"admin\" \"Project\" 200",
        "\"admin\" \"Role\" 200",
        "\"admin\" \"Role\" 200",
        "\"admin\" \"Role\" 200",
        "\"admin\" \"RoleBinding\" 200",
        "\"somebody\" \"Project\" 403",
    ];
    assert_eq!(found, wanted);
}

#[tokio::test]
async fn the_cache_is_flushed_by_administrators_and_explained_to_who_may_ask() {
    let server = server(None, json!({})).await;
    let admin = server.caller("admin");
    admin.users(&["ada", "bob"]).await;
    admin.role(None, "reader", &["read"], &["GlobalDatasource"]).await;
    admin.bind(None, "readers", "reader", &["bob"]).await;
    let prom = datasource("GlobalDatasource", "prom", "http://127.0.0.1:9", &Value::Null);
    admin.send("POST", "/api/v1/globaldatasources", &prom).await.ok();
    let question = json!({"path": "/proxy/globaldatasources/prom/api/v1/query", "parameters": {"query": "up"}});
    let (ada, bob) = (server.caller("ada"), server.caller("bob"));
    ada.send("POST", "/api/v1/query/explain", &question).await.assert_error_with(403, "GlobalDatasource");
    let answer = bob.send("POST", "/api/v1/query/explain", &question).await.ok();
    assert_eq!((&answer["class"], answer.get("keys")), (&json!("pure"), None), "{answer}");
    let answer = admin.send("POST", "/api/v1/query/explain", &question).await.ok();
    assert!(answer["keys"]["answer"].is_string(), "{answer}");
    let all = json!({"all": true});
    bob.send("POST", "/api/v1/cache/flush", &all).await.assert_error_with(403, "administrators");
    admin.send("POST", "/api/v1/cache/flush", &all).await.ok();
}
