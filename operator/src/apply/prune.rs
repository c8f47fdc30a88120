//! Deletes what this stack owns and no longer wants (I/O).
//!
//! Only objects that this incarnation of the stack controls are candidates: retained data has no owner reference, so it
//! can never be one. Every delete is fenced by UID and resource version: if the object has changed since it was looked
//! at, nothing happens and the next reconcile looks again.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Preconditions};
use kube::core::ApiResource;
use serde_json::Value;

use super::inventory::{Inventory, list};
use super::kind::Kind;
use super::mounts::mounts;
use super::owner::{Claim, StackId, claim, terminating};
use super::ssa::Applier;
use super::{ApplyError, verb};
use crate::controllers::persesstack::build::labels::INSTANCE_KEY;

/// Names of the Secrets that the ReplicaSets of wanted Deployments mount: a rollback needs them. Those of a Deployment that
/// is no longer wanted only wait for the garbage collector.
pub async fn secrets_in_use(
    client: &kube::Client,
    stack: &StackId,
    wanted: &BTreeSet<(Kind, String)>,
) -> Result<BTreeSet<String>, ApplyError> {
    let selector = ListParams::default().labels(&format!("{INSTANCE_KEY}={}", stack.name));
    let sets = list(client, &stack.namespace, &ApiResource::erase::<ReplicaSet>(&()), &selector).await?;
    let stays = |set: &Value| {
        let owners = set["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
        let deployment = owners.iter().find(|owner| owner["kind"] == "Deployment");
        let name = deployment.and_then(|owner| owner["name"].as_str()).unwrap_or_default();
        wanted.contains(&(Kind::Deployment, name.to_owned()))
    };
    let staying = sets.iter().filter(|(_, set)| stays(set));
    let mounted = staying.flat_map(|(_, set)| mounts(&set["spec"]["template"]["spec"]));
    Ok(mounted.filter(|(kind, _)| *kind == Kind::Secret).map(|(_, name)| name.to_owned()).collect())
}

/// The objects to delete: not wanted, not `in_use` by a ReplicaSet, and not of a kind that is `undecided`. PURE.
pub fn leftovers<'a>(
    inventory: &'a Inventory,
    wanted: &BTreeSet<(Kind, String)>,
    in_use: &BTreeSet<String>,
    undecided: &[Kind],
    stack: &StackId,
) -> Vec<(Kind, &'a str, &'a Value)> {
    let unwanted = |kind: Kind, name: &str| {
        let used = kind == Kind::Secret && in_use.contains(name);
        !used && !undecided.contains(&kind) && !wanted.contains(&(kind, name.to_owned()))
    };
    inventory
        .iter()
        .filter(|(kind, name, live)| unwanted(*kind, name) && claim(live, stack) == Claim::Owned && !terminating(live))
        .collect()
}

impl Applier<'_> {
    /// Deletes one object that has not changed since it was read; its dependents go in the background.
    pub async fn delete(&self, kind: Kind, name: &str, live: &Value) -> Result<(), ApplyError> {
        let text = |field: &str| live["metadata"][field].as_str().map(str::to_owned);
        let preconditions = Preconditions { uid: text("uid"), resource_version: text("resourceVersion") };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.stack.namespace, &kind.resource());
        let result = api.delete(name, &params).await;
        let outcome = match &result {
            Ok(_) => "changed",
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => "noop",
            Err(_) => "error",
        };
        self.metrics.wrote(kind.name(), verb::DELETE, outcome);
        match result {
            Err(source) if outcome == "error" => Err(ApplyError::new(kind.name(), name, verb::DELETE, source)),
            // Gone already, or changed: then the next look decides.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(uid: Option<&str>) -> Value {
        let owners = uid.map(|uid| {
            json!([{"apiVersion": "persesstack.io/v1alpha1", "kind": "PersesStack", "name": "s", "uid": uid, "controller": true}])
        });
        json!({"metadata": {"uid": "x", "ownerReferences": owners,
               "labels": {"app.kubernetes.io/managed-by": "persesstack-operator", "app.kubernetes.io/instance": "s"}}})
    }

    #[test]
    fn only_owned_unwanted_and_unused_objects() {
        let stack = StackId { namespace: "n".to_owned(), name: "s".to_owned(), uid: "1".to_owned() };
        let mut inventory = Inventory::default();
        inventory.insert(Kind::Deployment, "s-redis", object(Some("1")));
        inventory.insert(Kind::Deployment, "s-api", object(Some("1")));
        inventory.insert(Kind::Secret, "s-api-config-old", object(Some("1")));
        inventory.insert(Kind::Secret, "s-api-config-older", object(Some("1")));
        inventory.insert(Kind::Secret, "s-keys", object(None));
        inventory.insert(Kind::PersistentVolumeClaim, "s-db", object(None));
        inventory.insert(Kind::Service, "s-redis", object(Some("0")));
        inventory.insert(Kind::Route, "s", object(Some("1")));
        let wanted = [(Kind::Deployment, "s-api".to_owned())].into();
        let in_use = ["s-api-config-old".to_owned()].into();
        let found = |undecided: &[Kind]| -> Vec<_> {
            let found = leftovers(&inventory, &wanted, &in_use, undecided, &stack);
            found.into_iter().map(|(kind, name, _)| (kind, name)).collect()
        };
        let decided = [(Kind::Secret, "s-api-config-older"), (Kind::Deployment, "s-redis")];
        assert_eq!(found(&[Kind::Route]), decided);
        assert_eq!(found(&[]), [decided[0], decided[1], (Kind::Route, "s")]);
    }
}
