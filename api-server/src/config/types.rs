//! The shape of the configuration file, with its defaults. Durations are Prometheus strings, sizes are bytes.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::database::Database;
use super::frontend::Frontend;
use super::query::Query;
use super::security::Security;
use super::validation::Validation;
use super::values::{ConfigDuration, Hidden, Network};
use crate::domain::kind::Kind;

/// The whole configuration.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Path prefix of every route, for example `/perses`; empty for none.
    pub api_prefix: String,
    /// Sign-in, keys, cookies.
    pub security: Security,
    /// Where documents live.
    pub database: Database,
    /// Caches of documents and query results.
    pub cache: Cache,
    /// The Prometheus query path.
    pub query: Query,
    /// Who did what.
    pub audit: Audit,
    /// Listener and limits.
    pub server: Server,
    /// Folders whose resources are applied at start and regularly.
    pub provisioning: Provisioning,
    /// Extra plugins on disk.
    pub plugin: Plugin,
    /// Outgoing datasource requests.
    pub datasource: Datasource,
    /// Variables outside dashboards.
    pub variable: Variable,
    /// Rules for dashboards.
    pub dashboard: Dashboard,
    /// Checks of documents beyond what Perses itself refuses.
    pub validation: Validation,
    /// File with limits that is read again while the server runs (YAML): `validation` and
    /// `security.authentication.rate_limit`, as they are here, over which it wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits_file: Option<PathBuf>,
    /// Dashboards with a time to live.
    pub ephemeral_dashboard: EphemeralDashboard,
    /// What the UI shows.
    pub frontend: Frontend,
    /// Accepted for upstream's sake (Perses after v0.54): search asks the store.
    #[serde(skip_serializing)]
    pub search: Option<serde_json::Value>,
    /// Deprecated upstream and without effect: schemas come with the plugins.
    #[serde(skip_serializing)]
    pub schemas: Option<serde_json::Value>,
    /// Deprecated place of `ephemeral_dashboard.cleanup_interval`.
    #[serde(skip_serializing)]
    pub ephemeral_dashboards_cleanup_interval: Option<ConfigDuration>,
}

impl Config {
    /// Whether the API has this kind, by the switches of upstream.
    pub fn serves(&self, kind: Kind) -> bool {
        let (datasource, variable) = (&self.datasource, &self.variable);
        match kind {
            Kind::Datasource => !datasource.project.disable,
            Kind::GlobalDatasource => !datasource.global.disable,
            // Variables go with the datasources that they would ask.
            Kind::GlobalVariable => !variable.global.disable && !datasource.global.disable,
            Kind::Variable => !(variable.project.disable || datasource.global.disable && datasource.project.disable),
            Kind::EphemeralDashboard => self.ephemeral_dashboard.enable,
            kind if kind.is_authorization() => self.native_authorization(),
            _ => true,
        }
    }

    /// Whether the roles of this server decide who may do what.
    pub fn native_authorization(&self) -> bool {
        let provider = &self.security.authorization.provider;
        self.security.enable_auth && provider.native.enable.unwrap_or(true) && !provider.kubernetes.enable
    }
}

/// `cache`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Bytes that the caches in this process may hold, documents and query results together.
    pub l1_max_bytes: u64,
    /// Redis as second tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
    /// Life of a document in Redis.
    pub dashboard_ttl: ConfigDuration,
    /// Life in Redis of what a cluster said about a user and a namespace; an answer there also ends when it would end in a
    /// process (`security.authorization.provider.kubernetes.authorizer_*_ttl`). 0 shares none.
    pub authz_ttl: ConfigDuration,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            l1_max_bytes: 128 << 20,
            redis: None,
            dashboard_ttl: ConfigDuration::from_secs(300),
            authz_ttl: ConfigDuration::from_secs(120),
        }
    }
}

/// `cache.redis`: a server, sentinels that know it, or servers of a cluster.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `host:port` of a server.
    pub addr: String,
    /// Sentinels, in place of `addr`: they are asked for the primary at every connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel: Option<RedisSentinel>,
    /// A Redis Cluster, in place of `addr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<RedisCluster>,
    /// TLS to the servers, and to the sentinels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTls>,
    /// ACL user.
    pub username: Option<String>,
    /// Password; prefer `password_file`. Never printed.
    #[serde(skip_serializing)]
    pub password: Option<Hidden>,
    /// File with the password; read again when it changes.
    pub password_file: Option<PathBuf>,
}

/// `cache.redis.sentinel`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSentinel {
    /// `host:port` of each.
    pub addrs: Vec<String>,
    /// Name under which they know the primary.
    pub master_name: String,
    /// ACL user at the sentinels.
    pub username: Option<String>,
    /// File with the password at the sentinels; read again when it changes.
    pub password_file: Option<PathBuf>,
}

/// `cache.redis.cluster`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisCluster {
    /// `host:port` of some of its servers, which name the others.
    pub addrs: Vec<String>,
}

/// `cache.redis.tls`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisTls {
    /// CA certificates; the system's when absent. Read again at every connection.
    pub ca_file: Option<PathBuf>,
}

/// `audit`: a record of every write and every sign-in.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// Whether records are kept. With PostgreSQL in a table; with files the newest 10,000 in memory, until a restart.
    pub enable: bool,
    /// How long records stay in the table.
    pub retention: ConfigDuration,
    /// Whether each record is also a line of the log (target `audit`).
    pub log: bool,
}

impl Default for Audit {
    fn default() -> Self {
        Self { enable: true, retention: ConfigDuration::from_secs(90 * 24 * 3600), log: true }
    }
}

/// `server`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// How long the server goes on accepting after it was told to stop (and is unready), so that balancers notice.
    pub drain_delay: ConfigDuration,
    /// How long requests in flight may take after that.
    pub drain_timeout: ConfigDuration,
    /// Largest request body in bytes.
    pub max_body_bytes: u64,
    /// Largest head of a request (request line and headers) in bytes; more gets 431.
    pub max_header_bytes: u32,
    /// How long a client may take to send the head of a request, the TLS handshake included; also how long a kept HTTP/1
    /// connection may be idle.
    pub header_timeout: ConfigDuration,
    /// How long a client may take to send the next 16 KiB of a request body (or its end).
    pub body_timeout: ConfigDuration,
    /// Most connections at a time; further ones wait to be accepted. Without a limit when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Path of the metrics beside `/metrics` (upstream's flag `-web.telemetry-path`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry_path: Option<String>,
    /// HTTPS instead of HTTP (upstream's flags `-web.tls-*`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// Addresses and networks (CIDR) of proxies in front: what they say in `X-Forwarded-For` is believed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<String>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            drain_delay: ConfigDuration::from_secs(0),
            drain_timeout: ConfigDuration::from_secs(30),
            max_body_bytes: 4 << 20,
            max_header_bytes: 64 << 10,
            header_timeout: ConfigDuration::from_secs(30),
            body_timeout: ConfigDuration::from_secs(30),
            max_connections: None,
            telemetry_path: None,
            tls: None,
            trusted_proxies: Vec::new(),
        }
    }
}

/// `server.tls`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ServerTls {
    /// Certificate chain (PEM); read again when it changes.
    pub cert_file: PathBuf,
    /// Its key (PEM).
    pub key_file: PathBuf,
    /// Lowest version: `TLS12` (the default) or `TLS13`, also in Go's spelling `VersionTLS12`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_version: Option<String>,
    /// Highest version; `TLS13` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_version: Option<String>,
    /// Cipher suites of TLS 1.2 by their names in Go (`TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`); all that are good when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cipher_suites: Vec<String>,
}

/// `provisioning`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Provisioning {
    /// Folders with JSON or YAML documents (objects or lists).
    pub folders: Vec<PathBuf>,
    /// How often they are applied; a changed file is noticed sooner.
    pub interval: ConfigDuration,
    /// Whether documents that left the folders are deleted; a project only when it is empty. Else they are reported.
    pub prune: bool,
    /// Accepted for upstream's sake (Perses after v0.54): files are always watched.
    #[serde(skip_serializing)]
    pub enable_watch: bool,
}

impl Default for Provisioning {
    fn default() -> Self {
        Self { folders: Vec::new(), interval: ConfigDuration::from_secs(3600), prune: false, enable_watch: true }
    }
}

/// `plugin`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Plugin {
    /// Folder with one plugin module per sub-folder, beside those in the binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Folders with plugin archives, which upstream unpacks at start. Accepted; put unpacked modules into `path`.
    #[serde(alias = "archive_path", deserialize_with = "one_or_many", skip_serializing)]
    pub archive_paths: Vec<PathBuf>,
    /// Upstream's development mode. Its endpoints answer 501 here.
    pub enable_dev: bool,
    /// Only these plugin modules are loaded; all when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enabled: Vec<String>,
    /// These plugin modules are not loaded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disabled: Vec<String>,
}

/// The deprecated `archive_path` is one folder.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(PathBuf),
        Many(Vec<PathBuf>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(path) => vec![path],
        OneOrMany::Many(paths) => paths,
    })
}

/// `datasource`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Datasource {
    /// Global datasources.
    pub global: GlobalDatasources,
    /// Datasources of projects.
    pub project: Switch,
    /// Datasources inside dashboards.
    pub disable_local: bool,
    /// Datasources that the browser calls itself (`directUrl`), past every protection of this server: refused.
    pub disable_direct_url: bool,
    /// Folders whose files secrets that clients wrote may name (`passwordFile`, ...). Provisioned secrets may name any file,
    /// and so may those that somebody put into the folder of the file store.
    pub secret_file_folders: Vec<PathBuf>,
    /// How long a datasource may take to start its answer, counted from the last piece of the request's body; Prometheus
    /// queries have `query.timeout`.
    pub header_timeout: ConfigDuration,
    /// How long an answer of a datasource may stand still; Prometheus queries have `query.timeout`.
    pub idle_timeout: ConfigDuration,
    /// Networks that no datasource and no token endpoint may be in, checked on the resolved address.
    pub deny_networks: Vec<Network>,
    /// Adds loopback, link-local, private and metadata addresses to `deny_networks`.
    pub deny_internal: bool,
}

impl Default for Datasource {
    fn default() -> Self {
        Self {
            global: GlobalDatasources::default(),
            project: Switch::default(),
            disable_local: false,
            disable_direct_url: false,
            secret_file_folders: Vec::new(),
            header_timeout: ConfigDuration::from_secs(60),
            idle_timeout: ConfigDuration::from_secs(60),
            deny_networks: Vec::new(),
            deny_internal: false,
        }
    }
}

/// A part of the API that can be turned off.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Switch {
    /// Whether it is off.
    pub disable: bool,
}

/// `datasource.global`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GlobalDatasources {
    /// Whether they are off.
    pub disable: bool,
    /// Upstream's discovery of datasources, which this server does not have: refused when not empty.
    #[serde(skip_serializing)]
    pub discovery: Vec<serde_json::Value>,
}

/// `variable`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Variable {
    /// Global variables.
    pub global: Switch,
    /// Variables of projects.
    pub project: Switch,
    /// Variables inside dashboards.
    pub disable_local: bool,
}

/// `dashboard`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dashboard {
    /// Rules that every dashboard is checked against.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub custom_lint_rules: Vec<LintRule>,
}

/// One of `dashboard.custom_lint_rules`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LintRule {
    /// Name in messages.
    pub name: String,
    /// `JSONPath` of what is looked at.
    pub target: String,
    /// CEL over `value`; true when all is well.
    pub assertion: String,
    /// What to tell who breaks it.
    #[serde(default)]
    pub message: String,
    /// Whether the rule is off.
    #[serde(default)]
    pub disable: bool,
}

/// `ephemeral_dashboard`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EphemeralDashboard {
    /// Whether the kind is served.
    pub enable: bool,
    /// How often those whose time is over are deleted.
    pub cleanup_interval: ConfigDuration,
}

impl Default for EphemeralDashboard {
    fn default() -> Self {
        Self { enable: false, cleanup_interval: ConfigDuration::from_secs(24 * 3600) }
    }
}
