//! Desired state: what a person writes.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth::Auth;
use super::database::Database;
use super::datasource::Datasource;
use super::exposure::Exposure;
use super::limits::{Limits, NetworkPolicyMode, QuotaMode};
use super::monitoring::Monitoring;
use super::pods::{Autoscaling, ServingTls, Spread};
use super::quantity::Quantity;
use super::schema;
use super::services::{Cache, Pooler};
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
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name may have at most 40 characters: the names of the stack's objects are built from it"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("metadata.name must be a DNS label that starts with a letter (a-z, 0-9, '-'): Services are named after it"),
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

    /// Who may sign in, and which roles they have.
    #[serde(default)]
    pub auth: Auth,

    /// Where dashboards are stored.
    #[serde(default)]
    pub database: Database,

    /// The connection pooler between the API server and the database.
    #[serde(default)]
    pub pooler: Pooler,

    /// The cache that the API pods share.
    #[serde(default)]
    pub cache: Cache,

    /// How the service is reached from outside the cluster.
    #[serde(default)]
    pub exposure: Exposure,

    /// How Prometheus watches the stack itself.
    #[serde(default)]
    pub monitoring: Monitoring,

    /// Prometheus-compatible servers that every project can query.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.name == a.name))").message("every datasource needs a name of its own"))]
    #[x_kube(validation = Rule::new("self.filter(d, has(d.default) && d.default).size() <= 1").message("at most one datasource can be the default"))]
    pub datasources: Vec<Datasource>,

    /// Limits that the API server enforces.
    #[serde(default)]
    pub limits: Limits,

    /// Whether the namespace gets a ResourceQuota that is cut for this stack.
    #[serde(default)]
    pub quota: QuotaMode,

    /// Which pods NetworkPolicies protect.
    #[serde(default)]
    pub network_policy: NetworkPolicyMode,

    /// Take all pods away and keep everything else: first the API, then the pooler, the cache and the database; set back to
    /// false they start in reverse. Data, credentials and addresses stay. An external database is left alone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub suspend: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn is_false(value: &bool) -> bool {
    !value
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
    /// The exporter of prometheus-community for PgBouncer, started by its own entry point.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub pgbouncer_exporter: Option<String>,
    /// The exporter `redis_exporter`, started by its own entry point.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub redis_exporter: Option<String>,
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
    /// How the number of pods follows the load.
    #[serde(default)]
    pub autoscaling: Autoscaling,
    /// Name of the PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// How strictly the pods are spread over zones and nodes.
    #[serde(default)]
    pub spread: Spread,
    /// HTTPS between the router and the pods, and inside the cluster. Plain HTTP when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServingTls>,
    /// Parts of a pod template (core/v1) that are merged over the operator's, as a strategic merge: lists of containers,
    /// volumes, variables, ports and mounts by their keys. The server's own container is called `api`. What the operator
    /// must set (its image, arguments, resources, ports, mounts, selector labels) is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub pod_template: Option<serde_json::Map<String, serde_json::Value>>,
    /// Configuration of the API server in Perses' own keys, merged over the operator's. Keys that the operator must own
    /// (`database`, `provisioning`, key and password files) are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_object")]
    pub config: Option<serde_json::Map<String, serde_json::Value>>,
}
