//! Cache of encoded documents: L1 in the process ([`memory`]), L2 in Redis ([`shared`]), kept true by the changes tail
//! ([`tail`]).
//!
//! Invariants: an entry carries the revision of its document; an invalidation raises the floor of its key, and a fill below
//! the floor is refused in both tiers, so a slow reader never puts an old document back. What Redis has is measured by
//! this process' floors too, so an old value there is never served. Redis down means slower, never wrong and never an
//! error.

mod memory;
pub mod redis;
mod shared;
pub mod tail;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::OnceCell;

use self::memory::{Memory, ReadAt, wall_clock};
use self::redis::RedisTier;
use self::shared::{Look, Shared};
use crate::domain::document::Key;
use crate::metrics::Metrics;
use crate::negotiate;
use crate::store::Change;

/// A document ready to be sent.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The body of a GET, final newline included.
    pub body: Bytes,
    /// `metadata.version`: the strong validator (`ETag`) is made of it and of the revision.
    pub version: u64,
    /// The store's revision of the document.
    pub revision: i64,
    /// The body compressed, once somebody asked for it; shared by all copies of the entry.
    gzip: Arc<OnceCell<Option<Bytes>>>,
}

impl PartialEq for Encoded {
    fn eq(&self, other: &Self) -> bool {
        (self.revision, self.version, &self.body) == (other.revision, other.version, &other.body)
    }
}

impl Eq for Encoded {}

impl Encoded {
    /// A body with its validators.
    pub fn new(body: impl Into<Bytes>, version: u64, revision: i64) -> Self {
        Self { body: body.into(), version, revision, gzip: Arc::default() }
    }

    /// The body compressed: made once, beside the requests, whoever asks first. `None` when that failed.
    pub async fn gzip(&self) -> Option<Bytes> {
        let compress = || async {
            let body = self.body.clone();
            let packed = tokio::task::spawn_blocking(move || negotiate::gzip(&body)).await;
            packed.ok()?.ok().map(Bytes::from)
        };
        self.gzip.get_or_init(compress).await.clone()
    }

    /// Bytes that the entry takes, its compressed form included: JSON shrinks to less than a quarter.
    fn weight(&self) -> usize {
        self.body.len() + self.body.len() / 4
    }
}

/// Which tier answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The process' own memory.
    L1,
    /// Redis.
    L2,
}

impl Tier {
    /// The word in `Cache-Status` and in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "l1",
            Self::L2 => "l2",
        }
    }
}

/// What else must hear of changes: told in step with the caches, before a write is answered.
pub trait Listener: Send + Sync + std::fmt::Debug {
    /// These documents changed.
    fn changed(&self, changes: &[Change]);
    /// It is not known what changed.
    fn lost(&self);
}

/// Both tiers.
///
/// Kinds that hold secrets are never cached. Hits are counted by the caller, everything else here.
#[derive(Debug)]
pub struct DocumentCache {
    memory: Memory,
    shared: Option<Shared>,
    metrics: Arc<Metrics>,
    listeners: parking_lot::RwLock<Vec<Arc<dyn Listener>>>,
}

impl DocumentCache {
    /// A cache of at most `max_bytes` in this process. Redis is the second tier when it is given, where entries live for
    /// `ttl` (at most 10 minutes); it is of use only with a store that several processes share.
    pub fn new(max_bytes: u64, ttl: Duration, redis: Option<Arc<RedisTier>>, metrics: Arc<Metrics>) -> Self {
        // Floors protect from old values in Redis only as long as they are kept.
        let shared = redis.map(|redis| Shared::new(redis, ttl.min(memory::FLOOR_LIFE)));
        Self { memory: Memory::new(max_bytes), shared, metrics, listeners: parking_lot::RwLock::default() }
    }

    /// Tells a listener of every change from now on.
    pub fn listen(&self, listener: Arc<dyn Listener>) {
        self.listeners.write().push(listener);
    }

    /// Looks a document up, in this process first.
    pub async fn get(&self, key: &Key) -> Option<(Encoded, Tier)> {
        if let Some(entry) = self.memory.get(key) {
            return Some((entry, Tier::L1));
        }
        let shared = self.shared.as_ref().filter(|_| Shared::holds(key))?;
        let result = match shared.get(key).await {
            Look::Found(entry, read_at) => {
                if self.memory.fill(key, entry.clone(), ReadAt::Elsewhere(read_at)) {
                    return Some((entry, Tier::L2));
                }
                "stale"
            }
            Look::Nothing => "miss",
            Look::Skipped => "skipped",
            Look::Failed => "error",
        };
        self.metrics.cache("dashboard", "l2", result);
        None
    }

    /// Offers what was read from the store's primary; `read_started` is from before the read. `false` when it may be stale.
    pub async fn fill(&self, key: &Key, entry: Encoded, read_started: Instant) -> bool {
        if key.kind.holds_secrets() {
            return false;
        }
        if !self.memory.fill(key, entry.clone(), ReadAt::Here(read_started)) {
            self.metrics.cache("dashboard", "l1", "refused");
            return false;
        }
        if let Some(shared) = self.shared.as_ref().filter(|_| Shared::holds(key)) {
            let age = u64::try_from(read_started.elapsed().as_millis()).unwrap_or(u64::MAX);
            shared.fill(key, &entry, wall_clock().saturating_sub(age)).await;
        }
        true
    }

    /// After a write of this process: both tiers, and a hint to the other pods.
    pub async fn invalidate(&self, changes: &[Change]) {
        self.apply(changes).await;
        if let Some(shared) = &self.shared {
            shared.redis().publish_hint().await;
        }
    }

    /// What the changes tail brought: both tiers. Repeating it does no harm.
    pub async fn apply(&self, changes: &[Change]) {
        self.memory.invalidate(changes);
        self.listeners.read().iter().for_each(|listener| listener.changed(changes));
        if let Some(shared) = &self.shared {
            shared.invalidate(changes).await;
        }
    }

    /// Drops everything in both tiers: it is not known what changed, and revisions may have started over.
    pub async fn start_over(&self) {
        self.distrust();
        if let Some(shared) = &self.shared {
            shared.clear().await;
        }
    }

    /// Serves nothing that was read before now, by whomever. To be repeated for as long as changes cannot be known.
    pub fn distrust(&self) {
        self.memory.start_over();
        self.listeners.read().iter().for_each(|listener| listener.lost());
    }

    /// Drops what this process holds, and refuses what it has begun to read.
    pub fn clear_memory(&self) {
        self.memory.clear();
        self.listeners.read().iter().for_each(|listener| listener.lost());
    }

    /// Makes up for invalidations that Redis could not take. To be called regularly.
    pub async fn repair(&self) {
        if let Some(shared) = &self.shared {
            shared.repair().await;
        }
    }

    /// Waits for a hint that some pod wrote; for ever without Redis.
    pub async fn hinted(&self) {
        match &self.shared {
            Some(shared) => shared.redis().hinted().await,
            None => std::future::pending().await,
        }
    }

    /// Bytes held in this process, approximately.
    pub fn bytes(&self) -> u64 {
        self.memory.bytes()
    }
}
