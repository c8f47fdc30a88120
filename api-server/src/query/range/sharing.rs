//! Which points pods give each other: those that change no more. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::chunk::{Chunk, place};
use super::column::mask;
use super::entry::{Entry, Rules};
use super::grid::Span;

/// Fewer points than this are asked for together with the newest ones, and not written for their own sake while more come.
const WORTH: u32 = 16;
/// More chunks are not looked for at once: no window has more.
const MAX_CHUNKS: usize = 88;

/// What others have already: slots by number of the chunk.
pub type Known = HashMap<i64, u128>;

impl Entry {
    /// The chunks to look for with other pods before `missing` is asked for.
    pub fn wanted(&self, missing: &[Span], rules: &Rules, now: i64) -> Vec<i64> {
        let settled = rules.settled_index(now);
        // What is young must be asked for in any case: a few more points beside it do not matter then.
        let growing = missing.iter().any(|span| span.last > settled).then(|| place(settled).0);
        let mut wanted: Vec<i64> = Vec::new();
        for span in missing.iter().filter(|span| span.first <= settled) {
            let closed = Span { last: span.last.min(settled), ..*span };
            for number in place(closed.first).0..=place(closed.last).0 {
                let points = Chunk::new(number).span().overlap(closed).map_or(0, Span::points);
                let least = if growing == Some(number) { i64::from(WORTH) } else { 1 };
                if points >= least && wanted.last() != Some(&number) {
                    wanted.push(number);
                }
            }
        }
        wanted.truncate(MAX_CHUNKS);
        wanted
    }

    /// A copy with the points of others that may be used and are not known yet.
    #[must_use]
    pub fn absorb(&self, others: Vec<Chunk>, rules: &Rules, now: i64) -> Self {
        let mut labels: HashSet<Arc<str>> =
            self.chunks.iter().flat_map(|chunk| &chunk.lines).map(|line| line.metric.clone()).collect();
        let mut chunks = self.chunks.clone();
        for mut other in others {
            for line in &mut other.lines {
                if let Some(known) = labels.get(&line.metric) {
                    line.metric = known.clone();
                } else {
                    labels.insert(line.metric.clone());
                }
            }
            let at = chunks.binary_search_by_key(&other.number, |chunk| chunk.number);
            let own = at.map_or_else(|_| Arc::new(Chunk::new(other.number)), |at| chunks[at].clone());
            let take = other.closed(rules, now) & !own.slots(|part| rules.remaining(part, now).is_some());
            if take != 0 {
                let blended = Arc::new(own.blend(&other, take));
                match at {
                    Ok(at) => chunks[at] = blended,
                    Err(at) => chunks.insert(at, blended),
                }
            }
        }
        Self { chunks }
    }

    /// Chunks of these spans with points that others may use and do not have, enough of them to be worth it. They are
    /// noted in `known`.
    pub fn news(&self, spans: &[Span], known: &mut Known, rules: &Rules, now: i64) -> Vec<Chunk> {
        let mut news = Vec::new();
        for chunk in &self.chunks {
            let asked = spans.iter().filter_map(|span| chunk.span().overlap(*span));
            let fetched = asked.fold(0, |slots, span| slots | slots_of(span));
            if fetched == 0 {
                continue;
            }
            let closed = chunk.closed(rules, now);
            // What was asked for again is newer than what others have.
            let theirs = known.get(&chunk.number).map_or(0, |slots| slots & !fetched);
            let is_growing = chunk.slots(|part| !part.is_settled) != 0;
            let new = (closed & !theirs).count_ones();
            let is_worth = new >= if is_growing { WORTH } else { 1 };
            known.insert(chunk.number, if is_worth { closed } else { theirs });
            if is_worth {
                news.push(Chunk::new(chunk.number).blend(chunk, closed));
            }
        }
        known.retain(|number, _| self.chunks.iter().any(|chunk| chunk.number == *number));
        news
    }
}

impl Chunk {
    /// Slots that may be used and change no more.
    fn closed(&self, rules: &Rules, now: i64) -> u128 {
        self.slots(|part| part.is_settled && rules.remaining(part, now).is_some())
    }

    /// How long its points may be used at most.
    pub fn remaining(&self, rules: &Rules, now: i64) -> Option<Duration> {
        self.parts.iter().filter_map(|part| rules.remaining(part, now)).max()
    }
}

/// The slots of a span within one chunk.
fn slots_of(span: Span) -> u128 {
    mask(place(span.first).1, place(span.last).1)
}

#[cfg(test)]
mod tests;
