//! The service level objectives (seed section 6) and their alerts on multi-window burn rates. `docs/slo.md` defines them in
//! words; the windows and factors are those of the SRE Workbook, chapter 5.

use serde_json::{Value, json};

use super::Scope;
use super::rules::{Alert, Severity};

/// One objective over 30 days.
pub(super) struct Slo {
    /// Word in metric and label names.
    name: &'static str,
    /// The alert.
    alert: &'static str,
    /// Share of good events, in thousandths.
    objective: u32,
    /// Good events, for people.
    good: &'static str,
    /// What is measured.
    sli: Sli,
}

/// What an objective is about. Ratios of bad events are computed from these.
enum Sli {
    /// Requests of a counter that were not answered with 5xx.
    NoServerError(&'static str, &'static str),
    /// Events of a histogram that took at most so many seconds. The bound is one of the histogram's buckets.
    AtMost(&'static str, &'static str, &'static str),
}

/// Requests of people and programs to the API: neither probes nor metrics, nor what a datasource answers (`/proxy`).
pub(super) const API: &str = r#"handler=~"/api/.*""#;

/// Every objective. Hit ratios of the caches and the scaling time have no events to count: they are plain alerts.
pub(super) const ALL: [Slo; 5] = [
    Slo {
        name: "availability",
        alert: "PersesAvailabilityBudgetBurn",
        objective: 999,
        good: "requests to the API that are answered without a 5xx",
        sli: Sli::NoServerError("perses_http_request_total", API),
    },
    Slo {
        name: "latency",
        alert: "PersesLatencyBudgetBurn",
        objective: 950,
        good: "requests to the API that are answered within 500 ms",
        sli: Sli::AtMost("perses_http_request_duration_seconds", API, "0.5"),
    },
    Slo {
        name: "queries",
        alert: "PersesQueryBudgetBurn",
        objective: 950,
        good: "queries that datasources answer within 2 s",
        sli: Sli::AtMost("perses_upstream_query_duration_seconds", "", "2.0"),
    },
    Slo {
        name: "dashboards",
        alert: "PersesDashboardBudgetBurn",
        objective: 950,
        good: "dashboards that browsers draw within 3 s",
        sli: Sli::AtMost("perses_dashboard_render_time_seconds", "", "3.0"),
    },
    Slo {
        name: "database",
        alert: "PersesDatabaseBudgetBurn",
        objective: 950,
        good: "operations on PostgreSQL that take at most 100 ms",
        sli: Sli::AtMost("perses_db_query_duration_seconds", "", "0.1"),
    },
];

/// A pair of windows: fires while the budget burns `factor` times too fast in both.
struct Burn {
    long: &'static str,
    short: &'static str,
    /// In tenths.
    factor: u32,
    for_: &'static str,
    severity: Severity,
}

/// 2 % of the budget in an hour and 5 % in six wake somebody; 10 % in one or three days are for the next working day.
const BURNS: [Burn; 4] = [
    Burn { long: "1h", short: "5m", factor: 144, for_: "2m", severity: Severity::Critical },
    Burn { long: "6h", short: "30m", factor: 60, for_: "15m", severity: Severity::Critical },
    Burn { long: "1d", short: "2h", factor: 30, for_: "1h", severity: Severity::Warning },
    Burn { long: "3d", short: "6h", factor: 10, for_: "3h", severity: Severity::Warning },
];

/// Every window of [`BURNS`].
const WINDOWS: [&str; 7] = ["5m", "30m", "1h", "2h", "6h", "1d", "3d"];

impl Slo {
    /// The recorded share of bad events, between 0 and 1.
    fn record(&self, window: &str) -> String {
        format!("perses_stack:{}:error_ratio_rate{window}", self.name)
    }

    /// The share of bad events in a window; nothing without events.
    fn ratio(&self, scope: &Scope, window: &str) -> String {
        match self.sli {
            Sli::NoServerError(metric, filter) => {
                let all = scope.select(metric, filter);
                let bad = scope.select(metric, &format!(r#"{filter},code=~"5..""#));
                format!("(sum(rate({bad}[{window}])) or vector(0)) / (sum(rate({all}[{window}])) > 0)")
            }
            Sli::AtMost(metric, filter, bound) => {
                let and = if filter.is_empty() { "" } else { "," };
                let good = scope.select(&format!("{metric}_bucket"), &format!(r#"{filter}{and}le="{bound}""#));
                let all = scope.select(&format!("{metric}_count"), filter);
                format!("1 - sum(rate({good}[{window}])) / (sum(rate({all}[{window}])) > 0)")
            }
        }
    }

    fn recordings(&self, scope: &Scope) -> impl Iterator<Item = Value> {
        WINDOWS.iter().map(move |window| {
            json!({"record": self.record(window), "expr": self.ratio(scope, window), "labels": scope.labels()})
        })
    }

    fn alerts(&self, scope: &Scope) -> impl Iterator<Item = Alert> {
        // In thousandths; the factor in tenths makes ten-thousandths.
        let budget = 1000 - self.objective;
        let objective = f64::from(self.objective) / 10.0;
        BURNS.iter().map(move |burn| {
            let limit = f64::from(budget * burn.factor) / 10_000.0;
            let above = |window: &str| format!("{} > {limit}", scope.select(&self.record(window), ""));
            Alert {
                name: self.alert,
                expr: format!("{} and {}", above(burn.long), above(burn.short)),
                for_: burn.for_,
                severity: burn.severity,
                labels: vec![("slo", self.name.to_owned()), ("window", burn.long.to_owned())],
                summary: format!("The error budget of the objective \"{}\" burns too fast.", self.name),
                description: format!(
                    "Of {} {objective} % are promised over 30 days. In the last {} {{{{ $value | humanizePercentage }}}} were \
                     bad, more than {} times what the budget allows.",
                    self.good,
                    burn.long,
                    f64::from(burn.factor) / 10.0
                ),
            }
        })
    }
}

/// The group that records the ratios.
pub(super) fn recordings(scope: &Scope) -> Vec<Value> {
    ALL.iter().flat_map(|slo| slo.recordings(scope)).collect()
}

/// The alerts on the recorded ratios.
pub(super) fn alerts(scope: &Scope) -> Vec<Alert> {
    ALL.iter().flat_map(|slo| slo.alerts(scope)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_of_an_alert_is_recorded() {
        for burn in &BURNS {
            for window in [burn.long, burn.short] {
                assert!(WINDOWS.contains(&window), "{window}");
            }
        }
    }

    #[test]
    fn no_limit_is_out_of_reach() {
        for slo in &ALL {
            for burn in &BURNS {
                let limit = (1000 - slo.objective) * burn.factor;
                assert!(limit < 10_000, "{} over {}: a ratio is at most 1", slo.name, burn.long);
            }
        }
    }
}
