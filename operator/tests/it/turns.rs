//! A newer operator replaces the pods of a few stacks at a time.

use kube::api::PostParams;
use persesstack_operator::api::v1alpha1::PersesStack;
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::client::fault::Faults;
use persesstack_operator::conditions::{find, is_true};
use persesstack_operator::settings::{DefaultImages, Settings};
use serde_json::json;

use crate::cluster::{DEADLINE, Operator, Space, World, rights, within};

const NAMES: [&str; 3] = ["one", "two", "three"];
const NEW: &str = "example.com/api:2";

/// Stacks whose API Deployment has the new image.
async fn renewed(space: &Space) -> Vec<&'static str> {
    let mut renewed = Vec::new();
    for name in NAMES {
        let api = space.get(Kind::Deployment, &format!("{name}-api")).await;
        let image = api.map(|api| api["spec"]["template"]["spec"]["containers"][0]["image"].clone());
        if image.is_some_and(|image| image == NEW) {
            renewed.push(name);
        }
    }
    renewed
}

async fn all(space: &Space, what: &str, check: impl Fn(&PersesStack) -> bool) {
    within(what, DEADLINE, async || {
        let stacks = space.stacks().list(&kube::api::ListParams::default()).await.ok()?.items;
        (stacks.len() == NAMES.len() && stacks.iter().all(&check)).then_some(())
    })
    .await;
}

fn settled(stack: &PersesStack) -> bool {
    let conditions = stack.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let still = find(conditions, "Reconciling").is_some_and(|found| found.status == "False");
    still && is_true(conditions, "Ready")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stack_after_the_other_gets_the_new_pods() {
    let space = Space::new("turns").await;
    let (world, operator) = (World::start(&space), Operator::start(&space));
    for name in NAMES {
        let stack = json!({"metadata": {"name": name}, "spec": {"users": 5, "pooler": {"type": "None"}}});
        space.stacks().create(&PostParams::default(), &serde_json::from_value(stack).unwrap()).await.unwrap();
    }
    all(&space, "three stacks to settle", settled).await;
    operator.stop().await;
    drop(world);

    // The new API pods do not start for now.
    let world = World::with(&space, |component| component != "api");
    let images = DefaultImages { api_server: NEW.to_owned(), ..DefaultImages::default() };
    let settings = Settings { images, max_rolling: 1, ..Settings::default() };
    let config = rights::of_the_operator(space.plane);
    let operator = Operator::set_up(config, &space, Faults::none(), settings);
    within("the first stack to roll", DEADLINE, async || (renewed(&space).await.len() == 1).then_some(())).await;
    let rolling = renewed(&space).await;
    let waits = |stack: &PersesStack| {
        let conditions = stack.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        find(conditions, "Reconciling").is_some_and(|found| found.reason == "WaitingForTurn")
    };
    all(&space, "the others to wait", |stack| {
        waits(stack) || stack.metadata.name.as_deref() == rolling.first().copied()
    })
    .await;
    assert_eq!(renewed(&space).await, rolling, "one at a time");
    // What waits is repaired all the same.
    let waiting = NAMES.into_iter().find(|name| !rolling.contains(name)).unwrap();
    let service = format!("{waiting}-api");
    space.api(Kind::Service).delete(&service, &kube::api::DeleteParams::default()).await.unwrap();
    within("the repair of a stack that waits", crate::cluster::REPAIR, async || {
        space.get(Kind::Service, &service).await
    })
    .await;
    // A person who asks for a change does not stand in line.
    let change = kube::api::Patch::Merge(json!({"spec": {"api": {"config": {"security": {"readonly": true}}}}}));
    space.stacks().patch(waiting, &kube::api::PatchParams::default(), &change).await.unwrap();
    within("the change that was asked for", DEADLINE, async || renewed(&space).await.contains(&waiting).then_some(()))
        .await;

    drop(world);
    let _world = World::start(&space);
    all(&space, "all to be renewed", settled).await;
    assert_eq!(renewed(&space).await, NAMES);
    drop(operator);
}
