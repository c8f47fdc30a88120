//! Observed state: what the operator reports.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::database::DatabaseType;
use super::exposure::ExposureType;
use super::schema;
use super::spec::SizingModel;

/// What the operator found and did.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PersesStackStatus {
    /// metadata.generation of the spec that this status was computed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled and one condition per subsystem.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Where the service answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The API pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<ApiStatus>,
    /// The ways to sign in that need something from outside the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthStatus>,
    /// The database in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseStatus>,
    /// In-cluster addresses, `host:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<EndpointsStatus>,
    /// What exposes the service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exposure: Option<ExposureStatus>,
    /// Names of the generated Secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<SecretsStatus>,
    /// Sleep and waking; absent when the stack was never suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspension: Option<SuspensionStatus>,
    /// Every derived number and why it is what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sizing: Option<SizingStatus>,
}

/// Sleep and waking.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct SuspensionStatus {
    /// When the stack began to fall asleep; absent when it is awake.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub suspended_at: Option<Time>,
    /// When it began to wake; absent when it sleeps or is awake.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub waking_since: Option<Time>,
    /// How long the last waking took, from the wish to enough API pods that answer, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_wake_seconds: Option<i64>,
}

/// The API pods.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ApiStatus {
    /// Pods wanted now.
    pub replicas: i32,
    /// Pods that answer.
    pub ready: i32,
    /// `ready/replicas`, for people.
    pub summary: String,
}

/// What exposes the service.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExposureStatus {
    /// Kind of exposure that `Auto` stands for.
    #[serde(rename = "type")]
    pub type_: ExposureType,
}

/// The providers that the server is configured with.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthStatus {
    /// Address that providers send browsers back to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `<protocol>/<name>` of each provider.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<String>,
}

/// The database in use.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// Kind of store that `Auto` stands for.
    #[serde(rename = "type")]
    pub type_: DatabaseType,
}

/// In-cluster addresses.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointsStatus {
    /// API and user interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<String>,
    /// Pooler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooler: Option<String>,
    /// Database, read and write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Shared cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<String>,
}

/// Names of the generated Secrets.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretsStatus {
    /// User name and password of the first administrator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// Key that encrypts stored secrets. Back it up: without it they cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
}

/// Every derived number.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct SizingStatus {
    /// Model that the numbers come from.
    pub model: SizingModel,
    /// The numbers by field, for example `api.maxReplicas`.
    pub numbers: BTreeMap<String, DerivationStatus>,
}

/// One number and why.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct DerivationStatus {
    /// The number with its unit, as it is used.
    pub value: String,
    /// The formula in words and symbols.
    pub formula: String,
    /// Values of the formula's inputs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
    /// The term that decided.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub limiting_factor: String,
    /// The derived value when a field of the spec overrides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overrides: Option<String>,
}
