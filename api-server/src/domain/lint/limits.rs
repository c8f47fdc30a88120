//! Limits of PromQL in dashboards, as far as they can be seen without asking Prometheus.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{Expr, Offset, VectorSelector};
use serde_json::Value;

use super::plugins::{PluginUse, Role};
use super::{Finding, substitute};
use crate::domain::{duration, promql};

/// Longest part of a parser's message that is passed on, in characters.
const MAX_REASON: usize = 120;

/// `validation.query_limits`; a limit of zero is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryLimits {
    /// Series of one panel, as far as its queries say how many they want (`topk`, `bottomk`, `limitk`).
    pub max_time_series_per_chart: u64,
    /// How far an expression may look back: ranges, sub-queries and offsets together.
    pub max_lookback_window: Duration,
    /// Characters of an expression.
    pub max_query_length: usize,
    /// Labels that every selector of a panel's queries must restrict (`=` or `=~`, to less than everything).
    pub required_label_filters: Vec<String>,
}

impl Default for QueryLimits {
    fn default() -> Self {
        Self {
            max_time_series_per_chart: 500,
            max_lookback_window: Duration::from_secs(7 * 24 * 3600),
            max_query_length: 1000,
            required_label_filters: Vec::new(),
        }
    }
}

/// What an expression says about itself.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// How far it looks back: ranges, sub-queries and offsets together.
    pub lookback: Duration,
    /// The series that it asks for, if it says so.
    pub series: Option<u64>,
    /// Selectors without a required label, and which.
    pub unfiltered: Vec<(String, String)>,
}

impl Facts {
    /// Of a query as Prometheus gets it, without variables.
    ///
    /// # Errors
    /// Why the text is not understood.
    pub fn of(query: &str, required: &[String]) -> Result<Self, String> {
        promql::parse(query, |expr| facts(expr, required)).map_err(|reason| first_line(&reason))
    }
}

pub(super) fn check(limits: &QueryLimits, uses: &[PluginUse<'_>], findings: &mut Vec<Finding>) {
    let mut known: HashMap<&str, Result<Facts, String>> = HashMap::new();
    let mut panels: BTreeMap<&str, u64> = BTreeMap::new();
    for used in uses {
        let Some((key, text)) = expression(used) else { continue };
        let path = || format!("{}.spec.{key}", used.path);
        let length = text.chars().count();
        if limits.max_query_length > 0 && length > limits.max_query_length {
            let limit = limits.max_query_length;
            findings.push(Finding::error(
                path(),
                format!("the query has {length} characters, at most {limit} are allowed"),
            ));
        }
        let facts = known.entry(text).or_insert_with(|| analyse(text, &limits.required_label_filters));
        let facts = match facts {
            Ok(facts) => facts,
            Err(reason) => {
                findings.push(Finding::warning(path(), format!("not understood as PromQL: {reason}")));
                continue;
            }
        };
        let (lookback, longest) = (facts.lookback.as_secs(), limits.max_lookback_window.as_secs());
        if longest > 0 && lookback > longest {
            let [found, allowed] = [lookback, longest].map(|seconds| duration::format(Duration::from_secs(seconds)));
            findings
                .push(Finding::error(path(), format!("the query looks back {found}, at most {allowed} is allowed")));
        }
        // What fills a variable is what the filters are made of.
        if used.role == Role::Query {
            findings.extend(facts.unfiltered.iter().map(|(selector, label)| {
                Finding::error(path(), format!("selector {selector} has no filter on the label {label:?}"))
            }));
        }
        if let (Some(panel), Some(series)) = (&used.panel, facts.series) {
            let sum = panels.entry(panel).or_default();
            *sum = sum.saturating_add(series);
        }
    }
    let limit = limits.max_time_series_per_chart;
    findings.extend(panels.into_iter().filter(|(_, sum)| limit > 0 && *sum > limit).map(|(panel, sum)| {
        Finding::error(panel, format!("the queries ask for {sum} time series, at most {limit} are allowed in a chart"))
    }));
}

/// The PromQL of a plugin, and the member of its spec that holds it.
fn expression<'v>(used: &PluginUse<'v>) -> Option<(&'static str, &'v str)> {
    let key = match used.kind {
        "PrometheusTimeSeriesQuery" => "query",
        "PrometheusPromQLVariable" | "PrometheusPromQLAnnotation" => "expr",
        _ => return None,
    };
    let text = used.spec?.get(key).and_then(Value::as_str)?;
    // An empty one is for the schema to say.
    (!text.trim().is_empty()).then_some((key, text))
}

fn analyse(query: &str, required: &[String]) -> Result<Facts, String> {
    let mut reason = String::new();
    for candidate in substitute::candidates(query) {
        match promql::parse(&candidate, |expr| facts(expr, required)) {
            Ok(facts) => return Ok(facts),
            // The first guess is the likeliest: its reason is told.
            Err(error) if reason.is_empty() => reason = error,
            Err(_) => {}
        }
    }
    Err(first_line(&reason))
}

/// The part of a parser's message that is passed on.
fn first_line(reason: &str) -> String {
    let line = reason.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("unknown reason");
    line.chars().take(MAX_REASON).collect()
}

fn facts(expr: &Expr, required: &[String]) -> Facts {
    let mut facts = Facts { series: asked_series(expr), ..Facts::default() };
    let mut todo = vec![(expr, Duration::ZERO)];
    while let Some((expr, outer)) = todo.pop() {
        let inner = match expr {
            Expr::Subquery(subquery) => {
                outer.saturating_add(subquery.range).saturating_add(back(subquery.offset.as_ref()))
            }
            Expr::VectorSelector(selector) => {
                selector_facts(selector, required, &mut facts);
                outer.saturating_add(back(selector.offset.as_ref()))
            }
            Expr::MatrixSelector(matrix) => {
                selector_facts(&matrix.vs, required, &mut facts);
                outer.saturating_add(matrix.range).saturating_add(back(matrix.vs.offset.as_ref()))
            }
            _ => outer,
        };
        facts.lookback = facts.lookback.max(inner);
        todo.extend(promql::parts(expr).into_iter().map(|part| (part, inner)));
    }
    facts
}

fn back(offset: Option<&Offset>) -> Duration {
    if let Some(Offset::Pos(duration)) = offset { *duration } else { Duration::ZERO }
}

fn selector_facts(selector: &VectorSelector, required: &[String], facts: &mut Facts) {
    if required.is_empty() {
        return;
    }
    let matchers = &selector.matchers;
    let groups: Vec<&[Matcher]> = if matchers.or_matchers.is_empty() {
        vec![&matchers.matchers]
    } else {
        matchers.or_matchers.iter().map(Vec::as_slice).collect()
    };
    for label in required {
        let filtered = |group: &&[Matcher]| group.iter().any(|matcher| matcher.name == *label && restricts(matcher));
        if !groups.iter().all(filtered) {
            let name = selector.name.clone().unwrap_or_else(|| "{...}".to_owned());
            facts.unfiltered.push((name, label.clone()));
        }
    }
}

/// Whether a matcher lets only part of all values through.
fn restricts(matcher: &Matcher) -> bool {
    match matcher.op {
        MatchOp::Equal => true,
        MatchOp::Re(_) => !matches!(matcher.value.as_str(), "" | ".*" | ".+"),
        MatchOp::NotEqual | MatchOp::NotRe(_) => false,
    }
}

/// The number in `topk(500, ...)` and its like, when it holds for the whole answer.
fn asked_series(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Paren(paren) => asked_series(&paren.expr),
        Expr::Aggregate(aggregate) if aggregate.modifier.is_none() => {
            let takes = ["topk", "bottomk", "limitk"].contains(&aggregate.op.to_string().as_str());
            match aggregate.param.as_deref() {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a float becomes the nearest number that there is"
                )]
                Some(Expr::NumberLiteral(number)) if takes => Some(number.val as u64),
                _ => None,
            }
        }
        _ => None,
    }
}
