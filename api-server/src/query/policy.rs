//! What holds for a datasource: the configuration's rules for all, and the first entry of `query.datasources` that fits. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{DatasourceQuery, Query, QueryStale, QueryTtl};

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
}

impl Policies {
    /// Those of a configuration.
    pub fn new(query: &Query) -> Self {
        let all = Policy::of_all(query);
        let rules = query.datasources.iter().map(|rule| Rule {
            name: rule.name.clone(),
            project: rule.project.clone(),
            policy: Arc::new(all.with(rule)),
        });
        Self { rules: rules.collect(), all: Arc::new(all) }
    }

    /// What holds for a datasource; one without a project is global.
    pub fn of(&self, project: Option<&str>, name: &str) -> &Arc<Policy> {
        let fits = |rule: &&Rule| {
            (rule.name == "*" || rule.name == name) && (rule.project.is_none() || rule.project.as_deref() == project)
        };
        self.rules.iter().find(fits).map_or(&self.all, |rule| &rule.policy)
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
}
