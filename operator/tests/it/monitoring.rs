//! What Prometheus is given: rules that fire when they should, on metrics that exist, with a page for each alert.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use e2e::services::{ApiServer, Postgres, Prometheus, Scrape, USER, promtool};
use kube::api::{Patch, PatchParams};
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::conditions::find;
use persesstack_operator::controllers::persesstack::build::monitoring::{
    Scope, alert_names, dashboard_documents, prometheus_rule,
};
use regex::Regex;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cluster::{DEADLINE, Operator, REPAIR, Space, World, equipped, within};
use crate::files;

fn scope() -> Scope {
    Scope::new("obs", "perses")
}

/// Every rule's expression, and every query of the dashboard.
fn expressions() -> Vec<String> {
    let rule = prometheus_rule(&scope());
    let groups = rule["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    let mut all: Vec<String> = rules.map(|rule| rule["expr"].as_str().unwrap().to_owned()).collect();
    for document in dashboard_documents(&scope()) {
        for panel in document["spec"]["panels"].as_object().into_iter().flat_map(|panels| panels.values()) {
            for query in panel["spec"]["queries"].as_array().unwrap() {
                all.push(query["spec"]["plugin"]["spec"]["query"].as_str().unwrap().to_owned());
            }
        }
    }
    all
}

/// Metric and matchers of every selector.
fn selectors() -> BTreeSet<(String, String)> {
    let selector = Regex::new(r"([a-z_:0-9]+)\{([^}]*)\}").unwrap();
    let expressions = expressions();
    let found = expressions.iter().flat_map(|expr| selector.captures_iter(expr));
    found.map(|found| (found[1].to_owned(), found[2].to_owned())).collect()
}

/// The family of a series.
fn family(metric: &str) -> &str {
    ["_bucket", "_count", "_sum"].iter().find_map(|suffix| metric.strip_suffix(suffix)).unwrap_or(metric)
}

#[tokio::test]
async fn every_alert_fires_when_it_should() {
    let rules = prometheus_rule(&scope()).to_string();
    promtool(&["check", "rules"], &[("rules.yaml", &rules)]).await.unwrap();
    let tests = files::read("tests/promtool/alerts.yaml");
    for alert in alert_names() {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} is not tested");
    }
    promtool(&["test", "rules"], &[("alerts.yaml", &tests), ("rules.yaml", &rules)]).await.unwrap();
}

#[test]
fn every_alert_has_a_page_and_every_page_an_alert() {
    let folder = files::workspace_dir().join("docs/runbooks");
    let pages: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    assert_eq!(pages, alert_names());
    let list = fs::read_to_string(files::workspace_dir().join("docs/monitoring.md")).unwrap();
    for name in &pages {
        let page = fs::read_to_string(folder.join(format!("{name}.md"))).unwrap();
        for part in [&format!("# {name}\n"), "## What it means", "## How to look", "## What to do"] {
            assert!(page.contains(part), "{name}.md has no {part:?}");
        }
        assert!(list.contains(&format!("[{name}](runbooks/{name}.md)")), "docs/monitoring.md does not list {name}");
    }
    let rule = prometheus_rule(&scope());
    let alerts = rule["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    for alert in alerts.filter(|rule| rule["alert"].is_string()) {
        let url = alert["annotations"]["runbook_url"].as_str().unwrap();
        assert!(url.ends_with(&format!("/docs/runbooks/{}.md", alert["alert"].as_str().unwrap())), "{url}");
    }
}

#[test]
fn every_metric_and_label_is_documented() {
    let reference = fs::read_to_string(files::workspace_dir().join("docs/reference/metrics.md")).unwrap();
    let row = Regex::new(r"(?m)^\| `(perses_[a-z_]+)` \| [a-z]+ \| ([^|]*) \|").unwrap();
    let known: BTreeMap<&str, &str> =
        row.captures_iter(&reference).map(|row| (row.get(1).unwrap().as_str(), row.get(2).unwrap().as_str())).collect();
    let label = Regex::new(r"([a-z_]+)(=~|=|!=|!~)").unwrap();
    let mut checked = 0;
    for (metric, matchers) in selectors() {
        if !metric.starts_with("perses_") || metric.contains(':') {
            continue;
        }
        let labels =
            known.get(family(&metric)).unwrap_or_else(|| panic!("{metric} is not in docs/reference/metrics.md"));
        for found in label.captures_iter(&matchers) {
            let name = &found[1];
            let of_target = ["namespace", "job", "le"].contains(&name);
            assert!(of_target || labels.contains(&format!("`{name}`")), "{metric} has no label {name}");
        }
        checked += 1;
    }
    assert!(checked > 15, "only {checked} selectors were looked at");
}

/// Traffic that makes every metric appear.
async fn traffic(server: &ApiServer, prometheus: &str) {
    let client = server.client().await.unwrap();
    let datasource = json!({"kind": "GlobalDatasource", "metadata": {"name": "prom"}, "spec": {"default": true, "plugin": {
        "kind": "PrometheusDatasource",
        "spec": {"proxy": {"kind": "HTTPProxy", "spec": {"url": prometheus}}}}}});
    client.apply(&datasource).await.unwrap();
    for document in dashboard_documents(&scope()) {
        client.apply(&document).await.unwrap();
    }
    for _ in 0..2 {
        client.get("/api/v1/projects/perses-stack/dashboards/perses").await.unwrap().ok().unwrap();
        client.get("/api/v1/projects/perses-stack/dashboards").await.unwrap().ok().unwrap();
        let form = [("query", "up"), ("time", "1700000000")];
        client.post_form("/proxy/globaldatasources/prom/api/v1/query", &form).await.unwrap().ok().unwrap();
    }
    let view = json!({"project": "perses-stack", "dashboard": "perses", "render_time": 0.5, "render_errors": 0});
    client.send(Method::POST, "/api/v1/view", Some(&view)).await.unwrap().ok().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_series_exists_in_a_prometheus_that_scrapes_the_server() {
    let postgres = Postgres::start().await.unwrap();
    let database = postgres.create_database().await.unwrap();
    let replica = postgres.replica().await.unwrap();
    let more = json!({"database": {"postgres": {
        "host": "127.0.0.1", "port": postgres.port(), "dbname": database.name, "user": USER, "password": postgres.password(),
        "replica": {"host": "127.0.0.1", "port": replica.port()}}}});
    let server = ApiServer::start("admin", "administrator-of-a-test", &more).await.unwrap();
    // As the ServiceMonitor names it.
    let scrape = Scrape { job: "perses-api".to_owned(), targets: vec![format!("127.0.0.1:{}", server.port())] };
    let prometheus = Prometheus::start(&[scrape]).await.unwrap();
    traffic(&server, &prometheus.url()).await;
    // Labels that the Prometheus operator adds; and errors, which a healthy server does not have.
    let plain = |text: &str| text.replace(r#"namespace="obs","#, "");
    let errors = |matchers: &str| matchers.contains("5..");
    for (metric, matchers) in selectors() {
        let ours = metric == "up" || (metric.starts_with("perses_") && !metric.contains(':'));
        if !ours || errors(&matchers) {
            continue;
        }
        let query = format!("count({metric}{{{}}})", plain(&matchers));
        within(&query, DEADLINE, async || {
            let found = prometheus.api("query", &[("query", &query)]).await.unwrap();
            (found["result"][0]["value"][1].as_str()? != "0").then_some(())
        })
        .await;
    }
    for expr in expressions() {
        prometheus.api("query", &[("query", &plain(&expr))]).await.unwrap_or_else(|error| panic!("{expr}: {error:#}"));
    }
    // A server that works burns no budget: the ratios are there, and they are zero.
    let rule = prometheus_rule(&scope());
    let ratio = rule["groups"][0]["rules"][0]["expr"].as_str().unwrap();
    let client = server.client().await.unwrap();
    within("the availability", DEADLINE, async || {
        client.get("/api/v1/projects").await.unwrap().ok().unwrap();
        let found = prometheus.api("query", &[("query", &plain(ratio))]).await.unwrap();
        (found["result"][0]["value"][1].as_str()? == "0").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_dashboard_about_the_stack_passes_our_own_lint() {
    ApiServer::lint(&Value::Array(dashboard_documents(&scope()))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_objects_follow_the_switches() {
    let Some(plane) = equipped() else { return };
    let space = Space::on(plane, "monitor").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    let labels = json!({"release": "kube-prometheus", "app.kubernetes.io/instance": "other"});
    let refused = json!({"metadata": {"name": "wrong"}, "spec": {"users": 10, "monitoring": {"labels": labels}}});
    let refused = serde_json::from_value(refused).unwrap();
    let error = space.stacks().create(&kube::api::PostParams::default(), &refused).await.unwrap_err();
    assert!(error.to_string().contains("belong to the operator"), "{error}");

    let datasource = json!({"name": "metrics", "url": "http://prometheus:9090", "default": true});
    let labels = json!({"release": "kube-prometheus"});
    let database = json!({"type": "Standalone"});
    let spec =
        json!({"users": 10, "database": database, "monitoring": {"labels": labels}, "datasources": [datasource]});
    space.create(&spec).await;
    space.settled().await;
    let message = space.condition("MonitoringReady", "True", "Applied").await;
    assert!(message.contains("ServiceMonitor and PrometheusRule"), "{message}");
    let monitor = space.get(Kind::ServiceMonitor, "perses-api").await.unwrap();
    let service = space.get(Kind::Service, "perses-api").await.unwrap();
    for (key, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(service["metadata"]["labels"][key], *value, "the ServiceMonitor selects the Service");
    }
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    let rules = space.get(Kind::PrometheusRule, "perses-rules").await.unwrap();
    assert_eq!(rules["metadata"]["labels"]["release"], "kube-prometheus");
    assert_eq!(rules["spec"], prometheus_rule(&Scope::new(&space.namespace, "perses")));
    assert_eq!(rules["metadata"]["ownerReferences"][0]["name"], "perses");
    let provisioned = space.get(Kind::Secret, "perses-provisioning").await.unwrap();
    assert!(provisioned["data"]["dashboards.json"].is_string());

    // Drift is repaired, and then nothing is written.
    let edit = Patch::Merge(json!({"spec": {"groups": []}}));
    space.api(Kind::PrometheusRule).patch("perses-rules", &PatchParams::default(), &edit).await.unwrap();
    within("the repair", REPAIR, async || {
        let found = space.get(Kind::PrometheusRule, "perses-rules").await?;
        (found["spec"]["groups"].as_array()?.len() == 3).then_some(())
    })
    .await;
    let log = plane.audit();
    let mark = log.mark().unwrap();
    for round in 0..2 {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"round": round.to_string()}}}));
        tokio::join!(operator.reconciled("ok"), async {
            space.stacks().patch("perses", &PatchParams::default(), &patch).await.unwrap();
        });
    }
    let agent = format!("operator-of-{}", space.namespace);
    let writes = log.writes_since(mark, |event| event.user_agent == agent).unwrap();
    assert!(writes.is_empty(), "{writes:#?}");

    space.change(&json!({"monitoring": {"exporters": "Enabled"}})).await;
    for name in ["perses-pgbouncer", "perses-redis"] {
        let what = format!("the ServiceMonitor {name}");
        let monitor = within(&what, DEADLINE, async || space.get(Kind::ServiceMonitor, name).await).await;
        let endpoint = &monitor["spec"]["endpoints"][0]["port"];
        let service = space.get(Kind::Service, name).await.unwrap();
        for (key, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(service["metadata"]["labels"][key], *value, "{name}");
        }
        let ports = service["spec"]["ports"].as_array().unwrap();
        let port = ports.iter().find(|port| port["name"] == *endpoint).unwrap();
        let deployment = space.get(Kind::Deployment, name).await.unwrap();
        let containers = deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        let exporter = containers.iter().find(|container| container["name"] == "exporter").unwrap();
        assert_eq!(exporter["ports"][0]["name"], port["targetPort"], "{name}");
        let argument = format!("--web.listen-address=:{}", exporter["ports"][0]["containerPort"]);
        assert!(exporter["args"].as_array().unwrap().contains(&json!(argument)), "{name}: {argument}");
    }
    space.settled().await;

    space.change(&json!({"monitoring": {"serviceMonitor": "Disabled", "rules": "Disabled"}})).await;
    within("all to go", DEADLINE, async || {
        for name in ["perses-api", "perses-pgbouncer", "perses-redis"] {
            if space.get(Kind::ServiceMonitor, name).await.is_some() {
                return None;
            }
        }
        space.get(Kind::PrometheusRule, "perses-rules").await.is_none().then_some(())
    })
    .await;
    space
        .until("no condition about what is off", |stack| {
            stack.status.as_ref().is_some_and(|status| find(&status.conditions, "MonitoringReady").is_none())
        })
        .await;
    let provisioned = space.get(Kind::Secret, "perses-provisioning").await.unwrap();
    assert!(provisioned["data"]["dashboards.json"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_and_not_there_holds_back_nothing_else() {
    let space = Space::new("unmonitored").await;
    let (_world, _operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10, "monitoring": {"rules": "Enabled"}})).await;
    let message = space.condition("MonitoringReady", "False", "ApiAbsent").await;
    assert!(message.contains("spec.monitoring.rules") && message.contains("Auto"), "{message}");
    space.condition("Ready", "True", "PodsReady").await;
    space.change(&json!({"monitoring": {"rules": "Auto"}})).await;
    let status = space.settled().await.status.unwrap();
    assert!(find(&status.conditions, "MonitoringReady").is_none());
}
