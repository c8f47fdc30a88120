//! How Redis is reached: from the configuration to a connection, through sentinels, into a cluster and by TLS where it says so.

use std::path::Path;
use std::time::Duration;

use rand::seq::{IndexedRandom as _, SliceRandom as _};
use redis::cluster::ClusterClientBuilder;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo,
    TlsCertificates, TlsMode,
};

use super::connection::Connection;
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
    /// Several or none.
    #[error(
        "cache.redis needs one of addr, of a server, sentinel.addrs, of those who know the server, and cluster.addrs, of servers \
         of a cluster"
    )]
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
    Cluster(Vec<Address>),
}

/// How often a cluster is asked anew within one command: after a fail-over or a moved slot the first answer leads elsewhere.
const CLUSTER_RETRIES: u32 = 3;
/// Pauses between these attempts, in milliseconds.
const CLUSTER_PAUSES: (u64, u64) = (5, 50);

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
        let all = |key: &'static str, addresses: &[String]| -> Result<Vec<Address>, RedisConfigError> {
            addresses.iter().map(|address| parse(key, address).map(|(address, _)| address)).collect()
        };
        let (place, scheme_tls) = match (config.addr.as_str(), &config.sentinel, &config.cluster) {
            ("", Some(sentinel), None) if !sentinel.addrs.is_empty() => {
                (Place::Sentinels(all("sentinel.addrs", &sentinel.addrs)?), false)
            }
            ("", None, Some(cluster)) if !cluster.addrs.is_empty() => {
                (Place::Cluster(all("cluster.addrs", &cluster.addrs)?), false)
            }
            (address, None, None) if !address.is_empty() => {
                let (address, tls) = parse("addr", address)?;
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
            Place::Sentinels(addresses) | Place::Cluster(addresses) => {
                addresses.iter().map(text).collect::<Vec<_>>().join(",")
            }
        }
    }

    /// A connection for commands. The caller limits the time; `limit` is that of single steps.
    pub(super) async fn connection(&self, limit: Duration) -> Result<Connection, String> {
        let failed = |error: redis::RedisError| error.to_string();
        let Place::Cluster(addresses) = &self.place else {
            let config =
                AsyncConnectionConfig::new().set_connection_timeout(Some(limit)).set_response_timeout(Some(limit));
            let client = self.client().await?;
            let connection = client.get_multiplexed_async_connection_with_config(&config).await;
            return connection.map(Connection::Single).map_err(failed);
        };
        let (settings, certificates) = self.credentials()?;
        let infos = addresses.iter().map(|address| self.info(address, &settings));
        let mut builder = ClusterClientBuilder::new(infos.collect::<Result<Vec<_>, _>>()?)
            .connection_timeout(limit)
            .response_timeout(limit)
            .retries(CLUSTER_RETRIES)
            .min_retry_wait(CLUSTER_PAUSES.0)
            .max_retry_wait(CLUSTER_PAUSES.1);
        if self.tls {
            builder = builder.tls(TlsMode::Secure).certs(certificates);
        }
        let client = builder.build().map_err(failed)?;
        client.get_async_connection().await.map(Connection::Cluster).map_err(failed)
    }

    /// How to sign in, and who vouches for the servers.
    fn credentials(&self) -> Result<(RedisConnectionInfo, TlsCertificates), String> {
        let mut settings = RedisConnectionInfo::default();
        if let Some(username) = &self.config.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = self.password()? {
            settings = settings.set_password(password);
        }
        Ok((settings, TlsCertificates { client_tls: None, root_cert: self.authority()? }))
    }

    fn password(&self) -> Result<Option<String>, String> {
        match &self.config.password_file {
            Some(path) => read("password_file", path).map(Some),
            None => Ok(self.config.password.as_ref().map(|password| password.expose().to_owned())),
        }
    }

    fn authority(&self) -> Result<Option<Vec<u8>>, String> {
        let file = self.config.tls.as_ref().and_then(|tls| tls.ca_file.as_ref());
        file.map(|path| read("tls.ca_file", path).map(String::into_bytes)).transpose()
    }

    fn info(&self, address: &Address, settings: &RedisConnectionInfo) -> Result<ConnectionInfo, String> {
        let info = self.connection_address(address).into_connection_info().map_err(|error| error.to_string())?;
        Ok(info.set_redis_settings(settings.clone()))
    }

    /// A client for the server; sentinels are asked which one that is now. Of a cluster it is any one, which is as good for
    /// hearing what is published. The caller limits the time.
    pub(super) async fn client(&self) -> Result<Client, String> {
        let (settings, certificates) = self.credentials()?;
        let username = self.config.username.as_deref();
        let failed = |error: redis::RedisError| error.to_string();
        let addresses = match &self.place {
            Place::Server(address) => return self.plain(self.info(address, &settings)?, certificates),
            Place::Cluster(addresses) => {
                let any = addresses.choose(&mut rand::rng()).ok_or("no address")?;
                return self.plain(self.info(any, &settings)?, certificates);
            }
            Place::Sentinels(addresses) => addresses,
        };
        // They are asked one after the other: one that hangs must not come first each time.
        let mut addresses: Vec<_> = addresses.iter().map(|address| self.connection_address(address)).collect();
        addresses.shuffle(&mut rand::rng());
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
        if let Some(password) = self.password()? {
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

    fn plain(&self, info: ConnectionInfo, certificates: TlsCertificates) -> Result<Client, String> {
        let client = if self.tls { Client::build_with_tls(info, certificates) } else { Client::open(info) };
        client.map_err(|error| error.to_string())
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
    fn a_server_sentinels_or_a_cluster() {
        let sentinel = config::RedisSentinel {
            addrs: vec!["a:26379".to_owned(), "b:26379".to_owned()],
            master_name: "perses".to_owned(),
            ..config::RedisSentinel::default()
        };
        let with = |addr: &str, sentinel| Source::new(&config::Redis { sentinel: Some(sentinel), ..at(addr) });
        assert_eq!(with("", sentinel.clone()).unwrap().address(), "a:26379,b:26379");
        assert_eq!(with("c:6379", sentinel.clone()).unwrap_err(), RedisConfigError::NoAddress);
        let none = config::RedisSentinel { addrs: Vec::new(), ..sentinel.clone() };
        assert_eq!(with("", none).unwrap_err(), RedisConfigError::NoAddress);
        let cluster = Some(config::RedisCluster { addrs: vec!["d:6379".to_owned(), "e:6379".to_owned()] });
        let source = |config| Source::new(&config);
        assert_eq!(source(config::Redis { cluster: cluster.clone(), ..at("") }).unwrap().address(), "d:6379,e:6379");
        assert_eq!(
            source(config::Redis { cluster: cluster.clone(), ..at("c:6379") }).unwrap_err(),
            RedisConfigError::NoAddress
        );
        let both = config::Redis { cluster, sentinel: Some(sentinel), ..at("") };
        assert_eq!(source(both).unwrap_err(), RedisConfigError::NoAddress);
    }
}
