//! PURE: from the declared workload and a versioned capacity model to every number, each with its derivation.

pub mod budget;
mod cluster;
mod compute;
pub mod demand;
pub mod derivation;
pub mod footprint;
pub mod model_v1;
pub mod price;
pub mod quantity;
pub mod quota;

pub use budget::{BudgetState, ConnectionBudget};
pub use demand::Demand;
pub use derivation::{Derivation, Derived};
pub use quantity::{Bytes, Cpu};

use crate::api::v1alpha1::SizingModel;

/// What the model reads: the workload in numbers, the shape of the stack, and the overrides of the spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Inputs {
    /// Model to use.
    pub model: SizingModel,
    /// Concurrent users.
    pub users: i64,
    /// Open dashboards of one user.
    pub dashboards_per_user: i64,
    /// Panels of one dashboard.
    pub panels_per_dashboard: i64,
    /// Refresh interval in milliseconds.
    pub refresh_interval_ms: i64,
    /// Stored dashboards, when declared.
    pub dashboards: Option<i64>,
    /// Namespaces of one user.
    pub namespaces_per_user: i64,
    /// Different queries worth keeping, when declared.
    pub distinct_queries: Option<i64>,
    /// The stack runs its own PostgreSQL: one pod.
    pub standalone_database: bool,
    /// The stack has a cluster that Crunchy's operator runs.
    pub cluster: Option<ClusterInputs>,
    /// What an external database has for reads.
    pub external_reads: Reads,
    /// Size of the data volume that exists: a claim never shrinks, and grows only when the spec says so.
    pub existing_storage: Option<Bytes>,
    /// `max_connections` of an external server, when declared.
    pub external_max_connections: Option<i64>,
    /// A pooler is between.
    pub pooler: bool,
    /// The shared cache that the stack runs.
    pub cache: OwnCache,
    /// Overrides.
    pub overrides: Overrides,
}

/// The shared cache that the stack runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnCache {
    /// None, or somebody else's.
    #[default]
    None,
    /// One Redis.
    Standalone,
    /// Three with sentinels.
    Sentinel,
}

/// The shape of a cluster of Crunchy's operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterInputs {
    /// Each instance has a metrics exporter.
    pub exporter: bool,
    /// Backups go to a volume.
    pub backup_volume: bool,
    /// The pooler is Crunchy's: it asks the database for passwords, over connections of its own.
    pub own_pooler: bool,
}

/// Where lists and search can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// The primary.
    #[default]
    Primary,
    /// Replicas behind an address of their own.
    Replicas,
}

/// Explicit numbers of the spec; each wins over the model's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// `api.minReplicas`.
    pub min_replicas: Option<i64>,
    /// `api.maxReplicas`.
    pub max_replicas: Option<i64>,
    /// `api.databaseConnections`.
    pub database_connections: Option<i64>,
    /// `api.resources`.
    pub api: ComputeOverrides,
    /// `cache.standalone.resources` or `cache.sentinel.resources`.
    pub redis: ComputeOverrides,
    /// `pooler.pgbouncer.replicas`.
    pub pooler_replicas: Option<i64>,
    /// `pooler.pgbouncer.defaultPoolSize`.
    pub default_pool_size: Option<i64>,
    /// `pooler.pgbouncer.reservePoolSize`.
    pub reserve_pool_size: Option<i64>,
    /// `pooler.pgbouncer.maxClientConn`.
    pub max_client_conn: Option<i64>,
    /// `pooler.pgbouncer.resources`.
    pub pooler: ComputeOverrides,
    /// `database.standalone.resources` or `database.crunchy.resources`.
    pub database: ComputeOverrides,
    /// `database.standalone.storage.size` or `database.crunchy.storage.size`.
    pub storage: Option<Bytes>,
    /// `database.crunchy.replicas`.
    pub database_replicas: Option<i64>,
    /// `database.crunchy.maxConnections`.
    pub database_max_connections: Option<i64>,
    /// `database.crunchy.backups.volume.size`.
    pub backup_storage: Option<Bytes>,
}

/// Explicit compute resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ComputeOverrides {
    /// `requests.cpu`.
    pub cpu_request: Option<Cpu>,
    /// `limits.cpu`.
    pub cpu_limit: Option<Cpu>,
    /// `requests.memory`.
    pub memory_request: Option<Bytes>,
    /// `limits.memory`.
    pub memory_limit: Option<Bytes>,
}

/// Compute resources of one container.
#[derive(Clone, Debug, PartialEq)]
pub struct Compute {
    /// `requests.cpu`.
    pub cpu_request: Derived<Cpu>,
    /// `limits.cpu`.
    pub cpu_limit: Derived<Cpu>,
    /// `requests.memory`.
    pub memory_request: Derived<Bytes>,
    /// `limits.memory`.
    pub memory_limit: Derived<Bytes>,
}

/// Numbers of the API server.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiSizing {
    /// Requests per second of the declared users.
    pub request_rate: Derived<i64>,
    /// Fewest pods.
    pub min_replicas: Derived<i32>,
    /// Most pods.
    pub max_replicas: Derived<i32>,
    /// Resources of one pod.
    pub compute: Compute,
    /// Bytes of the in-process cache.
    pub l1_max_bytes: Derived<Bytes>,
    /// Database connections of one pod.
    pub database_connections: Derived<i32>,
}

/// Numbers of Redis.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisSizing {
    /// With sentinels, of which the servers know the leader; else one pod.
    pub sentinels: bool,
    /// Pods, each with all of the cache.
    pub replicas: Derived<i32>,
    /// Resources of Redis in each pod.
    pub compute: Compute,
    /// `maxmemory`.
    pub maxmemory: Derived<Bytes>,
}

/// Numbers of PgBouncer.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolerSizing {
    /// Pods.
    pub replicas: Derived<i32>,
    /// Server connections of one pod.
    pub default_pool_size: Derived<i32>,
    /// Further server connections of one pod for bursts.
    pub reserve_pool_size: Derived<i32>,
    /// Client connections that one pod accepts.
    pub max_client_conn: Derived<i32>,
    /// Resources of one pod.
    pub compute: Compute,
}

/// Numbers of the stack's own PostgreSQL.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseSizing {
    /// A cluster of Crunchy's operator; else one pod.
    pub crunchy: bool,
    /// Instances, the primary included; 1 for one pod.
    pub replicas: Derived<i32>,
    /// Size of the volume for backups.
    pub backup_storage: Option<Derived<Bytes>>,
    /// `max_connections`.
    pub max_connections: Derived<i32>,
    /// Resources of each instance.
    pub compute: Compute,
    /// Size of the volume of each instance.
    pub storage: Derived<Bytes>,
    /// `shared_buffers`.
    pub shared_buffers: Derived<Bytes>,
    /// `effective_cache_size`.
    pub effective_cache_size: Derived<Bytes>,
    /// `work_mem`.
    pub work_mem: Derived<Bytes>,
    /// `maintenance_work_mem`.
    pub maintenance_work_mem: Derived<Bytes>,
    /// `max_wal_size`.
    pub max_wal_size: Derived<Bytes>,
}

/// Every number of a stack.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizing {
    /// Model that was used.
    pub model: SizingModel,
    /// API server.
    pub api: ApiSizing,
    /// Redis.
    pub redis: Option<RedisSizing>,
    /// PgBouncer.
    pub pooler: Option<PoolerSizing>,
    /// PostgreSQL.
    pub database: Option<DatabaseSizing>,
    /// What the workload asks of Prometheus, the cache, the disks and the network.
    pub demand: Demand,
    /// The API pods have a second pool of connections, to replicas.
    pub read_pool: bool,
    /// Whether the connections of all layers fit into each other: condition `ConnectionBudget`.
    pub budget: ConnectionBudget,
    /// Numbers that contradict each other, each with what to change: condition `Feasible` when not empty.
    pub contradictions: Vec<String>,
}

/// Every number for `inputs`.
pub fn size(inputs: &Inputs) -> Sizing {
    match inputs.model {
        SizingModel::V1 => model_v1::size(inputs),
    }
}

impl Sizing {
    /// Every number with its derivation, in reading order.
    pub fn derivations(&self) -> Vec<Derivation> {
        let mut all = vec![
            Derivation::of("api.requestRate", &self.api.request_rate),
            Derivation::of("api.minReplicas", &self.api.min_replicas),
            Derivation::of("api.maxReplicas", &self.api.max_replicas),
            Derivation::of("api.resources.requests.cpu", &self.api.compute.cpu_request),
            Derivation::of("api.resources.limits.cpu", &self.api.compute.cpu_limit),
            Derivation::of("api.resources.requests.memory", &self.api.compute.memory_request),
            Derivation::of("api.resources.limits.memory", &self.api.compute.memory_limit),
            Derivation::of("api.l1MaxBytes", &self.api.l1_max_bytes),
            Derivation::of("api.databaseConnections", &self.api.database_connections),
        ];
        if let Some(redis) = &self.redis {
            all.extend(redis.derivations());
        }
        if let Some(pooler) = &self.pooler {
            all.extend([
                Derivation::of("pooler.pgbouncer.replicas", &pooler.replicas),
                Derivation::of("pooler.pgbouncer.defaultPoolSize", &pooler.default_pool_size),
                Derivation::of("pooler.pgbouncer.reservePoolSize", &pooler.reserve_pool_size),
                Derivation::of("pooler.pgbouncer.maxClientConn", &pooler.max_client_conn),
                Derivation::of("pooler.pgbouncer.resources.requests.cpu", &pooler.compute.cpu_request),
                Derivation::of("pooler.pgbouncer.resources.limits.cpu", &pooler.compute.cpu_limit),
                Derivation::of("pooler.pgbouncer.resources.requests.memory", &pooler.compute.memory_request),
                Derivation::of("pooler.pgbouncer.resources.limits.memory", &pooler.compute.memory_limit),
            ]);
        }
        if let Some(database) = &self.database {
            all.extend(database.derivations());
        }
        all.extend(self.demand.derivations());
        all
    }
}

impl RedisSizing {
    /// The numbers under the names of their kind of cache.
    fn derivations(&self) -> Vec<Derivation> {
        // Both lists in the same order.
        const STANDALONE: [&str; 5] = [
            "cache.standalone.resources.requests.cpu",
            "cache.standalone.resources.limits.cpu",
            "cache.standalone.resources.requests.memory",
            "cache.standalone.resources.limits.memory",
            "cache.standalone.maxmemory",
        ];
        const SENTINEL: [&str; 5] = [
            "cache.sentinel.resources.requests.cpu",
            "cache.sentinel.resources.limits.cpu",
            "cache.sentinel.resources.requests.memory",
            "cache.sentinel.resources.limits.memory",
            "cache.sentinel.maxmemory",
        ];
        let [cpu, cpu_limit, memory, memory_limit, maxmemory] = if self.sentinels { SENTINEL } else { STANDALONE };
        let replicas = self.sentinels.then(|| Derivation::of("cache.sentinel.replicas", &self.replicas));
        let numbers = [
            Derivation::of(cpu, &self.compute.cpu_request),
            Derivation::of(cpu_limit, &self.compute.cpu_limit),
            Derivation::of(memory, &self.compute.memory_request),
            Derivation::of(memory_limit, &self.compute.memory_limit),
            Derivation::of(maxmemory, &self.maxmemory),
        ];
        replicas.into_iter().chain(numbers).collect()
    }
}

impl DatabaseSizing {
    /// The numbers under the names of their provider.
    fn derivations(&self) -> Vec<Derivation> {
        // Both lists in the same order.
        const STANDALONE: [&str; 11] = [
            "database.standalone.maxConnections",
            "database.standalone.resources.requests.cpu",
            "database.standalone.resources.limits.cpu",
            "database.standalone.resources.requests.memory",
            "database.standalone.resources.limits.memory",
            "database.standalone.storage.size",
            "database.standalone.sharedBuffers",
            "database.standalone.effectiveCacheSize",
            "database.standalone.workMem",
            "database.standalone.maintenanceWorkMem",
            "database.standalone.maxWalSize",
        ];
        const CRUNCHY: [&str; 11] = [
            "database.crunchy.maxConnections",
            "database.crunchy.resources.requests.cpu",
            "database.crunchy.resources.limits.cpu",
            "database.crunchy.resources.requests.memory",
            "database.crunchy.resources.limits.memory",
            "database.crunchy.storage.size",
            "database.crunchy.parameters.shared_buffers",
            "database.crunchy.parameters.effective_cache_size",
            "database.crunchy.parameters.work_mem",
            "database.crunchy.parameters.maintenance_work_mem",
            "database.crunchy.parameters.max_wal_size",
        ];
        let [connections, cpu, cpu_limit, memory, memory_limit, storage, shared, cache, work, maintenance, wal] =
            if self.crunchy { CRUNCHY } else { STANDALONE };
        let mut all = Vec::new();
        if self.crunchy {
            all.push(Derivation::of("database.crunchy.replicas", &self.replicas));
        }
        all.extend([
            Derivation::of(connections, &self.max_connections),
            Derivation::of(cpu, &self.compute.cpu_request),
            Derivation::of(cpu_limit, &self.compute.cpu_limit),
            Derivation::of(memory, &self.compute.memory_request),
            Derivation::of(memory_limit, &self.compute.memory_limit),
            Derivation::of(storage, &self.storage),
            Derivation::of(shared, &self.shared_buffers),
            Derivation::of(cache, &self.effective_cache_size),
            Derivation::of(work, &self.work_mem),
            Derivation::of(maintenance, &self.maintenance_work_mem),
            Derivation::of(wal, &self.max_wal_size),
        ]);
        all.extend(self.backup_storage.iter().map(|size| Derivation::of("database.crunchy.backups.volume.size", size)));
        all
    }
}

#[cfg(test)]
mod tests;
