//! The ways in from outside, with a double that plays the router, the Gateway and the ingress controller.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::conditions::find;
use serde_json::{Value, json};

use crate::cluster::{DEADLINE, Operator, REPAIR, STACK, Space, World, alone, equipped, ingress_class, within};

/// Installs the definition of Gateways where it is not yet, and a Gateway with one listener.
pub(crate) async fn gateway(space: &Space, port: u16) {
    let folder = e2e::crds::folder().unwrap().unwrap();
    e2e::crds::install(&space.client, &folder, "gateways", "gateway.networking.k8s.io").await.unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway"));
    let listener = json!({"name": "tls", "port": port, "protocol": "HTTPS", "hostname": "*.example",
                          "tls": {"certificateRefs": [{"name": "wildcard"}]}});
    let gateway = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "public"},
                         "spec": {"gatewayClassName": "none", "listeners": [listener]}});
    let gateways: Api<DynamicObject> = Api::namespaced_with(space.client.clone(), &space.namespace, &resource);
    gateways.patch("public", &PatchParams::apply("test").force(), &Patch::Apply(&gateway)).await.unwrap();
}

/// What the object's controller would say.
pub(crate) async fn play(space: &Space, kind: Kind, status: Value) {
    let patch = Patch::Merge(json!({"status": status}));
    space.api(kind).patch_status(STACK, &PatchParams::default(), &patch).await.unwrap();
}

/// Status of an HTTPRoute that the Gateway accepts or not.
pub(crate) fn parents(accepted: &str) -> Value {
    let condition = |type_: &str, status: &str| {
        json!({"type": type_, "status": status, "reason": "Played", "message": "no such listener",
               "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1})
    };
    json!({"parents": [{"controllerName": "example.com/gateway", "parentRef": {"name": "public"},
                        "conditions": [condition("Accepted", accepted), condition("ResolvedRefs", "True")]}]})
}

async fn made(space: &Space, kind: Kind) -> Value {
    within(&format!("{kind:?}"), DEADLINE, async || space.get(kind, STACK).await).await
}

/// Deletes it and waits until it is there again.
async fn is_repaired(space: &Space, kind: Kind) {
    space.api(kind).delete(STACK, &DeleteParams::default()).await.unwrap();
    within(&format!("{kind:?} to come back"), REPAIR, async || space.get(kind, STACK).await).await;
}

async fn gone(space: &Space, kind: Kind) {
    within(&format!("{kind:?} to go"), DEADLINE, async || space.get(kind, STACK).await.is_none().then_some(())).await;
}

async fn url(space: &Space, expected: &str) {
    let is = |stack: &persesstack_operator::api::v1alpha1::PersesStack| stack.status.as_ref()?.url.clone();
    space.until(&format!("the address {expected}"), |stack| is(stack).as_deref() == Some(expected)).await;
}

/// Wakes the operator twice: it has nothing to write.
async fn quiet(space: &Space, operator: &Operator) {
    space.settled().await;
    operator.reconciled_again(space).await;
    let log = space.plane.audit();
    let mark = log.mark().unwrap();
    operator.reconciled_again(space).await;
    let agent = format!("operator-of-{}", space.namespace);
    let writes = log.writes_since(mark, |event| event.user_agent == agent).unwrap();
    assert!(writes.is_empty(), "{writes:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_in_takes_the_place_of_the_one_before() {
    let Some(plane) = equipped() else { return };
    let space = Space::on(plane, "switch").await;
    ingress_class(&space, "web").await;
    gateway(&space, 8443).await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    let ingress = json!({"type": "Ingress", "host": "a.example", "ingress": {"className": "web"}});
    space.create(&json!({"users": 10, "database": {"type": "Standalone"}, "exposure": ingress})).await;
    let object = made(&space, Kind::Ingress).await;
    assert_eq!(object["spec"]["ingressClassName"], "web");
    is_repaired(&space, Kind::Ingress).await;
    space.condition("ExposureReady", "False", "WaitingForAdmission").await;
    play(&space, Kind::Ingress, json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}})).await;
    space.condition("ExposureReady", "True", "Admitted").await;
    url(&space, "http://a.example").await;
    quiet(&space, &operator).await;

    let route = json!({"type": "HTTPRoute", "ingress": null, "httpRoute": {"gateway": {"name": "public"}}});
    space.change(&json!({"exposure": route})).await;
    made(&space, Kind::HttpRoute).await;
    is_repaired(&space, Kind::HttpRoute).await;
    gone(&space, Kind::Ingress).await;
    play(&space, Kind::HttpRoute, parents("False")).await;
    let message = space.condition("ExposureReady", "False", "NotAdmitted").await;
    assert!(message.contains("no such listener"), "{message}");
    play(&space, Kind::HttpRoute, parents("True")).await;
    space.condition("ExposureReady", "True", "Admitted").await;
    url(&space, "https://a.example:8443").await;
    quiet(&space, &operator).await;
    // Nothing of ours changes, and nothing is asked again for minutes.
    gateway(&space, 9443).await;
    url(&space, "https://a.example:9443").await;
    quiet(&space, &operator).await;

    space.change(&json!({"exposure": {"type": "Route", "httpRoute": null}})).await;
    made(&space, Kind::Route).await;
    gone(&space, Kind::HttpRoute).await;
    let admitted = json!({"type": "Admitted", "status": "True"});
    play(&space, Kind::Route, json!({"ingress": [{"host": "a.example", "conditions": [admitted]}]})).await;
    url(&space, "https://a.example").await;
    quiet(&space, &operator).await;

    space.change(&json!({"exposure": {"type": "None", "host": null}})).await;
    gone(&space, Kind::Route).await;
    url(&space, &format!("http://perses-api.{}.svc:8080", space.namespace)).await;
    let status = space.settled().await.status.unwrap();
    assert!(find(&status.conditions, "ExposureReady").is_none());
    quiet(&space, &operator).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn auto_uses_an_ingress_class_as_soon_as_there_is_one() {
    let space = Space::on(alone(), "class").await;
    let (_world, _operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10, "exposure": {"host": "a.example"}})).await;
    space.settled().await;
    assert!(space.get(Kind::Ingress, STACK).await.is_none());
    ingress_class(&space, "only").await;
    let object = made(&space, Kind::Ingress).await;
    assert_eq!(object["spec"]["ingressClassName"], "only");
    space.condition("ExposureReady", "False", "WaitingForAdmission").await;
    let status = space.until("the choice", |stack| {
        stack.status.as_ref().is_some_and(|status| status.exposure.is_some() && status.url.is_none())
    });
    let status = status.await.status.unwrap();
    assert_eq!(serde_json::to_value(status.exposure).unwrap(), json!({"type": "Ingress"}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_serve_https_when_their_certificate_is_there() {
    let space = Space::new("tls").await;
    let (_world, _operator) = (World::start(&space), Operator::start(&space));
    let tls = json!({"type": "Secret", "secret": {"name": "serving"}});
    space.create(&json!({"users": 10, "api": {"tls": tls}})).await;
    let message = space.condition("ApiReady", "False", "SecretNotFound").await;
    assert!(message.contains("Secret serving"), "{message}");
    space.condition("DatabaseReady", "True", "SchemaReady").await;
    assert!(space.get(Kind::Deployment, "perses-api").await.is_none());

    let secrets: Api<Secret> = Api::namespaced(space.client.clone(), &space.namespace);
    let secret = json!({"metadata": {"name": "serving"}, "stringData": {"tls.crt": "certificate", "tls.key": "key"}});
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let api = within("the pods", REPAIR, async || space.get(Kind::Deployment, "perses-api").await).await;
    let probe = &api["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"];
    assert_eq!(probe["scheme"], "HTTPS");
    assert_eq!(space.get(Kind::Service, "perses-api").await.unwrap()["spec"]["ports"][0]["appProtocol"], "https");
    space.settled().await;
    url(&space, &format!("https://perses-api.{}.svc:8080", space.namespace)).await;
}
