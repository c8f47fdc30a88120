//! One desired object to the API server.
//!
//! - Absent: created. An object whose content is generated once is created by POST, so that of two creators one learns
//!   that it lost; everything else by an apply without force.
//! - Ours and equal: nothing is sent ([`compare`](super::compare)).
//! - Ours and different: applied with force, fenced by the UID that was compared, so that an object that was deleted and
//!   made again by somebody in between is not taken over.
//! - Somebody else's: left alone and reported.
//!
//! **Replicas of the API Deployment.** The autoscaler owns `spec.replicas` once it has written it. Until then we are the
//! only manager of the field (we set it at creation), and an apply that leaves it out would make the API server fall back
//! to 1. So the live value is first applied by a manager of its own, fenced by the resource version, and only then left
//! out. When the autoscaler writes, that manager loses the field and is gone.

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde_json::{Value, json};

use super::cluster::Bindings;
use super::compare::{Difference, Why, difference, lists_with_strangers, manages, template_difference};
use super::inventory::Inventory;
use super::kind::Kind;
use super::owner::{Claim, StackId, claim, terminating};
use super::{ApplyError, FIELD_MANAGER, REPAIR_MANAGER, REPLICAS_MANAGER, verb};
use crate::controllers::persesstack::observed::ForeignObject;
use crate::metrics::Metrics;

/// How an object is brought and kept in its desired state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// Kept equal to what we want.
    Applied,
    /// Content is generated once: created when absent, afterwards only labels and owner are kept.
    Generated,
    /// Content cannot change after creation: only labels and owner are kept.
    Immutable,
}

/// One desired object.
#[derive(Clone, Debug)]
pub struct Child {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// How it is kept.
    pub lifecycle: Lifecycle,
    /// The object as it is sent.
    pub value: Value,
}

impl Child {
    /// From a typed object. Its metadata must have a name.
    pub fn new<K>(kind: Kind, lifecycle: Lifecycle, object: &K) -> Self
    where
        K: Serialize + kube::Resource<DynamicType = ()>,
    {
        // Serializing a Kubernetes type to JSON cannot fail: keys are strings and numbers are finite.
        let mut value = serde_json::to_value(object).unwrap_or_default();
        let resource = kind.resource();
        value["apiVersion"] = json!(resource.api_version);
        value["kind"] = json!(resource.kind);
        let name = object.meta().name.clone().unwrap_or_default();
        Self { kind, name, lifecycle, value }
    }

    /// From an object without a Rust type, which says itself what it is.
    pub fn custom(kind: Kind, lifecycle: Lifecycle, object: &DynamicObject) -> Self {
        let name = object.metadata.name.clone().unwrap_or_default();
        Self { kind, name, lifecycle, value: serde_json::to_value(object).unwrap_or_default() }
    }
}

/// What happened to one desired object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was as wanted; nothing was sent.
    Unchanged,
    /// It was created.
    Created,
    /// It was changed; the first difference that was found.
    Changed(Difference),
    /// It is being deleted; it is made again when it is gone.
    Terminating,
    /// It belongs to somebody else.
    Foreign(ForeignObject),
}

/// Applies the objects of one stack.
pub struct Applier<'a> {
    /// Connection.
    pub client: &'a kube::Client,
    /// Counters.
    pub metrics: &'a Metrics,
    /// Whose objects these are.
    pub stack: &'a StackId,
    /// What exists; follows what is applied.
    pub inventory: &'a mut Inventory,
    /// What exists outside the namespace; see [`cluster`](super::cluster).
    pub bindings: &'a mut Bindings,
}

impl Applier<'_> {
    pub(super) fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.stack.namespace, &kind.resource())
    }

    /// Brings one object to its desired state.
    ///
    /// # Errors
    /// The failed request. A lost race (409) is one too: the caller looks again and retries.
    pub async fn apply(&mut self, child: &Child) -> Result<Outcome, ApplyError> {
        let live = match self.inventory.get(child.kind, &child.name) {
            Some(live) => Some(live.clone()),
            // Not among the objects with our labels: is the name free?
            None => self.read(child.kind, &child.name).await?,
        };
        let Some(live) = live else {
            self.create(child).await?;
            return Ok(Outcome::Created);
        };
        if let Claim::Foreign { owner } = claim(&live, self.stack) {
            let (kind, name) = (child.kind.name().to_owned(), child.name.clone());
            return Ok(Outcome::Foreign(ForeignObject { kind, name, owner }));
        }
        if terminating(&live) {
            return Ok(Outcome::Terminating);
        }
        let Some(found) = needed(child, &live) else { return Ok(Outcome::Unchanged) };
        self.hand_over_replicas(child, &live).await?;
        let mut body = child.value.clone();
        body["metadata"]["uid"] = live["metadata"]["uid"].clone();
        if child.lifecycle == Lifecycle::Generated || scales_down(child, &live) {
            // A generated content in `body` is what was read: it must not undo a change that was made since. And pods are
            // taken away only from what was looked at.
            body["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match self.patch(child, &params, &body).await {
            Ok(()) => Ok(Outcome::Changed(found)),
            // Refused because of what somebody put beside ours: replace that, then try once more.
            Err(error) if error.code() == Some(422) && child.lifecycle == Lifecycle::Applied => {
                if !self.clean_lists(child, &live).await? {
                    return Err(error);
                }
                self.patch(child, &params, &body).await?;
                Ok(Outcome::Changed(found))
            }
            // Adopted with other content than we would give it: make it again.
            Err(error) if error.code() == Some(422) && child.lifecycle == Lifecycle::Immutable => {
                self.delete(child.kind, &child.name, &live).await?;
                Ok(Outcome::Terminating)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether applying it would replace pods that run.
    pub fn rolls(&self, child: &Child) -> bool {
        let pods = matches!(child.kind, Kind::Deployment | Kind::StatefulSet);
        let live = self.inventory.get(child.kind, &child.name).filter(|live| live["spec"]["replicas"] != 0);
        pods && live.is_some_and(|live| template_difference(&child.value, live, FIELD_MANAGER).is_some())
    }

    /// Reads one object; `None` when there is none.
    pub async fn read(&self, kind: Kind, name: &str) -> Result<Option<Value>, ApplyError> {
        let failed = |source| ApplyError::new(kind.name(), name, verb::GET, source);
        let Some(object) = self.api(kind).get_opt(name).await.map_err(failed)? else { return Ok(None) };
        serde_json::to_value(object).map(Some).map_err(|source| failed(kube::Error::SerdeError(source)))
    }

    async fn create(&mut self, child: &Child) -> Result<(), ApplyError> {
        if child.lifecycle == Lifecycle::Generated {
            let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), dry_run: false };
            let object = serde_json::from_value(child.value.clone()).map_err(|source| {
                ApplyError::new(child.kind.name(), &child.name, verb::CREATE, kube::Error::SerdeError(source))
            })?;
            let result = self.api(child.kind).create(&params, &object).await;
            return self.note(child, verb::CREATE, result);
        }
        // Without force: an object that appeared since the look is a conflict, not a victim.
        self.patch(child, &PatchParams::apply(FIELD_MANAGER), &child.value).await
    }

    /// See the module's documentation.
    async fn hand_over_replicas(&mut self, child: &Child, live: &Value) -> Result<(), ApplyError> {
        if !hands_over_replicas(child, live) {
            return Ok(());
        }
        let body = json!({
            "apiVersion": child.value["apiVersion"], "kind": child.value["kind"],
            "metadata": {
                "name": child.name, "namespace": self.stack.namespace,
                "uid": live["metadata"]["uid"], "resourceVersion": live["metadata"]["resourceVersion"],
            },
            "spec": {"replicas": live["spec"]["replicas"]},
        });
        self.patch(child, &PatchParams::apply(REPLICAS_MANAGER), &body).await
    }

    /// Replaces lists of ours into which others have put items; whether there were any.
    async fn clean_lists(&mut self, child: &Child, live: &Value) -> Result<bool, ApplyError> {
        let lists = lists_with_strangers(&child.value, live, FIELD_MANAGER);
        if lists.is_empty() {
            return Ok(false);
        }
        let paths: Vec<_> = lists.keys().collect();
        tracing::info!(kind = child.kind.name(), name = child.name, ?paths, "replacing lists that contradict ours");
        let version = &live["metadata"]["resourceVersion"];
        let unchanged = json!({"op": "test", "path": "/metadata/resourceVersion", "value": version});
        let replaced = lists.iter().map(|(path, list)| json!({"op": "replace", "path": path, "value": list}));
        let operations: Vec<Value> = std::iter::once(unchanged).chain(replaced).collect();
        let patch = serde_json::from_value(Value::Array(operations)).map_err(|source| {
            ApplyError::new(child.kind.name(), &child.name, verb::APPLY, kube::Error::SerdeError(source))
        })?;
        let params = PatchParams { field_manager: Some(REPAIR_MANAGER.to_owned()), ..PatchParams::default() };
        let result = self.api(child.kind).patch(&child.name, &params, &Patch::<()>::Json(patch)).await;
        self.note(child, verb::APPLY, result)?;
        Ok(true)
    }

    async fn patch(&mut self, child: &Child, params: &PatchParams, body: &Value) -> Result<(), ApplyError> {
        let result = self.api(child.kind).patch(&child.name, params, &Patch::Apply(body)).await;
        self.note(child, verb::APPLY, result)
    }

    /// Counts a write and keeps the answer as the newest picture of the object.
    fn note(
        &mut self,
        child: &Child,
        verb: &'static str,
        result: kube::Result<DynamicObject>,
    ) -> Result<(), ApplyError> {
        let failed = |source| ApplyError::new(child.kind.name(), &child.name, verb, source);
        let object = result.inspect_err(|_| self.metrics.wrote(child.kind.name(), verb, "error")).map_err(failed)?;
        let version = object.metadata.resource_version.as_deref();
        let before = self.inventory.get(child.kind, &child.name);
        let same = before.is_some_and(|before| before["metadata"]["resourceVersion"].as_str() == version);
        self.metrics.wrote(child.kind.name(), verb, if same { "noop" } else { "changed" });
        let value = serde_json::to_value(object).map_err(|source| failed(kube::Error::SerdeError(source)))?;
        self.inventory.insert(child.kind, &child.name, value);
        Ok(())
    }
}

/// Whether `spec.replicas` must get another manager before an apply leaves it out; see the module's documentation.
pub(super) fn hands_over_replicas(child: &Child, live: &Value) -> bool {
    const REPLICAS: [&str; 2] = ["spec", "replicas"];
    let leaves_out = child.kind == Kind::Deployment && child.value["spec"]["replicas"].is_null();
    let managers = live["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let another = managers.iter().any(|entry| {
        let ours = entry["manager"] == FIELD_MANAGER && entry["operation"] == "Apply";
        !ours && !entry["fieldsV1"]["f:spec"]["f:replicas"].is_null()
    });
    leaves_out && !another && manages(live, FIELD_MANAGER, &REPLICAS)
}

/// Whether an apply would take pods away.
fn scales_down(child: &Child, live: &Value) -> bool {
    let replicas = |object: &Value| object["spec"]["replicas"].as_i64();
    replicas(&child.value).zip(replicas(live)).is_some_and(|(wanted, found)| wanted < found)
}

/// Why an existing object of ours must be applied; `None` when it is as wanted.
pub(super) fn needed(child: &Child, live: &Value) -> Option<Difference> {
    match child.lifecycle {
        Lifecycle::Applied => difference(&child.value, live, FIELD_MANAGER),
        // Only what can change is compared; who manages it does not matter: these are not created by an apply.
        Lifecycle::Generated | Lifecycle::Immutable => metadata_difference(&child.value, live),
    }
}

/// The first label, annotation or owner reference of `desired` that `live` does not have.
fn metadata_difference(desired: &Value, live: &Value) -> Option<Difference> {
    let (wanted, found) = (&desired["metadata"], &live["metadata"]);
    let changed = |path: String| Some(Difference { path, why: Why::Changed });
    for map in ["labels", "annotations"] {
        for (key, value) in wanted[map].as_object().into_iter().flatten() {
            if found[map].get(key) != Some(value) {
                return changed(format!("metadata.{map}.{key}"));
            }
        }
    }
    let references = |object: &Value| object["ownerReferences"].as_array().cloned().unwrap_or_default();
    let (wanted, found) = (references(wanted), references(found));
    let missing = wanted.iter().any(|reference| !found.iter().any(|live| live["uid"] == reference["uid"]));
    // `deletionPolicy` went from Delete to Retain: our reference must go.
    let stale = wanted.is_empty() && found.iter().any(|reference| reference["controller"] == true);
    if missing || stale { changed("metadata.ownerReferences".to_owned()) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(labels: &Value, owners: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Secret",
               "metadata": {"name": "a", "labels": labels, "ownerReferences": owners}, "data": {"k": "djE="}})
    }

    #[test]
    fn generated_content_is_never_compared() {
        let value = secret(&json!({"a": "1"}), &json!([]));
        let child = Child { kind: Kind::Secret, name: "a".to_owned(), lifecycle: Lifecycle::Generated, value };
        let mut live = secret(&json!({"a": "1", "b": "2"}), &json!([]));
        live["data"]["k"] = json!("djI=");
        assert_eq!(needed(&child, &live), None);
        live["metadata"]["labels"]["a"] = json!("2");
        assert_eq!(needed(&child, &live).unwrap().path, "metadata.labels.a");
    }

    #[test]
    fn fewer_pods_are_told_from_more_and_from_none_of_our_business() {
        let set = |replicas: Value| json!({"spec": {"replicas": replicas}});
        let wants = |replicas: Value| {
            let (kind, lifecycle) = (Kind::Deployment, Lifecycle::Applied);
            Child { kind, name: "a".to_owned(), lifecycle, value: set(replicas) }
        };
        assert!(scales_down(&wants(json!(0)), &set(json!(2))));
        assert!(!scales_down(&wants(json!(2)), &set(json!(2))));
        assert!(!scales_down(&wants(json!(3)), &set(json!(2))));
        assert!(!scales_down(&wants(Value::Null), &set(json!(2))), "the autoscaler's");
    }

    #[test]
    fn the_owner_of_a_retained_object_follows_the_policy() {
        let owner = json!([{"uid": "42", "controller": true}]);
        let owned = secret(&json!({}), &owner);
        let free = secret(&json!({}), &json!([]));
        assert_eq!(metadata_difference(&owned, &owned), None);
        assert!(metadata_difference(&owned, &free).is_some(), "Retain became Delete");
        assert!(metadata_difference(&free, &owned).is_some(), "Delete became Retain");
        let before = secret(&json!({}), &json!([{"uid": "41", "controller": true}]));
        assert!(metadata_difference(&owned, &before).is_some(), "adopted from an earlier stack");
    }
}
