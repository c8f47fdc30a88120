//! The first user: created from mounted files when absent. What the user changes later wins; nothing is ever overwritten.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::config::InitialAdmin;
use crate::domain::document::{Envelope, Key};
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::service::resources::Resources;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Creates the user, trying again until the store and the files are there.
pub async fn run(resources: Arc<Resources>, metrics: Arc<Metrics>, config: InitialAdmin, stop: CancellationToken) {
    let mut pause = FIRST_PAUSE;
    loop {
        match ensure(&resources, &config).await {
            Ok(()) => {
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

/// Creates the user when absent. Several pods may do so at once: one wins, the others find it there.
async fn ensure(resources: &Resources, config: &InitialAdmin) -> Result<(), String> {
    let name = read(&config.username_file).await?;
    match resources.load(&Key::global(Kind::User, resources.fold(&name))).await {
        Ok(_) => return Ok(()),
        Err(ApiError::NotFound) => {}
        Err(error) => return Err(describe(&error)),
    }
    let password = read(&config.password_file).await?;
    let envelope: Envelope = serde_json::from_value(json!({
        "kind": "User",
        "metadata": {"name": name},
        "spec": {"nativeProvider": {"password": password}},
    }))
    .map_err(|error| error.to_string())?;
    match resources.create(Kind::User, None, envelope).await {
        Ok(_) => {
            tracing::info!(user = name, "created the first user");
            Ok(())
        }
        Err(ApiError::AlreadyExists) => Ok(()),
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
