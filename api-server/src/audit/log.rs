//! Where records go: a line in the log at once, and the store by one task, in batches, off the path of requests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::domain::audit::{Query, Record};
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

/// Records that wait for the store at most; beyond that they are dropped (and counted), the lines in the log remain.
const WAITING: usize = 5_000;
/// Records written at once at most.
const BATCH: usize = 500;
/// Records kept in memory when the store keeps none.
const KEPT_IN_MEMORY: usize = 10_000;
/// Pauses between attempts while the store is away.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long the last records may take when the server stops.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);
/// How often old records are removed.
const PRUNE_INTERVAL: Duration = Duration::from_mins(10);

/// The audit log.
#[derive(Debug)]
pub struct AuditLog {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    log_lines: bool,
    retention: Duration,
    queue: mpsc::Sender<Record>,
    /// Taken by [`Self::run`].
    waiting: Mutex<Option<mpsc::Receiver<Record>>>,
    /// The newest records, oldest first, when the store keeps none.
    memory: Mutex<VecDeque<Record>>,
}

impl AuditLog {
    /// A log as configured; `None` when it is off.
    pub fn new(config: &config::Audit, store: Arc<dyn Store>, metrics: Arc<Metrics>) -> Option<Arc<Self>> {
        if !config.enable {
            return None;
        }
        let (queue, waiting) = mpsc::channel(WAITING);
        Some(Arc::new(Self {
            store,
            metrics,
            log_lines: config.log,
            retention: config.retention.0,
            queue,
            waiting: Mutex::new(Some(waiting)),
            memory: Mutex::default(),
        }))
    }

    /// Takes a record; never waits.
    pub(super) fn leave(&self, record: Record) {
        self.metrics.audit_records.inc();
        if self.log_lines {
            line(&record);
        }
        if self.store.audit().is_none() {
            let mut memory = self.memory.lock();
            if memory.len() >= KEPT_IN_MEMORY {
                memory.pop_front();
            }
            memory.push_back(record);
        } else if self.queue.try_send(record).is_err() {
            self.metrics.audit_dropped.inc();
        }
    }

    /// The records asked for, newest first. Those of the last moments may still be on their way.
    pub async fn search(&self, query: &Query) -> Result<Vec<Record>, StoreError> {
        if let Some(store) = self.store.audit() {
            return store.search(query).await;
        }
        let mut found: Vec<Record> =
            self.memory.lock().iter().filter(|record| query.matches(record)).cloned().collect();
        // Two requests may end in another order than their records come in.
        found.sort_unstable_by_key(|record| std::cmp::Reverse((record.time, record.id)));
        found.truncate(query.limit);
        Ok(found)
    }

    /// Writes records to the store until the token is cancelled, and then what is left. To be run once.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let Some(mut waiting) = self.waiting.lock().take() else { return };
        if self.store.audit().is_none() {
            return;
        }
        let mut batch = Vec::with_capacity(BATCH);
        // Not at once: pods that start together would do it together.
        let mut prune_at = Instant::now() + PRUNE_INTERVAL.mul_f64(rand::random());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = waiting.recv_many(&mut batch, BATCH) => self.write(&mut batch, &stop).await,
                () = tokio::time::sleep_until(prune_at) => {
                    self.prune().await;
                    prune_at = Instant::now() + PRUNE_INTERVAL.mul_f64(0.5 + rand::random::<f64>());
                }
            }
        }
        waiting.close();
        let flush = async {
            while !batch.is_empty() || waiting.recv_many(&mut batch, BATCH).await > 0 {
                if self.try_write(&mut batch).await.is_err() {
                    return;
                }
            }
        };
        // Late or refused, the rest is counted below.
        let _ = tokio::time::timeout(FLUSH_LIMIT, flush).await;
        let left = batch.len() + waiting.len();
        if left > 0 {
            self.dropped(left, "the server stopped before the store took them");
        }
    }

    /// Writes a batch, however long the store is away; what is left at a stop stays in the batch.
    async fn write(&self, batch: &mut Vec<Record>, stop: &CancellationToken) {
        let mut pause = BACKOFF.0;
        while let Err(reason) = self.try_write(batch).await {
            if pause == BACKOFF.0 {
                tracing::warn!(%reason, "records of the audit log wait for the store");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACKOFF.1),
            }
        }
    }

    /// One attempt. What the store refuses for good is dropped; the error is that it is away.
    async fn try_write(&self, batch: &mut Vec<Record>) -> Result<(), StoreError> {
        let Some(store) = self.store.audit() else { return Ok(()) };
        match store.append(batch).await {
            Ok(()) => {}
            Err(error @ StoreError::Unavailable(_)) => return Err(error),
            Err(error) => self.dropped(batch.len(), &error.to_string()),
        }
        batch.clear();
        Ok(())
    }

    fn dropped(&self, count: usize, reason: &str) {
        self.metrics.audit_dropped.inc_by(count as u64);
        tracing::warn!(count, reason, "records of the audit log are not in the store, only in this log");
    }

    async fn prune(&self) {
        let (Some(store), Ok(age)) = (self.store.audit(), jiff::SignedDuration::try_from(self.retention)) else {
            return;
        };
        let Ok(oldest) = Timestamp::now().checked_sub(age) else { return };
        match store.remove_before(oldest).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "old records of the audit log were removed"),
            // Tried again later; another pod may do it meanwhile.
            Err(error) => tracing::debug!(%error, "old records of the audit log could not be removed"),
        }
    }
}

/// The line of a record, with a target of its own.
fn line(record: &Record) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    tracing::info!(
        target: "audit",
        user = text(&record.user),
        verb = record.verb.as_str(),
        kind = record.kind.map_or("", crate::domain::kind::Kind::as_str),
        project = text(&record.project),
        name = text(&record.name),
        version = record.version,
        status = record.status,
        client = text(&record.client),
        forwarded_for = text(&record.forwarded_for),
        user_agent = text(&record.user_agent),
        request_id = text(&record.request_id),
        "audit"
    );
}
