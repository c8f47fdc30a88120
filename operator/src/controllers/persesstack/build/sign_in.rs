//! Ways to sign in and roles, as the server's configuration has them, and the files that they need in the pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, KeyToPath, ProjectedVolumeSource, SecretProjection, Volume, VolumeProjection,
};
use serde_json::{Value, json};

use super::account::{AUTHORITY, TOKEN};
use super::meta;
use crate::api::v1alpha1::{NativeAuth, PemSource, ProviderClient};
use crate::controllers::persesstack::exposure::Exposed;
use crate::controllers::persesstack::rotation::{NEXT_PASSWORD, PREVIOUS_PASSWORD};
use crate::controllers::persesstack::sign_in::{Client, Provider};
use crate::controllers::persesstack::validate::Validated;

/// Folder of the providers' files.
pub(super) const FOLDER: &str = "/etc/perses/auth";

/// `security.authentication`.
pub(super) fn authentication(v: &Validated) -> Value {
    let native = v.spec.auth.native.unwrap_or_default();
    let NativeAuth { enabled, sign_up } = native;
    let mut providers = json!({ "enable_native": enabled && v.spec.auth.kubernetes.is_none() });
    if v.spec.auth.kubernetes.is_some() {
        providers["kubernetes"] = json!({ "enable": true });
    }
    for provider in &v.sign_in.providers {
        let (protocol, value) = configuration(v, provider);
        match &mut providers[protocol] {
            Value::Array(list) => list.push(value),
            slot => *slot = json!([value]),
        }
    }
    let mut authentication = json!({
        "access_token_ttl": "15m",
        "refresh_token_ttl": "1d",
        "disable_sign_up": !sign_up,
        "providers": providers,
    });
    // Where the cluster decides there are no users here.
    if v.spec.auth.kubernetes.is_none() {
        authentication["initial_admin"] = initial_admin(v);
    }
    authentication
}

/// The first user; once its password was rotated, also the passwords that count beside the one that is stored.
pub(super) fn initial_admin(v: &Validated) -> Value {
    let path = |key: &str| format!("/etc/perses/admin/{key}");
    let mut admin = json!({ "username_file": path("username"), "password_file": path("password") });
    if v.generated.has(&v.names.admin(), NEXT_PASSWORD) {
        admin["also_password_files"] = json!([path(NEXT_PASSWORD), path(PREVIOUS_PASSWORD)]);
    }
    admin
}

/// `security.authorization`.
pub(super) fn authorization(v: &Validated) -> Value {
    let auth = &v.spec.auth;
    if auth.kubernetes.is_some() {
        return json!({ "provider": { "kubernetes": { "enable": true } } });
    }
    let guests: Vec<Value> = match &auth.guest_permissions {
        // The stack's Prometheus is a global datasource: without this the members of a project could not use it.
        None => vec![json!({ "actions": ["read"], "scopes": ["GlobalDatasource", "GlobalVariable"] })],
        Some(own) => own.iter().map(|own| json!({ "actions": own.actions, "scopes": own.scopes })).collect(),
    };
    let mut native = json!({ "guest_permissions": guests });
    if !auth.role_mappings.is_empty() {
        native["role_mappings"] = auth
            .role_mappings
            .iter()
            .map(|mapping| {
                let mut value = json!({ "role": mapping.role });
                let optional = [
                    ("group", &mapping.group),
                    ("claim", &mapping.claim),
                    ("value", &mapping.value),
                    ("project", &mapping.project),
                ];
                set(&mut value, optional);
                value
            })
            .collect();
    }
    json!({ "provider": { "native": native } })
}

fn set<'a>(value: &mut Value, optional: impl IntoIterator<Item = (&'a str, &'a Option<String>)>) {
    for (key, text) in optional {
        if let Some(text) = text {
            value[key] = json!(text);
        }
    }
}

/// Protocol and configuration of one provider.
fn configuration(v: &Validated, provider: &Provider) -> (&'static str, Value) {
    match provider {
        Provider::Oidc(spec, client) => {
            let mut value = registered(v, "oidc", &spec.name, spec.display_name.as_ref(), client);
            value["issuer"] = json!(spec.issuer);
            value["scopes"] = json!(spec.scopes);
            set(&mut value, [("discovery_url", &spec.discovery_url), ("groups_claim", &spec.groups_claim)]);
            if spec.logout {
                value["logout"] = json!({ "enabled": true });
            }
            if !spec.pkce {
                value["disable_pkce"] = json!(true);
            }
            if !spec.url_params.is_empty() {
                value["url_params"] = json!(spec.url_params);
            }
            ("oidc", value)
        }
        Provider::Oauth(spec, client) => {
            let mut value = registered(v, "oauth", &spec.name, spec.display_name.as_ref(), client);
            value["auth_url"] = json!(spec.auth_url);
            value["token_url"] = json!(spec.token_url);
            value["user_infos_url"] = json!(spec.user_info_url);
            value["scopes"] = json!(spec.scopes);
            let optional = [
                ("device_auth_url", &spec.device_auth_url),
                ("groups_claim", &spec.groups_claim),
                ("custom_login_property", &spec.login_property),
            ];
            set(&mut value, optional);
            ("oauth", value)
        }
        Provider::OpenShift(spec, server, ca) => {
            let authority = ca.as_deref().map_or(AUTHORITY.to_owned(), |ca| authority("oauth", "openshift", ca));
            let value = json!({
                "slug_id": "openshift",
                "name": spec.display_name.as_deref().unwrap_or("OpenShift"),
                // A ServiceAccount is an OAuth client by itself; each of its tokens is the client's secret.
                "client_id": format!("system:serviceaccount:{}:{}", v.namespace, v.names.api()),
                "client_secret_file": TOKEN,
                "redirect_uri": callback(v, "oauth", "openshift"),
                "auth_url": server.authorization,
                "token_url": server.token,
                "user_infos_url": "https://kubernetes.default.svc/apis/user.openshift.io/v1/users/~",
                "custom_login_property": "metadata.name",
                // The least that tells who it is; a ServiceAccount may not ask for much more.
                "scopes": ["user:info"],
                "http": { "tls_config": { "ca_file": authority } },
            });
            ("oauth", value)
        }
    }
}

/// What both protocols share for a client that is registered at the provider.
fn registered(v: &Validated, protocol: &str, name: &str, display: Option<&String>, client: &Client) -> Value {
    let mut value = json!({
        "slug_id": name,
        "name": display.map_or(name, String::as_str),
        "client_id": client.id,
        "client_secret_file": format!("{FOLDER}/{protocol}-{name}/client-secret"),
        "redirect_uri": callback(v, protocol, name),
    });
    if let Some(ca) = &client.ca {
        value["http"] = json!({ "tls_config": { "ca_file": authority(protocol, name, ca) } });
    }
    value
}

/// Where a provider sends browsers back to.
fn callback(v: &Validated, protocol: &str, name: &str) -> String {
    let config = v.spec.api.config.as_ref();
    let prefix = config.and_then(|config| config.get("api_prefix")?.as_str()).unwrap_or_default();
    let prefix = prefix.trim_matches('/');
    let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
    let address = v.sign_in.address.as_deref().unwrap_or_default();
    format!("{address}{prefix}/api/auth/providers/{protocol}/{name}/callback")
}

/// The server reads authorities at its start: a changed one is another file, so that the pods are replaced.
fn authority(protocol: &str, name: &str, pem: &str) -> String {
    format!("{FOLDER}/{protocol}-{name}/{}", authority_file(pem))
}

fn authority_file(pem: &str) -> String {
    format!("ca-{}.crt", meta::hash([pem.as_bytes()]))
}

/// The providers' files as one volume called `auth`; `None` when they need none.
pub(super) fn volume(v: &Validated) -> Option<Volume> {
    let mut sources = Vec::new();
    let mut add = |folder: String, client: Option<&ProviderClient>, ca: Option<(&PemSource, &str)>| {
        if let Some(client) = client {
            let path = format!("{folder}/client-secret");
            sources.push(secret(&client.secret_ref.name, &client.client_secret_key, path));
        }
        if let Some((source, pem)) = ca {
            let path = format!("{folder}/{}", authority_file(pem));
            sources.extend(source.secret.iter().map(|at| secret(&at.name, &at.key, path.clone())));
            sources.extend(source.config_map.iter().map(|at| config_map(&at.name, &at.key, path.clone())));
        }
    };
    for provider in &v.sign_in.providers {
        match provider {
            Provider::Oidc(spec, client) => {
                let ca = spec.ca.as_ref().zip(client.ca.as_deref());
                add(format!("oidc-{}", spec.name), Some(&spec.client), ca);
            }
            Provider::Oauth(spec, client) => {
                let ca = spec.ca.as_ref().zip(client.ca.as_deref());
                add(format!("oauth-{}", spec.name), Some(&spec.client), ca);
            }
            Provider::OpenShift(spec, _, ca) => {
                add("oauth-openshift".to_owned(), None, spec.ca.as_ref().zip(ca.as_deref()));
            }
        }
    }
    (!sources.is_empty()).then(|| Volume {
        name: "auth".to_owned(),
        projected: Some(ProjectedVolumeSource { sources: Some(sources), default_mode: None }),
        ..Volume::default()
    })
}

fn item(key: &str, path: String) -> Vec<KeyToPath> {
    vec![KeyToPath { key: key.to_owned(), path, mode: None }]
}

fn secret(name: &str, key: &str, path: String) -> VolumeProjection {
    VolumeProjection {
        secret: Some(SecretProjection { name: name.to_owned(), items: Some(item(key, path)), optional: None }),
        ..VolumeProjection::default()
    }
}

fn config_map(name: &str, key: &str, path: String) -> VolumeProjection {
    VolumeProjection {
        config_map: Some(ConfigMapProjection { name: name.to_owned(), items: Some(item(key, path)), optional: None }),
        ..VolumeProjection::default()
    }
}

/// Annotations that make the ServiceAccount an OAuth client of OpenShift: where its OAuth server may send browsers. The
/// reference follows the host of the Route; the address serves every other way in.
pub(super) fn annotations(v: &Validated) -> Option<BTreeMap<String, String>> {
    v.spec.auth.openshift.as_ref()?;
    let mut annotations = BTreeMap::new();
    if v.exposure == Some(Exposed::Route) {
        let reference = json!({
            "kind": "OAuthRedirectReference",
            "apiVersion": "v1",
            "reference": { "kind": "Route", "name": v.names.exposure() },
        });
        annotations
            .insert("serviceaccounts.openshift.io/oauth-redirectreference.perses".to_owned(), reference.to_string());
    }
    if v.sign_in.address.is_some() {
        let uri = callback(v, "oauth", "openshift");
        annotations.insert("serviceaccounts.openshift.io/oauth-redirecturi.perses".to_owned(), uri);
    }
    (!annotations.is_empty()).then_some(annotations)
}
