//! A cluster that Crunchy's operator runs.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::database::Storage;
use super::quantity::Quantity;
use super::spec::{LocalReference, Resources};

/// A highly available PostgreSQL 17, run by Crunchy's operator (PGO 5.1 or newer) as the PostgresCluster `<stack>-db`.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Crunchy {
    /// Instances, the primary included. Overrides the derived number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub replicas: Option<i32>,
    /// The volume of each instance.
    pub storage: GrowingStorage,
    /// Compute resources of each instance. Override the derived ones.
    pub resources: Resources,
    /// `max_connections`. Overrides the derived number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 20, max = 10_000))]
    pub max_connections: Option<i32>,
    /// Further settings of postgresql.conf; they win over the derived ones. What Crunchy's operator must own is refused.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// Backups by pgBackRest.
    pub backups: Backups,
    /// The metrics exporter beside each instance (pgMonitor).
    pub exporter: Exporter,
    /// Crunchy's PostgreSQL image; that of its operator when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
}

/// A volume that can grow by itself.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)").message("storageClassName cannot change: the volumes exist").field_path(".storageClassName"))]
pub struct GrowingStorage {
    /// Size of the volume. Overrides the derived size; it can grow where the storage class allows it, never shrink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
    /// Storage class; the cluster's default class when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
    /// Crunchy's operator grows the volume up to this size when it is three quarters full (its feature gate
    /// AutoGrowVolumes). Without it the volume keeps the size that is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<Quantity>,
}

/// Backups by pgBackRest: where to, when, and for how long they are kept.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.type == 'S3') == has(self.s3)").message("s3 must be set when type is S3, and only then").field_path(".s3"))]
#[x_kube(validation = Rule::new("!has(self.volume) || self.type == 'Volume'").message("volume can be set only when type is Volume").field_path(".volume"))]
pub struct Backups {
    /// Where backups go. To turn off those that exist, annotate the stack with
    /// `persesstack.io/confirm-backup-removal: <stack>-db`.
    #[serde(default, rename = "type")]
    pub type_: BackupType,
    /// The volume of type Volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Storage>,
    /// The bucket of type S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3>,
    /// When backups are made.
    #[serde(default)]
    pub schedules: Schedules,
    /// How many days back the data can be restored: full backups and what builds on them are kept that long.
    #[serde(default = "retention_days")]
    #[schemars(range(min = 1, max = 3650))]
    pub retention_days: i32,
}

/// Two weekly full backups.
fn retention_days() -> i32 {
    14
}

impl Default for Backups {
    fn default() -> Self {
        Self {
            type_: BackupType::default(),
            volume: None,
            s3: None,
            schedules: Schedules::default(),
            retention_days: retention_days(),
        }
    }
}

/// Where backups go.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum BackupType {
    /// A volume beside the cluster.
    #[default]
    Volume,
    /// A bucket with the S3 protocol.
    S3,
    /// No backups: what is deleted or damaged is lost.
    None,
}

/// A bucket with the S3 protocol.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct S3 {
    /// Bucket.
    #[schemars(length(min = 1, max = 255))]
    pub bucket: String,
    /// Host of the service.
    #[schemars(length(min = 1, max = 253))]
    pub endpoint: String,
    /// Region.
    #[schemars(length(min = 1, max = 63))]
    pub region: String,
    /// Secret with a pgBackRest configuration file that holds repo1-s3-key and repo1-s3-key-secret.
    pub secret_ref: LocalReference,
}

/// When backups are made, in the notation of cron.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Schedules {
    /// Full backups.
    #[schemars(length(min = 6, max = 64))]
    pub full: String,
    /// Differential backups: what changed since the last full one.
    #[schemars(length(min = 6, max = 64))]
    pub differential: String,
}

impl Default for Schedules {
    fn default() -> Self {
        Self { full: "0 1 * * 0".to_owned(), differential: "0 1 * * 1-6".to_owned() }
    }
}

/// Whether the metrics exporter runs.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum Exporter {
    /// It runs.
    #[default]
    Enabled,
    /// It does not.
    Disabled,
}
