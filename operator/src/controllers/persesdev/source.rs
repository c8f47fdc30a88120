//! PURE: one resource as it was read, in the terms that the other steps need.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::core::Selector;
use serde::Deserialize;
use serde_json::Value;

use super::credentials::ClientBlock;
use super::kind::Kind;

/// Annotation with the tags of the document, separated by commas (upstream's contract).
pub const TAGS: &str = "perses.dev/tags";
/// Annotation with the stacks that may hold a copy: `namespace/name`, separated by commas. Written before the first copy.
pub const COPIES: &str = "persesstack.io/copies";
/// Annotation: with `true` the resource takes over a document of its name that somebody else made.
pub const ADOPT: &str = "persesstack.io/adopt";
/// Keeps the resource until its copies are gone.
pub const FINALIZER: &str = "persesstack.io/copies";

/// One resource.
#[derive(Clone, Debug)]
pub struct Source {
    /// Kind.
    pub kind: Kind,
    /// Namespace; `None` for cluster-scoped ones. Also the project of the document.
    pub namespace: Option<String>,
    /// Name; also that of the document.
    pub name: String,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// Tags, lower case, as upstream's operator reads them.
    pub tags: BTreeSet<String>,
    /// Which stacks get a copy; no selector is every stack (upstream v0.5.0).
    pub selector: Selector,
    /// `spec.config`: the document's spec.
    pub config: Value,
    /// `spec.client`: credentials of a datasource.
    pub client: Option<ClientBlock>,
    /// Whether a document of this name that somebody else made is taken over.
    pub adopt: bool,
    /// Stacks that may hold a copy.
    pub copies: BTreeSet<String>,
    /// Whether our finalizer is there.
    pub held: bool,
    /// When its deletion was asked for.
    pub deleted: Option<Timestamp>,
    /// `status.conditions`.
    pub conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    config: Value,
    client: Option<ClientBlock>,
    instance_selector: Option<LabelSelector>,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

impl Source {
    /// Reads a resource.
    ///
    /// # Errors
    /// In words, which field is not as its CRD says.
    pub fn read(kind: Kind, object: &DynamicObject) -> Result<Self, String> {
        let spec = Spec::deserialize(&object.data["spec"]).map_err(|error| format!("spec: {error}"))?;
        let selector = Selector::try_from(spec.instance_selector.unwrap_or_default())
            .map_err(|error| format!("spec.instanceSelector: {error}"))?;
        Ok(Self { selector, config: spec.config, client: spec.client, ..Self::shell(kind, object) })
    }

    /// What is known of a resource without its spec: enough to delete it.
    pub fn shell(kind: Kind, object: &DynamicObject) -> Self {
        // A status of another shape is somebody else's matter: ours is then written anew.
        let status = Status::deserialize(&object.data["status"]).unwrap_or_default();
        let words = |annotation: &str| {
            let text = object.annotations().get(annotation).map(String::as_str).unwrap_or_default();
            text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
        };
        Self {
            kind,
            namespace: object.namespace(),
            name: object.name_any(),
            generation: object.metadata.generation,
            tags: words(TAGS),
            selector: Selector::default(),
            config: Value::Null,
            client: None,
            adopt: object.annotations().get(ADOPT).is_some_and(|value| value == "true"),
            copies: words(COPIES),
            held: object.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
            deleted: object.metadata.deletion_timestamp.as_ref().map(|time| time.0),
            conditions: status.conditions,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn reads_what_the_crd_allows() {
        let source = Source::read(
            Kind::Dashboard,
            &object(json!({
                "apiVersion": "perses.dev/v1alpha2", "kind": "PersesDashboard",
                "metadata": {"name": "cpu", "namespace": "shop", "generation": 3, "finalizers": [FINALIZER],
                             "annotations": {TAGS: " Team-A, ,slo", COPIES: "obs/perses"}},
                "spec": {"config": {"duration": "1h", "panels": {}, "layouts": []},
                         "instanceSelector": {"matchLabels": {"a": "b"}}},
                "status": {"conditions": []}})),
        )
        .unwrap();
        assert_eq!(source.tags, ["slo".to_owned(), "team-a".to_owned()].into());
        assert_eq!(source.copies, ["obs/perses".to_owned()].into());
        assert!(source.held && source.deleted.is_none());
        assert_eq!(source.config["duration"], "1h");
        assert!(!source.selector.selects_all());
    }

    #[test]
    fn no_selector_is_every_stack_and_a_wrong_one_is_told() {
        let with = |selector: Value| {
            let value = json!({"metadata": {"name": "a"}, "spec": {"config": {}, "instanceSelector": selector}});
            Source::read(Kind::GlobalDatasource, &object(value))
        };
        assert!(with(Value::Null).unwrap().selector.selects_all());
        assert!(with(json!({})).unwrap().selector.selects_all());
        let wrong = with(json!({"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}));
        assert!(wrong.unwrap_err().contains("spec.instanceSelector"));
    }
}
