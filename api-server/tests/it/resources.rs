//! Every kind, every verb: statuses and bodies of Perses v0.54.

use axum::body::Body;
use perses_api_server::domain::kind::Kind;
use perses_api_server::negotiate;
use serde_json::{Value, json};

use crate::backends;
use crate::http::Server;

pub fn sample(kind: Kind) -> Value {
    match kind {
        Kind::Project => json!({"display": {"name": "A project"}}),
        Kind::EphemeralDashboard => {
            let mut spec = sample(Kind::Dashboard);
            spec["ttl"] = json!("1h");
            spec
        }
        Kind::Role | Kind::GlobalRole => json!({"permissions": [{"actions": ["read"], "scopes": ["Dashboard"]}]}),
        Kind::RoleBinding | Kind::GlobalRoleBinding => {
            json!({"role": "viewer", "subjects": [{"kind": "User", "name": "ada"}]})
        }
        Kind::Dashboard => json!({
            "display": {"name": "CPU"}, "duration": "6h", "refreshInterval": "30s",
            "variables": [{"kind": "TextVariable", "spec": {"name": "job", "value": "node"}}],
            "panels": {"cpu": {"kind": "Panel", "spec": {"plugin": {"kind": "Markdown", "spec": {"text": "<b>&</b>"}}}}},
            "layouts": [{"kind": "Grid", "spec": {"items": [
                {"x": 0, "y": 0, "width": 12, "height": 6, "content": {"$ref": "#/spec/panels/cpu"}}]}}],
        }),
        Kind::Datasource | Kind::GlobalDatasource => json!({
            "default": true,
            "plugin": {"kind": "PrometheusDatasource", "spec": {"proxy": {"kind": "HTTPProxy", "spec": {"url": "http://prometheus:9090"}}}},
        }),
        Kind::Folder => json!({"display": {"name": "F"}, "items": [{"kind": "Dashboard", "name": "cpu"}]}),
        Kind::Variable | Kind::GlobalVariable => {
            json!({"kind": "TextVariable", "spec": {"value": "v", "constant": true}})
        }
        Kind::Secret | Kind::GlobalSecret => json!({"basicAuth": {"username": "u", "password": "sesame"}}),
        Kind::User => json!({"firstName": "Ada", "nativeProvider": {"password": "sesame"}}),
    }
}

/// The kinds that a server without sign-in has.
fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| !kind.is_authorization())
}

fn document(kind: Kind, name: &str) -> Value {
    let mut metadata = json!({"name": name, "tags": ["one", "two"]});
    if kind.is_project_scoped() {
        metadata["project"] = json!("home");
    }
    json!({"kind": kind.as_str(), "metadata": metadata, "spec": sample(kind)})
}

fn collection(kind: Kind) -> String {
    let scope = if kind.is_project_scoped() { "projects/home/" } else { "" };
    format!("/api/v1/{scope}{}", kind.plural())
}

/// What a GET shows of a spec that was sent.
fn shown(kind: Kind) -> Value {
    let mut spec = sample(kind);
    match kind {
        Kind::Secret | Kind::GlobalSecret => spec["basicAuth"]["password"] = json!("<secret>"),
        Kind::User => spec["nativeProvider"]["password"] = json!("<secret>"),
        _ => {}
    }
    spec
}

#[tokio::test]
async fn every_kind_has_the_five_verbs_of_upstream_on_every_store() {
    for backend in backends::all().await {
        println!("on {}", backend.name);
        every_kind_has_the_five_verbs_of_upstream(&Server::on(backend.store.clone()).await).await;
    }
}

async fn every_kind_has_the_five_verbs_of_upstream(server: &Server) {
    server.project("home").await;
    for kind in kinds() {
        let (all, one) = (collection(kind), format!("{}/thing", collection(kind)));
        server.get(&one).await.assert_error(404, "document not found");
        server.send("PUT", &one, &document(kind, "thing")).await.assert_error(404, "document not found");
        server.delete(&one).await.assert_error(404, "document not found");

        let reply = server.send("POST", &all, &document(kind, "Thing")).await;
        assert!(reply.body.ends_with("}\n"), "{reply:?}");
        let created = reply.ok();
        assert_eq!(created["kind"], kind.as_str());
        assert_eq!(created["metadata"]["name"], "thing", "names are lower-cased");
        assert_eq!(created["metadata"]["version"], 0);
        assert_eq!(created["metadata"]["createdAt"], created["metadata"]["updatedAt"]);
        assert_eq!(created["metadata"]["tags"], json!(["one", "two"]));
        assert_eq!(created["metadata"].get("project").is_some(), kind.is_project_scoped(), "{created}");
        assert_eq!(created["spec"], shown(kind));
        server.send("POST", &all, &document(kind, "thing")).await.assert_error(409, "document already exists");

        assert_eq!(server.get(&one).await.ok(), created);
        assert_eq!(
            server
                .get(
                    &one.to_uppercase()
                        .replace("/API/V1/", "/api/v1/")
                        .replace("PROJECTS", "projects")
                        .replace(&kind.plural().to_uppercase(), kind.plural())
                )
                .await
                .ok(),
            created,
            "{kind}: names of the path too"
        );

        let mut changed = document(kind, "thing");
        changed["metadata"]["tags"] = json!(["three"]);
        changed["metadata"]["version"] = json!(77);
        changed["metadata"]["createdAt"] = json!("2001-01-01T00:00:00Z");
        let updated = server.send("PUT", &one, &changed).await.ok();
        assert_eq!(updated["metadata"]["version"], 1, "{kind}: what the client sends is ignored");
        assert_eq!(updated["metadata"]["createdAt"], created["metadata"]["createdAt"]);
        assert!(updated["metadata"]["updatedAt"].as_str() > created["metadata"]["updatedAt"].as_str());
        assert_eq!(updated["metadata"]["tags"], json!(["three"]));
        assert_eq!(server.get(&one).await.ok(), updated);

        let deleted = server.delete(&one).await;
        assert_eq!((deleted.status.as_u16(), deleted.body.as_str()), (204, ""), "{kind}");
        server.get(&one).await.assert_error(404, "document not found");
    }
}

#[tokio::test]
async fn lists_filter_by_project_prefix_and_kind_on_every_store() {
    for backend in backends::all().await {
        println!("on {}", backend.name);
        lists_filter_by_project_prefix_and_kind(&Server::on(backend.store.clone()).await).await;
    }
}

async fn lists_filter_by_project_prefix_and_kind(server: &Server) {
    assert_eq!(server.get("/api/v1/dashboards").await.body, "[]\n");
    for project in ["home", "work"] {
        server.project(project).await;
        for name in ["cpu", "cpu-total", "memory"] {
            let path = format!("/api/v1/projects/{project}/dashboards");
            let body = json!({"kind": "Dashboard", "metadata": {"name": name}, "spec": sample(Kind::Dashboard)});
            server.send("POST", &path, &body).await.ok();
        }
    }
    let names = async |path: &str| -> Vec<String> {
        let list = server.get(path).await.ok();
        let name = |one: &Value| {
            let metadata = &one["metadata"];
            format!("{}/{}", metadata["project"].as_str().unwrap_or_default(), metadata["name"].as_str().unwrap())
        };
        list.as_array().unwrap().iter().map(name).collect()
    };
    assert_eq!(
        names("/api/v1/dashboards?name=CPU").await,
        ["home/cpu", "home/cpu-total", "work/cpu", "work/cpu-total"]
    );
    assert_eq!(names("/api/v1/dashboards?project=work&name=m").await, ["work/memory"]);
    assert_eq!(names("/api/v1/projects/home/dashboards?name=cpu-").await, ["home/cpu-total"]);
    assert_eq!(names("/api/v1/projects?name=wo").await, ["/work"]);
    assert_eq!(names("/api/v1/dashboards?project=work").await.len(), 3);

    let list = server.get("/api/v1/projects/home/dashboards?metadata_only=true").await.ok();
    for one in list.as_array().unwrap() {
        assert_eq!(one["spec"], json!({}));
        assert_eq!(one["kind"], "Dashboard");
        assert_eq!(one["metadata"]["version"], 0);
    }
    let titled = json!({"kind": "Dashboard", "metadata": {"name": "titled"},
        "spec": {"display": {"name": "A \"title\"", "description": "d"}, "duration": "1h", "panels": {}, "layouts": []}});
    server.send("POST", "/api/v1/projects/home/dashboards", &titled).await.ok();
    let list = server.get("/api/v1/projects/home/dashboards?metadata_only=true&display=true&name=titled").await.ok();
    assert_eq!(list[0]["spec"], json!({"display": {"name": "A \"title\""}}), "the name and nothing else");
    server.delete("/api/v1/projects/home/dashboards/titled").await;
    server.get("/api/v1/projects/home/dashboards?project=work").await.assert_error(
        400,
        "bad request: the project name in the path (home) and the project name in the query parameter (work) are different",
    );
    server.get("/api/v1/dashboards?project=a%2Fb").await.assert_error_with(400, "is not a correct name");
    let missing = "bad request: metadata.project \"nowhere\" doesn't exist";
    server.get("/api/v1/projects/nowhere/dashboards").await.assert_error(400, missing);
    server.get("/api/v1/projects/nowhere/dashboards/cpu").await.assert_error(400, missing);
}

#[tokio::test]
async fn datasources_filter_by_plugin_and_have_one_default() {
    let server = Server::open().await;
    let body = |name: &str, plugin: &str, default: bool| {
        json!({"kind": "GlobalDatasource", "metadata": {"name": name},
            "spec": {"default": default, "plugin": {"kind": plugin, "spec": {"directUrl": "http://x"}}}})
    };
    let path = "/api/v1/globaldatasources";
    for (name, plugin, default) in
        [("a", "PrometheusDatasource", true), ("b", "PrometheusDatasource", false), ("c", "TempoDatasource", true)]
    {
        server.send("POST", path, &body(name, plugin, default)).await.ok();
    }
    let names = async |query: &str| -> Vec<String> {
        let list = server.get(&format!("{path}?{query}")).await.ok();
        list.as_array().unwrap().iter().map(|one| one["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("kind=PrometheusDatasource").await, ["a", "b"]);
    assert_eq!(names("default=true").await, ["a", "c"]);
    assert_eq!(names("kind=PrometheusDatasource&default=false").await, ["b"]);
    // Upstream ignores metadata_only here.
    assert_eq!(
        server.get(&format!("{path}?metadata_only=true")).await.ok()[0]["spec"]["plugin"]["kind"],
        "PrometheusDatasource"
    );
    let clash = "bad request: datasource \"b\" cannot be a default \"PrometheusDatasource\" because there is already one defined named \"a\"";
    server.send("PUT", &format!("{path}/b"), &body("b", "PrometheusDatasource", true)).await.assert_error(400, clash);
    server.send("PUT", &format!("{path}/a"), &body("a", "PrometheusDatasource", true)).await.ok();
}

#[tokio::test]
async fn a_dashboard_comes_back_as_it_was_sent_on_every_store() {
    for backend in backends::all().await {
        println!("on {}", backend.name);
        a_dashboard_comes_back_as_it_was_sent(&Server::on(backend.store.clone()).await).await;
    }
}

async fn a_dashboard_comes_back_as_it_was_sent(server: &Server) {
    server.project("home").await;
    let spec = r#"{ "z": 1.50, "big": 12345678901234567890, "panels": {"b":{"kind":"Panel","spec":{"plugin":{"kind":"P","x":null}}},"a":{"kind":"Panel","spec":{"plugin":{"kind":"P"}}}}, "text":"\u003cé" }"#;
    let body = format!(r#"{{"kind":"Dashboard","metadata":{{"name":"d"}},"spec":{spec}}}"#);
    let path = "/api/v1/projects/home/dashboards";
    let created = server.text("POST", path, "application/json; charset=utf-8", body).await;
    // Only the default of `duration` is added.
    let stored = spec.replacen('{', r#"{"duration":"1h","#, 1);
    assert!(created.body.contains(&format!(r#""spec":{stored}}}"#)), "{}", created.body);
    assert!(server.get(&format!("{path}/d")).await.body.contains(&stored));
    assert!(server.get(path).await.body.contains(&stored));
}

#[tokio::test]
async fn documents_and_lists_are_compressed_for_those_who_take_it() {
    let server = Server::open().await;
    server.project("home").await;
    let mut large = document(Kind::Dashboard, "cpu");
    large["spec"]["panels"]["cpu"]["spec"]["plugin"]["spec"]["text"] = json!("many words ".repeat(2000));
    server.send("POST", "/api/v1/dashboards", &large).await.ok();
    let one = "/api/v1/projects/home/dashboards/cpu";
    for path in [one, "/api/v1/projects/home/dashboards"] {
        let plain = server.get(path).await;
        assert_eq!(plain.headers.get("content-encoding"), None);
        assert_eq!(plain.headers["vary"], "accept-encoding");
        // Twice: made, and made before.
        for _ in 0..2 {
            let request = server.builder("GET", path).header("accept-encoding", "gzip").body(Body::empty()).unwrap();
            let (parts, bytes) = server.bytes(request).await;
            assert_eq!(parts.headers["content-encoding"], "gzip");
            assert!(bytes.len() * 10 < plain.body.len(), "{} of {}", bytes.len(), plain.body.len());
            assert_eq!(negotiate::gunzip(&bytes).unwrap(), plain.body.as_bytes());
        }
    }
    let zipped = server.builder("GET", one).header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    let etag = server.bytes(zipped).await.0.headers["etag"].clone();
    assert_ne!(etag, server.get(one).await.headers["etag"], "other bytes, another validator");
    let again = server.builder("GET", one).header("accept-encoding", "gzip").header("if-none-match", &etag);
    assert_eq!(server.bytes(again.body(Body::empty()).unwrap()).await.0.status.as_u16(), 304);
    let put = server.builder("PUT", one).header("if-match", etag).header("content-type", "application/json");
    assert_eq!(server.raw(put.body(Body::from(large.to_string())).unwrap()).await.status.as_u16(), 200);
    let small =
        server.builder("GET", "/api/v1/projects").header("accept-encoding", "gzip").body(Body::empty()).unwrap();
    assert_eq!(server.bytes(small).await.0.headers.get("content-encoding"), None, "not worth it");
}

#[tokio::test]
async fn etags_answer_304_and_guard_updates() {
    let server = Server::open().await;
    server.project("home").await;
    let path = "/api/v1/projects/home";
    let etag = server.get(path).await.headers["etag"].clone();
    let cached = server.builder("GET", path).header("if-none-match", &etag).body(axum::body::Body::empty()).unwrap();
    assert_eq!(server.raw(cached).await.status.as_u16(), 304);
    let body = json!({"kind": "Project", "metadata": {"name": "home"}, "spec": {"display": {"name": "x"}}});
    let put = |etag: axum::http::HeaderValue| {
        let builder = server.builder("PUT", path).header("if-match", etag).header("content-type", "application/json");
        builder.body(axum::body::Body::from(body.to_string())).unwrap()
    };
    assert_eq!(server.raw(put(etag.clone())).await.status.as_u16(), 200);
    assert_eq!(server.raw(put(etag)).await.status.as_u16(), 412, "the version moved on");
}

#[tokio::test]
async fn a_deleted_project_takes_everything_with_it_on_every_store() {
    for backend in backends::all().await {
        println!("on {}", backend.name);
        a_deleted_project_takes_everything_with_it(&Server::on(backend.store.clone()).await).await;
    }
}

async fn a_deleted_project_takes_everything_with_it(server: &Server) {
    for project in ["home", "other"] {
        server.project(project).await;
        for kind in kinds().filter(|kind| kind.is_project_scoped()) {
            let mut body = document(kind, "thing");
            body["metadata"]["project"] = json!(project);
            server.send("POST", &format!("/api/v1/{}", kind.plural()), &body).await.ok();
        }
    }
    assert_eq!(server.delete("/api/v1/projects/home").await.status.as_u16(), 204);
    server.project("home").await;
    for kind in kinds().filter(|kind| kind.is_project_scoped()) {
        server.get(&format!("{}/thing", collection(kind))).await.assert_error(404, "document not found");
        assert_eq!(server.get(&collection(kind)).await.body, "[]\n");
        server.get(&format!("/api/v1/projects/other/{}/thing", kind.plural())).await.ok();
    }
}

#[tokio::test]
async fn variables_of_a_dashboard_may_live_in_the_project_or_globally() {
    let server = Server::open().await;
    server.project("home").await;
    let body = json!({"kind": "Dashboard", "metadata": {"name": "d", "project": "home"}, "spec": {"variables": [
        {"kind": "ListVariable", "spec": {"name": "pod", "plugin": {"kind": "P", "spec": {"matchers": ["up{ns=\"$ns\",c=\"$cluster\"}"]}}}}]}});
    let missing = |name: &str| {
        format!("bad request: spec.variables: variable \"{name}\" is used in the variable \"pod\" but not defined")
    };
    let validate = "/api/validate/dashboards";
    server.send("POST", "/api/v1/dashboards", &body).await.assert_error(400, &missing("cluster"));
    let variable = |kind: Kind, name: &str| {
        let mut document = document(kind, name);
        document["spec"] = json!({"kind": "TextVariable", "spec": {"value": "v"}});
        document
    };
    server.send("POST", "/api/v1/globalvariables", &variable(Kind::GlobalVariable, "cluster")).await.ok();
    server.send("POST", validate, &body).await.assert_error(400, &missing("ns"));
    server.send("POST", "/api/v1/variables", &variable(Kind::Variable, "ns")).await.ok();
    assert_eq!(server.send("POST", validate, &body).await.body, "");
    server.send("POST", "/api/v1/dashboards", &body).await.ok();
    server
        .send("POST", "/api/v1/globalvariables", &variable(Kind::GlobalVariable, "42"))
        .await
        .assert_error(400, "bad request: metadata.name: variable name '42' is not valid");
}

#[tokio::test]
async fn validation_answers_200_and_nothing_or_400() {
    let server = Server::open().await;
    for kind in [Kind::Dashboard, Kind::Datasource, Kind::GlobalDatasource, Kind::Variable, Kind::GlobalVariable] {
        let path = format!("/api/validate/{}", kind.plural());
        let mut body = document(kind, "thing");
        if kind.is_project_scoped() {
            body["metadata"]["project"] = json!("");
        }
        let reply = server.send("POST", &path, &body).await;
        assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, ""), "{kind}");
        body["spec"] = json!({"plugin": {"kind": ""}, "panels": {"a": {}}});
        assert_eq!(server.send("POST", &path, &body).await.status.as_u16(), 400, "{kind}");
        server.text("POST", &path, "text/plain", "{}").await.assert_error_with(400, "Unsupported Media Type");
    }
    assert_eq!(server.get("/api/v1/dashboards").await.body, "[]\n", "nothing was written");
}

#[tokio::test]
async fn readonly_has_no_routes_that_write() {
    let server = Server::start(json!({"security": {"readonly": true}, "ephemeral_dashboard": {"enable": true}})).await;
    for kind in kinds() {
        let one = format!("{}/thing", collection(kind));
        server.send("POST", &collection(kind), &document(kind, "thing")).await.assert_error(405, "Method Not Allowed");
        server.send("PUT", &one, &document(kind, "thing")).await.assert_error(405, "Method Not Allowed");
        server.delete(&one).await.assert_error(405, "Method Not Allowed");
    }
    assert_eq!(server.get("/api/v1/projects").await.body, "[]\n");
    server.send("POST", "/api/validate/globalvariables", &document(Kind::GlobalVariable, "v")).await;
}

#[tokio::test]
async fn health_config_plugins_and_views_have_upstreams_shapes() {
    let server = Server::open().await;
    let health = server.get("/api/v1/health").await.ok();
    assert_eq!(health["database"], true);
    let keys: Vec<&String> = health.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["buildTime", "commit", "database", "version"]);
    let parts: Vec<u64> = health["version"].as_str().unwrap().split('.').map(|part| part.parse().unwrap()).collect();
    assert_eq!(parts.len(), 3, "percli wants a semantic version");

    let config = server.get("/api/config").await.ok();
    assert_eq!(config["security"]["enable_auth"], false);
    assert_eq!(config["frontend"]["explorer"]["enable"], true);
    assert!(server.get("/api/v1/plugins").await.ok().is_array());

    server.project("home").await;
    server.send("POST", "/api/v1/dashboards", &document(Kind::Dashboard, "cpu")).await.ok();
    let view = json!({"project": "home", "dashboard": "cpu", "render_time": 1.5, "render_errors": 2});
    let reply = server.send("POST", "/api/v1/view", &view).await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, ""));
    let metrics = server.get("/metrics").await.body;
    let labels = r#"{project="home",dashboard="cpu"}"#;
    for line in [
        format!("perses_dashboard_views_total{labels} 1"),
        format!("perses_dashboard_render_errors_total{labels} 2"),
        format!("perses_dashboard_render_time_seconds_count{labels} 1"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    let view = json!({"project": "home", "dashboard": "none"});
    server.send("POST", "/api/v1/view", &view).await.assert_error(404, "document not found");
    let view = json!({"project": "home", "dashboard": "cpu", "render_errors": -1});
    server.send("POST", "/api/v1/view", &view).await.assert_error(400, "bad request: render_errors cannot be negative");
}

#[tokio::test]
async fn switches_of_the_configuration_take_routes_and_local_datasources_away() {
    let server = Server::start(json!({"datasource": {"global": {"disable": true}, "disable_local": true}})).await;
    for kind in [Kind::GlobalDatasource, Kind::GlobalVariable] {
        assert_eq!(server.get(&collection(kind)).await.status.as_u16(), 404, "{kind}");
    }
    server.project("home").await;
    for kind in [Kind::Datasource, Kind::Variable] {
        assert_eq!(server.get(&collection(kind)).await.body, "[]\n", "{kind}");
    }
    let mut body = document(Kind::Dashboard, "d");
    server.send("POST", "/api/v1/dashboards", &body).await.ok();
    body["spec"]["datasources"] =
        json!({"local": {"plugin": {"kind": "PrometheusDatasource", "spec": {"directUrl": "http://x"}}}});
    let message = "bad request: local datasource cannot be used as it has been disabled in the configuration";
    server.send("PUT", "/api/v1/projects/home/dashboards/d", &body).await.assert_error(400, message);
    server.send("POST", "/api/validate/dashboards", &body).await.assert_error(400, message);
}
