//! Provisioning: resources in folders are applied at start, when a file changed and at every interval, by one server of all
//! on a store. Nothing is written when nothing differs. What left the folders is reported, and deleted only with
//! `provisioning.prune`. A bad document is reported and does not hold up the others.

pub mod files;
mod left;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::files::{Entry, Scan};
use crate::config;
use crate::domain::document::{Key, Origin};
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::service::resources::{Applied, Resources};

/// How often files are looked at. Kubernetes itself takes up to a minute to change a mounted Secret.
const POLL: Duration = Duration::from_secs(5);
/// Whoever has this lease applies; it is kept as long as its holder lives, so that servers with different folders (during a
/// roll) do not undo each other's work.
const LEASE: &str = "provisioning";
/// How long another server waits for a holder that died.
const LEASE_LIFE: Duration = Duration::from_secs(30);

/// Applies folders until it is told to stop.
#[derive(Debug)]
pub struct Provisioner {
    resources: Arc<Resources>,
    metrics: Arc<Metrics>,
    folders: Vec<PathBuf>,
    interval: Duration,
    prune: bool,
    /// This process, as the holder of the lease.
    holder: String,
}

/// What one round did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// Documents that were created.
    pub created: usize,
    /// Documents that were updated.
    pub updated: usize,
    /// Documents that were already as they should be.
    pub unchanged: usize,
    /// What was refused, with the place in the files.
    pub errors: Vec<String>,
    /// Documents that came from folders and are in none any more, as `Kind project/name`.
    pub left: Vec<String>,
    /// How many of them were deleted.
    pub pruned: usize,
    /// Whether the store was away: the round is to be repeated soon.
    pub unavailable: bool,
}

impl Provisioner {
    /// For the folders of the configuration.
    pub fn new(resources: Arc<Resources>, metrics: Arc<Metrics>, config: &config::Provisioning) -> Self {
        Self {
            resources,
            metrics,
            folders: config.folders.clone(),
            interval: config.interval.0,
            prune: config.prune,
            holder: format!("{:016x}", rand::random::<u64>()),
        }
    }

    /// Applies at start, on changes and at every interval.
    pub async fn run(self, stop: CancellationToken) {
        let mut applied: Option<(blake3::Hash, Instant)> = None;
        loop {
            if !self.leads().await {
                // Another server's folders may say something else: compare anew when it is this one's turn.
                applied = None;
            } else if let Some(scan) = self.scan().await {
                let due = applied.is_none_or(|(hash, at)| hash != scan.hash || at.elapsed() >= self.interval);
                if due {
                    let hash = scan.hash;
                    let report = self.apply(scan).await;
                    applied = (!report.unavailable).then(|| (hash, Instant::now()));
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(POLL) => {}
            }
        }
        // The next one need not wait until the lease is over.
        if let Err(error) = self.resources.store().release(LEASE, &self.holder).await {
            tracing::debug!(%error, "the lease of provisioning was not given back");
        }
    }

    /// Whether this server is the one that applies.
    async fn leads(&self) -> bool {
        match self.resources.store().lease(LEASE, &self.holder, LEASE_LIFE).await {
            Ok(leads) => leads,
            Err(error) => {
                tracing::debug!(%error, "the lease of provisioning cannot be had");
                false
            }
        }
    }

    /// One round now.
    pub async fn round(&self) -> Report {
        match self.scan().await {
            Some(scan) => self.apply(scan).await,
            None => Report { unavailable: true, ..Report::default() },
        }
    }

    async fn scan(&self) -> Option<Scan> {
        let folders = self.folders.clone();
        tokio::task::spawn_blocking(move || files::scan(&folders)).await.ok()
    }

    async fn apply(&self, scan: Scan) -> Report {
        let mut report = Report { errors: scan.errors, ..Report::default() };
        let wanted = left::keys(&self.resources, &scan.entries);
        let mut renewed = Instant::now();
        for Entry { place, envelope } in scan.entries {
            // A long round must not outlive the lease.
            if renewed.elapsed() > LEASE_LIFE / 3 {
                self.leads().await;
                renewed = Instant::now();
            }
            let what = format!("{} {}", envelope.kind, envelope.metadata.name);
            match self.resources.apply(envelope, Origin::Provisioned).await {
                Ok(Applied::Created) => report.created += 1,
                Ok(Applied::Updated) => report.updated += 1,
                Ok(Applied::Unchanged) => report.unchanged += 1,
                Err(ApiError::Unavailable(reason)) => {
                    tracing::warn!(reason, "provisioning waits for the store");
                    report.unavailable = true;
                    return report;
                }
                Err(error) => {
                    let detail = error.detail().unwrap_or_default();
                    report.errors.push(format!("{place} ({what}): {error} {detail}").trim_end().to_owned());
                }
            }
        }
        for error in &report.errors {
            tracing::warn!(error, "a provisioned document was refused");
        }
        // A folder that could not be read whole says nothing about what is gone.
        let complete = report.errors.is_empty();
        match left::find(&self.resources, &wanted).await {
            Ok(left) => self.settle(left, complete, &mut report).await,
            Err(ApiError::Unavailable(_)) => report.unavailable = true,
            Err(error) => tracing::warn!(%error, "what left the provisioning folders cannot be told"),
        }
        if report.created + report.updated > 0 {
            tracing::info!(created = report.created, updated = report.updated, "provisioned");
        }
        self.metrics.provisioning_errors.set(i64::try_from(report.errors.len()).unwrap_or(i64::MAX));
        report
    }

    /// Deletes what left the folders, or reports it.
    async fn settle(&self, left: Vec<Key>, complete: bool, report: &mut Report) {
        let mut stays = 0_i64;
        for key in left {
            let text = format!("{} {}", key.kind, key.path());
            if complete && self.prune && left::is_alone(&self.resources, &key).await {
                match self.resources.delete(&key).await {
                    Ok(()) | Err(ApiError::NotFound) => {
                        tracing::info!(document = text, "deleted: it left the provisioning folders");
                        report.pruned += 1;
                        report.left.push(text);
                        continue;
                    }
                    Err(error) => {
                        let detail = error.detail().unwrap_or_default();
                        tracing::warn!(document = text, %error, detail, "a document that left the folders cannot be deleted");
                    }
                }
            } else {
                tracing::warn!(document = text, "left the provisioning folders; it stays until somebody deletes it");
            }
            stays += 1;
            report.left.push(text);
        }
        self.metrics.provisioning_left.set(stays);
    }
}
