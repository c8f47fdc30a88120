//! Connections: a bounded pool whose waits are bounded too, credentials that follow their files, and a gate that makes
//! requests fail at once while the database is known to be away.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Postgres};
use tracing::{Instrument as _, Span};

use super::credentials::{Credentials, connect_options};
use super::error::{breaks_connection, classify, is_refused_login};
use super::position::{self, Known};
use crate::config;
use crate::metrics::Metrics;
use crate::store::StoreError;
use crate::telemetry::traces;

/// A connection that was idle for longer is tried before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
/// A connection that was idle for longer is closed, or earlier where connections live shortly: a pooler that must end waits
/// for idle clients too.
const LONGEST_IDLE: Duration = Duration::from_mins(10);
/// How long all connections are suspect after one was found dead: a restarted server kills them all.
const SUSPICION: Duration = Duration::from_secs(30);
/// While the database is away, one caller in this time tries it; the others fail at once.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// A read of one document, a look at the tail: milliseconds on a database that works.
pub(super) const POINT_LIMIT: Duration = Duration::from_secs(3);
/// What the server's own limit gets on top before a caller gives up.
const GRACE: Duration = Duration::from_secs(1);
/// How often the files of the credentials are read.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);
/// Pause between attempts to sign in while a password is being changed.
const LOGIN_PAUSE: Duration = Duration::from_millis(100);

/// What happened to the connections.
#[derive(Debug, Default)]
struct Past {
    /// When the credentials changed: older connections are not used again.
    rotated: Mutex<Option<Instant>>,
    /// When a connection was found dead: older ones are tried before they are used, for a while.
    died: Mutex<Option<Instant>>,
}

impl Past {
    fn is_outdated(&self, age: Duration) -> bool {
        self.rotated.lock().is_some_and(|at| at.elapsed() < age)
    }

    fn is_suspect(&self, age: Duration) -> bool {
        self.died.lock().map(|at| at.elapsed()).is_some_and(|since| since < SUSPICION && since < age)
    }
}

/// In which transaction statements run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Frame<'a> {
    /// In none: one statement.
    Bare,
    /// In one that only reads; its statements are bounded on the server too.
    Reading(Duration),
    /// In one that writes; it takes these advisory locks first.
    Writing(Duration, &'a [i64]),
}

/// The pool and what guards it.
pub(super) struct Database {
    /// `main` or `replica`, in metrics.
    name: &'static str,
    pool: PgPool,
    config: config::Postgres,
    credentials: Mutex<(Option<Credentials>, Instant)>,
    /// Held while new credentials are tried.
    reloading: tokio::sync::Mutex<()>,
    past: Arc<Past>,
    /// While the database is away: when the next caller may try, and why it is away.
    gate: Mutex<Option<(Instant, String)>>,
    /// Told of the place of each commit when there is a replica to compare with.
    known: Option<Arc<Known>>,
    metrics: OnceLock<Arc<Metrics>>,
}

// By hand: the configuration may hold a password.
impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("name", &self.name)
            .field("host", &self.config.host)
            .field("pool", &self.pool.size())
            .finish_non_exhaustive()
    }
}

impl Database {
    /// A pool that connects when it is first used. `config` names the server; `name` is for metrics.
    pub(super) fn new(name: &'static str, config: &config::Postgres, known: Option<Arc<Known>>) -> Self {
        let credentials = Credentials::read(config).ok();
        let past = Arc::new(Past::default());
        let (seen, max_lifetime) = (Arc::clone(&past), config.max_lifetime.0);
        // Files that are not there yet are read again before each attempt to connect.
        let unusable = Credentials::unusable();
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections.max(1))
            .acquire_timeout(config.acquire_timeout.0)
            .max_lifetime(max_lifetime)
            .idle_timeout(LONGEST_IDLE.min(max_lifetime / 3))
            .test_before_acquire(false)
            .before_acquire(move |connection, meta| {
                // The pool itself looks at the age only when a connection comes back and at long intervals: one that was
                // idle for long would be used once more.
                let outdated = seen.is_outdated(meta.age) || meta.age >= max_lifetime;
                let try_first = meta.idle_for > TRUSTED_IDLE || seen.is_suspect(meta.age);
                Box::pin(async move {
                    if !outdated && try_first {
                        connection.ping().await?;
                    }
                    Ok(!outdated)
                })
            })
            .connect_lazy_with(connect_options(config, credentials.as_ref().unwrap_or(&unusable), None));
        Self {
            name,
            pool,
            config: config.clone(),
            credentials: Mutex::new((credentials, Instant::now())),
            reloading: tokio::sync::Mutex::default(),
            past,
            gate: Mutex::new(None),
            known,
            metrics: OnceLock::new(),
        }
    }

    /// Whether statements may be kept by name on a connection.
    pub(super) const fn keeps_statements(&self) -> bool {
        self.config.statement_cache > 0
    }

    /// How long a list may take.
    pub(super) fn list_limit(&self) -> Duration {
        self.config.statement_timeout.0 + GRACE
    }

    /// How long the server lets one of our statements run.
    pub(super) const fn statement_timeout(&self) -> Duration {
        self.config.statement_timeout.0
    }

    /// Takes new credentials over when their files changed; at most every few seconds unless `now` is set. They are tried
    /// first: until they work, the old ones stay in use, so it does not matter whether the file or the database changes
    /// first. Whether anything changed.
    async fn reload_credentials(&self, now: bool) -> bool {
        if !now && self.config.password_file.is_none() && self.config.user_file.is_none() {
            return false;
        }
        {
            let state = self.credentials.lock();
            if !now && state.0.is_some() && state.1.elapsed() < RELOAD_INTERVAL {
                return false;
            }
        }
        let before = self.credentials.lock().0.clone();
        let Ok(_alone) = self.reloading.try_lock() else {
            if !now {
                return false;
            }
            // Somebody else tries them: what comes of it is news for this caller too.
            drop(self.reloading.lock().await);
            return self.credentials.lock().0 != before;
        };
        self.credentials.lock().1 = Instant::now();
        let found = match Credentials::read(&self.config) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "the credentials of the database cannot be read");
                return false;
            }
        };
        if before.as_ref() == Some(&found) {
            return false;
        }
        let options = connect_options(&self.config, &found, None);
        if before.is_some() {
            match tokio::time::timeout(POINT_LIMIT, options.connect()).await {
                Ok(Ok(connection)) => drop(tokio::time::timeout(GRACE, connection.close()).await),
                Ok(Err(error)) => {
                    let error = classify(&error);
                    tracing::warn!(%error, "new credentials of the database do not work yet: the old ones stay in use");
                    return false;
                }
                Err(_) => return false,
            }
        }
        self.pool.set_connect_options(options);
        if self.credentials.lock().0.replace(found).is_some() {
            *self.past.rotated.lock() = Some(Instant::now());
            tracing::info!(pool = self.name, "the credentials of the database changed: connections are made anew");
        }
        true
    }

    /// Runs statements in one transaction, which first takes these advisory locks (in the same round trip). Dropping the
    /// future, running out of time or a broken connection closes the connection, which undoes the transaction.
    pub(super) async fn write<T: Send>(
        &self,
        operation: &'static str,
        locks: &[i64],
        statements: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let timeout = self.config.statement_timeout.0;
        let span = traces::database(operation);
        let result =
            self.run_once(timeout + GRACE, Frame::Writing(timeout, locks), statements).instrument(span.clone()).await;
        self.observed(operation, started, &span, result.is_err());
        result.map_err(|failure| failure.error)
    }

    /// Runs one statement that only reads; tried once more when the connection turns out to be dead, as pooled ones are
    /// after the server was restarted.
    pub(super) async fn read<T: Send>(
        &self,
        operation: &'static str,
        limit: Duration,
        statements: impl for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + Sync,
    ) -> Result<T, StoreError> {
        // Without kept statements one takes several round trips, which must reach the same connection of the server.
        let frame = if self.keeps_statements() { Frame::Bare } else { Frame::Reading(limit) };
        self.read_in(frame, operation, limit, statements).await
    }

    /// As [`Self::read`], in a transaction or not.
    pub(super) async fn read_in<T: Send>(
        &self,
        frame: Frame<'_>,
        operation: &'static str,
        limit: Duration,
        statements: impl for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + Sync,
    ) -> Result<T, StoreError> {
        let started = Instant::now();
        let span = traces::database(operation);
        let mut result = self.run_once(limit, frame, &statements).instrument(span.clone()).await;
        if result.as_ref().is_err_and(|failure| failure.dead_connection) {
            result = self.run_once(limit, frame, &statements).instrument(span.clone()).await;
        }
        self.observed(operation, started, &span, result.is_err());
        result.map_err(|failure| failure.error)
    }

    async fn run_once<T: Send>(
        &self,
        limit: Duration,
        frame: Frame<'_>,
        statements: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send,
    ) -> Result<T, Failure> {
        let mut lease = self.acquire().await.map_err(|error| Failure { error, dead_connection: false })?;
        let connection: &mut PgConnection = &mut lease.connection;
        let work = async move {
            let (start, timeout, locks, writes) = match frame {
                Frame::Bare => return statements(connection).await,
                Frame::Reading(timeout) => ("BEGIN READ ONLY", timeout, &[][..], false),
                Frame::Writing(timeout, locks) => ("BEGIN", timeout, locks, true),
            };
            begin(connection, start, timeout, locks).await?;
            let result = statements(connection).await;
            finish(connection, self.known.as_deref().filter(|_| writes), result).await
        };
        match tokio::time::timeout(limit, work).await {
            Ok(Ok(value)) => {
                lease.reusable = true;
                Ok(value)
            }
            Ok(Err(error)) => {
                lease.reusable = !breaks_connection(&error);
                if !lease.reusable {
                    *self.past.died.lock() = Some(Instant::now());
                }
                Err(Failure { error: classify(&error), dead_connection: !lease.reusable })
            }
            Err(_) => {
                let reason = format!("PostgreSQL did not answer within {limit:?}");
                // A long list or a write that waits for a lock says nothing about the rest.
                if limit <= POINT_LIMIT {
                    self.close_gate(&reason);
                }
                Err(Failure { error: StoreError::Unavailable(reason), dead_connection: false })
            }
        }
    }

    async fn acquire(&self) -> Result<Lease, StoreError> {
        if let Some((retry_at, reason)) = &mut *self.gate.lock() {
            if Instant::now() < *retry_at {
                return Err(StoreError::Unavailable(reason.clone()));
            }
            *retry_at = Instant::now() + PROBE_INTERVAL;
        }
        self.reload_credentials(false).await;
        let started = Instant::now();
        loop {
            let error = match self.pool.acquire().await {
                Ok(connection) => {
                    *self.gate.lock() = None;
                    return Ok(Lease { connection, reusable: false });
                }
                Err(error) => error,
            };
            if !is_refused_login(&error) {
                return Err(self.unavailable(&error));
            }
            // The password was changed and its file was not yet, or the other way round: the next attempt may work.
            let patient = self.config.password_file.is_some() && started.elapsed() < self.config.acquire_timeout.0;
            if !self.reload_credentials(true).await {
                if !patient {
                    return Err(self.unavailable(&error));
                }
                tokio::time::sleep(LOGIN_PAUSE).await;
            }
        }
    }

    /// What it means that there is no connection.
    fn unavailable(&self, error: &sqlx::Error) -> StoreError {
        let all_busy = self.pool.size() >= self.pool.options().get_max_connections() && self.pool.num_idle() == 0;
        if matches!(error, sqlx::Error::PoolTimedOut) && all_busy {
            return StoreError::Unavailable(format!(
                "all {} connections to PostgreSQL were busy for {:?} (database.postgres.max_connections)",
                self.config.max_connections, self.config.acquire_timeout.0
            ));
        }
        let reason = classify(error).to_string();
        self.close_gate(&reason);
        // Whatever it is (a wrong TLS mode, say), there is no connection.
        StoreError::Unavailable(reason)
    }

    fn close_gate(&self, reason: &str) {
        *self.gate.lock() = Some((Instant::now() + PROBE_INTERVAL, reason.to_owned()));
    }

    /// From now on operations and connections are counted here.
    pub(super) fn attach_metrics(&self, metrics: Arc<Metrics>) {
        metrics.db_pool_max(self.name, i64::from(self.config.max_connections.max(1)));
        let _ = self.metrics.set(metrics);
    }

    /// Notes an operation in metrics, traces and, when it was slow, in the log.
    fn observed(&self, operation: &'static str, started: Instant, span: &Span, failed: bool) {
        if failed {
            traces::failed(span);
        }
        let Some(metrics) = self.metrics.get() else { return };
        let took = started.elapsed();
        metrics.db_query(operation, took);
        let threshold = self.config.slow_query_threshold.0;
        if !threshold.is_zero() && took >= threshold {
            metrics.db_slow_query(operation);
            let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            // The wait for a connection is part of it.
            tracing::warn!(target: "slow_query", operation, ms, "a slow operation on the database");
        }
        let (size, idle) = (i64::from(self.pool.size()), i64::try_from(self.pool.num_idle()).unwrap_or(i64::MAX));
        metrics.db_pool(self.name, (size - idle).max(0), idle);
    }
}

/// Why statements did not run.
#[derive(Debug)]
struct Failure {
    error: StoreError,
    /// The connection had been lost before.
    dead_connection: bool,
}

/// A connection that goes back to the pool only when it is known to be in order.
#[derive(Debug)]
struct Lease {
    connection: PoolConnection<Postgres>,
    reusable: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.reusable {
            self.connection.close_on_drop();
        }
    }
}

/// Opens a transaction whose statements and locks are bounded on the server too. `SET LOCAL` and nothing else: behind
/// PgBouncer a session's settings belong to somebody else a moment later.
async fn begin(
    connection: &mut PgConnection,
    start: &str,
    statement_timeout: Duration,
    locks: &[i64],
) -> Result<(), sqlx::Error> {
    let millis = statement_timeout.as_millis();
    let locks: Vec<_> = locks.iter().map(|lock| format!("; SELECT pg_advisory_xact_lock({lock})")).collect();
    let locks = locks.concat();
    let sql = format!(
        "{start}; SET LOCAL statement_timeout = {millis}; SET LOCAL lock_timeout = {millis}; \
         SET LOCAL idle_in_transaction_session_timeout = {millis}{locks}"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(|_| ())
}

/// Ends a transaction: commits on success, else rolls back and passes the error on. `known` learns where the commit is in
/// the server's log.
async fn finish<T>(
    connection: &mut PgConnection,
    known: Option<&Known>,
    result: Result<T, sqlx::Error>,
) -> Result<T, sqlx::Error> {
    match (result, known) {
        (Ok(value), None) => {
            sqlx::raw_sql("COMMIT").execute(connection).await?;
            Ok(value)
        }
        (Ok(value), Some(known)) => {
            known.wrote(position::commit(connection).await?);
            Ok(value)
        }
        (Err(error), _) => {
            if !breaks_connection(&error) {
                sqlx::raw_sql("ROLLBACK").execute(connection).await?;
            }
            Err(error)
        }
    }
}
