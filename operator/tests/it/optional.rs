//! APIs that come, go, and are out of order while the operator runs. Each test has a cluster of its own.

use std::time::Duration;

use e2e::cluster::ControlPlane;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::conditions::{find, is_true};
use persesstack_operator::controllers::persesstack::capabilities::CapabilityCache;
use persesstack_operator::controllers::persesstack::observed::Availability;
use serde_json::{Value, json};

use crate::cluster::{
    DEADLINE, Operator, REPAIR, STACK, Space, World, alone, control_plane, equipped, install_kind, remove_kind, within,
};
use crate::exposure::{gateway, parents, play};

/// Long before the operator would ask again by itself.
const NOTICED: Duration = Duration::from_secs(30);

fn definitions() -> bool {
    e2e::crds::folder().unwrap().is_some()
}

/// Plays the router: takes up the Route and admits it, or says why not.
async fn admit(space: &Space, host: &str, refused: Option<&str>) {
    let status = if refused.is_some() { "False" } else { "True" };
    let condition = json!({"type": "Admitted", "status": status, "message": refused.unwrap_or_default()});
    let router = json!({"host": host, "routerName": "default", "conditions": [condition]});
    let patch = Patch::Merge(json!({"status": {"ingress": [router]}}));
    space.api(Kind::Route).patch_status(STACK, &PatchParams::default(), &patch).await.unwrap();
}

async fn route(space: &Space) -> Value {
    within("the Route", NOTICED, async || space.get(Kind::Route, STACK).await).await
}

/// Wakes the operator, waits until it has looked, and gives the writes that it sent meanwhile.
async fn writes(space: &Space, operator: &Operator, result: &str) -> Vec<String> {
    if result == "ok" {
        // Another way in is another configuration of the pods: they roll first.
        space.settled().await;
        operator.reconciled_again(space).await;
    }
    let log = space.plane.audit();
    let mark = log.mark().unwrap();
    for round in 0..2 {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"round": round.to_string()}}}));
        tokio::join!(operator.reconciled(result), async {
            space.stacks().patch(STACK, &PatchParams::default(), &patch).await.unwrap();
        });
    }
    let agent = format!("operator-of-{}", space.namespace);
    let events = log.writes_since(mark, |event| event.user_agent == agent).unwrap();
    events.iter().map(ToString::to_string).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_comes_is_used_and_one_that_goes_leaves_the_stack() {
    if !definitions() {
        return;
    }
    let space = Space::on(alone(), "comes").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10})).await;
    let status = space.settled().await.status.unwrap();
    assert!(
        find(&status.conditions, "ExposureReady").is_none() && status.url.unwrap().starts_with("http://perses-api.")
    );

    install_kind(&space.client, Kind::Route).await;
    let made = route(&space).await;
    assert_eq!(made["spec"]["to"]["name"], "perses-api");
    assert!(made["metadata"]["ownerReferences"][0]["name"] == STACK, "it goes with the stack");
    space.condition("ExposureReady", "False", "WaitingForAdmission").await;
    let stack =
        space.until("no address", |stack| stack.status.as_ref().is_some_and(|status| status.url.is_none())).await;
    assert!(is_true(&stack.status.unwrap().conditions, "Ready"));
    // What the API server filled in is no difference.
    assert_eq!(writes(&space, &operator, "ok").await, [""; 0]);

    admit(&space, "perses.apps.example", None).await;
    space.condition("ExposureReady", "True", "Admitted").await;
    let url = |stack: &persesstack_operator::api::v1alpha1::PersesStack| stack.status.as_ref()?.url.clone();
    space.until("the address", |stack| url(stack).as_deref() == Some("https://perses.apps.example")).await;
    admit(&space, "perses.apps.example", Some("the host is taken")).await;
    let message = space.condition("ExposureReady", "False", "NotAdmitted").await;
    assert!(message.contains("the host is taken"), "{message}");
    admit(&space, "perses.apps.example", None).await;
    space.condition("ExposureReady", "True", "Admitted").await;

    // Watched since it is there: an edit and a deletion are repaired.
    let edit = Patch::Merge(json!({"spec": {"to": {"name": "other"}}}));
    space.api(Kind::Route).patch(STACK, &PatchParams::default(), &edit).await.unwrap();
    within("the repair", REPAIR, async || {
        (space.get(Kind::Route, STACK).await?["spec"]["to"]["name"] == "perses-api").then_some(())
    })
    .await;
    space.api(Kind::Route).delete(STACK, &DeleteParams::default()).await.unwrap();
    within("the Route to come back", REPAIR, async || space.get(Kind::Route, STACK).await).await;

    let before = space.get(Kind::Deployment, "perses-api").await.unwrap();
    remove_kind(&space.client, Kind::Route).await;
    within("the stack to go on without", NOTICED, async || {
        let status = space.stacks().get(STACK).await.unwrap().status?;
        (find(&status.conditions, "ExposureReady").is_none() && is_true(&status.conditions, "Ready")).then_some(())
    })
    .await;
    assert_eq!(writes(&space, &operator, "ok").await, [""; 0]);
    let after = space.get(Kind::Deployment, "perses-api").await.unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);

    install_kind(&space.client, Kind::Route).await;
    route(&space).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_for_and_not_there_is_waited_for() {
    if !definitions() {
        return;
    }
    let space = Space::on(alone(), "asked").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10, "exposure": {"type": "Route", "host": "a.example"}})).await;
    let message = space.condition("ExposureReady", "False", "ApiAbsent").await;
    assert!(message.contains("route.openshift.io/v1"), "{message}");
    space.condition("Ready", "True", "PodsReady").await;
    install_kind(&space.client, Kind::Route).await;
    assert_eq!(route(&space).await["spec"]["host"], "a.example");
    space.settled().await;

    // HTTPRoutes without Gateways: what is not there is not watched, so no watch fails.
    install_kind(&space.client, Kind::HttpRoute).await;
    let failures = watch_failures(&operator);
    let http_route = json!({"type": "HTTPRoute", "httpRoute": {"gateway": {"name": "public"}}});
    space.change(&json!({"exposure": http_route})).await;
    within("the HTTPRoute", NOTICED, async || space.get(Kind::HttpRoute, STACK).await).await;
    space.settled().await;
    operator.reconciled_again(&space).await;
    assert_eq!(watch_failures(&operator), failures);
    // They come, and a Gateway: its listener decides the address.
    gateway(&space, 8443).await;
    play(&space, Kind::HttpRoute, parents("True")).await;
    let url = |stack: &persesstack_operator::api::v1alpha1::PersesStack| stack.status.as_ref()?.url.clone();
    space.until("the address", |stack| url(stack).as_deref() == Some("https://a.example:8443")).await;
    // From now on they are watched: of our own objects nothing changes.
    gateway(&space, 9443).await;
    space.until("the new address", |stack| url(stack).as_deref() == Some("https://a.example:9443")).await;
}

/// Watches that ended badly so far.
fn watch_failures(operator: &Operator) -> String {
    let text = operator.metrics.text();
    text.lines().find(|line| line.starts_with("persesstack_watch_errors_total ")).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_optional_kind_is_found_where_its_definition_is() {
    let Some(plane) = equipped() else { return };
    let found = async |plane: &ControlPlane| {
        let cache = CapabilityCache::default();
        let capabilities = cache.get(&plane.client().unwrap()).await.unwrap();
        (Kind::OPTIONAL.map(|kind| capabilities.of(kind)), capabilities.gateways)
    };
    for (plane, all) in [(plane, Availability::Present), (control_plane(), Availability::Absent)] {
        assert_eq!(found(plane).await, ([all; Kind::OPTIONAL.len()], all));
    }
}

fn api_services(space: &Space) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("apiregistration.k8s.io", "v1", "APIService");
    Api::all_with(space.client.clone(), &ApiResource::from_gvk(&gvk))
}

/// Registers an API whose server does not exist. In the place of a definition's own registration it takes the definition's
/// kinds out of order, as an aggregated API server does that is away.
async fn take_down(space: &Space, version: &str, group: &str) {
    let name = format!("{version}.{group}");
    let service = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": name, "labels": {"kube-aggregator.kubernetes.io/automanaged": null}},
        "spec": {"group": group, "version": version, "groupPriorityMinimum": 1000, "versionPriority": 100,
                 "insecureSkipTLSVerify": true,
                 "service": {"namespace": space.namespace, "name": "does-not-exist", "port": 443}}});
    let services = api_services(space);
    if services.get_opt(&name).await.unwrap().is_some() {
        services.patch(&name, &PatchParams::default(), &Patch::Merge(&service)).await.unwrap();
    } else {
        let mut service = service;
        service["metadata"]["labels"] = json!({});
        let service: DynamicObject = serde_json::from_value(service).unwrap();
        services.create(&kube::api::PostParams::default(), &service).await.unwrap();
    }
    within("the API to be out of order", DEADLINE, async || {
        let service = services.get(&name).await.ok()?;
        let conditions = service.data["status"]["conditions"].as_array()?.clone();
        conditions.iter().any(|found| found["type"] == "Available" && found["status"] == "False").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_down_causes_no_write() {
    if !definitions() {
        return;
    }
    let space = Space::on(alone(), "down").await;
    install_kind(&space.client, Kind::Route).await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10})).await;
    route(&space).await;
    admit(&space, "perses.apps.example", None).await;
    space.condition("ExposureReady", "True", "Admitted").await;
    space.settled().await;
    let before = space.get(Kind::Route, STACK).await.unwrap();

    // Somebody else's API: the operator does not even notice.
    take_down(&space, "v1", "metrics.example.com").await;
    assert_eq!(writes(&space, &operator, "ok").await, [""; 0]);

    // One that this stack uses: it says so, keeps the address, and leaves everything as it is.
    let log = space.plane.audit();
    let mark = log.mark().unwrap();
    take_down(&space, "v1", "route.openshift.io").await;
    let woken = Patch::Merge(json!({"metadata": {"labels": {"round": "down"}}}));
    space.stacks().patch(STACK, &PatchParams::default(), &woken).await.unwrap();
    let message = space.condition("ExposureReady", "Unknown", "ApiUnavailable").await;
    assert!(message.contains("route.openshift.io/v1"), "{message}");
    let stack = space.stacks().get(STACK).await.unwrap().status.unwrap();
    assert!(is_true(&stack.conditions, "Ready"));
    assert_eq!(stack.url.as_deref(), Some("https://perses.apps.example"));
    writes(&space, &operator, "waiting").await;
    // A restarted operator has no memory of what was there.
    operator.stop().await;
    let operator = Operator::start(&space);
    assert_eq!(writes(&space, &operator, "waiting").await, [""; 0]);
    let agent = format!("operator-of-{}", space.namespace);
    let sent =
        log.writes_since(mark, |event| event.user_agent == agent && event.object_ref.resource != "events").unwrap();
    assert!(sent.iter().all(|event| event.object_ref.subresource == "status"), "{sent:#?}");
    assert_eq!(sent.len(), 1, "{sent:#?}");
    // The rest is kept as it should be.
    let edit = Patch::Merge(json!({"spec": {"ports": [{"name": "http", "port": 8080, "targetPort": 9999}]}}));
    space.api(Kind::Service).patch("perses-api", &PatchParams::default(), &edit).await.unwrap();
    within("the repair", REPAIR, async || {
        (space.get(Kind::Service, "perses-api").await?["spec"]["ports"][0]["targetPort"] == "http").then_some(())
    })
    .await;

    // Back again: the registration of the definition is made anew.
    api_services(&space).delete("v1.route.openshift.io", &DeleteParams::default()).await.unwrap();
    space.condition("ExposureReady", "True", "Admitted").await;
    let after = space.get(Kind::Route, STACK).await.unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["metadata"]["generation"], before["metadata"]["generation"]);
}
