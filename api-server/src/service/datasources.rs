//! Which datasources there are: the lists of a project and of no project, read once and kept until one of theirs changes.
//!
//! Invariant: a list that was read before a change is never handed to a request that came after it: a read that runs while a
//! change comes in fills a slot that is no longer in the table.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::cache::Listener;
use crate::config::Config;
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::store::{Change, ListQuery, Store, StoreError};
use crate::view::dashboard::Dashboard;
use crate::view::source::{Source, Sources};

/// A list is read again after so long even if no change was announced.
const MAX_AGE: Duration = Duration::from_mins(1);
/// With the store away a known list goes on being used; the store is asked again after this.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Above so many, lists that are too old are dropped from the table.
const SWEEP_ABOVE: usize = 1024;

type List = Arc<[Source]>;

#[derive(Debug, Default)]
struct Slot {
    cell: OnceCell<(List, Instant)>,
    previous: Option<List>,
}

/// The lists in use.
#[derive(Debug)]
pub struct Datasources {
    store: Arc<dyn Store>,
    global: bool,
    project: bool,
    local: bool,
    /// By project; without one those that belong to none.
    slots: Mutex<HashMap<Option<String>, Arc<Slot>>>,
}

impl Datasources {
    /// Those of a store, without the levels that are switched off.
    pub fn new(config: &Config, store: Arc<dyn Store>) -> Self {
        Self {
            store,
            global: config.serves(Kind::GlobalDatasource),
            project: config.serves(Kind::Datasource),
            local: !config.datasource.disable_local,
            slots: Mutex::default(),
        }
    }

    /// Those that a dashboard may mean.
    pub async fn of(&self, dashboard: &Dashboard) -> Result<Sources, ApiError> {
        let mut sources = Sources::default();
        if self.local {
            let own = &dashboard.spec.datasources.0;
            sources.local = own.iter().map(|(name, spec)| Source::of(name, spec)).collect();
        }
        if self.project {
            sources.project = self.list(Some(dashboard.metadata.project.clone())).await?;
        }
        if self.global {
            sources.global = self.list(None).await?;
        }
        Ok(sources)
    }

    async fn list(&self, project: Option<String>) -> Result<List, ApiError> {
        let slot = self.slot(project.clone());
        let read = || async {
            match (self.read(project.clone()).await, &slot.previous) {
                (Ok(list), _) => Ok((list, Instant::now() + MAX_AGE)),
                (Err(StoreError::Unavailable(_)), Some(previous)) => {
                    Ok((previous.clone(), Instant::now() + RETRY_AFTER))
                }
                (Err(error), _) => Err(ApiError::from(error)),
            }
        };
        Ok(slot.cell.get_or_try_init(read).await?.0.clone())
    }

    async fn read(&self, project: Option<String>) -> Result<List, StoreError> {
        let kind = if project.is_some() { Kind::Datasource } else { Kind::GlobalDatasource };
        let query = ListQuery { kind, project, name_prefix: None, metadata_only: false };
        let documents = self.store.list(&query).await?;
        let source = |document: &crate::domain::document::Document| {
            let spec = serde_json::from_str(document.spec.get()).unwrap_or_default();
            Source::of(&document.key.name, &spec)
        };
        Ok(documents.iter().map(source).collect())
    }

    fn slot(&self, project: Option<String>) -> Arc<Slot> {
        let now = Instant::now();
        let is_old = |slot: &Slot| slot.cell.get().is_some_and(|(_, expires)| *expires <= now);
        let mut slots = self.slots.lock();
        let previous = match slots.get(&project) {
            Some(slot) if !is_old(slot) => return slot.clone(),
            Some(slot) => slot.cell.get().map(|(list, _)| list.clone()),
            None => None,
        };
        if slots.len() > SWEEP_ABOVE {
            slots.retain(|_, slot| slot.cell.initialized() && !is_old(slot));
        }
        let slot = Arc::new(Slot { cell: OnceCell::new(), previous });
        slots.insert(project, slot.clone());
        slot
    }
}

/// Lists with a change are read again.
impl Listener for Datasources {
    fn changed(&self, changes: &[Change]) {
        let mut slots = self.slots.lock();
        for change in changes {
            match change.key.kind {
                Kind::GlobalDatasource => drop(slots.remove(&None)),
                Kind::Datasource => drop(slots.remove(&change.key.project)),
                Kind::Project => drop(slots.remove(&Some(change.key.name.clone()))),
                _ => {}
            }
        }
    }

    fn lost(&self) {
        self.slots.lock().clear();
    }
}
