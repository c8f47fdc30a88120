//! Plans of what is asked about series instead of their samples: `series`, `labels`, `label/*/values`, `metadata`, and exemplars.
//!
//! A window is part of the key as it was sent, for nothing may be added to it or left out. One exception: the UI asks for "the last
//! hour until now", and asks a second later for another window. A window that ends now is one to the same window of a moment
//! ago, as `query` without a time is: within a bucket all who ask for the same length share an answer.

use std::sync::Arc;

use super::{BUCKET_MS, Class, Endpoint, Input, KeyText, Plan, Uncacheable, bucket_of, is_settled};
use crate::query::floors::Floor;
use crate::query::promql::{Analysis, Names, selector};

/// Shorter windows are taken at their word: of these a bucket is a large part.
const LEAST_SLIDING_MS: i64 = 5 * 60 * 1000;

pub(super) fn plan<A: AsRef<Analysis>>(
    input: &Input<'_>,
    analyse: impl FnOnce(&str) -> A,
) -> Result<Plan, Uncacheable> {
    let mut key = KeyText::new(input.endpoint, input.source);
    let names = match input.endpoint {
        Endpoint::Exemplars => {
            let analysis = analyse(input.query()?);
            let analysis = analysis.as_ref();
            key.part("query", &analysis.text);
            input.others_into(&mut key, &["query", "start", "end"]);
            analysis.names.clone()
        }
        Endpoint::Metadata => {
            input.others_into(&mut key, &[]);
            let metric = input.single("metric")?.filter(|metric| !metric.is_empty());
            let known = |metric: &str| Names { written: vec![metric.to_owned()], others: false };
            Arc::new(metric.map_or_else(Names::unknown, known))
        }
        _ => {
            if input.endpoint == Endpoint::LabelValues {
                key.part("label", input.label.ok_or(Uncacheable::Parameter("label"))?);
            }
            let names = selectors(input, &mut key)?;
            input.others_into(&mut key, &["match[]", "start", "end"]);
            Arc::new(names)
        }
    };
    let newest = if input.endpoint == Endpoint::Metadata { now(input, &mut key) } else { window(input, &mut key)? };
    let (class, ttl) = if is_settled(input, newest) {
        (Class::Immutable, input.policy.ttl.historical.0)
    } else {
        (Class::WindowBound, input.policy.ttl.metadata.0)
    };
    if ttl.is_zero() {
        return Err(Uncacheable::Ttl);
    }
    Ok(Plan {
        endpoint: input.endpoint,
        key: key.finish(bucket_of(input, newest)),
        ttl,
        timeout: None,
        points: None,
        anytime: None,
        policy: input.policy.clone(),
        class,
        names,
        source: input.source.reference.clone(),
        floor: Floor::default(),
    })
}

/// The selectors in the key, in an order of our own; the metrics that they read.
fn selectors(input: &Input<'_>, key: &mut KeyText) -> Result<Names, Uncacheable> {
    let (mut texts, mut names) = (Vec::new(), Names::default());
    for text in input.params.all("match[]") {
        let (text, read) = selector(text);
        texts.push(text);
        names.extend(&read);
    }
    if texts.is_empty() {
        if input.endpoint == Endpoint::Series {
            return Err(Uncacheable::Parameter("match[]"));
        }
        names.others = true;
    }
    texts.sort();
    for text in &texts {
        key.part("match[]", text);
    }
    Ok(names)
}

/// The metrics in the parts of a key.
pub(super) fn names_in(parts: &[(&str, &str)]) -> Names {
    let mut names = Names::default();
    let mut found = false;
    for (name, value) in parts {
        let read = match *name {
            // As it was put there; what was not understood is marked and understood no better now.
            "match[]" => selector(value).1,
            "metric" if !value.is_empty() => Names { written: vec![(*value).to_owned()], others: false },
            _ => continue,
        };
        names.extend(&read);
        found = true;
    }
    names.others |= !found;
    names
}

/// Without a window all who ask within a bucket share an answer.
fn now(input: &Input<'_>, key: &mut KeyText) -> Option<i64> {
    key.part("now", &input.now_ms.div_euclid(BUCKET_MS).to_string());
    None
}

/// The window in the key, and the newest instant in it.
fn window(input: &Input<'_>, key: &mut KeyText) -> Result<Option<i64>, Uncacheable> {
    let (start, end) = (input.time("start")?, input.time("end")?);
    if let (Some(start), Some(end)) = (start, end) {
        let length = end.saturating_sub(start);
        if length < 0 {
            return Err(Uncacheable::Parameter("end"));
        }
        let until_now = end.saturating_sub(input.now_ms).saturating_abs() < BUCKET_MS;
        if until_now && length >= LEAST_SLIDING_MS {
            key.part("length", &length.to_string());
            key.part("until", &end.div_euclid(BUCKET_MS).to_string());
            return Ok(Some(end));
        }
    }
    if let Some(start) = start {
        key.part("start", &start.to_string());
    }
    Ok(match end {
        Some(end) => {
            key.part("end", &end.to_string());
            Some(end)
        }
        None => now(input, key),
    })
}
