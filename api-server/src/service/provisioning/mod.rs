//! Provisioning: resources in folders are applied at start, when a file changed and at every interval. Nothing is written
//! when nothing differs, and nothing is ever deleted. A bad document is reported and does not hold up the others.

pub(crate) mod files;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::files::{Entry, Scan};
use crate::config;
use crate::domain::document::Origin;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::service::resources::{Applied, Resources};

/// How often files are looked at. Kubernetes itself takes up to a minute to change a mounted Secret.
const POLL: Duration = Duration::from_secs(5);

/// Applies folders until it is told to stop.
#[derive(Debug)]
pub struct Provisioner {
    resources: Arc<Resources>,
    metrics: Arc<Metrics>,
    folders: Vec<PathBuf>,
    interval: Duration,
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
    /// Whether the store was away: the round is to be repeated soon.
    pub unavailable: bool,
}

impl Provisioner {
    /// For the folders of the configuration.
    pub fn new(resources: Arc<Resources>, metrics: Arc<Metrics>, config: &config::Provisioning) -> Self {
        Self { resources, metrics, folders: config.folders.clone(), interval: config.interval.0 }
    }

    /// Applies at start, on changes and at every interval.
    pub async fn run(self, stop: CancellationToken) {
        let mut applied: Option<(blake3::Hash, Instant)> = None;
        loop {
            if let Some(scan) = self.scan().await {
                let due = applied.is_none_or(|(hash, at)| hash != scan.hash || at.elapsed() >= self.interval);
                if due {
                    let hash = scan.hash;
                    let report = self.apply(scan).await;
                    applied = (!report.unavailable).then(|| (hash, Instant::now()));
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
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
        for Entry { place, envelope } in scan.entries {
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
        if report.created + report.updated > 0 {
            tracing::info!(created = report.created, updated = report.updated, "provisioned");
        }
        self.metrics.provisioning_errors.set(i64::try_from(report.errors.len()).unwrap_or(i64::MAX));
        report
    }
}
