//! Metrics of the server: upstream's names where upstream has them, ours beside them (seed section 6).

mod summary;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use self::summary::Summary;
use crate::config::LimitMode;

/// Upstream's summary of request durations.
const UPSTREAM_DURATION: &str = "http_request_duration_second";

/// Labels of a finished request; `handler` is the matched route, never the path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// HTTP status.
    pub code: u16,
    /// Matched route.
    pub handler: Arc<str>,
    /// HTTP method.
    pub method: &'static str,
}

/// Labels of a request's duration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// Matched route.
    pub handler: Arc<str>,
    /// HTTP method.
    pub method: &'static str,
}

/// Labels of a look into a cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CacheLabels {
    /// `dashboard`, `query` or `authz`.
    pub cache: &'static str,
    /// `l1`, `l2` or `store`.
    pub tier: &'static str,
    /// `hit`, `miss`, `error`, ...
    pub result: &'static str,
}

/// Labels of an answer of the query path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    endpoint: &'static str,
    class: &'static str,
    from: &'static str,
}

/// Label of a tier.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierLabels {
    tier: &'static str,
}

/// What a tier of the query cache holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Answers, or queries with points.
    pub entries: u64,
    /// What they weigh, about.
    pub bytes: u64,
}

/// The query cache.
#[derive(Debug, Clone)]
struct Queries {
    answers: Family<AnswerLabels, Counter>,
    entries: Family<TierLabels, Gauge>,
    bytes: Family<TierLabels, Gauge>,
    evictions: Family<TierLabels, Counter>,
}

impl Queries {
    fn new(registry: &mut Registry) -> Self {
        let queries = Self {
            answers: Family::default(),
            entries: Family::default(),
            bytes: Family::default(),
            evictions: Family::default(),
        };
        let text = "Answers of the query path, by endpoint, class of the query and where they came from";
        registry.register("query_answers", text, queries.answers.clone());
        let text = "Answers (l1) and queries with points (points) in the memory of this process";
        registry.register("query_cache_entries", text, queries.entries.clone());
        let text = "Bytes of answers (l1) and points (points) in the memory of this process, about";
        registry.register("query_cache_bytes", text, queries.bytes.clone());
        let text = "Answers and points that were dropped for others, for want of room";
        registry.register("query_cache_evictions", text, queries.evictions.clone());
        queries
    }
}

/// Labels of what the UI reports about a dashboard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DashboardLabels {
    /// `metadata.project`.
    pub project: String,
    /// `metadata.name`.
    pub dashboard: String,
}

/// Upstream's three families of `POST /api/v1/view`.
#[derive(Debug, Clone)]
struct Views {
    count: Family<DashboardLabels, Counter>,
    errors: Family<DashboardLabels, Counter>,
    seconds: Family<DashboardLabels, Histogram, fn() -> Histogram>,
}

impl Views {
    fn new(registry: &mut Registry) -> Self {
        let views = Self {
            count: Family::default(),
            errors: Family::default(),
            seconds: Family::new_with_constructor(request_histogram as fn() -> Histogram),
        };
        registry.register("dashboard_views", "Number of times a dashboard was shown", views.count.clone());
        registry.register("dashboard_render_errors", "Errors while a dashboard was drawn", views.errors.clone());
        registry.register("dashboard_render_time_seconds", "Time to draw a dashboard", views.seconds.clone());
        views
    }
}

/// Labels of a query that was sent to a datasource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct UpstreamLabels {
    /// `query`, `query_range`, `series`, ...
    pub endpoint: &'static str,
}

/// A query that is being asked upstream; its end is the end of the query.
#[derive(Debug)]
pub struct UpstreamQuery {
    started: std::time::Instant,
    duration: Histogram,
    in_flight: Gauge,
}

impl Drop for UpstreamQuery {
    fn drop(&mut self) {
        self.in_flight.dec();
        self.duration.observe(self.started.elapsed().as_secs_f64());
    }
}

/// Labels of a statement: what the store was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    operation: &'static str,
}

/// Labels of the connections of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: &'static str,
    state: &'static str,
}

/// Labels of a pool's bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolMaxLabels {
    pool: &'static str,
}

/// Labels of a read: `primary` or `replica`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabels {
    target: &'static str,
}

/// Labels of a replica: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReplicaLabels {
    replica: String,
}

/// The database (seed section 6).
#[derive(Debug, Clone)]
struct Db {
    queries: Family<OperationLabels, Histogram, fn() -> Histogram>,
    connections: Family<PoolLabels, Gauge>,
    connections_max: Family<PoolMaxLabels, Gauge>,
    reads: Family<TargetLabels, Counter>,
    replica_lag: Family<ReplicaLabels, Gauge<f64, AtomicU64>>,
    slow: Family<OperationLabels, Counter>,
}

impl Db {
    fn new(registry: &mut Registry) -> Self {
        let db = Self {
            queries: Family::new_with_constructor(request_histogram as fn() -> Histogram),
            connections: Family::default(),
            connections_max: Family::default(),
            reads: Family::default(),
            replica_lag: Family::default(),
            slow: Family::default(),
        };
        let text = "Duration of operations on PostgreSQL, the wait for a connection included";
        registry.register("db_query_duration_seconds", text, db.queries.clone());
        registry.register("db_pool_connections", "Connections of the pool by state", db.connections.clone());
        registry.register("db_pool_connections_max", "Most connections of the pool", db.connections_max.clone());
        registry.register("db_reads", "Reads of documents by the server that was asked", db.reads.clone());
        let text = "How far the replica is behind what was last seen of the primary";
        registry.register("db_replica_lag_seconds", text, db.replica_lag.clone());
        let text = "Operations on PostgreSQL that took longer than database.postgres.slow_query_threshold";
        registry.register("db_slow_queries", text, db.slow.clone());
        db
    }
}

/// Labels of a request that was denied.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeniedLabels {
    action: &'static str,
    kind: &'static str,
}

/// Label of the limits in force.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitsLabels {
    sha256: String,
}

/// Labels of a query, or an answer, that is over a limit: the key in `query.limits`, and what is done about it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueryLimitLabels {
    limit: &'static str,
    mode: &'static str,
}

type RouteHistogram = Family<RouteLabels, Histogram, fn() -> Histogram>;

fn request_histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0])
}

/// All metric families; cheap to clone through the `Arc` that holds it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `perses_http_request_total{code,handler,method}` (upstream's name).
    pub requests: Family<RequestLabels, Counter>,
    /// `perses_http_request_duration_seconds{handler,method}`.
    pub request_duration: RouteHistogram,
    /// `perses_http_request_duration_second{handler,method}`: upstream's summary of the same.
    pub request_duration_summary: Family<RouteLabels, Summary>,
    /// `perses_http_requests_in_flight`.
    pub in_flight: Gauge,
    /// `perses_cache_requests_total{cache,tier,result}`.
    pub cache_requests: Family<CacheLabels, Counter>,
    /// `perses_provisioning_errors`: documents in provisioning folders that are refused now.
    pub provisioning_errors: Gauge,
    /// `perses_provisioning_left`: documents in the store that left the provisioning folders.
    pub provisioning_left: Gauge,
    /// `perses_initial_admin_exists`: 1 once the first user is in the store.
    pub initial_admin_exists: Gauge,
    /// `perses_limits_rejected`: 1 while the limits file cannot be used.
    pub limits_rejected: Gauge,
    limits_applied: Family<LimitsLabels, Gauge>,
    denied: Family<DeniedLabels, Counter>,
    rights_version: Gauge,
    rights_duration: Histogram,
    /// `perses_audit_records_total`: records of the audit log.
    pub audit_records: Counter,
    /// `perses_audit_dropped_total`: records that the store did not get.
    pub audit_dropped: Counter,
    views: Views,
    queries: Queries,
    db: Db,
    upstream_duration: Family<UpstreamLabels, Histogram, fn() -> Histogram>,
    upstream_in_flight: Family<UpstreamLabels, Gauge>,
    query_limits: Family<QueryLimitLabels, Counter>,
}

impl Metrics {
    /// Makes and registers every family. `version` goes to `perses_build_info`.
    pub fn new(version: &str) -> Self {
        let mut registry = Registry::with_prefix("perses");
        let requests = Family::<RequestLabels, Counter>::default();
        // the text format appends `_total`
        registry.register("http_request", "Number of HTTP requests", requests.clone());
        let request_duration: RouteHistogram = Family::new_with_constructor(request_histogram as fn() -> Histogram);
        registry.register("http_request_duration_seconds", "Duration of HTTP requests", request_duration.clone());
        let request_duration_summary = Family::<RouteLabels, Summary>::default();
        let text = "Duration of HTTP requests, as upstream has it";
        registry.register(UPSTREAM_DURATION, text, request_duration_summary.clone());
        let in_flight = Gauge::default();
        registry.register("http_requests_in_flight", "HTTP requests that are being served", in_flight.clone());
        let cache_requests = Family::<CacheLabels, Counter>::default();
        registry.register("cache_requests", "Looks into caches", cache_requests.clone());
        let revision = option_env!("PERSES_COMMIT").unwrap_or_default();
        let build = Info::new(vec![("version", version.to_owned()), ("revision", revision.to_owned())]);
        registry.register("build", "Build of the server", build);
        let provisioning_errors = Gauge::default();
        let text = "Documents in provisioning folders that are refused";
        registry.register("provisioning_errors", text, provisioning_errors.clone());
        let provisioning_left = Gauge::default();
        let text = "Documents in the store that left the provisioning folders";
        registry.register("provisioning_left", text, provisioning_left.clone());
        let initial_admin_exists = Gauge::default();
        let text = "Whether the first user is in the store";
        registry.register("initial_admin_exists", text, initial_admin_exists.clone());
        let limits_rejected = Gauge::default();
        let text = "Whether the limits file cannot be used, so that the limits before it go on";
        registry.register("limits_rejected", text, limits_rejected.clone());
        let limits_applied = Family::<LimitsLabels, Gauge>::default();
        let text = "The limits file in force, by the SHA-256 of its bytes";
        registry.register("limits_applied", text, limits_applied.clone());
        let denied = Family::<DeniedLabels, Counter>::default();
        let text = "Requests that the sender has no right to, by action and kind";
        registry.register("authorization_denied", text, denied.clone());
        let (rights_version, rights_duration) = (Gauge::default(), request_histogram());
        let text = "Number of the rights in force in this process; rises with every change";
        registry.register("authorization_graph_version", text, rights_version.clone());
        let text = "Time from a change of rights being heard of until it is in force";
        registry.register("authorization_graph_update_seconds", text, rights_duration.clone());
        let audit_records = Counter::default();
        registry.register("audit_records", "Records of the audit log", audit_records.clone());
        let audit_dropped = Counter::default();
        let text = "Records of the audit log that the store did not get; their lines in the log remain";
        registry.register("audit_dropped", text, audit_dropped.clone());
        let views = Views::new(&mut registry);
        let queries = Queries::new(&mut registry);
        let db = Db::new(&mut registry);
        let upstream_duration: Family<UpstreamLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(request_histogram as fn() -> Histogram);
        let text = "Duration of queries to datasources, past the cache";
        registry.register("upstream_query_duration_seconds", text, upstream_duration.clone());
        let upstream_in_flight = Family::<UpstreamLabels, Gauge>::default();
        let text = "Queries to datasources that are under way";
        registry.register("upstream_queries_in_flight", text, upstream_in_flight.clone());
        let query_limits = Family::<QueryLimitLabels, Counter>::default();
        registry.register("query_limits", "Queries and answers over a limit of query.limits", query_limits.clone());
        Self {
            registry,
            requests,
            request_duration,
            request_duration_summary,
            in_flight,
            cache_requests,
            provisioning_errors,
            provisioning_left,
            initial_admin_exists,
            limits_rejected,
            limits_applied,
            denied,
            rights_version,
            rights_duration,
            audit_records,
            audit_dropped,
            views,
            queries,
            db,
            upstream_duration,
            upstream_in_flight,
            query_limits,
        }
    }

    /// The text exposition (OpenMetrics 1.0).
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(summary::typed(&out, &format!("perses_{UPSTREAM_DURATION}")))
    }

    /// Counts and times a query to a datasource until the guard goes.
    pub fn upstream_query(&self, endpoint: &'static str) -> UpstreamQuery {
        let labels = UpstreamLabels { endpoint };
        let duration = self.upstream_duration.get_or_create_owned(&labels);
        let in_flight = self.upstream_in_flight.get_or_create_owned(&labels);
        in_flight.inc();
        UpstreamQuery { started: std::time::Instant::now(), duration, in_flight }
    }

    /// Counts a query, or an answer, that is over the limit of this key.
    pub fn query_limit(&self, limit: &'static str, mode: LimitMode) {
        let mode = if mode == LimitMode::Enforce { "enforce" } else { "warn" };
        self.query_limits.get_or_create(&QueryLimitLabels { limit, mode }).inc();
    }

    /// Counts an answer of the query path.
    pub fn query_answered(&self, endpoint: &'static str, class: &'static str, from: &'static str) {
        self.queries.answers.get_or_create(&AnswerLabels { endpoint, class, from }).inc();
    }

    /// Sets what a tier of the query cache holds.
    pub fn query_cache_held(&self, tier: &'static str, held: Held) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.queries.entries.get_or_create(&TierLabels { tier }).set(number(held.entries));
        self.queries.bytes.get_or_create(&TierLabels { tier }).set(number(held.bytes));
    }

    /// Counts what a tier of the query cache dropped for want of room.
    pub fn query_cache_evicted(&self, tier: &'static str) {
        self.queries.evictions.get_or_create(&TierLabels { tier }).inc();
    }

    /// Notes an operation on the database.
    pub fn db_query(&self, operation: &'static str, took: std::time::Duration) {
        self.db.queries.get_or_create(&OperationLabels { operation }).observe(took.as_secs_f64());
    }

    /// Counts an operation on the database that took long.
    pub fn db_slow_query(&self, operation: &'static str) {
        self.db.slow.get_or_create(&OperationLabels { operation }).inc();
    }

    /// Sets the gauges of a pool of connections.
    pub fn db_pool(&self, pool: &'static str, active: i64, idle: i64) {
        self.db.connections.get_or_create(&PoolLabels { pool, state: "active" }).set(active);
        self.db.connections.get_or_create(&PoolLabels { pool, state: "idle" }).set(idle);
    }

    /// Sets the bound of a pool of connections.
    pub fn db_pool_max(&self, pool: &'static str, connections: i64) {
        self.db.connections_max.get_or_create(&PoolMaxLabels { pool }).set(connections);
    }

    /// Notes that new rights are in force: their number, and how long that took.
    pub fn authorization_graph(&self, version: u64, took: std::time::Duration) {
        self.rights_version.set(i64::try_from(version).unwrap_or(i64::MAX));
        self.rights_duration.observe(took.as_secs_f64());
    }

    /// The limits file with this digest is in force; whether another one was before.
    pub fn limits_in_force(&self, sha256: &str) -> bool {
        let labels = LimitsLabels { sha256: sha256.to_owned() };
        self.limits_rejected.set(0);
        if self.limits_applied.get(&labels).is_some() {
            return false;
        }
        self.limits_applied.clear();
        self.limits_applied.get_or_create(&labels).set(1);
        true
    }

    /// Counts a request that its sender has no right to.
    pub fn denied(&self, action: &'static str, kind: &'static str) {
        self.denied.get_or_create(&DeniedLabels { action, kind }).inc();
    }

    /// Counts a read of documents from `primary` or `replica`.
    pub fn db_read(&self, target: &'static str) {
        self.db.reads.get_or_create(&TargetLabels { target }).inc();
    }

    /// Sets the lag of the replica at `host:port`.
    pub fn db_replica_lag(&self, replica: &str, seconds: f64) {
        self.db.replica_lag.get_or_create(&ReplicaLabels { replica: replica.to_owned() }).set(seconds);
    }

    /// Counts a look into a cache.
    pub fn cache(&self, cache: &'static str, tier: &'static str, result: &'static str) {
        self.cache_requests.get_or_create(&CacheLabels { cache, tier, result }).inc();
    }

    /// Counts that a dashboard was shown.
    pub fn dashboard_viewed(&self, project: &str, dashboard: &str, seconds: f64, errors: u64) {
        let labels = DashboardLabels { project: project.to_owned(), dashboard: dashboard.to_owned() };
        self.views.count.get_or_create(&labels).inc();
        self.views.errors.get_or_create(&labels).inc_by(errors);
        // Upstream does not count a missing time either.
        if seconds > 0.0 {
            self.views.seconds.get_or_create(&labels).observe(seconds);
        }
    }
}
