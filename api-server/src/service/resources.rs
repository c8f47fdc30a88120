//! Reads and writes of documents: validate, seal secrets, write to the store, invalidate; read from the caches, else the store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;


use crate::audit;
use crate::auth::rbac::{Rbac, concerns};
use crate::auth::seal::Sealer;
use crate::cache::{DocumentCache, Encoded, Tier};
use crate::domain::audit::Verb;
use crate::domain::document::{Document, Draft, Envelope, Key, Origin};
use crate::domain::kind::Kind;
use crate::domain::lint::{Finding, Subject};
use crate::domain::spec;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::service::encode::{self, List, plugin_and_default};
use crate::service::envelope::{self, check_kind, check_name, check_tags, require_sane, required_spec, same_tags};
use crate::service::listing::list_within;
use crate::service::references::check_same_role;
use crate::service::validation::Checks;
use crate::store::{Change, ListQuery, Precondition, Store, StoreError};

/// How often [`Resources::apply`] looks again when another writer was quicker.
const APPLY_ATTEMPTS: usize = 5;

/// A document that was read, and where it came from.
#[derive(Debug, Clone)]
pub struct Read {
    /// The body and its validators.
    pub encoded: Encoded,
    /// The tier that had it; `None` is the store.
    pub tier: Option<Tier>,
}

/// A document that was written.
#[derive(Debug, Clone)]
pub struct Written {
    /// The body and its validators.
    pub encoded: Encoded,
    /// What is to be told about it.
    pub warnings: Vec<Finding>,
}

/// What [`Resources::apply`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The document was not there.
    Created,
    /// The document was another one.
    Updated,
    /// The document was already so; nothing was written.
    Unchanged,
}

/// Parameters of a list request.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Only this project.
    pub project: Option<String>,
    /// Only these projects, or what is in them: what the reader may see.
    pub within: Option<BTreeSet<String>>,
    /// Only names that start so.
    pub name_prefix: Option<String>,
    /// Specs are left out.
    pub metadata_only: bool,
    /// With `metadata_only`: all but `spec.display.name`.
    pub titles: bool,
    /// (Global) datasources only: exact kind of the plugin.
    pub plugin_kind: Option<String>,
    /// (Global) datasources only: `spec.default`.
    pub default: Option<bool>,
}

impl ListOptions {
    /// Whether it depends on the spec what is listed.
    pub(super) const fn by_spec(&self) -> bool {
        self.plugin_kind.is_some() || self.default.is_some()
    }
}

/// The documents of the server.
#[derive(Debug)]
pub struct Resources {
    store: Arc<dyn Store>,
    cache: Arc<DocumentCache>,
    sealer: Arc<Sealer>,
    metrics: Arc<Metrics>,
    rules: Arc<Checks>,
    case_sensitive: bool,
    /// Told of by the cache; waited for after what changes rights was written.
    rights: Option<Arc<Rbac>>,
}

impl Resources {
    /// Puts the parts together. Without `case_sensitive` names are lower-cased before they are used, as upstream does.
    pub fn new(
        store: Arc<dyn Store>,
        cache: Arc<DocumentCache>,
        sealer: Arc<Sealer>,
        metrics: Arc<Metrics>,
        rules: Arc<Checks>,
        case_sensitive: bool,
    ) -> Self {
        Self { store, cache, sealer, metrics, rules, case_sensitive, rights: None }
    }

    /// Answers writes of roles, bindings and users once they are in force here.
    #[must_use]
    pub fn with_rights(mut self, rights: Option<Arc<Rbac>>) -> Self {
        self.rights = rights;
        self
    }

    /// A name in the letter case of the store.
    pub fn fold(&self, name: &str) -> String {
        if self.case_sensitive { name.to_owned() } else { name.to_lowercase() }
    }

    /// Reads a document as it is sent to clients (secrets masked).
    pub async fn get(&self, key: &Key) -> Result<Read, ApiError> {
        let label = if key.kind == Kind::Dashboard { "dashboard" } else { "document" };
        if let Some((encoded, tier)) = self.cache.get(key).await {
            self.metrics.cache(label, tier.as_str(), "hit");
            return Ok(Read { encoded, tier: Some(tier) });
        }
        self.metrics.cache(label, "store", "miss");
        let started = Instant::now();
        let document = self.load(key).await?;
        let encoded = encode::body(&document);
        self.cache.fill(key, encoded.clone(), started).await;
        Ok(Read { encoded, tier: None })
    }

    /// Reads a document from the store as it is kept there (secrets sealed), past every cache.
    pub async fn load(&self, key: &Key) -> Result<Document, ApiError> {
        require_sane(key)?;
        if let Some(document) = self.store.get(key).await? {
            return Ok(document);
        }
        if let Some(project) = &key.project {
            self.require_project(project).await?;
        }
        Err(ApiError::NotFound)
    }

    /// Whether the project exists; 400 with upstream's text when not (percli matches its end).
    pub async fn require_project(&self, project: &str) -> Result<(), ApiError> {
        match Box::pin(self.get(&Key::global(Kind::Project, project))).await {
            Ok(_) => Ok(()),
            Err(ApiError::NotFound) => {
                Err(ApiError::BadRequest(format!("metadata.project \"{project}\" doesn't exist")))
            }
            Err(error) => Err(error),
        }
    }

    /// Lists documents as one JSON array.
    pub async fn list(&self, kind: Kind, options: &ListOptions) -> Result<List, ApiError> {
        let query = ListQuery {
            kind,
            project: options.project.clone(),
            name_prefix: options.name_prefix.clone(),
            metadata_only: options.metadata_only && !options.by_spec(),
        };
        let documents = list_within(&*self.store, &query, options.within.as_ref()).await?;
        Ok(List::new(documents, options))
    }

    /// Creates a document.
    pub async fn create(&self, kind: Kind, project: Option<&str>, envelope: Envelope) -> Result<Written, ApiError> {
        let draft = self.draft(kind, project, None, envelope)?;
        if let Some(project) = &draft.key.project {
            self.require_project(project).await?;
        }
        let (draft, warnings) = self.prepare(draft, None).await?;
        let document = self.store.create(draft).await?;
        self.written(&document).await;
        Ok(Written { encoded: encode::body(&document), warnings })
    }

    /// Replaces a document.
    pub async fn update(&self, key: &Key, envelope: Envelope, precondition: Precondition) -> Result<Written, ApiError> {
        require_sane(key)?;
        let draft = self.draft(key.kind, key.project.as_deref(), Some(&key.name), envelope)?;
        let needs_stored = key.kind.holds_secrets() || key.kind.is_binding();
        let stored = if needs_stored { Some(self.store.get(key).await?.ok_or(ApiError::NotFound)?) } else { None };
        let (draft, warnings) = self.prepare(draft, stored.as_ref()).await?;
        let document = self.store.update(draft, precondition).await?;
        self.written(&document).await;
        Ok(Written { encoded: encode::body(&document), warnings })
    }

    /// Deletes a document; of a project also everything in it.
    pub async fn delete(&self, key: &Key) -> Result<(), ApiError> {
        self.delete_if(key, Precondition::None).await
    }

    /// As [`Self::delete`], under a condition.
    pub async fn delete_if(&self, key: &Key, precondition: Precondition) -> Result<(), ApiError> {
        require_sane(key)?;
        let changes = self.store.delete_if(key, precondition).await?;
        audit::wrote(Verb::Delete, key, None);
        self.changed(&changes).await;
        Ok(())
    }

    /// The store, for what has no use case of its own here.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Checks a document without writing it (`/api/validate/*`): the project may be empty. Returns what is to be told about it.
    pub async fn validate(&self, kind: Kind, envelope: Envelope) -> Result<Vec<Finding>, ApiError> {
        check_kind(kind, &envelope.kind)?;
        let spec = required_spec(envelope.spec)?;
        check_name(kind, &envelope.metadata.name)?;
        let tags = check_tags(envelope.metadata.tags.unwrap_or_default())?;
        let checked = spec::check(kind, &spec).map_err(|error| ApiError::BadRequest(error.to_string()))?;
        let project = self.fold(&envelope.metadata.project);
        let project = (!project.is_empty()).then_some(&*project);
        let subject = Subject { kind, project, name: &envelope.metadata.name, tags: &tags, spec: &checked.value };
        self.rules.check(&*self.store, &subject).await
    }

    /// Envelope and path become a draft.
    fn draft(
        &self,
        kind: Kind,
        project: Option<&str>,
        path_name: Option<&str>,
        envelope: Envelope,
    ) -> Result<Draft, ApiError> {
        let draft = envelope::draft(kind, project, path_name, envelope, |name| self.fold(name))?;
        audit::about(&draft.key);
        Ok(draft)
    }

    /// Makes a document as the envelope says: creates it, updates it when spec or tags differ, else writes nothing. Another
    /// writer in between is no error: the stored document is read and compared again.
    pub async fn apply(&self, envelope: Envelope, origin: Origin) -> Result<Applied, ApiError> {
        let kind = Kind::parse(&envelope.kind)
            .ok_or_else(|| ApiError::BadRequest(format!("kind: {:?} is not a kind of this server", envelope.kind)))?;
        let mut wanted = self.draft(kind, None, None, envelope)?;
        wanted.origin = origin;
        let (wanted, warnings) = self.normalise(wanted).await?;
        let mut last = ApiError::AlreadyExists;
        for _ in 0..APPLY_ATTEMPTS {
            let stored = self.store.get(&wanted.key).await?;
            let written = match &stored {
                None => {
                    if let Some(project) = &wanted.key.project {
                        self.require_project(project).await?;
                    }
                    self.store.create(self.seal(wanted.clone(), None).await?).await
                }
                Some(stored) => {
                    // A client's secret becomes the administrator's, with the right to name files.
                    let promoted =
                        kind.holds_secrets() && wanted.origin.may_name_files() && !stored.origin.may_name_files();
                    if !promoted
                        && same_tags(&wanted.tags, &stored.tags)
                        && self.sealer.same(kind, &wanted.spec, stored.spec.raw()).await
                    {
                        return Ok(Applied::Unchanged);
                    }
                    check_same_role(kind, &wanted.spec, stored.spec.raw())?;
                    let draft = self.seal(wanted.clone(), Some(stored)).await?;
                    self.store.update(draft, Precondition::Version(stored.version)).await
                }
            };
            match written {
                Ok(document) => {
                    self.written(&document).await;
                    log_warnings(&wanted.key, &warnings);
                    return Ok(if stored.is_some() { Applied::Updated } else { Applied::Created });
                }
                Err(
                    error @ (StoreError::AlreadyExists | StoreError::NotFound | StoreError::VersionConflict { .. }),
                ) => {
                    last = error.into();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(last)
    }

    /// Validates the spec, fills upstream's defaults in, seals secrets.
    async fn prepare(&self, draft: Draft, stored: Option<&Document>) -> Result<(Draft, Vec<Finding>), ApiError> {
        let (draft, warnings) = self.normalise(draft).await?;
        if let Some(stored) = stored {
            check_same_role(draft.key.kind, &draft.spec, stored.spec.raw())?;
        }
        Ok((self.seal(draft, stored).await?, warnings))
    }

    /// A draft of a global document, ready to be written.
    pub(super) async fn prepared(&self, kind: Kind, envelope: Envelope) -> Result<Draft, ApiError> {
        Ok(self.prepare(self.draft(kind, None, None, envelope)?, None).await?.0)
    }

    /// Creates a project and what is in it, in one write.
    pub(super) async fn write_project(&self, project: Draft, contents: Vec<Draft>) -> Result<Encoded, ApiError> {
        let key = project.key.clone();
        let created = self.store.create_project(project, contents).await?;
        for document in &created {
            audit::wrote(Verb::Create, &document.key, Some(document.version));
        }
        let change = |one: &Document| Change { key: one.key.clone(), revision: one.revision, deleted: false };
        self.changed(&created.iter().map(change).collect::<Vec<_>>()).await;
        let project = created.iter().find(|document| document.key == key);
        project.map(encode::body).ok_or_else(|| ApiError::Internal(format!("{} was not created", key.path())))
    }

    /// Whether there is any document of a kind.
    pub async fn has_any(&self, kind: Kind) -> Result<bool, ApiError> {
        let query = ListQuery { kind, project: None, name_prefix: None, metadata_only: true };
        Ok(!self.store.list_primary(&query).await?.is_empty())
    }

    /// Validates the spec, alone and against the store, and fills upstream's defaults in. Also returns what is to be told.
    async fn normalise(&self, mut draft: Draft) -> Result<(Draft, Vec<Finding>), ApiError> {
        let kind = draft.key.kind;
        let checked = spec::check(kind, &draft.spec).map_err(|error| ApiError::BadRequest(error.to_string()))?;
        let Key { project, name, .. } = &draft.key;
        let subject = Subject { kind, project: project.as_deref(), name, tags: &draft.tags, spec: &checked.value };
        let warnings = self.rules.check(&*self.store, &subject).await?;
        if let Some(normalised) = checked.normalised {
            draft.spec = normalised;
        }
        if matches!(kind, Kind::Datasource | Kind::GlobalDatasource) {
            self.check_single_default(&draft).await?;
        }
        Ok((draft, warnings))
    }

    /// Encrypts or hashes what must not be stored in the clear.
    async fn seal(&self, mut draft: Draft, stored: Option<&Document>) -> Result<Draft, ApiError> {
        if draft.key.kind.holds_secrets() {
            let stored = stored.map(|document| document.spec.raw());
            let sealed = self.sealer.seal(draft.key.kind, &draft.spec, stored).await;
            draft.spec = sealed.map_err(|error| ApiError::BadRequest(error.to_string()))?;
        }
        Ok(draft)
    }

    /// At most one default datasource per kind of plugin and scope (Perses v0.54).
    async fn check_single_default(&self, draft: &Draft) -> Result<(), ApiError> {
        let Some((plugin, true)) = plugin_and_default(draft.spec.get()) else { return Ok(()) };
        let query = ListQuery {
            kind: draft.key.kind,
            project: draft.key.project.clone(),
            name_prefix: None,
            metadata_only: false,
        };
        let others = self.store.list_primary(&query).await?;
        let clash = others.iter().find(|other| {
            other.key != draft.key
                && plugin_and_default(other.spec.get()).is_some_and(|(kind, on)| on && kind == plugin)
        });
        clash.map_or(Ok(()), |other| {
            Err(ApiError::BadRequest(format!(
                "datasource {:?} cannot be a default {plugin:?} because there is already one defined named {:?}",
                draft.key.name, other.key.name
            )))
        })
    }

    /// Tells of a write of this process, and waits until the rights that it changes are in force.
    async fn changed(&self, changes: &[Change]) {
        self.cache.invalidate(changes).await;
        if let Some(rights) = &self.rights
            && changes.iter().any(|change| concerns(change.key.kind))
        {
            rights.settled().await;
        }
    }

    async fn written(&self, document: &Document) {
        let verb = if document.version == 0 { Verb::Create } else { Verb::Update };
        audit::wrote(verb, &document.key, Some(document.version));
        let change = Change { key: document.key.clone(), revision: document.revision, deleted: false };
        self.changed(&[change]).await;
        self.cache.fill(&document.key, encode::body(document), Instant::now()).await;
    }
}

/// Documents from files have no answer that could tell.
fn log_warnings(key: &Key, warnings: &[Finding]) {
    if let Some(first) = warnings.first() {
        tracing::warn!(kind = %key.kind, document = key.path(), findings = warnings.len(), %first, "written with findings");
    }
}
