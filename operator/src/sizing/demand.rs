//! What the declared workload asks of everything behind the API: the arithmetic of seed sections 1, 3, 4 and 8. No
//! object is made from these numbers; they say what Prometheus, the cache, the disks and the network must bear.

use super::quantity::DataSize;
use super::{Derivation, Derived};

/// Share of queries that no cache answers, percent (seed section 1: a hit ratio of 70 % for live queries).
pub const MISSES: i64 = 30;
/// Share of requests that write, percent (seed section 3).
pub const WRITES: i64 = 5;
/// Bytes of one user's rows (seed section 3).
const USER_BYTES: i64 = 5_000;
/// Bytes of one project's rows (seed section 3).
const PROJECT_BYTES: i64 = 10_000;
/// Users and dashboards of one project: the seed counts 50 projects for 500.
const PER_PROJECT: i64 = 10;
/// Audit records that are kept (seed section 3).
const AUDIT_RECORDS: i64 = 100_000;
/// Bytes of one audit record (seed section 3).
const AUDIT_BYTES: i64 = 2_000;
/// Bytes that one user loads through the router in a month (seed section 8: 1 TB for 500 users).
const EGRESS_BYTES: i64 = 2_000_000_000;

/// Numbers that are shown and set nowhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    /// Queries per minute that the panels send.
    pub queries_per_minute: Derived<i64>,
    /// Queries per minute that reach Prometheus at the targeted hit ratio.
    pub prometheus_per_minute: Derived<i64>,
    /// Bytes that are worth keeping in the shared cache, Redis' own included.
    pub cached: Derived<DataSize>,
    /// Bytes of rows in the database.
    pub rows: Derived<DataSize>,
    /// Bytes of rows and indexes.
    pub indexed: Derived<DataSize>,
    /// Reads per second of the database's disk while nothing is in its memory.
    pub read_iops: Derived<i64>,
    /// Writes per second of the database's disk.
    pub write_iops: Derived<i64>,
    /// Bytes per month through the router.
    pub egress: Derived<DataSize>,
}

/// What the demand is computed from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Users.
    pub users: i64,
    /// Requests per second in thousandths.
    pub milli_rate: i64,
    /// Stored dashboards.
    pub dashboards: i64,
    /// Bytes of one stored dashboard.
    pub dashboard_bytes: i64,
    /// Bytes in the shared cache: dashboards, answers of queries, permissions, Redis itself.
    pub cached: [i64; 4],
}

/// The demand of `load`.
pub(super) fn demand(load: &Load) -> Demand {
    let ceil = |value: i64, by: i64| (value + by - 1).div_euclid(by);
    let minute = ceil(load.milli_rate.saturating_mul(60), 1000);
    let [dashboards, answers, permissions, overhead] = load.cached;
    let projects = ceil(load.dashboards, PER_PROJECT);
    let rows = load.dashboards * load.dashboard_bytes
        + load.users * USER_BYTES
        + projects * PROJECT_BYTES
        + AUDIT_RECORDS * AUDIT_BYTES;
    let rate = ceil(load.milli_rate, 1000);
    Demand {
        queries_per_minute: Derived::new(minute, "requestRate x 60", "workload").with("requestRate", rate),
        prometheus_per_minute: Derived::new(
            ceil(minute.saturating_mul(MISSES), 100),
            "queries x 30 %: a hit ratio of 70 %",
            "hit ratio",
        )
        .with("queriesPerMinute", minute),
        cached: Derived::new(
            DataSize(dashboards + answers + permissions + overhead),
            "dashboards x 50 kB + queries x 100 kB x 2 + users x namespaces x 1 kB + 50 MB",
            largest(&[
                ("dashboards", dashboards),
                ("queries", answers),
                ("permissions", permissions),
                ("Redis", overhead),
            ]),
        )
        .with("dashboards", DataSize(dashboards))
        .with("queries", DataSize(answers))
        .with("permissions", DataSize(permissions))
        .with("redis", DataSize(overhead)),
        rows: Derived::new(
            DataSize(rows),
            "dashboards x 50 kB + users x 5 kB + dashboards / 10 projects x 10 kB + 100000 audit records x 2 kB",
            largest(&[
                ("dashboards", load.dashboards * load.dashboard_bytes),
                ("users", load.users * USER_BYTES),
                ("audit", AUDIT_RECORDS * AUDIT_BYTES),
            ]),
        )
        .with("dashboards", load.dashboards)
        .with("users", load.users)
        .with("projects", projects),
        indexed: Derived::new(DataSize(2 * rows), "2 x rows", "indexes").with("rows", DataSize(rows)),
        read_iops: Derived::new(
            ceil(load.milli_rate.saturating_mul(MISSES), 100_000),
            "requestRate x 30 %",
            "hit ratio",
        )
        .with("requestRate", rate),
        write_iops: Derived::new(ceil(load.milli_rate.saturating_mul(WRITES), 100_000), "requestRate x 5 %", "writes")
            .with("requestRate", rate),
        egress: Derived::new(DataSize(load.users * EGRESS_BYTES), "users x 2 GB a month", "users")
            .with("users", load.users),
    }
}

impl Demand {
    /// Every number with its derivation.
    pub fn derivations(&self) -> Vec<Derivation> {
        vec![
            Derivation::of("demand.queriesPerMinute", &self.queries_per_minute),
            Derivation::of("demand.prometheusQueriesPerMinute", &self.prometheus_per_minute),
            Derivation::of("demand.cached", &self.cached),
            Derivation::of("demand.databaseRows", &self.rows),
            Derivation::of("demand.databaseRowsAndIndexes", &self.indexed),
            Derivation::of("demand.readIops", &self.read_iops),
            Derivation::of("demand.writeIops", &self.write_iops),
            Derivation::of("demand.egressPerMonth", &self.egress),
        ]
    }
}

fn largest(parts: &[(&'static str, i64)]) -> &'static str {
    parts.iter().max_by_key(|(_, bytes)| *bytes).map_or("", |(name, _)| *name)
}
