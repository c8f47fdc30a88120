//! Brings documents into a store: what others need first, each with a result of its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::report::{Outcome, Report};
use super::source::Content;
use crate::auth::crypto::{CryptoError, SecretBox};
use crate::domain::document::{Document, Key, Origin, Spec};
use crate::domain::kind::Kind;
use crate::domain::{name, secret};
use crate::store::{Store, StoreError};

/// The keys of both sides.
pub(super) struct Keys {
    /// Of the source; that of the target when it is not given.
    pub(super) source: Option<SecretBox>,
    pub(super) target: SecretBox,
}

impl Keys {
    /// What one key encrypted, encrypted with the other. With one key for both the text stays as it is.
    fn reseal(&self, sealed: &str) -> Result<String, String> {
        let Some(source) = &self.source else {
            let found = self.target.decrypt(sealed).map(|_| sealed.to_owned());
            return found.map_err(|error| format!("{error}; give the source's key with --source-encryption-key-file"));
        };
        if source.is_same(&self.target) {
            return source.decrypt(sealed).map(|_| sealed.to_owned()).map_err(|error| error.to_string());
        }
        let reseal = || -> Result<String, CryptoError> { self.target.encrypt(&source.decrypt(sealed)?) };
        reseal().map_err(|error| error.to_string())
    }
}

/// An import that is under way.
pub(super) struct Importer {
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Keys,
    /// Names become lower case.
    pub(super) fold: bool,
    pub(super) overwrite: bool,
    pub(super) dry_run: bool,
}

impl Importer {
    /// Brings everything in. Only a store that is away ends it early.
    pub(super) async fn run(&self, content: Content) -> Result<Report, String> {
        let mut report = Report { dry_run: self.dry_run, ..Report::default() };
        report.failed.extend(content.unreadable);
        let mut documents = content.documents;
        documents.sort_by_cached_key(|document| (rank(document.key.kind), document.key.clone()));
        let mut projects: BTreeSet<String> = BTreeSet::new();
        for mut document in documents {
            self.rename(&mut document.key);
            let (key, place) = (document.key.clone(), format!("{} {}", document.key.kind, document.key.path()));
            if let Err(error) = sane(&key) {
                report.count(key.kind, Outcome::Failed);
                report.failed.push(format!("{place}: {error}"));
                continue;
            }
            match self.bring(document, content.masked, &projects).await {
                Ok((outcome, missing)) => {
                    report.count(key.kind, outcome);
                    if outcome == Outcome::Skipped {
                        report.skipped.push(place.clone());
                    } else if !missing.is_empty() {
                        report.reenter.push(format!("{place}: {}", missing.join(", ")));
                    }
                    if key.kind == Kind::Project {
                        projects.insert(key.name);
                    }
                }
                Err(Failure::Away(reason)) => {
                    return Err(format!("{place}: {reason}; what came before it is there, run the import again"));
                }
                Err(Failure::Refused(reason)) => {
                    report.count(key.kind, Outcome::Failed);
                    report.failed.push(format!("{place}: {reason}"));
                }
            }
        }
        Ok(report)
    }

    fn rename(&self, key: &mut Key) {
        if self.fold {
            key.name = key.name.to_lowercase();
            key.project = key.project.take().map(|project| project.to_lowercase());
        }
    }

    async fn bring(
        &self,
        mut document: Document,
        masked: bool,
        projects: &BTreeSet<String>,
    ) -> Result<(Outcome, Vec<String>), Failure> {
        // Users of the other Perses may have written what its folder or database holds: as here through the API.
        if document.origin == Origin::Administrator {
            document.origin = Origin::Api;
        }
        let stored = self.store.get(&document.key).await?;
        let mut missing = Vec::new();
        let kind = document.key.kind;
        if masked {
            let spec = secret::unmask(kind, document.spec.raw(), stored.as_ref().map(|stored| stored.spec.raw()));
            let (spec, masked) = spec.map_err(|error| Failure::Refused(error.to_string()))?;
            (document.spec, missing) = (spec.into(), masked);
        } else {
            let spec = secret::reseal(kind, document.spec.raw(), |sealed| self.keys.reseal(sealed));
            document.spec = spec.map_err(|error| Failure::Refused(error.to_string()))?.into();
        }
        let outcome = match &stored {
            None => Outcome::Created,
            Some(stored) if self.same(&document, stored) => return Ok((Outcome::Unchanged, Vec::new())),
            Some(_) if !self.overwrite => return Ok((Outcome::Skipped, Vec::new())),
            Some(_) => Outcome::Updated,
        };
        if self.dry_run {
            if let Some(project) = &document.key.project
                && !projects.contains(project)
                && self.store.get(&Key::global(Kind::Project, project)).await?.is_none()
            {
                return Err(StoreError::ProjectMissing(project.clone()).into());
            }
        } else {
            self.store.put(document).await?;
        }
        Ok((outcome, missing))
    }

    /// Secrets are compared in the clear; times and versions do not matter.
    fn same(&self, document: &Document, stored: &Document) -> bool {
        let open = |sealed: &str| String::from_utf8(self.keys.target.decrypt(sealed).ok()?).ok();
        let value = |document: &Document| -> Option<Value> {
            let opened: Spec = match document.key.kind {
                Kind::Secret | Kind::GlobalSecret => secret::open_secret(document.spec.raw(), open).ok()?.into(),
                _ => document.spec.clone(),
            };
            serde_json::from_str(opened.get()).ok()
        };
        let tags = |document: &Document| document.tags.iter().cloned().collect::<BTreeSet<_>>();
        tags(document) == tags(stored) && value(document).is_some_and(|spec| Some(spec) == value(stored))
    }
}

/// Why a document is not there.
enum Failure {
    Away(String),
    Refused(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(reason) => Self::Away(reason),
            error => Self::Refused(error.to_string()),
        }
    }
}

fn sane(key: &Key) -> Result<(), String> {
    name::validate(&key.name).map_err(|error| format!("metadata.name: {error}"))?;
    match &key.project {
        Some(project) => name::validate(project).map_err(|error| format!("metadata.project: {error}")),
        None => Ok(()),
    }
}

/// Projects first: the rest is in them.
const fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::Project => 0,
        _ => 1,
    }
}
