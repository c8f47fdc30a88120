//! One instance of each service for all tests of a binary, started by the first test that asks.
//!
//! Tests stay apart by a database ([`Postgres::create_database`]) or a key prefix ([`unique`]) of their own. A test that
//! stops, pauses or counts a service starts one for itself instead.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use tokio::sync::OnceCell;

use crate::services::{PgBouncer, PoolSettings, Postgres, Prometheus, Redis};

// Statics are never dropped: the end of the process ends the services.
static POSTGRES: OnceCell<Postgres> = OnceCell::const_new();
static REPLICA: OnceCell<Postgres> = OnceCell::const_new();
static PGBOUNCER: OnceCell<PgBouncer> = OnceCell::const_new();
static REDIS: OnceCell<Redis> = OnceCell::const_new();
static PROMETHEUS: OnceCell<Prometheus> = OnceCell::const_new();

/// The shared PostgreSQL.
pub async fn postgres() -> Result<&'static Postgres> {
    POSTGRES.get_or_try_init(Postgres::start).await
}

/// A streaming standby of the shared PostgreSQL.
pub async fn replica() -> Result<&'static Postgres> {
    let postgres = postgres().await?;
    REPLICA.get_or_try_init(|| postgres.replica()).await
}

/// The shared PgBouncer, in front of the shared PostgreSQL.
pub async fn pgbouncer() -> Result<&'static PgBouncer> {
    let postgres = postgres().await?;
    PGBOUNCER.get_or_try_init(|| PgBouncer::start(postgres, PoolSettings::default())).await
}

/// The shared Redis, open to anybody on loopback.
pub async fn redis() -> Result<&'static Redis> {
    REDIS.get_or_try_init(Redis::start).await
}

/// The shared Prometheus, which scrapes itself.
pub async fn prometheus() -> Result<&'static Prometheus> {
    PROMETHEUS.get_or_try_init(|| Prometheus::start(&[])).await
}

/// A name that no other test of this process gets, for key prefixes and projects.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
