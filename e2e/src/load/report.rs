//! What a load run found: counts, failures with time and reason, latencies.

use std::{collections::BTreeMap, fmt, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::load::{Failure, connection::Counts};

/// Failures kept with their details; all are counted.
const KEPT_FAILURES: usize = 1000;

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// From the first request to the last response.
    pub seconds: f64,
    /// Requests that ended, well or badly.
    pub requests: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Failures by kind.
    pub failures_by_kind: BTreeMap<&'static str, u64>,
    /// The first failures, each with time and reason.
    pub failures: Vec<FailedRequest>,
    /// Body bytes received in successful responses.
    pub body_bytes: u64,
    /// Connections opened.
    pub connections_opened: u64,
    /// Connections that the server closed between two requests; not a failure.
    pub idle_closed: u64,
    /// Requests repeated because the server closed the idle connection while they were on their way; not a failure.
    pub stale_retries: u64,
    /// Latency of successful requests. In open loop it starts when the request was due, not when a connection was free.
    pub latency: Latency,
}

/// One failed request.
#[derive(Debug, Clone, Serialize)]
pub struct FailedRequest {
    /// Seconds after the start of the run at which the request was sent.
    pub sent_at: f64,
    /// Seconds from when it was due to its failure.
    pub after: f64,
    /// Index of the request in the plan.
    pub request: usize,
    /// Why.
    pub reason: String,
}

/// Quantiles in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Latency {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Report {
    /// Responses a second that were right.
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { count(self.requests - self.failed) / self.seconds } else { 0.0 }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "requests     {:>10}  in {:.1} s, {:.1} good ones a second",
            self.requests,
            self.seconds,
            self.rate()
        )?;
        writeln!(f, "failed       {:>10}", self.failed)?;
        for (kind, count) in &self.failures_by_kind {
            writeln!(f, "  {kind:<10} {count:>10}")?;
        }
        writeln!(f, "connections  {:>10}  opened", self.connections_opened)?;
        writeln!(f, "             {:>10}  closed by the server while idle", self.idle_closed)?;
        writeln!(f, "             {:>10}  requests repeated on a fresh one", self.stale_retries)?;
        let Latency { mean, p50, p90, p95, p99, max } = self.latency;
        writeln!(
            f,
            "latency, ms  mean {mean:.2}  p50 {p50:.2}  p90 {p90:.2}  p95 {p95:.2}  p99 {p99:.2}  max {max:.2}"
        )?;
        for failure in self.failures.iter().take(20) {
            let FailedRequest { sent_at, after, request, reason } = failure;
            writeln!(f, "  at {sent_at:8.3} s, after {after:.3} s, request {request}: {reason}")?;
        }
        Ok(())
    }
}

/// How one request ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Index in the plan.
    pub(super) request: usize,
    /// When it was sent, after the start of the run.
    pub(super) sent_at: Duration,
    /// From when it was due to its end.
    pub(super) latency: Duration,
    /// Bytes of the body, or what went wrong.
    pub(super) result: Result<usize, Failure>,
}

/// Collects results; one for each worker, merged at the end.
#[derive(Debug)]
pub(super) struct Recorder {
    latencies: Histogram<u64>,
    requests: u64,
    body_bytes: u64,
    by_kind: BTreeMap<&'static str, u64>,
    failures: Vec<FailedRequest>,
    counts: Counts,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self {
            // Microseconds up to an hour with two digits; the crate refuses only nonsensical bounds.
            latencies: Histogram::new_with_max(3_600_000_000, 2)
                .unwrap_or_else(|_| unreachable!("the bounds of the histogram are constants")),
            requests: 0,
            body_bytes: 0,
            by_kind: BTreeMap::new(),
            failures: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Counts a request; says whether it was a good one.
    pub(super) fn record(&mut self, outcome: Outcome) -> bool {
        let Outcome { request, sent_at, latency, result } = outcome;
        self.requests += 1;
        match result {
            Ok(body_bytes) => {
                self.body_bytes += body_bytes as u64;
                self.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
                true
            }
            Err(failure) => {
                *self.by_kind.entry(failure.kind()).or_default() += 1;
                if self.failures.len() < KEPT_FAILURES {
                    let (sent_at, after) = (sent_at.as_secs_f64(), latency.as_secs_f64());
                    self.failures.push(FailedRequest { sent_at, after, request, reason: failure.to_string() });
                }
                false
            }
        }
    }

    pub(super) fn connection(&mut self, counts: Counts) {
        self.counts.opened += counts.opened;
        self.counts.idle_closed += counts.idle_closed;
        self.counts.stale_retries += counts.stale_retries;
    }

    pub(super) fn merge(&mut self, other: Self) {
        _ = self.latencies.add(&other.latencies);
        self.requests += other.requests;
        self.body_bytes += other.body_bytes;
        for (kind, count) in other.by_kind {
            *self.by_kind.entry(kind).or_default() += count;
        }
        self.failures.extend(other.failures);
        self.connection(other.counts);
    }

    pub(super) fn report(mut self, elapsed: Duration) -> Report {
        self.failures.sort_by(|a, b| a.sent_at.total_cmp(&b.sent_at));
        self.failures.truncate(KEPT_FAILURES);
        let quantile = |q: f64| count(self.latencies.value_at_quantile(q)) / 1000.0;
        Report {
            seconds: elapsed.as_secs_f64(),
            requests: self.requests,
            failed: self.by_kind.values().sum(),
            latency: Latency {
                mean: if self.latencies.is_empty() { 0.0 } else { self.latencies.mean() / 1000.0 },
                p50: quantile(0.5),
                p90: quantile(0.9),
                p95: quantile(0.95),
                p99: quantile(0.99),
                max: count(self.latencies.max()) / 1000.0,
            },
            failures_by_kind: self.by_kind,
            failures: self.failures,
            body_bytes: self.body_bytes,
            connections_opened: self.counts.opened,
            idle_closed: self.counts.idle_closed,
            stale_retries: self.counts.stale_retries,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts for people, far below 2^52")]
fn count(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_several_workers_are_one() {
        let (mut one, mut two) = (Recorder::new(), Recorder::new());
        let outcome = |request, sent_at, millis, result| Outcome {
            request,
            sent_at: Duration::from_secs(sent_at),
            latency: Duration::from_millis(millis),
            result,
        };
        for millis in 1..=99 {
            assert!(one.record(outcome(0, 0, millis, Ok(10))));
        }
        assert!(two.record(outcome(0, 0, 100, Ok(10))));
        assert!(!two.record(outcome(7, 2, 3, Err(Failure::Status(503)))));
        assert!(!one.record(outcome(8, 3, 3, Err(Failure::Reset))));
        two.connection(Counts { opened: 2, idle_closed: 1, stale_retries: 1 });
        one.merge(two);
        let report = one.report(Duration::from_secs(10));
        assert_eq!((report.requests, report.failed, report.body_bytes), (102, 2, 1000));
        assert_eq!(report.failures.iter().map(|failure| failure.request).collect::<Vec<_>>(), [7, 8]);
        assert_eq!(report.failures_by_kind, BTreeMap::from([("reset", 1), ("status", 1)]));
        assert!((report.latency.p50 - 50.0).abs() < 1.0, "{:?}", report.latency);
        assert!((report.latency.p99 - 99.0).abs() < 1.0, "{:?}", report.latency);
        assert!((report.rate() - 10.0).abs() < 1e-9);
        assert!(report.to_string().contains("at    2.000 s, after 0.003 s, request 7: status 503"), "{report}");
    }
}
