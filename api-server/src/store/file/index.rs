//! All documents in memory, and the last changes of them.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use serde_json::json;
use serde_json::value::to_raw_value;

use super::layout::Signature;
use crate::config::FileExtension;
use crate::domain::document::{Document, Key};
use crate::domain::kind::Kind;
use crate::domain::spec;
use crate::store::{Change, Changes, Cursor, ListQuery, SearchQuery, Titled};

/// How many changes the tail keeps.
const KEPT_CHANGES: usize = 8192;

/// A document and the file it stands in.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) document: Arc<Document>,
    pub(super) extension: FileExtension,
    pub(super) signature: Signature,
    /// `spec.display.name`, once it was asked for.
    title: OnceLock<Option<String>>,
}

impl Entry {
    pub(super) const fn new(document: Arc<Document>, extension: FileExtension, signature: Signature) -> Self {
        Self { document, extension, signature, title: OnceLock::new() }
    }

    fn title(&self) -> Option<&str> {
        self.title.get_or_init(|| spec::display_name(self.document.spec.get())).as_deref()
    }

    /// The document with nothing but its title as its spec.
    fn titled(&self) -> Document {
        let spec = self.title().and_then(|title| to_raw_value(&json!({"display": {"name": title}})).ok());
        Document { spec: spec.unwrap_or_else(crate::store::empty_spec).into(), ..without_spec(&self.document) }
    }
}

/// The documents, ordered by kind, project and name.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: BTreeMap<Key, Entry>,
    log: VecDeque<(i64, Change)>,
    /// Number of the last change.
    sequence: i64,
    /// Highest revision handed out.
    revision: i64,
    /// Files that could not be read, so that each state of them is reported once.
    pub(super) bad: BTreeMap<PathBuf, Signature>,
}

impl Index {
    /// A revision above all before; made of the time (microseconds), so that it also rises across restarts.
    pub(super) fn next_revision(&mut self, at_least: i64) -> i64 {
        self.revision = at_least.max(self.revision + 1);
        self.revision
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Puts an entry in at start: no change that anybody could have missed.
    pub(super) fn load(&mut self, entry: Entry) {
        self.revision = self.revision.max(entry.document.revision);
        self.entries.insert(entry.document.key.clone(), entry);
    }

    /// Puts an entry in or replaces it.
    pub(super) fn put(&mut self, entry: Entry) {
        let change = Change { key: entry.document.key.clone(), revision: entry.document.revision, deleted: false };
        self.load(entry);
        self.record(change);
    }

    /// Notes that only the file's state changed, not what it says.
    pub(super) fn touch(&mut self, key: &Key, signature: Signature) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.signature = signature;
        }
    }

    /// Takes an entry out; `None` when there is none.
    pub(super) fn remove(&mut self, key: &Key, now: i64) -> Option<Change> {
        self.entries.remove(key)?;
        let change = Change { key: key.clone(), revision: self.next_revision(now), deleted: true };
        self.record(change.clone());
        Some(change)
    }

    fn record(&mut self, change: Change) {
        self.sequence += 1;
        self.log.push_back((self.sequence, change));
        if self.log.len() > KEPT_CHANGES {
            self.log.pop_front();
        }
    }

    /// Keys of everything in a project.
    pub(super) fn children(&self, project: &str) -> Vec<Key> {
        Kind::ALL
            .into_iter()
            .filter(|kind| kind.is_project_scoped())
            .flat_map(|kind| self.range(kind, Some(project), "").map(|(key, _)| key.clone()))
            .collect()
    }

    pub(super) fn list(&self, query: &ListQuery) -> Vec<Document> {
        let prefix = query.name_prefix.as_deref().unwrap_or_default();
        let project = query.project.as_deref();
        self.range(query.kind, project, if project.is_some() { prefix } else { "" })
            .filter(|(key, _)| key.name.starts_with(prefix))
            .map(|(_, entry)| if query.metadata_only { entry.titled() } else { (*entry.document).clone() })
            .collect()
    }

    /// Dashboards whose name or display name has every word, in the order of their keys.
    pub(super) fn search(&self, query: &SearchQuery) -> Vec<Titled> {
        let has = |text: &str, word: &str| text.to_lowercase().contains(word);
        self.range(Kind::Dashboard, None, "")
            .filter(|(key, _)| {
                let project = key.project.as_ref();
                query.projects.as_ref().is_none_or(|allowed| project.is_some_and(|project| allowed.contains(project)))
            })
            .map(|(_, entry)| entry)
            .filter(|entry| {
                let (name, title) = (&entry.document.key.name, entry.title());
                query.words.iter().all(|word| has(name, word) || title.is_some_and(|title| has(title, word)))
            })
            .take(usize::try_from(query.limit).unwrap_or(usize::MAX))
            .map(|entry| Titled {
                document: without_spec(&entry.document),
                display_name: entry.title().map(str::to_owned),
            })
            .collect()
    }

    /// Entries of a kind, or of a kind in a project from a name on as long as names start so.
    fn range<'a>(
        &'a self,
        kind: Kind,
        project: Option<&'a str>,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Entry)> {
        let from = Key { kind, project: project.map(str::to_owned), name: prefix.to_owned() };
        self.entries.range(from..).take_while(move |(key, _)| {
            key.kind == kind
                && (project.is_none() || (key.project.as_deref() == project && key.name.starts_with(prefix)))
        })
    }

    pub(super) const fn cursor(&self) -> i64 {
        self.sequence
    }

    pub(super) fn since(&self, cursor: &mut Cursor) -> Changes {
        let oldest = self.log.front().map_or(self.sequence + 1, |(number, _)| *number);
        // Another process' cursor, or one that the log no longer reaches back to.
        if cursor.position > self.sequence || cursor.position + 1 < oldest {
            return Changes::Lost;
        }
        let skip = usize::try_from(cursor.position + 1 - oldest).unwrap_or(usize::MAX);
        cursor.position = self.sequence;
        Changes::Rows(self.log.iter().skip(skip).map(|(_, change)| change.clone()).collect())
    }
}

fn without_spec(document: &Document) -> Document {
    Document {
        key: document.key.clone(),
        created_at: document.created_at,
        updated_at: document.updated_at,
        version: document.version,
        tags: document.tags.clone(),
        spec: crate::store::empty_spec().into(),
        origin: document.origin.clone(),
        revision: document.revision,
    }
}
