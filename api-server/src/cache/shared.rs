//! L2: encoded dashboards in Redis, shared by all pods (seed section 4.1: `dashboard:config:`).
//!
//! A value begins with its revision; scripts compare it, so neither a late fill nor a late invalidation goes backwards.
//! An invalidation leaves a tombstone that refuses late fills of other pods. What could not be invalidated because Redis
//! was away is remembered; until that is made up for, nothing is read from Redis.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use redis::Script;

use super::Encoded;
use super::memory::wall_clock;
use super::redis::{Outcome, RedisTier};
use crate::domain::document::Key;
use crate::domain::kind::Kind;
use crate::store::Change;

/// The first part is the version of the format: another format gets other keys.
const PREFIX: &str = "v1:dashboard:config:";
/// Longer than the longest fill (30 s).
const TOMBSTONE_LIFE: Duration = Duration::from_mins(1);
/// Invalidations remembered while Redis is away; beyond that the whole family is dropped when it is back.
const MOST_PENDING: usize = 10_000;
/// Invalidations that are sent together.
const BATCH: usize = 256;
/// Digits of a revision at the start of a value; fixed, so that texts compare like numbers.
const REVISION_DIGITS: usize = 19;

/// Sets a value unless a newer one, or a newer tombstone, is there.
static FILL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local present = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1)
          if present ~= '' and present > ARGV[1] then return 0 end
          redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
          return 1",
    )
});

/// Puts a tombstone unless what is there is as new. One key at a time: in a cluster each may be at another server.
static INVALIDATE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local present = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1] - 1)
          if present == '' or present < ARGV[1] then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
          return 1",
    )
});

/// Invalidations that Redis does not know yet.
#[derive(Debug, Default)]
struct Pending {
    keys: HashMap<Key, i64>,
    /// Too many to remember: everything goes.
    all: bool,
}

/// What a look into Redis found.
#[derive(Debug)]
pub(super) enum Look {
    /// A document, and when it was read from the store (milliseconds since the epoch).
    Found(Encoded, u64),
    /// None, or a tombstone.
    Nothing,
    /// Redis is away, or must not be trusted yet.
    Skipped,
    /// Redis failed.
    Failed,
}

/// The tier.
#[derive(Debug)]
pub(super) struct Shared {
    redis: Arc<RedisTier>,
    ttl: Duration,
    pending: Mutex<Pending>,
    /// Whether `pending` holds anything, or its repair is under way.
    distrusted: AtomicBool,
    repairing: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(super) fn new(redis: Arc<RedisTier>, ttl: Duration) -> Self {
        Self {
            redis,
            ttl,
            pending: Mutex::default(),
            distrusted: AtomicBool::new(false),
            repairing: tokio::sync::Mutex::default(),
        }
    }

    /// Only dashboards are shared: they are large, many, and read by everybody.
    pub(super) const fn holds(key: &Key) -> bool {
        matches!(key.kind, Kind::Dashboard)
    }

    pub(super) fn redis(&self) -> &RedisTier {
        &self.redis
    }

    pub(super) async fn get(&self, key: &Key) -> Look {
        if self.distrusted.load(Ordering::Acquire) {
            return Look::Skipped;
        }
        match self.redis.get(&redis_key(key)).await {
            Outcome::Answer(None) => Look::Nothing,
            Outcome::Answer(Some(value)) => match decode(key, &value) {
                // An invalidation may have failed while this answer was on its way.
                Some(_) if self.distrusted.load(Ordering::Acquire) => Look::Skipped,
                // Redis drops values by its own clock; ours counts too, in case Redis' stood still.
                Some((entry, read_at)) if wall_clock() < read_at.saturating_add(millis(self.ttl)) => {
                    Look::Found(entry, read_at)
                }
                _ => Look::Nothing,
            },
            Outcome::Away => Look::Skipped,
            Outcome::Failed => Look::Failed,
        }
    }

    /// Offers a document; Redis refuses what is older than what it has. `read_at` in milliseconds since the epoch.
    pub(super) async fn fill(&self, key: &Key, entry: &Encoded, read_at: u64) {
        if self.distrusted.load(Ordering::Acquire) || !self.redis.is_available() {
            return;
        }
        let value = encode(key, entry, read_at);
        let mut invocation = FILL.prepare_invoke();
        invocation.key(redis_key(key)).arg(revision_text(entry.revision)).arg(&value[..]).arg(millis(self.ttl));
        self.redis.run("EVALSHA", async |mut connection| invocation.invoke_async::<i64>(&mut connection).await).await;
    }

    /// Makes older values of these keys unusable for all pods, now or as soon as Redis is back.
    pub(super) async fn invalidate(&self, changes: &[Change]) {
        let keys: Vec<(Key, i64)> = changes
            .iter()
            .filter(|change| Self::holds(&change.key))
            .map(|change| (change.key.clone(), change.revision))
            .collect();
        for batch in keys.chunks(BATCH) {
            if !self.put_tombstones(batch).await {
                self.remember(batch);
            }
        }
    }

    /// Drops the whole family when Redis can be reached, else as soon as it can.
    pub(super) async fn clear(&self) {
        {
            let mut pending = self.pending.lock();
            *pending = Pending { keys: HashMap::new(), all: true };
            self.distrusted.store(true, Ordering::Release);
        }
        self.repair().await;
    }

    /// Makes up for invalidations that failed. Called regularly; does nothing when there is nothing to do.
    pub(super) async fn repair(&self) {
        if !self.distrusted.load(Ordering::Acquire) || !self.redis.is_available() {
            return;
        }
        let Ok(_guard) = self.repairing.try_lock() else { return };
        loop {
            let (all, batch) = {
                let mut pending = self.pending.lock();
                if pending.keys.is_empty() && !pending.all {
                    // Under the lock: whoever remembers something after this sets the flag again.
                    self.distrusted.store(false, Ordering::Release);
                    return;
                }
                let all = std::mem::take(&mut pending.all);
                let names: Vec<Key> = pending.keys.keys().take(BATCH).cloned().collect();
                let batch: Vec<_> = names.iter().filter_map(|key| pending.keys.remove_entry(key)).collect();
                (all, batch)
            };
            let done = if all { self.drop_all().await } else { true };
            if !done {
                self.pending.lock().all = true;
            }
            let done = done && (batch.is_empty() || self.put_tombstones(&batch).await);
            if !done {
                self.remember(&batch);
                return;
            }
        }
    }

    fn remember(&self, batch: &[(Key, i64)]) {
        let mut pending = self.pending.lock();
        for (key, revision) in batch {
            let known = pending.keys.entry(key.clone()).or_insert(*revision);
            *known = (*known).max(*revision);
        }
        if pending.keys.len() > MOST_PENDING {
            *pending = Pending { keys: HashMap::new(), all: true };
        }
        self.distrusted.store(true, Ordering::Release);
    }

    async fn put_tombstones(&self, batch: &[(Key, i64)]) -> bool {
        let puts = batch.iter().map(|(key, revision)| self.put_tombstone(key, *revision));
        join_all(puts).await.into_iter().all(|put| put)
    }

    async fn put_tombstone(&self, key: &Key, revision: i64) -> bool {
        let mut invocation = INVALIDATE.prepare_invoke();
        invocation.key(redis_key(key)).arg(revision_text(revision)).arg(millis(TOMBSTONE_LIFE));
        self.redis
            .run("EVALSHA", async |mut connection| invocation.invoke_async::<i64>(&mut connection).await)
            .await
            .answer()
            .is_some()
    }

    async fn drop_all(&self) -> bool {
        let pattern = format!("{PREFIX}*");
        let scanned = self.redis.run("SCAN", async |mut connection| connection.scan(&pattern).await).await;
        let Outcome::Answer(mut pages) = scanned else { return false };
        while let Some(page) = pages.pop() {
            if !self.unlink(&page.keys).await {
                return false;
            }
            let next = self.redis.run("SCAN", async |mut connection| connection.scan_on(&page, &pattern).await).await;
            let Outcome::Answer(next) = next else { return false };
            pages.extend(next);
        }
        true
    }

    async fn unlink(&self, keys: &[Bytes]) -> bool {
        if keys.is_empty() {
            return true;
        }
        let mut command = redis::cmd("UNLINK");
        for key in keys {
            command.arg(&key[..]);
        }
        let run = self.redis.run("UNLINK", async |mut connection| command.query_async::<()>(&mut connection).await);
        run.await.answer().is_some()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Names hold no colon, so keys of different documents differ.
fn redis_key(key: &Key) -> String {
    format!("{PREFIX}{}:{}", key.project.as_deref().unwrap_or_default(), key.name)
}

fn revision_text(revision: i64) -> String {
    format!("{:0width$}", revision.max(0), width = REVISION_DIGITS)
}

/// `<revision> <version> <read at> <project/name>\n<body>`; a tombstone is the revision alone.
fn encode(key: &Key, entry: &Encoded, read_at: u64) -> Vec<u8> {
    let head = format!("{} {} {read_at} {}\n", revision_text(entry.revision), entry.version, key.path());
    let mut value = Vec::with_capacity(head.len() + entry.body.len());
    value.extend_from_slice(head.as_bytes());
    value.extend_from_slice(&entry.body);
    value
}

/// `None` for tombstones, and for whatever is not a value of this very document.
fn decode(key: &Key, value: &Bytes) -> Option<(Encoded, u64)> {
    let end = value.iter().take(512).position(|byte| *byte == b'\n')?;
    let head = std::str::from_utf8(&value[..end]).ok()?;
    let mut parts = head.split(' ');
    let revision = parts.next()?.parse().ok()?;
    let version = parts.next()?.parse().ok()?;
    let read_at = parts.next()?.parse().ok()?;
    if parts.next()? != key.path() || parts.next().is_some() {
        return None;
    }
    Some((Encoded::new(value.slice(end + 1..), version, revision), read_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_back_for_its_own_key_only() {
        let key = Key::in_project(Kind::Dashboard, "p", "d");
        let entry = Encoded::new(Bytes::from_static(b"{\"a\":1}\n"), 4, 42);
        let value = Bytes::from(encode(&key, &entry, 1_700_000_000_000));
        assert!(value.starts_with(revision_text(42).as_bytes()));
        assert_eq!(decode(&key, &value), Some((entry, 1_700_000_000_000)));
        assert_eq!(decode(&Key::in_project(Kind::Dashboard, "p", "e"), &value), None);
        assert_eq!(decode(&key, &Bytes::from(revision_text(42))), None, "a tombstone");
        assert_eq!(decode(&key, &Bytes::from_static(b"junk\n{}")), None);
    }

    #[test]
    fn revisions_compare_as_texts() {
        let mut revisions = [0, 9, 10, 99, 1_763_932_968_000_000, i64::MAX];
        assert!(revisions.is_sorted_by_key(|revision| revision_text(*revision)));
        revisions.reverse();
        assert!(!revisions.is_sorted_by_key(|revision| revision_text(*revision)));
    }
}
