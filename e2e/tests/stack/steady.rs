//! A steady load of reads, as browsers and dashboards on walls make it: keep-alive connections, a fixed rate, every answer
//! checked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::perses::Perses;
use tokio::sync::Mutex;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;

/// A read that did not bring what it should.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) at: Duration,
    pub(crate) took: Duration,
    pub(crate) reason: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "after {:.1?}, in {:.1?}: {}", self.at, self.took, self.reason)
    }
}

/// What a load saw.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) sent: usize,
    pub(crate) failures: Vec<Failure>,
    latencies: Vec<Duration>,
}

impl Report {
    /// The latency under which `share` of the good answers came.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into a list of at most some thousand"
        )]
        let index = (sorted.len() as f64 * share) as usize;
        sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// The first failures, a line each.
    pub(crate) fn listing(&self) -> String {
        self.failures.iter().take(20).flat_map(|failure| ["\n  ".to_owned(), failure.to_string()]).collect()
    }

    /// Fails when anything failed.
    pub(crate) fn all_good(&self, what: &str) -> Result<()> {
        eprintln!("      {what}: {} reads, p95 {:?}, {} failed", self.sent, self.percentile(0.95), self.failures.len());
        ensure!(self.sent > 50, "{what}: only {} reads were sent", self.sent);
        ensure!(
            self.failures.is_empty(),
            "{what}: {} of {} reads failed: {}",
            self.failures.len(),
            self.sent,
            self.listing()
        );
        Ok(())
    }
}

/// A running load.
pub(crate) struct Steady {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    report: Arc<Mutex<Report>>,
}

impl Steady {
    /// Reads `paths` in turn, `rate` times a second, until [`Self::finish`].
    pub(crate) fn start(perses: &Perses, paths: Vec<String>, rate: u32) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let report = Arc::new(Mutex::new(Report::default()));
        let (perses, shared) = (perses.clone(), report.clone());
        let task = tokio::spawn(async move {
            let begin = Instant::now();
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut requests = JoinSet::new();
            for path in paths.iter().cycle() {
                tokio::select! {
                    _ = &mut stopped => break,
                    _ = ticks.tick() => {}
                }
                let (perses, path, shared) = (perses.clone(), path.clone(), shared.clone());
                requests.spawn(async move {
                    let started = Instant::now();
                    let answer = perses.get(&path).await;
                    let took = started.elapsed();
                    let mut report = shared.lock().await;
                    report.sent += 1;
                    let reason = match answer {
                        Ok(answer) if answer.status == 200 && !answer.body.is_empty() => {
                            report.latencies.push(took);
                            return;
                        }
                        Ok(answer) => format!("status {}: {}", answer.status, String::from_utf8_lossy(&answer.body)),
                        Err(error) => format!("{error:#}: {:?}", error.source().map(ToString::to_string)),
                    };
                    report.failures.push(Failure { at: started - begin, took, reason });
                });
                while requests.try_join_next().is_some() {}
            }
            while requests.join_next().await.is_some() {}
        });
        Self { stop, task, report }
    }

    /// How many reads were sent so far.
    pub(crate) async fn sent(&self) -> usize {
        self.report.lock().await.sent
    }

    /// Stops, waits for the reads in flight, and tells what was seen.
    pub(crate) async fn finish(self) -> Result<Report> {
        let _ = self.stop.send(());
        self.task.await?;
        Ok(std::mem::take(&mut *self.report.lock().await))
    }
}
