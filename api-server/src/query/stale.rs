//! Answers whose time is over, or nearly so: when they are used all the same, and what they say then. Pure.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::stored::Stored;
use crate::config::QueryStale;

/// What to do with a finished answer that is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It is as it should be.
    Fresh,
    /// It is as it should be, and a fresh one is asked for beside that, before everybody asks for it at once.
    Early {
        /// The time that it still has.
        left: Duration,
    },
    /// Its time is over since a moment: it is used while a fresh one is asked for.
    Meanwhile,
    /// A fresh one must be waited for.
    Over,
}

/// What to do with an answer; `chance` is drawn from 0 to 1.
///
/// XFetch (Vattani, Chierichetti, Lowenstein: Optimal probabilistic cache stampede prevention, 2015, beta 1): the nearer the
/// end and the longer the datasource took, the more probably one of the many who ask asks early.
pub fn judge(stored: &Stored, stale: &QueryStale, now_ms: i64, chance: f64) -> Use {
    match stored.remaining(now_ms) {
        Some(left) if is_early(left, stored.took, chance) => Use::Early { left },
        Some(_) => Use::Fresh,
        None if stored.is_over_for(now_ms) < stale.while_revalidate.0 => Use::Meanwhile,
        None => Use::Over,
    }
}

fn is_early(left: Duration, took: Duration, chance: f64) -> bool {
    // A chance of zero would ask at any time: `ln` of it has no end.
    took.as_secs_f64() * -chance.max(f64::MIN_POSITIVE).ln() >= left.as_secs_f64()
}

/// What an old answer says of itself.
pub fn warning(age: Duration, reason: &str) -> String {
    format!("the datasource cannot answer ({reason}): this is what it said {} ago", said(age))
}

/// A time for people.
fn said(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    infos: Vec<String>,
}

/// A successful answer with one more warning; `None` for what has another shape than Prometheus gives.
pub fn with_warning(body: &[u8], warning: String) -> Option<Vec<u8>> {
    let mut envelope: Envelope<'_> = serde_json::from_slice(body).ok()?;
    envelope.warnings.push(warning);
    serde_json::to_vec(&envelope).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::HeaderValue;

    use super::*;
    use crate::config::ConfigDuration;

    const NOW: i64 = 1_800_000_000_000;

    fn stored(took: Duration) -> Stored {
        Stored {
            key: Arc::from("key"),
            stored_at_ms: NOW,
            ttl: Duration::from_secs(30),
            took,
            grace: Duration::ZERO,
            content_type: HeaderValue::from_static("application/json"),
            body: bytes::Bytes::new(),
            gzip: super::super::stored::Gzip::default(),
        }
    }

    #[test]
    fn an_answer_has_its_time_and_a_moment() {
        let stale = QueryStale { while_revalidate: ConfigDuration::from_secs(10), ..QueryStale::default() };
        let judged =
            |after: i64, took, chance| judge(&stored(Duration::from_millis(took)), &stale, NOW + after, chance);
        assert_eq!(judged(0, 400, 0.5), Use::Fresh);
        assert_eq!(judged(29_999, 0, 0.0), Use::Fresh, "what took no time is not asked for early");
        assert_eq!(judged(29_900, 400, 0.5), Use::Early { left: Duration::from_millis(100) });
        assert_eq!(judged(29_900, 400, 1.0), Use::Fresh);
        assert_eq!(judged(30_000, 400, 0.5), Use::Meanwhile);
        assert_eq!(judged(39_999, 400, 0.5), Use::Meanwhile);
        assert_eq!(judged(40_000, 400, 0.5), Use::Over);
        let never = QueryStale { while_revalidate: ConfigDuration::from_secs(0), ..QueryStale::default() };
        assert_eq!(judge(&stored(Duration::ZERO), &never, NOW + 30_000, 0.5), Use::Over);
    }

    /// With a time of 0.4 s: exp(-left / took).
    #[test]
    fn the_nearer_the_end_the_more_ask() {
        let share = |left: f64| {
            let draws = 10_000_u32;
            let early = (1..=draws)
                .filter(|n| {
                    is_early(
                        Duration::from_secs_f64(left),
                        Duration::from_millis(400),
                        f64::from(*n) / f64::from(draws),
                    )
                })
                .count();
            f64::from(u32::try_from(early).unwrap()) / f64::from(draws)
        };
        for (left, expected) in [(2.0, 0.0067), (0.4, 0.3679), (0.1, 0.7788)] {
            assert!((share(left) - expected).abs() < 0.001, "{left}: {}", share(left));
        }
    }

    #[test]
    fn a_warning_is_added_to_what_was_said() {
        let text =
            |body: &str| with_warning(body.as_bytes(), "w".to_owned()).map(|body| String::from_utf8(body).unwrap());
        assert_eq!(
            text(r#"{"status":"success","data":{"resultType":"vector","result":[ 1 ]}}"#).unwrap(),
            r#"{"status":"success","data":{"resultType":"vector","result":[ 1 ]},"warnings":["w"]}"#
        );
        assert_eq!(
            text(r#"{"status":"success","data":1,"warnings":["v"],"infos":["i"]}"#).unwrap(),
            r#"{"status":"success","data":1,"warnings":["v","w"],"infos":["i"]}"#
        );
        for other in ["", "[]", r#"{"status":"success"}"#, r#"{"status":"success","data":1,"isPartial":true}"#] {
            assert_eq!(text(other), None, "{other}");
        }
        assert_eq!(
            warning(Duration::from_secs(90), "x"),
            "the datasource cannot answer (x): this is what it said 90 s ago"
        );
        assert_eq!([said(Duration::from_secs(125)), said(Duration::from_hours(3))], ["2 min", "3 h"]);
    }
}
