//! Datasources that every project can query.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spec::LocalReference;

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
