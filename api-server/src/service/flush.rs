//! What somebody who flushes the query cache means: names of documents become scopes.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::domain::document::{Document, Key};
use crate::domain::kind::Kind;
use crate::domain::lint::reads::{Read, reads};
use crate::error::ApiError;
use crate::query::floors::Scope;
use crate::query::promql::{Names, analyse};
use crate::store::StoreError;

/// What is to be flushed. All that is said must apply to an answer; `all` and `dashboard` stand alone, but for the dashboard's
/// project.
#[derive(Debug, Clone, Default, Deserialize, Serialize, Args)]
#[serde(default, deny_unknown_fields)]
pub struct Flush {
    /// Everything
    #[arg(long)]
    pub all: bool,
    /// Answers of datasources in this project and its dashboards
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
    /// Answers of datasources of this name
    #[arg(long, value_name = "NAME")]
    pub datasource: Option<String>,
    /// Answers that read, or may read, this metric
    #[arg(long, value_name = "NAME")]
    pub metric: Option<String>,
    /// The answer with this key, as `explain` shows it
    #[arg(long, value_name = "DIGEST")]
    pub key: Option<String>,
    /// Answers that read what the queries of this dashboard of --project read
    #[arg(long, value_name = "NAME")]
    pub dashboard: Option<String>,
}

impl Flush {
    /// The scopes; `fold` gives names the letter case of the store, of which `read` is asked for a dashboard.
    ///
    /// # Errors
    /// 400 for what cannot be meant, 404 for a dashboard that does not exist.
    pub async fn scopes(
        &self,
        read: impl AsyncFnOnce(Key) -> Result<Option<Document>, StoreError>,
        fold: impl Fn(&str) -> String,
    ) -> Result<Vec<Scope>, ApiError> {
        let bad = |text: &str| Err(ApiError::BadRequest(text.to_owned()));
        let name = |name: &Option<String>| name.as_deref().filter(|name| !name.is_empty()).map(&fold);
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let scope = Scope {
            project: name(&self.project),
            datasource: name(&self.datasource),
            metric: text(&self.metric),
            key: text(&self.key),
        };
        let dashboard = name(&self.dashboard);
        let says_nothing = scope == Scope::default();
        if self.all {
            return if says_nothing && dashboard.is_none() {
                Ok(vec![scope])
            } else {
                bad("all stands alone: it would be more than the rest says")
            };
        }
        let Some(dashboard) = dashboard else {
            return if says_nothing {
                bad("say what is to be flushed: datasource, project, dashboard, metric, key, or all")
            } else {
                Ok(vec![scope])
            };
        };
        let Scope { project: Some(project), datasource: None, metric: None, key: None } = &scope else {
            return bad("a dashboard is named with its project, and without anything else");
        };
        let key = Key::in_project(Kind::Dashboard, project, dashboard);
        let document = read(key).await?.ok_or(ApiError::NotFound)?;
        let spec = serde_json::from_str(document.spec.get()).map_err(|error| ApiError::Internal(error.to_string()))?;
        let mut scopes = Vec::new();
        for read in reads(Kind::Dashboard, &spec) {
            for scope in of_read(&read) {
                if !scopes.contains(&scope) {
                    scopes.push(scope);
                }
            }
        }
        Ok(scopes)
    }
}

/// The scopes of one expression of a dashboard.
fn of_read(read: &Read) -> Vec<Scope> {
    let names = names(read);
    let scope = |metric: Option<String>| Scope { datasource: read.datasource.clone(), metric, ..Scope::default() };
    if names.others {
        return vec![scope(None)];
    }
    names.written.into_iter().map(|name| scope(Some(name))).collect()
}

/// The metrics that an expression names; what stands in the place of a variable is no name.
fn names(read: &Read) -> Names {
    let Some(text) = read.text.as_deref().filter(|text| !text.contains("__name__")) else { return Names::unknown() };
    let understood = read.candidates.iter().map(|text| analyse(text)).find(|analysis| !analysis.names.others);
    match understood {
        Some(analysis) if analysis.names.written.iter().all(|name| is_a_word_of(text, name)) => {
            Names::clone(&analysis.names)
        }
        _ => Names::unknown(),
    }
}

fn is_a_word_of(text: &str, name: &str) -> bool {
    let goes_on = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '$');
    text.match_indices(name).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        !before.ends_with(goes_on) && !before.ends_with("${") && !after.starts_with(goes_on)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_dashboard_reads_what_its_queries_name() {
        let query = |text: &str, datasource: &str| {
            let spec = json!({"query": text, "datasource": {"kind": "PrometheusDatasource", "name": datasource}});
            json!({"kind": "TimeSeriesQuery", "spec": {"plugin": {"kind": "PrometheusTimeSeriesQuery", "spec": spec}}})
        };
        let scopes = |text: &str, datasource: &str| {
            let panel = json!({"spec": {"plugin": {"kind": "TimeSeriesChart", "spec": {}}, "queries": [query(text, datasource)]}});
            let spec = json!({"panels": {"one": panel}});
            let all = reads(Kind::Dashboard, &spec).iter().flat_map(of_read).collect::<Vec<_>>();
            all.iter().map(|scope| scope.describe().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(scopes("rate(up{job=~\"$job\"}[$__rate_interval])", "prom"), ["datasource prom, metric up"]);
        assert_eq!(scopes("up", "$ds"), ["metric up"]);
        for unknown in
            ["$metric{a=\"1\"}", "${metric}", "x_$metric", "{__name__=~\"up.*\"}", "{job=\"x\"}", "not promql ("]
        {
            assert_eq!(scopes(unknown, "prom"), ["datasource prom"], "{unknown}");
        }
        let mut both = scopes("up / down", "prom");
        both.sort();
        assert_eq!(both, ["datasource prom, metric down", "datasource prom, metric up"]);
    }
}
