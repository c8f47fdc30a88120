//! Lists and search from a streaming replica, as long as that shows nobody an old state.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use sqlx::PgConnection;

use super::pool::{Database, Frame, POINT_LIMIT};
use super::position::{self, Known, Refusal, Standing};
use crate::config;
use crate::metrics::Metrics;

/// How often the replica is looked at: its lag is measured, and whether it answers at all.
const INTERVAL: Duration = Duration::from_secs(1);
/// A look that takes longer counts as none; so does the wait for a connection.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

/// A replica and what is known of it.
#[derive(Debug)]
pub(super) struct Replica {
    database: Database,
    known: Arc<Known>,
    longest_lag: Duration,
    /// `host:port`, for metrics and logs.
    address: String,
    /// The last look found it good, or the last read worked. Else nobody waits for it.
    answers: AtomicBool,
    /// Its last known lag, and when that was.
    measured: Mutex<(Instant, Duration)>,
    metrics: OnceLock<Arc<Metrics>>,
}

impl Replica {
    /// The replica of the configuration, if there is one. Looks at it regularly as long as it is held. Must be called
    /// within a Tokio runtime.
    pub(super) fn start(config: &config::Postgres, known: &Arc<Known>) -> Option<Arc<Self>> {
        let address = config.replica.as_ref()?;
        let there = config::Postgres {
            host: address.host.clone(),
            port: address.port,
            dbname: address.dbname.clone().unwrap_or_else(|| config.dbname.clone()),
            acquire_timeout: config::ConfigDuration(config.acquire_timeout.0.min(LOOK_LIMIT)),
            ..config.clone()
        };
        let replica = Arc::new(Self {
            database: Database::new("replica", &there, None),
            known: Arc::clone(known),
            longest_lag: config.max_replica_lag.0,
            address: format!("{}:{}", address.host, address.port),
            answers: AtomicBool::new(false),
            measured: Mutex::new((Instant::now(), Duration::ZERO)),
            metrics: OnceLock::new(),
        });
        tokio::spawn(watch(Arc::downgrade(&replica)));
        Some(replica)
    }

    /// Runs a read there, in a transaction that first looks where the replica stands. `None` when it must not be read, or
    /// cannot: the primary is to be asked.
    pub(super) async fn read<T: Send>(
        &self,
        operation: &'static str,
        statements: Arc<
            impl for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + Sync + 'static,
        >,
    ) -> Option<T> {
        if !self.answers.load(Ordering::Acquire) {
            return None;
        }
        let persistent = self.database.keeps_statements();
        // Not the limit of lists: whoever waited in vain still has the primary to wait for.
        let limit = POINT_LIMIT.min(self.database.statement_timeout());
        let (known, longest) = (Arc::clone(&self.known), self.longest_lag);
        let result = self
            .database
            .read_in(Frame::Reading(limit), operation, limit, move |connection| {
                let (statements, known) = (Arc::clone(&statements), Arc::clone(&known));
                Box::pin(async move {
                    let standing = position::standing(connection, persistent).await?;
                    match known.judge(&standing, longest, Instant::now()) {
                        Ok(_) => statements(connection).await.map(Some),
                        Err(_) => Ok(None),
                    }
                })
            })
            .await;
        result.unwrap_or_else(|error| {
            self.say(false, &error.to_string());
            None
        })
    }

    fn judge(&self, standing: &Standing) -> Result<Duration, Refusal> {
        self.known.judge(standing, self.longest_lag, Instant::now())
    }

    /// Measures the lag, and notes whether the replica can be read.
    async fn look(&self) {
        let persistent = self.database.keeps_statements();
        let found = self
            .database
            .read("replica", LOOK_LIMIT, |connection| {
                Box::pin(async move { position::standing(connection, persistent).await })
            })
            .await;
        match found {
            Ok(standing) => {
                let lag = self.known.lag(standing.position.lsn);
                *self.measured.lock() = (Instant::now(), lag);
                match self.judge(&standing) {
                    // What it has not replayed now it may have in a moment: each read looks itself.
                    Ok(_) | Err(Refusal::Behind) => self.say(true, ""),
                    Err(refusal) => self.say(false, &refusal.to_string()),
                }
            }
            Err(error) => self.say(false, &error.to_string()),
        }
        if let Some(metrics) = self.metrics.get() {
            let (at, lag) = *self.measured.lock();
            // Without an answer it is as far behind as it was, and the time since then.
            let since = at.elapsed().saturating_sub(INTERVAL + LOOK_LIMIT);
            metrics.db_replica_lag(&self.address, (lag + since).as_secs_f64());
        }
    }

    /// Notes whether the replica is used; each change is logged once.
    fn say(&self, answers: bool, reason: &str) {
        let before = self.answers.swap(answers, Ordering::AcqRel);
        if before && !answers {
            tracing::warn!(replica = self.address, reason, "lists and search are read from the primary");
        } else if !before && answers {
            tracing::info!(replica = self.address, "lists and search are read from the replica");
        }
    }

    pub(super) fn attach_metrics(&self, metrics: Arc<Metrics>) {
        self.database.attach_metrics(Arc::clone(&metrics));
        let _ = self.metrics.set(metrics);
    }
}

async fn watch(replica: Weak<Replica>) {
    while let Some(replica) = replica.upgrade() {
        replica.look().await;
        drop(replica);
        tokio::time::sleep(INTERVAL).await;
    }
}
