//! `secrets re-encrypt`: after a change of keys everything is sealed with the current one, and the old can be thrown away.

use std::fmt;
use std::sync::Arc;

use clap::Args;

use crate::auth::crypto::{CryptoError, SecretBox};
use crate::config::Config;
use crate::domain::document::{Document, Draft, Key};
use crate::domain::kind::Kind;
use crate::domain::secret;
use crate::state;
use crate::store::{ListQuery, Precondition, Store, StoreError};

/// How often a secret is read again that somebody else wrote meanwhile.
const ATTEMPTS: usize = 5;

/// Flags of `secrets re-encrypt`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ReEncryptOptions {
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Nothing was written.
    pub dry_run: bool,
    /// Documents that were of another key or form, as `Kind project/name`.
    pub changed: Vec<String>,
    /// Documents that were of the current key already.
    pub current: usize,
    /// What could not be encrypted anew, with the reason.
    pub failed: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dry_run {
            writeln!(f, "dry run: nothing was written")?;
        }
        let (changed, failed) = (self.changed.len(), self.failed.len());
        writeln!(
            f,
            "{changed} secrets encrypted anew, {} were of the current key already, {failed} failed",
            self.current
        )?;
        for (title, lines) in [("encrypted anew", &self.changed), ("failed", &self.failed)] {
            if !lines.is_empty() {
                writeln!(f, "\n{title}:")?;
                lines.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
            }
        }
        if failed == 0 && !self.dry_run {
            writeln!(f, "\nNothing in this store needs security.previous_encryption_key_files any more.")?;
        }
        Ok(())
    }
}

/// Encrypts with the current key what is not. One write for each document, only when nobody else wrote it meanwhile; so it
/// may run beside servers (with PostgreSQL), be interrupted, and be run again. Servers must know the current key already.
///
/// # Errors
/// The configuration or the store cannot be used; what was written until then stays.
pub async fn re_encrypt(config: &Config, options: &ReEncryptOptions) -> Result<Report, String> {
    let secrets = state::open_secrets(config)?;
    let store = state::open_store(config).map_err(|error| error.to_string())?;
    store.ready().await.map_err(|error| error.to_string())?;
    let mut report = Report { dry_run: options.dry_run, ..Report::default() };
    for kind in [Kind::GlobalSecret, Kind::Secret] {
        let query = ListQuery { kind, project: None, name_prefix: None, metadata_only: false };
        for document in store.list_primary(&query).await.map_err(|error| error.to_string())? {
            let place = format!("{kind} {}", document.key.path());
            match one(&store, &secrets, document, options.dry_run).await {
                Ok(true) => report.changed.push(place),
                Ok(false) => report.current += 1,
                Err(Failure::Away(reason)) => {
                    return Err(format!("{place}: {reason}; what came before it is done, run the command again"));
                }
                Err(Failure::Refused(reason)) => report.failed.push(format!("{place}: {reason}")),
            }
        }
    }
    Ok(report)
}

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

/// Whether the document was of another key. One that is deleted meanwhile needs nothing any more.
async fn one(store: &Arc<dyn Store>, secrets: &SecretBox, document: Document, dry_run: bool) -> Result<bool, Failure> {
    let key: Key = document.key.clone();
    let mut next = Some(document);
    for _ in 0..ATTEMPTS {
        let Some(stored) = next.take() else { return Ok(false) };
        let spec = secret::reseal(key.kind, stored.spec.raw(), |sealed| {
            if secrets.is_current(sealed) {
                return Ok::<_, CryptoError>(sealed.to_owned());
            }
            secrets.encrypt(&secrets.decrypt_surely(sealed)?)
        });
        let spec = spec.map_err(|error| Failure::Refused(error.to_string()))?;
        if spec.get() == stored.spec.get() {
            return Ok(false);
        }
        if dry_run {
            return Ok(true);
        }
        let draft = Draft { key: key.clone(), tags: stored.tags, spec, origin: stored.origin };
        match store.update(draft, Precondition::Version(stored.version)).await {
            Ok(_) => return Ok(true),
            Err(StoreError::VersionConflict { .. } | StoreError::NotFound) => next = store.get(&key).await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::Refused("somebody else writes it all the time; run the command again".to_owned()))
}
