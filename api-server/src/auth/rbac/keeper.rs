//! Keeps the graph of this process: loads what the store holds, follows the changes of all pods, swaps the graph.
//!
//! One task reads and builds, so rounds follow each other: what a round reads is at least as new as what the round before
//! read. Changes that come in while a round runs are one round together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::facts::{Facts, concerns};
use super::graph::{Graph, Rules};
use crate::auth::token::Principal;
use crate::cache::Listener;
use crate::domain::document::Key;
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::store::{Change, ListQuery, Store, StoreError};

/// The kinds that are loaded.
const KINDS: [Kind; 5] = [Kind::User, Kind::GlobalRole, Kind::GlobalRoleBinding, Kind::Role, Kind::RoleBinding];
/// More changed documents than this are not read one by one: everything is loaded.
const MOST_POINT_READS: usize = 200;
/// How long to wait before a round that failed is tried again; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long the writer of a role waits for the graph at most, when the store is slow.
const WRITER_PATIENCE: Duration = Duration::from_secs(2);

/// What is to be looked at.
#[derive(Debug, Default)]
struct Inbox {
    changes: HashMap<Key, Change>,
    /// It is not known what changed.
    reload: bool,
    /// Counts what came in.
    sequence: u64,
}

impl Inbox {
    fn add(&mut self, change: &Change) {
        let newer = self.changes.get(&change.key).is_none_or(|known| known.revision < change.revision);
        if newer {
            self.changes.insert(change.key.clone(), change.clone());
        }
    }
}

/// The roles and bindings of this server, as this process knows them.
#[derive(Debug)]
pub struct Rbac {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    rules: Rules,
    graph: ArcSwapOption<Graph>,
    inbox: Mutex<Inbox>,
    wake: Notify,
    /// [`Inbox::sequence`] up to which the graph is built.
    done: watch::Sender<u64>,
    version: watch::Sender<u64>,
}

impl Rbac {
    /// Knows nothing until [`Self::run`] runs and the changes of the store are followed (see [`Listener::lost`]).
    pub fn new(store: Arc<dyn Store>, rules: Rules, metrics: Arc<Metrics>) -> Self {
        Self {
            store,
            metrics,
            rules,
            graph: ArcSwapOption::empty(),
            inbox: Mutex::default(),
            wake: Notify::new(),
            done: watch::Sender::new(0),
            version: watch::Sender::new(0),
        }
    }

    /// Asks the graph about somebody. Without a sign-in, and before the first load, the answer is an error: nobody passes.
    pub fn ask<T>(
        &self,
        principal: Option<&Principal>,
        question: impl FnOnce(&Graph, &Principal) -> T,
    ) -> Result<T, ApiError> {
        let principal = principal.ok_or(ApiError::MissingToken)?;
        let graph = self.graph.load();
        graph.as_ref().map(|graph| question(graph, principal)).ok_or_else(not_loaded)
    }

    /// Whether a binding names a user, who need not exist.
    pub fn names(&self, user: &str) -> Result<bool, ApiError> {
        self.graph.load().as_ref().map(|graph| graph.names(user)).ok_or_else(not_loaded)
    }

    /// Whether there is a graph.
    pub fn is_loaded(&self) -> bool {
        self.graph.load().is_some()
    }

    /// The number of the graph, which rises with every change of rights; 0 before the first. What lives longer than a
    /// request watches it, and asks again.
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Waits until what came in so far is part of the graph, but not for ever: the writer of a role calls this, so that the
    /// answer of the write is followed by its effect.
    pub async fn settled(&self) {
        let wanted = self.inbox.lock().sequence;
        let mut done = self.done.subscribe();
        if tokio::time::timeout(WRITER_PATIENCE, done.wait_for(|done| *done >= wanted)).await.is_err() {
            tracing::warn!("a change of rights is written, but not in force yet: the store is slow or away");
        }
    }

    /// Follows the changes until the token is cancelled. To be run once.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let (mut facts, mut pause) = (None, FIRST_PAUSE);
        loop {
            let Some(work) = self.take_work(facts.is_some()) else {
                self.wake.notified().await;
                continue;
            };
            match self.round(&mut facts, &work).await {
                Ok(()) => {
                    self.done.send_replace(work.sequence);
                    pause = FIRST_PAUSE;
                }
                Err(error) => {
                    tracing::warn!(%error, "changes of rights cannot be read now; those known go on being in force");
                    self.give_back(&work, facts.is_none());
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// What is to be done, if anything. Before the first load only [`Listener::lost`] is: it says that the changes are
    /// followed from now on, so that none is missed.
    fn take_work(&self, is_loaded: bool) -> Option<Inbox> {
        let mut inbox = self.inbox.lock();
        if inbox.changes.is_empty() && !inbox.reload {
            self.done.send_replace(inbox.sequence);
            return None;
        }
        if !inbox.reload && !is_loaded {
            return None;
        }
        let sequence = inbox.sequence;
        Some(std::mem::replace(&mut *inbox, Inbox { sequence, ..Inbox::default() }))
    }

    /// What could not be done is to be done again, together with what came in meanwhile.
    fn give_back(&self, work: &Inbox, reload: bool) {
        let mut inbox = self.inbox.lock();
        work.changes.values().for_each(|change| inbox.add(change));
        inbox.reload |= work.reload || reload;
    }

    /// Takes changes in and builds the graph anew. What a failure leaves out is left to the next round.
    async fn round(&self, slot: &mut Option<Facts>, work: &Inbox) -> Result<(), StoreError> {
        let started = Instant::now();
        let (facts, outcome) = match slot.take().filter(|_| !work.reload && work.changes.len() <= MOST_POINT_READS) {
            None => (self.load().await?, Ok(())),
            Some(mut facts) => {
                let (is_new, outcome) = self.take_in(&mut facts, &work.changes).await;
                if !is_new {
                    *slot = Some(facts);
                    return outcome;
                }
                (facts, outcome)
            }
        };
        let rules = self.rules.clone();
        let built = tokio::task::spawn_blocking(move || {
            let graph = Graph::build(&facts, &rules);
            (facts, graph)
        });
        let (facts, graph) = built.await.map_err(|error| StoreError::Failed(format!("building failed: {error}")))?;
        self.graph.store(Some(Arc::new(graph)));
        self.version.send_modify(|version| *version += 1);
        self.metrics.authorization_graph(*self.version.borrow(), started.elapsed());
        tracing::debug!(documents = facts.len(), ms = started.elapsed().as_millis(), "rights are in force");
        *slot = Some(facts);
        outcome
    }

    async fn load(&self) -> Result<Facts, StoreError> {
        let mut facts = Facts::default();
        for kind in KINDS {
            let query = ListQuery { kind, project: None, name_prefix: None, metadata_only: kind == Kind::User };
            self.store.list_primary(&query).await?.iter().for_each(|document| facts.put(document));
        }
        Ok(facts)
    }

    /// Reads what changed; whether anything was new, and whether all could be read. Rights that are gone need no read, so a
    /// store that fails does not keep them.
    async fn take_in(&self, facts: &mut Facts, changes: &HashMap<Key, Change>) -> (bool, Result<(), StoreError>) {
        let mut is_new = false;
        for change in changes.values().filter(|change| change.deleted) {
            is_new |= facts.remove(&change.key, change.revision);
        }
        for change in changes.values().filter(|change| !change.deleted) {
            let key = &change.key;
            let known = facts.revision(key);
            // Of a user only counts that there is one.
            if known.is_some_and(|known| known >= change.revision || key.kind == Kind::User) {
                continue;
            }
            match self.store.get(key).await {
                Ok(Some(document)) => facts.put(&document),
                Ok(None) => _ = facts.remove(key, change.revision),
                Err(error) => return (is_new, Err(error)),
            }
            is_new = true;
        }
        (is_new, Ok(()))
    }
}

impl Listener for Rbac {
    fn changed(&self, changes: &[Change]) {
        let mut relevant = changes.iter().filter(|change| concerns(change.key.kind)).peekable();
        if relevant.peek().is_some() {
            let mut inbox = self.inbox.lock();
            relevant.for_each(|change| inbox.add(change));
            inbox.sequence += 1;
            drop(inbox);
            self.wake.notify_one();
        }
    }

    fn lost(&self) {
        let mut inbox = self.inbox.lock();
        inbox.reload = true;
        inbox.sequence += 1;
        drop(inbox);
        self.wake.notify_one();
    }
}

fn not_loaded() -> ApiError {
    ApiError::Unavailable("roles and bindings are not loaded yet".to_owned())
}

#[cfg(test)]
mod tests;
