//! One row for each number of the seed, at its 500 users.

use persesstack_operator::render::Rendered;
use persesstack_operator::sizing::budget;
use persesstack_operator::sizing::demand::MISSES;
use persesstack_operator::sizing::footprint::PodGroup;
use persesstack_operator::sizing::model_v1::{MARGIN, MAXMEMORY_PERCENT, REQUESTS_PER_CORE, TARGET_UTILISATION};
use persesstack_operator::sizing::price::{Cost, money};
use persesstack_operator::sizing::quantity::MIB;
use persesstack_operator::sizing::quota::quota;
use persesstack_operator::sizing::{Bytes, Cpu};
use serde_json::Value;

use super::{bill, stack};

/// A number of the seed and ours.
pub(crate) struct Row {
    pub(crate) section: &'static str,
    pub(crate) what: &'static str,
    pub(crate) seed: String,
    pub(crate) ours: String,
    pub(crate) formula: &'static str,
    pub(crate) verdict: Verdict,
}

/// Whether the two are the same.
pub(crate) enum Verdict {
    Same,
    /// And why not.
    Differs(&'static str),
}

struct Rows {
    section: &'static str,
    rows: Vec<Row>,
}

impl Rows {
    fn same(&mut self, what: &'static str, seed: &str, ours: impl ToString, formula: &'static str) {
        self.add(what, seed, ours, formula, Verdict::Same);
    }

    fn differs(
        &mut self,
        what: &'static str,
        seed: &str,
        ours: impl ToString,
        formula: &'static str,
        why: &'static str,
    ) {
        self.add(what, seed, ours, formula, Verdict::Differs(why));
    }

    #[expect(clippy::needless_pass_by_value, reason = "the rows are read more often than this")]
    fn add(&mut self, what: &'static str, seed: &str, ours: impl ToString, formula: &'static str, verdict: Verdict) {
        let (seed, ours) = (seed.to_owned(), ours.to_string());
        self.rows.push(Row { section: self.section, what, seed, ours, formula, verdict });
    }
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Rows { section: "", rows: Vec::new() };
    let rendered = stack(500);
    caching(&mut rows, &rendered);
    scaling(&mut rows, &rendered);
    pooling(&mut rows, &rendered);
    postgres(&mut rows, &rendered);
    storage(&mut rows, &rendered);
    prometheus(&mut rows, &rendered);
    namespace(&mut rows, &rendered);
    costs(&mut rows, &bill(&rendered));
    rows.rows
}

fn caching(rows: &mut Rows, rendered: &Rendered) {
    rows.section = "Caching (section 1, Appendix B)";
    let cached = &rendered.sizing.demand.cached;
    rows.same("dashboards in the cache", "25 MB", &cached.inputs["dashboards"], "500 x 50 kB");
    rows.same("answers in the cache", "200 MB", &cached.inputs["queries"], "1000 queries x 100 kB x 2 buckets");
    rows.same("permissions in the cache", "25 MB", &cached.inputs["permissions"], "500 users x 50 namespaces x 1 kB");
    rows.same("Redis itself", "50 MB", &cached.inputs["redis"], "50 MB");
    rows.same("sum", "300 MB", cached.value, "25 + 200 + 25 + 50");
    let redis = rendered.sizing.redis.as_ref().unwrap();
    rows.same("memory limit", "2Gi", redis.compute.memory_limit.value, redis.compute.memory_request.formula);
    rows.differs(
        "maxmemory",
        "2Gi",
        redis.maxmemory.value,
        redis.maxmemory.formula,
        "maxmemory at the container's limit is killed: a snapshot forks the process and copies the pages that change meanwhile",
    );
    assert!(redis.maxmemory.value.0 * 100 <= redis.compute.memory_limit.value.0 * MAXMEMORY_PERCENT);
    rows.same("CPU request", "500m", redis.compute.cpu_request.value, redis.compute.cpu_request.formula);
    rows.same("CPU limit", "1", redis.compute.cpu_limit.value, redis.compute.cpu_limit.formula);
    rows.same("targeted hit ratio, live queries", "70 %", format!("{} %", 100 - MISSES), "1 - misses");
}

fn scaling(rows: &mut Rows, rendered: &Rendered) {
    rows.section = "Scaling (section 2, Appendix B)";
    let api = &rendered.sizing.api;
    rows.same("requests per minute", "30000", rendered.sizing.demand.queries_per_minute.value, "500 x 3 x 5 x 4");
    rows.same("requests per second", "500", api.request_rate.value, api.request_rate.formula);
    let capacity = api.compute.cpu_request.value.0 * REQUESTS_PER_CORE * TARGET_UTILISATION / 100 / 1000;
    rows.same("requests per second of one pod at the target", "350", capacity, "250m x 2000 x 70 %");
    let needed = |margin: i64| (api.request_rate.value * margin + capacity - 1) / capacity;
    rows.differs(
        "pods for the load",
        "1.4",
        needed(1),
        "ceil(500 / 350)",
        "a part of a pod serves nobody: pods are whole",
    );
    rows.differs(
        "pods with the margin of 3",
        "4-5",
        needed(MARGIN),
        "ceil(3 x 500 / 350)",
        "the seed gives a range; 1500 / 350 is 4.3, so it is the upper end",
    );
    rows.same("fewest pods", "3", api.min_replicas.value, api.min_replicas.formula);
    rows.same("most pods", "10", api.max_replicas.value, api.max_replicas.formula);
    let compute = &api.compute;
    rows.same("CPU request", "250m", compute.cpu_request.value, compute.cpu_request.formula);
    rows.same("CPU limit", "1", compute.cpu_limit.value, compute.cpu_limit.formula);
    rows.same("memory request", "512Mi", compute.memory_request.value, compute.memory_request.formula);
    rows.same("memory limit", "1Gi", compute.memory_limit.value, compute.memory_limit.formula);
    let hpa = serde_json::to_value(&rendered.resources.api.hpa).unwrap();
    let number = |pointer: &str| hpa.pointer(pointer).unwrap_or(&Value::Null).to_string();
    let target = "/resource/target/averageUtilization";
    rows.same("CPU target, percent", "70", number(&format!("/spec/metrics/0{target}")), "fixed");
    rows.same("memory target, percent", "80", number(&format!("/spec/metrics/1{target}")), "fixed");
    rows.same("scale-up window, seconds", "60", number("/spec/behavior/scaleUp/stabilizationWindowSeconds"), "fixed");
    rows.same("pods added in 60 s", "2", number("/spec/behavior/scaleUp/policies/0/value"), "fixed");
    rows.same(
        "scale-down window, seconds",
        "300",
        number("/spec/behavior/scaleDown/stabilizationWindowSeconds"),
        "fixed",
    );
    rows.same("pods removed in 120 s", "1", number("/spec/behavior/scaleDown/policies/0/value"), "fixed");
}

fn pooling(rows: &mut Rows, rendered: &Rendered) {
    rows.section = "Connections (section 3, Appendix B)";
    let (api, pooler) = (&rendered.sizing.api, rendered.sizing.pooler.as_ref().unwrap());
    let database = rendered.sizing.database.as_ref().unwrap();
    let (connections, most) = (api.database_connections.value, api.max_replicas.value);
    rows.differs(
        "connections of one API pod",
        "100",
        connections,
        api.database_connections.formula,
        "(10 + 1) x 100 = 1100 connections during a roll do not fit the 1000 of the one pooler that is left while the other is away; \
         point reads come from caches, 10 suffice",
    );
    rows.differs(
        "connections of all API pods",
        "1000",
        connections * most,
        "maxReplicas x databaseConnections",
        "follows from the row above",
    );
    rows.same("PgBouncer pods", "2", pooler.replicas.value, pooler.replicas.formula);
    rows.same("max_client_conn", "1000", pooler.max_client_conn.value, pooler.max_client_conn.formula);
    rows.differs(
        "default_pool_size",
        "50",
        pooler.default_pool_size.value,
        pooler.default_pool_size.formula,
        "2 x (50 + 10) = 120 connections are more than max_connections = 100, and a roll adds a third pooler",
    );
    rows.differs(
        "reserve_pool_size",
        "10",
        pooler.reserve_pool_size.value,
        pooler.reserve_pool_size.formula,
        "a part of the same 100 connections, see default_pool_size",
    );
    let all = (pooler.replicas.value + 1) * (pooler.default_pool_size.value + pooler.reserve_pool_size.value);
    rows.differs(
        "server connections of all poolers, the one of a roll included",
        "180",
        all,
        "(replicas + 1) x (pool + reserve)",
        "(2 + 1) x (50 + 10) = 180 against max_connections = 100",
    );
    rows.same("CPU request of PgBouncer", "100m", pooler.compute.cpu_request.value, pooler.compute.cpu_request.formula);
    rows.same(
        "memory request of PgBouncer",
        "256Mi",
        pooler.compute.memory_request.value,
        pooler.compute.memory_request.formula,
    );
    rows.same("max_connections", "100", database.max_connections.value, database.max_connections.formula);
    rows.same("superuser_reserved_connections", "5", budget::SUPERUSER_RESERVED, "fixed");
    rows.differs(
        "connections for the pools",
        "50",
        i64::from(database.max_connections.value) - budget::SUPERUSER_RESERVED - budget::MIGRATION,
        "max_connections - superuser - migration",
        "the seed keeps half of the connections in reserve and then gives 120 to the poolers",
    );
}

fn postgres(rows: &mut Rows, rendered: &Rendered) {
    rows.section = "PostgreSQL (section 3, Appendix B)";
    let database = rendered.sizing.database.as_ref().unwrap();
    rows.differs(
        "PostgreSQL pods",
        "3",
        1,
        "one for Standalone",
        "this table is about the standalone database, which needs nothing installed; high availability is that of Crunchy or an external server",
    );
    rows.same(
        "memory of the primary",
        "4Gi",
        database.compute.memory_limit.value,
        database.compute.memory_request.formula,
    );
    rows.same("CPU of the primary", "2", database.compute.cpu_request.value, database.compute.cpu_request.formula);
    rows.same(
        "shared_buffers (postgresql.conf)",
        "1Gi",
        database.shared_buffers.value,
        database.shared_buffers.formula,
    );
    rows.differs(
        "shared_buffers (memory sum)",
        "2Gi",
        database.shared_buffers.value,
        database.shared_buffers.formula,
        "the seed's memory sum says 2 GB and its postgresql.conf 1 GB; 25 % of the memory is 1 GB",
    );
    rows.same(
        "effective_cache_size",
        "3Gi",
        database.effective_cache_size.value,
        database.effective_cache_size.formula,
    );
    rows.same("work_mem", "20Mi", database.work_mem.value, database.work_mem.formula);
    rows.same(
        "maintenance_work_mem",
        "256Mi",
        database.maintenance_work_mem.value,
        database.maintenance_work_mem.formula,
    );
    let sorting =
        database.shared_buffers.value.0 + i64::from(database.max_connections.value) * database.work_mem.value.0;
    rows.differs(
        "memory when every connection sorts",
        "4Gi",
        Bytes(sorting / MIB * MIB),
        "shared_buffers + max_connections x work_mem",
        "the seed's sum (1 + 2 + 1 GB) counts 1 GB of work_mem where 100 x 20 MB are 2 GB, and shared_buffers twice; what is left of the \
         4Gi is for the connections themselves and the page cache",
    );
    assert!(sorting < database.compute.memory_limit.value.0);
}

fn storage(rows: &mut Rows, rendered: &Rendered) {
    rows.section = "Storage and IOPS (section 3)";
    let (demand, database) = (&rendered.sizing.demand, rendered.sizing.database.as_ref().unwrap());
    rows.differs(
        "data",
        "250 MB",
        demand.rows.value,
        demand.rows.formula,
        "the seed's own lines (25 + 2.5 + 0.5 + 200) give 228 MB",
    );
    rows.differs(
        "data and indexes",
        "500 MB",
        demand.indexed.value,
        demand.indexed.formula,
        "twice the exact sum, see above",
    );
    rows.differs(
        "write-ahead log",
        "10 GB",
        database.max_wal_size.value,
        database.max_wal_size.formula,
        "the seed estimates log and temporary files together; the log is bounded by max_wal_size, the rest of the volume is free",
    );
    rows.same("volume", "100Gi", database.storage.value, database.storage.formula);
    let headroom = database.storage.value.0 / demand.indexed.value.0;
    rows.differs(
        "headroom",
        "200x",
        format!("{headroom}x"),
        "volume / (data and indexes)",
        "100 GB / 500 MB; ours is of the exact sum and of GiB",
    );
    rows.same("reads per second", "150", demand.read_iops.value, demand.read_iops.formula);
    rows.same("writes per second", "25", demand.write_iops.value, demand.write_iops.formula);
    rows.differs(
        "reads and writes per second",
        "200",
        demand.read_iops.value + demand.write_iops.value,
        "reads + writes",
        "150 + 25 is 175, which the seed rounds up",
    );
}

fn prometheus(rows: &mut Rows, rendered: &Rendered) {
    rows.section = "Prometheus (section 4)";
    let demand = &rendered.sizing.demand;
    rows.differs(
        "queries per minute without a cache",
        "7500",
        demand.queries_per_minute.value,
        demand.queries_per_minute.formula,
        "500 x 3 x 5 are 7500 panels, and each refreshes four times a minute: the seed's own section 2 counts 30000",
    );
    rows.differs(
        "queries per minute with the cache",
        "1500",
        demand.prometheus_per_minute.value,
        demand.prometheus_per_minute.formula,
        "the seed takes 80 % off 7500; ours takes the 70 % that it targets off 30000. Panels that many people look at cost one query for all",
    );
}

fn namespace(rows: &mut Rows, rendered: &Rendered) {
    rows.section = "Quota (section 5)";
    let footprint = &rendered.footprint;
    let group = |name: &str| footprint.pods.iter().find(|group| group.workload.ends_with(name)).unwrap();
    let cpu = |group: &PodGroup| Cpu(group.requests().cpu.0 * group.most);
    let memory = |group: &PodGroup| Bytes(group.requests().memory.0 * group.most);
    let (api, redis, pooler, database) =
        (group("perses-api"), group("perses-redis"), group("perses-pgbouncer"), group("perses-db"));
    rows.same("API, CPU", "2500m", cpu(api), "10 x 250m");
    rows.same("API, memory", "5Gi", memory(api), "10 x 512Mi");
    rows.same("Redis, CPU", "500m", cpu(redis), "1 x 500m");
    rows.same("Redis, memory", "2Gi", memory(redis), "1 x 2Gi");
    rows.same("PgBouncer, CPU", "200m", cpu(pooler), "2 x 100m");
    rows.same("PgBouncer, memory", "512Mi", memory(pooler), "2 x 256Mi");
    let one = "one pod instead of three, see PostgreSQL pods";
    rows.differs("PostgreSQL, CPU", "6", cpu(database), "1 x 2", one);
    rows.differs(
        "PostgreSQL, memory",
        "12Gi",
        memory(database),
        "1 x 4Gi",
        "one pod instead of three; the seed's manifest gives replicas 2Gi where this line counts 4Gi, and a replica that becomes primary needs 4Gi",
    );
    let need = footprint.full();
    let surge = "the seed leaves out the pods of a rolling update and the migration; its own lines sum up to 9.2 cores and 19.5Gi; and one \
                 PostgreSQL pod instead of three";
    rows.differs("sum, CPU", "10", need.requests.cpu, "all pods, surge and migration", surge);
    rows.differs("sum, memory", "20Gi", need.requests.memory, "all pods, surge and migration", surge);
    let quota = quota(footprint);
    let scaled = "scaled from this stack's own sum: one PostgreSQL pod instead of three";
    rows.differs("requests.cpu", "20", quota.cpu_requests.value, quota.cpu_requests.formula, scaled);
    rows.differs("requests.memory", "40Gi", quota.memory_requests.value, quota.memory_requests.formula, scaled);
    rows.differs("limits.cpu", "40", quota.cpu_limits.value, quota.cpu_limits.formula, scaled);
    rows.differs("limits.memory", "80Gi", quota.memory_limits.value, quota.memory_limits.formula, scaled);
    rows.differs(
        "persistentvolumeclaims",
        "5",
        quota.claims.value,
        quota.claims.formula,
        "three data volumes and a repository are 4: with 5 a restore beside them (3 more) is refused. Ours is twice the claims; this stack has one",
    );
    rows.differs(
        "requests.storage",
        "500Gi",
        quota.storage.value,
        quota.storage.formula,
        "400Gi are claimed by the seed's volumes: none could grow to twice its size. Ours is twice the sum; this stack has one volume",
    );
}

fn costs(rows: &mut Rows, bill: &Cost) {
    rows.section = "Cost in USD (section 8)";
    let month = |what: &str| money(bill.lines.iter().find(|line| line.what == what).unwrap().most);
    rows.differs(
        "API, most pods, month",
        "864.00",
        month("Deployment perses-api"),
        "10 x 0.25 cores x 0.04 x 720 h",
        "28.80 a day is three times what the seed's own factors give (10 x 1 x 0.04 x 24 = 9.60); and what is reserved is paid, which is the \
         request of 0.25 cores, not the limit of 1",
    );
    let requests = "the seed counts limits; what is reserved on a node, and paid, is the request";
    rows.differs("Redis, month", "28.80", month("Deployment perses-redis"), "1 x 0.5 cores x 0.04 x 720 h", requests);
    rows.differs(
        "PgBouncer, month",
        "28.80",
        month("Deployment perses-pgbouncer"),
        "2 x 0.1 cores x 0.04 x 720 h",
        requests,
    );
    let one = "one PostgreSQL pod and volume instead of three";
    rows.differs("PostgreSQL, month", "172.80", month("StatefulSet perses-db"), "1 x 2 cores x 0.04 x 720 h", one);
    rows.differs("data volumes, month", "30.00", month("volume perses-db"), "1 x 100 GB x 0.1", one);
    rows.same("egress, month", "90.00", month("egress through the router"), "500 users x 2 GB x 0.09");
    rows.differs(
        "sum, month",
        "1235.00",
        money(bill.most),
        "sum over pods, volumes and egress",
        "the seed's lines do not add up: 36.48 a day, written as 37, with an API line that is three times too high. With its own factors its \
         stack costs 643.40; ours has one PostgreSQL pod and counts requests",
    );
    rows.differs("per user and month", "2.47", money(bill.most_per_user), "sum / 500", "follows from the row above");
}
