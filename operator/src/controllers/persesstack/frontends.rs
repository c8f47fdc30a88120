//! What stands in front of the cluster (I/O): the IngressClasses, and the Gateway that the spec names. Read only where the
//! spec leaves a choice to them or an address depends on them.

use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use serde_json::Value;

use super::Stack;
use super::context::Context;
use super::observed::{Availability, Capabilities, IngressClass, Listener};
use crate::api::v1alpha1::{Exposure, ExposureType};
use crate::apply::owner::StackId;
use crate::apply::{ApplyError, verb};

/// The cluster's IngressClasses; `None` when nothing depends on them or they may not be read.
pub(super) async fn ingress_classes(
    context: &Context,
    spec: &Exposure,
) -> Result<Option<Vec<IngressClass>>, ApplyError> {
    let auto = spec.type_ == ExposureType::Auto && spec.host.is_some();
    if !auto && spec.type_ != ExposureType::Ingress {
        return Ok(None);
    }
    let classes: Api<networking::IngressClass> = Api::all(context.client.clone());
    match classes.list(&ListParams::default()).await {
        Ok(list) => Ok(Some(list.items.iter().map(ingress_class).collect())),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        Err(source) => Err(ApplyError::new("IngressClass", "", verb::LIST, source)),
    }
}

fn ingress_class(class: &networking::IngressClass) -> IngressClass {
    let default = class.annotations().get("ingressclass.kubernetes.io/is-default-class");
    IngressClass { name: class.name_any(), default: default.is_some_and(|value| value == "true") }
}

/// Listeners of the Gateway that the spec names; none when it does not exist or may not be read.
pub(super) async fn listeners(
    context: &Context,
    spec: &Exposure,
    capabilities: Capabilities,
    id: &StackId,
) -> Result<Vec<Listener>, ApplyError> {
    let named = spec.http_route.as_ref().map(|route| &route.gateway);
    let Some(gateway) = named.filter(|_| capabilities.gateways == Availability::Present) else {
        return Ok(Vec::new());
    };
    let namespace = gateway.namespace.as_deref().unwrap_or(&id.namespace);
    let gateways: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &self::gateway());
    match gateways.get(&gateway.name).await {
        Ok(found) => Ok(from_gateway(&found.data)),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(Vec::new()),
        Err(source) => Err(ApplyError::new("Gateway", &gateway.name, verb::GET, source)),
    }
}

/// The kind of Gateways.
pub(super) fn gateway() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway"))
}

/// Those of `stacks` whose spec names the Gateway.
pub(super) fn behind(gateway: &ObjectMeta, stacks: &Store<Stack>) -> Vec<ObjectRef<Stack>> {
    let names = |stack: &Stack| {
        let spec = stack.0.as_ref().ok().and_then(|stack| stack.spec.exposure.http_route.as_ref());
        spec.is_some_and(|route| {
            let namespace = route.gateway.namespace.as_ref().or(stack.meta().namespace.as_ref());
            gateway.name.as_ref() == Some(&route.gateway.name) && gateway.namespace.as_ref() == namespace
        })
    };
    stacks.state().iter().filter(|stack| names(stack)).map(|stack| ObjectRef::from_obj(&**stack)).collect()
}

fn from_gateway(gateway: &Value) -> Vec<Listener> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let listener = |listener: &Value| {
        Some(Listener {
            name: text(&listener["name"])?,
            protocol: text(&listener["protocol"])?,
            port: listener["port"].as_i64()?,
            hostname: text(&listener["hostname"]),
        })
    };
    gateway["spec"]["listeners"].as_array().into_iter().flatten().filter_map(listener).collect()
}
