//! `spec.api.podTemplate` over the pod template that the operator builds, as a strategic merge: objects field by field,
//! containers, volumes, ports and variables by their keys, other lists as a whole (the types' own merge keys). PURE.

use k8s_openapi::DeepMerge as _;
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use serde_json::{Map, Value};

use super::labels;
use crate::controllers::persesstack::validate::Invalid;

/// Name of the API server's own container.
pub(super) const API: &str = "api";
/// Folder of the operator's own mounts.
const MOUNTS: &str = "/etc/perses";

/// Fields of the pod that are not to be set, and what to use instead.
const POD_FIELDS: [(&str, &str); 5] = [
    ("restartPolicy", "it is Always in a Deployment"),
    ("terminationGracePeriodSeconds", "it fits the time in which the server drains"),
    ("serviceAccountName", "the stack has a ServiceAccount of its own"),
    ("serviceAccount", "the stack has a ServiceAccount of its own"),
    ("automountServiceAccountToken", "the server needs no access to the Kubernetes API"),
];

/// Fields of the API server's container that are not to be set, and what to use instead.
const CONTAINER_FIELDS: [(&str, &str); 5] = [
    ("image", "use spec.images.apiServer"),
    ("imagePullPolicy", "use spec.imagePullPolicy"),
    ("command", "use spec.api.config"),
    ("args", "use spec.api.config"),
    ("resources", "use spec.api.resources: the server's caches are sized from it"),
];

/// The merged template.
///
/// # Errors
/// Terminal: `own` is no pod template, or sets what the operator must set.
pub(super) fn merge(mut base: PodTemplateSpec, own: &Map<String, Value>) -> Result<PodTemplateSpec, Invalid> {
    let own = Value::Object(own.clone());
    if let Some(path) = null(&own) {
        return Err(refuse(&path, "is null, which removes nothing: leave it out"));
    }
    let typed: PodTemplateSpec =
        serde_json::from_value(own.clone()).map_err(|error| refuse("", &format!("is no pod template ({error})")))?;
    let known = serde_json::to_value(&typed).unwrap_or_default();
    if let Some(path) = unknown(&own, &known) {
        return Err(refuse(&path, "is not a field of a pod template: correct its name"));
    }
    metadata(&own["metadata"])?;
    for (field, why) in POD_FIELDS {
        if !own["spec"][field].is_null() {
            return Err(refuse(&format!(".spec.{field}"), &format!("is set by the operator ({why}): remove it")));
        }
    }
    let built = base.spec.as_ref();
    for volume in typed.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        if built.is_some_and(|spec| spec.volumes.iter().flatten().any(|ours| ours.name == volume.name)) {
            return Err(refuse(".spec.volumes", &format!("has {}, a volume of the operator: rename it", volume.name)));
        }
    }
    let ours = built.and_then(|spec| spec.containers.iter().find(|container| container.name == API));
    let theirs = typed.spec.as_ref().and_then(|spec| spec.containers.iter().find(|container| container.name == API));
    if let (Some(ours), Some(theirs)) = (ours, theirs) {
        container(ours, theirs)?;
    }
    base.merge_from(typed);
    Ok(base)
}

fn refuse(path: &str, what: &str) -> Invalid {
    Invalid::terminal("PodTemplateInvalid", format!("spec.api.podTemplate{path} {what}"))
}

/// Labels and annotations, but none of ours.
fn metadata(own: &Value) -> Result<(), Invalid> {
    for (field, value) in own.as_object().into_iter().flatten() {
        if field != "labels" && field != "annotations" {
            return Err(refuse(&format!(".metadata.{field}"), "has no meaning in a pod template: remove it"));
        }
        let ours = |key: &str| key.starts_with("persesstack.io/") || labels::KEYS.contains(&key);
        if let Some(key) = value.as_object().and_then(|map| map.keys().find(|key| ours(key))) {
            return Err(refuse(
                &format!(".metadata.{field}"),
                &format!("sets {key}, which is the operator's: remove it"),
            ));
        }
    }
    Ok(())
}

fn container(ours: &Container, theirs: &Container) -> Result<(), Invalid> {
    let path = format!(".spec.containers[name={API}]");
    let fields = serde_json::to_value(theirs).unwrap_or_default();
    for (field, why) in CONTAINER_FIELDS {
        if !fields[field].is_null() {
            return Err(refuse(&format!("{path}.{field}"), &format!("is set by the operator: remove it and {why}")));
        }
    }
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let handler =
            ["httpGet", "tcpSocket", "exec", "grpc"].into_iter().find(|handler| !fields[probe][handler].is_null());
        if let Some(handler) = handler {
            return Err(refuse(
                &format!("{path}.{probe}.{handler}"),
                "is set by the operator: remove it; periods, timeouts and thresholds may be set",
            ));
        }
    }
    let port = theirs.ports.iter().flatten().find(|port| {
        let same = |ours: &k8s_openapi::api::core::v1::ContainerPort| {
            ours.container_port == port.container_port || ours.name == port.name
        };
        ours.ports.iter().flatten().any(same)
    });
    if let Some(port) = port {
        return Err(refuse(
            &format!("{path}.ports"),
            &format!("has {}, a port of the server: remove it", port.container_port),
        ));
    }
    if let Some(variable) = theirs.env.iter().flatten().find(|variable| variable.name.starts_with("PERSES_")) {
        return Err(refuse(
            &format!("{path}.env"),
            &format!("sets {}, which would go round the operator's configuration: use spec.api.config", variable.name),
        ));
    }
    let mount = theirs.volume_mounts.iter().flatten().find(|mount| {
        let path = mount.mount_path.trim_end_matches('/');
        path == MOUNTS
            || path.starts_with(&format!("{MOUNTS}/"))
            || ours.volume_mounts.iter().flatten().any(|ours| ours.mount_path == path)
    });
    match mount {
        Some(mount) => Err(refuse(
            &format!("{path}.volumeMounts"),
            &format!("has {}, a folder of the operator: mount it elsewhere", mount.mount_path),
        )),
        None => Ok(()),
    }
}

/// Path of the first null.
fn null(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Object(fields) => fields.iter().find_map(|(name, field)| Some(format!(".{name}{}", null(field)?))),
        Value::Array(items) => items.iter().enumerate().find_map(|(i, item)| Some(format!("[{i}]{}", null(item)?))),
        _ => None,
    }
}

/// Path of the first field of `own` that its type does not have: it is lost on the way through the type.
fn unknown(own: &Value, known: &Value) -> Option<String> {
    match (own, known) {
        (Value::Object(own), _) => own.iter().find_map(|(name, field)| {
            let inside = known.get(name).map_or(Some(String::new()), |known| unknown(field, known));
            Some(format!(".{name}{}", inside?))
        }),
        (Value::Array(own), Value::Array(known)) => {
            let mut pairs = own.iter().zip(known).enumerate();
            pairs.find_map(|(i, (own, known))| Some(format!("[{i}]{}", unknown(own, known)?)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
