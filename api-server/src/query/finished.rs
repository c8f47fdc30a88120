//! Finished answers, in memory and in Redis.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;

use super::lease::Lease;
use super::plan::{BUCKET_MS, Plan, QueryKey};
use super::service::{evicted, now_ms};
use super::stored::Stored;
use crate::cache::redis::RedisTier;
use crate::metrics::{Held, Metrics};

/// Put together from points, an answer need not outlive the bucket in Redis: what comes then is put together again.
const BUCKET: Duration = Duration::from_millis(BUCKET_MS.cast_unsigned());
/// A datasource that could not answer is asked again after this time.
const TROUBLE: Duration = Duration::from_secs(5);
/// Of so many bytes for finished answers one is for the last answers of instant queries, which are wanted in trouble only, and
/// one for what is given then.
const LAST_SHARE: u64 = 8;

/// The last answer of an instant query.
#[derive(Clone)]
struct Last {
    /// The query, but for the time.
    query: Arc<str>,
    /// The time that was asked for, in seconds.
    time: i64,
    stored: Arc<Stored>,
}

/// Entries live as long as their answer says.
struct Lives;

impl Expiry<blake3::Hash, Arc<Stored>> for Lives {
    fn expire_after_create(&self, _: &blake3::Hash, stored: &Arc<Stored>, _: Instant) -> Option<Duration> {
        Some(stored.kept(now_ms()))
    }

    fn expire_after_update(
        &self,
        key: &blake3::Hash,
        stored: &Arc<Stored>,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, stored, now)
    }
}

/// The answers.
pub(super) struct Finished {
    memory: Cache<blake3::Hash, Arc<Stored>>,
    /// What is given while a datasource cannot answer.
    troubled: Cache<blake3::Hash, Arc<Stored>>,
    /// The last answers of instant queries, whatever their time.
    last: Cache<blake3::Hash, Last>,
    redis: Option<Arc<RedisTier>>,
    metrics: Arc<Metrics>,
}

impl Finished {
    /// At most so many bytes in memory.
    pub(super) fn new(max_bytes: u64, redis: Option<Arc<RedisTier>>, metrics: Arc<Metrics>) -> Self {
        let memory = Cache::builder()
            .max_capacity(max_bytes - 2 * (max_bytes / LAST_SHARE))
            .weigher(|_, stored: &Arc<Stored>| stored.weight())
            .expire_after(Lives)
            .eviction_listener(evicted("l1", &metrics))
            .build();
        let last = Cache::builder()
            .max_capacity(max_bytes / LAST_SHARE)
            .weigher(|_, last: &Last| last.stored.weight())
            .time_to_idle(Duration::from_hours(1))
            .build();
        let troubled = Cache::builder()
            .max_capacity(max_bytes / LAST_SHARE)
            .weigher(|_, stored: &Arc<Stored>| stored.weight())
            .time_to_live(TROUBLE)
            .build();
        Self { memory, troubled, last, redis, metrics }
    }

    /// An answer in memory, although its time may be over.
    pub(super) fn known(&self, plan: &Plan) -> Option<Arc<Stored>> {
        self.found(&plan.key).filter(|stored| stored.stored_at_ms > plan.floor.own)
    }

    /// The same, flushed or not.
    pub(super) fn found(&self, key: &QueryKey) -> Option<Arc<Stored>> {
        self.memory.get(&key.hash).filter(|stored| *stored.key == *key.text)
    }

    /// An answer in memory.
    pub(super) fn in_memory(&self, plan: &Plan) -> Option<Arc<Stored>> {
        // The wall clock decides, not only the cache's own timer: a suspended process must not serve old answers.
        self.known(plan).filter(|stored| stored.remaining(now_ms()).is_some())
    }

    /// What was given lately because the datasource could not answer.
    pub(super) fn in_trouble(&self, plan: &Plan) -> Option<Arc<Stored>> {
        let found = self.troubled.get(&plan.key.hash).filter(|stored| *stored.key == *plan.key.text);
        found.filter(|stored| stored.stored_at_ms > plan.floor.own)
    }

    /// Gives this for a moment: the datasource cannot answer.
    pub(super) fn trouble(&self, key: &QueryKey, stored: Arc<Stored>) {
        self.troubled.insert(key.hash, stored);
    }

    /// Takes over what another pod has.
    pub(super) fn insert(&self, key: &QueryKey, stored: Arc<Stored>) {
        self.memory.insert(key.hash, stored);
    }

    /// Notes the newest answer of an instant query.
    pub(super) fn note(&self, plan: &Plan, stored: &Arc<Stored>) {
        if let Some(query) = &plan.anytime {
            let last = Last { query: Arc::from(query.text.as_str()), time: plan.key.bucket, stored: stored.clone() };
            self.last.insert(query.hash, last);
        }
    }

    /// A finished answer whose time has not been over for too long: of this window, or of the same instant query lately.
    pub(super) fn before(&self, plan: &Plan, now: i64) -> Option<Arc<Stored>> {
        let allowance = plan.policy.stale.if_error.0;
        let of_window = self.known(plan);
        let of_query = || {
            let query = plan.anytime.as_ref()?;
            let last = self.last.get(&query.hash).filter(|last| *last.query == *query.text)?;
            (plan.key.bucket.abs_diff(last.time) <= allowance.as_secs()).then_some(last.stored)
        };
        let found = of_window.or_else(of_query).filter(|stored| stored.stored_at_ms > plan.floor.own);
        found.filter(|stored| stored.is_over_for(now) < allowance)
    }

    /// An answer in Redis.
    pub(super) async fn in_redis(&self, plan: &Plan) -> Option<Arc<Stored>> {
        let (redis, key) = (self.redis.as_ref()?, &plan.key);
        let found = redis.get_bytes(&key.redis_name()).await;
        let found = found.and_then(|value| Stored::decode(&value, &key.text, now_ms()));
        let found = found.filter(|stored| stored.stored_at_ms > plan.floor.shared);
        self.metrics.cache("query", "l2", if found.is_some() { "hit" } else { "miss" });
        found.map(Arc::new)
    }

    /// Puts an answer into memory; one that was asked for later is not replaced by an earlier one.
    pub(super) fn keep(&self, key: &QueryKey, stored: &Arc<Stored>) {
        let newer = self.memory.get(&key.hash).is_some_and(|known| known.stored_at_ms > stored.stored_at_ms);
        if !newer && stored.remaining(now_ms()).is_some() {
            self.memory.insert(key.hash, stored.clone());
        }
    }

    /// Drops answers by digest and text of their keys; how many there were, and their bytes.
    pub(super) fn sweep(&self, fits: impl Fn(&blake3::Hash, &str) -> bool) -> Held {
        let mut dropped = Held::default();
        for (hash, stored) in &self.memory {
            if fits(&hash, &stored.key) {
                self.memory.invalidate(&*hash);
                dropped.entries += 1;
                dropped.bytes += u64::from(stored.weight());
            }
        }
        for (hash, stored) in &self.troubled {
            if fits(&hash, &stored.key) {
                self.troubled.invalidate(&*hash);
            }
        }
        for (hash, last) in &self.last {
            if fits(&hash, &last.query) {
                self.last.invalidate(&*hash);
            }
        }
        dropped
    }

    /// How much there is.
    pub(super) fn held(&self) -> Held {
        self.memory.run_pending_tasks();
        Held { entries: self.memory.entry_count(), bytes: self.memory.weighted_size() }
    }

    /// Gives an answer to other pods, and tells those that wait for it. One that points give again lives for a bucket.
    pub(super) fn share(&self, key: &QueryKey, kept: Option<Arc<Stored>>, has_points: bool, lease: Option<Lease>) {
        let Some(redis) = self.redis.clone() else { return };
        let name = key.redis_name();
        // Nobody waits for Redis, and the end of the flight must not end this.
        tokio::spawn(async move {
            let life = kept.as_ref().and_then(|stored| stored.remaining(now_ms()));
            let life = life.map(|life| if has_points { life.min(BUCKET) } else { life });
            let mut is_there = false;
            if let (Some(stored), Some(life)) = (kept, life)
                && let Some(value) = stored.encode()
            {
                is_there = redis.set_bytes(&name, &value, life).await;
                // Others wait for it.
                if !is_there && lease.is_some() && redis.is_available() {
                    is_there = redis.set_bytes(&name, &value, life).await;
                }
            }
            match lease {
                Some(lease) if is_there => lease.published().await,
                Some(lease) => lease.nothing().await,
                None => {}
            }
        });
    }
}
