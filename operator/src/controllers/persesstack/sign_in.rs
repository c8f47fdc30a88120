//! PURE: the ways to sign in that the spec asks for, with everything that they refer to. A provider for which something is
//! missing is left out, and nothing else waits for it. One that the running pods already have is not taken from them: while
//! something of it is away they stay as they are.

use super::observed::{ExposureState, Observed};
use super::pem;
use super::references::required;
use super::validate::Invalid;
use super::waits::{Part, Waits};
use crate::api::v1alpha1::{
    AuthStatus, OauthAuth, OidcAuth, OpenShiftAuth, PemSource, PersesStackSpec, ProviderClient,
};
use crate::apply::kind::Kind;

/// How people sign in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SignIn {
    /// Address that providers send browsers back to, `scheme://host[:port]`; there when a provider is.
    pub address: Option<String>,
    /// The providers for which nothing is missing.
    pub providers: Vec<Provider>,
    /// `<protocol>/<name>` of the providers that the pods have, as soon as they run what is built now.
    pub configured: Vec<String>,
}

/// A provider with what it refers to.
#[derive(Clone, Debug, PartialEq)]
pub enum Provider {
    /// OpenID Connect.
    Oidc(OidcAuth, Client),
    /// OAuth 2.0.
    Oauth(OauthAuth, Client),
    /// OpenShift's own OAuth server; the client is the ServiceAccount of the API pods.
    OpenShift(OpenShiftAuth, OauthServer, Option<String>),
}

/// The client at a provider. The client secret is read from its file by the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Client id.
    pub id: String,
    /// Authority of the provider (PEM).
    pub ca: Option<String>,
}

/// Endpoints of OpenShift's OAuth server, as its API server names them (RFC 8414).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthServer {
    /// `authorization_endpoint`.
    pub authorization: String,
    /// `token_endpoint`.
    pub token: String,
}

/// What exposes the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WayIn {
    /// It cannot be told now.
    Unknown,
    /// Nothing does.
    Nothing,
    /// An object of this kind.
    Kind(Kind),
}

/// Resolves all providers. `before` is what the last reconcile configured.
///
/// # Errors
/// What only a changed spec cures.
pub(super) fn resolve(
    spec: &PersesStackSpec,
    observed: &Observed,
    exposed: WayIn,
    before: Option<&AuthStatus>,
    waits: &mut Waits,
) -> Result<SignIn, Invalid> {
    let auth = &spec.auth;
    if auth.oidc.is_empty() && auth.oauth.is_empty() && auth.openshift.is_none() {
        return Ok(SignIn::default());
    }
    let last = before.and_then(|before| before.address.clone());
    let address = address(auth.address.as_ref(), exposed, observed.workloads.exposure.as_ref(), last);
    let Some(address) = waits.hold(address, Part::WITH_AUTH)? else { return Ok(SignIn::default()) };
    let mut sign_in = SignIn { address: Some(address), ..SignIn::default() };
    let mut add = |id: String, provider: Result<Provider, Invalid>| -> Result<(), Invalid> {
        let running = before.is_some_and(|before| before.providers.contains(&id));
        let holds = if running { Part::WITH_RUNNING_AUTH } else { Part::WITH_AUTH };
        let provider = waits.hold(provider, holds)?;
        if running || provider.is_some() {
            sign_in.configured.push(id);
        }
        sign_in.providers.extend(provider);
        Ok(())
    };
    for oidc in &auth.oidc {
        let client = client(&oidc.client, oidc.ca.as_ref(), observed, &format!("sign-in at {}", oidc.name));
        add(format!("oidc/{}", oidc.name), client.map(|client| Provider::Oidc(oidc.clone(), client)))?;
    }
    for oauth in &auth.oauth {
        let client = client(&oauth.client, oauth.ca.as_ref(), observed, &format!("sign-in at {}", oauth.name));
        add(format!("oauth/{}", oauth.name), client.map(|client| Provider::Oauth(oauth.clone(), client)))?;
    }
    if let Some(openshift) = &auth.openshift {
        add("oauth/openshift".to_owned(), platform(openshift, observed))?;
    }
    Ok(sign_in)
}

/// Where browsers reach the service. An address that was configured once stays while it cannot be told.
fn address(
    own: Option<&String>,
    exposed: WayIn,
    state: Option<&ExposureState>,
    last: Option<String>,
) -> Result<String, Invalid> {
    let missing = |message: &str| {
        Err(Invalid { reason: "AddressUnknown", message: message.to_owned(), waiting_for: None, terminal: false })
    };
    if let Some(own) = own {
        return Ok(own.trim_end_matches('/').to_owned());
    }
    match exposed {
        WayIn::Nothing => missing(
            "spec.auth names providers that send browsers back to this service, but nothing exposes it: set spec.exposure, or \
             spec.auth.address when something else brings browsers here",
        ),
        WayIn::Kind(kind) => {
            let admitted = state.filter(|state| state.kind == kind && state.admitted);
            match admitted.and_then(|state| state.address.clone()).or(last) {
                Some(address) => Ok(address),
                None => missing(
                    "waiting for the address of the service, to which providers of spec.auth send browsers back",
                ),
            }
        }
        WayIn::Unknown => match last {
            Some(address) => Ok(address),
            None => missing(
                "it is not known yet what exposes the service to which providers of spec.auth send browsers back",
            ),
        },
    }
}

fn client(
    client: &ProviderClient,
    ca: Option<&PemSource>,
    observed: &Observed,
    purpose: &str,
) -> Result<Client, Invalid> {
    let name = &client.secret_ref.name;
    let secret = observed.secrets.get(name).ok_or_else(|| Invalid::waiting(name, None, purpose))?;
    let id = required(secret, name, &client.client_id_key, purpose)?.to_owned();
    // The server reads it from a file, but without one it could sign nobody in.
    required(secret, name, &client.client_secret_key, purpose)?;
    Ok(Client { id, ca: ca.map(|ca| pem::resolve(ca, observed, purpose)).transpose()? })
}

fn platform(openshift: &OpenShiftAuth, observed: &Observed) -> Result<Provider, Invalid> {
    let server = observed.oauth_server.clone().ok_or_else(|| Invalid {
        reason: "OAuthServerUnknown",
        message: "spec.auth.openshift is set, but the API server of this cluster names no OAuth server at \
                  /.well-known/oauth-authorization-server: use oidc with the provider that the cluster itself uses"
            .to_owned(),
        waiting_for: None,
        terminal: false,
    })?;
    let ca = openshift.ca.as_ref().map(|ca| pem::resolve(ca, observed, "authorities of OpenShift")).transpose()?;
    Ok(Provider::OpenShift(openshift.clone(), server, ca))
}

fn clients(spec: &PersesStackSpec) -> impl Iterator<Item = &ProviderClient> {
    spec.auth.oidc.iter().map(|oidc| &oidc.client).chain(spec.auth.oauth.iter().map(|oauth| &oauth.client))
}

fn authorities(spec: &PersesStackSpec) -> impl Iterator<Item = &PemSource> {
    let oidc = spec.auth.oidc.iter().filter_map(|oidc| oidc.ca.as_ref());
    let oauth = spec.auth.oauth.iter().filter_map(|oauth| oauth.ca.as_ref());
    oidc.chain(oauth).chain(spec.auth.openshift.iter().filter_map(|openshift| openshift.ca.as_ref()))
}

/// Names of the Secrets that ways to sign in refer to.
pub(super) fn secrets(spec: &PersesStackSpec) -> Vec<String> {
    let clients = clients(spec).map(|client| client.secret_ref.name.clone());
    clients.chain(authorities(spec).filter_map(|ca| ca.secret.as_ref()).map(|at| at.name.clone())).collect()
}

/// Names of the ConfigMaps that ways to sign in refer to.
pub(super) fn config_maps(spec: &PersesStackSpec) -> Vec<String> {
    authorities(spec).filter_map(|ca| ca.config_map.as_ref()).map(|at| at.name.clone()).collect()
}
