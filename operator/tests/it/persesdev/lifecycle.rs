//! The controller beside perses-operator, under its role, in one namespace, and with CRDs that come and go.

use e2e::crds;
use kube::api::{DeleteParams, DynamicObject, PostParams};
use persesstack_operator::controllers::persesdev::kind::{self, GROUP, Kind};
use serde_json::json;

use super::{Fixture, NOWHERE, PACE, becomes, dashboard, datasource, install, stored};
use crate::access::{Scope, account};
use crate::cluster::{DEADLINE, control_plane, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_perses_operator_syncs_is_refused_not_fought_over() {
    let Some(fixture) = Fixture::new("upstream").await else { return };
    let stack = fixture.stack("perses").await;
    let server = stack.client().await.unwrap();
    let resource = kind::instances();
    let instance: DynamicObject = serde_json::from_value(json!({
        "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": {"name": "upstream", "labels": {"test": fixture.space.namespace}}, "spec": {}}))
    .unwrap();
    fixture.instances().create(&PostParams::default(), &instance).await.unwrap();
    fixture.create(Kind::Dashboard, "cpu", &dashboard(), &json!({})).await;
    let running = fixture.run();
    let message = fixture.says(Kind::Dashboard, "cpu", "OwnedByPersesOperator").await;
    assert!(message.contains(&format!("{}/upstream", fixture.space.namespace)), "{message}");
    let path = format!("/api/v1/projects/{}/dashboards/cpu", fixture.space.namespace);
    assert!(stored(&server, &path).await.is_none() && running.writes().is_empty());
    let object = fixture.api(Kind::Dashboard).get("cpu").await.unwrap();
    assert!(object.metadata.finalizers.is_none(), "no finalizer on what is not ours");
    // That instance goes: ours it is, without any other event.
    fixture.instances().delete("upstream", &DeleteParams::default()).await.unwrap();
    fixture.says(Kind::Dashboard, "cpu", "Synced").await;
    assert!(stored(&server, &path).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_of_one_namespace_syncs_nothing_else() {
    let Some(fixture) = Fixture::new("single").await else { return };
    let stack = fixture.stack("perses").await;
    let server = stack.client().await.unwrap();
    let global = format!("everywhere-{}", fixture.space.namespace);
    fixture.create(Kind::GlobalDatasource, &global, &datasource("http://prometheus:9090", None), &json!({})).await;
    fixture.create(Kind::Dashboard, "cpu", &dashboard(), &json!({})).await;
    let _running = fixture.run();
    fixture.says(Kind::Dashboard, "cpu", "Synced").await;
    assert!(stored(&server, &format!("/api/v1/globaldatasources/{global}")).await.is_none());
    assert!(fixture.condition(Kind::GlobalDatasource, &global).await.is_none(), "it is not even looked at");
    fixture.delete(Kind::GlobalDatasource, &global).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_that_is_not_ready_is_waited_for() {
    let Some(fixture) = Fixture::new("notready").await else { return };
    let _stack = fixture.stack("perses").await;
    fixture.ready("perses", false).await;
    fixture.create(Kind::Dashboard, "cpu", &dashboard(), &json!({})).await;
    let running = fixture.run();
    fixture.says(Kind::Dashboard, "cpu", "WaitingForStack").await;
    assert!(running.writes().is_empty());
    fixture.ready("perses", true).await;
    fixture.says(Kind::Dashboard, "cpu", "Synced").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_without_native_sign_in_is_told_from_one_with_it() {
    let Some(fixture) = Fixture::new("native").await else { return };
    let server = fixture.stack("with").await;
    let oidc = json!([{"name": "sso", "issuer": "https://sso.example", "client": {"secretRef": {"name": "sso"}}}]);
    let without = [json!({"kubernetes": {}}), json!({"native": {"enabled": false}, "oidc": oidc})];
    for (at, auth) in without.into_iter().enumerate() {
        // Nobody asks there, and no password is sent.
        fixture.stack_with(&format!("without-{at}"), NOWHERE, &json!({"users": 5, "auth": auth})).await;
    }
    fixture.create(Kind::Dashboard, "cpu", &dashboard(), &json!({})).await;
    let _running = fixture.run();
    let message = fixture.says(Kind::Dashboard, "cpu", "SignInFailed").await;
    assert!(message.contains("no native sign-in") && message.contains("without-1"), "{message}");
    let path = format!("/api/v1/projects/{}/dashboards/cpu", fixture.space.namespace);
    becomes(&server.client().await.unwrap(), &path, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_role_is_enough_for_syncing() {
    let Some(fixture) = Fixture::wide("role").await else { return };
    let stack = fixture.stack("perses").await;
    let server = stack.client().await.unwrap();
    let config = account(&fixture.space, Scope::Cluster, "no such resource").await;
    let global = format!("everywhere-{}", fixture.space.namespace);
    let log = control_plane().audit();
    let mark = log.mark().unwrap();
    fixture.create(Kind::Dashboard, "cpu", &dashboard(), &json!({})).await;
    fixture.create(Kind::Datasource, "metrics", &datasource("http://prometheus:9090", None), &json!({})).await;
    fixture.create(Kind::GlobalDatasource, &global, &datasource("http://prometheus:9090", None), &json!({})).await;
    let running = fixture.run_with(PACE, config);
    for (kind, name) in [(Kind::Dashboard, "cpu"), (Kind::Datasource, "metrics"), (Kind::GlobalDatasource, &global)] {
        fixture.says(kind, name, "Synced").await;
        fixture.delete(kind, name).await;
        fixture.gone(kind, name).await;
    }
    assert!(stored(&server, &format!("/api/v1/globaldatasources/{global}")).await.is_none());
    let events = log.since(mark).unwrap().into_iter().filter(|event| event.user_agent == running.agent);
    let refused: Vec<_> =
        events.filter(|event| event.response_status.code == 403).map(|event| event.to_string()).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_come_and_go_without_a_restart() {
    let Some(folder) = crds::folder().unwrap() else { return };
    let fixture = Fixture::without_crds("comego").await;
    let client = fixture.space.client.clone();
    let stack = fixture.stack("perses").await;
    let server = stack.client().await.unwrap();
    let path = format!("/api/v1/projects/{}/dashboards/cpu", fixture.space.namespace);
    let _running = fixture.run();
    install(&fixture.space, &folder).await;
    fixture.create(Kind::Dashboard, "cpu", &dashboard(), &json!({})).await;
    fixture.says(Kind::Dashboard, "cpu", "Synced").await;
    becomes(&server, &path, true).await;
    // The definition goes, and with it its resources: their finalizers are served first.
    crds::remove(&client, "persesdashboards", GROUP).await.unwrap();
    becomes(&server, &path, false).await;
    crds::install(&client, &folder, "persesdashboards", GROUP).await.unwrap();
    within("the CRD to take resources", DEADLINE, async || {
        fixture.api(Kind::Dashboard).list(&kube::api::ListParams::default()).await.ok().map(drop)
    })
    .await;
    fixture.create(Kind::Dashboard, "cpu", &dashboard(), &json!({})).await;
    fixture.says(Kind::Dashboard, "cpu", "Synced").await;
    becomes(&server, &path, true).await;
}
