//! What a dashboard asks Prometheus for, as far as it is written.

use serde_json::Value;

use super::{plugins, substitute};
use crate::domain::kind::Kind;

/// One expression or selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The datasource's name, when it is written.
    pub datasource: Option<String>,
    /// As written; `None`: it asks for no metric in particular.
    pub text: Option<String>,
    /// With something in the place of variables, likeliest first.
    pub candidates: Vec<String>,
}

/// What a document asks for.
pub fn reads(kind: Kind, spec: &Value) -> Vec<Read> {
    let mut reads = Vec::new();
    for used in plugins::of(kind, spec) {
        let Some(spec) = used.spec else { continue };
        let texts: Vec<&str> = match used.kind {
            "PrometheusTimeSeriesQuery" => spec.get("query").and_then(Value::as_str).into_iter().collect(),
            "PrometheusPromQLVariable" | "PrometheusPromQLAnnotation" => {
                spec.get("expr").and_then(Value::as_str).into_iter().collect()
            }
            "PrometheusLabelValuesVariable" | "PrometheusLabelNamesVariable" => {
                spec.get("matchers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
            }
            _ => continue,
        };
        let datasource = spec.pointer("/datasource/name").and_then(Value::as_str);
        let datasource = datasource.filter(|name| !name.is_empty() && !name.contains('$')).map(str::to_owned);
        if texts.is_empty() {
            reads.push(Read { datasource, text: None, candidates: Vec::new() });
            continue;
        }
        reads.extend(texts.into_iter().map(|text| Read {
            datasource: datasource.clone(),
            text: Some(text.to_owned()),
            candidates: substitute::candidates(text).collect(),
        }));
    }
    reads
}
