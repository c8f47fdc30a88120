//! A stretch of one query's points: what is covered, since when, and the series in it. Pure.

use std::cmp::Ordering;
use std::sync::Arc;

use super::column::{Column, SLOTS, mask};
use super::grid::Span;
use super::samples::{Notes, Series};

/// Points of chunk `number` have the indices from `number x SLOTS` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub(super) number: i64,
    /// Covered parts, ordered, without overlap.
    pub(super) parts: Vec<Part>,
    /// Series with at least one sample, ordered by [`label_order`].
    pub(super) lines: Vec<Line>,
}

/// Points that one request to the datasource gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// First slot.
    pub first: u8,
    /// Last slot.
    pub last: u8,
    /// When the request began, in milliseconds since the epoch.
    pub fetched_at: i64,
    /// Whether the data was old enough then to change no more.
    pub is_settled: bool,
    /// What the datasource said.
    pub notes: Option<Arc<Notes>>,
}

/// One series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub(super) metric: Arc<str>,
    pub(super) values: Column,
    /// Native histograms, as JSON by slot; few series have them.
    pub(super) histograms: Option<Histograms>,
}

/// JSON by slot.
pub(super) type Histograms = Arc<[(u8, Box<str>)]>;

/// Where an index lies.
pub const fn place(index: i64) -> (i64, u8) {
    let slot = index.rem_euclid(SLOTS as i64);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a remainder is less than SLOTS")]
    (index.div_euclid(SLOTS as i64), slot as u8)
}

/// A fetched stretch for one chunk.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The points it covers, all in one chunk.
    pub span: Span,
    /// Up to this index data was old enough to change no more.
    pub settled: i64,
    /// When the request began.
    pub fetched_at: i64,
    /// The whole answer, ordered by [`label_order`]; samples outside of `span` are not looked at.
    pub series: &'a [(Arc<str>, &'a Series<'a>)],
    /// What was said.
    pub notes: Option<&'a Arc<Notes>>,
}

impl Chunk {
    /// An empty one.
    pub const fn new(number: i64) -> Self {
        Self { number, parts: Vec::new(), lines: Vec::new() }
    }

    /// Whether all of it was asked for after an instant.
    pub fn is_newer_than(&self, floor: i64) -> bool {
        self.parts.iter().all(|part| part.fetched_at > floor)
    }

    /// Which of the chunks.
    pub const fn number(&self) -> i64 {
        self.number
    }

    /// The index of its first point.
    pub const fn start(&self) -> i64 {
        self.number * SLOTS as i64
    }

    /// All points that it may have.
    pub const fn span(&self) -> Span {
        Span { first: self.start(), last: self.start() + SLOTS as i64 - 1 }
    }

    /// Bytes in memory, about.
    pub fn weight(&self) -> usize {
        let histograms = |line: &Line| {
            let all = line.histograms.iter().flat_map(|histograms| histograms.iter());
            all.map(|(_, text)| text.len() + size_of::<(u8, Box<str>)>()).sum::<usize>()
        };
        let lines = self.lines.iter().map(|line| size_of::<Line>() + line.values.heap() + histograms(line));
        size_of::<Self>() + self.parts.len() * size_of::<Part>() + lines.sum::<usize>()
    }

    /// A copy in which the points of `piece` are those of `piece`.
    #[must_use]
    pub fn with(&self, piece: &Piece<'_>) -> Self {
        let (first, last) = (place(piece.span.first).1, place(piece.span.last).1);
        let mut lines = Vec::with_capacity(self.lines.len().max(piece.series.len()));
        let (mut old, mut new) = (self.lines.iter().peekable(), piece.series.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(line), Some((metric, _))) => label_order(&line.metric, metric),
            };
            let line = if order.is_le() { old.next() } else { None };
            let series = if order.is_ge() { new.next() } else { None };
            let metric = series.map(|(metric, _)| metric).or(line.map(|line| &line.metric));
            if let Some(metric) = metric {
                lines.extend(merged(metric, line, series.map(|(_, series)| *series), (first, last), piece.span));
            }
        }
        Self { number: self.number, parts: self.covered(piece, first, last), lines }
    }

    fn covered(&self, piece: &Piece<'_>, first: u8, last: u8) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::with_capacity(self.parts.len() + 2);
        for part in &self.parts {
            if part.first < first {
                parts.push(Part { last: part.last.min(first - 1), ..part.clone() });
            }
            if part.last > last {
                parts.push(Part { first: part.first.max(last + 1), ..part.clone() });
            }
        }
        // The last settled slot of the piece, counted from one: nothing settled is zero.
        let settled = (piece.settled.min(piece.span.last) - piece.span.first + 1).max(0);
        let settled = first + u8::try_from(settled).unwrap_or(SLOTS).min(SLOTS - first);
        for (first, last, is_settled) in [(first, settled.wrapping_sub(1), true), (settled, last, false)] {
            if (is_settled && settled > first) || (!is_settled && first <= last) {
                let notes = piece.notes.cloned();
                parts.push(Part { first, last, fetched_at: piece.fetched_at, is_settled, notes });
            }
        }
        joined(parts)
    }

    /// A copy in which the slots of `take` are as in `other`, covered or not.
    #[must_use]
    pub fn blend(&self, other: &Self, take: u128) -> Self {
        let cut = |parts: &[Part], mask: u128| -> Vec<Part> {
            let cut = |part: &Part| {
                let part = part.clone();
                runs(part.mask() & mask).map(move |(first, last)| Part { first, last, ..part.clone() })
            };
            parts.iter().flat_map(cut).collect()
        };
        let parts = joined([cut(&self.parts, !take), cut(&other.parts, take)].concat());
        let mut lines = Vec::with_capacity(self.lines.len().max(other.lines.len()));
        let (mut old, mut new) = (self.lines.iter().peekable(), other.lines.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(one), Some(other)) => label_order(&one.metric, &other.metric),
            };
            let old = if order.is_le() { old.next() } else { None };
            let new = if order.is_ge() { new.next() } else { None };
            lines.extend(Line::blend(old, new, take));
        }
        Self { number: self.number, parts, lines }
    }

    /// The slots of the parts that `is_meant` names.
    pub fn slots(&self, is_meant: impl Fn(&Part) -> bool) -> u128 {
        self.parts.iter().filter(|part| is_meant(part)).fold(0, |slots, part| slots | part.mask())
    }
}

impl Part {
    fn mask(&self) -> u128 {
        mask(self.first, self.last)
    }
}

impl Line {
    /// The slots of `take` as in `new`, the others as in `old`; `None` without a sample.
    fn blend(old: Option<&Self>, new: Option<&Self>, take: u128) -> Option<Self> {
        let metric = &old.or(new)?.metric;
        let sides = [(old, !take), (new, take)];
        let chosen = || sides.iter().filter_map(|(line, mask)| line.map(|line| (line, *mask)));
        let mut histograms: Vec<(u8, Box<str>)> = Vec::new();
        for (line, mask) in chosen() {
            let all = line.histograms.iter().flat_map(|histograms| histograms.iter());
            histograms.extend(all.filter(|(slot, _)| mask >> *slot & 1 == 1).cloned());
        }
        histograms.sort_by_key(|(slot, _)| *slot);
        let histograms: Option<Histograms> = (!histograms.is_empty()).then(|| histograms.into());
        let mut with_values = chosen().filter(|(line, mask)| line.values.present() & mask != 0);
        let values = match (with_values.next(), with_values.next()) {
            (None, _) => Column::default(),
            // One side has all of it, and nothing else.
            (Some((line, mask)), None) if line.values.present() & !mask == 0 => line.values.clone(),
            _ => {
                let mut values: Vec<(u8, String)> = Vec::new();
                for (line, mask) in chosen() {
                    line.values.each(|slot, text| {
                        if mask >> slot & 1 == 1 {
                            values.push((slot, String::from_utf8_lossy(text).into_owned()));
                        }
                    });
                }
                values.sort_by_key(|(slot, _)| *slot);
                let values: Vec<(u8, &str)> = values.iter().map(|(slot, text)| (*slot, text.as_str())).collect();
                Column::pack(&values)
            }
        };
        (!values.is_empty() || histograms.is_some()).then(|| Self { metric: metric.clone(), values, histograms })
    }
}

/// Parts in order; neighbours that will change no more are one part, as old as the older.
fn joined(mut parts: Vec<Part>) -> Vec<Part> {
    parts.sort_by_key(|part| part.first);
    parts.dedup_by(|next, part| {
        let joins = part.last + 1 == next.first && part.is_settled && next.is_settled && part.notes == next.notes;
        if joins {
            part.last = next.last;
            part.fetched_at = part.fetched_at.min(next.fetched_at);
        }
        joins
    });
    parts
}

/// First and last of each row of bits.
fn runs(mut slots: u128) -> impl Iterator<Item = (u8, u8)> {
    std::iter::from_fn(move || {
        let first = u8::try_from(slots.trailing_zeros()).ok().filter(|first| *first < SLOTS)?;
        let length = u8::try_from((slots >> first).trailing_ones()).ok()?;
        let last = first + length - 1;
        slots &= !mask(first, last);
        Some((first, last))
    })
}

/// One series with the samples of `line` outside of the slots and those of `series` inside of the span; `None` without any.
fn merged(
    metric: &Arc<str>,
    line: Option<&Line>,
    series: Option<&Series<'_>>,
    (first, last): (u8, u8),
    span: Span,
) -> Option<Line> {
    let is_kept = |slot: u8| slot < first || slot > last;
    let untouched =
        line.filter(|line| series.is_none() && !line.values.has_any(first, last) && line.histograms.is_none());
    if let Some(line) = untouched {
        return Some(line.clone());
    }
    let inside = |samples: &[(i64, &str)], take: &mut dyn FnMut(u8, &str)| {
        let from = samples.partition_point(|(index, _)| *index < span.first);
        for (index, text) in samples[from..].iter().take_while(|(index, _)| *index <= span.last) {
            take(place(*index).1, text);
        }
    };
    let mut values: Vec<(u8, String)> = Vec::new();
    if let Some(line) = line {
        line.values.each(|slot, text| {
            if is_kept(slot) {
                values.push((slot, String::from_utf8_lossy(text).into_owned()));
            }
        });
    }
    let mut histograms: Vec<(u8, Box<str>)> = line
        .and_then(|line| line.histograms.as_ref())
        .map(|histograms| histograms.iter().filter(|(slot, _)| is_kept(*slot)).cloned().collect())
        .unwrap_or_default();
    if let Some(series) = series {
        inside(&series.values, &mut |slot, text| values.push((slot, text.to_owned())));
        inside(&series.histograms, &mut |slot, text| histograms.push((slot, text.into())));
    }
    if values.is_empty() && histograms.is_empty() {
        return None;
    }
    values.sort_by_key(|(slot, _)| *slot);
    histograms.sort_by_key(|(slot, _)| *slot);
    let values: Vec<(u8, &str)> = values.iter().map(|(slot, text)| (*slot, text.as_str())).collect();
    let histograms = (!histograms.is_empty()).then(|| histograms.into());
    Some(Line { metric: metric.clone(), values: Column::pack(&values), histograms })
}

/// The order in which Prometheus lists label sets, read off their JSON: label by label, and what ends first comes first.
pub fn label_order(one: &str, other: &str) -> Ordering {
    let rank = |byte: u8| match byte {
        b'}' => 0,
        b'"' => 1,
        byte => byte.saturating_add(2),
    };
    one.bytes().map(rank).cmp(other.bytes().map(rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_sets_are_ordered_as_prometheus_orders_them() {
        let ordered = [
            "{}",
            r#"{"a":"1"}"#,
            r#"{"a":"1","b":"2"}"#,
            r#"{"a":"1 "}"#,
            r#"{"a":"10"}"#,
            r#"{"a":"2"}"#,
            r#"{"aa":"0"}"#,
            r#"{"b":"0"}"#,
        ];
        for pair in ordered.windows(2) {
            assert_eq!(label_order(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
    }

    #[test]
    fn indices_have_a_place() {
        assert_eq!(place(0), (0, 0));
        assert_eq!(place(127), (0, 127));
        assert_eq!(place(128), (1, 0));
        assert_eq!(place(-1), (-1, 127));
    }
}
