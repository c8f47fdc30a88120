//! Limits that the running server reads again: `limits_file` of its configuration, in a ConfigMap that the pods mount.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Map, Value, json};

use super::labels::Component;
use super::{meta, server_config};
use crate::api::v1alpha1::Limits;
use crate::controllers::persesstack::validate::{Invalid, Validated};

/// Where the pods mount it.
pub(super) const FOLDER: &str = "/etc/perses/limits";
/// Its name there.
pub(super) const FILE: &str = "limits.yaml";

/// The ConfigMap; it holds no secret.
pub(super) fn build(v: &Validated) -> Result<ConfigMap, Invalid> {
    let text = server_config::yaml(&content(&v.spec.limits))?;
    let metadata = meta::owned(v, v.names.limits(), Component::Api);
    Ok(meta::config_map(metadata, BTreeMap::from([(FILE.to_owned(), text)])))
}

/// `spec.limits` in the server's keys. What is absent is left to the server's configuration.
fn content(limits: &Limits) -> Value {
    let query = limits.query.clone().unwrap_or_default();
    let rate = limits.rate.clone().unwrap_or_default();
    let labels = query.required_label_filters;
    let of_queries = object([
        ("max_time_series_per_chart", query.max_time_series_per_chart.map(Value::from)),
        ("max_lookback_window", query.max_lookback_window.map(Value::from)),
        ("max_query_length", query.max_query_length.map(Value::from)),
        ("required_label_filters", (!labels.is_empty()).then(|| json!(labels))),
    ]);
    let validation = object([("mode", query.mode.map(|mode| json!(mode.as_str()))), ("query_limits", of_queries)]);
    let of_sign_ins = object([
        ("per_address", rate.failed_sign_ins_per_address.map(Value::from)),
        ("per_login", rate.failed_sign_ins_per_login.map(Value::from)),
    ]);
    let security = of_sign_ins.map(|rate| json!({ "authentication": { "rate_limit": rate } }));
    object([("validation", validation), ("security", security)]).unwrap_or_else(|| json!({}))
}

/// An object of the members that are there; `None` when none is.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Option<Value> {
    let there: Map<_, _> = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    (!there.is_empty()).then_some(Value::Object(there))
}
