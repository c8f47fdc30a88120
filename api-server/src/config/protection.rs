//! `query.limits`: what protects datasources, and this server, from queries.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::ConfigDuration;

/// `query.limits.mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LimitMode {
    /// Nothing is looked at.
    Off,
    /// What is over a limit is served, counted in `perses_query_limits_total`, and told in the header `Warning`.
    #[default]
    Warn,
    /// What is over a limit is refused.
    Enforce,
}

/// The limits once: as they hold for all datasources, and as the entry of one may say them in part.
macro_rules! limits {
    ($($(#[$about:meta])* $name:ident: $kind:ty = $default:expr,)*) => {
        /// `query.limits`; a limit of zero is none.
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct RequestLimits {
            $($(#[$about])* pub $name: $kind,)*
        }

        impl Default for RequestLimits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// `query.datasources[].limits`; what it leaves out is as in `query.limits`.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        pub struct DatasourceLimits {
            $($(#[$about])* #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<$kind>,)*
        }

        impl DatasourceLimits {
            /// The limits of the datasource, where these hold for all.
            #[must_use]
            pub fn over(&self, all: &RequestLimits) -> RequestLimits {
                RequestLimits { $($name: self.$name.clone().unwrap_or_else(|| all.$name.clone()),)* }
            }

            /// These, and what they leave out as the other ones say it.
            #[must_use]
            pub fn or(&self, other: &Self) -> Self {
                Self { $($name: self.$name.clone().or_else(|| other.$name.clone()),)* }
            }
        }
    };
}

limits! {
    /// What is done about what is over a limit.
    mode: LimitMode = LimitMode::default(),
    /// Who raises a limit: the words behind "ask" in the text of a refusal.
    contact: String = "the administrators of this server".to_owned(),
    /// Characters of a query.
    max_query_length: usize = 1000,
    /// How far a query may look back (ranges, sub-queries and offsets together), and how long its window may be.
    max_lookback_window: ConfigDuration = ConfigDuration::from_secs(7 * 24 * 3600),
    /// Labels that every selector of a query must restrict (`=` or `=~`, to less than everything).
    required_label_filters: Vec<String> = Vec::new(),
    /// Points that a range query may ask for per series.
    max_points_per_series: u64 = 11_000,
    /// Series of one answer.
    max_series: u64 = 500,
    /// Points of one answer, all series together.
    max_points: u64 = 1_000_000,
    /// Bytes of one answer.
    max_bytes: u64 = 64 << 20,
    /// Queries of one user (or of one client address, while sign-in is off) that reach the datasource, per second; answers
    /// of the cache do not count. Each server process counts for itself.
    user_rate: u32 = 20,
    /// How many of them may come at once.
    user_burst: u32 = 200,
    /// Queries of one user per second, answers of the cache included.
    user_total_rate: u32 = 200,
    /// How many of them may come at once.
    user_total_burst: u32 = 2000,
    /// Queries that the datasource computes at the same time, for this process.
    max_concurrent: u32 = 20,
    /// Queries that wait for that; more are refused at once.
    max_queued: u32 = 200,
    /// How long a query waits at most.
    max_queue_wait: ConfigDuration = ConfigDuration::from_secs(10),
    /// After so many failures in a row (no connection, no answer in time, a 5xx that is not JSON) the datasource is left
    /// alone for `breaker_pause`; then one query tries it.
    breaker_failures: u32 = 5,
    /// How long a failing datasource is left alone.
    breaker_pause: ConfigDuration = ConfigDuration::from_secs(5),
}
