//! Whose is an object that exists under one of our names? PURE.

use serde_json::Value;

use super::FIELD_MANAGER;
use crate::api::GROUP;
use crate::controllers::persesstack::build::labels::{INSTANCE_KEY, MANAGED_BY, MANAGED_BY_KEY};

/// Identity of the stack that is being reconciled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackId {
    /// Namespace of the stack and all its objects.
    pub namespace: String,
    /// Name of the stack.
    pub name: String,
    /// UID of this incarnation of the stack.
    pub uid: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Controlled by this incarnation of the stack.
    Owned,
    /// Ours by its labels or by who made it, and nobody's by reference: retained from an earlier stack of this name, or
    /// detached.
    Adoptable,
    /// Controlled by an earlier stack of this name that is gone.
    Previous,
    /// Somebody else's. It is left alone.
    Foreign {
        /// Whose, as far as it can be told.
        owner: String,
    },
}

/// Decides by controller reference first, then by labels.
pub fn claim(live: &Value, stack: &StackId) -> Claim {
    let metadata = &live["metadata"];
    let controller = metadata["ownerReferences"]
        .as_array()
        .and_then(|references| references.iter().find(|reference| reference["controller"] == true));
    if let Some(controller) = controller {
        let (kind, name) = (text(&controller["kind"]), text(&controller["name"]));
        if controller["uid"] == stack.uid.as_str() {
            return Claim::Owned;
        }
        let group = text(&controller["apiVersion"]).split('/').next().unwrap_or_default();
        if group == GROUP && kind == "PersesStack" && name == stack.name {
            return Claim::Previous;
        }
        return Claim::Foreign { owner: format!("{kind} {name}") };
    }
    let label = |key: &str| text(&metadata["labels"][key]);
    if label(MANAGED_BY_KEY) == MANAGED_BY && label(INSTANCE_KEY) == stack.name {
        return Claim::Adoptable;
    }
    // Our labels were edited away, but the API server knows who made it.
    let managers = metadata["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let made_by_us = managers.iter().any(|entry| entry["manager"] == FIELD_MANAGER);
    if made_by_us && ["", &stack.name].contains(&label(INSTANCE_KEY)) {
        return Claim::Adoptable;
    }
    let owner = match (label(MANAGED_BY_KEY), label(INSTANCE_KEY)) {
        ("", "") => "it has neither an owner nor our labels".to_owned(),
        (manager, instance) => format!("managed by {manager:?} for {instance:?}"),
    };
    Claim::Foreign { owner }
}

/// Whether the object is being deleted.
pub fn terminating(live: &Value) -> bool {
    live["metadata"]["deletionTimestamp"].is_string()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stack() -> StackId {
        StackId { namespace: "a".to_owned(), name: "perses".to_owned(), uid: "42".to_owned() }
    }

    fn controlled_by(api_version: &str, kind: &str, name: &str, uid: &str) -> Value {
        json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "Other", "name": "x", "uid": "1"},
            {"apiVersion": api_version, "kind": kind, "name": name, "uid": uid, "controller": true}]}})
    }

    #[test]
    fn the_controller_decides() {
        let ours = controlled_by("persesstack.io/v1alpha1", "PersesStack", "perses", "42");
        assert_eq!(claim(&ours, &stack()), Claim::Owned);
        let before = controlled_by("persesstack.io/v1alpha1", "PersesStack", "perses", "41");
        assert_eq!(claim(&before, &stack()), Claim::Previous);
        let other = controlled_by("persesstack.io/v1alpha1", "PersesStack", "other", "40");
        assert_eq!(claim(&other, &stack()), Claim::Foreign { owner: "PersesStack other".to_owned() });
        let other = controlled_by("apps/v1", "ReplicaSet", "perses", "40");
        assert!(matches!(claim(&other, &stack()), Claim::Foreign { .. }));
    }

    #[test]
    fn labels_decide_without_a_controller() {
        let labelled = |manager: &str, instance: &str| json!({"metadata": {"labels": {(MANAGED_BY_KEY): manager, (INSTANCE_KEY): instance}}});
        assert_eq!(claim(&labelled(MANAGED_BY, "perses"), &stack()), Claim::Adoptable);
        assert!(matches!(claim(&labelled(MANAGED_BY, "other"), &stack()), Claim::Foreign { .. }));
        assert!(matches!(claim(&labelled("Helm", "perses"), &stack()), Claim::Foreign { .. }));
        assert!(matches!(claim(&json!({"metadata": {"name": "perses-api"}}), &stack()), Claim::Foreign { .. }));
        let stripped = json!({"metadata": {"managedFields": [{"manager": FIELD_MANAGER, "operation": "Update"}]}});
        assert_eq!(claim(&stripped, &stack()), Claim::Adoptable);
    }
}
