//! What makes the service reachable from outside: a Route, an HTTPRoute or an Ingress.
//!
//! Common to them: any pod answers anything, so no client is bound to a pod; a stream may be silent for long; the path of
//! the service is the whole host.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec,
    IngressTLS, ServiceBackendPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde_json::json;

use super::labels::Component;
use super::{Exposure, meta};
use crate::apply::kind::Kind;
use crate::controllers::persesstack::exposure::Exposed;
use crate::controllers::persesstack::validate::Validated;
use crate::controllers::persesstack::waits::Part;

/// How long a proxy waits for the next byte of a stream, in seconds; the server sends something far more often.
const STREAM_SECONDS: u32 = 3600;

/// The object that the choice asks for; `None` while the choice, or what the object says, is not known.
pub(super) fn build(v: &Validated) -> Option<Exposure> {
    if v.waits.of(Part::Exposure).is_some() {
        return None;
    }
    let mut exposure = Exposure { route: None, http_route: None, ingress: None };
    match v.exposure.as_ref()? {
        Exposed::Nothing => {}
        Exposed::Route => exposure.route = Some(route(v)),
        Exposed::HttpRoute => exposure.http_route = http_route(v),
        Exposed::Ingress { class } => exposure.ingress = Some(ingress(v, class.as_deref())),
    }
    Some(exposure)
}

fn metadata(v: &Validated, annotations: &[(&str, &str)]) -> ObjectMeta {
    let ours = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let annotations: BTreeMap<_, _> = ours.chain(v.spec.exposure.annotations.clone()).collect();
    ObjectMeta {
        annotations: (!annotations.is_empty()).then_some(annotations),
        ..meta::owned(v, v.names.exposure(), Component::Api)
    }
}

/// Annotations of HAProxy in OpenShift's router: its defaults bind a browser to a pod by a cookie, choose pods at random, and
/// cut what is silent for 30 s.
fn route(v: &Validated) -> DynamicObject {
    let annotations = [
        ("haproxy.router.openshift.io/balance", "leastconn"),
        ("haproxy.router.openshift.io/disable_cookies", "true"),
        ("haproxy.router.openshift.io/timeout", &format!("{STREAM_SECONDS}s")),
    ];
    let termination = if v.spec.api.tls.is_some() { "reencrypt" } else { "edge" };
    let mut tls = json!({"termination": termination, "insecureEdgeTerminationPolicy": "Redirect"});
    // Without it the router trusts OpenShift's service CA.
    if let Some(ca) = v.serving_tls.as_ref().and_then(|tls| tls.ca.as_ref()) {
        tls["destinationCACertificate"] = json!(ca);
    }
    if let Some(own) = &v.spec.exposure.tls {
        tls["externalCertificate"] = json!({"name": own.secret_ref.name});
    }
    let mut spec = json!({
        "to": {"kind": "Service", "name": v.names.api(), "weight": 100},
        "port": {"targetPort": "http"},
        "tls": tls,
        "wildcardPolicy": "None",
    });
    if let Some(host) = &v.spec.exposure.host {
        spec["host"] = json!(host);
    }
    meta::custom(Kind::Route, metadata(v, &annotations), &spec)
}

fn http_route(v: &Validated) -> Option<DynamicObject> {
    let gateway = &v.spec.exposure.http_route.as_ref()?.gateway;
    let mut parent = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway.name});
    if let Some(namespace) = &gateway.namespace {
        parent["namespace"] = json!(namespace);
    }
    if let Some(section) = &gateway.section_name {
        parent["sectionName"] = json!(section);
    }
    let mut spec = json!({
        "parentRefs": [parent],
        "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "backendRefs": [{"group": "", "kind": "Service", "name": v.names.api(), "port": 8080, "weight": 1}],
            // None: a stream is one request, and the server has its own limits.
            "timeouts": {"request": "0s"},
        }],
    });
    if let Some(host) = &v.spec.exposure.host {
        spec["hostnames"] = json!([host]);
    }
    Some(meta::custom(Kind::HttpRoute, metadata(v, &[]), &spec))
}

/// The annotations are those of ingress-nginx; other controllers have no use for them.
fn ingress(v: &Validated, class: Option<&str>) -> Ingress {
    let seconds = STREAM_SECONDS.to_string();
    let mut annotations = vec![
        ("nginx.ingress.kubernetes.io/proxy-buffering", "off"),
        ("nginx.ingress.kubernetes.io/proxy-read-timeout", seconds.as_str()),
        ("nginx.ingress.kubernetes.io/proxy-send-timeout", seconds.as_str()),
        // The server has the limit.
        ("nginx.ingress.kubernetes.io/proxy-body-size", "0"),
    ];
    if v.spec.api.tls.is_some() {
        annotations.push(("nginx.ingress.kubernetes.io/backend-protocol", "HTTPS"));
    }
    let (host, own) = (v.spec.exposure.host.clone(), v.spec.exposure.tls.as_ref());
    let tls = own.map(|own| IngressTLS {
        hosts: host.clone().map(|host| vec![host]),
        secret_name: Some(own.secret_ref.name.clone()),
    });
    let port = ServiceBackendPort { name: Some("http".to_owned()), number: None };
    let backend = IngressBackend {
        service: Some(IngressServiceBackend { name: v.names.api(), port: Some(port) }),
        resource: None,
    };
    let paths = vec![HTTPIngressPath { path: Some("/".to_owned()), path_type: "Prefix".to_owned(), backend }];
    Ingress {
        metadata: metadata(v, &annotations),
        spec: Some(IngressSpec {
            ingress_class_name: class.map(str::to_owned),
            rules: Some(vec![IngressRule { host, http: Some(HTTPIngressRuleValue { paths }) }]),
            tls: tls.map(|tls| vec![tls]),
            default_backend: None,
        }),
        status: None,
    }
}
