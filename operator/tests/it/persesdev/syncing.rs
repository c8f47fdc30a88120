//! From resources to documents, and nothing more than needed.

use persesstack_operator::controllers::persesdev::kind::Kind;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Fixture, NOWHERE, PACE, becomes, dashboard, datasource, stored, version};
use crate::cluster::{DEADLINE, control_plane, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resources_become_documents_and_a_restart_writes_nothing() {
    let Some(fixture) = Fixture::wide("sync").await else { return };
    let stack = fixture.stack("perses").await;
    let server = stack.client().await.unwrap();
    let project = fixture.space.namespace.clone();
    let global = format!("everywhere-{project}");
    fixture.create(Kind::Dashboard, "cpu", &dashboard(), &json!({})).await;
    fixture
        .merge(Kind::Dashboard, "cpu", json!({"metadata": {"annotations": {"perses.dev/tags": "Slo, team-a"}}}))
        .await;
    fixture.create(Kind::Datasource, "metrics", &datasource("http://prometheus:9090", None), &json!({})).await;
    fixture.create(Kind::GlobalDatasource, &global, &datasource("http://prometheus:9090", None), &json!({})).await;
    let running = fixture.run();
    for (kind, name) in [(Kind::Dashboard, "cpu"), (Kind::Datasource, "metrics"), (Kind::GlobalDatasource, &global)] {
        let message = fixture.says(kind, name, "Synced").await;
        assert_eq!(message, format!("synced into {project}/perses"));
    }
    let found = stored(&server, &format!("/api/v1/projects/{project}/dashboards/cpu")).await.unwrap();
    assert_eq!(found["spec"], dashboard(), "the spec as it was sent");
    let tags: Vec<_> = found["metadata"]["tags"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(tags.contains(&"slo") && tags.contains(&"team-a") && tags.len() == 3, "{tags:?}");
    assert!(stored(&server, &format!("/api/v1/projects/{project}/datasources/metrics")).await.is_some());
    assert!(stored(&server, &format!("/api/v1/globaldatasources/{global}")).await.is_some());
    // Two may make the project at the same time; one of them is told that it is there.
    let made = running.writes().into_iter().filter(|line| line.contains("changed")).count();
    assert_eq!(made, 4, "one create each, of the project too: {:?}", running.writes());
    running.stop().await;

    // With empty memories, woken again and again: nothing is written, neither there nor here.
    let log = control_plane().audit();
    let mark = log.mark().unwrap();
    let running = fixture.run();
    let reads = async || {
        let text = String::from_utf8(server.get("/metrics").await.unwrap().body.to_vec()).unwrap();
        let read = |line: &&str| {
            line.starts_with("perses_http_request_total{")
                && line.contains("method=\"GET\"")
                && line.contains("/api/v1/projects/{project}/dashboards/{name}")
        };
        text.lines().filter(read).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    for round in 0..3 {
        let before = reads().await;
        fixture.merge(Kind::Dashboard, "cpu", json!({"metadata": {"labels": {"round": round.to_string()}}})).await;
        within("a look at the dashboard", DEADLINE, async || (reads().await > before).then_some(())).await;
    }
    assert!(running.writes().is_empty(), "{:?}", running.writes());
    let writes = log.writes_since(mark, |event| event.user_agent == running.agent).unwrap();
    assert!(writes.is_empty(), "{writes:#?}");
    running.stop().await;
    fixture.delete(Kind::GlobalDatasource, &global).await;
    let _running = fixture.run();
    fixture.gone(Kind::GlobalDatasource, &global).await;
    assert!(stored(&server, &format!("/api/v1/globaldatasources/{global}")).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_in_the_user_interface_is_repaired_at_the_next_look() {
    let Some(fixture) = Fixture::new("repair").await else { return };
    let stack = fixture.stack("perses").await;
    let server = stack.client().await.unwrap();
    let path = format!("/api/v1/projects/{}/dashboards/cpu", fixture.space.namespace);
    fixture.create(Kind::Dashboard, "cpu", &dashboard(), &json!({})).await;
    let pace = persesstack_operator::controllers::persesdev::Pace { resync: std::time::Duration::from_secs(2), ..PACE };
    let _running = fixture.run_with(pace, fixture.space.plane.config());
    fixture.says(Kind::Dashboard, "cpu", "Synced").await;
    let mut edited = stored(&server, &path).await.unwrap();
    edited["spec"]["duration"] = json!("6h");
    server.send(Method::PUT, &path, Some(&edited)).await.unwrap().ok().unwrap();
    within("the repair", DEADLINE, async || {
        let found = stored(&server, &path).await?;
        (found["spec"] == dashboard() && found["metadata"]["version"] == 2).then_some(())
    })
    .await;
    // Deleted there: it comes back.
    server.send(Method::DELETE, &path, None).await.unwrap().ok().unwrap();
    becomes(&server, &path, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stack_that_is_away_does_not_hold_up_the_others() {
    let Some(fixture) = Fixture::new("away").await else { return };
    let stack = fixture.stack("here").await;
    fixture.stack_at("there", NOWHERE).await;
    let server = stack.client().await.unwrap();
    let path = format!("/api/v1/projects/{}/dashboards/cpu", fixture.space.namespace);
    fixture.create(Kind::Dashboard, "cpu", &dashboard(), &json!({})).await;
    let _running = fixture.run();
    let message = fixture.says(Kind::Dashboard, "cpu", "StackUnreachable").await;
    assert!(message.contains("/here") && message.contains("/there: the server does not answer"), "{message}");
    assert!(stored(&server, &path).await.is_some());
    // A change arrives meanwhile.
    let mut changed = dashboard();
    changed["duration"] = json!("2h");
    fixture.merge(Kind::Dashboard, "cpu", json!({"spec": {"config": changed}})).await;
    within("the change", DEADLINE, async || (stored(&server, &path).await?["spec"] == changed).then_some(())).await;
    // And it comes back by itself.
    let there = e2e::services::ApiServer::start("admin", super::PASSWORD, &json!({})).await.unwrap();
    fixture.addresses.lock().insert(format!("{}/there", fixture.space.namespace), there.url());
    fixture.says(Kind::Dashboard, "cpu", "Synced").await;
    assert!(stored(&there.client().await.unwrap(), &path).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_refuses_is_told_with_the_place() {
    let Some(fixture) = Fixture::new("refused").await else { return };
    let stack = fixture.stack("perses").await;
    let server = stack.client().await.unwrap();
    let mut wrong = dashboard();
    wrong["layouts"] = json!([{"kind": "Grid", "spec": {"items": [
        {"x": 0, "y": 0, "width": 1, "height": 1, "content": {"$ref": "#/spec/panels/nothing"}}]}}]);
    fixture.create(Kind::Dashboard, "cpu", &wrong, &json!({})).await;
    let _running = fixture.run();
    let message = fixture.says(Kind::Dashboard, "cpu", "Refused").await;
    assert!(message.contains("400") && message.contains("nothing"), "{message}");
    fixture.merge(Kind::Dashboard, "cpu", json!({"spec": {"config": {"layouts": []}}})).await;
    fixture.says(Kind::Dashboard, "cpu", "Synced").await;
    assert!(stored(&server, &format!("/api/v1/projects/{}/dashboards/cpu", fixture.space.namespace)).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_dashboard_is_left_alone_until_it_is_adopted() {
    let Some(fixture) = Fixture::new("taken").await else { return };
    let stack = fixture.stack("perses").await;
    let server = stack.client().await.unwrap();
    let project = fixture.space.namespace.clone();
    let path = format!("/api/v1/projects/{project}/dashboards/cpu");
    server.apply(&json!({"kind": "Project", "metadata": {"name": project}, "spec": {}})).await.unwrap();
    let mine = json!({"duration": "3h", "panels": {}, "layouts": []});
    let document = json!({"kind": "Dashboard", "metadata": {"name": "cpu", "project": project}, "spec": mine});
    server.apply(&document).await.unwrap();
    fixture.create(Kind::Dashboard, "cpu", &dashboard(), &json!({})).await;
    let running = fixture.run();
    let message = fixture.says(Kind::Dashboard, "cpu", "NameTaken").await;
    assert!(message.contains("persesstack.io/adopt"), "{message}");
    assert_eq!(stored(&server, &path).await.unwrap()["spec"], mine);
    assert!(running.writes().is_empty(), "{:?}", running.writes());
    // Its deletion leaves what is not ours.
    fixture.delete(Kind::Dashboard, "cpu").await;
    fixture.gone(Kind::Dashboard, "cpu").await;
    assert_eq!(version(stored(&server, &path).await), 0);

    fixture.create(Kind::Dashboard, "cpu", &dashboard(), &json!({})).await;
    fixture.merge(Kind::Dashboard, "cpu", json!({"metadata": {"annotations": {"persesstack.io/adopt": "true"}}})).await;
    fixture.says(Kind::Dashboard, "cpu", "Synced").await;
    assert_eq!(stored(&server, &path).await.unwrap()["spec"], dashboard());
}
