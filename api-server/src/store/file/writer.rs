//! The blocking half of the file store: all changes of the folder, one at a time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};

use super::index::{Entry, Index};
use super::layout::{EXTENSIONS, Found, Signature};
use super::{disk, format, layout};
use crate::config::FileExtension;
use crate::domain::document::{Document, Draft, Key};
use crate::domain::kind::Kind;
use crate::store::{Change, Precondition, StoreError, empty_spec};

/// The folder and its image in memory.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) root: PathBuf,
    extension: FileExtension,
    pub(super) index: RwLock<Index>,
    /// Held by whoever changes files or takes over what others changed; readers need only `index`.
    writer: Mutex<()>,
    _lock: Option<fs::File>,
}

impl Folder {
    /// Locks the folder, finishes what a crash interrupted and reads every document.
    pub(super) fn open(root: &Path, extension: FileExtension) -> Result<Self, StoreError> {
        disk::make_folder(root).map_err(|error| disk::failed("make the folder", root, &error))?;
        let lock = disk::lock(root)?;
        let folder =
            Self { root: root.to_owned(), extension, index: RwLock::default(), writer: Mutex::default(), _lock: lock };
        folder.scan(true)?;
        folder.finish_deletions()?;
        tracing::info!(folder = %root.display(), documents = folder.index.read().len(), "documents are kept in files");
        Ok(folder)
    }

    /// Takes over what changed on disk since the last look. A file that cannot be understood is reported and left alone;
    /// what was last read of it goes on being served.
    pub(super) fn scan(&self, first: bool) -> Result<(), StoreError> {
        let _writer = self.writer.lock();
        let found = layout::scan(&self.root).map_err(|error| disk::failed("read the folder", &self.root, &error))?;
        if first {
            found.iter().filter_map(|file| file.path.parent()).for_each(disk::remove_leftovers);
        }
        let files = self.choose(found);
        let gone: Vec<Key> = {
            let index = self.index.read();
            index.iter().filter(|(key, _)| !files.contains_key(*key)).map(|(key, _)| key.clone()).collect()
        };
        for key in gone {
            self.index.write().remove(&key, now().as_microsecond());
        }
        for file in files.values() {
            self.take_over(file, first);
        }
        self.index.write().bad.retain(|path, _| path.exists());
        Ok(())
    }

    /// One file for each key: the configured extension wins.
    fn choose(&self, found: Vec<Found>) -> BTreeMap<Key, Found> {
        let mut files: BTreeMap<Key, Found> = BTreeMap::new();
        for file in found {
            let better = files.get(&file.key).is_none_or(|_| file.extension == self.extension);
            if better {
                files.insert(file.key.clone(), file);
            }
        }
        files
    }

    /// Reads a file when its state is new; the writer's lock is held.
    fn take_over(&self, file: &Found, first: bool) {
        {
            let index = self.index.read();
            let known = index
                .get(&file.key)
                .is_some_and(|entry| entry.signature == file.signature && entry.extension == file.extension);
            if known || index.bad.get(&file.path) == Some(&file.signature) {
                return;
            }
        }
        match read(file) {
            Ok(mut document) => {
                let mut index = self.index.write();
                index.bad.remove(&file.path);
                if index.get(&file.key).is_some_and(|entry| same(&entry.document, &document)) {
                    index.touch(&file.key, file.signature);
                    return;
                }
                let stamp = if first { file.signature.modified_micros() } else { now().as_microsecond() };
                // At start equal stamps of different keys are harmless; later a revision must rise.
                document.revision = if first { stamp } else { index.next_revision(stamp) };
                let entry = Entry::new(Arc::new(document), file.extension, file.signature);
                if first { index.load(entry) } else { index.put(entry) }
            }
            Err(reason) => {
                tracing::warn!(file = %file.path.display(), %reason, "this file is no document that can be served; it is left as it is");
                self.index.write().bad.insert(file.path.clone(), file.signature);
            }
        }
    }

    /// Takes over a change of one key that the regular scan has not seen yet, so that no write builds on an old state.
    fn refresh(&self, key: &Key) -> Result<(), StoreError> {
        let mut files = Vec::new();
        for extension in EXTENSIONS {
            let path = layout::path(&self.root, key, extension)?;
            let signature = Signature::read(&path).map_err(|error| disk::failed("look at", &path, &error))?;
            files.extend(signature.map(|signature| Found { key: key.clone(), extension, path, signature }));
        }
        match self.choose(files).remove(key) {
            Some(file) => self.take_over(&file, false),
            None => {
                self.index.write().remove(key, now().as_microsecond());
            }
        }
        Ok(())
    }

    pub(super) fn create(&self, draft: Draft) -> Result<Document, StoreError> {
        let _writer = self.writer.lock();
        self.refresh(&draft.key)?;
        if let Some(project) = &draft.key.project
            && self.index.read().get(&Key::global(Kind::Project, project)).is_none()
        {
            return Err(StoreError::ProjectMissing(project.clone()));
        }
        self.require_free(&draft.key)?;
        self.save_new(draft)
    }

    /// Creates a project and documents in it. The project's file is written last: without it nothing in it counts, and what a
    /// crash or an error left is overwritten when the project is created again.
    pub(super) fn create_project(&self, project: Draft, contents: Vec<Draft>) -> Result<Vec<Document>, StoreError> {
        let _writer = self.writer.lock();
        self.refresh(&project.key)?;
        self.require_free(&project.key)?;
        let mut created = Vec::with_capacity(contents.len() + 1);
        for draft in contents {
            self.refresh(&draft.key)?;
            created.push(self.save_new(draft)?);
        }
        created.insert(0, self.save_new(project)?);
        Ok(created)
    }

    fn require_free(&self, key: &Key) -> Result<(), StoreError> {
        if self.index.read().get(key).is_some() {
            return Err(StoreError::AlreadyExists);
        }
        // A file that cannot be understood holds the name: it is never overwritten.
        for extension in EXTENSIONS {
            let path = layout::path(&self.root, key, extension)?;
            if path.exists() {
                tracing::warn!(file = %path.display(), "a document cannot be created where a file stands that is none");
                return Err(StoreError::AlreadyExists);
            }
        }
        Ok(())
    }

    fn save_new(&self, draft: Draft) -> Result<Document, StoreError> {
        let at = now();
        let revision = self.index.write().next_revision(at.as_microsecond());
        self.save(document(draft, at, at, 0, revision), None)
    }

    pub(super) fn update(&self, draft: Draft, precondition: Precondition) -> Result<Document, StoreError> {
        let _writer = self.writer.lock();
        self.refresh(&draft.key)?;
        let (stored, extension) = {
            let index = self.index.read();
            let entry = index.get(&draft.key).ok_or(StoreError::NotFound)?;
            (Arc::clone(&entry.document), entry.extension)
        };
        precondition.check(stored.version, stored.revision)?;
        let at = now();
        let revision = self.index.write().next_revision(at.as_microsecond());
        self.save(document(draft, stored.created_at, at, stored.version + 1, revision), Some(extension))
    }

    pub(super) fn put(&self, mut document: Document) -> Result<(), StoreError> {
        let _writer = self.writer.lock();
        self.refresh(&document.key)?;
        let before = {
            let index = self.index.read();
            if let Some(project) = &document.key.project
                && index.get(&Key::global(Kind::Project, project)).is_none()
            {
                return Err(StoreError::ProjectMissing(project.clone()));
            }
            index.get(&document.key).map(|entry| entry.extension)
        };
        document.revision = self.index.write().next_revision(now().as_microsecond());
        self.save(document, before).map(|_| ())
    }

    /// Writes a document; `before` is the extension it had. The writer's lock is held.
    fn save(&self, document: Document, before: Option<FileExtension>) -> Result<Document, StoreError> {
        let path = layout::path(&self.root, &document.key, self.extension)?;
        let text = format::encode(&document, self.extension);
        disk::write_atomically(&path, &text).map_err(|error| disk::failed("write", &path, &error))?;
        if let Some(other) = before.filter(|extension| *extension != self.extension) {
            let old = layout::path(&self.root, &document.key, other)?;
            disk::remove(&old).map_err(|error| disk::failed("remove", &old, &error))?;
        }
        let signature = Signature::read(&path)
            .map_err(|error| disk::failed("look at", &path, &error))?
            .ok_or_else(|| StoreError::Failed(format!("{} vanished after it was written", path.display())))?;
        let entry = Entry::new(Arc::new(document.clone()), self.extension, signature);
        self.index.write().put(entry);
        Ok(document)
    }

    pub(super) fn delete(&self, key: &Key, precondition: Precondition) -> Result<Vec<Change>, StoreError> {
        let _writer = self.writer.lock();
        self.refresh(key)?;
        {
            let index = self.index.read();
            let stored = &index.get(key).ok_or(StoreError::NotFound)?.document;
            precondition.check(stored.version, stored.revision)?;
        }
        if key.kind == Kind::Project {
            self.delete_project(&key.name)
        } else {
            Ok(self.remove(key)?.into_iter().collect())
        }
    }

    /// Deletes a project and all in it. The mark makes it one write: once it is on disk, a restart finishes the job.
    fn delete_project(&self, project: &str) -> Result<Vec<Change>, StoreError> {
        let mark = disk::mark_deletion(&self.root, project)
            .map_err(|error| disk::failed("mark a deletion in", &self.root, &error))?;
        let mut changes = Vec::new();
        // Not in the head of the loop: the lock would be held while `remove` asks for it.
        let children = self.index.read().children(project);
        for key in children {
            changes.extend(self.remove(&key)?);
        }
        changes.extend(self.remove(&Key::global(Kind::Project, project))?);
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_project_scoped()) {
            disk::remove_empty_folder(&self.root.join(kind.plural()).join(project));
        }
        disk::remove(&mark).map_err(|error| disk::failed("remove", &mark, &error))?;
        Ok(changes)
    }

    fn finish_deletions(&self) -> Result<(), StoreError> {
        let projects = disk::unfinished_deletions(&self.root)
            .map_err(|error| disk::failed("read the folder", &self.root, &error))?;
        for project in projects.iter().filter(|project| crate::domain::name::validate(project).is_ok()) {
            tracing::warn!(%project, "finishing the deletion of a project that a crash cut short");
            self.delete_project(project)?;
        }
        Ok(())
    }

    fn remove(&self, key: &Key) -> Result<Option<Change>, StoreError> {
        for extension in EXTENSIONS {
            let path = layout::path(&self.root, key, extension)?;
            disk::remove(&path).map_err(|error| disk::failed("remove", &path, &error))?;
        }
        Ok(self.index.write().remove(key, now().as_microsecond()))
    }
}

/// Reads the document of a file; the file's place decides kind, project and name, and the text may not say otherwise.
pub(super) fn read(file: &Found) -> Result<Document, String> {
    let text = fs::read_to_string(&file.path).map_err(|error| error.to_string())?;
    let stored = format::decode(&text, file.extension)?;
    let key = &file.key;
    if Kind::parse(&stored.kind) != Some(key.kind) {
        return Err(format!("its kind is {:?}, its folder is that of {}", stored.kind, key.kind.plural()));
    }
    let metadata = stored.metadata;
    let origin = metadata.written_by();
    let differs = |text: &str, place: Option<&str>| !text.is_empty() && place.is_some_and(|place| place != text);
    if differs(&metadata.name, Some(&key.name)) {
        return Err(format!("metadata.name is {:?}, the file is named {:?}", metadata.name, key.name));
    }
    if differs(&metadata.project, key.project.as_deref()) {
        return Err(format!("metadata.project is {:?}, its folder is that of {:?}", metadata.project, key.path()));
    }
    let written = Timestamp::from_microsecond(file.signature.modified_micros()).unwrap_or(Timestamp::UNIX_EPOCH);
    Ok(Document {
        key: key.clone(),
        created_at: metadata.created_at.unwrap_or(written),
        updated_at: metadata.updated_at.unwrap_or(written),
        version: metadata.version,
        tags: metadata.tags.unwrap_or_default(),
        spec: stored.spec.unwrap_or_else(empty_spec).into(),
        origin,
        revision: 0,
    })
}

fn same(a: &Document, b: &Document) -> bool {
    let origin = |document: &Document| format::keeps_origin(document.key.kind).then(|| document.origin.as_str());
    (a.created_at, a.updated_at, a.version, &a.tags, a.spec.get(), origin(a))
        == (b.created_at, b.updated_at, b.version, &b.tags, b.spec.get(), origin(b))
}

fn document(draft: Draft, created_at: Timestamp, updated_at: Timestamp, version: u64, revision: i64) -> Document {
    let Draft { key, tags, spec, origin } = draft;
    Document { key, created_at, updated_at, version, tags, spec: spec.into(), origin, revision }
}

/// The time in whole microseconds, as PostgreSQL keeps it.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}
