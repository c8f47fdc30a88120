//! What holds for a datasource: the configuration's rules for all, and the first entry of `query.datasources` that fits. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{DatasourceQuery, Query, QueryStale, QueryTtl, RequestLimits, Tenancy};

/// The settings of one datasource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long an answer may take, and stand still.
    pub timeout: Duration,
    /// Whether answers are kept.
    pub cache: bool,
    /// Lives of kept answers.
    pub ttl: QueryTtl,
    /// Data younger than this may still change.
    pub freshness: Duration,
    /// How long points of older data are used.
    pub settled: Duration,
    /// What protects the datasource.
    pub limits: Arc<RequestLimits>,
    /// How answers are used whose time is over.
    pub stale: QueryStale,
}

impl Policy {
    fn of_all(query: &Query) -> Self {
        Self {
            timeout: query.timeout.0,
            cache: query.cache,
            ttl: query.ttl.clone(),
            freshness: query.freshness.0,
            settled: query.settled.0,
            limits: Arc::new(query.limits.clone()),
            stale: query.stale.clone(),
        }
    }

    fn with(&self, rule: &DatasourceQuery) -> Self {
        let or = |said: &Option<crate::config::ConfigDuration>, all: Duration| said.map_or(all, |said| said.0);
        Self {
            timeout: or(&rule.timeout, self.timeout),
            cache: rule.cache.unwrap_or(self.cache),
            ttl: rule.ttl.clone().unwrap_or_else(|| self.ttl.clone()),
            freshness: or(&rule.freshness, self.freshness),
            settled: or(&rule.settled, self.settled),
            limits: rule.limits.as_ref().map_or_else(|| self.limits.clone(), |said| Arc::new(said.over(&self.limits))),
            stale: rule.stale.clone().unwrap_or_else(|| self.stale.clone()),
        }
    }
}

/// The settings of all datasources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policies {
    all: Arc<Policy>,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    name: String,
    project: Option<String>,
    policy: Arc<Policy>,
    tenancy: Option<Arc<Tenancy>>,
}

impl Rule {
    /// In any letter case: the store may fold names.
    fn fits(&self, project: Option<&str>, name: &str) -> bool {
        let has_project = |wanted: &String| project.is_some_and(|project| wanted.eq_ignore_ascii_case(project));
        (self.name == "*" || self.name.eq_ignore_ascii_case(name)) && self.project.as_ref().is_none_or(has_project)
    }
}

impl Policies {
    /// Those of a configuration.
    pub fn new(query: &Query) -> Self {
        let all = Policy::of_all(query);
        let rules = query.datasources.iter().map(|rule| Rule {
            name: rule.name.clone(),
            project: rule.project.clone(),
            policy: Arc::new(all.with(rule)),
            tenancy: rule.tenancy.clone().map(Arc::new),
        });
        Self { rules: rules.collect(), all: Arc::new(all) }
    }

    /// What holds for a datasource; one without a project is global.
    pub fn of(&self, project: Option<&str>, name: &str) -> &Arc<Policy> {
        self.rules.iter().find(|rule| rule.fits(project, name)).map_or(&self.all, |rule| &rule.policy)
    }

    /// Whose data a datasource shows; `None`: all. The first entry that fits and says so counts: one for other settings before
    /// it must not open what it closes.
    pub fn tenancy(&self, project: Option<&str>, name: &str) -> Option<&Arc<Tenancy>> {
        self.rules.iter().filter(|rule| rule.fits(project, name)).find_map(|rule| rule.tenancy.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_that_fits_counts() {
        let query: Query = serde_json::from_value(serde_json::json!({
            "freshness": "2m",
            "datasources": [
                {"name": "prom", "project": "a", "freshness": "1s"},
                {"name": "prom", "settled": "2s", "cache": false},
                {"name": "*", "project": "a", "timeout": "3s"},
            ],
        }))
        .unwrap();
        let policies = Policies::new(&query);
        let seen = |project, name| {
            let policy = policies.of(project, name);
            (policy.freshness.as_secs(), policy.settled.as_secs(), policy.timeout.as_secs(), policy.cache)
        };
        assert_eq!(seen(Some("a"), "prom"), (1, 3600, 60, true));
        assert_eq!(seen(Some("b"), "prom"), (120, 2, 60, false));
        assert_eq!(seen(None, "prom"), (120, 2, 60, false));
        assert_eq!(seen(Some("a"), "other"), (120, 3600, 3, true));
        assert_eq!(seen(None, "other"), (120, 3600, 60, true));
    }

    #[test]
    fn limits_that_come_first_change_nothing_else() {
        let query: Query = serde_json::from_value(serde_json::json!({
            "limits": {"max_series": 1, "max_points": 1},
            "datasources": [
                {"name": "prom", "project": "a", "freshness": "1s", "limits": {"max_series": 2, "max_bytes": 2}},
                {"name": "*", "project": "b", "freshness": "2s", "limits": {"max_series": 3}},
            ],
        }))
        .unwrap();
        let first: Vec<DatasourceQuery> = serde_json::from_value(serde_json::json!([
            {"name": "prom", "limits": {"max_series": 4}},
            {"name": "*", "project": "b", "limits": {"max_points": 5}},
            {"name": "late", "project": "c", "limits": {"max_series": 6}},
        ]))
        .unwrap();
        let all = RequestLimits { max_points: 7, ..query.limits.clone() };
        let (before, after) = (Policies::new(&query), Policies::new(&query.limited(all, &first)));
        let seen = |policies: &Policies, project, name| {
            let policy = policies.of(project, name);
            let limits = &policy.limits;
            (policy.freshness.as_secs(), limits.max_series, limits.max_points, limits.max_bytes == 2)
        };
        for (project, name, was, is) in [
            (Some("a"), "prom", (1, 2, 1, true), (1, 4, 7, true)),
            (Some("b"), "prom", (2, 3, 1, false), (2, 4, 7, false)),
            (Some("b"), "other", (2, 3, 1, false), (2, 3, 5, false)),
            (Some("a"), "other", (60, 1, 1, false), (60, 1, 7, false)),
            (Some("c"), "late", (60, 1, 1, false), (60, 6, 7, false)),
            (None, "prom", (60, 1, 1, false), (60, 4, 7, false)),
        ] {
            assert_eq!(seen(&before, project, name), was, "{project:?} {name}");
            assert_eq!(seen(&after, project, name), is, "{project:?} {name}");
        }
    }

    #[test]
    fn entries_for_other_settings_do_not_lift_tenancy() {
        let tenancy = |label: &str| serde_json::json!({"labels": [{"label": label, "values": ["x"]}]});
        let query: Query = serde_json::from_value(serde_json::json!({"datasources": [
            {"name": "prom", "project": "a", "freshness": "1s"},
            {"name": "prom", "tenancy": tenancy("one")},
            {"name": "*", "project": "a", "tenancy": tenancy("other")},
        ]}))
        .unwrap();
        let policies = Policies::new(&query);
        let seen = |project, name| policies.tenancy(project, name).map(|tenancy| tenancy.labels[0].label.as_str());
        assert_eq!(seen(Some("a"), "prom"), Some("one"));
        assert_eq!(seen(None, "prom"), Some("one"));
        assert_eq!(seen(None, "Prom"), Some("one"));
        assert_eq!(seen(Some("a"), "else"), Some("other"));
        assert_eq!(seen(Some("b"), "else"), None);
        assert_eq!(seen(None, "else"), None);
    }
}
