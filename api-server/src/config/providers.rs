//! `security.authentication.providers`: ways to sign in.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{ConfigDuration, Hidden};

/// `security.authentication.providers`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Providers {
    /// Users with a password in this server.
    pub enable_native: bool,
    /// Bearer tokens that the cluster's API server knows; excludes every other way.
    pub kubernetes: KubernetesProvider,
    /// OpenID Connect.
    pub oidc: Vec<OidcProvider>,
    /// OAuth 2.0 without OpenID Connect.
    pub oauth: Vec<OauthProvider>,
}

/// `security.authentication.providers.kubernetes`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesProvider {
    /// Whether it is on; `security.authorization.provider.kubernetes` must be on with it.
    pub enable: bool,
}

/// What OIDC and OAuth providers share.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
pub struct Client {
    /// Name in paths: `/api/auth/providers/oidc/<slug_id>/login`.
    pub slug_id: String,
    /// Name on the sign-in page.
    pub name: String,
    /// Client at the provider. Never printed.
    #[serde(skip_serializing)]
    pub client_id: Hidden,
    /// Its secret; prefer `client_secret_file`. Never printed.
    #[serde(default, skip_serializing)]
    pub client_secret: Option<Hidden>,
    /// File with the secret; read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret_file: Option<PathBuf>,
    /// Another client for the device code flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_code: Option<ClientOverride>,
    /// Another client for the client credentials flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_credentials: Option<ClientOverride>,
    /// Where the provider sends the browser back to; made from the request when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub redirect_uri: String,
    /// Scopes to ask for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Claim (or member of the user's information) with the groups; `a.b` is `b` inside `a`. `groups` when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub groups_claim: String,
    /// Requests to the provider.
    #[serde(default)]
    pub http: ProviderHttp,
}

/// Client, secret and scopes of one flow; what is absent is that of the provider.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientOverride {
    /// Client at the provider. Never printed.
    #[serde(skip_serializing)]
    pub client_id: Option<Hidden>,
    /// Its secret. Never printed.
    #[serde(skip_serializing)]
    pub client_secret: Option<Hidden>,
    /// File with the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret_file: Option<PathBuf>,
    /// Scopes to ask for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// `http` of a provider.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderHttp {
    /// Deadline of a request.
    pub timeout: ConfigDuration,
    /// TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_config: Option<ProviderTls>,
}

impl Default for ProviderHttp {
    fn default() -> Self {
        Self { timeout: ConfigDuration::from_secs(60), tls_config: None }
    }
}

/// `http.tls_config` of a provider.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderTls {
    /// CA certificates (PEM) to trust.
    #[serde(alias = "caFile", skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate (PEM).
    #[serde(alias = "certFile", skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// Its key (PEM).
    #[serde(alias = "keyFile", skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Any certificate is taken.
    #[serde(alias = "insecureSkipVerify")]
    pub insecure_skip_verify: bool,
}

/// One of `security.authentication.providers.oidc`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
pub struct OidcProvider {
    /// The client.
    #[serde(flatten)]
    pub client: Client,
    /// Issuer; its discovery document is below it.
    pub issuer: String,
    /// Where the discovery document is, when it is not below the issuer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub discovery_url: String,
    /// Further parameters of the authorization request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub url_params: BTreeMap<String, String>,
    /// For providers that refuse PKCE.
    #[serde(default)]
    pub disable_pkce: bool,
    /// Sign-out at the provider.
    #[serde(default)]
    pub logout: OidcLogout,
}

/// `logout` of an OIDC provider.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OidcLogout {
    /// Signing out here signs out there too.
    pub enabled: bool,
    /// Name of the parameter with the address to come back to; `post_logout_redirect_uri` when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub logout_redirect_param_name: String,
}

/// One of `security.authentication.providers.oauth`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
pub struct OauthProvider {
    /// The client.
    #[serde(flatten)]
    pub client: Client,
    /// Authorization endpoint.
    pub auth_url: String,
    /// Token endpoint.
    pub token_url: String,
    /// Endpoint that answers who the user is.
    pub user_infos_url: String,
    /// Endpoint of the device code flow.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device_auth_url: String,
    /// Member of the user's information that is the login, `a.b` is `b` inside `a`; `login`, else `username` when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub custom_login_property: String,
}
