//! How the service is reached from outside the cluster.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::spec::LocalReference;

/// How the service is reached from outside the cluster.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type != 'None' || !(has(self.host) || has(self.tls) || has(self.annotations))").message("type is None: host, tls and annotations have nothing to apply to"))]
#[x_kube(validation = Rule::new("self.type != 'HTTPRoute' || has(self.httpRoute)").message("type is HTTPRoute: name the Gateway in httpRoute.gateway").field_path(".httpRoute"))]
#[x_kube(validation = Rule::new("!has(self.httpRoute) || self.type in ['HTTPRoute', 'Auto']").message("httpRoute can be set only when type is HTTPRoute or Auto").field_path(".httpRoute"))]
#[x_kube(validation = Rule::new("self.type != 'HTTPRoute' || !has(self.tls)").message("the Gateway has the certificate: tls cannot be set when type is HTTPRoute").field_path(".tls"))]
#[x_kube(validation = Rule::new("self.type != 'Ingress' || has(self.host)").message("type is Ingress: set host, or the Ingress would take the requests of every host").field_path(".host"))]
#[x_kube(validation = Rule::new("!has(self.ingress) || self.type in ['Ingress', 'Auto']").message("ingress can be set only when type is Ingress or Auto").field_path(".ingress"))]
pub struct Exposure {
    /// Kind of exposure.
    #[serde(default, rename = "type")]
    pub type_: ExposureType,
    /// Host name of the service, for example `perses.example.com`. Without one OpenShift's router chooses it for a Route, and
    /// the Gateway's listeners decide for an HTTPRoute; an Ingress needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub host: Option<String>,
    /// Own certificate of a Route or an Ingress. Without it a Route has the router's, and an Ingress serves plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ExposureTls>,
    /// Annotations of the Route, HTTPRoute or Ingress, added to the operator's and stronger than them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The HTTPRoute's Gateway; under Auto an HTTPRoute is chosen only when this is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRoute>,
    /// The Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// Addresses and networks (CIDR) of the proxies in front, whose X-Forwarded-For is believed. Default: the private
    /// networks, among them those of pods and nodes; unless type is None.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 2, max = 43)))]
    pub trusted_proxies: Option<Vec<String>>,
}

/// Kinds of exposure.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum ExposureType {
    /// A Route where the cluster has them; else an HTTPRoute when a Gateway is named; else an Ingress when a host is set and
    /// the cluster has an IngressClass for it; else nothing.
    #[default]
    Auto,
    /// A Route of OpenShift.
    Route,
    /// An HTTPRoute of the Gateway API.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// An Ingress.
    Ingress,
    /// The service is reached inside the cluster only.
    None,
}

/// An own certificate.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ExposureTls {
    /// Secret of type `kubernetes.io/tls` in the stack's namespace. OpenShift's router must be allowed to read it.
    pub secret_ref: LocalReference,
}

/// An HTTPRoute.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    /// The Gateway to attach to.
    pub gateway: Gateway,
}

/// A Gateway, or one of its listeners.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; the stack's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// Name of one listener; every listener that takes the route when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// An Ingress.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Ingress {
    /// Name of the IngressClass. Without it the cluster's default class, or its only one, is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
}
