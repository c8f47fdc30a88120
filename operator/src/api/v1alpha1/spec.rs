//! Desired state: what a person writes.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quantity::Quantity;
use super::schema;
use super::status::PersesStackStatus;

/// The wanted dashboard service. Only `users` is required; every other number is derived from it, shown in
/// `status.sizing`, and can be overridden here.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "persesstack.io",
    version = "v1alpha1",
    kind = "PersesStack",
    plural = "persesstacks",
    singular = "persesstack",
    shortname = "pstack",
    category = "observability",
    namespaced,
    cel,
    status = "PersesStackStatus",
    derive = "PartialEq",
    doc = "A highly available, Perses-compatible dashboard service, sized from the number of its users.",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "Whether the service answers with the wanted configuration"),
    printcolumn(name = "Users", type_ = "integer", json_path = ".spec.users", description = "Declared users"),
    printcolumn(name = "API", type_ = "string", json_path = ".status.api.summary", description = "API pods ready/desired"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", description = "Where the service answers"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name may have at most 40 characters: the names of the stack's objects are built from it").field_path(".metadata.name"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label that starts with a letter (a-z, 0-9, '-'): Services are named after it").field_path(".metadata.name"),
)]
#[serde(rename_all = "camelCase")]
pub struct PersesStackSpec {
    /// How many people use the service at the same time. Everything is sized from this number.
    #[schemars(range(min = 1, max = 100_000))]
    pub users: i32,

    /// What one user does. The defaults are those of the capacity model.
    #[serde(default)]
    pub workload: Workload,

    /// Which capacity model turns users into numbers.
    #[serde(default)]
    pub sizing: SizingSpec,

    /// Container images. An image that is not named here comes from the operator's RELATED_IMAGE_* variables, else from
    /// its built-in defaults.
    #[serde(default)]
    pub images: Images,

    /// Secrets in this namespace with credentials for the image registries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalReference>,

    /// When the kubelet pulls images.
    #[serde(default)]
    pub image_pull_policy: PullPolicy,

    /// The API server: replicas, resources and configuration.
    #[serde(default)]
    pub api: Api,

    /// Where dashboards are stored.
    #[serde(default)]
    pub database: Database,

    /// The connection pooler between the API server and the database.
    #[serde(default)]
    pub pooler: Pooler,

    /// The cache that the API pods share.
    #[serde(default)]
    pub cache: Cache,

    /// Prometheus-compatible servers that every project can query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.name == a.name))").message("every datasource needs a name of its own"))]
    #[x_kube(validation = Rule::new("self.filter(d, has(d.default) && d.default).size() <= 1").message("at most one datasource can be the default"))]
    pub datasources: Vec<Datasource>,
}

/// What one user does; the inputs of the capacity model beside `users`.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Workload {
    /// Dashboards that one user has open.
    #[schemars(range(min = 1, max = 100))]
    pub dashboards_per_user: i32,
    /// Panels on one dashboard; each sends one query per refresh.
    #[schemars(range(min = 1, max = 200))]
    pub panels_per_dashboard: i32,
    /// How often an open dashboard refreshes (Prometheus duration; at least 1s).
    #[schemars(regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$"), length(min = 2, max = 16))]
    pub refresh_interval: String,
    /// Stored dashboards. Default: one per user, at least 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub dashboards: Option<i32>,
    /// Namespaces whose access is looked up for one user.
    #[schemars(range(min = 1, max = 10_000))]
    pub namespaces_per_user: i32,
    /// Different queries whose answers are worth keeping. Default: two per stored dashboard.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub distinct_queries: Option<i32>,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            dashboards_per_user: 3,
            panels_per_dashboard: 5,
            refresh_interval: "15s".to_owned(),
            dashboards: None,
            namespaces_per_user: 50,
            distinct_queries: None,
        }
    }
}

/// Choice of the capacity model.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct SizingSpec {
    /// Version of the model. A newer operator never changes it by itself.
    pub model: SizingModel,
}

/// Versions of the capacity model.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum SizingModel {
    /// The first model: 2000 simple requests per second and CPU core, target utilisation 70 %, margin 3.
    #[default]
    #[serde(rename = "v1")]
    V1,
}

/// Container images, each with an exact tag or digest.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Images {
    /// The API server (`perses-api-server`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub api_server: Option<String>,
    /// Redis; needs `redis-server` on its PATH.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub redis: Option<String>,
    /// PgBouncer 1.21 or newer; needs `pgbouncer` on its PATH.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub pgbouncer: Option<String>,
    /// PostgreSQL 17 for `database.type: Standalone`; needs `sh`, `initdb` and `postgres` on its PATH.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub postgres: Option<String>,
}

/// When the kubelet pulls an image.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// When the node does not have it.
    #[default]
    IfNotPresent,
    /// Never: the node has it.
    Never,
}

impl PullPolicy {
    /// The word that Kubernetes uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// Name of an object in the same namespace.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Compute resources of a container. A value that is absent keeps the derived one.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// What the scheduler reserves.
    #[serde(skip_serializing_if = "ResourceList::is_empty")]
    pub requests: ResourceList,
    /// What the container may use at most.
    #[serde(skip_serializing_if = "ResourceList::is_empty")]
    pub limits: ResourceList,
}

/// Amounts of compute resources.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceList {
    /// CPU cores, for example `250m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Memory, for example `512Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

impl ResourceList {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.cpu.is_none() && self.memory.is_none()
    }
}

/// The API server.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas").message("minReplicas must not be greater than maxReplicas").field_path(".minReplicas"))]
pub struct Api {
    /// Fewest pods that the autoscaler keeps. Overrides the derived number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: Option<i32>,
    /// Most pods that the autoscaler starts. Overrides the derived number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: Option<i32>,
    /// Connections that one pod opens to the pooler, or to the database without one. Overrides the derived number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub database_connections: Option<i32>,
    /// Compute resources of one pod. Override the derived ones.
    #[serde(default)]
    pub resources: Resources,
    /// Configuration of the API server in Perses' own keys, merged over the operator's. Keys that the operator must own
    /// (`database`, `provisioning`, key and password files) are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub config: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Where dashboards are stored: `type` and, for some types, the member of that name.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.type == 'External') == has(self.external)").message("external must be set when type is External, and only then").field_path(".external"))]
#[x_kube(validation = Rule::new("!has(self.standalone) || self.type == 'Standalone' || self.type == 'Auto'").message("standalone can be set only when type is Standalone or Auto").field_path(".standalone"))]
#[x_kube(validation = Rule::new("oldSelf.type == self.type || oldSelf.type == 'Auto' || self.type == 'Auto'").message("type cannot change from one store to another: the data would stay behind. Export the dashboards and create a new stack").field_path(".type"))]
pub struct Database {
    /// Kind of store. `Auto`: what already holds this stack's data, else Standalone up to 50 users; with more the
    /// stack waits for a decision.
    #[serde(default, rename = "type")]
    pub type_: DatabaseType,
    /// What happens to the data, its credentials and the encryption key when the stack is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// A PostgreSQL server that somebody else runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// One PostgreSQL pod with one volume, run by this operator. Not highly available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standalone: Option<Standalone>,
}

/// Kinds of store.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum DatabaseType {
    /// Decided by what is there; see `type`.
    #[default]
    Auto,
    /// A PostgreSQL server that somebody else runs.
    External,
    /// One PostgreSQL pod with one volume.
    Standalone,
}

/// What happens to data when the stack is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum DeletionPolicy {
    /// Volumes, credentials and keys stay and are adopted when a stack of this name is created again.
    #[default]
    Retain,
    /// Everything is deleted with the stack.
    Delete,
}

/// A PostgreSQL server that somebody else runs.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Secret with host, port, database name, user and password.
    pub secret_ref: LocalReference,
    /// Names of the keys in that Secret. The defaults are those of Crunchy's `<cluster>-pguser-<user>`.
    #[serde(default)]
    pub keys: DatabaseKeys,
    /// `max_connections` of the server, for the connection budget. Without it the budget is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 100_000))]
    pub max_connections: Option<i32>,
    /// How the connection to the server is protected.
    #[serde(default)]
    pub ssl_mode: SslMode,
    /// Where `migrate` connects when the host in the Secret is a pooler: the primary itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<Direct>,
}

/// Keys of the credentials Secret.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseKeys {
    /// Key of the host name.
    pub host: String,
    /// Key of the port; 5432 when the Secret does not have it.
    pub port: String,
    /// Key of the database name.
    pub dbname: String,
    /// Key of the user name.
    pub user: String,
    /// Key of the password.
    pub password: String,
}

impl Default for DatabaseKeys {
    fn default() -> Self {
        Self {
            host: "host".to_owned(),
            port: "port".to_owned(),
            dbname: "dbname".to_owned(),
            user: "user".to_owned(),
            password: "password".to_owned(),
        }
    }
}

/// libpq's `sslmode`.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS when the server offers it.
    #[default]
    Prefer,
    /// TLS or nothing; the certificate is not checked.
    Require,
}

impl SslMode {
    /// The word that libpq and PgBouncer use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
        }
    }
}

/// A host and port.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Direct {
    /// Host name or address.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// TCP port.
    #[serde(default = "postgres_port")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: i32,
}

fn postgres_port() -> i32 {
    5432
}

/// One PostgreSQL pod with one volume.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Standalone {
    /// The volume.
    pub storage: Storage,
    /// Compute resources of the pod. Override the derived ones.
    pub resources: Resources,
}

/// A volume that is claimed once and kept.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)").message("storageClassName cannot change: the volume exists").field_path(".storageClassName"))]
pub struct Storage {
    /// Size of the volume. Overrides the derived size; it can grow where the storage class allows it, never shrink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
    /// Storage class; the cluster's default class when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
}

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

/// A Prometheus-compatible server, provisioned as a global datasource.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Datasource {
    /// Name of the global datasource.
    #[schemars(length(min = 1, max = 75), regex(pattern = r"^[a-zA-Z0-9_.-]+$"))]
    pub name: String,
    /// Base URL, `http` or `https`, as reached from the API pods.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s/?#]+[^\s?#]*$"))]
    pub url: String,
    /// Whether queries that name no datasource go here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// How the API server signs in there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<DatasourceAuth>,
    /// Scrape interval of the server: the smallest useful step of a query (Prometheus duration).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"))]
    pub scrape_interval: Option<String>,
    /// Requests that may pass; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allowed_endpoints: Vec<Access>,
}

/// One allowed request.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// Regular expression that the path must match.
    #[schemars(length(min = 1, max = 512))]
    pub endpoint_pattern: String,
    /// HTTP method.
    #[schemars(regex(pattern = r"^(GET|POST|PUT|PATCH|DELETE)$"))]
    pub method: String,
}

/// How the API server signs in at a datasource: one of the members.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.basic) != has(self.bearer)").message("set exactly one of basic and bearer"))]
pub struct DatasourceAuth {
    /// User name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,
    /// A bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<BearerAuth>,
}

/// User name and password in a Secret.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// The Secret, in the stack's namespace.
    pub secret_ref: LocalReference,
    /// Key of the user name.
    #[serde(default = "username_key")]
    pub username_key: String,
    /// Key of the password.
    #[serde(default = "password_key")]
    pub password_key: String,
}

/// A bearer token in a Secret.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BearerAuth {
    /// The Secret, in the stack's namespace.
    pub secret_ref: LocalReference,
    /// Key of the token.
    #[serde(default = "token_key")]
    pub key: String,
}

fn username_key() -> String {
    "username".to_owned()
}

fn password_key() -> String {
    "password".to_owned()
}

fn token_key() -> String {
    "token".to_owned()
}
