//! How many queries a user may ask: the generic cell rate algorithm, an instant per user. Each process counts for itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use parking_lot::Mutex;

/// Users that are remembered at most; each costs about 200 bytes.
const REMEMBERED: u64 = 20_000;
/// Who asked nothing for so long begins anew.
const IDLE: Duration = Duration::from_mins(10);

/// The instant at which all that a user has asked so far is paid for; a user who never asked has none.
type Paid = Arc<Mutex<Option<Instant>>>;

/// All users.
pub(super) struct Rates<K>(Cache<K, Paid>);

impl<K: std::hash::Hash + Eq + Send + Sync + 'static> Rates<K> {
    pub(super) fn new() -> Self {
        let users = Cache::builder()
            .max_capacity(REMEMBERED)
            // By age: a new user must be remembered, however many there are.
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(IDLE);
        Self(users.build())
    }

    /// Takes one query of a user; an error is the time until the next one would be taken.
    pub(super) fn take(&self, user: K, quota: Quota, now: Instant) -> Result<(), Duration> {
        let Some(each) = quota.each() else { return Ok(()) };
        let paid = self.0.get_with(user, Paid::default);
        let mut paid = paid.lock();
        *paid = Some(admit(*paid, each, each * quota.burst.max(1), now)?);
        Ok(())
    }
}

/// So many per second, and so many at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    pub(super) per_second: u32,
    pub(super) burst: u32,
}

impl Quota {
    /// What one costs; nothing where there is no limit.
    fn each(self) -> Option<Duration> {
        Duration::from_secs(1).checked_div(self.per_second)
    }
}

/// The new instant, or how long to wait.
fn admit(paid: Option<Instant>, each: Duration, burst: Duration, now: Instant) -> Result<Instant, Duration> {
    let next = paid.map_or(now, |paid| paid.max(now)) + each;
    match next.saturating_duration_since(now).checked_sub(burst) {
        Some(wait) if !wait.is_zero() => Err(wait),
        _ => Ok(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_at_an_even_rate() {
        let (rates, start) = (Rates::new(), Instant::now());
        let quota = Quota { per_second: 10, burst: 3 };
        let take = |user, millis| rates.take(user, quota, start + Duration::from_millis(millis));
        assert_eq!([take("a", 0), take("a", 0), take("a", 0)], [Ok(()); 3]);
        assert_eq!(take("a", 0), Err(Duration::from_millis(100)));
        assert_eq!(take("b", 0), Ok(()), "each has their own");
        assert_eq!(take("a", 40), Err(Duration::from_millis(60)), "what was refused costs nothing");
        assert_eq!(take("a", 100), Ok(()));
        assert!(take("a", 100).is_err());
        assert_eq!([take("a", 5000), take("a", 5000), take("a", 5000)], [Ok(()); 3], "no more than a burst is saved");
        assert!(take("a", 5000).is_err());
    }

    #[test]
    fn over_time_the_rate_holds() {
        let (rates, start) = (Rates::new(), Instant::now());
        let quota = Quota { per_second: 7, burst: 5 };
        let taken = (0..10_000).filter(|at| rates.take((), quota, start + Duration::from_millis(*at)).is_ok()).count();
        assert!((74..=75).contains(&taken), "{taken} in ten seconds");
    }

    #[test]
    fn other_numbers_hold_at_once_and_zero_is_no_limit() {
        let (rates, now) = (Rates::new(), Instant::now());
        let (few, none) = (Quota { per_second: 1, burst: 1 }, Quota { per_second: 0, burst: 0 });
        rates.take((), few, now).unwrap();
        rates.take((), few, now).unwrap_err();
        assert!((0..1000).all(|_| rates.take((), none, now).is_ok()));
        rates.take((), Quota { per_second: 1, burst: 2 }, now).unwrap();
    }
}
