//! Where documents live: PostgreSQL ([`postgres`]) or files ([`file`]), behind one trait.
//!
//! Invariants: a write is atomic (the document and its row in the changes tail, or neither); `revision` rises with every
//! write of a key, also across delete and create; a deleted project takes its documents with it in the same write.

pub mod file;
#[cfg(test)]
pub(crate) mod gate;
pub mod postgres;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::audit;
use crate::domain::document::{Document, Draft, Key};
use crate::domain::kind::Kind;
use crate::metrics::Metrics;

/// Which documents to list.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// The kind.
    pub kind: Kind,
    /// Only this project.
    pub project: Option<String>,
    /// Only names that start so.
    pub name_prefix: Option<String>,
    /// Leave the specs out: they come back as `{"display":{"name":...}}`, or `{}` without a display name.
    pub metadata_only: bool,
}

/// Under which condition an update may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// Always: upstream's last write wins.
    None,
    /// Only while the stored `metadata.version` is this one.
    Version(u64),
    /// Only while it is exactly this state of this document (`If-Match`): one that was deleted and created again has the
    /// versions of the first, but no revision of it.
    State {
        /// `metadata.version`.
        version: u64,
        /// The store's revision.
        revision: i64,
    },
}

impl Precondition {
    /// What the version and the revision must be, where that matters.
    pub const fn parts(self) -> (Option<u64>, Option<i64>) {
        match self {
            Self::None => (None, None),
            Self::Version(version) => (Some(version), None),
            Self::State { version, revision } => (Some(version), Some(revision)),
        }
    }

    /// Checks it against what is stored.
    pub fn check(self, version: u64, revision: i64) -> Result<(), StoreError> {
        let (wanted, state) = self.parts();
        match wanted {
            Some(expected) if expected != version || state.is_some_and(|state| state != revision) => {
                Err(StoreError::VersionConflict { stored: version, expected })
            }
            _ => Ok(()),
        }
    }
}

/// Which dashboards to look for. Words are separated by blanks; each must be part of the name or of the display name,
/// whatever the letter case.
#[derive(Debug, Clone)]
pub struct SearchQuery {
    /// The words, in lower case.
    pub words: Vec<String>,
    /// Only in these projects; everywhere when `None`.
    pub projects: Option<Vec<String>>,
    /// At most so many, better ones first as far as the store can tell.
    pub limit: u32,
}

/// A dashboard that a search found.
#[derive(Debug, Clone)]
pub struct Titled {
    /// The document, without its spec (`{}`).
    pub document: Document,
    /// `spec.display.name`.
    pub display_name: Option<String>,
}

/// One key that was written or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What changed.
    pub key: Key,
    /// Its revision: entries of caches below it are stale.
    pub revision: i64,
    /// Whether it was deleted.
    pub deleted: bool,
}

/// What a look at the changes tail brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// What was written since the last look; may repeat what an earlier look brought.
    Rows(Vec<Change>),
    /// The tail no longer reaches back to the cursor: everything cached is suspect.
    Lost,
}

/// What a store refuses or fails at.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Create of a key that exists.
    #[error("document already exists")]
    AlreadyExists,
    /// Update or delete of a key that does not exist.
    #[error("document not found")]
    NotFound,
    /// The project of a new document does not exist.
    #[error("metadata.project \"{0}\" doesn't exist")]
    ProjectMissing(String),
    /// The stored version is another one than the writer saw.
    #[error("the stored version is {stored}, the document changed since version {expected} was read")]
    VersionConflict {
        /// `metadata.version` in the store.
        stored: u64,
        /// What the writer asked for.
        expected: u64,
    },
    /// The store cannot be reached or took too long; the same request may work later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Anything else; the text is for the log only.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// Storage of documents.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug + 'static {
    /// Reads one document, from the primary.
    async fn get(&self, key: &Key) -> Result<Option<Document>, StoreError>;

    /// Lists documents, ordered by project and name.
    async fn list(&self, query: &ListQuery) -> Result<Vec<Document>, StoreError>;

    /// As [`Store::list`], but what was acknowledged before is always in it: never from a replica.
    async fn list_primary(&self, query: &ListQuery) -> Result<Vec<Document>, StoreError> {
        self.list(query).await
    }

    /// Creates a document with version 0.
    async fn create(&self, draft: Draft) -> Result<Document, StoreError>;

    /// Creates a project and documents in it, all or none.
    async fn create_project(&self, project: Draft, contents: Vec<Draft>) -> Result<Vec<Document>, StoreError> {
        let (_, _) = (project, contents);
        Err(StoreError::Failed("this store cannot create a project together with its contents".to_owned()))
    }

    /// Replaces a document: keeps `createdAt`, adds one to `version`.
    async fn update(&self, draft: Draft, precondition: Precondition) -> Result<Document, StoreError>;

    /// Stores a document as it is, with its times and its version, in place of what is there (import).
    async fn put(&self, document: Document) -> Result<(), StoreError>;

    /// Finds dashboards by their names.
    async fn search(&self, query: &SearchQuery) -> Result<Vec<Titled>, StoreError>;

    /// Deletes a document; of a project also everything in it. Returns all that went.
    async fn delete(&self, key: &Key) -> Result<Vec<Change>, StoreError> {
        self.delete_if(key, Precondition::None).await
    }

    /// As [`Self::delete`], under a condition.
    async fn delete_if(&self, key: &Key, precondition: Precondition) -> Result<Vec<Change>, StoreError>;

    /// Takes or keeps a lease for `ttl`: of all processes on this store only its holder does what it is for. `false` while
    /// somebody else holds it.
    async fn lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<bool, StoreError>;

    /// Gives a lease back, if it is still held.
    async fn release(&self, name: &str, holder: &str) -> Result<(), StoreError>;

    /// Where the changes tail ends now.
    async fn tail_start(&self) -> Result<Cursor, StoreError>;

    /// What changed since the cursor, which moves on.
    async fn tail(&self, cursor: &mut Cursor) -> Result<Changes, StoreError>;

    /// Whether this program can work with what the store holds. A store that was found good and is away now counts as
    /// good: caches go on serving. Else the error says what is wrong and what to do.
    async fn ready(&self) -> Result<(), StoreError>;

    /// Whether the store answers (`database` in `/api/v1/health`).
    async fn check(&self) -> Result<(), StoreError>;

    /// The audit log of the store, if it keeps one.
    fn audit(&self) -> Option<&dyn AuditStore> {
        None
    }

    /// From now on the store counts what it does there; one without metrics of its own does nothing.
    fn attach_metrics(&self, _metrics: Arc<Metrics>) {}
}

/// Storage of the audit log.
#[async_trait]
pub trait AuditStore: Send + Sync {
    /// Adds records; doing it twice does no harm.
    async fn append(&self, records: &[audit::Record]) -> Result<(), StoreError>;

    /// The records asked for, newest first.
    async fn search(&self, query: &audit::Query) -> Result<Vec<audit::Record>, StoreError>;

    /// Removes records from before a time; how many went.
    async fn remove_before(&self, time: jiff::Timestamp) -> Result<u64, StoreError>;
}

/// A place in the changes tail; its meaning is the store's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// All transactions below this one have been seen (PostgreSQL: xid8), or the last sequence number (files).
    pub position: i64,
    /// Identifiers at or above `position` that were already handed out.
    pub seen: std::collections::BTreeSet<i64>,
    /// The store's clock at the last look, in microseconds since the epoch.
    pub looked_at: i64,
    /// Which life of the store the rest belongs to (PostgreSQL: timeline); another one makes the cursor void.
    pub epoch: i64,
}

/// `{}`.
pub(crate) fn empty_spec() -> Box<serde_json::value::RawValue> {
    serde_json::value::RawValue::from_string("{}".to_owned()).unwrap_or_default()
}
