//! How many failed sign-ins are taken, per client address and per login. Each process counts for itself, in memory that does
//! not grow with the number of those who try.
//!
//! A try is counted before the password is looked at, so that tries at the same time cannot pass together, and given back
//! when it was right: who knows the password is never slowed down by their own sign-ins.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

use crate::config::SignInRate;

/// Addresses, and logins, that are remembered at most; each costs about 200 bytes.
const REMEMBERED: u64 = 20_000;
/// The time over which the configured number of tries comes back.
const MINUTE: Duration = Duration::from_secs(60);

/// The counters of the process.
pub struct SignInLimits {
    by_address: Buckets<IpAddr>,
    /// Logins are texts of any length from strangers: their hashes are kept.
    by_login: Buckets<[u8; 32]>,
}

impl std::fmt::Debug for SignInLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignInLimits(..)")
    }
}

/// A sign-in that is being tried. Without [`Attempt::succeeded`] it counts as failed.
#[must_use]
pub struct Attempt {
    taken: [Option<Arc<Mutex<Bucket>>>; 2],
}

impl Attempt {
    /// The credentials were right.
    pub fn succeeded(self) {
        for bucket in self.taken.into_iter().flatten() {
            bucket.lock().give_back();
        }
    }
}

impl SignInLimits {
    /// With the configured numbers.
    pub fn new(rate: SignInRate) -> Self {
        Self { by_address: Buckets::new(rate.per_address), by_login: Buckets::new(rate.per_login) }
    }

    /// Takes other numbers from now on. Where one changes, the count begins anew.
    pub fn set(&self, rate: SignInRate) {
        self.by_address.set(rate.per_address);
        self.by_login.set(rate.per_login);
    }

    /// Begins a try; an error is the time after which another one will be taken.
    pub fn attempt(&self, address: IpAddr, login: &str) -> Result<Attempt, Duration> {
        self.attempt_at(address, login, Instant::now())
    }

    fn attempt_at(&self, address: IpAddr, login: &str, now: Instant) -> Result<Attempt, Duration> {
        let from = self.by_address.take(network(address), now)?;
        match self.by_login.take(*blake3::hash(login.as_bytes()).as_bytes(), now) {
            Ok(of) => Ok(Attempt { taken: [from, of] }),
            Err(wait) => {
                // Nothing was tried: the address pays only for what was.
                if let Some(bucket) = from {
                    bucket.lock().give_back();
                }
                Err(wait)
            }
        }
    }
}

/// Who has one IPv6 address usually has its whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A bucket per key; an unlimited one keeps nothing.
struct Buckets<K> {
    per_minute: AtomicU32,
    buckets: Cache<K, Arc<Mutex<Bucket>>>,
}

impl<K: Hash + Eq + Send + Sync + 'static> Buckets<K> {
    fn new(per_minute: u32) -> Self {
        let buckets = Cache::builder()
            .max_capacity(REMEMBERED)
            // By age: a stranger's new key must be remembered, however many keys there are.
            .eviction_policy(EvictionPolicy::lru())
            // A bucket that was left alone so long is full, as a new one is.
            .time_to_idle(MINUTE)
            .build();
        Self { per_minute: AtomicU32::new(per_minute), buckets }
    }

    fn set(&self, per_minute: u32) {
        if self.per_minute.swap(per_minute, Ordering::Relaxed) != per_minute {
            self.buckets.invalidate_all();
        }
    }

    fn take(&self, key: K, now: Instant) -> Result<Option<Arc<Mutex<Bucket>>>, Duration> {
        let per_minute = self.per_minute.load(Ordering::Relaxed);
        if per_minute == 0 {
            return Ok(None);
        }
        let bucket = self.buckets.get_with(key, || {
            Arc::new(Mutex::new(Bucket::new(per_minute, f64::from(per_minute) / MINUTE.as_secs_f64(), now)))
        });
        bucket.lock().take(now)?;
        Ok(Some(bucket))
    }
}

/// A token bucket: so many at once, which come back at an even rate.
#[derive(Debug)]
pub(super) struct Bucket {
    size: f64,
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(size: u32, per_second: f64, at: Instant) -> Self {
        Self { size: f64::from(size), per_second, left: f64::from(size), at }
    }

    /// Takes one; an error is the time until there is one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.size);
        self.at = now;
        if self.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.left) / self.per_second));
        }
        self.left -= 1.0;
        Ok(())
    }

    fn give_back(&mut self) {
        self.left = (self.left + 1.0).min(self.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn limits(per_address: u32, per_login: u32) -> SignInLimits {
        SignInLimits::new(SignInRate { per_address, per_login })
    }

    #[test]
    fn a_login_has_so_many_failures_from_everywhere_and_gets_them_back() {
        let (limits, now) = (limits(100, 3), Instant::now());
        for host in 1..=3 {
            limits.attempt_at([10, 0, 0, host].into(), "alice", now).map(drop).unwrap();
        }
        let wait = limits.attempt_at([10, 0, 0, 4].into(), "alice", now).map(drop).unwrap_err();
        assert!((Duration::from_secs(19)..=Duration::from_secs(20)).contains(&wait), "{wait:?}");
        limits.attempt_at([10, 0, 0, 4].into(), "bob", now).map(drop).unwrap();
        limits.attempt_at(HERE, "alice", now + wait + Duration::from_millis(1)).map(drop).unwrap();
        assert!(limits.attempt_at(HERE, "alice", now + wait + Duration::from_millis(2)).is_err());
    }

    #[test]
    fn an_address_has_so_many_failures_for_all_logins() {
        let (limits, now) = (limits(2, 100), Instant::now());
        let at = |text: &str| text.parse::<IpAddr>().unwrap();
        limits.attempt_at(at("2001:db8::1"), "a", now).map(drop).unwrap();
        limits.attempt_at(at("2001:db8::2"), "b", now).map(drop).unwrap();
        assert!(limits.attempt_at(at("2001:db8::3"), "c", now).is_err(), "one /64 is one client");
        limits.attempt_at(at("2001:db8:0:1::3"), "c", now).map(drop).unwrap();
        limits.attempt_at(at("::ffff:10.0.0.1"), "c", now).map(drop).unwrap();
        limits.attempt_at(at("10.0.0.1"), "c", now).map(drop).unwrap();
        assert!(limits.attempt_at(at("10.0.0.1"), "c", now).is_err(), "both forms of an IPv4 address are one client");
    }

    #[test]
    fn a_right_password_costs_nothing_and_tries_at_once_do() {
        let (limits, now) = (limits(3, 2), Instant::now());
        for _ in 0..10 {
            limits.attempt_at(HERE, "alice", now).unwrap().succeeded();
        }
        let (one, two) =
            (limits.attempt_at(HERE, "alice", now).unwrap(), limits.attempt_at(HERE, "alice", now).unwrap());
        assert!(limits.attempt_at(HERE, "alice", now).is_err(), "two are under way");
        assert!(limits.attempt_at(HERE, "bob", now).is_ok(), "the refused one was not counted against the address");
        one.succeeded();
        two.succeeded();
        limits.attempt_at(HERE, "alice", now).unwrap().succeeded();
    }

    #[test]
    fn zero_is_no_limit() {
        let limits = limits(0, 0);
        assert!((0..1000).all(|_| limits.attempt(HERE, "alice").is_ok()));
    }
}
