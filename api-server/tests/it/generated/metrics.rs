//! `docs/reference/metrics.md`, from the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use perses_api_server::config::LimitMode;
use perses_api_server::metrics::{Held, Metrics, RequestLabels, RouteLabels};

use super::{cell, check};

/// Every family with at least one sample: families without one are not printed with their labels.
fn sampled() -> Metrics {
    let metrics = Metrics::new("0.0.0");
    let route = RouteLabels { handler: "/".into(), method: "GET" };
    metrics.requests.get_or_create(&RequestLabels { code: 200, handler: "/".into(), method: "GET" }).inc();
    metrics.request_duration.get_or_create(&route).observe(1.0);
    metrics.request_duration_summary.get_or_create(&route).observe(1.0);
    metrics.cache("dashboard", "l1", "hit");
    metrics.query_answered("query", "pure", "l1");
    metrics.query_cache_held("l1", Held { entries: 0, bytes: 0 });
    metrics.query_cache_evicted("l1");
    metrics.db_query("get", Duration::ZERO);
    metrics.db_slow_query("get");
    metrics.db_pool("main", 1, 1);
    metrics.db_pool_max("main", 1);
    drop(metrics.upstream_query("query"));
    metrics.db_read("primary");
    metrics.db_replica_lag("replica", 0.0);
    metrics.limits_in_force("0");
    metrics.denied("read", "Dashboard");
    metrics.query_limit("max_series", LimitMode::Warn);
    metrics.dashboard_viewed("p", "d", 1.0, 0);
    metrics
}

#[derive(Debug, Default)]
struct Family {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
    samples: usize,
}

fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            name.clone_into(&mut current);
            kind.clone_into(&mut families.entry(current.clone()).or_default().kind);
        } else if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let help = help.trim_end_matches('.').to_owned();
            families.entry(name.to_owned()).or_default().help = help;
        } else if !line.starts_with('#') {
            let family = families.get_mut(&current).unwrap();
            family.samples += 1;
            if let Some((_, labels)) = line.split_once('{') {
                let labels = labels.rsplit_once('}').unwrap().0;
                let names = labels.split("=\"").filter_map(|part| part.rsplit(['"', ',']).next());
                family.labels.extend(names.filter(|name| !name.is_empty() && *name != "le").map(str::to_owned));
            }
        }
    }
    families
}

#[test]
fn the_reference_of_metrics_is_current() {
    let mut text = "# Metrics of the server\n\n\
        Generated from the code (`make generate`). Served at `/metrics`. `handler` is the matched route, never a path; names of\n\
        `perses_http_request_total`, `perses_http_request_duration_second`, `perses_build_info` and `perses_dashboard_*` are\n\
        upstream's.\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n"
        .to_owned();
    for (name, family) in families(&sampled().encode().unwrap()) {
        assert!(family.samples > 0, "{name} has no sample: give it one in `sampled`");
        let suffix = match family.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(text, "| `{name}{suffix}` | {} | {} | {} |", family.kind, labels.join(", "), cell(&family.help))
            .unwrap();
    }
    check("docs/reference/metrics.md", &text);
}
