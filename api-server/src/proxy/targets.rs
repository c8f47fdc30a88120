//! From a datasource's name to a [`Target`]: document and secret are read once and kept until one of them changes.
//!
//! Invariant: a target that was loaded before a change is never handed to a request that came after [`Targets::apply`] with
//! it. A load that runs while a change comes in fills a slot that is no longer in the table.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::header;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::OnceCell;
use url::Url;

use super::ProxyError;
use super::client::{ClientError, Clients, Route};
use super::credentials::{self, Credentials, FileAccess, TlsOptions};
use super::location::DatasourceRef;
use super::network::DenyList;
use super::oauth::{TokenSource, TokenSources};
use super::spec::{HttpProxy, SpecError};
use crate::auth::crypto::SecretBox;
use crate::domain::document::{Document, Key};
use crate::domain::kind::Kind;
use crate::store::{Change, Store, StoreError};

/// A target is read again after so long even if no change was announced.
const MAX_AGE: Duration = Duration::from_mins(1);
/// The same for targets whose credentials come from files: nobody announces changed files.
const MAX_AGE_WITH_FILES: Duration = Duration::from_secs(10);
/// With the store away a known target goes on being used; the store is asked again after this.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Above so many, targets that are too old are dropped from the table.
const SWEEP_ABOVE: usize = 4096;

/// Where a datasource's requests go.
#[derive(Debug)]
pub(super) struct Target {
    /// The datasource's name, for messages.
    pub(super) name: String,
    /// Its place and name, as keys of answers have it.
    pub(super) reference: Arc<str>,
    /// URL, allowed endpoints, headers (credentials included).
    pub(super) proxy: HttpProxy,
    /// How to reach it.
    pub(super) route: Route,
    /// Where its access tokens come from.
    pub(super) tokens: Option<Arc<TokenSource>>,
    /// Digest of everything that decides about answers: reference, spec, secret.
    pub(super) fingerprint: blake3::Hash,
    secret: Option<Key>,
    /// What it was made of, when its credentials come from files: they change while the store is away, too.
    remake: Option<Arc<Source>>,
}

/// What the store says about a target.
#[derive(Debug)]
struct Source {
    spec: Value,
    proxy: HttpProxy,
    secret: Option<Document>,
}

#[derive(Debug)]
struct Slot {
    cell: OnceCell<(Arc<Target>, Instant)>,
    previous: Option<Arc<Target>>,
}

/// The targets in use.
#[derive(Debug)]
pub(super) struct Targets {
    store: Arc<dyn Store>,
    secrets: Arc<SecretBox>,
    clients: Clients,
    tokens: TokenSources,
    file_folders: Vec<PathBuf>,
    max_age: Duration,
    max_age_with_files: Duration,
    slots: Mutex<HashMap<DatasourceRef, Arc<Slot>>>,
}

impl Targets {
    pub(super) fn new(
        store: Arc<dyn Store>,
        secrets: Arc<SecretBox>,
        file_folders: Vec<PathBuf>,
        deny: DenyList,
    ) -> Self {
        let (clients, tokens) = (Clients::new(deny), TokenSources::new());
        Self {
            store,
            secrets,
            clients,
            tokens,
            file_folders,
            max_age: MAX_AGE,
            max_age_with_files: MAX_AGE_WITH_FILES,
            slots: Mutex::default(),
        }
    }

    /// Forgets the targets that a change is about.
    pub(super) fn apply(&self, changes: &[Change]) {
        let about = |change: &Change, reference: &DatasourceRef, slot: &Slot| match change.key.kind {
            Kind::Datasource | Kind::GlobalDatasource | Kind::Dashboard => reference.document() == change.key,
            Kind::Secret | Kind::GlobalSecret => match slot.cell.get() {
                Some((target, _)) => target.secret.as_ref() == Some(&change.key),
                // Still loading: it may have read the secret already.
                None => reference.project() == change.key.project.as_deref(),
            },
            Kind::Project => reference.project() == Some(change.key.name.as_str()),
            _ => false,
        };
        self.slots.lock().retain(|reference, slot| !changes.iter().any(|change| about(change, reference, slot)));
    }

    /// Forgets all: changes may have been missed.
    pub(super) fn clear(&self) {
        self.slots.lock().clear();
    }

    /// The target of a datasource. Concurrent first requests share one read.
    pub(super) async fn get(&self, reference: &DatasourceRef) -> Result<Arc<Target>, ProxyError> {
        let slot = self.slot(reference);
        let loaded = slot.cell.get_or_try_init(|| self.load_or_keep(reference, slot.previous.as_ref())).await;
        match loaded {
            Ok((target, _)) => Ok(target.clone()),
            Err(error) => {
                // What does not exist must not fill the table.
                let mut slots = self.slots.lock();
                if slots
                    .get(reference)
                    .is_some_and(|current| Arc::ptr_eq(current, &slot) && !current.cell.initialized())
                {
                    slots.remove(reference);
                }
                Err(error)
            }
        }
    }

    fn slot(&self, reference: &DatasourceRef) -> Arc<Slot> {
        let now = Instant::now();
        let is_old = |slot: &Slot| slot.cell.get().is_some_and(|(_, expires)| *expires <= now);
        let mut slots = self.slots.lock();
        let previous = match slots.get(reference) {
            Some(slot) if !is_old(slot) => return slot.clone(),
            Some(slot) => slot.cell.get().map(|(target, _)| target.clone()),
            None => None,
        };
        if slots.len() > SWEEP_ABOVE {
            slots.retain(|_, slot| slot.cell.initialized() && !is_old(slot));
        }
        let slot = Arc::new(Slot { cell: OnceCell::new(), previous });
        slots.insert(reference.clone(), slot.clone());
        slot
    }

    /// Loads; with the store away the previous target goes on.
    async fn load_or_keep(
        &self,
        reference: &DatasourceRef,
        previous: Option<&Arc<Target>>,
    ) -> Result<(Arc<Target>, Instant), ProxyError> {
        match (self.load(reference).await, previous) {
            (Ok(target), _) => {
                let age = if target.remake.is_some() { self.max_age_with_files } else { self.max_age };
                Ok((Arc::new(target), Instant::now() + age))
            }
            (Err(ProxyError::StoreUnavailable(_)), Some(previous)) => {
                let remade = previous.remake.as_ref().and_then(|source| self.assemble_saved(reference, source).ok());
                Ok((remade.map_or_else(|| previous.clone(), Arc::new), Instant::now() + RETRY_AFTER))
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn load(&self, reference: &DatasourceRef) -> Result<Target, ProxyError> {
        let name = reference.name();
        let document = self.read(&reference.document()).await?.ok_or(ProxyError::NotFound)?;
        let mut spec: Value = serde_json::from_str(document.spec.get()).map_err(|error| ProxyError::Invalid {
            datasource: name.to_owned(),
            reason: format!("its stored document is no JSON: {error}"),
        })?;
        if let DatasourceRef::Dashboard { .. } = reference {
            let inside = spec.get_mut("datasources").and_then(|all| all.get_mut(name));
            spec = inside.map(Value::take).ok_or(ProxyError::NotFound)?;
        }
        let proxy = HttpProxy::parse(&spec).map_err(|error| match error {
            SpecError::NoProxy => ProxyError::NoProxy(name.to_owned()),
            SpecError::SqlProxy => ProxyError::SqlProxy(name.to_owned()),
            SpecError::Invalid(reason) => ProxyError::Invalid { datasource: name.to_owned(), reason },
        })?;
        let source = Arc::new(self.source(reference, spec, proxy).await?);
        self.assemble_saved(reference, &source)
    }

    fn assemble_saved(&self, reference: &DatasourceRef, source: &Arc<Source>) -> Result<Target, ProxyError> {
        self.assemble(reference, source, |base, tls| self.clients.get(base, tls))
    }

    /// The target of a datasource that is not saved; nothing of it is kept but its client, for a while.
    pub(super) async fn of_unsaved(
        &self,
        reference: &DatasourceRef,
        spec: Value,
        proxy: HttpProxy,
    ) -> Result<Arc<Target>, ProxyError> {
        let source = Arc::new(self.source(reference, spec, proxy).await?);
        self.assemble(reference, &source, |base, tls| self.clients.get_passing(base, tls)).map(Arc::new)
    }

    /// Adds the secret that the spec names.
    async fn source(&self, reference: &DatasourceRef, spec: Value, proxy: HttpProxy) -> Result<Source, ProxyError> {
        let secret = match proxy.secret.as_deref().map(|secret| reference.secret(secret)) {
            None => None,
            Some(key) => Some(self.read(&key).await?.ok_or_else(|| {
                tracing::debug!(datasource = %reference, secret = %key.path(), "the datasource names a secret that does not exist");
                ProxyError::NotFound
            })?),
        };
        Ok(Source { spec, proxy, secret })
    }

    /// Opens the secret and finds client and tokens.
    fn assemble(
        &self,
        reference: &DatasourceRef,
        source: &Arc<Source>,
        route: impl Fn(&Url, &TlsOptions) -> Result<Route, ClientError>,
    ) -> Result<Target, ProxyError> {
        let name = reference.name().to_owned();
        let invalid = |reason: String| ProxyError::Invalid { datasource: name.clone(), reason };
        let refused = |error: ClientError| match error {
            ClientError::Settings(reason) => invalid(format!("its secret: {reason}")),
            ClientError::Denied(denied) => ProxyError::Denied { datasource: name.clone(), reason: denied.to_string() },
        };

        // Content instead of revisions: a database that was restored or made anew may repeat revisions.
        let mut fingerprint = blake3::Hasher::new();
        let mut absorb = |text: &str| {
            fingerprint.update(&(text.len() as u64).to_le_bytes());
            fingerprint.update(text.as_bytes());
        };
        absorb(&reference.to_string());
        absorb(&source.spec.to_string());
        let mut credentials = Credentials::default();
        if let Some(document) = &source.secret {
            absorb(document.spec.get());
            credentials = self
                .credentials(document)
                .map_err(|error| invalid(format!("its secret {:?}: {error}", document.key.name)))?;
            if credentials.from_files {
                absorb(credentials.authorization.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default());
                absorb(credentials.tls.identity.as_deref().unwrap_or_default());
                if let Some(settings) = &credentials.oauth {
                    absorb(&settings.digest(&credentials.tls).to_string());
                }
            }
        }
        let (mut proxy, tls) = (source.proxy.clone(), &credentials.tls);
        let tokens = match &credentials.oauth {
            Some(settings) => Some(self.tokens.get(&self.clients, settings, tls, &proxy.url).map_err(refused)?),
            None => None,
        };
        if let Some(value) = credentials.authorization {
            proxy.headers.insert(header::AUTHORIZATION, value);
        }
        Ok(Target {
            name: name.clone(),
            reference: reference.to_string().into(),
            route: route(&proxy.url, tls).map_err(refused)?,
            proxy,
            tokens,
            fingerprint: fingerprint.finalize(),
            secret: source.secret.as_ref().map(|document| document.key.clone()),
            remake: credentials.from_files.then(|| source.clone()),
        })
    }

    fn credentials(&self, document: &Document) -> Result<Credentials, credentials::CredentialsError> {
        let files =
            if document.origin.may_name_files() { FileAccess::Any } else { FileAccess::Below(&self.file_folders) };
        credentials::parse(document.spec.get(), &self.secrets, files)
    }

    async fn read(&self, key: &Key) -> Result<Option<Document>, ProxyError> {
        self.store.get(key).await.map_err(|error| match error {
            StoreError::Unavailable(detail) => ProxyError::StoreUnavailable(detail),
            other => ProxyError::Failed(other.to_string()),
        })
    }
}

#[cfg(test)]
mod tests;
