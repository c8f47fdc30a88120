//! `security`: sign-in, keys, cookies.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::providers::Providers;
use super::values::{ConfigDuration, Hidden};

/// `security`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// No resource can be written through the API.
    pub readonly: bool,
    /// Sign-in cookies.
    pub cookie: Cookie,
    /// 32 bytes; prefer `encryption_key_file`. Never printed.
    #[serde(skip_serializing)]
    pub encryption_key: Option<Hidden>,
    /// File with the 32 bytes.
    pub encryption_key_file: Option<PathBuf>,
    /// Files with the keys before the current one, newest first: they read what was written with them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub previous_encryption_key_files: Vec<PathBuf>,
    /// Whether requests need a sign-in.
    pub enable_auth: bool,
    /// Tokens and providers.
    pub authentication: Authentication,
    /// Who may do what.
    pub authorization: Authorization,
    /// Other sites that may call the API from a browser.
    pub cors: Cors,
}

/// `security.cookie`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cookie {
    /// `SameSite` of the sign-in cookies.
    pub same_site: SameSite,
    /// `Secure` of the sign-in cookies.
    pub secure: bool,
}

/// `security.cookie.same_site`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Sent with top-level navigation.
    #[default]
    Lax,
    /// Sent from the same site only.
    Strict,
    /// Always sent; needs `secure`.
    None,
}

/// `security.authentication`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Authentication {
    /// Life of an access token.
    pub access_token_ttl: ConfigDuration,
    /// Life of a refresh token.
    pub refresh_token_ttl: ConfigDuration,
    /// Whether `POST /api/v1/users` is closed.
    pub disable_sign_up: bool,
    /// Ways to sign in.
    pub providers: Providers,
    /// How many failed sign-ins are taken.
    pub rate_limit: SignInRate,
    /// The first user, created when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_admin: Option<InitialAdmin>,
}

impl Default for Authentication {
    fn default() -> Self {
        Self {
            access_token_ttl: ConfigDuration::from_secs(15 * 60),
            refresh_token_ttl: ConfigDuration::from_secs(24 * 3600),
            disable_sign_up: false,
            providers: Providers::default(),
            rate_limit: SignInRate::default(),
            initial_admin: None,
        }
    }
}

/// `security.authentication.rate_limit`: failed sign-ins per minute in one process; beyond them the answer is 429. Sign-ins
/// that succeed do not count.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SignInRate {
    /// From one client address (an IPv6 client is its /64 network); 0 is no limit.
    pub per_address: u32,
    /// For one login or client id; 0 is no limit.
    pub per_login: u32,
}

impl Default for SignInRate {
    fn default() -> Self {
        // Many people may share an address, so it has more room.
        Self { per_address: 60, per_login: 10 }
    }
}

/// `security.authentication.initial_admin`: files with the first user's name and password.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InitialAdmin {
    /// File with the name.
    pub username_file: PathBuf,
    /// File with the password.
    pub password_file: PathBuf,
    /// Files with passwords that count as well, as long as the stored one is one of these or that of `password_file`: while
    /// the password is being changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_password_files: Vec<PathBuf>,
}

/// `security.authorization`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Authorization {
    /// Who decides.
    pub provider: AuthorizationProvider,
    /// Old place of `provider.native.check_latest_update_interval`.
    #[serde(skip_serializing)]
    pub check_latest_update_interval: Option<ConfigDuration>,
    /// Old place of `provider.native.guest_permissions`.
    #[serde(skip_serializing)]
    pub guest_permissions: Vec<Permission>,
}

/// `security.authorization.provider`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthorizationProvider {
    /// Roles and bindings of this server.
    pub native: NativeAuthorization,
    /// Access reviews of the cluster.
    pub kubernetes: KubernetesAuthorization,
}

/// `security.authorization.provider.native`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NativeAuthorization {
    /// Whether roles count. When absent they do as soon as sign-in is on and Kubernetes does not decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable: Option<bool>,
    /// Accepted for upstream's sake: rights follow the changes tail, within a second.
    #[serde(skip_serializing)]
    pub check_latest_update_interval: Option<ConfigDuration>,
    /// What every signed-in user may do in every project.
    pub guest_permissions: Vec<Permission>,
    /// Roles that a sign-in at an OIDC or OAuth provider brings along.
    #[serde(skip_serializing)]
    pub role_mappings: Vec<RoleMapping>,
}

/// One of `role_mappings`: who has the group, or the claim with the value, has the role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RoleMapping {
    /// A group of the user at the provider.
    pub group: Option<String>,
    /// Or the name of another claim; a dot leads into an object.
    pub claim: Option<String>,
    /// What that claim is, or holds.
    pub value: Option<String>,
    /// `GlobalRole`, or `Role` of the project.
    pub role: String,
    /// Project of the role; none for a global one.
    pub project: Option<String>,
}

/// What may be done to which kinds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// `read`, `create`, `update`, `delete` or `*`.
    pub actions: Vec<String>,
    /// Kinds, or `*`.
    pub scopes: Vec<String>,
}

/// `security.authorization.provider.kubernetes`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KubernetesAuthorization {
    /// Whether it is on; `security.authentication.providers.kubernetes` must be on with it.
    pub enable: bool,
    /// File to reach the cluster with; the pod's own account when empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// Reviews per second that this process may ask for.
    pub qps: u32,
    /// Reviews at once beyond `qps`.
    pub burst: u32,
    /// How long a granted review is remembered.
    pub authorizer_allow_ttl: ConfigDuration,
    /// How long a denied review is remembered.
    pub authorizer_deny_ttl: ConfigDuration,
    /// How long a reviewed token is remembered.
    pub authenticator_ttl: ConfigDuration,
}

impl Default for KubernetesAuthorization {
    fn default() -> Self {
        Self {
            enable: false,
            kubeconfig: None,
            qps: 500,
            burst: 1000,
            authorizer_allow_ttl: ConfigDuration::from_secs(300),
            authorizer_deny_ttl: ConfigDuration::from_secs(30),
            authenticator_ttl: ConfigDuration::from_secs(120),
        }
    }
}

/// `security.cors`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cors {
    /// Whether it is on.
    pub enable: bool,
    /// Origins that may call; `*` is every one.
    pub allow_origins: Vec<String>,
    /// Methods that they may use; the usual ones when empty.
    pub allow_methods: Vec<String>,
    /// Headers that they may send; those asked for when empty.
    pub allow_headers: Vec<String>,
    /// Whether cookies may come along.
    pub allow_credentials: bool,
    /// Headers that they may read.
    pub expose_headers: Vec<String>,
    /// How many seconds a browser may remember the answer; 0 is the browser's choice.
    pub max_age: u32,
}
