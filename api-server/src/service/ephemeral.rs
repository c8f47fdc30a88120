//! Ephemeral dashboards whose time is over are deleted: every `ephemeral_dashboard.cleanup_interval`, by one server. Until
//! then they are served, as upstream does.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::domain::document::Document;
use crate::domain::duration;
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::service::resources::Resources;
use crate::store::{ListQuery, Precondition};

/// The lease of a round. It is never given back: whoever gets it has the round, and the next one is due when it is over.
const LEASE: &str = "ephemeral-cleanup";
/// How often a server asks for the lease, at least.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Cleans up until it is told to stop. `holder` names this process.
pub async fn run(resources: Arc<Resources>, interval: Duration, holder: String, stop: CancellationToken) {
    let pause = (interval / 10).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    let mut round = 0_u64;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>())) => {}
        }
        round += 1;
        // Another name each time: one's own lease would be given again at once.
        match resources.store().lease(LEASE, &format!("{holder}/{round}"), interval).await {
            Ok(true) => match clean(&resources, Timestamp::now()).await {
                Ok(0) => {}
                Ok(deleted) => tracing::info!(deleted, "ephemeral dashboards whose time was over were deleted"),
                Err(error) => {
                    let detail = error.detail().unwrap_or_default();
                    tracing::warn!(%error, detail, "ephemeral dashboards could not be cleaned up; the next round will");
                }
            },
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the lease of the clean-up cannot be had"),
        }
    }
}

/// Deletes what is over at `now`; how many went. One that is written meanwhile stays: its time begins anew.
pub async fn clean(resources: &Resources, now: Timestamp) -> Result<usize, ApiError> {
    let query = ListQuery { kind: Kind::EphemeralDashboard, project: None, name_prefix: None, metadata_only: false };
    let mut deleted = 0;
    for document in resources.store().list(&query).await? {
        if !is_over(&document, now) {
            continue;
        }
        let state = Precondition::State { version: document.version, revision: document.revision };
        match resources.delete_if(&document.key, state).await {
            Ok(()) => deleted += 1,
            Err(ApiError::NotFound | ApiError::PreconditionFailed(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(deleted)
}

/// `updatedAt` and `spec.ttl` lie before `now`. A TTL that cannot be read never ends.
fn is_over(document: &Document, now: Timestamp) -> bool {
    #[derive(Deserialize)]
    struct Spec {
        ttl: String,
    }
    let Ok(Spec { ttl }) = serde_json::from_str(document.spec.get()) else { return false };
    let Ok(ttl) = duration::parse(&ttl) else { return false };
    document.updated_at.checked_add(ttl).is_ok_and(|end| end < now)
}
