//! Follows the store's changes tail: the truth of invalidation. Hints from Redis only make it look sooner.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::DocumentCache;
use crate::store::{Change, Changes, Cursor, Store, StoreError};

/// How often the tail is looked at without a hint; half of what a pod may be stale.
const INTERVAL: Duration = Duration::from_millis(500);
/// Least pause between looks, however many hints come.
const LEAST_PAUSE: Duration = Duration::from_millis(20);
/// Without a look for this long the follower counts as unhealthy.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a store that was found good is asked again whether this program can work with it.
const READY_INTERVAL: Duration = Duration::from_secs(10);
/// Notices a slow receiver may be behind.
const BACKLOG: usize = 256;

/// What other parts of the process are told. A receiver that lags behind must act as on [`Notice::Reset`].
#[derive(Debug, Clone)]
pub enum Notice {
    /// These keys were written or deleted, by any pod; may repeat.
    Changed(Arc<[Change]>),
    /// Anything may have changed.
    Reset,
}

/// Follows the tail while [`Follower::run`] runs.
#[derive(Debug)]
pub struct Follower {
    store: Arc<dyn Store>,
    cache: Arc<DocumentCache>,
    notices: broadcast::Sender<Notice>,
    last_success: Mutex<Option<Instant>>,
    readiness: Mutex<Result<(), String>>,
}

impl Follower {
    /// A follower that does not run yet.
    pub fn new(store: Arc<dyn Store>, cache: Arc<DocumentCache>) -> Self {
        let (notices, _) = broadcast::channel(BACKLOG);
        let readiness = Mutex::new(Err("the store was not looked at yet".to_owned()));
        Self { store, cache, notices, last_success: Mutex::default(), readiness }
    }

    /// Follows until the token is cancelled. A store that is away is waited for. To be run once.
    pub async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow() => {}
        }
    }

    /// Whether this process can serve: it has seen what the store holds, and can work with it. A store that is away after
    /// that does not count; caches go on serving. The error is for people.
    pub fn readiness(&self) -> Result<(), String> {
        self.readiness.lock().clone()
    }

    /// Notices from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// When the tail was last read.
    pub fn last_success(&self) -> Option<Instant> {
        *self.last_success.lock()
    }

    /// Whether the tail was read lately.
    pub fn is_healthy(&self) -> bool {
        self.last_success().is_some_and(|at| at.elapsed() < PATIENCE)
    }

    async fn follow(&self) {
        let (mut cursor, mut reported) = (None, false);
        let mut checked: Option<Instant> = None;
        loop {
            if checked.is_none_or(|at| at.elapsed() >= READY_INTERVAL) {
                let ready = self.store.ready().await;
                checked = ready.is_ok().then(Instant::now);
                let reason = ready.map_err(|error| error.to_string());
                // Ready also needs a first look at the tail, below.
                if reason.is_err() || self.last_success().is_some() {
                    *self.readiness.lock() = reason;
                }
            }
            match self.look(&mut cursor).await {
                Ok(()) => {
                    *self.last_success.lock() = Some(Instant::now());
                    if checked.is_some() {
                        *self.readiness.lock() = Ok(());
                    }
                    if std::mem::take(&mut reported) {
                        tracing::info!("changes by other servers are seen again");
                    }
                }
                Err(error) => {
                    if !matches!(error, StoreError::Unavailable(_)) {
                        // The store answers, so reads may work: nothing that is cached may hide what they would show.
                        self.cache.distrust();
                    }
                    if !std::mem::replace(&mut reported, true) {
                        tracing::warn!(%error, "changes by other servers cannot be seen now; what is cached goes on being served");
                    }
                }
            }
            self.cache.repair().await;
            tokio::time::sleep(LEAST_PAUSE).await;
            let _ = tokio::time::timeout(INTERVAL.saturating_sub(LEAST_PAUSE), self.cache.hinted()).await;
        }
    }

    async fn look(&self, slot: &mut Option<Cursor>) -> Result<(), StoreError> {
        if slot.is_none() {
            *slot = Some(self.store.tail_start().await?);
            // What was cached before the cursor was taken may have changed in between.
            self.cache.clear_memory();
        }
        let Some(cursor) = slot else { return Ok(()) };
        match self.store.tail(cursor).await? {
            Changes::Rows(changes) if changes.is_empty() => {}
            Changes::Rows(changes) => {
                self.cache.apply(&changes).await;
                let _ = self.notices.send(Notice::Changed(changes.into()));
            }
            Changes::Lost => {
                tracing::warn!("the tail of changes does not reach back far enough: caches are emptied");
                *slot = None;
                self.cache.start_over().await;
                let _ = self.notices.send(Notice::Reset);
            }
        }
        Ok(())
    }
}
