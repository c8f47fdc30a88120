//! The alerts of a stack. Each has a page `docs/runbooks/<name>.md`; `docs/slo.md` says what the seed's alerts became.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Scope;
use super::slo::{self, API};

/// Where the pages are.
const RUNBOOKS: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/runbooks/");

/// How urgent an alert is: the values of the Kubernetes mixins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// Somebody is woken.
    Critical,
    /// For the next working day.
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        }
    }
}

/// One alert.
pub(super) struct Alert {
    pub(super) name: &'static str,
    pub(super) expr: String,
    pub(super) for_: &'static str,
    pub(super) severity: Severity,
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) summary: String,
    pub(super) description: String,
}

impl Alert {
    fn rule(self, scope: &Scope) -> Value {
        let mut labels = scope.labels();
        labels.insert("severity", self.severity.as_str().to_owned());
        labels.extend(self.labels);
        json!({
            "alert": self.name,
            "expr": self.expr,
            "for": self.for_,
            "labels": labels,
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": format!("{RUNBOOKS}{}.md", self.name),
            },
        })
    }
}

/// `spec.groups` of the PrometheusRule.
pub(super) fn groups(scope: &Scope) -> Value {
    let rules = |alerts: Vec<Alert>| alerts.into_iter().map(|alert| alert.rule(scope)).collect::<Vec<_>>();
    json!([
        {"name": format!("perses-stack.{}.slis", scope.stack), "rules": slo::recordings(scope)},
        {"name": format!("perses-stack.{}.slos", scope.stack), "rules": rules(slo::alerts(scope))},
        {"name": format!("perses-stack.{}.symptoms", scope.stack), "rules": rules(symptoms(scope))},
    ])
}

/// What is wrong now, beside the objectives.
fn symptoms(scope: &Scope) -> Vec<Alert> {
    let p95 = |metric: &str, filter: &str| {
        let buckets = scope.select(&format!("{metric}_bucket"), filter);
        format!("histogram_quantile(0.95, sum by (le) (rate({buckets}[5m])))")
    };
    let cache = |filter: &str| {
        let looks = scope.select("perses_cache_requests_total", filter);
        format!("sum(rate({looks}[15m]))")
    };
    let hpa = |state: &str| {
        let (namespace, name) = (&scope.namespace, &scope.job);
        format!(
            r#"kube_horizontalpodautoscaler_status_{state}_replicas{{namespace="{namespace}",horizontalpodautoscaler="{name}"}}"#
        )
    };
    let up = scope.select("up", "");
    let warning = |name, expr, for_, summary: &str, description: &str| Alert {
        name,
        expr,
        for_,
        severity: Severity::Warning,
        labels: Vec::new(),
        summary: summary.to_owned(),
        description: description.to_owned(),
    };
    // A ratio of almost no lookups says nothing: one per second is asked for.
    let busy = |all: &str| format!("and {all} > 1");
    let (queries, query_hits) =
        (cache(r#"cache="query",tier="l1",result=~"hit|miss""#), cache(r#"cache="query",result=~"hit|shared""#));
    let (dashboards, dashboard_hits) = (
        cache(r#"cache="dashboard",result="hit""#) + " + " + &cache(r#"cache="dashboard",tier="store",result="miss""#),
        cache(r#"cache="dashboard",result="hit""#),
    );
    vec![
        Alert {
            severity: Severity::Critical,
            ..warning(
                "PersesDown",
                format!("absent({up} == 1)"),
                "2m",
                "No API pod answers.",
                "Prometheus has reached none of the API pods of this stack for 2 minutes: nobody sees dashboards.",
            )
        },
        warning(
            "PersesLatencyHigh",
            format!("{} > 3", p95("perses_http_request_duration_seconds", API)),
            "10m",
            "The API is slow.",
            "95 % of the requests to the API take up to {{ $value | humanizeDuration }}; 3 s is the limit.",
        ),
        warning(
            "PersesQueryCacheHitRatioLow",
            format!("{query_hits} / ({queries}) < 0.7 {}", busy(&queries)),
            "30m",
            "The query cache rarely hits.",
            "Only {{ $value | humanizePercentage }} of the queries are answered from the cache or shared; 70 % is the objective.",
        ),
        warning(
            "PersesDashboardCacheHitRatioLow",
            format!("{dashboard_hits} / ({dashboards}) < 0.95 {}", busy(&format!("({dashboards})"))),
            "30m",
            "The dashboard cache rarely hits.",
            "Only {{ $value | humanizePercentage }} of the dashboards come from the cache; 95 % is the objective.",
        ),
        warning(
            "PersesDatabasePoolBusy",
            format!(
                "max by (pod, pool) ({}) / max by (pod, pool) ({}) > 0.8",
                scope.select("perses_db_pool_connections", r#"state="active""#),
                scope.select("perses_db_pool_connections_max", "")
            ),
            "10m",
            "An API pod uses almost all of its database connections.",
            "{{ $labels.pod }} uses {{ $value | humanizePercentage }} of the connections of its pool {{ $labels.pool }}.",
        ),
        warning(
            "PersesDatasourceSlow",
            format!("{} > 2", p95("perses_upstream_query_duration_seconds", "")),
            "10m",
            "Datasources answer slowly.",
            "95 % of the queries to datasources take up to {{ $value | humanizeDuration }}; 2 s is the objective.",
        ),
        warning(
            "PersesAutoscalingLags",
            format!("{} < {}", hpa("current"), hpa("desired")),
            "5m",
            "The autoscaler wants more API pods than there are.",
            "For 5 minutes {{ $value }} pods have run and the autoscaler has wanted more; 2 minutes is the objective.",
        ),
        warning(
            "PersesReplicationLag",
            format!("max by (pod, replica) ({}) > 5", scope.select("perses_db_replica_lag_seconds", "")),
            "5m",
            "A database replica is behind.",
            "{{ $labels.replica }} is {{ $value | humanizeDuration }} behind its primary; over 5 s the server reads from the \
             primary instead.",
        ),
        warning(
            "PersesPoolerClientsWait",
            format!(
                "max by (pod, database) ({}) > 0",
                scope.exported(&scope.pooler, "pgbouncer_pools_client_waiting_connections")
            ),
            "5m",
            "Clients of the pooler wait for connections to the database.",
            "{{ $value }} clients of {{ $labels.pod }} have waited for a connection to {{ $labels.database }} at every look for 5 \
             minutes.",
        ),
        warning(
            "PersesCacheEvicts",
            format!("sum by (pod) (rate({}[15m])) > 1", scope.exported(&scope.cache, "redis_evicted_keys_total")),
            "30m",
            "Redis throws entries away before their time.",
            "{{ $labels.pod }} evicts {{ $value | humanize }} keys per second: the cache is too small for the workload.",
        ),
        warning(
            "PersesCacheMemoryHigh",
            // maxmemory is 60 % of the limit.
            format!(
                "max by (pod) ({}) / max by (pod) ({} > 0) > 1.5",
                scope.exported(&scope.cache, "redis_memory_used_rss_bytes"),
                scope.exported(&scope.cache, "redis_memory_max_bytes")
            ),
            "15m",
            "Redis comes near the memory limit of its pod.",
            "The process in {{ $labels.pod }} takes {{ $value | humanize }} times maxmemory; at 1.67 times it is killed.",
        ),
    ]
}

/// `spec` of the PrometheusRule.
pub(super) fn spec(scope: &Scope) -> Value {
    json!({"groups": groups(scope)})
}

/// The names of all alerts, for the runbooks.
pub fn alert_names() -> std::collections::BTreeSet<String> {
    let groups = groups(&Scope::new("n", "s"));
    let rules = groups.as_array().into_iter().flatten().filter_map(|group| group["rules"].as_array()).flatten();
    rules.filter_map(|rule| rule["alert"].as_str()).map(str::to_owned).collect()
}

/// Labels of a rule.
pub(super) type Labels = BTreeMap<&'static str, String>;
