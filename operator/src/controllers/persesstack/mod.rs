//! The PersesStack controller: watch -> observe -> validate -> size -> build -> apply -> status -> patch.
//!
//! Read [`reconcile`] first. This module holds the wiring: what is watched and which stack an event wakes.

mod admission;
pub mod build;
pub mod capabilities;
pub mod context;
pub mod crunchy;
pub mod crunchy_schema;
mod datasources;
mod enact;
pub mod exposure;
pub mod feasible;
mod frontends;
mod generated;
mod inputs;
mod job;
mod leave;
pub mod monitoring;
pub mod observe;
pub mod observed;
mod optional;
mod pem;
mod platform;
pub mod provider;
mod publish;
pub mod reasons;
pub mod reconcile;
pub mod references;
pub mod rotation;
pub mod sign_in;
pub mod status;
pub mod survey;
pub mod suspension;
pub mod turns;
pub mod validate;
pub mod waits;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, ResourceQuota, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, DeserializeGuard, NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use tokio_util::sync::CancellationToken;

use self::build::labels::{INSTANCE_KEY, MANAGED_BY, MANAGED_BY_KEY, NAMESPACE_KEY};
use self::context::Context;
use crate::api::GROUP;
use crate::api::v1alpha1::PersesStack;
use crate::leader::Chain;

/// The watched object; one that does not fit the type does not stop the watch.
type Stack = DeserializeGuard<PersesStack>;

/// Stacks that are reconciled at the same time.
const CONCURRENCY: u16 = 4;
/// A burst of events wakes a stack once.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// Runs the controller until `stop` is cancelled, then lets running reconciles end. Dropping the future ends them at once.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let watch = Watch { client: context.client.clone(), namespace: context.settings.watch_namespace.clone() };
    let controller = Controller::new(watch.api::<Stack>(), watcher::Config::default())
        .with_config(Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY))
        .graceful_shutdown_on(stop.clone().cancelled_owned());
    let store = controller.store();
    let controller = watch.children::<Deployment>(controller);
    let controller = watch.children::<StatefulSet>(controller);
    let controller = watch.children::<Service>(controller);
    let controller = watch.children::<ServiceAccount>(controller);
    let controller = watch.children::<PersistentVolumeClaim>(controller);
    let controller = watch.children::<Job>(controller);
    let controller = watch.children::<HorizontalPodAutoscaler>(controller);
    let controller = watch.children::<PodDisruptionBudget>(controller);
    let controller = watch.children::<ResourceQuota>(controller);
    let controller = watch.children::<NetworkPolicy>(controller);
    let controller = watch.children::<Ingress>(controller);
    let controller = controller.reconcile_on(optional::events(&context, &watch, store.clone()));
    // An API or an IngressClass that comes or goes can concern every stack.
    let controller = controller.reconcile_all_on(context.capabilities.changes());
    let classes = capabilities::cluster_events::<IngressClass>(context.client.clone(), |_| true);
    let controller = controller.reconcile_all_on(classes);
    // Every Secret, metadata only: those that specs refer to do not carry our labels.
    let shared = context.clone();
    let secrets = watch.api::<PartialObjectMeta<Secret>>();
    let controller = controller.watches(secrets, watcher::Config::default(), move |secret| {
        let mut woken = owners(secret.meta());
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        woken.extend(
            shared.references.to(&namespace, &name).iter().map(|stack| ObjectRef::new(stack).within(&namespace)),
        );
        woken
    });
    // Every ConfigMap likewise.
    let shared = context.clone();
    let config_maps = watch.api::<PartialObjectMeta<ConfigMap>>();
    let controller = controller.watches(config_maps, watcher::Config::default(), move |config_map| {
        let mut woken = owners(config_map.meta());
        let (namespace, name) = (config_map.namespace().unwrap_or_default(), config_map.name_any());
        woken.extend(
            shared.config_maps.to(&namespace, &name).iter().map(|stack| ObjectRef::new(stack).within(&namespace)),
        );
        woken
    });
    let controller = watch.bindings(controller);
    let outcomes = controller.run(reconcile::reconcile, error_policy, context.clone());
    tokio::select! {
        () = super::follow(outcomes, store, stop, &context.metrics) => {}
        () = context.capabilities.keep(&context.client) => {}
    }
}

/// Where to watch.
struct Watch {
    client: Client,
    namespace: Option<String>,
}

impl Watch {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Watches the metadata of our objects of one kind. Metadata is enough: any change of an object changes it.
    fn children<K>(&self, controller: Controller<Stack>) -> Controller<Stack>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Send + Sync + 'static,
    {
        controller.watches(self.api::<PartialObjectMeta<K>>(), ours(), |object| owners(object.meta()))
    }

    /// Watches the metadata of our bindings to cluster roles. An operator of some namespaces may not see them.
    fn bindings(&self, controller: Controller<Stack>) -> Controller<Stack> {
        if self.namespace.is_some() {
            return controller;
        }
        let api: Api<PartialObjectMeta<ClusterRoleBinding>> = Api::all(self.client.clone());
        controller.watches(api, ours(), |binding| {
            let label = |key: &str| binding.labels().get(key);
            let stack = label(INSTANCE_KEY).zip(label(NAMESPACE_KEY));
            stack.map(|(name, namespace)| ObjectRef::new(name).within(namespace))
        })
    }

    /// Metadata of the objects of an optional kind.
    fn optional(&self, resource: &ApiResource) -> Api<PartialObjectMeta<DynamicObject>> {
        let client = self.client.clone();
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, resource),
            None => Api::all_with(client, resource),
        }
    }
}

/// Our objects only.
fn ours() -> watcher::Config {
    watcher::Config::default().labels(&format!("{MANAGED_BY_KEY}={MANAGED_BY}"))
}

/// The stack that an object belongs to, by its controller reference, else by its labels. PURE.
fn owners(object: &ObjectMeta) -> Vec<ObjectRef<Stack>> {
    let Some(namespace) = &object.namespace else { return Vec::new() };
    let controller = object.owner_references.iter().flatten().find(|reference| {
        reference.controller == Some(true)
            && reference.kind == PersesStack::kind(&())
            && reference.api_version.split('/').next() == Some(GROUP)
    });
    let label = |key: &str| object.labels.as_ref().and_then(|labels| labels.get(key));
    let labelled = || label(INSTANCE_KEY).filter(|_| label(MANAGED_BY_KEY).is_some_and(|value| value == MANAGED_BY));
    let name = controller.map(|reference| &reference.name).or_else(labelled);
    name.map(|name| ObjectRef::new(name).within(namespace)).into_iter().collect()
}

/// A failed stack is tried again after a growing pause of its own.
#[expect(clippy::needless_pass_by_value, reason = "the signature is the controller's")]
fn error_policy(stack: Arc<Stack>, error: &reconcile::Error, context: Arc<Context>) -> Action {
    let key = (stack.namespace().unwrap_or_default(), stack.name_any());
    let wait = context.backoff.failed(key, rand::random());
    tracing::warn!(namespace = stack.namespace(), name = stack.name_any(), error = %Chain(error), ?wait, "reconcile failed");
    Action::requeue(wait)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    use super::*;

    fn names(object: &ObjectMeta) -> Vec<String> {
        owners(object).into_iter().map(|found| format!("{}/{}", found.namespace.unwrap(), found.name)).collect()
    }

    #[test]
    fn events_wake_the_owner() {
        let reference = OwnerReference {
            api_version: "persesstack.io/v1alpha1".to_owned(),
            kind: "PersesStack".to_owned(),
            name: "a".to_owned(),
            uid: "1".to_owned(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        let mut object = ObjectMeta { namespace: Some("n".to_owned()), ..ObjectMeta::default() };
        assert!(names(&object).is_empty());
        let labels = [(MANAGED_BY_KEY, MANAGED_BY), (INSTANCE_KEY, "b")];
        object.labels = Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        assert_eq!(names(&object), ["n/b"], "retained objects have labels only");
        object.owner_references = Some(vec![reference.clone()]);
        assert_eq!(names(&object), ["n/a"], "the reference wins");
        object.labels = None;
        assert_eq!(names(&object), ["n/a"]);
        object.owner_references = Some(vec![OwnerReference { kind: "ReplicaSet".to_owned(), ..reference }]);
        assert!(names(&object).is_empty());
    }
}
