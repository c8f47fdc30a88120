//! Real backing services for tests: PostgreSQL, PgBouncer, Redis and Prometheus, on loopback, from a cached root; and an
//! OpenID provider, from npm.
//!
//! Each value is a running service. Dropping it ends the service and removes its data; the end of the test process, by
//! whatever cause, does the same. [`shared`] holds one of each for all tests of a binary.

mod api_server;
mod identity_provider;
mod mariadb;
mod mirror;
mod pgbouncer;
mod port;
mod postgres;
mod prometheus;
mod promtool;
mod proxy;
mod redis;
mod redis_cluster;
mod redis_exporter;
mod redis_pods;
pub mod root;
mod sandbox;
pub mod shared;

use std::{fmt::Write as _, time::Duration};

pub use api_server::{ApiServer, Tls};
pub use identity_provider::IdentityProvider;
pub use mariadb::MariaDb;
pub use pgbouncer::{PgBouncer, PoolSettings};
pub use port::Port;
pub use postgres::{Database, Postgres, SUPERUSER, USER};
pub use prometheus::{Prometheus, Scrape};
pub use promtool::promtool;
pub use proxy::TcpProxy;
pub use redis::{Redis, RedisSettings, Sentinel};
pub use redis_cluster::RedisCluster;
pub use redis_exporter::RedisExporter;
pub use redis_pods::{Part, RedisPodTemplate, RedisPods};

/// How long a started service may take until it answers; generous, since tests share few cores.
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// 128 random bits, in letters that need no escape in any of the configuration languages here.
fn random_password() -> String {
    rand::random::<[u8; 16]>().iter().fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}
