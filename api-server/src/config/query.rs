//! `query`: the Prometheus query path.

use std::num::NonZeroUsize;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::protection::{DatasourceLimits, RequestLimits};
use super::tenancy::Tenancy;
use super::values::ConfigDuration;

/// `query`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// How long a datasource may take to answer a Prometheus query, and its answer may stand still.
    pub timeout: ConfigDuration,
    /// Whether answers of Prometheus to queries, and about series and labels, are cached.
    pub cache: bool,
    /// Lives of cached answers.
    pub ttl: QueryTtl,
    /// Data younger than this may still change: points that read it are used no longer than `ttl.realtime`. At least the
    /// time in which every scrape of an instant has arrived; two scrape intervals, or a minute.
    pub freshness: ConfigDuration,
    /// How long points of older data are used before they are asked for again (late samples, deleted series).
    pub settled: ConfigDuration,
    /// How answers are used whose time is over.
    pub stale: QueryStale,
    /// Answers above this many bytes are passed through and not kept.
    pub max_cached_bytes: u64,
    /// What protects datasources, and this server, from queries.
    pub limits: RequestLimits,
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
            stale: QueryStale::default(),
            max_cached_bytes: 8 << 20,
            limits: RequestLimits::default(),
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
    /// In place of single keys of `query.limits`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<DatasourceLimits>,
    /// Whose data is shown: without it all, to everybody who may use the datasource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenancy: Option<Tenancy>,
    /// In place of `query.stale`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<QueryStale>,
}

impl DatasourceQuery {
    /// The entry for the datasources that fit both, with the limits of this one first; `None` where no datasource does.
    fn limiting(&self, other: &Self) -> Option<Self> {
        let name = match (self.name.as_str(), other.name.as_str()) {
            ("*", name) | (name, "*") => name,
            (name, same) if name == same => name,
            _ => return None,
        };
        let project = match (&self.project, &other.project) {
            (None, project) | (project, None) => project.clone(),
            (Some(project), Some(same)) if project == same => Some(project.clone()),
            _ => return None,
        };
        let (own, others) = (self.limits.clone().unwrap_or_default(), other.limits.clone().unwrap_or_default());
        Some(Self { name: name.to_owned(), project, limits: Some(own.or(&others)), ..other.clone() })
    }
}

impl Query {
    /// The same with other limits: for all, and of entries that count before those that are here.
    #[must_use]
    pub fn limited(&self, limits: RequestLimits, first: &[DatasourceQuery]) -> Self {
        let all = DatasourceQuery { name: "*".to_owned(), ..DatasourceQuery::default() };
        let both = first.iter().flat_map(|one| {
            self.datasources.iter().chain(std::iter::once(&all)).filter_map(move |other| one.limiting(other))
        });
        let datasources = both.chain(self.datasources.iter().cloned()).collect();
        Self { limits, datasources, ..self.clone() }
    }
}

/// `query.ttl`: the table of seed section 4.1, by the age of the newest asked instant; and what is asked about series.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueryTtl {
    /// Newest instant under 5 minutes old.
    pub realtime: ConfigDuration,
    /// Under one hour.
    pub recent: ConfigDuration,
    /// Older.
    pub historical: ConfigDuration,
    /// Of `series`, `labels`, values of labels, `metadata` and exemplars; windows that ended longer than `query.settled` ago have
    /// `historical`.
    pub metadata: ConfigDuration,
}

impl Default for QueryTtl {
    fn default() -> Self {
        Self {
            realtime: ConfigDuration::from_secs(30),
            recent: ConfigDuration::from_secs(300),
            historical: ConfigDuration::from_secs(900),
            metadata: ConfigDuration::from_secs(60),
        }
    }
}

/// `query.stale`: the use of answers whose time is over. They say so in `Cache-Status`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueryStale {
    /// For so long after its time an answer is given while a fresh one is asked for.
    pub while_revalidate: ConfigDuration,
    /// For so long after its time it is given, with a warning, when the datasource cannot be reached or fails.
    pub if_error: ConfigDuration,
}

impl Default for QueryStale {
    fn default() -> Self {
        Self { while_revalidate: ConfigDuration::from_secs(15), if_error: ConfigDuration::from_secs(600) }
    }
}
