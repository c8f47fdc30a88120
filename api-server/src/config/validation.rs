//! `validation`: checks of documents beyond what Perses itself refuses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::ConfigDuration;
use crate::domain::lint;

/// `validation`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Validation {
    /// What is done about specs of plugins, unknown plugins and the limits of queries.
    pub mode: ValidationMode,
    /// Limits of PromQL in documents.
    pub query_limits: QueryLimits,
}

/// `validation.mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValidationMode {
    /// Nothing is looked at.
    Off,
    /// What is found is told in the header `Warning` of the answer.
    #[default]
    Warn,
    /// Errors are answered with 400, warnings told.
    Enforce,
}

/// `validation.query_limits` (seed section 4.2); a limit of zero is none.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueryLimits {
    /// Series that the queries of one panel may ask for, as far as they say so.
    pub max_time_series_per_chart: u64,
    /// How far a query may look back.
    pub max_lookback_window: ConfigDuration,
    /// Characters of a query.
    pub max_query_length: usize,
    /// Labels that every selector of a panel's queries must restrict.
    pub required_label_filters: Vec<String>,
}

impl Default for QueryLimits {
    fn default() -> Self {
        let limits = lint::QueryLimits::default();
        Self {
            max_time_series_per_chart: limits.max_time_series_per_chart,
            max_lookback_window: ConfigDuration(limits.max_lookback_window),
            max_query_length: limits.max_query_length,
            required_label_filters: limits.required_label_filters,
        }
    }
}
