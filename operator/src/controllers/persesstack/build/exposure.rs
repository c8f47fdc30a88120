//! The object that makes the service reachable from outside: a Route.

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::labels::Component;
use super::{Exposure, meta};
use crate::apply::kind::Kind;
use crate::controllers::persesstack::validate::Validated;

/// How long a stream may be silent before a proxy cuts it.
const STREAM: &str = "1h";

/// The object that the choice asks for; no object when it is not known what to choose.
pub(super) fn build(v: &Validated) -> Option<Exposure> {
    let chosen = v.exposure.as_ref()?;
    Some(Exposure { route: (*chosen == Some(Kind::Route)).then(|| route(v)) })
}

fn route(v: &Validated) -> DynamicObject {
    // Any pod answers anything: no cookie that binds a browser to one, and new requests to the least busy.
    let annotations = [
        ("haproxy.router.openshift.io/balance", "leastconn"),
        ("haproxy.router.openshift.io/disable_cookies", "true"),
        ("haproxy.router.openshift.io/timeout", STREAM),
    ];
    let mut spec = json!({
        "to": {"kind": "Service", "name": v.names.api(), "weight": 100},
        "port": {"targetPort": "http"},
        "tls": {"termination": "edge", "insecureEdgeTerminationPolicy": "Redirect"},
        "wildcardPolicy": "None",
    });
    if let Some(host) = &v.spec.exposure.host {
        spec["host"] = Value::String(host.clone());
    }
    let mut metadata = meta::owned(v, v.names.exposure(), Component::Api);
    metadata.annotations = Some(
        annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect::<BTreeMap<_, _>>(),
    );
    meta::custom(Kind::Route, metadata, &spec)
}
