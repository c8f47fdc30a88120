//! How long the datasource took for a query lately.

use std::time::Duration;

use moka::sync::Cache;

/// What is remembered of queries; more are forgotten, the least used first.
const QUERIES: u64 = 20_000;
/// The weight of the newest time.
const NEWEST: f64 = 0.3;

/// Times of queries, by digest.
pub(super) struct Costs(Cache<blake3::Hash, Duration>);

impl Default for Costs {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(QUERIES).time_to_idle(Duration::from_hours(1)).build())
    }
}

impl Costs {
    /// A query took this long.
    pub(super) fn note(&self, query: blake3::Hash, took: Duration) {
        let known = self.0.get(&query);
        self.0.insert(query, known.map_or(took, |known| known.mul_f64(1.0 - NEWEST) + took.mul_f64(NEWEST)));
    }

    /// Whether it takes less than this; one that is not known does not.
    pub(super) fn is_below(&self, query: &blake3::Hash, limit: Duration) -> bool {
        self.0.get(query).is_some_and(|took| took < limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_slow_now_is_soon_known_to_be_slow() {
        let (costs, query, limit) = (Costs::default(), blake3::hash(b"q"), Duration::from_millis(5));
        assert!(!costs.is_below(&query, limit), "nothing is known");
        for _ in 0..20 {
            costs.note(query, Duration::from_millis(2));
        }
        assert!(costs.is_below(&query, limit));
        costs.note(query, Duration::from_millis(100));
        assert!(!costs.is_below(&query, limit));
        for _ in 0..20 {
            costs.note(query, Duration::from_millis(2));
        }
        assert!(costs.is_below(&query, limit));
    }
}
