//! `query`: the Prometheus query path.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::ConfigDuration;

/// `query`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// How long a datasource may take to answer a Prometheus query, and its answer may stand still.
    pub timeout: ConfigDuration,
    /// Whether answers of Prometheus `query` and `query_range` are cached.
    pub cache: bool,
    /// Lives of cached answers.
    pub ttl: QueryTtl,
    /// Data younger than this may still change: points that read it are used no longer than `ttl.realtime`. At least the
    /// time in which every scrape of an instant has arrived; two scrape intervals, or a minute.
    pub freshness: ConfigDuration,
    /// How long points of older data are used before they are asked for again (late samples, deleted series).
    pub settled: ConfigDuration,
    /// Answers above this many bytes are passed through and not kept.
    pub max_cached_bytes: u64,
    /// All panels of a dashboard in one request.
    pub batch: Batch,
    /// What holds for single datasources in place of the above: of the entries that fit a datasource the first counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub datasources: Vec<DatasourceQuery>,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            timeout: ConfigDuration::from_secs(60),
            cache: true,
            ttl: QueryTtl::default(),
            freshness: ConfigDuration::from_secs(60),
            settled: ConfigDuration::from_secs(3600),
            max_cached_bytes: 8 << 20,
            batch: Batch::default(),
            datasources: Vec::new(),
        }
    }
}

/// `query.batch`: `POST /api/v1/projects/{project}/dashboards/{name}/query`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Batch {
    /// Queries of a request at most; a repeated row counts once for each value.
    pub max_queries: NonZeroUsize,
    /// How many queries of a request are under way together.
    pub concurrency: NonZeroUsize,
}

impl Default for Batch {
    fn default() -> Self {
        let number = |number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
        Self { max_queries: number(500), concurrency: number(8) }
    }
}

/// An entry of `query.datasources`; what it leaves out is as for all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DatasourceQuery {
    /// `metadata.name` of the datasource (in a dashboard: its key); `*` fits every name.
    pub name: String,
    /// The project that it is in; without it the entry fits global datasources and those of every project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// In place of `query.timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<ConfigDuration>,
    /// In place of `query.cache`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<bool>,
    /// In place of `query.ttl`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<QueryTtl>,
    /// In place of `query.freshness`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freshness: Option<ConfigDuration>,
    /// In place of `query.settled`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<ConfigDuration>,
}

/// `query.ttl`: the table of seed section 4.1, by the age of the newest asked instant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueryTtl {
    /// Newest instant under 5 minutes old.
    pub realtime: ConfigDuration,
    /// Under one hour.
    pub recent: ConfigDuration,
    /// Older.
    pub historical: ConfigDuration,
}

impl Default for QueryTtl {
    fn default() -> Self {
        Self {
            realtime: ConfigDuration::from_secs(30),
            recent: ConfigDuration::from_secs(300),
            historical: ConfigDuration::from_secs(900),
        }
    }
}
