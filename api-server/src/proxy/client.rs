//! HTTP clients, one per set of TLS settings: connections are pooled by host inside and live as long as a target uses them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, Identity, redirect, tls};
use url::Url;

use super::credentials::TlsOptions;

/// How long a new connection may take, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections are closed before the usual 75 s of proxies in between.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
/// Idle connections kept per host; more may be open.
const IDLE_PER_HOST: usize = 64;

/// What tells clients apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ClientKey {
    https: bool,
    tls: TlsOptions,
    /// With a server name of its own: the host to connect to instead of it.
    connect_to: Option<String>,
}

/// The clients in use.
#[derive(Debug)]
pub(super) struct Clients {
    read_timeout: Duration,
    in_use: Mutex<HashMap<ClientKey, Weak<reqwest::Client>>>,
}

impl Clients {
    /// `read_timeout`: how long an answer may stand still.
    pub(super) fn new(read_timeout: Duration) -> Self {
        // reqwest takes the process' provider; a second installation is refused and harmless.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { read_timeout, in_use: Mutex::default() }
    }

    /// The client for a base URL, and the URL to use with it (its host differs when `serverName` is set).
    pub(super) fn get(&self, base: &Url, tls: &TlsOptions) -> Result<(Arc<reqwest::Client>, Url), String> {
        let https = base.scheme() == "https";
        let mut url = base.clone();
        let mut key = ClientKey { https, tls: TlsOptions::default(), connect_to: None };
        if https {
            key.tls = tls.clone();
            if let Some(name) = &tls.server_name {
                key.connect_to = base.host_str().map(str::to_owned);
                url.set_host(Some(name)).map_err(|_| format!("tlsConfig.serverName {name:?} is no host name"))?;
            }
        }
        let mut in_use = self.in_use.lock();
        if let Some(client) = in_use.get(&key).and_then(Weak::upgrade) {
            return Ok((client, url));
        }
        in_use.retain(|_, client| client.strong_count() > 0);
        let client = Arc::new(self.build(&key)?);
        in_use.insert(key, Arc::downgrade(&client));
        Ok((client, url))
    }

    fn build(&self, key: &ClientKey) -> Result<reqwest::Client, String> {
        let mut builder = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(self.read_timeout)
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
        if let Some(host) = &key.connect_to {
            // HTTP/1 only: over HTTP/2 the authority would be the TLS name, not the host of the datasource.
            builder = builder.dns_resolver(Arc::new(ConnectTo(host.clone()))).http1_only();
        }
        builder.build().map_err(|error| {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            format!("its TLS settings cannot be used: {reason}")
        })
    }
}

/// `TLS10` to `TLS13` as Go's and Prometheus' configuration spell them; what is too old is raised to 1.2, as upstream does.
fn tls_version(field: &str, text: &str) -> Result<tls::Version, String> {
    match text {
        "TLS10" | "TLS11" | "TLS12" => Ok(tls::Version::TLS_1_2),
        "TLS13" => Ok(tls::Version::TLS_1_3),
        _ => Err(format!("{field}: {text:?} is none of TLS10, TLS11, TLS12, TLS13")),
    }
}

/// Resolves every name to the addresses of one host.
struct ConnectTo(String);

impl Resolve for ConnectTo {
    fn resolve(&self, _: Name) -> Resolving {
        // An IPv6 literal has brackets in a URL.
        let host = self.0.trim_start_matches('[').trim_end_matches(']').to_owned();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
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
        let clients = Clients::new(Duration::from_secs(1));
        let insecure = TlsOptions { insecure: true, ..TlsOptions::default() };
        let (first, _) = clients.get(&url("http://a"), &insecure).unwrap();
        let (second, _) = clients.get(&url("http://b"), &TlsOptions::default()).unwrap();
        assert!(Arc::ptr_eq(&first, &second), "TLS settings do not matter for http");
        let (third, _) = clients.get(&url("https://a"), &insecure).unwrap();
        assert!(!Arc::ptr_eq(&first, &third));
        assert_eq!(clients.in_use.lock().len(), 2);
        drop((first, second, third));
        let _kept = clients.get(&url("http://a"), &insecure).unwrap();
        assert_eq!(clients.in_use.lock().len(), 1);
    }

    #[test]
    fn a_server_name_replaces_the_host_of_the_url() {
        let clients = Clients::new(Duration::from_secs(1));
        let options = TlsOptions { server_name: Some("prom.svc".into()), insecure: true, ..TlsOptions::default() };
        let (_client, target) = clients.get(&url("https://10.0.0.1:9443/base"), &options).unwrap();
        assert_eq!(target.as_str(), "https://prom.svc:9443/base");
    }

    #[test]
    fn wrong_settings_are_named() {
        let clients = Clients::new(Duration::from_secs(1));
        for (options, field) in [
            (TlsOptions { ca: Some("no".into()), ..TlsOptions::default() }, "ca"),
            (TlsOptions { identity: Some("no".into()), insecure: true, ..TlsOptions::default() }, "cert"),
            (TlsOptions { min_version: Some("SSL3".into()), insecure: true, ..TlsOptions::default() }, "minVersion"),
        ] {
            assert!(clients.get(&url("https://a"), &options).unwrap_err().contains(field), "{field}");
        }
    }
}
