//! What is known of one query on one grid: which points must be asked for, and the answer for a window. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::chunk::{Chunk, Line, Part, Piece, label_order, place};
use super::grid::{Grid, Span, print_time};
use super::samples::{Answer, Notes};
use crate::query::promql::Reach;

/// More requests than this for one window are one request for all of it.
const MAX_REQUESTS: usize = 2;

/// When points may be used.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Where points lie.
    pub grid: Grid,
    /// Up to which instant a point may read.
    pub reach: Reach,
    /// Data younger than this may change, in milliseconds.
    pub freshness: i64,
    /// For how long points may be used that may have changed.
    pub volatile: Duration,
    /// For how long those may that change no more.
    pub settled: Duration,
}

impl Rules {
    /// The last index whose data is old enough at this time to change no more.
    pub fn settled_index(&self, now: i64) -> i64 {
        let limit = now.saturating_sub(self.freshness);
        match self.reach {
            Reach::Until { latest_at: Some(at), ahead } if at.saturating_add(ahead) > limit => i64::MIN,
            Reach::Until { ahead, .. } => {
                limit.saturating_sub(ahead).saturating_sub(self.grid.phase()).div_euclid(self.grid.step())
            }
            Reach::Unknown => i64::MIN,
        }
    }

    /// How long a part may still be used; `None` when its time is over.
    pub(super) fn remaining(&self, part: &Part, now: i64) -> Option<Duration> {
        let life = if part.is_settled { self.settled } else { self.volatile };
        // A clock that was set back makes parts of the future: their age is not known.
        let age = Duration::from_millis(u64::try_from(now.checked_sub(part.fetched_at)?).ok()?);
        life.checked_sub(age).filter(|left| !left.is_zero())
    }
}

/// The points of one query on one grid.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// Ordered by number.
    pub(super) chunks: Vec<Arc<Chunk>>,
}

/// How a known point stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// What it read changes no more.
    Settled,
    /// What it read may have changed since.
    Volatile,
    /// Its time is over.
    Expired,
}

impl State {
    /// The word in what is explained.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Volatile => "volatile",
            Self::Expired => "expired",
        }
    }
}

/// An answer put together from points.
#[derive(Debug)]
pub struct Printed {
    /// As Prometheus prints it.
    pub body: Vec<u8>,
    /// When the oldest point that may have changed since was asked for, else the oldest of all.
    pub fetched_at: i64,
    /// How long it may be used.
    pub remaining: Duration,
}

impl Entry {
    /// Its parts.
    pub fn chunks(&self) -> &[Arc<Chunk>] {
        &self.chunks
    }

    /// Bytes in memory, about; label sets are shared by chunks and counted once.
    pub fn weight(&self) -> usize {
        let mut metrics: HashMap<*const u8, usize> = HashMap::new();
        for line in self.chunks.iter().flat_map(|chunk| &chunk.lines) {
            metrics.insert(line.metric.as_ptr(), line.metric.len() + 16);
        }
        self.chunks.iter().map(|chunk| chunk.weight() + 16).sum::<usize>() + metrics.values().sum::<usize>()
    }

    /// What must be asked for before the answer for `span` can be printed: few spans, ordered.
    pub fn missing(&self, span: Span, rules: &Rules, now: i64) -> Vec<Span> {
        let mut missing: Vec<Span> = Vec::new();
        let mut next = span.first;
        for (covered, part) in self.parts(span) {
            if rules.remaining(part, now).is_none() {
                continue;
            }
            if covered.first > next {
                missing.push(Span { first: next, last: covered.first - 1 });
            }
            next = covered.last + 1;
        }
        if next <= span.last {
            missing.push(Span { first: next, last: span.last });
        }
        match missing.as_slice() {
            [first, .., last] if missing.len() > MAX_REQUESTS => vec![first.hull(*last)],
            _ => missing,
        }
    }

    /// What is known of a span, in order: neighbours that were asked for together are one.
    pub fn known(&self, span: Span, rules: &Rules, now: i64) -> Vec<(Span, State, Duration)> {
        let mut known: Vec<(Span, State, Duration)> = Vec::new();
        for (covered, part) in self.parts(span) {
            let state = match rules.remaining(part, now) {
                None => State::Expired,
                Some(_) if part.is_settled => State::Settled,
                Some(_) => State::Volatile,
            };
            let age = Duration::from_millis(u64::try_from(now.saturating_sub(part.fetched_at)).unwrap_or(0));
            match known.last_mut() {
                Some((last, of, at)) if last.last + 1 == covered.first && (*of, *at) == (state, age) => {
                    last.last = covered.last;
                }
                _ => known.push((covered, state, age)),
            }
        }
        known
    }

    /// How many series have known points near a span.
    pub fn series(&self, span: Span) -> usize {
        let near = self.chunks.iter().filter(|chunk| chunk.span().overlap(span).is_some());
        near.flat_map(|chunk| &chunk.lines).map(|line| &line.metric).collect::<std::collections::HashSet<_>>().len()
    }

    /// A copy with the points of an answer to a request for `span` that began at `fetched_at`. What is of no use any more is
    /// left out.
    #[must_use]
    pub fn with(&self, span: Span, answer: &Answer<'_>, rules: &Rules, fetched_at: i64) -> Self {
        let known: HashMap<&str, &Arc<str>> =
            self.chunks.iter().flat_map(|chunk| &chunk.lines).map(|line| (&*line.metric, &line.metric)).collect();
        let mut series: Vec<_> = answer
            .series
            .iter()
            .map(|series| {
                let metric =
                    known.get(series.metric).map_or_else(|| Arc::from(series.metric), |known| (*known).clone());
                (metric, series)
            })
            .collect();
        series.sort_by(|one, other| label_order(&one.0, &other.0));
        let notes = (!answer.notes.is_empty()).then(|| Arc::new(answer.notes.clone()));
        let settled = rules.settled_index(fetched_at);

        let (first, last) = (place(span.first).0, place(span.last).0);
        let mut chunks: Vec<Arc<Chunk>> = Vec::with_capacity(self.chunks.len() + 2);
        let useful = |chunk: &Chunk| chunk.parts.iter().any(|part| rules.remaining(part, fetched_at).is_some());
        chunks.extend(self.chunks.iter().filter(|chunk| chunk.number < first && useful(chunk)).cloned());
        for number in first..=last {
            let empty = Chunk::new(number);
            let old = self.chunks.iter().find(|chunk| chunk.number == number).map_or(&empty, |chunk| &**chunk);
            if let Some(span) = old.span().overlap(span) {
                let piece = Piece { span, settled, fetched_at, series: &series, notes: notes.as_ref() };
                chunks.push(Arc::new(old.with(&piece)));
            }
        }
        chunks.extend(self.chunks.iter().filter(|chunk| chunk.number > last && useful(chunk)).cloned());
        Self { chunks }
    }

    /// Whether all of it was asked for after an instant.
    pub fn is_newer_than(&self, floor: i64) -> bool {
        floor == i64::MIN || self.chunks.iter().all(|chunk| chunk.is_newer_than(floor))
    }

    /// A copy with only the chunks of a window.
    #[must_use]
    pub fn only(&self, span: Span) -> Self {
        let chunks = self.chunks.iter().filter(|chunk| chunk.span().overlap(span).is_some());
        Self { chunks: chunks.cloned().collect() }
    }

    /// The answer for a window; `None` when points are missing.
    pub fn print(&self, span: Span, rules: &Rules, now: i64) -> Option<Printed> {
        let found = self.survey(span, rules, now);
        (found.points == span.points()).then(|| Printed {
            body: self.body(span, rules.grid, &found.notes),
            fetched_at: found.fetched_at,
            remaining: found.remaining,
        })
    }

    /// What is known of a window, at least half of it, although points are missing or their time has been over for at most
    /// `allowance`; `warning` says what it is worth.
    pub fn print_known(
        &self,
        span: Span,
        rules: &Rules,
        allowance: Duration,
        now: i64,
        warning: impl FnOnce(i64) -> String,
    ) -> Option<Printed> {
        let rules = Rules { volatile: rules.volatile + allowance, settled: rules.settled + allowance, ..*rules };
        let mut found = self.survey(span, &rules, now);
        if found.points == 0 || found.points * 2 < span.points() {
            return None;
        }
        found.notes.warnings.push(warning(found.fetched_at));
        // Points that are older still are in the way.
        let of_use = |chunk: &Arc<Chunk>| {
            let slots = chunk.slots(|part| rules.remaining(part, now).is_some());
            Arc::new(Chunk::new(chunk.number).blend(chunk, slots))
        };
        let known = Self { chunks: self.only(span).chunks.iter().map(of_use).collect() };
        let (fetched_at, remaining) = (found.fetched_at, found.remaining);
        Some(Printed { body: known.body(span, rules.grid, &found.notes), fetched_at, remaining })
    }

    /// What may be used of a window.
    fn survey(&self, span: Span, rules: &Rules, now: i64) -> Survey {
        let (mut points, mut oldest, mut volatile) = (0, i64::MAX, i64::MAX);
        let (mut remaining, mut notes) = (Duration::MAX, Notes::default());
        for (covered, part) in self.parts(span) {
            let Some(left) = rules.remaining(part, now) else { continue };
            points += covered.points();
            remaining = remaining.min(left);
            let age = if part.is_settled { &mut oldest } else { &mut volatile };
            *age = part.fetched_at.min(*age);
            part.notes.iter().for_each(|said| notes.add(said));
        }
        Survey { points, fetched_at: if volatile == i64::MAX { oldest } else { volatile }, remaining, notes }
    }

    /// The covered parts inside of a span, in order.
    fn parts(&self, span: Span) -> impl Iterator<Item = (Span, &Part)> {
        self.chunks.iter().flat_map(move |chunk| {
            let start = chunk.start();
            chunk.parts.iter().filter_map(move |part| {
                let covered = Span { first: start + i64::from(part.first), last: start + i64::from(part.last) };
                covered.overlap(span).map(|covered| (covered, part))
            })
        })
    }

    fn body(&self, span: Span, grid: Grid, notes: &Notes) -> Vec<u8> {
        let chunks: Vec<&Chunk> =
            self.chunks.iter().map(|chunk| &**chunk).filter(|chunk| chunk.span().overlap(span).is_some()).collect();
        let times = Times::of(span, grid);
        let mut out = Vec::with_capacity(256 + chunks.first().map_or(0, |chunk| chunk.lines.len()) * times.room());
        out.extend_from_slice(br#"{"status":"success","data":{"resultType":"matrix","result":["#);
        // Lines of all chunks that belong to one series, series in order.
        let mut at = vec![0_usize; chunks.len()];
        let mut is_first = true;
        loop {
            let heads = || chunks.iter().zip(&at).filter_map(|(chunk, at)| chunk.lines.get(*at));
            let Some(metric) = heads().map(|line| &line.metric).min_by(|one, other| label_order(one, other)) else {
                break;
            };
            let metric = metric.clone();
            let mut lines: Vec<(&Chunk, &Line)> = Vec::with_capacity(chunks.len());
            for (chunk, at) in chunks.iter().zip(&mut at) {
                if let Some(line) = chunk.lines.get(*at)
                    && line.metric == metric
                {
                    lines.push((chunk, line));
                    *at += 1;
                }
            }
            print_series(&mut out, &mut is_first, &metric, &lines, span, &times);
        }
        out.extend_from_slice(b"]}");
        for (name, all) in [("warnings", &notes.warnings), ("infos", &notes.infos)] {
            if !all.is_empty()
                && let Ok(list) = serde_json::to_string(all)
            {
                out.extend_from_slice(format!(",\"{name}\":{list}").as_bytes());
            }
        }
        out.push(b'}');
        out
    }
}

/// What may be used of a window.
struct Survey {
    points: i64,
    /// As in [`Printed`].
    fetched_at: i64,
    remaining: Duration,
    notes: Notes,
}

/// The instants of a window, printed once for all series.
struct Times {
    first: i64,
    text: Vec<u8>,
    ends: Vec<u32>,
}

impl Times {
    fn of(span: Span, grid: Grid) -> Self {
        let (mut text, mut ends) = (Vec::new(), vec![0]);
        for index in span.first..=span.last {
            print_time(&mut text, grid.time(index));
            ends.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        }
        Self { first: span.first, text, ends }
    }

    fn at(&self, index: i64) -> &[u8] {
        let place = usize::try_from(index - self.first).unwrap_or(usize::MAX);
        match (self.ends.get(place), self.ends.get(place.saturating_add(1))) {
            (Some(from), Some(to)) => &self.text[*from as usize..*to as usize],
            _ => &[],
        }
    }

    /// What one series may take, about.
    fn room(&self) -> usize {
        self.text.len() + self.ends.len() * 16 + 128
    }
}

/// Prints one series, if it has a sample in the window.
fn print_series(
    out: &mut Vec<u8>,
    is_first: &mut bool,
    metric: &str,
    lines: &[(&Chunk, &Line)],
    span: Span,
    times: &Times,
) {
    let begin = out.len();
    if !*is_first {
        out.push(b',');
    }
    out.extend_from_slice(b"{\"metric\":");
    out.extend_from_slice(metric.as_bytes());
    let empty = out.len();

    let mut list = List { name: b",\"values\":[", is_open: false };
    for (chunk, line) in lines {
        line.values.each(|slot, text| {
            let index = chunk.start() + i64::from(slot);
            if index >= span.first && index <= span.last {
                list.next(out);
                out.push(b'[');
                out.extend_from_slice(times.at(index));
                out.extend_from_slice(b",\"");
                out.extend_from_slice(text);
                out.extend_from_slice(b"\"]");
            }
        });
    }
    list.end(out);
    let mut list = List { name: b",\"histograms\":[", is_open: false };
    for (chunk, line) in lines {
        for (slot, text) in line.histograms.iter().flat_map(|histograms| histograms.iter()) {
            let index = chunk.start() + i64::from(*slot);
            if index >= span.first && index <= span.last {
                list.next(out);
                out.push(b'[');
                out.extend_from_slice(times.at(index));
                out.push(b',');
                out.extend_from_slice(text.as_bytes());
                out.push(b']');
            }
        }
    }
    list.end(out);
    if out.len() == empty {
        out.truncate(begin);
    } else {
        out.push(b'}');
        *is_first = false;
    }
}

/// A JSON list that is not there when it is empty.
struct List {
    name: &'static [u8],
    is_open: bool,
}

impl List {
    fn next(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.is_open { b"," } else { self.name });
        self.is_open = true;
    }

    fn end(&self, out: &mut Vec<u8>) {
        if self.is_open {
            out.push(b']');
        }
    }
}
