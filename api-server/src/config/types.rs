//! The shape of the configuration file, with its defaults. Durations are Prometheus strings, sizes are bytes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::security::Security;
use super::values::{ConfigDuration, Hidden};

/// The whole configuration.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
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
    /// Listener and limits.
    pub server: Server,
    /// Folders whose resources are applied at start and regularly.
    pub provisioning: Provisioning,
    /// Extra plugins on disk.
    pub plugin: Plugin,
    /// Outgoing datasource requests.
    pub datasource: Datasource,
    /// What the UI shows.
    pub frontend: Frontend,
}

/// `database`: one of the two; files when neither is given.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// Files in upstream's layout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileDatabase>,
    /// PostgreSQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<Postgres>,
}

/// `database.file`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileDatabase {
    /// The folder.
    pub folder: PathBuf,
    /// How new documents are written; both are read.
    pub extension: FileExtension,
    /// Whether names keep their letter case.
    pub case_sensitive: bool,
}

impl Default for FileDatabase {
    fn default() -> Self {
        Self { folder: PathBuf::from("./local_db"), extension: FileExtension::default(), case_sensitive: false }
    }
}

/// `database.file.extension`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileExtension {
    /// JSON.
    Json,
    /// YAML, upstream's default.
    #[default]
    Yaml,
}

/// `database.postgres`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Postgres {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database.
    pub dbname: String,
    /// User; or `user_file`.
    pub user: Option<String>,
    /// File with the user.
    pub user_file: Option<PathBuf>,
    /// Password; prefer `password_file`. Never printed.
    #[serde(skip_serializing)]
    pub password: Option<Hidden>,
    /// File with the password; read again when it changes.
    pub password_file: Option<PathBuf>,
    /// TLS, in the words of libpq.
    pub sslmode: SslMode,
    /// CA certificates for `verify-ca` and `verify-full`.
    pub ca_file: Option<PathBuf>,
    /// Connections of this process, at most.
    pub max_connections: u32,
    /// How long a request waits for a connection.
    pub acquire_timeout: ConfigDuration,
    /// Prepared statements that a connection keeps by name. 0 behind a pooler that loses them (PgBouncer before 1.21, or
    /// with `max_prepared_statements = 0`); reads take more round trips then.
    pub statement_cache: usize,
    /// PostgreSQL's `statement_timeout` for our statements.
    pub statement_timeout: ConfigDuration,
    /// Whether names keep their letter case.
    pub case_sensitive: bool,
    /// The primary itself, past any pooler: for `migrate` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct: Option<Address>,
}

impl Default for Postgres {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 5432,
            dbname: "perses".to_owned(),
            user: None,
            user_file: None,
            password: None,
            password_file: None,
            sslmode: SslMode::default(),
            ca_file: None,
            max_connections: 10,
            acquire_timeout: ConfigDuration::from_secs(3),
            statement_cache: 100,
            statement_timeout: ConfigDuration::from_secs(10),
            case_sensitive: false,
            direct: None,
        }
    }
}

/// Host and port.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS when the server offers it.
    #[default]
    Prefer,
    /// TLS, any certificate.
    Require,
    /// TLS, certificate of the CA.
    VerifyCa,
    /// TLS, certificate of the CA for this host.
    VerifyFull,
}

/// `cache`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Bytes that the caches in this process may hold, documents and query results together.
    pub l1_max_bytes: u64,
    /// Redis as second tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
    /// Life of a document in Redis (seed section 1: 5 minutes).
    pub dashboard_ttl: ConfigDuration,
}

impl Default for Cache {
    fn default() -> Self {
        Self { l1_max_bytes: 128 << 20, redis: None, dashboard_ttl: ConfigDuration::from_secs(300) }
    }
}

/// `cache.redis`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `host:port`.
    pub addr: String,
    /// ACL user.
    pub username: Option<String>,
    /// Password; prefer `password_file`. Never printed.
    #[serde(skip_serializing)]
    pub password: Option<Hidden>,
    /// File with the password; read again when it changes.
    pub password_file: Option<PathBuf>,
}

/// `query`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// Deadline of a request to a datasource.
    pub timeout: ConfigDuration,
    /// Whether answers of Prometheus `query` and `query_range` are cached.
    pub cache: bool,
    /// Lives of cached answers.
    pub ttl: QueryTtl,
    /// Answers above this many bytes are passed through and not kept.
    pub max_cached_bytes: u64,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            timeout: ConfigDuration::from_secs(60),
            cache: true,
            ttl: QueryTtl::default(),
            max_cached_bytes: 8 << 20,
        }
    }
}

/// `query.ttl`: the table of seed section 4.1, by the age of the newest asked instant.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueryTtl {
    /// Newest instant under 5 minutes old.
    pub realtime: ConfigDuration,
    /// Under one hour.
    pub recent: ConfigDuration,
    /// Older.
    pub historical: ConfigDuration,
}

impl Default for QueryTtl {
    fn default() -> Self {
        Self {
            realtime: ConfigDuration::from_secs(30),
            recent: ConfigDuration::from_secs(300),
            historical: ConfigDuration::from_secs(900),
        }
    }
}

/// `server`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// How long the server goes on accepting after it was told to stop (and is unready), so that balancers notice.
    pub drain_delay: ConfigDuration,
    /// How long requests in flight may take after that.
    pub drain_timeout: ConfigDuration,
    /// Largest request body in bytes.
    pub max_body_bytes: u64,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            drain_delay: ConfigDuration::from_secs(0),
            drain_timeout: ConfigDuration::from_secs(30),
            max_body_bytes: 4 << 20,
        }
    }
}

/// `provisioning`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provisioning {
    /// Folders with JSON or YAML documents (objects or lists).
    pub folders: Vec<PathBuf>,
    /// How often they are applied; a changed file is noticed sooner.
    pub interval: ConfigDuration,
}

impl Default for Provisioning {
    fn default() -> Self {
        Self { folders: Vec::new(), interval: ConfigDuration::from_secs(3600) }
    }
}

/// `plugin`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plugin {
    /// Folder with one plugin module per sub-folder, beside those in the binary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// `datasource`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Datasource {
    /// Global datasources.
    pub global: Switch,
    /// Datasources of projects.
    pub project: Switch,
    /// Datasources inside dashboards.
    pub disable_local: bool,
    /// Folders whose files secrets that clients wrote may name (`passwordFile`, ...). Provisioned secrets may name any file.
    pub secret_file_folders: Vec<PathBuf>,
}

/// A part of the API that can be turned off.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Switch {
    /// Whether it is off.
    pub disable: bool,
}

/// `frontend`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Frontend {
    /// No UI is served.
    pub disable: bool,
    /// Explore page.
    pub explorer: Explorer,
    /// A text (Markdown) for the home page.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub information: String,
}

/// `frontend.explorer`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Explorer {
    /// Whether it is offered.
    pub enable: bool,
}

impl Default for Explorer {
    fn default() -> Self {
        Self { enable: true }
    }
}
