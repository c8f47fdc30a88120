//! Documents in PostgreSQL (15 or later), also through PgBouncer in transaction mode.
//!
//! Names are qualified and nothing is kept in a session, so it does not matter which server connection a statement gets.

mod audit;
mod credentials;
mod error;
mod lease;
mod login;
mod migrate;
mod owner;
mod pool;
mod position;
mod read;
mod replica;
mod schema;
mod search;
mod statements;
mod tail;
mod write;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;
use sqlx::{Connection as _, PgConnection};

pub use self::login::{Ensured, Login, ensure_login};
pub use self::migrate::{MigrateError, Migration, Report, migrate, rehearse};
use self::pool::{Database, Frame, POINT_LIMIT};
use self::position::{Known, Look};
use self::replica::Replica;
use self::write::{Outcome, Writer};
use super::{AuditStore, Change, Changes, Cursor, ListQuery, Precondition, SearchQuery, Store, StoreError, Titled};
use crate::config;
use crate::domain::audit::{Query, Record};
use crate::domain::document::{Document, Draft, Key};
use crate::metrics::Metrics;

/// How often this process removes old rows of the tail.
const PRUNE_INTERVAL: Duration = Duration::from_mins(5);

/// A store in PostgreSQL.
#[derive(Debug)]
pub struct PostgresStore {
    /// The primary.
    database: Database,
    /// What is known of the primary, to judge the replica by.
    known: Arc<Known>,
    replica: Option<Arc<Replica>>,
    /// The schema was found good by this process.
    was_ready: AtomicBool,
    next_prune: Mutex<Instant>,
    metrics: OnceLock<Arc<Metrics>>,
}

impl PostgresStore {
    /// A store that connects when it is first used. Must be called within a Tokio runtime.
    pub fn new(config: &config::Postgres) -> Result<Self, StoreError> {
        if config.host.is_empty() || config.dbname.is_empty() {
            return Err(StoreError::Failed("database.postgres needs host and dbname".to_owned()));
        }
        let known = Arc::new(Known::default());
        let replica = Replica::start(config, &known);
        Ok(Self {
            database: Database::new("main", config, replica.as_ref().map(|_| Arc::clone(&known))),
            known,
            replica,
            was_ready: AtomicBool::new(false),
            // Not at once: pods that start together would do it together.
            next_prune: Mutex::new(Instant::now() + PRUNE_INTERVAL.mul_f64(rand::random())),
            metrics: OnceLock::new(),
        })
    }

    /// Removes rows of the tail that are older than an hour; how many went. [`Store::tail`] does this by itself now and then.
    pub async fn prune(&self) -> Result<u64, StoreError> {
        let persistent = self.database.keeps_statements();
        let mut gone = 0;
        loop {
            let batch = self
                .database
                .write("prune", &[], |connection| Box::pin(async move { tail::prune(connection, persistent).await }))
                .await?;
            if batch == 0 {
                return Ok(gone);
            }
            gone += batch;
        }
    }

    async fn prune_when_due(&self) {
        {
            let mut next = self.next_prune.lock();
            if Instant::now() < *next {
                return;
            }
            *next = Instant::now() + PRUNE_INTERVAL.mul_f64(0.5 + rand::random::<f64>());
        }
        // What goes wrong is tried again later; another pod may do it meanwhile.
        if let Err(error) = self.prune().await {
            tracing::debug!(%error, "old rows of the tail of changes could not be removed");
        }
    }

    /// Reads many rows: from the replica when it shows all that this process knows of, else from the primary.
    async fn read_many<T: Send>(
        &self,
        operation: &'static str,
        statements: impl for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let statements = Arc::new(statements);
        if let Some(replica) = &self.replica
            && let Some(found) = replica.read(operation, Arc::clone(&statements)).await
        {
            self.count_read("replica");
            return Ok(found);
        }
        self.count_read("primary");
        let frame = Frame::Reading(self.database.statement_timeout());
        self.database.read_in(frame, operation, self.database.list_limit(), &*statements).await
    }

    fn count_read(&self, target: &'static str) {
        if let Some(metrics) = self.metrics.get() {
            metrics.db_read(target);
        }
    }

    /// Remembers where the primary's log ended when the tail was looked at.
    fn note_look(&self, changes: &Changes, look: Option<Result<Look, sqlx::Error>>) {
        if *changes == Changes::Lost {
            self.known.lost();
        }
        let changed = *changes != Changes::Rows(Vec::new());
        match look {
            None => {}
            Some(Ok(look)) => self.known.looked(look, changed, Instant::now()),
            // The tail itself worked: only the replica cannot be judged, and so is not used.
            Some(Err(error)) => {
                tracing::debug!(error = %error::classify(&error), "the end of the primary's log cannot be read");
            }
        }
    }

    const fn writer(&self) -> Writer {
        Writer { persistent: self.database.keeps_statements() }
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn get(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        let (key, persistent) = (key.clone(), self.database.keeps_statements());
        self.count_read("primary");
        self.database
            .read("get", POINT_LIMIT, |connection| {
                let key = key.clone();
                Box::pin(async move { read::get(connection, &key, persistent).await })
            })
            .await
    }

    async fn list(&self, query: &ListQuery) -> Result<Vec<Document>, StoreError> {
        let (query, persistent) = (query.clone(), self.database.keeps_statements());
        self.read_many("list", move |connection| {
            let query = query.clone();
            Box::pin(async move { read::list(connection, &query, persistent).await })
        })
        .await
    }

    async fn list_primary(&self, query: &ListQuery) -> Result<Vec<Document>, StoreError> {
        let (query, persistent) = (query.clone(), self.database.keeps_statements());
        self.count_read("primary");
        let frame = Frame::Reading(self.database.statement_timeout());
        let limit = self.database.list_limit();
        self.database
            .read_in(frame, "list", limit, move |connection| {
                let query = query.clone();
                Box::pin(async move { read::list(connection, &query, persistent).await })
            })
            .await
    }

    async fn create(&self, draft: Draft) -> Result<Document, StoreError> {
        let (writer, project) = (self.writer(), draft.key.project.clone().unwrap_or_default());
        let locks = [write::lock_number(&draft.key)];
        let created = self
            .database
            .write("create", &locks, move |connection| Box::pin(async move { writer.create(connection, draft).await }))
            .await;
        created.map_err(|error| in_project(error, project))
    }

    async fn create_project(&self, project: Draft, contents: Vec<Draft>) -> Result<Vec<Document>, StoreError> {
        let writer = self.writer();
        // The project first: what is in it refers to it, and its lock keeps other creators of it out.
        let locks: Vec<_> =
            std::iter::once(&project).chain(&contents).map(|draft| write::lock_number(&draft.key)).collect();
        self.database
            .write("create", &locks, move |connection| {
                Box::pin(async move {
                    let mut created = vec![writer.create(connection, project).await?];
                    for draft in contents {
                        created.push(writer.create(connection, draft).await?);
                    }
                    Ok(created)
                })
            })
            .await
    }

    async fn update(&self, draft: Draft, precondition: Precondition) -> Result<Document, StoreError> {
        let writer = self.writer();
        let locks = [write::lock_number(&draft.key)];
        let updated = self.database.write("update", &locks, move |connection| {
            Box::pin(async move { writer.update(connection, draft, precondition).await })
        });
        settle(updated.await?, precondition)
    }

    async fn delete_if(&self, key: &Key, precondition: Precondition) -> Result<Vec<Change>, StoreError> {
        let (writer, key) = (self.writer(), key.clone());
        let locks = [write::lock_number(&key)];
        let deleted = self.database.write("delete", &locks, move |connection| {
            Box::pin(async move { writer.delete(connection, &key, precondition).await })
        });
        settle(deleted.await?, precondition)
    }

    async fn put(&self, document: Document) -> Result<(), StoreError> {
        let (writer, project) = (self.writer(), document.key.project.clone().unwrap_or_default());
        let locks = [write::lock_number(&document.key)];
        let put = self
            .database
            .write("put", &locks, move |connection| Box::pin(async move { writer.put(connection, document).await }))
            .await;
        put.map_err(|error| in_project(error, project))
    }

    async fn search(&self, query: &SearchQuery) -> Result<Vec<Titled>, StoreError> {
        let (query, persistent) = (query.clone(), self.database.keeps_statements());
        self.read_many("search", move |connection| {
            let query = query.clone();
            Box::pin(async move { search::find(connection, &query, persistent).await })
        })
        .await
    }

    async fn lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<bool, StoreError> {
        let (persistent, name, holder) = (self.database.keeps_statements(), name.to_owned(), holder.to_owned());
        self.database
            .write("lease", &[], move |connection| {
                Box::pin(async move { lease::take(connection, &name, &holder, ttl, persistent).await })
            })
            .await
    }

    async fn release(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        let (persistent, name, holder) = (self.database.keeps_statements(), name.to_owned(), holder.to_owned());
        self.database
            .write("release", &[], move |connection| {
                Box::pin(async move { lease::give_back(connection, &name, &holder, persistent).await })
            })
            .await
    }

    async fn tail_start(&self) -> Result<Cursor, StoreError> {
        let persistent = self.database.keeps_statements();
        self.database
            .read("tail", POINT_LIMIT, |connection| Box::pin(async move { tail::start(connection, persistent).await }))
            .await
    }

    async fn tail(&self, cursor: &mut Cursor) -> Result<Changes, StoreError> {
        let (before, persistent) = (cursor.clone(), self.database.keeps_statements());
        let compares = self.replica.is_some();
        let (changes, next, look) = self
            .database
            .read("tail", POINT_LIMIT, |connection| {
                let before = before.clone();
                Box::pin(async move {
                    let (changes, next) = tail::look(connection, &before, persistent).await?;
                    // After the changes, so that a replica which has come this far has them all.
                    let look = if compares { Some(position::look(connection, persistent).await) } else { None };
                    Ok((changes, next, look))
                })
            })
            .await?;
        *cursor = next;
        self.note_look(&changes, look);
        self.prune_when_due().await;
        Ok(changes)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let persistent = self.database.keeps_statements();
        let found = self
            .database
            .read("ready", POINT_LIMIT, |connection| {
                Box::pin(async move { schema::find(connection, persistent).await })
            })
            .await;
        match found {
            Ok(found) => {
                schema::check(found).map_err(|misfit| StoreError::Unavailable(misfit.into_text()))?;
                self.was_ready.store(true, Ordering::Release);
                Ok(())
            }
            Err(_) if self.was_ready.load(Ordering::Acquire) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.database.read("check", POINT_LIMIT, |connection| Box::pin(async move { connection.ping().await })).await
    }

    fn audit(&self) -> Option<&dyn AuditStore> {
        Some(self)
    }

    fn attach_metrics(&self, metrics: Arc<Metrics>) {
        self.database.attach_metrics(Arc::clone(&metrics));
        if let Some(replica) = &self.replica {
            replica.attach_metrics(Arc::clone(&metrics));
        }
        let _ = self.metrics.set(metrics);
    }
}

/// What a write under a condition came to.
fn settle<T>(outcome: Outcome<T>, precondition: Precondition) -> Result<T, StoreError> {
    match (outcome, precondition.parts().0) {
        (Outcome::Done(value), _) => Ok(value),
        (Outcome::Conflict(stored), Some(expected)) => Err(StoreError::VersionConflict { stored, expected }),
        (Outcome::NotFound | Outcome::Conflict(_), _) => Err(StoreError::NotFound),
    }
}

/// Names the project that is missing: the database says only that one is.
fn in_project(error: StoreError, project: String) -> StoreError {
    match error {
        StoreError::ProjectMissing(_) => StoreError::ProjectMissing(project),
        error => error,
    }
}

#[async_trait]
impl AuditStore for PostgresStore {
    async fn append(&self, records: &[Record]) -> Result<(), StoreError> {
        let (records, persistent) = (records.to_vec(), self.database.keeps_statements());
        self.database
            .write("audit_append", &[], move |connection| {
                Box::pin(async move { audit::append(connection, &records, persistent).await })
            })
            .await
    }

    async fn search(&self, query: &Query) -> Result<Vec<Record>, StoreError> {
        let (query, persistent) = (query.clone(), self.database.keeps_statements());
        self.database
            .read("audit_search", self.database.list_limit(), |connection| {
                let query = query.clone();
                Box::pin(async move { audit::search(connection, &query, persistent).await })
            })
            .await
    }

    async fn remove_before(&self, time: Timestamp) -> Result<u64, StoreError> {
        let persistent = self.database.keeps_statements();
        let mut gone = 0;
        loop {
            let batch = self
                .database
                .write("audit_prune", &[], move |connection| {
                    Box::pin(async move { audit::prune(connection, time, persistent).await })
                })
                .await?;
            if batch == 0 {
                return Ok(gone);
            }
            gone += batch;
        }
    }
}
