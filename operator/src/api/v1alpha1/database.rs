//! Where dashboards are stored.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quantity::Quantity;
use super::spec::{LocalReference, Resources};

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
