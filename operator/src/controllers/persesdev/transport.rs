//! The HTTP client for one stack: whom it trusts.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::api::Api;
use reqwest::{Certificate, ClientBuilder, redirect};

use super::select::{Authority, Stack};
use super::server::Fault;
use crate::controllers::persesstack::build::account::SERVICE_AUTHORITY_KEY;
use crate::controllers::persesstack::build::names::Names;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// What is the same for all servers.
pub(super) fn builder() -> ClientBuilder {
    reqwest::Client::builder()
        // Services of the cluster.
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .user_agent(concat!("persesstack-operator/", env!("CARGO_PKG_VERSION")))
}

/// A client that trusts who signs the certificate of the stack's server, and nobody else; `usual` where that is nobody of
/// its own.
pub(super) async fn client(kube: &Client, stack: &Stack, usual: &reqwest::Client) -> Result<reqwest::Client, Fault> {
    let Some(tls) = &stack.tls else { return Ok(usual.clone()) };
    let Some((pem, place)) = certificates(kube, stack, tls).await? else { return Ok(usual.clone()) };
    let wrong = || Fault::Unreachable(format!("{place} holds no certificate in PEM"));
    let bundle = Certificate::from_pem_bundle(&pem).map_err(|_| wrong())?;
    if bundle.is_empty() {
        return Err(wrong());
    }
    builder().tls_certs_only(bundle).build().map_err(|_| wrong())
}

/// The authority's certificates and where they were found; `None` when none is named.
async fn certificates(kube: &Client, stack: &Stack, tls: &Authority) -> Result<Option<(Vec<u8>, String)>, Fault> {
    let unreadable = |what: String| move |error: kube::Error| Fault::Unreachable(format!("read {what}: {error}"));
    match tls {
        Authority::Secret(name) => {
            let secrets: Api<Secret> = Api::namespaced(kube.clone(), &stack.namespace);
            let secret = secrets.get_opt(name).await.map_err(unreadable(format!("Secret {name}")))?;
            let pem = secret.and_then(|secret| secret.data?.remove("ca.crt"));
            Ok(pem.map(|pem| (pem.0, format!("key ca.crt in Secret {name}"))))
        }
        Authority::OpenShift => {
            let name = Names::new(stack.name.clone()).service_ca();
            let maps: Api<ConfigMap> = Api::namespaced(kube.clone(), &stack.namespace);
            let map = maps.get_opt(&name).await.map_err(unreadable(format!("ConfigMap {name}")))?;
            let place = format!("key {SERVICE_AUTHORITY_KEY} in ConfigMap {name}");
            // Never the public authorities instead: the password would go to whoever they vouch for.
            let absent = || Fault::Unreachable(format!("{place} is absent: OpenShift's service CA writes it"));
            let pem = map.and_then(|map| map.data?.remove(SERVICE_AUTHORITY_KEY)).ok_or_else(absent)?;
            Ok(Some((pem.into_bytes(), place)))
        }
    }
}
