//! `database`: where documents live.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{ConfigDuration, Hidden};

/// `database`: one of the two; files when neither is given.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// Files in upstream's layout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<FileDatabase>,
    /// PostgreSQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<Postgres>,
    /// Upstream's MySQL, which is no store of this server: refused with what to do.
    #[serde(skip_serializing)]
    pub sql: Option<serde_json::Value>,
}

/// `database.file`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileExtension {
    /// JSON.
    Json,
    /// YAML, upstream's default.
    #[default]
    Yaml,
}

/// `database.postgres`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
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
    /// A connection is closed and made anew after this long, when no statement runs on it. Behind a pooler whose pods come
    /// and go, this plus `statement_timeout` must be below the time that such a pod is given to end.
    pub max_lifetime: ConfigDuration,
    /// Operations that take longer are logged, by name and without values (target `slow_query`); 0 logs none.
    pub slow_query_threshold: ConfigDuration,
    /// Whether names keep their letter case.
    pub case_sensitive: bool,
    /// The primary itself, past any pooler: for `migrate` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct: Option<Address>,
    /// A streaming replica of the same database, for lists and search; read while it shows all that this process knows of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<Replica>,
    /// A replica that is further behind than this is not read, nor is one while the primary was not seen for so long.
    pub max_replica_lag: ConfigDuration,
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
            // Load spreads over poolers that came later.
            max_lifetime: ConfigDuration::from_secs(30 * 60),
            slow_query_threshold: ConfigDuration(std::time::Duration::from_millis(500)),
            case_sensitive: false,
            direct: None,
            replica: None,
            max_replica_lag: ConfigDuration::from_secs(5),
        }
    }
}

/// A streaming replica.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replica {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database, when a pooler gives the replica's copy under a name of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dbname: Option<String>,
}

/// Host and port.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
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
