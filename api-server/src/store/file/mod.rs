//! Documents as files in upstream's layout, so that an existing Perses folder just works.
//!
//! Everything is in memory; files are written atomically, and looked at once a second so that edits by hand are seen.
//! One process owns the folder.

mod disk;
mod format;
mod index;
mod layout;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::Mutex;

pub(crate) use self::format::Metadata;
use self::writer::Folder;
use super::{Change, Changes, Cursor, ListQuery, Precondition, SearchQuery, Store, StoreError, Titled};
use crate::config::FileDatabase;
use crate::domain::document::{Document, Draft, Key};

/// How often the folder is looked at for edits by hand.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);

/// A store in a folder.
#[derive(Debug)]
pub struct FileStore {
    folder: Arc<Folder>,
    /// Holders and ends of leases: one process has the folder, so its memory will do.
    leases: Mutex<HashMap<String, (String, Instant)>>,
    /// Dropped with the store: ends the watching thread.
    _stop: mpsc::Sender<()>,
}

impl FileStore {
    /// Opens the folder (made when absent), locks it and reads all documents. Blocks.
    pub fn open(config: &FileDatabase) -> Result<Self, StoreError> {
        let folder = Arc::new(Folder::open(&config.folder, config.extension)?);
        let (stop, stopped) = mpsc::channel();
        let watched = Arc::downgrade(&folder);
        thread::Builder::new()
            .name("file-store-scan".to_owned())
            .spawn(move || watch(&watched, &stopped))
            .map_err(|error| StoreError::Failed(format!("cannot start the thread that watches the folder: {error}")))?;
        Ok(Self { folder, leases: Mutex::default(), _stop: stop })
    }

    /// Runs a blocking step on a thread for such steps; it is finished even when the caller goes away.
    async fn blocking<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Folder) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let folder = Arc::clone(&self.folder);
        tokio::task::spawn_blocking(move || step(&folder))
            .await
            .map_err(|error| StoreError::Failed(format!("a file operation was cut short: {error}")))?
    }
}

/// Reads the documents of a folder without taking it for this process; also what cannot be understood, as `path: reason`.
/// Blocks.
pub fn read_folder(root: &Path) -> Result<(Vec<Document>, Vec<String>), StoreError> {
    let found = layout::scan(root).map_err(|error| disk::failed("read the folder", root, &error))?;
    let (mut documents, mut errors) = (BTreeMap::new(), Vec::new());
    for file in found {
        match writer::read(&file) {
            Ok(document) => drop(documents.insert(file.key, document)),
            Err(reason) => errors.push(format!("{}: {reason}", file.path.display())),
        }
    }
    Ok((documents.into_values().collect(), errors))
}

fn watch(folder: &Weak<Folder>, stopped: &mpsc::Receiver<()>) {
    let mut pause = SCAN_INTERVAL;
    let mut reported = false;
    while matches!(stopped.recv_timeout(pause), Err(mpsc::RecvTimeoutError::Timeout)) {
        let Some(folder) = folder.upgrade() else { return };
        let started = Instant::now();
        match folder.scan(false) {
            Ok(()) => reported = false,
            Err(error) if !reported => {
                tracing::warn!(%error, "edits of files by hand are not noticed now");
                reported = true;
            }
            Err(_) => {}
        }
        // A folder that is slow to look at is looked at less often.
        pause = SCAN_INTERVAL.max(started.elapsed() * 20);
    }
}

#[async_trait]
impl Store for FileStore {
    async fn get(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        Ok(self.folder.index.read().get(key).map(|entry| (*entry.document).clone()))
    }

    async fn list(&self, query: &ListQuery) -> Result<Vec<Document>, StoreError> {
        Ok(self.folder.index.read().list(query))
    }

    async fn create(&self, draft: Draft) -> Result<Document, StoreError> {
        self.blocking(move |folder| folder.create(draft)).await
    }

    async fn create_project(&self, project: Draft, contents: Vec<Draft>) -> Result<Vec<Document>, StoreError> {
        self.blocking(move |folder| folder.create_project(project, contents)).await
    }

    async fn update(&self, draft: Draft, precondition: Precondition) -> Result<Document, StoreError> {
        self.blocking(move |folder| folder.update(draft, precondition)).await
    }

    async fn put(&self, document: Document) -> Result<(), StoreError> {
        self.blocking(move |folder| folder.put(document)).await
    }

    async fn search(&self, query: &SearchQuery) -> Result<Vec<Titled>, StoreError> {
        Ok(self.folder.index.read().search(query))
    }

    async fn delete_if(&self, key: &Key, precondition: Precondition) -> Result<Vec<Change>, StoreError> {
        let key = key.clone();
        self.blocking(move |folder| folder.delete(&key, precondition)).await
    }

    async fn lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<bool, StoreError> {
        let (mut leases, now) = (self.leases.lock(), Instant::now());
        if leases.get(name).is_some_and(|(held, until)| held != holder && *until > now) {
            return Ok(false);
        }
        leases.insert(name.to_owned(), (holder.to_owned(), now + ttl));
        Ok(true)
    }

    async fn release(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        let mut leases = self.leases.lock();
        if leases.get(name).is_some_and(|(held, _)| held == holder) {
            leases.remove(name);
        }
        Ok(())
    }

    async fn tail_start(&self) -> Result<Cursor, StoreError> {
        Ok(Cursor { position: self.folder.index.read().cursor(), ..Cursor::default() })
    }

    async fn tail(&self, cursor: &mut Cursor) -> Result<Changes, StoreError> {
        Ok(self.folder.index.read().since(cursor))
    }

    async fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.blocking(|folder| {
            std::fs::metadata(&folder.root)
                .map(|_| ())
                .map_err(|error| StoreError::Unavailable(format!("cannot look at {}: {error}", folder.root.display())))
        })
        .await
    }
}
