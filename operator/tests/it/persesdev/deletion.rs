//! No copy outlives its resource, and no resource waits for ever.

use std::time::Duration;

use kube::api::DeleteParams;
use persesstack_operator::controllers::persesdev::Pace;
use persesstack_operator::controllers::persesdev::kind::Kind;
use serde_json::json;

use super::{Fixture, NOWHERE, PACE, becomes, dashboard, stored};
use crate::cluster::{DEADLINE, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrowed_selector_removes_the_copies() {
    let Some(fixture) = Fixture::new("narrow").await else { return };
    let (one, two) = (fixture.stack("one").await, fixture.stack("two").await);
    let (one, two) = (
        one.client().await.map(|client| (one, client)).unwrap(),
        two.client().await.map(|client| (two, client)).unwrap(),
    );
    let path = format!("/api/v1/projects/{}/dashboards/cpu", fixture.space.namespace);
    fixture.create(Kind::Dashboard, "cpu", &dashboard(), &json!({})).await;
    let running = fixture.run();
    fixture.says(Kind::Dashboard, "cpu", "Synced").await;
    assert!(stored(&one.1, &path).await.is_some() && stored(&two.1, &path).await.is_some());
    // While nobody looks.
    running.stop().await;
    let narrowed = fixture.selector(&json!({"stack": "one"}));
    fixture.merge(Kind::Dashboard, "cpu", json!({"spec": {"instanceSelector": narrowed}})).await;
    let _running = fixture.run();
    becomes(&two.1, &path, false).await;
    let message = fixture.says(Kind::Dashboard, "cpu", "Synced").await;
    assert!(message.ends_with("/one"), "{message}");
    assert!(stored(&one.1, &path).await.is_some());

    // To none: nothing of ours is left on the resource, and what others wrote there is.
    let none = fixture.selector(&json!({"stack": "none"}));
    fixture.merge(Kind::Dashboard, "cpu", json!({"spec": {"instanceSelector": none}})).await;
    becomes(&one.1, &path, false).await;
    is_free(&fixture, "cpu").await;
}

/// Nothing of ours is left on a dashboard.
async fn is_free(fixture: &Fixture, name: &str) {
    within("the resource to be free", DEADLINE, async || {
        let object = fixture.api(Kind::Dashboard).get(name).await.unwrap();
        let free = object.metadata.finalizers.unwrap_or_default().is_empty()
            && !object.metadata.annotations.unwrap_or_default().contains_key("persesstack.io/copies");
        (free && fixture.condition(Kind::Dashboard, name).await.is_none()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_that_is_deleted_holds_no_resource_and_takes_them_up_when_it_is_made_again() {
    let Some(fixture) = Fixture::new("parted").await else { return };
    let stack = fixture.stack("perses").await;
    let server = stack.client().await.unwrap();
    let path = |name: &str| format!("/api/v1/projects/{}/dashboards/{name}", fixture.space.namespace);
    for name in ["kept", "deleted"] {
        fixture.create(Kind::Dashboard, name, &dashboard(), &json!({})).await;
    }
    let _running = fixture.run();
    for name in ["kept", "deleted"] {
        fixture.says(Kind::Dashboard, name, "Synced").await;
    }
    fixture.space.stacks().delete("perses", &DeleteParams::default()).await.unwrap();
    for name in ["kept", "deleted"] {
        is_free(&fixture, name).await;
    }
    fixture.delete(Kind::Dashboard, "deleted").await;
    fixture.gone(Kind::Dashboard, "deleted").await;

    // Made again over the data that was retained, copies included: what has no resource any more is swept.
    assert!(stored(&server, &path("kept")).await.is_some() && stored(&server, &path("deleted")).await.is_some());
    fixture.secrets().delete("perses-admin", &DeleteParams::default()).await.unwrap();
    fixture.stack_at("perses", &stack.url()).await;
    fixture.says(Kind::Dashboard, "kept", "Synced").await;
    becomes(&server, &path("deleted"), false).await;
    assert!(stored(&server, &path("kept")).await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resource_that_is_deleted_while_nobody_looks_takes_its_copy_along() {
    let Some(fixture) = Fixture::new("unseen").await else { return };
    let stack = fixture.stack("perses").await;
    let server = stack.client().await.unwrap();
    let project = fixture.space.namespace.clone();
    let path = |name: &str| format!("/api/v1/projects/{project}/dashboards/{name}");
    for name in ["kept", "deleted", "torn"] {
        fixture.create(Kind::Dashboard, name, &dashboard(), &json!({})).await;
    }
    let running = fixture.run();
    for name in ["kept", "deleted", "torn"] {
        fixture.says(Kind::Dashboard, name, "Synced").await;
    }
    running.stop().await;
    // Somebody duplicates a copy in the user interface, tags included.
    let mut duplicate = stored(&server, &path("kept")).await.unwrap();
    duplicate["metadata"]["name"] = json!("duplicate");
    server.apply(&duplicate).await.unwrap();
    fixture.delete(Kind::Dashboard, "deleted").await;
    assert!(fixture.api(Kind::Dashboard).get_opt("deleted").await.unwrap().is_some(), "its finalizer holds it");
    // Somebody tears the finalizer off: only the sweep can find that copy.
    fixture.merge(Kind::Dashboard, "torn", json!({"metadata": {"finalizers": null}})).await;
    fixture.delete(Kind::Dashboard, "torn").await;
    fixture.gone(Kind::Dashboard, "torn").await;

    let _running = fixture.run();
    fixture.gone(Kind::Dashboard, "deleted").await;
    becomes(&server, &path("deleted"), false).await;
    becomes(&server, &path("torn"), false).await;
    assert!(stored(&server, &path("kept")).await.is_some());
    assert!(stored(&server, &path("duplicate")).await.is_some(), "it is nobody's copy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_waits_for_a_stack_that_is_away_but_not_for_ever() {
    let Some(fixture) = Fixture::new("patience").await else { return };
    let mut stack = fixture.stack("perses").await;
    // Selected by nothing here: it must not be asked.
    fixture.stack_at("stranger", NOWHERE).await;
    let path = format!("/api/v1/projects/{}/dashboards/cpu", fixture.space.namespace);
    let only = json!({"stack": "perses"});
    for name in ["cpu", "memory"] {
        fixture.create(Kind::Dashboard, name, &dashboard(), &only).await;
    }
    let running = fixture.run();
    for name in ["cpu", "memory"] {
        fixture.says(Kind::Dashboard, name, "Synced").await;
    }
    stack.stop().await.unwrap();
    fixture.delete(Kind::Dashboard, "cpu").await;
    within("the deletion to say what it waits for", DEADLINE, async || {
        let condition = fixture.condition(Kind::Dashboard, "cpu").await?;
        (condition["reason"] == "Deleting").then(|| condition["message"].as_str().unwrap().to_owned())
    })
    .await;
    running.stop().await;

    // The time is over: the resource goes, and its copy when the stack answers again.
    let pace = Pace { patience: Duration::from_secs(1), sweep: Duration::from_secs(2), ..PACE };
    let running = fixture.run_with(pace, fixture.space.plane.config());
    fixture.gone(Kind::Dashboard, "cpu").await;
    stack.start_again().await.unwrap();
    let server = stack.client().await.unwrap();
    assert!(stored(&server, &path).await.is_some() || running.writes().len() == 1);
    becomes(&server, &path, false).await;

    // A stack that is gone is not waited for at all.
    stack.stop().await.unwrap();
    running.stop().await;
    let _running = fixture.run();
    fixture.space.stacks().delete("perses", &kube::api::DeleteParams::default()).await.unwrap();
    fixture.delete(Kind::Dashboard, "memory").await;
    fixture.gone(Kind::Dashboard, "memory").await;
}
