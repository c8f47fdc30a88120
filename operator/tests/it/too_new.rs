//! A schema that the wished image cannot work with: nothing is rolled out, and what runs goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams};
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::conditions::{find, is_true};
use serde_json::{Value, json};

use crate::cluster::{DEADLINE, Fate, Operator, Space, World, within};
use crate::lifecycle::quiet;

const OLD: &str = "example.com/api:1";
const NEW: &str = "example.com/api:2";

fn image(name: &str) -> Value {
    json!({"images": {"apiServer": name}})
}

/// The API Deployment's image and generation.
async fn rolled(space: &Space) -> (String, Value) {
    let api = space.get(Kind::Deployment, "perses-api").await.unwrap();
    let image = api["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
    (image, api["metadata"]["generation"].clone())
}

async fn migrations(space: &Space) -> Vec<String> {
    space.api(Kind::Job).list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_image_is_refused_while_the_pods_of_the_later_one_go_on() {
    let space = Space::new("toonew").await;
    let restored = Arc::new(AtomicBool::new(false));
    let schema = Arc::clone(&restored);
    // The status of the server's `migrate` on a schema that it cannot work with.
    let _world = World::judging(&space, move |component, image| {
        let works = component != "migration" || image != OLD || schema.load(Ordering::SeqCst);
        if works { Fate::Works } else { Fate::Fails(3) }
    });
    let operator = Operator::start(&space);
    space.create(&json!({"users": 10, "images": {"apiServer": NEW}})).await;
    space.settled().await;
    let before = rolled(&space).await;
    assert_eq!(before.0, NEW);

    space.change(&image(OLD)).await;
    let message = space.condition("Stalled", "True", "SchemaTooNew").await;
    assert!(message.contains(OLD) && message.contains("spec.images.apiServer"), "{message}");
    space.condition("DatabaseReady", "False", "SchemaTooNew").await;
    let conditions = space.stacks().get("perses").await.unwrap().status.unwrap().conditions;
    assert!(is_true(&conditions, "Ready"), "{conditions:#?}");
    assert_eq!(find(&conditions, "Reconciling").unwrap().reason, "Stalled");
    let events: Api<Event> = Api::namespaced(space.client.clone(), &space.namespace);
    within("the event", DEADLINE, async || {
        let found = events.list(&ListParams::default()).await.unwrap();
        found.iter().any(|event| event.reason.as_deref() == Some("SchemaTooNew")).then_some(())
    })
    .await;
    assert_eq!(rolled(&space).await, before);

    // Forward again: no roll, for it never went back.
    space.change(&image(NEW)).await;
    space.condition("Reconciling", "False", "Settled").await;
    assert_eq!(rolled(&space).await, before);

    // A backup is restored; the next attempt, here a deleted Job, finds a schema that fits.
    space.change(&image(OLD)).await;
    space.condition("Stalled", "True", "SchemaTooNew").await;
    restored.store(true, Ordering::SeqCst);
    for job in migrations(&space).await {
        let _ = space.api(Kind::Job).delete(&job, &DeleteParams::background()).await;
    }
    space.condition("Reconciling", "False", "Settled").await;
    assert_eq!(rolled(&space).await.0, OLD);
    operator.reconciled_again(&space).await;
    quiet(&space, &operator).await;
}
