//! How long an answer may be served: the table of seed section 4.1. Pure.

use std::time::Duration;

use crate::config::QueryTtl;

/// Younger than this is real time.
const REALTIME_MS: i64 = 5 * 60 * 1000;
/// Younger than this is recent.
const RECENT_MS: i64 = 60 * 60 * 1000;

/// The life of an answer whose newest instant is `newest_ms`; `None` and instants in the future count as now.
pub fn ttl(table: &QueryTtl, newest_ms: Option<i64>, now_ms: i64) -> Duration {
    let age = newest_ms.map_or(0, |newest| now_ms.saturating_sub(newest)).max(0);
    match age {
        ..REALTIME_MS => table.realtime.0,
        REALTIME_MS..RECENT_MS => table.recent.0,
        _ => table.historical.0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    #[test]
    fn follows_the_table_at_its_edges() {
        let table = QueryTtl::default();
        let of = |age_ms: i64| ttl(&table, Some(NOW - age_ms), NOW).as_secs();
        assert_eq!([of(-1), of(0), of(299_999)], [30, 30, 30]);
        assert_eq!([of(300_000), of(3_599_999)], [300, 300]);
        assert_eq!([of(3_600_000), of(i64::from(u32::MAX))], [900, 900]);
        assert_eq!(ttl(&table, None, NOW).as_secs(), 30);
    }

    proptest! {
        #[test]
        fn never_shrinks_with_age(newest in any::<i64>(), now in any::<i64>(), older in 0..i64::MAX) {
            let table = QueryTtl::default();
            let young = ttl(&table, Some(newest), now);
            let old = ttl(&table, Some(newest.saturating_sub(older)), now);
            prop_assert!(old >= young);
            prop_assert!([30, 300, 900].contains(&young.as_secs()));
            if newest >= now { prop_assert_eq!(young.as_secs(), 30); }
        }
    }
}
