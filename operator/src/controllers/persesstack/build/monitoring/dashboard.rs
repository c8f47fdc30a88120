//! The dashboard about the stack itself, provisioned into the stack: project `perses-stack`, dashboard `<stack>`.

use serde_json::{Map, Value, json};

use super::Scope;
use super::slo::API;

/// Project of the dashboard.
const PROJECT: &str = "perses-stack";
/// Columns of a Perses grid.
const COLUMNS: usize = 24;

/// One panel.
struct Panel {
    key: &'static str,
    title: &'static str,
    chart: Chart,
    /// Expression and series name.
    queries: Vec<(String, &'static str)>,
}

/// How a panel looks.
#[derive(Clone, Copy)]
enum Chart {
    /// One number with a spark line, in this unit.
    Stat(&'static str),
    /// Lines over time, in this unit.
    Lines(&'static str),
}

/// The project and the dashboard, as provisioning reads them.
pub fn documents(scope: &Scope) -> Vec<Value> {
    let text = "What this service tells about itself. Made by its operator, which replaces changes.";
    let project = json!({"kind": "Project", "metadata": {"name": PROJECT},
                         "spec": {"display": {"name": "Perses Stack", "description": text}}});
    let metadata = json!({"name": scope.stack, "project": PROJECT});
    vec![project, json!({"kind": "Dashboard", "metadata": metadata, "spec": spec(scope, text)})]
}

fn spec(scope: &Scope, text: &str) -> Value {
    let rows = rows(scope);
    let mut panels = Map::new();
    let mut layouts = Vec::new();
    for (title, row) in &rows {
        let width = COLUMNS / row.len();
        let items: Vec<Value> = row
            .iter()
            .enumerate()
            .map(|(at, panel)| {
                let height = if matches!(panel.chart, Chart::Stat(_)) { 4 } else { 8 };
                let reference = format!("#/spec/panels/{}", panel.key);
                json!({"x": at * width, "y": 0, "width": width, "height": height, "content": {"$ref": reference}})
            })
            .collect();
        layouts.push(
            json!({"kind": "Grid", "spec": {"display": {"title": title, "collapse": {"open": true}}, "items": items}}),
        );
        panels.extend(row.iter().map(|panel| (panel.key.to_owned(), panel.document())));
    }
    json!({
        "display": {"name": format!("Perses Stack {}/{}", scope.namespace, scope.stack), "description": text},
        "duration": "1h",
        "refreshInterval": "1m",
        "panels": panels,
        "layouts": layouts,
    })
}

impl Panel {
    fn document(&self) -> Value {
        let plugin = match self.chart {
            Chart::Stat(unit) => json!({"kind": "StatChart", "spec": {
                "calculation": "last-number", "sparkline": {}, "format": {"unit": unit}}}),
            Chart::Lines(unit) => json!({"kind": "TimeSeriesChart", "spec": {
                "legend": {"position": "bottom"}, "yAxis": {"format": {"unit": unit}}}}),
        };
        let queries: Vec<Value> = self
            .queries
            .iter()
            .map(|(expr, series)| {
                let mut spec = json!({"query": expr});
                if !series.is_empty() {
                    spec["seriesNameFormat"] = json!(series);
                }
                json!({"kind": "TimeSeriesQuery", "spec": {"plugin": {"kind": "PrometheusTimeSeriesQuery", "spec": spec}}})
            })
            .collect();
        json!({"kind": "Panel", "spec": {"display": {"name": self.title}, "plugin": plugin, "queries": queries}})
    }
}

fn rows(scope: &Scope) -> Vec<(&'static str, Vec<Panel>)> {
    let select = |metric: &str, filter: &str| scope.select(metric, filter);
    let requests = select("perses_http_request_total", "");
    let errors = select("perses_http_request_total", r#"code=~"5..""#);
    let p95 = |metric: &str, filter: &str, by: &str| {
        let buckets = select(&format!("{metric}_bucket"), filter);
        format!("histogram_quantile(0.95, sum by ({by}) (rate({buckets}[5m])))")
    };
    let panel = |key, title, chart, queries: Vec<(String, &'static str)>| Panel { key, title, chart, queries };
    let one = |key, title, chart, expr: String, series| panel(key, title, chart, vec![(expr, series)]);
    let rate = |metric: &str, filter: &str, by: &str| format!("sum by ({by}) (rate({}[5m]))", select(metric, filter));
    vec![
        (
            "Service",
            vec![
                one("pods", "API pods", Chart::Stat("decimal"), format!("count({} == 1)", select("up", "")), ""),
                one("rate", "Requests", Chart::Stat("requests/sec"), format!("sum(rate({requests}[5m]))"), ""),
                one("errors", "5xx", Chart::Stat("requests/sec"), format!("sum(rate({errors}[5m])) or vector(0)"), ""),
                one(
                    "p95",
                    "API, 95th percentile",
                    Chart::Stat("seconds"),
                    p95("perses_http_request_duration_seconds", API, "le"),
                    "",
                ),
            ],
        ),
        (
            "Requests",
            vec![
                one(
                    "by-route",
                    "By route",
                    Chart::Lines("requests/sec"),
                    rate("perses_http_request_total", "", "handler"),
                    "{{handler}}",
                ),
                one(
                    "slow-routes",
                    "95th percentile by route",
                    Chart::Lines("seconds"),
                    p95("perses_http_request_duration_seconds", API, "le, handler"),
                    "{{handler}}",
                ),
            ],
        ),
        (
            "Caches and datasources",
            vec![
                one(
                    "caches",
                    "Cache lookups",
                    Chart::Lines("requests/sec"),
                    rate("perses_cache_requests_total", "", "cache, tier, result"),
                    "{{cache}} {{tier}} {{result}}",
                ),
                one(
                    "datasources",
                    "Datasources, 95th percentile",
                    Chart::Lines("seconds"),
                    p95("perses_upstream_query_duration_seconds", "", "le, endpoint"),
                    "{{endpoint}}",
                ),
                one(
                    "in-flight",
                    "Under way",
                    Chart::Lines("decimal"),
                    format!("sum({})", select("perses_http_requests_in_flight", "")),
                    "requests",
                ),
            ],
        ),
        (
            "Database",
            vec![
                panel(
                    "pool",
                    "Connections",
                    Chart::Lines("decimal"),
                    vec![
                        (
                            format!("sum by (pool, state) ({})", select("perses_db_pool_connections", "")),
                            "{{pool}} {{state}}",
                        ),
                        (
                            format!("sum by (pool) ({})", select("perses_db_pool_connections_max", "")),
                            "{{pool}} at most",
                        ),
                    ],
                ),
                one(
                    "operations",
                    "Operations, 95th percentile",
                    Chart::Lines("seconds"),
                    p95("perses_db_query_duration_seconds", "", "le, operation"),
                    "{{operation}}",
                ),
                one(
                    "lag",
                    "Replication lag",
                    Chart::Lines("seconds"),
                    format!("max by (replica) ({})", select("perses_db_replica_lag_seconds", "")),
                    "{{replica}}",
                ),
            ],
        ),
    ]
}
