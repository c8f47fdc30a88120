//! What an answer of Prometheus has, counted while it goes by: nothing is held, no number is read.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::limit::{Breach, Exceeded, Limit};
use crate::config::RequestLimits;

/// Series, points and bytes so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Objects in `data.result`.
    pub(super) series: u64,
    /// Samples of range queries.
    pub(super) points: u64,
    /// Bytes of the body.
    pub(super) bytes: u64,
}

/// Where in the JSON text it is. Only as much as is needed: nesting, and what is inside of a string.
#[derive(Debug, Default)]
struct Counter {
    counts: Counts,
    depth: u32,
    /// For each of the outermost levels, a bit: whether it is an array.
    arrays: u32,
    in_string: bool,
    escaped: bool,
}

impl Counter {
    /// `{data: {result: [`: here each object is a series.
    const RESULT: (u32, u32) = (3, 0b100);
    /// `{data: {result: [{values: [`: here each array is a sample.
    const VALUES: (u32, u32) = (5, 0b1_0100);

    /// Counts the next piece.
    fn feed(&mut self, piece: &[u8]) {
        self.counts.bytes += piece.len() as u64;
        for &byte in piece {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.open(byte == b'['),
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth < Self::VALUES.0 {
                        self.arrays &= !(1 << self.depth);
                    }
                }
                _ => {}
            }
        }
    }

    fn open(&mut self, is_array: bool) {
        match (self.depth, self.arrays) {
            Self::RESULT if !is_array => self.counts.series += 1,
            Self::VALUES if is_array => self.counts.points += 1,
            _ => {}
        }
        if self.depth < Self::VALUES.0 {
            self.arrays |= u32::from(is_array) << self.depth;
        }
        self.depth += 1;
    }

    /// What there is so far.
    const fn counts(&self) -> Counts {
        self.counts
    }
}

impl Counts {
    /// Of a whole body.
    pub(super) fn of(body: &[u8]) -> Self {
        let mut counter = Counter::default();
        counter.feed(body);
        counter.counts()
    }

    /// What is over a limit.
    pub(super) fn breaches(self, limits: &RequestLimits) -> impl Iterator<Item = Breach> {
        let all = [
            (Limit::Series, self.series, limits.max_series, "time series"),
            (Limit::Points, self.points, limits.max_points, "points"),
            (Limit::Bytes, self.bytes, limits.max_bytes, "bytes"),
        ];
        all.into_iter().filter(|(_, found, most, _)| *most > 0 && found > most).map(|(limit, _, most, what)| Breach {
            limit,
            // A stream is not read to its end to say how many there would be.
            text: format!("the answer has more than {most} {what}"),
        })
    }
}

/// Who is told about each breach; an error ends the body.
pub(super) type Judge = Arc<dyn Fn(Breach) -> Result<(), Exceeded> + Send + Sync>;

/// A body that is counted as it is read.
pub(super) struct Counted {
    /// Dropped, and with it the request to the datasource, where a limit ends the answer.
    body: Option<Body>,
    counter: Counter,
    limits: Arc<RequestLimits>,
    told: Vec<Limit>,
    judge: Judge,
}

impl Counted {
    /// Counts a body.
    pub(super) fn new(body: Body, limits: Arc<RequestLimits>, judge: Judge) -> Self {
        Self { body: Some(body), counter: Counter::default(), limits, told: Vec::new(), judge }
    }

    fn look(&mut self) -> Result<(), Exceeded> {
        for breach in self.counter.counts().breaches(&self.limits) {
            if !self.told.contains(&breach.limit) {
                self.told.push(breach.limit);
                (self.judge)(breach)?;
            }
        }
        Ok(())
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        Pin::new(body).poll_frame(cx).map(|frame| {
            let frame = match frame? {
                Ok(frame) => frame,
                Err(error) => return Some(Err(error.into())),
            };
            if let Some(data) = frame.data_ref() {
                this.counter.feed(data);
                if let Err(exceeded) = this.look() {
                    this.body = None;
                    return Some(Err(exceeded.into()));
                }
            }
            Some(Ok(frame))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(body: &str) -> (u64, u64) {
        let counts = Counts::of(body.as_bytes());
        assert_eq!(counts.bytes, body.len() as u64);
        (counts.series, counts.points)
    }

    #[test]
    fn every_shape_is_counted() {
        for (body, expected) in [
            (r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#, (0, 0)),
            (
                r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"}]{[\"[[\\"},"values":[[1,"2"],[3,"4"]]},{"metric":{},"values":[[1,"2"]],"histograms":[[5,{"count":"1","buckets":[[0,"1","2","3"],[1,"2","3","4"]]}]]}]}}"#,
                (2, 4),
            ),
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"2"]},{"metric":{"b":"c"},"histogram":[1,{"buckets":[[1,"2"]]}]}]}}"#,
                (2, 0),
            ),
            (r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#, (0, 0)),
            (
                r#"{ "warnings" : [ "[[{" ], "data" : { "stats": {"a": [{}, {}]}, "result" : [ { "values" : [ [ 1 , "2" ] ] } ] } }"#,
                (1, 1),
            ),
            (r#"{"status":"success","data":["a","b"]}"#, (0, 0)),
        ] {
            assert_eq!(counts(body), expected, "{body}");
        }
    }

    proptest! {
        #[test]
        fn pieces_count_like_the_whole(
            series in prop::collection::vec((".{0,8}", 0..5_usize), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let result: Vec<_> = series.iter().map(|(label, points)| {
                serde_json::json!({"metric": {"l": label}, "values": vec![(1, label); *points]})
            }).collect();
            let body = serde_json::json!({"status": "success", "data": {"result": result, "resultType": "matrix"}}).to_string();
            let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(body.len())).collect();
            places.extend([0, body.len()]);
            places.sort_unstable();
            let mut counter = Counter::default();
            places.windows(2).for_each(|cut| counter.feed(&body.as_bytes()[cut[0]..cut[1]]));
            let points = series.iter().map(|(_, points)| *points as u64).sum();
            prop_assert_eq!(counter.counts(), Counts { series: series.len() as u64, points, bytes: body.len() as u64 });
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(prop::sample::select(b"{}[]\"\\a,".to_vec()), 0..200)) {
            Counts::of(&bytes);
        }
    }
}
