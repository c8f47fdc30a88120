//! The first user: created from mounted files when absent. What the user changes later wins; nothing is ever overwritten.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::config::InitialAdmin;
use crate::domain::document::{Envelope, Key};
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::service::resources::Resources;

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
