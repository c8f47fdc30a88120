//! Runs the operator: election, controller, shutdown.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::admin::Readiness;
use crate::controllers::persesdev::{self, Pace, Sync, server::Addresses};
use crate::controllers::persesstack::{self, context::Context};
use crate::leader::{Chain, Elector, Timing};
use crate::metrics::Metrics;
use crate::settings::Settings;

/// Name of the lease.
pub const LEASE: &str = "persesstack-operator";

/// Everything that the operator needs to run.
pub struct Manager {
    /// Connection.
    pub client: kube::Client,
    /// Settings.
    pub settings: Settings,
    /// Counters.
    pub metrics: Metrics,
    /// Readiness of the process.
    pub readiness: Readiness,
    /// Unique name of this process: the pod's name.
    pub identity: String,
    /// Periods of the election; `None` runs without one (a single process, tests).
    pub election: Option<Timing>,
    /// Where the servers of stacks answer; tests run them elsewhere than in pods.
    pub addresses: Addresses,
}

impl Manager {
    /// Runs until `stop` is cancelled. Running reconciles end first; the lease is given up.
    ///
    /// A process that loses the lease stops acting at once and stands for election again.
    pub async fn run(self, stop: CancellationToken) {
        let Some(timing) = self.election else {
            self.readiness.set(true);
            self.control(stop).await;
            return;
        };
        let elector = Elector::new(self.client.clone(), &self.settings.namespace, LEASE, &self.identity, timing);
        // A process that waits for the lease is ready: it would take over.
        self.readiness.set(true);
        loop {
            let term = tokio::select! {
                () = stop.cancelled() => return,
                term = elector.acquire() => term,
            };
            tracing::info!(identity = self.identity, "leading");
            self.metrics.leads(true);
            let stopped = tokio::select! {
                // Dropping `control` ends its reconciles at their next step.
                () = elector.hold(term) => false,
                () = self.control(stop.clone()) => true,
            };
            self.metrics.leads(false);
            if stopped {
                if let Err(error) = elector.release().await {
                    tracing::warn!(error = %Chain(&error), "cannot give up the lease; it expires by itself");
                }
                return;
            }
            tracing::warn!(identity = self.identity, "no longer leading");
        }
    }

    async fn control(&self, stop: CancellationToken) {
        let (client, settings) = (self.client.clone(), self.settings.clone());
        // Memories of an earlier term are not taken over: others have acted since.
        let context = Context::new(client.clone(), settings.clone(), self.metrics.clone(), &self.identity);
        let sync = Sync {
            client,
            settings,
            metrics: self.metrics.clone(),
            identity: self.identity.clone(),
            addresses: self.addresses.clone(),
            pace: Pace::default(),
        };
        let stacks = persesstack::run(Arc::new(context), stop.clone());
        tokio::join!(stacks, Box::pin(persesdev::run(sync, stop)));
    }
}
