//! Capacity model v1: the arithmetic of seed sections 1 (Redis), 2 (scaling) and 3 (pools), made consistent.
//!
//! Every step function is monotone in users: more users never get less.

use super::budget::{self, Layers, PoolerLayer};
use super::cluster::{Beside, replicas};
use super::compute::compute;
use super::demand::{self, Load};
use super::quantity::{GIB, MIB};
use super::{
    ApiSizing, Bytes, Cpu, DatabaseSizing, Derived, Inputs, OwnCache, PoolerSizing, Reads, RedisSizing, Sizing,
};

/// Requests per second that one core serves (seed section 2: simple GETs with caching).
pub const REQUESTS_PER_CORE: i64 = 2000;
/// CPU utilisation that the autoscaler aims at, percent.
pub const TARGET_UTILISATION: i64 = 70;
/// Safety margin (seed section 2).
pub const MARGIN: i64 = 3;
/// Most API pods of one stack: the bound of `spec.api.maxReplicas`.
const MOST_PODS: i64 = 1000;
/// Most pods of one size before the next larger size is taken.
const PODS_PER_CLASS: i64 = 20;
/// Up to this many users a stack is small: it must fit a node of two cores.
pub const SMALL_USERS: i64 = 50;
/// Beyond this many users the seed's numbers for pools and poolers are too small.
const LARGE_USERS: i64 = 5_000;

/// Sizes of an API pod: CPU request in millicores and memory request in MiB.
const CLASSES: [(i64, i64); 6] = [(100, 256), (250, 512), (500, 1024), (1000, 2048), (2000, 4096), (4000, 8192)];

/// Bytes of one stored dashboard (seed section 1).
const DASHBOARD_BYTES: i64 = 50_000;
/// Bytes of one cached query answer.
const QUERY_BYTES: i64 = 100_000;
/// Time buckets of one query that are alive together.
const BUCKETS: i64 = 2;
/// Bytes of one user's permissions in one namespace.
const PERMISSION_BYTES: i64 = 1_000;
/// What Redis needs for itself.
const REDIS_OVERHEAD: i64 = 50_000_000;
/// Growth and fragmentation of the cache.
const REDIS_MARGIN: i64 = 4;
/// `maxmemory` in percent of the memory limit.
pub const MAXMEMORY_PERCENT: i64 = 60;
/// Redis with sentinels: one may be away, and two still agree who leads.
const SENTINELS: i32 = 3;
/// Largest memory of one Redis: saving forks the process, and a larger one stalls.
const REDIS_LARGEST: i64 = 16 * GIB;

/// Every number for `inputs`.
pub fn size(inputs: &Inputs) -> Sizing {
    let mut contradictions = Vec::new();
    let api = api(inputs, &mut contradictions);
    let redis = (inputs.cache != OwnCache::None).then(|| redis(inputs, api.request_rate.value));
    let max_connections = max_connections(inputs);
    let replicas = replicas(inputs);
    let read_pool = inputs.external_reads == Reads::Replicas || (inputs.cluster.is_some() && replicas.value > 1);
    let beside = Beside::of(inputs, replicas.value);
    let (api, pooler) = connections(inputs, api, max_connections.value, &beside, read_pool);
    let own = inputs.standalone_database || inputs.cluster.is_some();
    let database = own.then(|| database(inputs, max_connections, replicas, &mut contradictions));

    let demand = demand::demand(&Load {
        users: inputs.users,
        milli_rate: milli_rate(inputs),
        dashboards: dashboards(inputs),
        dashboard_bytes: DASHBOARD_BYTES,
        cached: cached(inputs),
    });
    let budget = budget::check(&Layers {
        api_replicas: i64::from(api.max_replicas.value),
        api_pool: i64::from(api.database_connections.value),
        read_pool,
        pooler: pooler.as_ref().map(|p| PoolerLayer {
            replicas: i64::from(p.replicas.value),
            pool: i64::from(p.default_pool_size.value),
            reserve: i64::from(p.reserve_pool_size.value),
            max_client_conn: i64::from(p.max_client_conn.value),
            asks: inputs.cluster.is_some_and(|cluster| cluster.own_pooler),
        }),
        exporter: beside.exporter,
        replication: beside.replication,
        max_connections: database
            .as_ref()
            .map(|d| i64::from(d.max_connections.value))
            .or(inputs.external_max_connections),
    });
    Sizing { model: inputs.model, api, redis, pooler, database, read_pool, demand, budget, contradictions }
}

fn api(inputs: &Inputs, contradictions: &mut Vec<String>) -> ApiSizing {
    let milli_rate = milli_rate(inputs);
    let rate = ceil_div(milli_rate, 1000);
    let request_rate =
        Derived::new(rate, "users x dashboardsPerUser x panelsPerDashboard / refreshInterval", "workload")
            .with("users", inputs.users)
            .with("dashboardsPerUser", inputs.dashboards_per_user)
            .with("panelsPerDashboard", inputs.panels_per_dashboard)
            .with("refreshInterval", format!("{}ms", inputs.refresh_interval_ms));

    let (cpu, memory) = class(inputs.users, milli_rate);
    let o = &inputs.overrides;
    let compute = compute(
        &o.api,
        "api.resources",
        Derived::new(
            Cpu(cpu),
            "smallest of 100m (up to 50 users), 250m, 500m, 1, 2, 4 with which 20 pods suffice",
            format!("{rate} requests/s"),
        )
        .with("requestRate", rate),
        (Cpu((cpu * 4).min(cpu + 4000).max(1000)), "4 x request, at most 4 cores more, at least 1 core"),
        Derived::new(Bytes(memory * MIB), "about 2 MiB per millicore of the request", format!("{}", Cpu(cpu))),
        (Bytes(2 * memory * MIB), "2 x request"),
    );

    let capacity = per_pod_capacity(compute.cpu_request.value);
    let needed = ceil_div(milli_rate, capacity * 1000);
    let all_pods = |pods: i64| to_i32(pods.min(MOST_PODS));
    let with_margin = ceil_div(milli_rate * MARGIN, capacity * 1000);
    let min =
        Derived::new(all_pods(needed + 1), "ceil(rate / capacity) + 1, at least 2", "one pod may be away at full load")
            .with("rate", rate)
            .with(
                "capacity",
                format!(
                    "{capacity} requests/s = {} x {REQUESTS_PER_CORE} x {TARGET_UTILISATION} %",
                    compute.cpu_request.value
                ),
            );
    let max = Derived::new(
        all_pods((2 * with_margin).max(needed + 2)),
        "2 x ceil(margin x rate / capacity), at least minReplicas + 1, at most 1000",
        match (2 * with_margin).max(needed + 2) {
            wanted if wanted > MOST_PODS => "1000 pods",
            _ if 2 * with_margin > needed + 2 => "margin",
            _ => "minReplicas",
        },
    )
    .with("rate", rate)
    .with("capacity", format!("{capacity} requests/s"))
    .with("margin", MARGIN);

    let mut min_replicas = min.or_override(o.min_replicas.map(to_i32), "spec.api.minReplicas");
    let mut max_replicas = max.or_override(o.max_replicas.map(to_i32), "spec.api.maxReplicas");
    if min_replicas.value > max_replicas.value {
        // At most one of the two is overridden here (CEL); the other one follows.
        if o.min_replicas.is_some() {
            max_replicas = max_replicas.or_override(Some(min_replicas.value), "spec.api.minReplicas");
        } else {
            min_replicas = min_replicas.or_override(Some(max_replicas.value), "spec.api.maxReplicas");
        }
    }
    let most = i64::from(max_replicas.value) * capacity;
    if most < rate {
        let cure = if needed > MOST_PODS {
            "one stack has at most 1000 API pods: spread the users over several stacks, or raise \
             spec.api.resources.requests.cpu or spec.workload.refreshInterval"
                .to_owned()
        } else {
            format!("raise spec.api.maxReplicas to {needed} or spec.api.resources.requests.cpu")
        };
        contradictions.push(format!(
            "{} API pods with a CPU request of {} serve {most} requests/s, the declared workload sends {rate}: {cure}",
            max_replicas.value, compute.cpu_request.value
        ));
    }

    let l1_max_bytes = l1(inputs, compute.memory_request.value);
    // Set by `connections`, which knows the layers below.
    let database_connections = Derived::new(1, "", "");
    ApiSizing { request_rate, min_replicas, max_replicas, compute, l1_max_bytes, database_connections }
}

/// The in-process cache stays under half of the memory request: what the autoscaler's memory target (80 % of the
/// request) sees is then load, not a full cache.
fn l1(inputs: &Inputs, memory_request: Bytes) -> Derived<Bytes> {
    let working_set = dashboards(inputs) * DASHBOARD_BYTES + queries(inputs) * QUERY_BYTES * BUCKETS;
    let share = memory_request.0 * 40 / 100;
    let bytes = working_set.min(share).max(8 * MIB) / MIB * MIB;
    Derived::new(
        Bytes(bytes),
        "min(dashboards x 50 kB + queries x 100 kB x 2 buckets, 40 % of the memory request), whole MiB",
        if working_set < share { "working set" } else { "memory request" },
    )
    .with("dashboards", dashboards(inputs))
    .with("queries", queries(inputs))
    .with("memoryRequest", memory_request)
}

fn redis(inputs: &Inputs, rate: i64) -> RedisSizing {
    let sentinels = inputs.cache == OwnCache::Sentinel;
    let data: i64 = cached(inputs).iter().sum();
    let wanted = data * REDIS_MARGIN * 100 / MAXMEMORY_PERCENT;
    let limit = power_of_two_mib(wanted).clamp(256 * MIB, REDIS_LARGEST);
    let (cpu_request, cpu_limit) = if inputs.users <= SMALL_USERS && rate <= SMALL_USERS {
        (100, 500)
    } else if rate <= 20_000 {
        (500, 1000)
    } else {
        (1000, 2000)
    };
    let formula = "next power of two of (dashboards x 50 kB + queries x 100 kB x 2 + users x namespaces x 1 kB + 50 MB) x 4 / 60 %";
    let memory = Derived::new(
        Bytes(limit),
        formula,
        if wanted > REDIS_LARGEST { "16Gi: saving forks the one process" } else { "data" },
    )
    .with("dashboards", dashboards(inputs))
    .with("queries", queries(inputs))
    .with("users", inputs.users)
    .with("namespacesPerUser", inputs.namespaces_per_user);
    let compute = compute(
        &inputs.overrides.redis,
        if sentinels { "cache.sentinel.resources" } else { "cache.standalone.resources" },
        Derived::new(
            Cpu(cpu_request),
            "100m for a small stack, else 500m, 1 above 20000 requests/s",
            format!("{rate} requests/s"),
        ),
        (Cpu(cpu_limit), "room for saving beside serving"),
        memory,
        (Bytes(limit), "= request: memory of a cache must be there"),
    );
    let memory_limit = compute.memory_limit.value;
    let maxmemory = Derived::new(
        Bytes(memory_limit.0 / 100 * MAXMEMORY_PERCENT / MIB * MIB),
        "60 % of the memory limit, whole MiB",
        "a snapshot forks the process and copies pages that change meanwhile; maxmemory = limit would be killed",
    )
    .with("memoryLimit", memory_limit);
    let replicas = if sentinels {
        Derived::new(SENTINELS, "3", "one may be away, and the two others agree who leads")
    } else {
        Derived::new(1, "1", "one process")
    };
    RedisSizing { sentinels, replicas, compute, maxmemory }
}

/// `max_connections` of the stack's own server; for an external one the number that the pools are cut for.
fn max_connections(inputs: &Inputs) -> Derived<i32> {
    let value = by_users(inputs.users, 50, &[(500, 100), (LARGE_USERS, 200)], 400);
    Derived::new(value, "50 up to 50 users, 100 up to 500 (seed section 3), 200 up to 5000, else 400", "users")
        .with("users", inputs.users)
        .or_override(inputs.overrides.database_max_connections.map(to_i32), "spec.database.crunchy.maxConnections")
}

/// Cuts the pools of all layers so that the connection budget holds unless an override breaks it.
fn connections(
    inputs: &Inputs,
    mut api: ApiSizing,
    own_max: i32,
    beside: &Beside,
    read_pool: bool,
) -> (ApiSizing, Option<PoolerSizing>) {
    let o = &inputs.overrides;
    let own = inputs.standalone_database || inputs.cluster.is_some();
    let server =
        inputs.external_max_connections.filter(|_| !own).map_or(i64::from(own_max), |m| m.min(i64::from(own_max)));
    let usable =
        (server - budget::MIGRATION - budget::SUPERUSER_RESERVED - beside.exporter - beside.replication).max(1);
    let pods = i64::from(api.max_replicas.value) + budget::SURGE;
    let wanted = if inputs.users <= SMALL_USERS { 5 } else { 10 };

    if !inputs.pooler {
        let fits = (usable / pods).max(1);
        api.database_connections = Derived::new(
            to_i32(wanted.min(fits)),
            "min(5 up to 50 users else 10, (max_connections - migration - superuser) / (maxReplicas + surge))",
            if fits < wanted { "max_connections" } else { "load" },
        )
        .with_some("exporterAndReplication", beside.total())
        .with("maxConnections", server)
        .with("maxReplicas", api.max_replicas.value)
        .or_override(o.database_connections.map(to_i32), "spec.api.databaseConnections");
        return (api, None);
    }

    api.database_connections = Derived::new(to_i32(wanted), "5 up to 50 users, else 10", "load")
        .with("users", inputs.users)
        .or_override(o.database_connections.map(to_i32), "spec.api.databaseConnections");

    let max_client_conn = Derived::new(1000, "1000 (seed section 3)", "file descriptors of one pod")
        .or_override(o.max_client_conn.map(to_i32), "spec.pooler.pgbouncer.maxClientConn");
    let pools = if read_pool { 2 } else { 1 };
    let clients = pods * i64::from(api.database_connections.value) * pools;
    let for_clients = 1 + ceil_div(clients, i64::from(max_client_conn.value).max(1));
    let replicas = Derived::new(
        to_i32(for_clients.max(2)),
        "1 + ceil((maxReplicas + surge) x databaseConnections / maxClientConn), at least 2",
        "one pod may be away",
    )
    .with_some("poolsOfOnePod", read_pool.then_some(pools))
    .with("clients", clients)
    .with("maxClientConn", max_client_conn.value)
    .or_override(o.pooler_replicas.map(to_i32), "spec.pooler.pgbouncer.replicas");

    let asks = if inputs.cluster.is_some_and(|cluster| cluster.own_pooler) { budget::ASKS } else { 0 };
    let share = (usable / (i64::from(replicas.value) + budget::SURGE) - asks).max(1);
    let reserve = share / 6;
    let reserve_pool_size = Derived::new(to_i32(reserve), "a sixth of the share of one pod", "max_connections")
        .with("share", share)
        .or_override(o.reserve_pool_size.map(to_i32), "spec.pooler.pgbouncer.reservePoolSize");
    // An explicit reserve takes its part from the share.
    let rest = (share - i64::from(reserve_pool_size.value)).max(1);
    let default_pool_size = Derived::new(
        to_i32(rest),
        "(max_connections - migration - superuser) / (replicas + surge) - reserve",
        "max_connections",
    )
    .with("maxConnections", server)
    .with("migration", budget::MIGRATION)
    .with("superuser", budget::SUPERUSER_RESERVED)
    .with_some("exporterAndReplication", beside.total())
    .with("replicas", replicas.value)
    .with("reserve", reserve_pool_size.value)
    .or_override(o.default_pool_size.map(to_i32), "spec.pooler.pgbouncer.defaultPoolSize");

    let (cpu, memory) = by_users(inputs.users, (50, 64), &[(LARGE_USERS, (100, 256))], (500, 512));
    let compute = compute(
        &o.pooler,
        "pooler.pgbouncer.resources",
        Derived::new(Cpu(cpu), "50m up to 50 users, 100m up to 5000 (seed section 3), else 500m", "users")
            .with("users", inputs.users),
        (Cpu(1000), "PgBouncer has one thread"),
        Derived::new(
            Bytes(memory * MIB),
            "64Mi up to 50 users, 256Mi up to 5000 (seed section 3), else 512Mi",
            "users",
        )
        .with("users", inputs.users),
        (Bytes(2 * memory * MIB), "2 x request"),
    );
    (api, Some(PoolerSizing { replicas, default_pool_size, reserve_pool_size, max_client_conn, compute }))
}

fn database(
    inputs: &Inputs,
    max_connections: Derived<i32>,
    replicas: Derived<i32>,
    contradictions: &mut Vec<String>,
) -> DatabaseSizing {
    let wanted = power_of_two_mib(inputs.users * 8 * MIB);
    let memory = wanted.clamp(512 * MIB, 64 * GIB);
    let cpu = (memory * 1000 / (2 * GIB)).clamp(250, 16_000);
    let memory_derived = Derived::new(
        Bytes(memory),
        "next power of two of users x 8 MiB, 512Mi to 64Gi (4Gi at 500 users: seed section 3)",
        if wanted > memory { "64Gi" } else { "users" },
    )
    .with("users", inputs.users);
    let compute = compute(
        &inputs.overrides.database,
        if inputs.cluster.is_some() { "database.crunchy.resources" } else { "database.standalone.resources" },
        Derived::new(Cpu(cpu), "1 core per 2Gi of memory, 250m to 16", "memory").with("memory", Bytes(memory)),
        (Cpu(cpu.max(1000)), "= request, at least 1 core"),
        memory_derived,
        (Bytes(memory), "= request: memory of a database must be there"),
    );
    let ram = compute.memory_limit.value;
    let of_ram = |bytes: i64, formula: &'static str| {
        Derived::new(Bytes((bytes / MIB).max(1) * MIB), formula, "memory limit").with("memoryLimit", ram)
    };
    let storage = storage(inputs, contradictions);
    let backup_storage = inputs.cluster.is_some_and(|cluster| cluster.backup_volume).then(|| {
        Derived::new(storage.value, "= the volume of an instance: two weeks of a small database and its log", "volume")
            .with("storage", storage.value)
            .or_override(inputs.overrides.backup_storage, "spec.database.crunchy.backups.volume.size")
    });
    let wal = (storage.value.0 / 4).clamp(128 * MIB, 4 * GIB);
    DatabaseSizing {
        crunchy: inputs.cluster.is_some(),
        replicas,
        backup_storage,
        shared_buffers: of_ram(ram.0 / 4, "25 % of the memory limit"),
        effective_cache_size: of_ram(ram.0 / 4 * 3, "75 % of the memory limit"),
        work_mem: of_ram(
            (ram.0 / 2 / i64::from(max_connections.value)).max(4 * MIB),
            "50 % of the memory limit / max_connections, at least 4 MiB",
        )
        .with("maxConnections", max_connections.value),
        maintenance_work_mem: of_ram(ram.0 / 16, "1/16 of the memory limit"),
        max_wal_size: Derived::new(Bytes(wal / MIB * MIB), "a quarter of the volume, 128Mi to 4Gi", "volume")
            .with("storage", storage.value),
        max_connections,
        compute,
        storage,
    }
}

/// The volume. An existing one keeps its size unless the spec asks for more: many storage classes cannot grow.
fn storage(inputs: &Inputs, contradictions: &mut Vec<String>) -> Derived<Bytes> {
    let field = if inputs.cluster.is_some() {
        "spec.database.crunchy.storage.size"
    } else {
        "spec.database.standalone.storage.size"
    };
    let derived = Derived::new(
        Bytes(ceil_div(inputs.users, 5).max(1) * GIB),
        "users x 0.2Gi, at least 1Gi (100Gi at 500 users: seed section 3)",
        "users",
    )
    .with("users", inputs.users);
    let wanted = inputs.overrides.storage;
    match inputs.existing_storage {
        Some(existing) if wanted.is_none_or(|w| w <= existing) => {
            if let Some(wanted) = wanted.filter(|wanted| *wanted < existing) {
                contradictions.push(format!(
                    "{field} is {wanted}, the volume has {existing} and cannot shrink: write at least {existing}"
                ));
            }
            let kept = format!("the existing volume, which never shrinks and grows only by {field}");
            derived.or_override(Some(existing), &kept)
        }
        _ => derived.or_override(wanted, field),
    }
}

/// Requests per second that one pod serves at the autoscaler's target.
fn per_pod_capacity(cpu_request: Cpu) -> i64 {
    (cpu_request.0 * REQUESTS_PER_CORE * TARGET_UTILISATION / 100 / 1000).max(1)
}

fn class(users: i64, milli_rate: i64) -> (i64, i64) {
    let small = users <= SMALL_USERS && milli_rate <= SMALL_USERS * 1000;
    CLASSES
        .into_iter()
        .skip(usize::from(!small))
        .find(|(cpu, _)| 2 * ceil_div(milli_rate * MARGIN, per_pod_capacity(Cpu(*cpu)) * 1000) <= PODS_PER_CLASS)
        .unwrap_or(CLASSES[CLASSES.len() - 1])
}

/// The value of the first step that holds `users`: small stacks, then each step, then the rest.
fn by_users<T: Copy>(users: i64, small: T, steps: &[(i64, T)], rest: T) -> T {
    if users <= SMALL_USERS {
        return small;
    }
    steps.iter().find(|(most, _)| users <= *most).map_or(rest, |(_, value)| *value)
}

/// Requests per second in thousandths, so that small stacks do not round to nothing.
fn milli_rate(inputs: &Inputs) -> i64 {
    inputs.users * inputs.dashboards_per_user * inputs.panels_per_dashboard * 1_000_000
        / inputs.refresh_interval_ms.max(1)
}

/// Bytes in the shared cache: dashboards, answers of queries, permissions, Redis itself.
fn cached(inputs: &Inputs) -> [i64; 4] {
    [
        dashboards(inputs) * DASHBOARD_BYTES,
        queries(inputs) * QUERY_BYTES * BUCKETS,
        inputs.users * inputs.namespaces_per_user * PERMISSION_BYTES,
        REDIS_OVERHEAD,
    ]
}

fn dashboards(inputs: &Inputs) -> i64 {
    inputs.dashboards.unwrap_or(inputs.users.max(50))
}

fn queries(inputs: &Inputs) -> i64 {
    inputs.distinct_queries.unwrap_or(2 * dashboards(inputs))
}

/// Next power of two in MiB.
fn power_of_two_mib(bytes: i64) -> i64 {
    let mib = u64::try_from(ceil_div(bytes, MIB)).unwrap_or(1).max(1).next_power_of_two();
    i64::try_from(mib).unwrap_or(i64::MAX / MIB).saturating_mul(MIB)
}

fn ceil_div(a: i64, b: i64) -> i64 {
    (a + b - 1).div_euclid(b)
}

fn to_i32(value: i64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
