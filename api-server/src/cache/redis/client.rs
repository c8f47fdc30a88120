//! How Redis is reached: from the configuration to a client, through sentinels and TLS where it says so.

use std::path::Path;

use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates, TlsMode};

use crate::config;

/// The configured address cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedisConfigError {
    /// Not `host:port`.
    #[error("cache.redis.{key} {address:?} is not an address such as redis:6379")]
    Address {
        /// Key under `cache.redis`.
        key: &'static str,
        /// As written.
        address: String,
    },
    /// Both or none.
    #[error("cache.redis needs either addr, of a server, or sentinel.addrs, of those who know the server")]
    NoAddress,
}

/// A host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
}

/// Where to look for the server.
#[derive(Debug, Clone)]
enum Place {
    Server(Address),
    Sentinels(Vec<Address>),
}

/// Makes clients; files with passwords and certificates are read each time, since they change when they are rotated.
#[derive(Debug)]
pub(super) struct Source {
    config: config::Redis,
    place: Place,
    tls: bool,
}

impl Source {
    /// Checks the addresses.
    pub(super) fn new(config: &config::Redis) -> Result<Self, RedisConfigError> {
        let (place, scheme_tls) = match &config.sentinel {
            Some(sentinel) if config.addr.is_empty() && !sentinel.addrs.is_empty() => {
                let parsed = sentinel.addrs.iter().map(|address| parse("sentinel.addrs", address).map(|(a, _)| a));
                (Place::Sentinels(parsed.collect::<Result<_, _>>()?), false)
            }
            None if !config.addr.is_empty() => {
                let (address, tls) = parse("addr", &config.addr)?;
                (Place::Server(address), tls)
            }
            _ => return Err(RedisConfigError::NoAddress),
        };
        Ok(Self { config: config.clone(), place, tls: config.tls.is_some() || scheme_tls })
    }

    /// For logs.
    pub(super) fn address(&self) -> String {
        let text = |address: &Address| format!("{}:{}", address.host, address.port);
        match &self.place {
            Place::Server(address) => text(address),
            Place::Sentinels(addresses) => addresses.iter().map(text).collect::<Vec<_>>().join(","),
        }
    }

    /// A client for the server; sentinels are asked which one that is now. The caller limits the time.
    pub(super) async fn client(&self) -> Result<Client, String> {
        let username = self.config.username.as_deref();
        let password = match &self.config.password_file {
            Some(path) => Some(read("password_file", path)?),
            None => self.config.password.as_ref().map(|password| password.expose().to_owned()),
        };
        let ca = match self.config.tls.as_ref().and_then(|tls| tls.ca_file.as_ref()) {
            Some(path) => Some(read("tls.ca_file", path)?.into_bytes()),
            None => None,
        };
        let certificates = TlsCertificates { client_tls: None, root_cert: ca };
        let failed = |error: redis::RedisError| error.to_string();
        let addresses = match &self.place {
            Place::Server(address) => {
                let mut settings = RedisConnectionInfo::default();
                if let Some(username) = username {
                    settings = settings.set_username(username);
                }
                if let Some(password) = password {
                    settings = settings.set_password(password);
                }
                let info = self.connection_address(address).into_connection_info().map_err(failed)?;
                let info = info.set_redis_settings(settings);
                let client = if self.tls { Client::build_with_tls(info, certificates) } else { Client::open(info) };
                return client.map_err(failed);
            }
            Place::Sentinels(addresses) => addresses.iter().map(|address| self.connection_address(address)),
        };
        let sentinel = self.config.sentinel.clone().unwrap_or_default();
        let mut builder =
            SentinelClientBuilder::new(addresses, &sentinel.master_name, SentinelServerType::Master).map_err(failed)?;
        if self.tls {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_certificates(certificates);
        }
        if let Some(username) = username {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = password {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(username) = &sentinel.username {
            builder = builder.set_client_to_sentinel_username(username);
        }
        if let Some(path) = &sentinel.password_file {
            builder = builder.set_client_to_sentinel_password(read("sentinel.password_file", path)?);
        }
        builder.build().map_err(failed)?.async_get_client().await.map_err(failed)
    }

    fn connection_address(&self, address: &Address) -> ConnectionAddr {
        let Address { host, port } = address.clone();
        if self.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    }
}

fn read(key: &str, path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
        .map_err(|error| format!("cannot read cache.redis.{key} {}: {error}", path.display()))
}

/// An address, `host:port` or a `redis://` address, and whether it asks for TLS.
fn parse(key: &'static str, address: &str) -> Result<(Address, bool), RedisConfigError> {
    let refused = || RedisConfigError::Address { key, address: address.to_owned() };
    if address.is_empty() || address.starts_with(':') {
        return Err(refused());
    }
    let url = if address.contains("://") { address.to_owned() } else { format!("redis://{address}") };
    let info = url.into_connection_info().map_err(|_| refused())?;
    match info.addr() {
        ConnectionAddr::Tcp(host, port) => Ok((Address { host: host.clone(), port: *port }, false)),
        ConnectionAddr::TcpTls { host, port, .. } => Ok((Address { host: host.clone(), port: *port }, true)),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(addr: &str) -> config::Redis {
        config::Redis { addr: addr.to_owned(), ..config::Redis::default() }
    }

    #[test]
    fn addresses_are_checked_at_the_start() {
        let source = Source::new(&at("redis.example:6380")).unwrap();
        assert_eq!((source.address().as_str(), source.tls), ("redis.example:6380", false));
        assert!(Source::new(&at("rediss://redis.example")).unwrap().tls);
        for bad in ["", ":6379", "redis:port", "unix:///x"] {
            assert!(Source::new(&at(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn either_a_server_or_sentinels() {
        let sentinel = config::RedisSentinel {
            addrs: vec!["a:26379".to_owned(), "b:26379".to_owned()],
            master_name: "perses".to_owned(),
            ..config::RedisSentinel::default()
        };
        let with = |addr: &str, sentinel| Source::new(&config::Redis { sentinel: Some(sentinel), ..at(addr) });
        assert_eq!(with("", sentinel.clone()).unwrap().address(), "a:26379,b:26379");
        assert_eq!(with("c:6379", sentinel.clone()).unwrap_err(), RedisConfigError::NoAddress);
        let none = config::RedisSentinel { addrs: Vec::new(), ..sentinel };
        assert_eq!(with("", none).unwrap_err(), RedisConfigError::NoAddress);
    }
}
