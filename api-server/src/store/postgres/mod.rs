//! Documents in PostgreSQL (15 or later), also through PgBouncer in transaction mode.
//!
//! Names are qualified and nothing is kept in a session, so it does not matter which server connection a statement gets.

mod error;
mod migrate;
mod owner;
mod pool;
mod read;
mod schema;
mod statements;
mod tail;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::Connection as _;

pub use self::migrate::{Report, migrate};
use self::pool::{Database, POINT_LIMIT};
use self::write::{Update, Writer};
use super::{Change, Changes, Cursor, ListQuery, Precondition, Store, StoreError};
use crate::config;
use crate::domain::document::{Document, Draft, Key};
use crate::metrics::Metrics;

/// How often this process removes old rows of the tail.
const PRUNE_INTERVAL: Duration = Duration::from_mins(5);

/// A store in PostgreSQL.
#[derive(Debug)]
pub struct PostgresStore {
    database: Database,
    /// The schema was found good by this process.
    was_ready: AtomicBool,
    next_prune: Mutex<Instant>,
}

impl PostgresStore {
    /// A store that connects when it is first used. Must be called within a Tokio runtime.
    pub fn new(config: &config::Postgres) -> Result<Self, StoreError> {
        if config.host.is_empty() || config.dbname.is_empty() {
            return Err(StoreError::Failed("database.postgres needs host and dbname".to_owned()));
        }
        Ok(Self {
            database: Database::new(config),
            was_ready: AtomicBool::new(false),
            // Not at once: pods that start together would do it together.
            next_prune: Mutex::new(Instant::now() + PRUNE_INTERVAL.mul_f64(rand::random())),
        })
    }

    /// Removes rows of the tail that are older than an hour; how many went. [`Store::tail`] does this by itself now and then.
    pub async fn prune(&self) -> Result<u64, StoreError> {
        let persistent = self.database.keeps_statements();
        let mut gone = 0;
        loop {
            let batch = self
                .database
                .write("prune", |connection| Box::pin(async move { tail::prune(connection, persistent).await }))
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

    const fn writer(&self) -> Writer {
        Writer { persistent: self.database.keeps_statements() }
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn get(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        let (key, persistent) = (key.clone(), self.database.keeps_statements());
        self.database
            .read("get", POINT_LIMIT, |connection| {
                let key = key.clone();
                Box::pin(async move { read::get(connection, &key, persistent).await })
            })
            .await
    }

    async fn list(&self, query: &ListQuery) -> Result<Vec<Document>, StoreError> {
        let (query, persistent) = (query.clone(), self.database.keeps_statements());
        self.database
            .read("list", self.database.list_limit(), |connection| {
                let query = query.clone();
                Box::pin(async move { read::list(connection, &query, persistent).await })
            })
            .await
    }

    async fn create(&self, draft: Draft) -> Result<Document, StoreError> {
        let (writer, project) = (self.writer(), draft.key.project.clone().unwrap_or_default());
        let created = self
            .database
            .write("create", move |connection| Box::pin(async move { writer.create(connection, draft).await }))
            .await;
        created.map_err(|error| match error {
            StoreError::ProjectMissing(_) => StoreError::ProjectMissing(project),
            error => error,
        })
    }

    async fn create_project(&self, project: Draft, contents: Vec<Draft>) -> Result<Vec<Document>, StoreError> {
        let writer = self.writer();
        self.database
            .write("create", move |connection| {
                Box::pin(async move {
                    // The project first: what is in it refers to it, and its lock keeps other creators of it out.
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
        let updated = self.database.write("update", move |connection| {
            Box::pin(async move { writer.update(connection, draft, precondition).await })
        });
        match (updated.await?, precondition) {
            (Update::Written(document), _) => Ok(document),
            (Update::Conflict(stored), Precondition::Version(expected)) => {
                Err(StoreError::VersionConflict { stored, expected })
            }
            (Update::NotFound | Update::Conflict(_), _) => Err(StoreError::NotFound),
        }
    }

    async fn delete(&self, key: &Key) -> Result<Vec<Change>, StoreError> {
        let (writer, key) = (self.writer(), key.clone());
        let deleted = self
            .database
            .write("delete", move |connection| Box::pin(async move { writer.delete(connection, &key).await }))
            .await?;
        if deleted.is_empty() { Err(StoreError::NotFound) } else { Ok(deleted) }
    }

    async fn tail_start(&self) -> Result<Cursor, StoreError> {
        let persistent = self.database.keeps_statements();
        self.database
            .read("tail", POINT_LIMIT, |connection| Box::pin(async move { tail::start(connection, persistent).await }))
            .await
    }

    async fn tail(&self, cursor: &mut Cursor) -> Result<Changes, StoreError> {
        let (before, persistent) = (cursor.clone(), self.database.keeps_statements());
        let (changes, next) = self
            .database
            .read("tail", POINT_LIMIT, |connection| {
                let before = before.clone();
                Box::pin(async move { tail::look(connection, &before, persistent).await })
            })
            .await?;
        *cursor = next;
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
                schema::check(found).map_err(StoreError::Unavailable)?;
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

    fn attach_metrics(&self, metrics: Arc<Metrics>) {
        self.database.attach_metrics(metrics);
    }
}
