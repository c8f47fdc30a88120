//! HTTP clients, one per set of TLS settings: connections are pooled by host inside and live as long as a target uses them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::http::HeaderValue;
use moka::sync::Cache;
use parking_lot::Mutex;
use reqwest::{Certificate, Identity, redirect, tls};
use url::Url;

use super::credentials::TlsOptions;
use super::network::{Denied, DenyList, Resolver};

/// How long a new connection may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections are closed before the usual 75 s of proxies in between.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Idle connections kept per host; more may be open.
const IDLE_PER_HOST: usize = 64;

/// Clients that nobody holds are kept for so long after their last use, and so many of them (see [`Clients::get_passing`]).
const PASSING_TIME: Duration = Duration::from_mins(1);
const PASSING_COUNT: u64 = 32;

/// Why there is no client. Names fields, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClientError {
    /// The TLS settings are wrong.
    #[error("{0}")]
    Settings(String),
    /// The address is excluded.
    #[error(transparent)]
    Denied(#[from] Denied),
}

/// How to reach a base URL.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// The pooled client.
    pub(super) client: Arc<reqwest::Client>,
    /// The URL to use with it: the base, or with `serverName` one with that host.
    pub(super) url: Url,
    /// Value of `Host` when it is not that of `url`.
    pub(super) host: Option<HeaderValue>,
}

/// What tells clients apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ClientKey {
    https: bool,
    tls: TlsOptions,
    /// With a server name of its own: the host to connect to instead of it.
    connect_to: Option<String>,
}

/// The clients in use: never more than there are users and [`PASSING_COUNT`].
#[derive(Debug)]
pub(super) struct Clients {
    deny: DenyList,
    in_use: Mutex<HashMap<ClientKey, Weak<reqwest::Client>>>,
    passing: Cache<ClientKey, Arc<reqwest::Client>>,
}

impl Clients {
    /// Clients that go nowhere near the excluded networks.
    pub(super) fn new(deny: DenyList) -> Self {
        // reqwest takes the process' provider; a second installation is refused and harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let passing = Cache::builder().max_capacity(PASSING_COUNT).time_to_idle(PASSING_TIME).build();
        Self { deny, in_use: Mutex::default(), passing }
    }

    /// The way to a base URL. Its client lives as long as somebody holds it.
    pub(super) fn get(&self, base: &Url, tls: &TlsOptions) -> Result<Route, ClientError> {
        self.find(base, tls).map(|(_, route)| route)
    }

    /// As [`Self::get`], for one request: kept a while, so that the next one finds its connections.
    pub(super) fn get_passing(&self, base: &Url, tls: &TlsOptions) -> Result<Route, ClientError> {
        let (key, route) = self.find(base, tls)?;
        self.passing.insert(key, route.client.clone());
        Ok(route)
    }

    fn find(&self, base: &Url, tls: &TlsOptions) -> Result<(ClientKey, Route), ClientError> {
        self.deny.check(base)?;
        let https = base.scheme() == "https";
        let mut url = base.clone();
        let mut key = ClientKey { https, tls: TlsOptions::default(), connect_to: None };
        if https {
            key.tls = tls.clone();
            if let Some(name) = tls.server_name.as_deref().filter(|name| base.host_str() != Some(name)) {
                key.connect_to = base.host_str().map(str::to_owned);
                let wrong = || ClientError::Settings(format!("tlsConfig.serverName {name:?} is no host name"));
                url.set_host(Some(name)).map_err(|_| wrong())?;
                // An address would be connected to instead of the host of the datasource.
                if !matches!(url.host(), Some(url::Host::Domain(_))) {
                    return Err(wrong());
                }
            }
        }
        let host = if key.connect_to.is_some() { host_header(base) } else { None };
        let mut in_use = self.in_use.lock();
        let client = if let Some(client) = in_use.get(&key).and_then(Weak::upgrade) {
            client
        } else {
            in_use.retain(|_, client| client.strong_count() > 0);
            let client = Arc::new(self.build(&key).map_err(ClientError::Settings)?);
            in_use.insert(key.clone(), Arc::downgrade(&client));
            client
        };
        Ok((key, Route { client, url, host }))
    }

    fn build(&self, key: &ClientKey) -> Result<reqwest::Client, String> {
        let mut builder = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .tcp_keepalive(Duration::from_secs(30));
        let options = &key.tls;
        if !key.https {
            // The system's authorities are not needed, and may not be there.
            builder = builder.tls_certs_only([]);
        } else if let Some(ca) = &options.ca {
            let bundle =
                Certificate::from_pem_bundle(ca.as_bytes()).map_err(|_| "tlsConfig.ca is not PEM".to_owned())?;
            if bundle.is_empty() {
                return Err("tlsConfig.ca has no certificate".to_owned());
            }
            builder = builder.tls_certs_only(bundle);
        }
        if let Some(identity) = &options.identity {
            let identity = Identity::from_pem(identity.as_bytes())
                .map_err(|_| "tlsConfig.cert and tlsConfig.key are not a PEM certificate and key".to_owned())?;
            builder = builder.identity(identity);
        }
        if options.insecure {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        if let Some(version) = &options.min_version {
            builder = builder.tls_version_min(tls_version("tlsConfig.minVersion", version)?);
        }
        if let Some(version) = &options.max_version {
            builder = builder.tls_version_max(tls_version("tlsConfig.maxVersion", version)?);
        }
        if key.connect_to.is_some() {
            // Over HTTP/2 the authority would be the TLS name, not the host of the datasource.
            builder = builder.http1_only();
        }
        if key.connect_to.is_some() || !self.deny.is_empty() {
            let resolver = Resolver { instead: key.connect_to.clone(), deny: self.deny.clone() };
            // A proxy of the environment would resolve names itself, past our check.
            builder = builder.dns_resolver(Arc::new(resolver)).no_proxy();
        }
        builder.build().map_err(|error| {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            format!("its TLS settings cannot be used: {reason}")
        })
    }
}

fn host_header(url: &Url) -> Option<HeaderValue> {
    let host = url.host_str()?;
    let text = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    HeaderValue::try_from(text).ok()
}

/// `TLS10` to `TLS13` as Go's and Prometheus' configuration spell them; what is too old is raised to 1.2, as upstream does.
fn tls_version(field: &str, text: &str) -> Result<tls::Version, String> {
    match text {
        "TLS10" | "TLS11" | "TLS12" => Ok(tls::Version::TLS_1_2),
        "TLS13" => Ok(tls::Version::TLS_1_3),
        _ => Err(format!("{field}: {text:?} is none of TLS10, TLS11, TLS12, TLS13")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn equal_settings_share_connections_as_long_as_someone_uses_them() {
        let clients = Clients::new(DenyList::default());
        let insecure = TlsOptions { insecure: true, ..TlsOptions::default() };
        let first = clients.get(&url("http://a"), &insecure).unwrap().client;
        let second = clients.get(&url("http://b"), &TlsOptions::default()).unwrap().client;
        assert!(Arc::ptr_eq(&first, &second), "TLS settings do not matter for http");
        let third = clients.get(&url("https://a"), &insecure).unwrap().client;
        assert!(!Arc::ptr_eq(&first, &third));
        assert_eq!(clients.in_use.lock().len(), 2);
        drop((first, second, third));
        let _kept = clients.get(&url("http://a"), &insecure).unwrap();
        assert_eq!(clients.in_use.lock().len(), 1);
    }

    #[test]
    fn a_server_name_replaces_the_host_of_the_url() {
        let clients = Clients::new(DenyList::default());
        let options = TlsOptions { server_name: Some("prom.svc".into()), insecure: true, ..TlsOptions::default() };
        let route = clients.get(&url("https://10.0.0.1:9443/base"), &options).unwrap();
        assert_eq!(route.url.as_str(), "https://prom.svc:9443/base");
        assert_eq!(route.host.unwrap(), "10.0.0.1:9443");
    }

    #[test]
    fn wrong_settings_are_named() {
        let clients = Clients::new(DenyList::default());
        for (options, field) in [
            (TlsOptions { ca: Some("no".into()), ..TlsOptions::default() }, "ca"),
            (TlsOptions { identity: Some("no".into()), insecure: true, ..TlsOptions::default() }, "cert"),
            (TlsOptions { min_version: Some("SSL3".into()), insecure: true, ..TlsOptions::default() }, "minVersion"),
        ] {
            assert!(clients.get(&url("https://a"), &options).unwrap_err().to_string().contains(field), "{field}");
        }
        let address = TlsOptions { server_name: Some("10.0.0.2".into()), insecure: true, ..TlsOptions::default() };
        assert!(clients.get(&url("https://prom"), &address).unwrap_err().to_string().contains("serverName"));
        assert!(clients.get(&url("https://10.0.0.2"), &address).is_ok());
    }

    #[test]
    fn passing_clients_are_shared_for_a_while() {
        let clients = Clients::new(DenyList::default());
        let options = TlsOptions { insecure: true, ..TlsOptions::default() };
        let first = Arc::as_ptr(&clients.get_passing(&url("https://a"), &options).unwrap().client);
        assert_eq!(Arc::as_ptr(&clients.get_passing(&url("https://b"), &options).unwrap().client), first);
    }
}
