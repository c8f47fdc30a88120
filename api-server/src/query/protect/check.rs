//! What can be said about a query before it is asked. Pure.

use std::time::Duration;

use super::limit::{Breach, Limit};
use crate::config::RequestLimits;
use crate::domain::duration;
use crate::domain::lint::Facts;
use crate::query::params::Params;
use crate::query::plan::{Endpoint, parse_step, parse_time};

/// Selectors that one text names, at most.
const MAX_NAMED: usize = 3;

/// Everything about a query that is over a limit. `facts` are those of an expression, maybe remembered.
pub(super) fn check<F: AsRef<Result<Facts, String>>>(
    limits: &RequestLimits,
    endpoint: Endpoint,
    params: &Params,
    facts: impl Fn(&str) -> F,
) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut add = |limit: Limit, text: String| breaches.push(Breach { limit, text });
    // One is meant; which of several counts is for the datasource to say.
    for query in params.all("query") {
        let (length, most) = (query.chars().count(), limits.max_query_length);
        if most > 0 && length > most {
            add(Limit::QueryLength, format!("the query has {length} characters, at most {most} are allowed"));
        }
        let most = limits.max_lookback_window.0;
        match facts(query).as_ref() {
            Err(reason) if !most.is_zero() || !limits.required_label_filters.is_empty() => {
                add(Limit::Unread, format!("the query cannot be checked, it is not understood as PromQL: {reason}"));
            }
            Err(_) => {}
            Ok(facts) => {
                if !most.is_zero() && facts.lookback > most {
                    add(Limit::Lookback, too_long("the query looks back", facts.lookback, most));
                }
                if !facts.unfiltered.is_empty() {
                    let named = facts.unfiltered.iter().take(MAX_NAMED);
                    let named: Vec<_> = named.map(|(selector, label)| format!("{selector} on {label:?}")).collect();
                    let more = facts.unfiltered.len().saturating_sub(MAX_NAMED);
                    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                    let text = format!("selectors without a filter that is required: {}{more}", named.join(", "));
                    add(Limit::LabelFilters, text);
                }
            }
        }
    }
    if endpoint == Endpoint::Range {
        match Window::of(params) {
            Err(name) => {
                add(Limit::Unread, format!("the query cannot be checked: the parameter {name:?} cannot be read"));
            }
            Ok(None) => {}
            Ok(Some(window)) => {
                let most = limits.max_lookback_window.0;
                if !most.is_zero() && window.length > most {
                    add(Limit::Lookback, too_long("the window is", window.length, most));
                }
                let (points, most) = (window.points(), limits.max_points_per_series);
                if most > 0 && points > u128::from(most) {
                    let text = format!("the query asks for {points} points per series, at most {most} are allowed");
                    add(Limit::PointsPerSeries, text);
                }
            }
        }
    }
    breaches
}

fn too_long(what: &str, found: Duration, most: Duration) -> String {
    let up = |duration: Duration| Duration::from_secs(duration.as_secs() + u64::from(duration.subsec_nanos() > 0));
    format!("{what} {}, at most {} is allowed", duration::format(up(found)), duration::format(most))
}

/// The window of a range query.
struct Window {
    length: Duration,
    step: Duration,
}

impl Window {
    /// `None` where one is missing or makes no sense, which the datasource says itself; an error names what cannot be read.
    fn of(params: &Params) -> Result<Option<Self>, &'static str> {
        let [start, end, step] = ["start", "end", "step"].map(|name| params.all(name).next());
        let (Some(start), Some(end), Some(step)) = (start, end, step) else { return Ok(None) };
        let (start, end) = (parse_time(start).ok_or("start")?, parse_time(end).ok_or("end")?);
        let step = match parse_step(step).map(u64::try_from) {
            Some(Ok(millis)) => Duration::from_millis(millis),
            // Fractions of a millisecond.
            _ => step.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or("step")?,
        };
        let length = end.checked_sub(start).and_then(|length| u64::try_from(length).ok());
        Ok(length.filter(|_| !step.is_zero()).map(|length| Self { length: Duration::from_millis(length), step }))
    }

    fn points(&self) -> u128 {
        self.length.as_nanos() / self.step.as_nanos() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(limits: &RequestLimits, params: &str) -> Vec<(Limit, String)> {
        let facts = |query: &str| Box::new(Facts::of(query, &limits.required_label_filters));
        let params = Params::parse(Some(params), None).unwrap();
        check(limits, Endpoint::Range, &params, facts).into_iter().map(|breach| (breach.limit, breach.text)).collect()
    }

    fn limits(labels: &[&str]) -> RequestLimits {
        RequestLimits {
            required_label_filters: labels.iter().map(|&text| text.to_owned()).collect(),
            ..RequestLimits::default()
        }
    }

    #[test]
    fn each_limit_says_what_it_found() {
        let with = |query: &str| format!("query={query}&start=0&end=3600&step=15");
        assert_eq!(found(&limits(&[]), &with("sum(rate(m%5B7d%5D))")), []);
        for (limits, params, limit, text) in [
            (
                limits(&[]),
                with(&"a".repeat(1001)),
                Limit::QueryLength,
                "the query has 1001 characters, at most 1000 are allowed",
            ),
            (
                limits(&[]),
                with("rate(m%5B6d%5D+offset+2d)"),
                Limit::Lookback,
                "the query looks back 8d, at most 1w is allowed",
            ),
            (
                limits(&[]),
                "query=m&start=0&end=604800.5&step=1h".to_owned(),
                Limit::Lookback,
                "the window is 7d1s, at most 1w is allowed",
            ),
            (
                limits(&["ns"]),
                with("a/b%7Bns%3D%22x%22%7D"),
                Limit::LabelFilters,
                "selectors without a filter that is required: a on \"ns\"",
            ),
            (
                limits(&[]),
                "query=m&start=0&end=11000&step=1".to_owned(),
                Limit::PointsPerSeries,
                "the query asks for 11001 points per series, at most 11000 are allowed",
            ),
            (
                limits(&[]),
                "query=m&start=0&end=100&step=0.0001".to_owned(),
                Limit::PointsPerSeries,
                "the query asks for 1000001 points per series, at most 11000 are allowed",
            ),
            (
                limits(&[]),
                "query=m&start=0x1p3&end=100&step=1".to_owned(),
                Limit::Unread,
                "the query cannot be checked: the parameter \"start\" cannot be read",
            ),
        ] {
            assert_eq!(found(&limits, &params), [(limit, text.to_owned())], "{params}");
        }
        let found = found(&limits(&[]), &with("sum("));
        assert!(
            matches!(&found[..], [(Limit::Unread, text)] if text.contains("not understood as PromQL")),
            "{found:?}"
        );
    }

    #[test]
    fn every_value_of_a_parameter_that_stands_twice_counts() {
        assert_eq!(found(&limits(&["ns"]), "query=m%7Bns%3D%22x%22%7D&query=m&start=0&end=1&step=1").len(), 1);
    }

    #[test]
    fn zero_is_no_limit() {
        let none = RequestLimits {
            max_query_length: 0,
            max_lookback_window: crate::config::ConfigDuration::from_secs(0),
            max_points_per_series: 0,
            ..RequestLimits::default()
        };
        let query = format!("m%5B1y%5D{}", "+".repeat(2000));
        assert_eq!(found(&none, &format!("query={query}&start=0&end=99999999&step=1")), []);
    }
}
