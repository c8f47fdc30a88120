//! Pods that share points answer as one pod would.

use proptest::prelude::*;

use super::*;
use crate::query::range::blob;
use crate::query::range::grid::Grid;
use crate::query::range::samples::Answer;
use crate::query::range::tests::{MINUTE, STEP, Source, rules};

const KEY: &str = "query_range of a test";
const BASE: i64 = 1_700_000_000_000 / STEP * STEP;

/// What Redis has.
type Shelf = HashMap<i64, Vec<u8>>;

#[derive(Debug, Default)]
struct Pod {
    entry: Entry,
    known: Known,
}

impl Pod {
    /// Answers a window as the server does; how many points were asked for.
    fn ask(&mut self, shelf: &mut Shelf, source: Source, grid: Grid, span: Span, now: i64) -> (String, i64) {
        let rules = rules(grid);
        let missing = self.entry.missing(span, &rules, now);
        let wanted = self.entry.wanted(&missing, &rules, now);
        let found: Vec<Chunk> = wanted
            .iter()
            .filter_map(|number| shelf.get(number).map(|value| blob::decode(value, KEY, *number).unwrap()))
            .collect();
        for chunk in &found {
            self.known.insert(chunk.number, chunk.slots(|_| true));
        }
        self.entry = self.entry.absorb(found, &rules, now);
        let missing = self.entry.missing(span, &rules, now);
        for missing in &missing {
            let body = source.answer(grid, *missing, now);
            let answer = Answer::read(body.as_bytes(), grid, *missing).unwrap();
            self.entry = self.entry.with(*missing, &answer, &rules, now);
        }
        for chunk in self.entry.news(&missing, &mut self.known, &rules, now) {
            shelf.insert(chunk.number, blob::encode(KEY, &chunk).unwrap());
        }
        let printed = self.entry.print(span, &rules, now).unwrap();
        (String::from_utf8(printed.body).unwrap(), missing.iter().map(|span| span.points()).sum())
    }
}

fn window(first: i64, points: i64) -> (Grid, Span) {
    Grid::of(BASE + first * STEP, BASE + (first + points - 1) * STEP, STEP).unwrap()
}

#[test]
fn what_one_pod_asked_for_the_other_has() {
    let (source, mut shelf, mut pods) = (Source { seed: 3 }, Shelf::new(), [Pod::default(), Pod::default()]);
    let now = BASE + 2_000 * STEP;
    let (grid, span) = window(0, 500);
    assert_eq!(pods[0].ask(&mut shelf, source, grid, span, now), (source.answer(grid, span, now), 500));
    // Another window of the same points.
    let (_, part) = window(100, 300);
    assert_eq!(pods[1].ask(&mut shelf, source, grid, part, now), (source.answer(grid, part, now), 0));
    // And one that goes further: only what is new is asked for.
    let (_, more) = window(300, 400);
    assert_eq!(pods[1].ask(&mut shelf, source, grid, more, now), (source.answer(grid, more, now), 200));
    assert_eq!(pods[0].ask(&mut shelf, source, grid, more, now).1, 0);
    // A third pod is told by Redis alone, and no longer than points may be used.
    assert_eq!(Pod::default().ask(&mut shelf, source, grid, span, now).1, 0);
    assert_eq!(Pod::default().ask(&mut shelf, source, grid, span, now + 60 * MINUTE).1, 500);
}

#[test]
fn a_window_that_slides_is_written_now_and_then() {
    let (source, mut shelf, mut pod) = (Source { seed: 5 }, Shelf::new(), Pod::default());
    let mut writes = 0;
    let mut now = BASE;
    for round in 0..200 {
        let (grid, span) = Grid::of(now - 60 * MINUTE, now, STEP).unwrap();
        let before = shelf.clone();
        pod.ask(&mut shelf, source, grid, span, now);
        writes += shelf.iter().filter(|(number, value)| before.get(number) != Some(value)).count();
        // Another pod that comes now asks for a few points.
        let asked = Pod::default().ask(&mut shelf.clone(), source, grid, span, now).1;
        assert!(asked <= i64::from(WORTH) + 5, "round {round}: {asked}");
        now += STEP;
    }
    assert!(writes < 30, "{writes} writes for 200 points");
}

#[test]
fn foreign_and_broken_values_are_nothing() {
    let (grid, span) = window(0, 128);
    let now = BASE + 2_000 * STEP;
    let body = Source { seed: 9 }.answer(grid, span, now).replace("]}}", "]},\"infos\":[\"i\"]}");
    let answer = Answer::read(body.as_bytes(), grid, span).unwrap();
    let entry = Entry::default().with(span, &answer, &rules(grid), now);
    let chunk = &entry.chunks()[0];
    let value = blob::encode(KEY, chunk).unwrap();
    assert_eq!(blob::decode(&value, KEY, chunk.number).as_ref(), Some(&**chunk));
    assert_eq!(blob::decode(&value, "another key", chunk.number), None, "a collision of digests");
    assert_eq!(blob::decode(&value, KEY, chunk.number + 1), None);
    for at in 0..value.len() {
        let mut broken = value.clone();
        broken[at] ^= 1;
        assert_eq!(blob::decode(&broken, KEY, chunk.number), None, "byte {at}");
        assert_eq!(blob::decode(&value[..at], KEY, chunk.number), None, "cut at {at}");
    }
    assert!(value.len() < chunk.weight(), "{} bytes for {}", value.len(), chunk.weight());
}

#[test]
fn histograms_are_shared_too() {
    let (grid, span) = window(0, 40);
    let now = BASE + 2_000 * STEP;
    let at = |index: i64| grid.time(span.first + index) / 1000;
    let body = format!(
        r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{"a":"1"}},"values":[[{},"1"]],"histograms":[[{},{{"count":"1"}}],[{},{{"count":"2"}}]]}}]}}}}"#,
        at(0),
        at(3),
        at(30)
    );
    let entry = |span| {
        let answer = Answer::read(body.as_bytes(), grid, span).unwrap();
        Entry::default().with(span, &answer, &rules(grid), now)
    };
    let whole = entry(span);
    let chunks: Vec<Chunk> =
        whole.chunks().iter().map(|chunk| Chunk::new(chunk.number).blend(chunk, u128::MAX)).collect();
    let read = |chunk: &Chunk| blob::decode(&blob::encode(KEY, chunk).unwrap(), KEY, chunk.number).unwrap();
    let other = Entry::default().absorb(chunks.iter().map(read).collect(), &rules(grid), now);
    let print = |entry: &Entry| String::from_utf8(entry.print(span, &rules(grid), now).unwrap().body).unwrap();
    assert_eq!(print(&other), body);
    assert_eq!(other.chunks(), whole.chunks());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What two pods have asked for is put together to what one pod would have.
    #[test]
    fn two_are_as_one(
        seed in any::<i64>(),
        one in (0..400_i64, 1..400_i64),
        other in (0..400_i64, 1..400_i64),
    ) {
        let (source, now) = (Source { seed }, BASE + 2_000 * STEP);
        let spans = [window(one.0, one.1), window(other.0, other.1)];
        let grid = spans[0].0;
        let ask = |entry: &Entry, span: Span| {
            let body = source.answer(grid, span, now);
            entry.with(span, &Answer::read(body.as_bytes(), grid, span).unwrap(), &rules(grid), now)
        };
        let both = ask(&ask(&Entry::default(), spans[0].1), spans[1].1);
        let apart = spans.map(|(_, span)| ask(&Entry::default(), span));
        let sent: Vec<Chunk> = apart[0]
            .chunks()
            .iter()
            .map(|chunk| blob::decode(&blob::encode(KEY, chunk).unwrap(), KEY, chunk.number).unwrap())
            .collect();
        let merged = apart[1].absorb(sent, &rules(grid), now);
        prop_assert_eq!(merged.chunks(), both.chunks());
    }

    /// Any windows, asked of any pod at any time.
    #[test]
    fn any_windows_of_any_pod_are_answered_as_the_datasource_would(
        seed in any::<i64>(),
        windows in prop::collection::vec((0..900_i64, 1..400_i64, 0..40_000_i64, 0..3_usize), 1..30),
    ) {
        let (source, mut shelf) = (Source { seed }, Shelf::new());
        let mut pods = [Pod::default(), Pod::default(), Pod::default()];
        let mut now = BASE + 1_000 * STEP;
        for (first, points, pause, pod) in windows {
            now += pause;
            let (grid, span) = window(first, points + 1);
            pods[pod].ask(&mut shelf, source, grid, span, now);
            let rules = rules(grid);
            let old = Span { last: span.last.min(rules.settled_index(now - 15_000)), ..span };
            if old.first <= old.last {
                let printed = pods[pod].entry.print(old, &rules, now).unwrap().body;
                prop_assert_eq!(String::from_utf8(printed).unwrap(), source.answer(grid, old, now));
            }
        }
    }
}
