//! The first user: created from mounted files when absent. What the user changes later wins; nothing is ever overwritten.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::auth::password::{PasswordError, Passwords};
use crate::config::InitialAdmin;
use crate::domain::document::{Draft, Envelope, Key};
use crate::domain::kind::Kind;
use crate::domain::secret;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::service::resources::Resources;
use crate::store::{Precondition, Store, StoreError};

/// Name of the global role that allows everything, and of the binding of the first user to it.
const ADMIN: &str = "admin";
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Creates the user, trying again until the store and the files are there.
///
/// With `with_roles` the user is made a full administrator by the global role and binding `admin`.
pub async fn run(
    resources: Arc<Resources>,
    metrics: Arc<Metrics>,
    config: InitialAdmin,
    with_roles: bool,
    stop: CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        match ensure(&resources, &config, with_roles).await {
            Ok(_) => {
                metrics.initial_admin_exists.set(1);
                return;
            }
            Err(reason) => tracing::warn!(reason, retry_seconds = pause.as_secs(), "the first user is not there yet"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
}

/// Creates the user when absent, and says whether it did. Several pods may do so at once: one wins, the others find it
/// there.
///
/// The binding comes first, so that the user is never there without it, whenever this is cut short. Of a user who is there
/// already nothing is changed, but for one thing: without any global binding nobody could ever give rights (a server from
/// before there were roles, or somebody deleted the last one), so the first user gets the binding back.
///
/// # Errors
/// What a later attempt may cure, in words: a file or the store is not there yet.
pub async fn ensure(resources: &Resources, config: &InitialAdmin, with_roles: bool) -> Result<bool, String> {
    let name = resources.fold(&read(&config.username_file).await?);
    let exists = match resources.load(&Key::global(Kind::User, &*name)).await {
        Ok(_) => true,
        Err(ApiError::NotFound) => false,
        Err(error) => return Err(describe(&error)),
    };
    if with_roles && (!exists || !resources.has_any(Kind::GlobalRoleBinding).await.map_err(|error| describe(&error))?) {
        create(resources, Kind::GlobalRole, ADMIN, json!({"permissions": [{"actions": ["*"], "scopes": ["*"]}]}))
            .await?;
        let binding = json!({"role": ADMIN, "subjects": [{"kind": "User", "name": name}]});
        create(resources, Kind::GlobalRoleBinding, ADMIN, binding).await?;
    }
    if exists {
        return Ok(false);
    }
    let password = read(&config.password_file).await?;
    create(resources, Kind::User, &name, json!({"nativeProvider": {"password": password}})).await
}

/// Whether this is a password of the first user that counts beside the stored one, because it is being changed: one of the
/// files holds it, and the stored one is another of theirs. What the user has chosen instead ends all of them.
///
/// # Errors
/// The hashes cannot be compared.
pub async fn counts_meanwhile(
    config: &InitialAdmin,
    passwords: &Passwords,
    sent: &str,
    hash: Option<&str>,
) -> Result<bool, PasswordError> {
    let Some(hash) = hash else { return Ok(false) };
    let known = files(config).await;
    if !known.iter().any(|known| same(known, sent)) {
        return Ok(false);
    }
    for other in known.into_iter().filter(|known| !same(known, sent)) {
        if passwords.verify(other, Some(hash.to_owned())).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `login` is the first user's.
pub async fn is_first(config: &InitialAdmin, login: &str, fold: impl Fn(&str) -> String) -> bool {
    !config.also_password_files.is_empty() && read(&config.username_file).await.is_ok_and(|name| fold(&name) == login)
}

/// The passwords in the files that can be read.
async fn files(config: &InitialAdmin) -> Vec<String> {
    let mut known = Vec::new();
    for path in std::iter::once(&config.password_file).chain(&config.also_password_files) {
        known.extend(read(path).await);
    }
    known
}

/// Compares digests: how long it takes tells nothing of the texts.
fn same(one: &str, other: &str) -> bool {
    blake3::hash(one.as_bytes()) == blake3::hash(other.as_bytes())
}

/// What came of [`renew`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// The stored password was one of `also_password_files`; it is that of `password_file` now.
    Changed,
    /// It was so already.
    Current,
    /// It is none of them: the user has chosen another one, which stays.
    Own,
    /// There is no such user, or it has no password here.
    Nobody,
}

impl std::fmt::Display for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Changed => "the first user's password is that of the file now",
            Self::Current => "the first user's password is that of the file already",
            Self::Own => "the first user has chosen another password, which stays",
            Self::Nobody => "there is no first user with a password",
        })
    }
}

/// Stores the password of `password_file` for the first user, when the stored one is one of `also_password_files`. It may run
/// beside servers, be interrupted, and be run again.
///
/// # Errors
/// A file cannot be read, or the store does not take it; in words.
pub async fn renew(store: &dyn Store, config: &InitialAdmin, case_sensitive: bool) -> Result<Renewed, String> {
    let passwords = Passwords::default();
    let name = read(&config.username_file).await?;
    let name = if case_sensitive { name } else { name.to_lowercase() };
    let password = read(&config.password_file).await?;
    let key = Key::global(Kind::User, &*name);
    loop {
        let Some(stored) = store.get(&key).await.map_err(|error| error.to_string())? else {
            return Ok(Renewed::Nobody);
        };
        let Some(hash) = secret::password_hash(stored.spec.raw()) else { return Ok(Renewed::Nobody) };
        let is = async |password: String| {
            passwords.verify(password, Some(hash.clone())).await.map_err(|error| error.to_string())
        };
        if is(password.clone()).await? {
            return Ok(Renewed::Current);
        }
        let mut was_ours = false;
        for path in &config.also_password_files {
            was_ours = was_ours || is(read(path).await?).await?;
        }
        if !was_ours {
            return Ok(Renewed::Own);
        }
        let hash = passwords.hash(password.clone()).await.map_err(|error| error.to_string())?;
        let spec = serde_json::from_str(stored.spec.raw().get()).map_err(|error| error.to_string())?;
        let spec = secret::with_password_hash(spec, hash).map_err(|error| error.to_string())?;
        let draft = Draft { key: key.clone(), tags: stored.tags, spec, origin: stored.origin };
        match store.update(draft, Precondition::Version(stored.version)).await {
            Ok(_) => return Ok(Renewed::Changed),
            // Somebody else wrote it meanwhile: look again.
            Err(StoreError::VersionConflict { .. } | StoreError::NotFound) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Creates a document unless there is one of that name, which wins; says whether it did.
async fn create(resources: &Resources, kind: Kind, name: &str, spec: Value) -> Result<bool, String> {
    let envelope = json!({"kind": kind.as_str(), "metadata": {"name": name}, "spec": spec});
    let envelope: Envelope = serde_json::from_str(&envelope.to_string()).map_err(|error| error.to_string())?;
    match resources.create(kind, None, envelope).await {
        Ok(_) => {
            tracing::info!(%kind, name, "created for the first user");
            Ok(true)
        }
        Err(ApiError::AlreadyExists) => Ok(false),
        Err(error) => Err(describe(&error)),
    }
}

/// The file's text without the line end that editors leave.
async fn read(path: &Path) -> Result<String, String> {
    let text =
        tokio::fs::read_to_string(path).await.map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() { Err(format!("{} is empty", path.display())) } else { Ok(text.to_owned()) }
}

fn describe(error: &ApiError) -> String {
    error.detail().map_or_else(|| error.to_string(), |detail| format!("{error}: {detail}"))
}
