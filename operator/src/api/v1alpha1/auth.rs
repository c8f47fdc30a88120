//! Who may sign in, and which roles they have.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::datasource::PemSource;
use super::spec::LocalReference;

/// Ways to sign in, and what the people who do may do. Without any of them: the generated first administrator, and the
/// users that they create.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.kubernetes) || !(has(self.native) || has(self.oidc) || has(self.oauth) || has(self.openshift) || has(self.roleMappings) || has(self.guestPermissions) || has(self.address))").message("kubernetes excludes every other way to sign in and the roles of the server: set kubernetes alone").field_path(".kubernetes"))]
#[x_kube(validation = Rule::new("!has(self.native) || self.native.enabled || (has(self.oidc) && self.oidc.size() > 0) || (has(self.oauth) && self.oauth.size() > 0) || has(self.openshift)").message("native.enabled is false: give oidc, oauth or openshift, or nobody could sign in").field_path(".native"))]
#[x_kube(validation = Rule::new("!has(self.openshift) || !has(self.oauth) || self.oauth.all(p, p.name != 'openshift')").message("openshift is the name of the provider that auth.openshift makes: choose another name").field_path(".oauth"))]
pub struct Auth {
    /// Users with a password in the server. On when absent, with the generated first administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<NativeAuth>,
    /// OpenID Connect providers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.name == a.name))").message("every OIDC provider needs a name of its own"))]
    pub oidc: Vec<OidcAuth>,
    /// OAuth 2.0 providers without OpenID Connect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.name == a.name))").message("every OAuth provider needs a name of its own"))]
    pub oauth: Vec<OauthAuth>,
    /// The users of the OpenShift cluster that the stack runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub openshift: Option<OpenShiftAuth>,
    /// Bearer tokens of the cluster that the stack runs in; what their owners may do is what they may do there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<KubernetesAuth>,
    /// Roles that groups and claims of a provider give.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub role_mappings: Vec<RoleMapping>,
    /// What every signed-in user may do in every project. When absent they may read global datasources and global variables,
    /// which the panels of every project need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub guest_permissions: Option<Vec<Permission>>,
    /// Address at which browsers reach the service, when something else than spec.exposure brings them there. Providers send
    /// browsers back to it. Default: the admitted address (status.url).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^https?://[^\s/?#@]+$"))]
    pub address: Option<String>,
}

/// Users with a password in the server.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct NativeAuth {
    /// Whether passwords are taken.
    pub enabled: bool,
    /// Whether people may create a user for themselves; they have the rights of guests then.
    pub sign_up: bool,
}

impl Default for NativeAuth {
    fn default() -> Self {
        Self { enabled: true, sign_up: false }
    }
}

/// The client that the server is at a provider.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ProviderClient {
    /// Secret with the client, in the stack's namespace.
    pub secret_ref: LocalReference,
    /// Key of the client id.
    #[serde(default = "client_id_key")]
    #[schemars(length(min = 1, max = 253))]
    pub client_id_key: String,
    /// Key of the client secret; a changed one counts without a restart.
    #[serde(default = "client_secret_key")]
    #[schemars(length(min = 1, max = 253))]
    pub client_secret_key: String,
}

/// An OpenID Connect provider. Register `<address>/api/auth/providers/oidc/<name>/callback` there.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OidcAuth {
    /// Name in addresses.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Name on the sign-in page; `name` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub display_name: Option<String>,
    /// Issuer; its discovery document is at `<issuer>/.well-known/openid-configuration`.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s/?#@]+[^\s?#]*$"))]
    pub issuer: String,
    /// Where the discovery document is, when it is not below the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s/?#@]+[^\s#]*$"))]
    pub discovery_url: Option<String>,
    /// The client.
    pub client: ProviderClient,
    /// Scopes to ask for.
    #[serde(default = "oidc_scopes")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 256)))]
    pub scopes: Vec<String>,
    /// Claim with the groups, `groups` when absent; `a.b` is `b` inside `a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub groups_claim: Option<String>,
    /// Whether signing out here signs out there; register `<address>/` there as the address to come back to.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub logout: bool,
    /// Whether the code is bound to the browser by PKCE; off for providers that refuse it.
    #[serde(default = "yes")]
    pub pkce: bool,
    /// Further parameters of the authorization request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub url_params: BTreeMap<String, String>,
    /// Authority that signed the provider's certificate (PEM); the system's authorities when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PemSource>,
}

/// An OAuth 2.0 provider. Register `<address>/api/auth/providers/oauth/<name>/callback` there.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OauthAuth {
    /// Name in addresses.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Name on the sign-in page; `name` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub display_name: Option<String>,
    /// Authorization endpoint.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s/?#@]+[^\s#]*$"))]
    pub auth_url: String,
    /// Token endpoint.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s/?#@]+[^\s#]*$"))]
    pub token_url: String,
    /// Endpoint that answers who the user is.
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s/?#@]+[^\s#]*$"))]
    pub user_info_url: String,
    /// Endpoint of the device code flow, which `percli login` uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = r"^https?://[^\s/?#@]+[^\s#]*$"))]
    pub device_auth_url: Option<String>,
    /// The client.
    pub client: ProviderClient,
    /// Scopes to ask for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 256)))]
    pub scopes: Vec<String>,
    /// Member of the user's information with the groups, `groups` when absent; `a.b` is `b` inside `a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub groups_claim: Option<String>,
    /// Member of the user's information that is the login; `login`, else `username` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub login_property: Option<String>,
    /// Authority that signed the provider's certificate (PEM); the system's authorities when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PemSource>,
}

/// The users of OpenShift: the API pods' ServiceAccount is the OAuth client.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct OpenShiftAuth {
    /// Name on the sign-in page; `OpenShift` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub display_name: Option<String>,
    /// Authorities (PEM) of both the cluster's API server and its OAuth server. Default: the authorities that the cluster
    /// gives every pod, which on OpenShift cover both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PemSource>,
}

/// Bearer tokens of the cluster, checked by TokenReview and SubjectAccessReview.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct KubernetesAuth {}

/// Who has the group, or the claim with the value, has the role.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.group) != has(self.claim) && has(self.claim) == has(self.value)").message("give either group, or claim and value"))]
pub struct RoleMapping {
    /// A group of the user at the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub group: Option<String>,
    /// Or the name of another claim; `a.b` is `b` inside `a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub claim: Option<String>,
    /// What that claim is, or holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\x00-\x1f\x7f]+$"))]
    pub value: Option<String>,
    /// Name of the role: a GlobalRole, or a Role of the project.
    #[schemars(length(min = 1, max = 75), regex(pattern = r"^[a-zA-Z0-9_.-]+$"))]
    pub role: String,
    /// Project of the role; a global one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 75), regex(pattern = r"^[a-zA-Z0-9_.-]+$"))]
    pub project: Option<String>,
}

/// What may be done to which kinds.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Permission {
    /// `read`, `create`, `update`, `delete` or `*`.
    #[schemars(length(min = 1, max = 5), inner(regex(pattern = r"^(read|create|update|delete|\*)$")))]
    pub actions: Vec<String>,
    /// Kinds of Perses, for example `Dashboard`, or `*`.
    #[schemars(length(min = 1, max = 32), inner(regex(pattern = r"^(\*|[A-Z][A-Za-z]*)$")))]
    pub scopes: Vec<String>,
}

fn client_id_key() -> String {
    "clientId".to_owned()
}

fn client_secret_key() -> String {
    "clientSecret".to_owned()
}

fn oidc_scopes() -> Vec<String> {
    ["openid", "email", "profile"].map(str::to_owned).to_vec()
}

fn yes() -> bool {
    true
}
