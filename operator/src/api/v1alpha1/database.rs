//! Where dashboards are stored.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::crunchy::Crunchy;
use super::quantity::Quantity;
use super::spec::{LocalReference, Resources};

/// Where dashboards are stored: `type` and, for some types, the member of that name.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.type == 'External') == has(self.external)").message("external must be set when type is External, and only then").field_path(".external"))]
#[x_kube(validation = Rule::new("!has(self.standalone) || self.type == 'Standalone' || self.type == 'Auto'").message("standalone can be set only when type is Standalone or Auto").field_path(".standalone"))]
#[x_kube(validation = Rule::new("!has(self.crunchy) || self.type == 'Crunchy' || self.type == 'Auto'").message("crunchy can be set only when type is Crunchy or Auto").field_path(".crunchy"))]
pub struct Database {
    /// Kind of store. `Auto`: what already holds this stack's data, else Crunchy where its operator is installed, else
    /// Standalone up to 50 users; with more the stack waits for a decision. It never changes by itself later. To change it
    /// under a stack that has data, annotate the stack with `persesstack.io/confirm-database-change: <new type>`.
    #[serde(default, rename = "type")]
    pub type_: DatabaseType,
    /// What happens to the data, its credentials and the encryption key when the stack is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// A highly available cluster, run by Crunchy's operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crunchy: Option<Crunchy>,
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
    /// A cluster with replicas and backups, run by Crunchy's operator (PGO).
    Crunchy,
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

impl DatabaseType {
    /// The word in the spec.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "Auto",
            Self::Crunchy => "Crunchy",
            Self::External => "External",
            Self::Standalone => "Standalone",
        }
    }
}

/// A PostgreSQL server that somebody else runs.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.sslMode) || !self.sslMode.startsWith('verify') || has(self.ca)").message("sslMode verify-ca and verify-full need ca").field_path(".ca"))]
pub struct External {
    /// Secret with user and password and, unless they are given here, host, port and database name.
    pub secret_ref: LocalReference,
    /// Names of the keys in that Secret.
    #[serde(default)]
    pub keys: DatabaseKeys,
    /// Host of the primary. Wins over the Secret's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// Port of the primary. Wins over the Secret's; 5432 when neither says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<i32>,
    /// Database name. Wins over the Secret's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub dbname: Option<String>,
    /// Streaming replicas of the same database, for lists and search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Direct>,
    /// Certificates of the authority that signed the server's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<SecretKey>,
    /// `max_connections` of the server, for the connection budget. Without it the budget is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 100_000))]
    pub max_connections: Option<i32>,
    /// How the connection to the server is protected. Default: verify-full with a ca, else prefer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_mode: Option<SslMode>,
    /// Where `migrate` connects when the host is a pooler: the primary itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<Direct>,
}

/// A key of a Secret in the stack's namespace.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretKey {
    /// The Secret.
    pub secret_ref: LocalReference,
    /// The key; the value is PEM.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".to_owned()
}

/// Keys of the credentials Secret. One that is named must be there. Of those that are not named the first one that the
/// Secret has is taken: this fits Crunchy's `<cluster>-pguser-<user>`, CloudNativePG's `<cluster>-app`, and the fields of
/// credentials in AWS Secrets Manager.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct DatabaseKeys {
    /// Key of the host name. Default: host.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub host: Option<String>,
    /// Key of the port. Default: port; 5432 when the Secret does not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub port: Option<String>,
    /// Key of the database name. Default: dbname, then database.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub dbname: Option<String>,
    /// Key of the user name. Default: user, then username.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub user: Option<String>,
    /// Key of the password. Default: password.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub password: Option<String>,
}

/// libpq's `sslmode`.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS when the server offers it.
    Prefer,
    /// TLS or nothing; the certificate is not checked.
    Require,
    /// The certificate must come from the authority in `ca`.
    VerifyCa,
    /// It must also be one for the host.
    VerifyFull,
}

impl SslMode {
    /// The word that libpq and PgBouncer use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
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
