//! L1: encoded documents in the memory of this process, bounded by bytes, with a revision floor for every key that was
//! written lately.
//!
//! Invariant: what `get` returns is never below the floor of its key. Floor and entry of a key change under one lock.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use moka::sync::Cache;
use parking_lot::Mutex;

use super::Encoded;
use crate::domain::document::Key;
use crate::store::Change;

const SHARDS: usize = 32;
/// How long floors are kept at least: longer than any fill takes, and than any entry of Redis lives by default.
pub(super) const FLOOR_LIFE: Duration = Duration::from_mins(10);
/// Fills whose read began longer ago are refused: floors need not remember for ever.
const OLDEST_FILL: Duration = Duration::from_secs(30);
/// Floors of a shard at most; beyond it the oldest go, and with them the trust in fills that began before.
const MOST_FLOORS: usize = 4096;
/// What an entry takes beside its body and name: key, entry, bookkeeping of the cache (measured, rounded up).
const ENTRY_OVERHEAD: usize = 400;
/// Clocks of pods may differ by this much, in milliseconds.
const CLOCK_SKEW: u64 = 5_000;

/// Milliseconds since the epoch.
pub(super) fn wall_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[derive(Debug, Clone, Copy)]
struct Floor {
    revision: i64,
    raised: Instant,
}

/// Floors of the keys of one shard.
#[derive(Debug, Default)]
struct Shard {
    floors: HashMap<Key, Floor>,
    /// What this process read before may be stale without anybody knowing.
    distrusted: Option<Instant>,
    /// The same of other processes, by their clocks.
    distrusted_elsewhere: u64,
    /// Tidy up when the map has grown to this.
    tidy_at: usize,
}

impl Shard {
    fn raise(&mut self, key: &Key, revision: i64) {
        let now = Instant::now();
        match self.floors.get_mut(key) {
            Some(floor) => *floor = Floor { revision: floor.revision.max(revision), raised: now },
            None => {
                self.floors.insert(key.clone(), Floor { revision, raised: now });
            }
        }
        if self.floors.len() > self.tidy_at.max(256) {
            self.tidy(now);
        }
    }

    fn tidy(&mut self, now: Instant) {
        self.floors.retain(|_, floor| now.duration_since(floor.raised) < FLOOR_LIFE);
        if self.floors.len() >= MOST_FLOORS {
            let mut raised: Vec<Instant> = self.floors.values().map(|floor| floor.raised).collect();
            raised.sort_unstable();
            let oldest = raised[raised.len() / 2];
            self.floors.retain(|_, floor| floor.raised > oldest);
            self.distrust(now);
        }
        self.tidy_at = (self.floors.len() * 2).min(MOST_FLOORS);
    }

    /// Floors were forgotten.
    fn distrust(&mut self, now: Instant) {
        self.distrusted = Some(now);
        self.distrusted_elsewhere = wall_clock() + CLOCK_SKEW;
    }

    fn allows(&self, key: &Key, revision: i64) -> bool {
        self.floors.get(key).is_none_or(|floor| revision >= floor.revision)
    }
}

/// When the bytes of a fill were read from the store.
#[derive(Debug, Clone, Copy)]
pub(super) enum ReadAt {
    /// By this process.
    Here(Instant),
    /// By another one; its clock, in milliseconds since the epoch.
    Elsewhere(u64),
}

/// The tier.
#[derive(Debug)]
pub(super) struct Memory {
    entries: Cache<Key, Encoded>,
    shards: Vec<Mutex<Shard>>,
    hasher: std::hash::RandomState,
}

impl Memory {
    /// A cache that holds at most `max_bytes`.
    pub(super) fn new(max_bytes: u64) -> Self {
        let entries = Cache::builder()
            .max_capacity(max_bytes)
            .weigher(|key: &Key, entry: &Encoded| {
                let name = key.name.len() + key.project.as_ref().map_or(0, String::len);
                u32::try_from(entry.weight() + name + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
            })
            .build();
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { entries, shards, hasher: std::hash::RandomState::new() }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Encoded> {
        self.entries.get(key)
    }

    /// Puts an entry in, unless it is or may be older than what is known of the key.
    pub(super) fn fill(&self, key: &Key, entry: Encoded, read: ReadAt) -> bool {
        let shard = self.shard(key).lock();
        let fresh = match read {
            ReadAt::Here(at) => at.elapsed() < OLDEST_FILL && shard.distrusted.is_none_or(|before| at > before),
            ReadAt::Elsewhere(at) => at > shard.distrusted_elsewhere,
        };
        if !fresh || !shard.allows(key, entry.revision) {
            return false;
        }
        if self.entries.get(key).is_some_and(|present| present.revision > entry.revision) {
            return false;
        }
        self.entries.insert(key.clone(), entry);
        true
    }

    /// Raises the floors of keys and drops what is below.
    pub(super) fn invalidate(&self, changes: &[Change]) {
        for change in changes {
            let mut shard = self.shard(&change.key).lock();
            shard.raise(&change.key, change.revision);
            let stale = |entry: Encoded| !shard.allows(&change.key, entry.revision);
            if self.entries.get(&change.key).is_some_and(stale) {
                self.entries.invalidate(&change.key);
            }
        }
    }

    /// Drops all entries and refuses fills whose read has begun. What others read is measured by the floors as before.
    pub(super) fn clear(&self) {
        let mut shards: Vec<_> = self.shards.iter().map(Mutex::lock).collect();
        for shard in &mut shards {
            shard.distrusted = Some(Instant::now());
        }
        self.entries.invalidate_all();
    }

    /// Drops everything, floors included, since revisions may have started over (a restored database); refuses whatever
    /// anybody has read so far.
    pub(super) fn start_over(&self) {
        let mut shards: Vec<_> = self.shards.iter().map(Mutex::lock).collect();
        for shard in &mut shards {
            shard.floors.clear();
            shard.distrust(Instant::now());
        }
        self.entries.invalidate_all();
    }

    /// Bytes held now, approximately.
    pub(super) fn bytes(&self) -> u64 {
        self.entries.weighted_size()
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        let hash = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        &self.shards[hash]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::domain::kind::Kind;

    fn key(name: &str) -> Key {
        Key::in_project(Kind::Dashboard, "p", name)
    }

    fn entry(revision: i64) -> Encoded {
        Encoded::new(revision.to_string(), 0, revision)
    }

    fn changed(name: &str, revision: i64) -> Change {
        Change { key: key(name), revision, deleted: false }
    }

    fn now() -> ReadAt {
        ReadAt::Here(Instant::now())
    }

    #[test]
    fn a_fill_below_the_floor_is_refused() {
        let memory = Memory::new(1 << 20);
        assert!(memory.fill(&key("a"), entry(5), now()));
        memory.invalidate(&[changed("a", 6)]);
        assert_eq!(memory.get(&key("a")), None);
        assert!(!memory.fill(&key("a"), entry(5), now()), "a slow reader");
        assert!(memory.fill(&key("a"), entry(6), now()));
        memory.invalidate(&[changed("a", 6)]);
        assert_eq!(memory.get(&key("a")), Some(entry(6)), "an invalidation that repeats what is known changes nothing");
        assert!(memory.fill(&key("a"), entry(7), now()));
        assert!(!memory.fill(&key("a"), entry(6), now()), "an entry is not replaced by an older one");
        assert!(memory.fill(&key("b"), entry(1), now()), "other keys have floors of their own");
    }

    #[test]
    fn a_read_that_began_long_ago_is_refused() {
        let memory = Memory::new(1 << 20);
        let long_ago = Instant::now().checked_sub(OLDEST_FILL + Duration::from_secs(1)).unwrap();
        assert!(!memory.fill(&key("a"), entry(1), ReadAt::Here(long_ago)));
    }

    #[test]
    fn starting_over_refuses_what_was_read_before_and_lets_revisions_be_lower() {
        let memory = Memory::new(1 << 20);
        let before = now();
        memory.invalidate(&[changed("a", 100)]);
        assert!(memory.fill(&key("a"), entry(100), now()));
        memory.start_over();
        assert_eq!(memory.get(&key("a")), None);
        assert!(!memory.fill(&key("a"), entry(100), before));
        assert!(
            !memory.fill(&key("a"), entry(100), ReadAt::Elsewhere(wall_clock())),
            "an entry that Redis held before"
        );
        assert!(memory.fill(&key("a"), entry(3), now()));
        assert_eq!(memory.get(&key("a")), Some(entry(3)));
    }

    #[test]
    fn clear_keeps_floors_and_what_others_read() {
        let memory = Memory::new(1 << 20);
        let before = now();
        memory.invalidate(&[changed("a", 100)]);
        assert!(memory.fill(&key("a"), entry(100), now()));
        memory.clear();
        assert_eq!(memory.get(&key("a")), None);
        assert!(!memory.fill(&key("a"), entry(100), before));
        assert!(!memory.fill(&key("a"), entry(99), ReadAt::Elsewhere(wall_clock())));
        assert!(memory.fill(&key("a"), entry(100), ReadAt::Elsewhere(wall_clock())));
    }

    #[test]
    fn floors_are_bounded_and_forgetting_refuses_reads_under_way() {
        let memory = Memory::new(1 << 20);
        let before = now();
        let names: Vec<String> = (0..SHARDS * MOST_FLOORS * 2).map(|n| n.to_string()).collect();
        for name in &names {
            memory.invalidate(&[changed(name, 10)]);
        }
        let floors: usize = memory.shards.iter().map(|shard| shard.lock().floors.len()).sum();
        assert!(floors <= SHARDS * MOST_FLOORS, "{floors}");
        assert!(
            names.iter().all(|name| !memory.fill(&key(name), entry(9), before)),
            "no forgotten floor lets an old read in"
        );
        assert!(memory.fill(&key(&names[0]), entry(10), now()));
    }

    #[test]
    fn bytes_are_bounded() {
        let memory = Memory::new(100_000);
        for number in 0..100 {
            let body = vec![b'x'; 10_000];
            memory.fill(&key(&number.to_string()), Encoded::new(body, 0, 1), now());
        }
        memory.entries.run_pending_tasks();
        assert!(memory.bytes() <= 100_000 && memory.bytes() > 50_000, "{}", memory.bytes());
    }

    /// Writers raise floors, readers fill what they read before: nobody ever sees an entry below a floor that was raised
    /// before the look.
    #[test]
    fn fills_and_invalidations_race_without_a_stale_entry() {
        let memory = Arc::new(Memory::new(1 << 20));
        let store = Arc::new(AtomicI64::new(1));
        let invalidated = Arc::new(AtomicI64::new(1));
        let deadline = Instant::now() + Duration::from_millis(300);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while Instant::now() < deadline {
                        let floor = invalidated.load(Ordering::SeqCst);
                        if let Some(found) = memory.get(&key("a")) {
                            assert!(found.revision >= floor, "{} below {floor}", found.revision);
                        }
                        let read = entry(store.load(Ordering::SeqCst));
                        std::thread::yield_now();
                        memory.fill(&key("a"), read, now());
                    }
                });
            }
            scope.spawn(|| {
                while Instant::now() < deadline {
                    let revision = store.fetch_add(1, Ordering::SeqCst) + 1;
                    memory.invalidate(&[changed("a", revision)]);
                    invalidated.store(revision, Ordering::SeqCst);
                }
            });
        });
        assert!(invalidated.load(Ordering::SeqCst) > 100);
    }
}
