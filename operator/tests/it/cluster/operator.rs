//! The operator under test, in this process, on a namespace of its own.

use kube::api::{Patch, PatchParams};
use persesstack_operator::admin::Readiness;
use persesstack_operator::client::fault::Faults;
use persesstack_operator::client::{ClientOptions, build};
use persesstack_operator::controllers::persesdev::server::services;
use persesstack_operator::manager::Manager;
use persesstack_operator::metrics::Metrics;
use persesstack_operator::settings::Settings;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{DEADLINE, STACK, Space, rights, within};

/// A running operator; dropping it is a crash.
pub(crate) struct Operator {
    /// Its writes, and what is done to them.
    pub(crate) faults: Faults,
    /// Its counters.
    pub(crate) metrics: Metrics,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Operator {
    /// Starts one with empty memories.
    pub(crate) fn start(space: &Space) -> Self {
        Self::with(space, Faults::none())
    }

    /// Starts one whose writes go through `faults`.
    pub(crate) fn with(space: &Space, faults: Faults) -> Self {
        Self::on(rights::of_the_operator(space.plane), space, faults)
    }

    /// Starts one that signs in as `config` says.
    pub(crate) fn on(config: kube::Config, space: &Space, faults: Faults) -> Self {
        Self::set_up(config, space, faults, Settings::default())
    }

    /// Starts one for every namespace of a cluster that no other test uses.
    pub(crate) fn everywhere(space: &Space) -> Self {
        Self::watching(None, space.plane.config(), space, Faults::none(), Settings::default())
    }

    /// Starts one with other settings than those of every test; its namespaces are set here.
    pub(crate) fn set_up(config: kube::Config, space: &Space, faults: Faults, settings: Settings) -> Self {
        Self::watching(Some(space.namespace.clone()), config, space, faults, settings)
    }

    fn watching(
        watch_namespace: Option<String>,
        config: kube::Config,
        space: &Space,
        faults: Faults,
        settings: Settings,
    ) -> Self {
        let options = ClientOptions {
            user_agent: format!("operator-of-{}", space.namespace),
            faults: Some(faults.clone()),
            ..ClientOptions::default()
        };
        let (metrics, stop) = (Metrics::new(), CancellationToken::new());
        let settings = Settings { watch_namespace, namespace: space.namespace.clone(), ..settings };
        let manager = Manager {
            client: build(config, &options).unwrap(),
            settings,
            metrics: metrics.clone(),
            readiness: Readiness::default(),
            identity: "test".to_owned(),
            election: None,
            addresses: services(),
        };
        let task = tokio::spawn(manager.run(stop.clone()));
        Self { faults, metrics, stop, task }
    }

    /// Ends it as SIGTERM does.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        (&mut self.task).await.unwrap();
    }

    /// Reconciles with this result so far.
    pub(crate) fn reconciles(&self, result: &str) -> u64 {
        let line = format!("persesstack_reconciles_total{{result=\"{result}\"}} ");
        let text = self.metrics.text();
        text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
    }

    /// Wakes it twice by a label on the stack, which gives it nothing to do, and waits until it has looked.
    pub(crate) async fn reconciled_again(&self, space: &Space) {
        for round in 0..2 {
            let patch = Patch::Merge(json!({"metadata": {"labels": {"round": round.to_string()}}}));
            tokio::join!(self.reconciled("ok"), async {
                space.stacks().patch(STACK, &PatchParams::default(), &patch).await.unwrap();
            });
        }
    }

    /// Waits for one more reconcile that ends with this result.
    pub(crate) async fn reconciled(&self, result: &str) {
        let before = self.reconciles(result);
        within("another reconcile", DEADLINE, async || (self.reconciles(result) > before).then_some(())).await;
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.task.abort();
    }
}
