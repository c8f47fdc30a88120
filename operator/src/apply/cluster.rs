//! ClusterRoleBindings of a stack, and the finalizer of the stack that stands for them (I/O).
//!
//! Nothing in a namespace can own them, so no garbage collector removes them. A stack gets the finalizer before its first
//! binding is made and loses it after the last one is gone; so a crash in between leaves nothing behind that nobody removes.
//! Whose a binding is its labels say: operator, stack and namespace. One of somebody else's is reported and left alone.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::ApiResource;
use serde_json::{Value, json};

use super::compare::difference;
use super::owner::{StackId, terminating};
use super::ssa::{Applier, Outcome};
use super::{ApplyError, FIELD_MANAGER, verb};
use crate::api::v1alpha1::PersesStack;
use crate::controllers::persesstack::build::labels::{INSTANCE_KEY, MANAGED_BY, MANAGED_BY_KEY, NAMESPACE_KEY};
use crate::controllers::persesstack::observed::ForeignObject;

/// On a stack that may have bindings.
pub const FINALIZER: &str = "persesstack.io/cluster-role-bindings";

/// Kind of a binding to a cluster role.
pub const KIND: &str = "ClusterRoleBinding";

/// The bindings of one stack as last read, and the stack's finalizers.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    found: BTreeMap<String, Value>,
    finalizers: Vec<String>,
    version: Option<String>,
    /// The operator may not read them: it was installed for some namespaces only.
    pub forbidden: bool,
}

/// Whether the stack may have bindings.
pub fn holds_bindings(stack: &PersesStack) -> bool {
    stack.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

impl Bindings {
    /// Reads the bindings with these names; none of them when there are no names.
    ///
    /// # Errors
    /// A failed read, other than one that is not allowed.
    pub async fn read(client: &kube::Client, stack: &PersesStack, names: Vec<String>) -> Result<Self, ApplyError> {
        let mut bindings = Self {
            finalizers: stack.metadata.finalizers.clone().unwrap_or_default(),
            version: stack.metadata.resource_version.clone(),
            ..Self::default()
        };
        for name in names {
            match api(client).get_opt(&name).await {
                Ok(None) => {}
                Ok(Some(live)) => {
                    let failed = |source| ApplyError::new(KIND, &name, verb::GET, kube::Error::SerdeError(source));
                    let live = serde_json::to_value(live).map_err(failed)?;
                    bindings.found.insert(name, live);
                }
                Err(kube::Error::Api(answer)) if answer.code == 403 => bindings.forbidden = true,
                Err(source) => return Err(ApplyError::new(KIND, &name, verb::GET, source)),
            }
        }
        Ok(bindings)
    }

    /// One that exists.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.found.get(name)
    }

    /// Names of the stack's own that are not `wanted`.
    pub fn unwanted(&self, wanted: &[Value], stack: &StackId) -> Vec<String> {
        let is_wanted = |name: &str| wanted.iter().any(|desired| desired["metadata"]["name"] == name);
        let leaves = |(name, live): &(&String, &Value)| !is_wanted(name) && stranger(live, stack).is_none();
        self.found.iter().filter(leaves).map(|(name, _)| name.clone()).collect()
    }

    /// The error of an operator that must remove them and may not.
    pub fn refused(&self) -> ApplyError {
        let text =
            "the operator may not read bindings to cluster roles: give it the role that it ships with, cluster-wide";
        let answer = kube::core::Status::failure(text, "Forbidden").with_code(403);
        ApplyError::new(KIND, "", verb::GET, kube::Error::Api(answer.boxed()))
    }
}

impl Applier<'_> {
    /// Brings one binding to its desired state. The stack has the finalizer before the first one is made.
    ///
    /// # Errors
    /// The failed request.
    pub async fn keep_binding(&mut self, desired: &Value) -> Result<Outcome, ApplyError> {
        let name = desired["metadata"]["name"].as_str().unwrap_or_default();
        let live = self.bindings.get(name).cloned();
        if let Some(foreign) = live.as_ref().and_then(|live| foreign(name, live, self.stack)) {
            return Ok(Outcome::Foreign(foreign));
        }
        self.hold().await?;
        let Some(live) = live else {
            // Without force: one that appeared since the look is a conflict, not a victim.
            self.patch_binding(name, &PatchParams::apply(FIELD_MANAGER), desired).await?;
            return Ok(Outcome::Created);
        };
        if terminating(&live) {
            return Ok(Outcome::Terminating);
        }
        let Some(found) = difference(desired, &live, FIELD_MANAGER) else { return Ok(Outcome::Unchanged) };
        let mut body = desired.clone();
        body["metadata"]["uid"] = live["metadata"]["uid"].clone();
        self.patch_binding(name, &PatchParams::apply(FIELD_MANAGER).force(), &body).await?;
        Ok(Outcome::Changed(found))
    }

    /// Deletes the stack's bindings that are not `wanted`, then takes the finalizer away when none is.
    ///
    /// # Errors
    /// The failed request; a binding that changed since it was read (409) is one too.
    pub async fn prune_bindings(&mut self, wanted: &[Value]) -> Result<(), ApplyError> {
        for name in self.bindings.unwanted(wanted, self.stack) {
            let Some(live) = self.bindings.found.remove(&name) else { continue };
            tracing::info!(kind = KIND, name, "deleting what is no longer wanted");
            self.delete_binding(&name, &live).await?;
        }
        if wanted.is_empty() { self.release().await } else { Ok(()) }
    }

    async fn hold(&mut self) -> Result<(), ApplyError> {
        if self.bindings.finalizers.iter().any(|found| found == FINALIZER) {
            return Ok(());
        }
        let mut finalizers = self.bindings.finalizers.clone();
        finalizers.push(FINALIZER.to_owned());
        self.set_finalizers(finalizers).await
    }

    async fn release(&mut self) -> Result<(), ApplyError> {
        let mut finalizers = self.bindings.finalizers.clone();
        finalizers.retain(|found| found != FINALIZER);
        if finalizers.len() == self.bindings.finalizers.len() {
            return Ok(());
        }
        self.set_finalizers(finalizers).await
    }

    /// Replaces the list, fenced by the version that was read: others keep finalizers there too.
    async fn set_finalizers(&mut self, finalizers: Vec<String>) -> Result<(), ApplyError> {
        let resource = ApiResource::erase::<PersesStack>(&());
        let stacks: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.stack.namespace, &resource);
        let body = json!({"metadata": {
            "uid": self.stack.uid, "resourceVersion": self.bindings.version, "finalizers": finalizers,
        }});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let result = stacks.patch(&self.stack.name, &params, &Patch::Merge(&body)).await;
        self.metrics.wrote("PersesStack", verb::APPLY, if result.is_ok() { "changed" } else { "error" });
        match result {
            Ok(stack) => {
                self.bindings.version = stack.metadata.resource_version;
                self.bindings.finalizers = finalizers;
                Ok(())
            }
            // Gone: its last finalizer was taken away by somebody else, or by us in a request whose answer was lost.
            Err(kube::Error::Api(answer)) if answer.is_not_found() => Ok(()),
            Err(source) => Err(ApplyError::new("PersesStack", &self.stack.name, verb::APPLY, source)),
        }
    }

    async fn patch_binding(&mut self, name: &str, params: &PatchParams, body: &Value) -> Result<(), ApplyError> {
        let result = api(self.client).patch(name, params, &Patch::Apply(body)).await;
        self.metrics.wrote(KIND, verb::APPLY, if result.is_ok() { "changed" } else { "error" });
        let failed = |source| ApplyError::new(KIND, name, verb::APPLY, source);
        let live = serde_json::to_value(result.map_err(failed)?);
        let live = live.map_err(|source| ApplyError::new(KIND, name, verb::APPLY, kube::Error::SerdeError(source)))?;
        self.bindings.found.insert(name.to_owned(), live);
        Ok(())
    }

    async fn delete_binding(&self, name: &str, live: &Value) -> Result<(), ApplyError> {
        let text = |field: &str| live["metadata"][field].as_str().map(str::to_owned);
        let preconditions = Preconditions { uid: text("uid"), resource_version: text("resourceVersion") };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        let result = api(self.client).delete(name, &params).await;
        let gone = matches!(&result, Err(kube::Error::Api(answer)) if answer.is_not_found());
        let word = if gone {
            "noop"
        } else if result.is_ok() {
            "changed"
        } else {
            "error"
        };
        self.metrics.wrote(KIND, verb::DELETE, word);
        match result {
            Err(source) if !gone => Err(ApplyError::new(KIND, name, verb::DELETE, source)),
            _ => Ok(()),
        }
    }
}

pub(super) fn api(client: &kube::Client) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<ClusterRoleBinding>(&()))
}

/// What is reported of a binding that is not this stack's. PURE.
pub(super) fn foreign(name: &str, live: &Value, stack: &StackId) -> Option<ForeignObject> {
    let owner = stranger(live, stack)?;
    Some(ForeignObject { kind: KIND.to_owned(), name: name.to_owned(), owner })
}

/// Whose a binding is, when it is not this stack's. PURE.
fn stranger(live: &Value, stack: &StackId) -> Option<String> {
    let label = |key: &str| live["metadata"]["labels"][key].as_str().unwrap_or_default();
    let (manager, instance, namespace) = (label(MANAGED_BY_KEY), label(INSTANCE_KEY), label(NAMESPACE_KEY));
    if manager == MANAGED_BY && instance == stack.name && namespace == stack.namespace {
        return None;
    }
    Some(match (manager, instance) {
        ("", "") => "it has none of our labels".to_owned(),
        _ => format!("managed by {manager:?} for {instance:?} in {namespace:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_whose_a_binding_is() {
        let stack = StackId { namespace: "a".to_owned(), name: "s".to_owned(), uid: "1".to_owned() };
        let binding = |manager: &str, instance: &str, namespace: &str| {
            let labels = json!({(MANAGED_BY_KEY): manager, (INSTANCE_KEY): instance, (NAMESPACE_KEY): namespace});
            json!({"metadata": {"labels": labels}})
        };
        assert_eq!(stranger(&binding(MANAGED_BY, "s", "a"), &stack), None);
        for other in [binding(MANAGED_BY, "s", "b"), binding(MANAGED_BY, "t", "a"), binding("Helm", "s", "a")] {
            assert!(stranger(&other, &stack).is_some(), "{other}");
        }
        assert_eq!(stranger(&json!({}), &stack).as_deref(), Some("it has none of our labels"));
    }
}
