//! What the operator's own environment says: parsed once in `cli`, passed as an argument, never read again.

use std::fmt;

use crate::certificate::{Made, State};

/// Container images that a stack gets when its spec names none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultImages {
    /// The API server.
    pub api_server: String,
    /// Redis.
    pub redis: String,
    /// PgBouncer.
    pub pgbouncer: String,
    /// PostgreSQL 17.
    pub postgres: String,
    /// Prometheus exporter for PgBouncer.
    pub pgbouncer_exporter: String,
    /// Prometheus exporter for Redis.
    pub redis_exporter: String,
}

impl Default for DefaultImages {
    fn default() -> Self {
        Self {
            api_server: concat!("ghcr.io/perses-stack/api-server:v", env!("CARGO_PKG_VERSION")).to_owned(),
            redis: "docker.io/library/redis:8.2.1".to_owned(),
            pgbouncer: "docker.io/edoburu/pgbouncer:v1.24.1-p1".to_owned(),
            postgres: "docker.io/library/postgres:17.6".to_owned(),
            pgbouncer_exporter: "quay.io/prometheuscommunity/pgbouncer-exporter:v0.12.1".to_owned(),
            redis_exporter: "docker.io/oliver006/redis_exporter:v1.74.0".to_owned(),
        }
    }
}

/// Settings of the operator that decide what it builds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `RELATED_IMAGE_*`.
    pub images: DefaultImages,
    /// Namespace that is watched; `None` is every namespace (`WATCH_NAMESPACE`).
    pub watch_namespace: Option<String>,
    /// Namespace of the operator itself (`POD_NAMESPACE`); holds the leader lease.
    pub namespace: String,
    /// Stacks that may replace their pods at the same time because of a newer operator; 0 is no limit.
    pub max_rolling: usize,
}

impl Settings {
    /// Settings from the operator's environment, read through `get` so that this stays pure.
    pub fn from_lookup(get: impl Fn(&str) -> Option<String>) -> Self {
        let value = |name: &str| get(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let defaults = DefaultImages::default();
        Self {
            images: DefaultImages {
                api_server: value("RELATED_IMAGE_API_SERVER").unwrap_or(defaults.api_server),
                redis: value("RELATED_IMAGE_REDIS").unwrap_or(defaults.redis),
                pgbouncer: value("RELATED_IMAGE_PGBOUNCER").unwrap_or(defaults.pgbouncer),
                postgres: value("RELATED_IMAGE_POSTGRES").unwrap_or(defaults.postgres),
                pgbouncer_exporter: value("RELATED_IMAGE_PGBOUNCER_EXPORTER").unwrap_or(defaults.pgbouncer_exporter),
                redis_exporter: value("RELATED_IMAGE_REDIS_EXPORTER").unwrap_or(defaults.redis_exporter),
            },
            watch_namespace: value("WATCH_NAMESPACE"),
            namespace: value("POD_NAMESPACE").unwrap_or_else(|| "default".to_owned()),
            max_rolling: 0,
        }
    }
}

/// Random bytes for the Secrets that are generated once; drawn by the caller so that building stays pure.
///
/// A value is used only when the Secret that it is for does not exist, or when it is replaced.
#[derive(Clone)]
pub struct Entropy {
    /// `<stack>-keys`.
    pub encryption_key: [u8; 32],
    /// `<stack>-admin`.
    pub admin_password: [u8; 24],
    /// `<stack>-redis`.
    pub redis_password: [u8; 24],
    /// `<stack>-redis-peers`.
    pub redis_peer_password: [u8; 24],
    /// `<stack>-db`.
    pub database_password: [u8; 24],
    /// `<stack>-pgbouncer-client`.
    pub pooler_password: [u8; 24],
    /// `<stack>-pgbouncer-tls`; empty when no such Secret is to be made.
    pub pooler_certificate: Made,
    /// The same, in place of what it holds: of this one something was due.
    pub pooler_renewal: Option<Made>,
}

impl Entropy {
    /// Reproducible bytes for `render` and golden tests. Not random: never for a cluster.
    pub fn fixed() -> Self {
        let bytes = |label: &str| *blake3::hash(label.as_bytes()).as_bytes();
        let short = |label: &str| {
            let mut out = [0; 24];
            out.copy_from_slice(&bytes(label)[..24]);
            out
        };
        Self {
            encryption_key: bytes("encryption-key"),
            admin_password: short("admin"),
            redis_password: short("redis"),
            redis_peer_password: short("redis-peers"),
            database_password: short("database"),
            pooler_password: short("pooler"),
            pooler_certificate: Made {
                data: [("ca.crt", ""), ("ca.key", ", secret"), ("tls.crt", ""), ("tls.key", ", secret")]
                    .map(|(key, kind)| (key.to_owned(), format!("(made by the operator{kind})\n").into_bytes()))
                    .into(),
                state: State::default(),
            },
            pooler_renewal: None,
        }
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy(redacted)")
    }
}
