//! What the reconciles of all kinds share.

use std::collections::BTreeMap;

use kube::Client;
use kube::api::DynamicObject;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt};
use tokio::sync::watch;

use super::Pace;
use super::kind::Kind;
use super::select::{Authority, Instance, Stack};
use super::server::Servers;
use crate::api::v1alpha1::{Auth, PersesStack, ServingTls};
use crate::backoff::Backoff;
use crate::conditions::is_true;
use crate::controllers::persesstack::status::condition::READY;
use crate::metrics::Metrics;

/// A watched stack; one that does not fit the type does not stop the watch.
pub(super) type WatchedStack = DeserializeGuard<PersesStack>;
/// A watched `Perses`.
pub(super) type WatchedInstance = PartialObjectMeta<DynamicObject>;

/// Kind, namespace and name of a resource.
pub(super) type SourceKey = (Kind, Option<String>, String);

/// Shared by all reconciles of one term.
pub(super) struct Context {
    /// Connection.
    pub(super) client: Client,
    /// Counters.
    pub(super) metrics: Metrics,
    /// Publishes events.
    pub(super) recorder: Recorder,
    /// Servers of the stacks.
    pub(super) servers: Servers,
    /// Failed attempts by resource.
    pub(super) backoff: Backoff<SourceKey>,
    /// The stacks.
    pub(super) stacks: Store<WatchedStack>,
    /// How often what is looked at.
    pub(super) pace: Pace,
    /// Instances of upstream's operator; `None` where its CRD is not installed.
    pub(super) instances: Option<Store<WatchedInstance>>,
    /// Whether the first lists of both are in.
    pub(super) listed: watch::Receiver<bool>,
}

impl Context {
    /// Waits until the first lists are in: before that a stack would look deleted, or an instance absent.
    pub(super) async fn ready(&self) {
        // A sender that is gone ends this term anyway.
        let _ = self.listed.clone().wait_for(|listed| *listed).await;
    }

    /// Tells all who wait in [`Self::ready`]. A store of kube 5 wakes only the last of the tasks that wait for it, so one waits.
    pub(super) async fn tell_when_listed(&self, listed: watch::Sender<bool>) {
        let _ = self.stacks.wait_until_ready().await;
        if let Some(instances) = &self.instances {
            let _ = instances.wait_until_ready().await;
        }
        listed.send_replace(true);
    }

    /// The stacks now.
    pub(super) fn stacks(&self) -> Vec<Stack> {
        let mut stacks: Vec<_> = self.stacks.state().iter().filter_map(|stack| summary(stack)).collect();
        stacks.sort();
        stacks
    }

    /// The instances of upstream's operator now.
    pub(super) fn instances(&self) -> Vec<Instance> {
        let instances = self.instances.as_ref().map(Store::state).unwrap_or_default();
        let mut instances: Vec<_> = instances.iter().map(|instance| instance_of(instance)).collect();
        instances.sort();
        instances
    }
}

/// A stack as far as the choice needs it; `None` while it is being deleted. One that cannot be decoded is not ready.
pub(super) fn summary(stack: &WatchedStack) -> Option<Stack> {
    let metadata = stack.meta();
    let status = stack.0.as_ref().ok().and_then(|stack| stack.status.as_ref());
    metadata.deletion_timestamp.is_none().then(|| Stack {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        labels: metadata.labels.clone().unwrap_or_default(),
        native: stack.0.as_ref().is_ok_and(|stack| signs_in_natively(&stack.spec.auth)),
        tls: stack.0.as_ref().ok().and_then(|stack| stack.spec.api.tls.as_ref()).map(authority),
        ready: status.is_some_and(|status| is_true(&status.conditions, READY)),
    })
}

fn signs_in_natively(auth: &Auth) -> bool {
    auth.kubernetes.is_none() && auth.native.unwrap_or_default().enabled
}

fn authority(tls: &ServingTls) -> Authority {
    tls.secret.as_ref().map_or(Authority::OpenShift, |secret| Authority::Secret(secret.name.clone()))
}

fn instance_of(instance: &WatchedInstance) -> Instance {
    let labels: BTreeMap<_, _> = instance.labels().clone();
    Instance { key: format!("{}/{}", instance.namespace().unwrap_or_default(), instance.name_any()), labels }
}
