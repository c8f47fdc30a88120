//! Pooler and cache: what stands between the API server and its data.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::database::SecretKey;
use super::spec::{LocalReference, Resources};

/// The connection pooler.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.pgbouncer) || self.type != 'None'").message("pgbouncer can be set only when type is PgBouncer or Crunchy").field_path(".pgbouncer"))]
#[x_kube(validation = Rule::new("!has(self.tls) || self.type == 'PgBouncer'").message("tls can be set only when type is PgBouncer: Crunchy's pooler always uses TLS").field_path(".tls"))]
pub struct Pooler {
    /// Kind of pooler.
    #[serde(default, rename = "type")]
    pub type_: PoolerType,
    /// Overrides for PgBouncer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pgbouncer: Option<PgBouncer>,
    /// TLS between the API pods and PgBouncer; none when absent. Towards the database it follows the database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<PoolerTls>,
}

/// TLS between the API pods and PgBouncer; other clients than the API pods are refused without it, too.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PoolerTls {
    /// Secret of type kubernetes.io/tls with tls.crt, tls.key and the authority's ca.crt; the certificate must be one for
    /// `<stack>-pgbouncer`. When absent, the operator makes an authority and a certificate of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
}

/// Kinds of pooler.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum PoolerType {
    /// PgBouncer in transaction mode.
    #[default]
    PgBouncer,
    /// The PgBouncer of Crunchy's operator, in transaction mode; only with a database of type Crunchy.
    Crunchy,
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
#[x_kube(validation = Rule::new("!has(self.sentinel) || self.type == 'Sentinel'").message("sentinel can be set only when type is Sentinel").field_path(".sentinel"))]
#[x_kube(validation = Rule::new("(self.type == 'External') == has(self.external)").message("external must be set when type is External, and only then").field_path(".external"))]
pub struct Cache {
    /// Kind of cache.
    #[serde(default, rename = "type")]
    pub type_: CacheType,
    /// Overrides for the Redis of type Standalone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standalone: Option<Redis>,
    /// Overrides for each Redis of type Sentinel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel: Option<Redis>,
    /// A Redis that somebody else runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalRedis>,
}

/// Kinds of shared cache.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum CacheType {
    /// One Redis pod. When it is away the service is slower, not wrong.
    #[default]
    Standalone,
    /// Three Redis pods with a sentinel each: when the one that leads is away another one takes over with what is cached.
    Sentinel,
    /// A Redis that somebody else runs.
    External,
    /// No shared cache: every pod has only its own.
    None,
}

impl CacheType {
    /// Whether the stack runs it.
    pub fn is_own(self) -> bool {
        matches!(self, Self::Standalone | Self::Sentinel)
    }
}

/// Overrides for a Redis that the stack runs.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Redis {
    /// Compute resources of the pod. Override the derived ones; `maxmemory` is 60 % of the memory limit.
    pub resources: Resources,
}

/// A Redis that somebody else runs.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.mode == 'Single' ? self.addresses.size() == 1 : true").message("mode Single takes one address").field_path(".addresses"))]
#[x_kube(validation = Rule::new("(self.mode == 'Sentinel') == has(self.sentinel)").message("sentinel must be set when mode is Sentinel, and only then").field_path(".sentinel"))]
pub struct ExternalRedis {
    /// How the servers work together.
    #[serde(default)]
    pub mode: RedisMode,
    /// `host:port` of the server; of the sentinels in mode Sentinel; of some servers in mode Cluster, which name the others.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 3, max = 260), regex(pattern = r"^[A-Za-z0-9.:\[\]_-]+:[0-9]{1,5}$"))
    )]
    pub addresses: Vec<String>,
    /// Credentials; none when the server asks for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<RedisAuth>,
    /// TLS; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTls>,
    /// The sentinels of mode Sentinel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel: Option<Sentinel>,
}

/// How the servers of an external Redis work together.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum RedisMode {
    /// One address.
    #[default]
    Single,
    /// Sentinels say who the primary is.
    Sentinel,
    /// A Redis Cluster.
    Cluster,
}

/// Credentials of Redis.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RedisAuth {
    /// Secret with the credentials.
    pub secret_ref: LocalReference,
    /// Key of the ACL user; the default user when the Secret does not have it.
    #[serde(default = "username_key")]
    #[schemars(length(min = 1, max = 253))]
    pub username_key: String,
    /// Key of the password.
    #[serde(default = "password_key")]
    #[schemars(length(min = 1, max = 253))]
    pub password_key: String,
}

fn username_key() -> String {
    "username".to_owned()
}

fn password_key() -> String {
    "password".to_owned()
}

/// TLS to Redis.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct RedisTls {
    /// Certificates of the authority that signed the servers' certificates; the public ones when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretKey>,
}

/// The sentinels.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Sentinel {
    /// Name under which the sentinels know the primary.
    #[schemars(length(min = 1, max = 128))]
    pub master_name: String,
    /// Credentials of the sentinels themselves; none when they ask for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<RedisAuth>,
}
