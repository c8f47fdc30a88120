//! Limits of the namespace, the network and the server.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether the namespace gets a ResourceQuota that is cut for this stack.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum QuotaMode {
    /// `<stack>-quota` holds the stack under full load, and the same again as room. It counts everything in the namespace, so
    /// the stack should be alone there.
    Enabled,
    /// No quota.
    #[default]
    Disabled,
}

/// Which pods NetworkPolicies protect.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum NetworkPolicyMode {
    /// Database, pooler and cache take connections from the parts of the stack that need them, and from nobody else.
    #[default]
    DataStores,
    /// Every pod of the stack: the API is reached by routers, monitoring, the operator and the namespace itself; nothing
    /// but what the spec names is called from inside.
    All,
    /// No NetworkPolicy.
    Disabled,
}

/// Limits that the API server enforces; running pods follow a change, but for `rate.maxConnections`.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Limits of the queries in dashboards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<QueryLimits>,
    /// Limits of requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateLimits>,
}

/// Limits of the queries in dashboards; what is absent keeps the server's default.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryLimits {
    /// What happens to a document over a limit. Also decides about other findings of validation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<LimitMode>,
    /// Series that the queries of one panel may ask for, as far as they say so; 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_time_series_per_chart: Option<i32>,
    /// How far a query may look back (Prometheus duration); `0s` is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        regex(pattern = r"^([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$"),
        length(min = 2, max = 32)
    )]
    pub max_lookback_window: Option<String>,
    /// Characters of a query; 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_query_length: Option<i32>,
    /// Labels that every selector of a panel's queries must restrict.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(regex(pattern = r"^[a-zA-Z_][a-zA-Z0-9_]*$"), length(max = 256)))]
    pub required_label_filters: Vec<String>,
}

/// What happens to a document over a limit.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum LimitMode {
    /// It is stored, and the answer carries a warning.
    Warn,
    /// It is refused.
    Enforce,
}

impl LimitMode {
    /// The server's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Enforce => "enforce",
        }
    }
}

/// Limits of requests in one API pod; what is absent keeps the server's default.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimits {
    /// Failed sign-ins per minute from one client address; 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub failed_sign_ins_per_address: Option<i32>,
    /// Failed sign-ins per minute for one login; 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub failed_sign_ins_per_login: Option<i32>,
    /// Connections of clients at a time; further ones wait. No limit when absent. A change replaces the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<i32>,
}
