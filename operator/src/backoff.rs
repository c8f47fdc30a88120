//! How long to wait before a failed object is tried again. PURE delay, small map of attempts.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;

/// First wait.
const BASE: Duration = Duration::from_millis(500);
/// Longest wait.
const CAP: Duration = Duration::from_mins(2);

/// Wait before attempt number `attempt + 1`: doubles from 0.5 s up to 2 min, then spread over 75 % to 125 %.
///
/// `jitter` is a number from 0 to 1, so that many failing objects do not return at the same instant.
pub fn delay(attempt: u32, jitter: f64) -> Duration {
    let doubled = BASE.saturating_mul(2_u32.saturating_pow(attempt.min(16)));
    doubled.min(CAP).mul_f64(0.75 + 0.5 * jitter.clamp(0.0, 1.0))
}

/// Failed attempts per object since its last success.
#[derive(Debug)]
pub struct Backoff<K>(Mutex<HashMap<K, u32>>);

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// Notes a failure and gives the wait before the next attempt.
    pub fn failed(&self, key: K, jitter: f64) -> Duration {
        let mut attempts = self.0.lock();
        let attempt = attempts.entry(key).or_default();
        let wait = delay(*attempt, jitter);
        *attempt += 1;
        wait
    }

    /// Forgets the failures of an object that succeeded or is gone.
    pub fn succeeded(&self, key: &K) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_cap_and_starts_over() {
        let backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.failed("a", 0.5)).collect();
        assert_eq!(waits[0], BASE);
        assert_eq!(waits[3], BASE * 8);
        assert!(waits.is_sorted());
        assert_eq!(waits[11], CAP);
        assert_eq!(backoff.failed("b", 0.5), BASE, "objects are independent");
        backoff.succeeded(&"a");
        assert_eq!(backoff.failed("a", 0.5), BASE);
    }

    #[test]
    fn jitter_spreads_by_a_quarter() {
        assert_eq!(delay(0, 0.0), BASE.mul_f64(0.75));
        assert_eq!(delay(0, 1.0), BASE.mul_f64(1.25));
        assert_eq!(delay(u32::MAX, 7.0), CAP.mul_f64(1.25));
    }
}
