//! A store for tests: files that can be away, whose lists are counted, and whose readers can be stopped with what they read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::file::FileStore;
use super::{
    Change, Changes, Cursor, Document, Draft, Key, ListQuery, Precondition, SearchQuery, Store, StoreError, Titled,
};
use crate::config::FileDatabase;

/// The store.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) inner: FileStore,
    /// Reads fail.
    pub(crate) away: AtomicBool,
    pub(crate) lists: AtomicUsize,
    /// Readers of one document that may go on; unlimited at first.
    pub(crate) pass: Semaphore,
    /// Readers that have read and wait.
    pub(crate) stopped: Semaphore,
}

impl Gate {
    /// As good as unlimited.
    pub(crate) const MANY: usize = 1_000_000;

    /// An empty one, and its folder.
    pub(crate) fn open() -> (Arc<Self>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let config = FileDatabase { folder: folder.path().to_owned(), ..FileDatabase::default() };
        let gate = Self {
            inner: FileStore::open(&config).unwrap(),
            away: AtomicBool::new(false),
            lists: AtomicUsize::new(0),
            pass: Semaphore::new(Self::MANY),
            stopped: Semaphore::new(0),
        };
        (Arc::new(gate), folder)
    }

    fn enter(&self) -> Result<(), StoreError> {
        if self.away.load(Ordering::SeqCst) { Err(StoreError::Unavailable("away".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for Gate {
    async fn get(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        self.enter()?;
        let found = self.inner.get(key).await;
        self.stopped.add_permits(1);
        self.pass.acquire().await.unwrap().forget();
        found
    }
    async fn list(&self, query: &ListQuery) -> Result<Vec<Document>, StoreError> {
        self.enter()?;
        self.lists.fetch_add(1, Ordering::SeqCst);
        self.inner.list(query).await
    }
    async fn create(&self, draft: Draft) -> Result<Document, StoreError> {
        self.inner.create(draft).await
    }
    async fn update(&self, draft: Draft, precondition: Precondition) -> Result<Document, StoreError> {
        self.inner.update(draft, precondition).await
    }
    async fn put(&self, document: Document) -> Result<(), StoreError> {
        self.inner.put(document).await
    }
    async fn search(&self, query: &SearchQuery) -> Result<Vec<Titled>, StoreError> {
        self.inner.search(query).await
    }
    async fn delete_if(&self, key: &Key, precondition: Precondition) -> Result<Vec<Change>, StoreError> {
        self.inner.delete_if(key, precondition).await
    }
    async fn lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<bool, StoreError> {
        self.inner.lease(name, holder, ttl).await
    }
    async fn release(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        self.inner.release(name, holder).await
    }
    async fn tail_start(&self) -> Result<Cursor, StoreError> {
        self.inner.tail_start().await
    }
    async fn tail(&self, cursor: &mut Cursor) -> Result<Changes, StoreError> {
        self.inner.tail(cursor).await
    }
    async fn ready(&self) -> Result<(), StoreError> {
        self.inner.ready().await
    }
    async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }
}
