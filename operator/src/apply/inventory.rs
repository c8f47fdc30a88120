//! What exists for a stack now (I/O): read from the API server, not from a cache, so that a decision to write or delete
//! is never made on an old picture.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::ApiResource;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::kind::Kind;
use super::{ApplyError, verb};
use crate::controllers::persesstack::build::labels::{
    COMPONENT_KEY, Component, INSTANCE_KEY, MANAGED_BY, MANAGED_BY_KEY,
};
use crate::controllers::persesstack::observed::{Availability, Capabilities};

/// Every object with the labels of one stack, by kind and name.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    objects: BTreeMap<(Kind, String), Value>,
    pods: BTreeMap<String, i32>,
}

impl Inventory {
    /// Lists every kind whose API is there. One failed list fails the whole: an incomplete inventory would look like
    /// deleted objects. Objects of an API that is [`Unknown`](Availability::Unknown) are not in it, so none of them can be
    /// taken for a leftover; an optional kind that may not be read becomes so.
    pub async fn read(
        client: &kube::Client,
        namespace: &str,
        stack: &str,
        capabilities: &mut Capabilities,
    ) -> Result<Self, ApplyError> {
        let selector = of_stack(stack);
        let there = Kind::all().filter(|kind| capabilities.of(*kind) == Availability::Present);
        let lists = there.map(|kind| {
            let selector = &selector;
            async move {
                match list(client, namespace, &kind.resource(), selector).await {
                    Ok(items) => Ok((kind, Some(items))),
                    Err(error) if kind.is_optional() && error.code() == Some(403) => {
                        tracing::warn!(%error, "may not be read");
                        Ok((kind, None))
                    }
                    Err(error) => Err(error),
                }
            }
        });
        let mut objects = BTreeMap::new();
        for (kind, items) in try_join_all(lists).await? {
            match items {
                Some(items) => objects.extend(items.into_iter().map(|(name, value)| ((kind, name), value))),
                None => capabilities.set(kind, Availability::Unknown),
            }
        }
        Ok(Self { objects, pods: BTreeMap::new() })
    }

    /// An object as the API server sent it.
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Value> {
        self.objects.get(&(kind, name.to_owned()))
    }

    /// An object as its type; `None` when it does not exist or does not fit the type.
    pub fn typed<T: DeserializeOwned>(&self, kind: Kind, name: &str) -> Option<T> {
        T::deserialize(self.get(kind, name)?).ok()
    }

    /// All objects of a kind with their names.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&str, &Value)> {
        self.iter().filter(move |(found, _, _)| *found == kind).map(|(_, name, value)| (name, value))
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &str, &Value)> {
        self.objects.iter().map(|((kind, name), value)| (*kind, name.as_str(), value))
    }

    /// Counts the pods of each component.
    pub fn count_pods(&mut self, pods: &[Value]) {
        for component in pods.iter().filter_map(component) {
            *self.pods.entry(component.to_owned()).or_default() += 1;
        }
    }

    /// How many pods of a component were counted.
    pub fn pods(&self, component: Component) -> i32 {
        self.pods.get(component.as_str()).copied().unwrap_or_default()
    }

    /// Adds an object, or replaces it by a newer state.
    pub fn insert(&mut self, kind: Kind, name: &str, value: Value) {
        self.objects.insert((kind, name.to_owned()), value);
    }
}

/// Pods of a stack that have not ended. Those that are about to end are among them, which the status of a workload leaves out.
pub async fn live_pods(client: &kube::Client, namespace: &str, stack: &str) -> Result<Vec<Value>, ApplyError> {
    let pods = list(client, namespace, &ApiResource::erase::<Pod>(&()), &of_stack(stack)).await?;
    let ended = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    Ok(pods.into_iter().map(|(_, pod)| pod).filter(|pod| !ended(pod)).collect())
}

/// The component that a pod is of.
pub fn component(pod: &Value) -> Option<&str> {
    pod["metadata"]["labels"][COMPONENT_KEY].as_str()
}

fn of_stack(stack: &str) -> ListParams {
    ListParams::default().labels(&format!("{INSTANCE_KEY}={stack},{MANAGED_BY_KEY}={MANAGED_BY}"))
}

/// Lists one kind; names and whole objects.
pub(super) async fn list(
    client: &kube::Client,
    namespace: &str,
    resource: &ApiResource,
    selector: &ListParams,
) -> Result<Vec<(String, Value)>, ApplyError> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    let list = api.list(selector).await.map_err(|source| ApplyError::new(&resource.kind, "", verb::LIST, source))?;
    list.items
        .into_iter()
        .map(|object| {
            let name = object.metadata.name.clone().unwrap_or_default();
            let value = serde_json::to_value(object).map_err(|source| {
                ApplyError::new(&resource.kind, &name, verb::LIST, kube::Error::SerdeError(source))
            })?;
            Ok((name, value))
        })
        .collect()
}
