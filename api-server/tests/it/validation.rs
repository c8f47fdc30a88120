//! What is checked beyond the structure: modes, the header with warnings, the operator's rules, switches, and `lint`.

use std::path::{Path, PathBuf};
use std::process::Command;

use perses_api_server::commands::lint::{self, Form, LintArgs, Output};
use perses_api_server::config::{Config, load};
use perses_api_server::domain::lint::Severity;
use serde_json::{Value, json};

use crate::http::{Reply, Server};

const PATH: &str = "/api/v1/projects/home/dashboards";

async fn server(config: Value) -> Server {
    let server = Server::start(config).await;
    server.project("home").await;
    server
}

fn dashboard(name: &str, spec: &Value) -> Value {
    json!({"kind": "Dashboard", "metadata": {"name": name, "project": "home"}, "spec": spec})
}

fn panel(legend: &str, query: &str) -> Value {
    json!({"duration": "1h", "panels": {"cpu": {"kind": "Panel", "spec": {
        "plugin": {"kind": "TimeSeriesChart", "spec": {"legend": {"position": legend}}},
        "queries": [{"kind": "TimeSeriesQuery", "spec": {
            "plugin": {"kind": "PrometheusTimeSeriesQuery", "spec": {"query": query}}}}]}}}})
}

fn warnings(reply: &Reply) -> Vec<String> {
    reply.headers.get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

/// Those that do not depend on whether this build has a UI with plugins.
fn about(reply: &Reply, part: &str) -> Vec<String> {
    warnings(reply).into_iter().filter(|text| text.contains(part)).collect()
}

#[tokio::test]
async fn findings_are_told_and_enforced_as_configured() {
    let bad = dashboard("bad", &panel("left", "rate(up[30d])"));
    let place = "spec.panels.cpu.spec.plugin.spec.legend.position: ";

    let warn = server(json!({})).await;
    let created = warn.send("POST", PATH, &bad).await;
    assert_eq!(created.status.as_u16(), 200, "{created:?}");
    let told = about(&created, place);
    assert_eq!(told.len(), 1, "{created:?}");
    assert!(told[0].starts_with("299 perses \"") && told[0].ends_with('"'), "{told:?}");
    assert_eq!(about(&created, "looks back 30d, at most 1w is allowed").len(), 1, "{created:?}");
    for (method, path) in [("PUT", format!("{PATH}/bad")), ("POST", "/api/validate/dashboards".to_owned())] {
        let reply = warn.send(method, &path, &bad).await;
        assert_eq!(warnings(&reply), warnings(&created), "{method} {path}");
    }
    let good = warn.send("POST", PATH, &dashboard("good", &panel("bottom", "rate(up[5m])"))).await;
    assert_eq!((good.status.as_u16(), about(&good, place).len(), about(&good, "looks back").len()), (200, 0, 0));

    let enforce = server(json!({"validation": {"mode": "enforce"}})).await;
    for (method, path) in [("POST", PATH), ("POST", "/api/validate/dashboards")] {
        let reply = enforce.send(method, path, &bad).await;
        reply.assert_error_with(400, place);
        reply.assert_error_with(400, "bad request: ");
        reply.assert_error_with(400, "looks back 30d");
    }
    assert_eq!(enforce.get(&format!("{PATH}/bad")).await.status.as_u16(), 404);

    let off = server(json!({"validation": {"mode": "off"}})).await;
    let created = off.send("POST", PATH, &bad).await;
    assert_eq!((created.status.as_u16(), warnings(&created).len()), (200, 0));
}

#[tokio::test]
async fn an_answer_tells_ten_things_at_most() {
    let server = server(json!({})).await;
    let panels: serde_json::Map<String, Value> =
        (0..30).map(|n| (format!("p{n}"), panel("left", "up")["panels"]["cpu"].clone())).collect();
    let created = server.send("POST", PATH, &dashboard("many", &json!({"panels": panels}))).await;
    let told = warnings(&created);
    assert_eq!((created.status.as_u16(), told.len()), (200, 10));
    assert!(told[9].contains("more findings"), "{told:?}");
}

#[tokio::test]
async fn a_variable_is_defined_somewhere() {
    let server = server(json!({})).await;
    let text = |kind: &str, name: &str, value: &str| json!({"kind": kind, "metadata": {"name": name, "project": "home"}, "spec": {"kind": "TextVariable", "spec": {"value": value}}});
    server.send("POST", "/api/v1/globalvariables", &text("GlobalVariable", "everywhere", "x")).await.ok();
    server.send("POST", "/api/v1/variables", &text("Variable", "here", "$back")).await.ok();
    let board = |query: &str, variables: &Value| {
        let mut spec = panel("right", query);
        spec["variables"] = variables.clone();
        dashboard("v", &spec)
    };
    let used = |value: &str| json!([{"kind": "TextVariable", "spec": {"name": "own", "value": value}}]);
    let validate = "/api/validate/dashboards";

    let reply = server.send("POST", validate, &board("up{a=\"$own$here$everywhere$nowhere\"}", &used("v"))).await;
    let told = about(&reply, "is used but not defined");
    assert_eq!((reply.status.as_u16(), told.len()), (200, 1), "{reply:?}");
    assert!(
        told[0].contains("spec.panels.cpu.spec.queries[0].spec.plugin.spec.query: variable \\\"nowhere\\\""),
        "{told:?}"
    );

    // In a variable it is an error, as with Perses; so is a circle, also by way of the project.
    server.send("POST", validate, &board("up", &used("$nowhere"))).await.assert_error(
        400,
        "bad request: spec.variables: variable \"nowhere\" is used in the variable \"own\" but not defined",
    );
    let circle = json!([{"kind": "TextVariable", "spec": {"name": "back", "value": "$here"}}]);
    server
        .send("POST", validate, &board("up", &circle))
        .await
        .assert_error_with(400, "circular dependency detected (among back, here)");
    let reply = server.send("POST", validate, &board("up", &used("${nowhere:csv} $everywhere"))).await;
    assert_eq!((reply.status.as_u16(), about(&reply, "\\\"nowhere\\\"").len()), (200, 1), "{reply:?}");
}

#[tokio::test]
async fn switches_refuse_what_is_local_or_direct() {
    let plugin = |spec: Value| json!({"plugin": {"kind": "PrometheusDatasource", "spec": spec}});
    let direct = plugin(json!({"directUrl": "http://prometheus:9090"}));
    let proxied = plugin(json!({"proxy": {"kind": "HTTPProxy", "spec": {"url": "http://prometheus:9090"}}}));
    let datasource =
        |spec: &Value| json!({"kind": "Datasource", "metadata": {"name": "d", "project": "home"}, "spec": spec});
    let local = dashboard("l", &json!({"datasources": {"d": direct}}));

    let lenient = server(json!({})).await;
    let created = lenient.send("POST", "/api/v1/datasources", &datasource(&direct)).await;
    assert_eq!(created.status.as_u16(), 200);
    assert_eq!(
        about(&created, "spec.plugin.spec.directUrl: the browser calls this address itself").len(),
        1,
        "{created:?}"
    );
    let created = lenient.send("POST", PATH, &local).await;
    assert_eq!(about(&created, "spec.datasources.d.plugin.spec.directUrl: the browser").len(), 1, "{created:?}");

    let strict = server(json!({"validation": {"mode": "off"}, "datasource": {"disable_direct_url": true}})).await;
    let text = "datasource.disable_direct_url";
    strict.send("POST", "/api/v1/datasources", &datasource(&direct)).await.assert_error_with(400, text);
    strict.send("POST", "/api/validate/datasources", &datasource(&direct)).await.assert_error_with(400, text);
    strict.send("POST", PATH, &local).await.assert_error_with(400, "spec.datasources.d.plugin.spec.directUrl: ");
    strict.send("POST", "/api/v1/datasources", &datasource(&proxied)).await.ok();

    let plain = server(json!({"datasource": {"disable_local": true}, "variable": {"disable_local": true}})).await;
    let refused =
        |what: &str| format!("bad request: local {what} cannot be used as it has been disabled in the configuration");
    plain.send("POST", PATH, &local).await.assert_error(400, &refused("datasource"));
    let variable = json!({"variables": [{"kind": "TextVariable", "spec": {"name": "a", "value": "b"}}]});
    plain.send("POST", PATH, &dashboard("v", &variable)).await.assert_error(400, &refused("variable"));
    plain.send("POST", PATH, &dashboard("p", &json!({"variables": [], "datasources": {}}))).await.ok();
}

#[tokio::test]
async fn rules_of_the_operator_are_answered_with_their_message() {
    let rules = json!([
        {"name": "names", "target": "$.metadata.name", "assertion": "value.matches('^[a-z-]+$')", "message": "Lower case, please."},
        {"name": "panels", "target": "$.spec.panels", "assertion": "size(value) > 0", "message": "A dashboard has panels."},
        {"name": "off", "target": "$.spec", "assertion": "false", "message": "never", "disable": true}
    ]);
    let server = server(json!({"dashboard": {"custom_lint_rules": rules}, "validation": {"mode": "off"}})).await;
    let validate = "/api/validate/dashboards";
    server
        .send("POST", PATH, &dashboard("a1", &panel("right", "up")))
        .await
        .assert_error(400, "bad request: Lower case, please.");
    let empty = dashboard("a", &json!({"panels": {}}));
    for (method, path) in [("POST", PATH), ("POST", validate)] {
        server.send(method, path, &empty).await.assert_error(400, "bad request: A dashboard has panels.");
    }
    server.send("POST", PATH, &dashboard("a", &panel("right", "up"))).await.ok();
    server.send("PUT", &format!("{PATH}/a"), &empty).await.assert_error(400, "bad request: A dashboard has panels.");
}

#[tokio::test]
async fn a_broken_rule_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let rule = json!({"name": "r", "target": "$.spec", "assertion": "valeu == 1", "message": "m"});
    let config: Config = serde_json::from_value(json!({
        "database": {"file": {"folder": folder.path()}}, "dashboard": {"custom_lint_rules": [rule]}}))
    .unwrap();
    let error = perses_api_server::state::AppState::build(config, None).unwrap_err();
    assert_eq!(
        error,
        "dashboard.custom_lint_rules[0] (r): assertion \"valeu == 1\" cannot be used: unknown name \"valeu\" (the value is called \"value\")"
    );
}

#[tokio::test]
async fn depth_is_refused_and_ends_nothing() {
    let server = server(json!({})).await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{\"kind\":\"Folder\",\"items\":[", "]}")] {
        let deep = format!("{}1{}", open.repeat(10_000), close.repeat(10_000));
        for (kind, plural) in [
            ("Dashboard", "dashboards"),
            ("Datasource", "datasources"),
            ("Folder", "folders"),
            ("Variable", "variables"),
        ] {
            let body = format!(
                r#"{{"kind":"{kind}","metadata":{{"name":"d","project":"home"}},"spec":{{"plugin":{{"kind":"P","spec":{deep}}},"items":{deep}}}}}"#
            );
            let reply = server.text("POST", &format!("/api/v1/{plural}"), "application/json", body).await;
            assert_eq!(reply.status.as_u16(), 400, "{kind} {open}: {}", reply.body);
        }
    }
    server.send("POST", PATH, &dashboard("alive", &json!({"panels": {}}))).await.ok();
}

fn args(files: &[&Path], folders: &[&Path]) -> LintArgs {
    let owned = |paths: &[&Path]| paths.iter().map(|path| (*path).to_owned()).collect();
    LintArgs { files: owned(files), folders: owned(folders), form: Form { strict: false, output: Output::Table } }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn every_configuration_that_the_operator_writes_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut read = 0;
    for case in
        std::fs::read_dir(repository().join("operator/tests/golden")).unwrap().map(|entry| entry.unwrap().path())
    {
        let Ok(expected) = std::fs::read_dir(case.join("expected")) else { continue };
        for path in expected.map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if !(name.starts_with("secret.") && name.ends_with("-hash.yaml")) {
                continue;
            }
            let secret: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let Some(text) = secret["stringData"]["config.yaml"].as_str() else { continue };
            let file = folder.path().join("config.yaml");
            std::fs::write(&file, text).unwrap();
            let loaded = load(Some(&file), &std::collections::BTreeMap::new());
            assert!(loaded.is_ok(), "{}: {:?}", path.display(), loaded.err());
            read += 1;
        }
    }
    assert!(read >= 8, "only {read} configurations among the golden files");
}

#[test]
fn what_the_project_ships_is_clean() {
    let folder = tempfile::tempdir().unwrap();
    // Datasources as the operator provisions them, from its golden files.
    let golden = repository().join("operator/tests/golden");
    let mut secrets = 0;
    for case in std::fs::read_dir(&golden).unwrap().map(|entry| entry.unwrap().path()) {
        let Ok(expected) = std::fs::read_dir(case.join("expected")) else { continue };
        for path in expected.map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if !(name.starts_with("secret.") && name.ends_with("-provisioning.yaml")) {
                continue;
            }
            let secret: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            for (file, text) in secret["stringData"].as_object().unwrap() {
                std::fs::write(folder.path().join(format!("{secrets}-{file}")), text.as_str().unwrap()).unwrap();
            }
            secrets += 1;
        }
    }
    assert!(secrets > 0, "no provisioning secret among the golden files");
    let demo = repository().join("e2e/assets/demo/dashboards");
    let project = repository().join("e2e/assets/demo/project.json");
    let report = lint::run(&Config::default(), None, &args(&[&project], &[&demo, folder.path()])).unwrap();
    assert!(report.documents >= 4, "{report:?}");
    // A build without UI has no plugins to know; that is told as a warning.
    let telling: Vec<_> = report.entries.iter().filter(|entry| !entry.finding.path.ends_with("plugin.kind")).collect();
    assert!(telling.is_empty(), "{telling:#?}");
}

#[test]
fn lint_reads_every_form_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "many.yaml",
        "kind: GlobalVariable\nmetadata: {name: region}\nspec: {kind: TextVariable, spec: {value: eu}}\n---\n- kind: Dashboard\n  metadata: {name: one, project: home}\n  spec: {panels: {}, refreshInterval: soon}\n",
    );
    let mut uses = panel("right", "up{a=\"$region\", b=\"$unknown\"}");
    uses["panels"]["cpu"]["spec"]["plugin"]["spec"]["legend"]["mode"] = json!("grid");
    write(
        "list.json",
        &json!([dashboard("two", &uses), {"kind": "Nothing"}, {"kind": "Project", "metadata": {"name": "home"}}])
            .to_string(),
    );
    write("broken.json", "{");
    let report = lint::run(&Config::default(), None, &args(&[], &[folder.path()])).unwrap();
    let found = |document: &str, severity: Severity, path: &str, part: &str| {
        let all = &report.entries;
        assert!(
            all.iter().any(|entry| entry.document == document
                && entry.finding.severity == severity
                && entry.finding.path == path
                && entry.finding.text.contains(part)),
            "{document} {path} {part}\n{}",
            report.print(Output::Table)
        );
    };
    assert_eq!(report.documents, 5);
    found("", Severity::Error, "", "EOF");
    found("Dashboard home/one", Severity::Error, "spec.refreshInterval", "not a valid duration");
    found("Dashboard home/two", Severity::Error, "spec.panels.cpu.spec.plugin.spec.legend.mode", "must be one of");
    found(
        "Dashboard home/two",
        Severity::Warning,
        "spec.panels.cpu.spec.queries[0].spec.plugin.spec.query",
        "\"unknown\"",
    );
    found("Nothing ", Severity::Error, "kind", "not a kind of this server");
    assert!(!report.print(Output::Table).contains("\"region\""));
    assert!(report.is_bad(false));
}

#[test]
fn the_exit_code_tells() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("d.json");
    let lint = |spec: &Value, more: &[&str]| {
        std::fs::write(&file, dashboard("d", spec).to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_perses-api-server"));
        let output = command.arg("lint").arg("-f").arg(&file).args(more).current_dir(&folder).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let clean = json!({"panels": {}});
    assert_eq!(lint(&clean, &["--strict"]), (Some(0), "1 documents, 0 errors, 0 warnings\n".to_owned()));
    let mut warned = clean.clone();
    warned["links"] = json!([{"url": "/$x", "renderVariables": true}]);
    assert_eq!(lint(&warned, &[]).0, Some(0));
    let (code, printed) = lint(&warned, &["--strict", "--output", "json"]);
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((code, &printed["findings"][0]["path"]), (Some(1), &json!("spec.links[0].url")));
    let (code, printed) = lint(&json!({"panels": {"a b": {}}}), &[]);
    assert_eq!(code, Some(1));
    assert!(printed.contains("spec.panels.a b") && printed.contains("1 errors"), "{printed}");
}
