//! Any sequence of windows gives the answers that the datasource would give.

use std::fmt::Write as _;
use std::time::Duration;

use proptest::prelude::*;

use super::entry::{Entry, Rules};
use super::grid::{Grid, Span, print_time};
use super::samples::Answer;
use crate::query::promql::Reach;

pub(super) const STEP: i64 = 15_000;
pub(super) const MINUTE: i64 = 60_000;

/// A datasource that is a function of the instant and, for young data, of the time when it is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source {
    pub(super) seed: i64,
}

impl Source {
    /// The value of a series at an instant, asked for at `now`: data younger than a minute is not all there yet.
    pub(super) fn value(self, series: i64, index: i64, grid: Grid, now: i64) -> Option<String> {
        let is_young = grid.time(index) > now - MINUTE;
        let mix = (self.seed
            ^ index.wrapping_mul(6_364_136_223_846_793_005)
            ^ series.wrapping_mul(1_442_695_040_888_963_407))
        .wrapping_mul(2_862_933_555_777_941_757);
        // Gaps, series that come and go, young values that differ from what they become.
        if (mix >> 40) % 7 == 0 || (index + series * 37).rem_euclid(300) < 40 {
            return None;
        }
        let value = if is_young { now } else { (mix >> 20) % 1_000_000 };
        Some(match (mix >> 50) % 5 {
            0 => "NaN".to_owned(),
            1 => format!("{}.5", value / 10),
            _ => value.to_string(),
        })
    }

    pub(super) fn answer(self, grid: Grid, span: Span, now: i64) -> String {
        let mut out = String::from(r#"{"status":"success","data":{"resultType":"matrix","result":["#);
        let mut is_first = true;
        for series in 0..4 {
            let samples: Vec<String> = (span.first..=span.last)
                .filter_map(|index| {
                    let mut time = Vec::new();
                    print_time(&mut time, grid.time(index));
                    let time = String::from_utf8(time).unwrap();
                    self.value(series, index, grid, now).map(|value| format!("[{time},\"{value}\"]"))
                })
                .collect();
            if !samples.is_empty() {
                let comma = if std::mem::take(&mut is_first) { "" } else { "," };
                let values = samples.join(",");
                write!(out, "{comma}{{\"metric\":{{\"s\":\"{series}\"}},\"values\":[{values}]}}").unwrap();
            }
        }
        out + "]}}"
    }
}

pub(super) fn rules(grid: Grid) -> Rules {
    Rules {
        grid,
        reach: Reach::Until { ahead: 0, latest_at: None },
        freshness: MINUTE,
        volatile: Duration::from_secs(15),
        settled: Duration::from_secs(3600),
    }
}

/// Answers a window from the entry; how many points were asked for.
pub(super) fn ask(entry: &mut Entry, source: Source, rules: &Rules, span: Span, now: i64) -> (String, i64) {
    let mut asked = 0;
    for missing in entry.missing(span, rules, now) {
        asked += missing.points();
        let body = source.answer(rules.grid, missing, now);
        let answer = Answer::read(body.as_bytes(), rules.grid, missing).unwrap();
        *entry = entry.with(missing, &answer, rules, now);
    }
    assert!(entry.missing(span, rules, now).is_empty());
    (String::from_utf8(entry.print(span, rules, now).unwrap().body).unwrap(), asked)
}

#[test]
fn a_window_that_slides_asks_for_its_tail_only() {
    let (source, mut entry) = (Source { seed: 7 }, Entry::default());
    let mut now = 1_700_000_000_000;
    for round in 0..200 {
        let (grid, span) = Grid::of(now - 60 * MINUTE, now, STEP).unwrap();
        let rules = rules(grid);
        let (body, asked) = ask(&mut entry, source, &rules, span, now);
        assert_eq!(body, source.answer(grid, span, now), "round {round}");
        // A minute of four points, the newest, and one more that has settled since.
        let expected = if round == 0 { span.points() } else { 5 };
        assert!(asked <= expected, "round {round}: {asked}");
        // The same window again asks for nothing.
        assert_eq!(ask(&mut entry, source, &rules, span, now + 14_000).1, 0);
        now += STEP;
    }
    // Two hours have passed the window, of which it shows one; what is too old is gone.
    assert!(entry.chunks().len() <= 5, "{}", entry.chunks().len());
}

#[test]
fn points_are_small() {
    let (grid, span) = Grid::of(1_700_000_000_000, 1_700_000_000_000 + 1_023 * STEP, STEP).unwrap();
    let series: Vec<String> = (0..100)
        .map(|series| {
            let mut sum = 1_000_000 + series * 7_919;
            let samples: Vec<String> = (span.first..=span.last)
                .map(|index| {
                    sum += 300 + (index * 31 + series * 17).rem_euclid(61);
                    format!("[{},\"{sum}\"]", grid.time(index) / 1000)
                })
                .collect();
            let labels = format!(
                r#""__name__":"http_requests_total","instance":"10.0.0.{series}:9090","job":"api","code":"200""#
            );
            format!("{{\"metric\":{{{labels}}},\"values\":[{}]}}", samples.join(","))
        })
        .collect();
    let body = format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{}]}}}}"#, series.join(","));
    let answer = Answer::read(body.as_bytes(), grid, span).unwrap();
    let entry = Entry::default().with(span, &answer, &rules(grid), grid.time(span.last) + 10 * MINUTE);
    let samples = 100 * usize::try_from(span.points()).unwrap();
    assert!(entry.weight() <= samples * 4, "{} bytes for {samples} samples", entry.weight());
}

#[test]
fn what_looks_ahead_settles_later() {
    let (grid, _) = Grid::of(1_000_000, 2_000_000, STEP).unwrap();
    let settled = |reach| Rules { reach, ..rules(grid) }.settled_index(1_700_000_000_000);
    let plain = settled(Reach::Until { ahead: 0, latest_at: None });
    assert!(grid.time(plain) <= 1_700_000_000_000 - MINUTE && grid.time(plain + 1) > 1_700_000_000_000 - MINUTE);
    assert_eq!(settled(Reach::Until { ahead: 10 * STEP, latest_at: None }), plain - 10);
    assert_eq!(settled(Reach::Until { ahead: 0, latest_at: Some(1_700_000_000_000) }), i64::MIN);
    assert_eq!(settled(Reach::Until { ahead: 0, latest_at: Some(1_000) }), plain);
    assert_eq!(settled(Reach::Unknown), i64::MIN);
}

#[test]
fn notes_come_once_and_only_where_they_were_said() {
    let (grid, span) = Grid::of(0, 299 * STEP, STEP).unwrap();
    let (rules, now) = (rules(grid), 100 * 300 * STEP);
    let noted = |note: &str| {
        format!(
            r#"{{"status":"success","data":{{"resultType":"matrix","result":[]}},"warnings":["{note}"],"infos":["i"]}}"#
        )
    };
    let (early, late) = (Span { last: 199, ..span }, Span { first: 200, ..span });
    let mut entry = Entry::default();
    for (part, body) in [(early, noted("a")), (late, noted("b"))] {
        entry = entry.with(part, &Answer::read(body.as_bytes(), grid, part).unwrap(), &rules, now);
    }
    let print = |span| String::from_utf8(entry.print(span, &rules, now).unwrap().body).unwrap();
    assert!(print(span).ends_with(r#""result":[]},"warnings":["a","b"],"infos":["i"]}"#), "{}", print(span));
    assert!(print(late).ends_with(r#""warnings":["b"],"infos":["i"]}"#));
}

#[test]
fn in_trouble_a_window_is_what_is_known_of_it() {
    let (source, now) = (Source { seed: 4 }, 1_700_000_000_000 / STEP * STEP);
    let (grid, span) = Grid::of(now - 99 * STEP, now, STEP).unwrap();
    let (rules, mut entry) = (rules(grid), Entry::default());
    ask(&mut entry, source, &rules, span, now);
    let print = |slid: i64, allowance| {
        let span = Span { first: span.first + slid, last: span.last + slid };
        let warning = |at| {
            assert_eq!(at, now);
            "w".to_owned()
        };
        let printed = entry.print_known(span, &rules, allowance, now + slid * STEP, warning)?;
        Some(String::from_utf8(printed.body).unwrap())
    };
    let expected = |slid: i64, last: i64| {
        let span = Span { first: span.first + slid, last };
        let answer = source.answer(grid, span, now);
        format!("{},\"warnings\":[\"w\"]}}", answer.strip_suffix('}').unwrap())
    };
    let long = Duration::from_secs(3600);
    assert_eq!(print(40, long), Some(expected(40, span.last)));
    // What may have changed since is left out when its time is over for too long.
    assert_eq!(print(40, Duration::ZERO), Some(expected(40, rules.settled_index(now))));
    // Less than half of it says more wrong than right.
    assert!(print(50, long).is_some());
    assert_eq!(print(51, long), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Windows that jump, overlap, leave holes, and time that passes.
    #[test]
    fn any_windows_are_answered_as_the_datasource_would(
        seed in any::<i64>(),
        phase in 0..STEP,
        windows in prop::collection::vec((0..900_i64, 1..400_i64, 0..40_000_i64), 1..30),
    ) {
        let (source, mut entry) = (Source { seed }, Entry::default());
        let base = 1_700_000_000_000 / STEP * STEP + phase;
        let mut now = base + 1_000 * STEP;
        for (first, points, pause) in windows {
            now += pause;
            let (grid, span) = Grid::of(base + first * STEP, base + (first + points) * STEP, STEP).unwrap();
            let rules = rules(grid);
            let (body, _) = ask(&mut entry, source, &rules, span, now);
            // What has settled is exact; the rest is as it was when it was asked for, at most 15 s ago.
            let settled = rules.settled_index(now - 15_000);
            let old = Span { last: span.last.min(settled), ..span };
            if old.first <= old.last {
                let printed = entry.print(old, &rules, now).unwrap().body;
                prop_assert_eq!(String::from_utf8(printed).unwrap(), source.answer(grid, old, now));
            }
            prop_assert!(Answer::read(body.as_bytes(), grid, span).is_ok());
        }
    }
}
