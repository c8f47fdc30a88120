//! Pooler and cache: what stands between the API server and its data.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spec::Resources;

/// The connection pooler.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.pgbouncer) || self.type == 'PgBouncer'").message("pgbouncer can be set only when type is PgBouncer").field_path(".pgbouncer"))]
pub struct Pooler {
    /// Kind of pooler.
    #[serde(default, rename = "type")]
    pub type_: PoolerType,
    /// Overrides for PgBouncer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pgbouncer: Option<PgBouncer>,
}

/// Kinds of pooler.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum PoolerType {
    /// PgBouncer in transaction mode.
    #[default]
    PgBouncer,
    /// The API pods connect to the database themselves.
    None,
}

/// Overrides for PgBouncer.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PgBouncer {
    /// Number of pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50))]
    pub replicas: Option<i32>,
    /// Connections of one pod to the database (`default_pool_size`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub default_pool_size: Option<i32>,
    /// Connections beyond the pool for bursts (`reserve_pool_size`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub reserve_pool_size: Option<i32>,
    /// Connections that one pod accepts (`max_client_conn`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_client_conn: Option<i32>,
    /// Compute resources of one pod. Override the derived ones.
    pub resources: Resources,
}

/// The cache that the API pods share.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.standalone) || self.type == 'Standalone'").message("standalone can be set only when type is Standalone").field_path(".standalone"))]
pub struct Cache {
    /// Kind of cache.
    #[serde(default, rename = "type")]
    pub type_: CacheType,
    /// Overrides for the Redis of type Standalone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standalone: Option<Redis>,
}

/// Kinds of shared cache.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum CacheType {
    /// One Redis pod. When it is away the service is slower, not wrong.
    #[default]
    Standalone,
    /// No shared cache: every pod has only its own.
    None,
}

/// Overrides for Redis.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Redis {
    /// Compute resources of the pod. Override the derived ones; `maxmemory` is 60 % of the memory limit.
    pub resources: Resources,
}
