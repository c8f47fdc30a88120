//! Datasources that every project can query.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spec::LocalReference;

/// A Prometheus-compatible server, provisioned as a global datasource.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type == 'OpenShift' || has(self.url)").message("url is required when type is Prometheus").field_path(".url"))]
#[x_kube(validation = Rule::new("self.type != 'OpenShift' || !(has(self.auth) || has(self.tls))").message("type is OpenShift: the ServiceAccount's token and the service CA are used, so auth and tls cannot be set"))]
#[x_kube(validation = Rule::new("!has(self.tls) || !has(self.url) || self.url.startsWith('https://')").message("tls is set, but the url does not start with https://").field_path(".tls"))]
pub struct Datasource {
    /// Name of the global datasource.
    #[schemars(length(min = 1, max = 75), regex(pattern = r"^[a-zA-Z0-9_.-]+$"))]
    pub name: String,
    /// Which server this is.
    #[serde(default, rename = "type")]
    pub type_: DatasourceType,
    /// Base URL, `http` or `https`, as reached from the API pods. Default for OpenShift: its thanos-querier, with the metrics
    /// of the platform and of user workloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s/?#]+[^\s?#]*$"))]
    pub url: Option<String>,
    /// Whether queries that name no datasource go here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// How the API server signs in there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<DatasourceAuth>,
    /// How its certificate is checked, and which one the API server shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<DatasourceTls>,
    /// Headers that are sent along, for example the tenant. Not for credentials: those are in auth.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Scrape interval of the server: the smallest useful step of a query (Prometheus duration).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 16), regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"))]
    pub scrape_interval: Option<String>,
    /// Requests that may pass; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allowed_endpoints: Vec<Access>,
}

/// Kinds of Prometheus-compatible servers.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum DatasourceType {
    /// Any Prometheus-compatible server.
    #[default]
    Prometheus,
    /// The monitoring of the OpenShift cluster that the stack runs in, read with the right `cluster-monitoring-view`.
    OpenShift,
}

/// TLS towards a datasource.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.insecureSkipVerify) || !self.insecureSkipVerify || !(has(self.ca) || has(self.serverName))").message("insecureSkipVerify takes any certificate: remove it, or ca and serverName"))]
pub struct DatasourceTls {
    /// Authority that signed the server's certificate (PEM); the system's authorities when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PemSource>,
    /// Certificate that the API server shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
    /// Name that the server's certificate must have, when it is not the host of the url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
    /// Whether any certificate is taken: then whoever is in between reads queries, answers and credentials.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure_skip_verify: bool,
}

/// Certificates (PEM) in a Secret or a ConfigMap: one of the members.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secret) != has(self.configMap)").message("set exactly one of secret and configMap"))]
pub struct PemSource {
    /// Key of a Secret in the stack's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<KeyReference>,
    /// Key of a ConfigMap in the stack's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<KeyReference>,
}

/// One key of a Secret or ConfigMap.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct KeyReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A certificate and its key (PEM) in a Secret, by default as in Secrets of type `kubernetes.io/tls`.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificate {
    /// The Secret, in the stack's namespace.
    pub secret_ref: LocalReference,
    /// Key of the certificate.
    #[serde(default = "tls_certificate_key")]
    pub certificate_key: String,
    /// Key of the private key.
    #[serde(default = "tls_private_key")]
    pub private_key_key: String,
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

fn ca_key() -> String {
    "ca.crt".to_owned()
}

fn tls_certificate_key() -> String {
    "tls.crt".to_owned()
}

fn tls_private_key() -> String {
    "tls.key".to_owned()
}
