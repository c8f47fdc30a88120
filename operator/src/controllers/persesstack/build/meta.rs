//! Metadata of objects, and small constructors that every builder needs.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, PodTemplateSpec, Secret, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::labels::{self, Component};
use crate::api::v1alpha1::DeletionPolicy;
use crate::apply::kind::Kind;
use crate::controllers::persesstack::rotation::SEEN;
use crate::controllers::persesstack::validate::Validated;

/// Annotation of a pod template: hash of mounted configuration that the program reads only at its start.
pub const CONFIG_HASH: &str = "persesstack.io/config-hash";

/// Annotation of the API Deployment: name of the migration Job whose schema its pods need.
pub const MIGRATION: &str = "persesstack.io/migration";

/// Annotation of the API Deployment: we have taken its pods away because the stack is suspended.
pub const SUSPENDED: &str = "persesstack.io/suspended";

/// Metadata of a stateless child: goes with the stack.
pub(super) fn owned(v: &Validated, name: String, component: Component) -> ObjectMeta {
    ObjectMeta { owner_references: v.owner.clone().map(|owner| vec![owner]), ..retained_meta(v, name, component) }
}

/// Metadata of what holds data: stays by default when the stack is deleted.
pub(super) fn retained(v: &Validated, name: String, component: Component) -> ObjectMeta {
    match v.spec.database.deletion_policy {
        DeletionPolicy::Delete => owned(v, name, component),
        DeletionPolicy::Retain => retained_meta(v, name, component),
    }
}

fn retained_meta(v: &Validated, name: String, component: Component) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(v.namespace.clone()),
        labels: Some(labels::labels(v.names.stack(), component)),
        ..ObjectMeta::default()
    }
}

/// Label selector of a component's pods.
pub(super) fn selector(v: &Validated, component: Component) -> LabelSelector {
    LabelSelector { match_labels: Some(labels::selector(v.names.stack(), component)), match_expressions: None }
}

/// A Secret.
pub(super) fn secret(metadata: ObjectMeta, data: BTreeMap<String, Vec<u8>>, immutable: bool) -> Secret {
    Secret {
        metadata,
        data: Some(data.into_iter().map(|(key, value)| (key, ByteString(value))).collect()),
        immutable: immutable.then_some(true),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

/// A ConfigMap.
pub(super) fn config_map(metadata: ObjectMeta, data: BTreeMap<String, String>) -> ConfigMap {
    ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }
}

/// An object of a kind that has no Rust type here.
pub(super) fn custom(kind: Kind, metadata: ObjectMeta, spec: &Value) -> DynamicObject {
    let object = DynamicObject::new(&metadata.name.clone().unwrap_or_default(), &kind.resource());
    DynamicObject { metadata, ..object.data(json!({ "spec": spec })) }
}

/// Names under which pods of the cluster reach a Service, the shortest first.
pub fn hosts(service: &str, namespace: &str) -> Vec<String> {
    let qualified = format!("{service}.{namespace}");
    vec![service.to_owned(), qualified.clone(), format!("{qualified}.svc"), format!("{qualified}.svc.cluster.local")]
}

/// A Service with one port in front of `component`.
pub(super) fn service(v: &Validated, name: String, component: Component, port_name: &str, port: i32) -> Service {
    Service {
        metadata: owned(v, name, component),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: Some(labels::selector(v.names.stack(), component)),
            ports: Some(vec![ServicePort {
                name: Some(port_name.to_owned()),
                port,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String(port_name.to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// A disruption budget that lets one pod go at a time, a lone pod included: drains must not hang.
pub(super) fn pdb(v: &Validated, name: String, component: Component) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: owned(v, name, component),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(v, component)),
            // A pod that is not ready protects nothing.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

/// Says in a template which state of the generated Secrets its pods are started after.
pub(super) fn seen(mut template: PodTemplateSpec, credentials: String) -> PodTemplateSpec {
    if !credentials.is_empty() {
        let annotations = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
        annotations.insert(SEEN.to_owned(), credentials);
    }
    template
}

/// Ten hexadecimal digits that stand for `parts`.
pub(super) fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        // Length first, so that moving bytes from one part to the next changes the hash.
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex()[..10].to_owned()
}
