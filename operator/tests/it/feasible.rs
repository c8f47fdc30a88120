//! What does not fit is told before the first write, and never takes a running stack down.

use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::client::fault::Faults;
use persesstack_operator::conditions::{find, is_true};
use serde_json::{Value, json};

use crate::access::{Scope, account};
use crate::cluster::{Operator, STACK, Space, World};

async fn quota(space: &Space, hard: Value) {
    let quotas: Api<ResourceQuota> = Api::namespaced(space.client.clone(), &space.namespace);
    let quota = serde_json::from_value(json!({"metadata": {"name": "team"}, "spec": {"hard": hard}})).unwrap();
    quotas.create(&PostParams::default(), &quota).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_that_does_not_fit_is_not_begun() {
    let space = Space::new("quota").await;
    quota(&space, json!({"requests.memory": "1Gi", "requests.cpu": "100"})).await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10})).await;
    let message = space.condition("Feasible", "False", "QuotaTooSmall").await;
    assert!(message.contains("ResourceQuota team: requests.memory") && message.contains("are missing"), "{message}");
    let stack = space.until("the rest of the status", |stack| stack.status.is_some()).await;
    let conditions = stack.status.unwrap().conditions;
    assert!(is_true(&conditions, "Stalled") && !is_true(&conditions, "Ready"), "{conditions:?}");
    let ours = space.objects().await;
    let ours: Vec<_> = ours.iter().filter(|o| o["metadata"]["labels"]["app.kubernetes.io/instance"] == STACK).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    let writes = operator.faults.writes();
    assert!(writes.iter().all(|write| write.path.ends_with("/status")), "{writes:#?}");

    // Told by the annotation to go on, it does; the condition stays.
    let ignore = Patch::Merge(json!({"metadata": {"annotations": {"persesstack.io/feasibility": "Ignore"}}}));
    space.stacks().patch(STACK, &PatchParams::default(), &ignore).await.unwrap();
    space
        .until("objects", |stack| {
            find(&stack.status.as_ref().unwrap().conditions, "Stalled").unwrap().status == "False"
        })
        .await;
    assert!(space.get(Kind::Service, "perses-api").await.is_some());
    space.condition("Feasible", "False", "QuotaTooSmall").await;
    space.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_stack_is_told_and_left_alone() {
    let space = Space::new("shrunk").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&json!({"users": 10, "quota": "Enabled"})).await;
    space.settled().await;
    // No node takes pods here, which is no obstacle.
    let message = space.condition("Feasible", "Unknown", "NotAllSeen").await;
    assert!(message.contains("nodes"), "{message}");
    assert!(space.get(Kind::ResourceQuota, "perses-quota").await.is_some());
    let before = operator.faults.count();
    quota(&space, json!({"pods": "1"})).await;
    let ranges: Api<LimitRange> = Api::namespaced(space.client.clone(), &space.namespace);
    let range =
        json!({"metadata": {"name": "rules"}, "spec": {"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]}});
    ranges.create(&PostParams::default(), &serde_json::from_value(range).unwrap()).await.unwrap();
    let wake = Patch::Merge(json!({"metadata": {"labels": {"wake": "1"}}}));
    space.stacks().patch(STACK, &PatchParams::default(), &wake).await.unwrap();
    let told = |stack: &persesstack_operator::api::v1alpha1::PersesStack| {
        let conditions = &stack.status.as_ref().unwrap().conditions;
        find(conditions, "Feasible")
            .is_some_and(|found| found.message.contains("LimitRange rules allows at most memory 64Mi"))
            && is_true(conditions, "Ready")
    };
    space.until("the condition", told).await;
    let writes = operator.faults.writes().split_off(before);
    assert!(writes.iter().all(|write| write.path.ends_with("/status")), "{writes:#?}");
    // What it has is still kept: an object that is deleted comes back.
    space.api(Kind::Service).delete("perses-redis", &DeleteParams::background()).await.unwrap();
    crate::cluster::within("the Service to come back", crate::cluster::REPAIR, async || {
        space.get(Kind::Service, "perses-redis").await
    })
    .await;
    space.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_namespaced_operator_may_not_see_is_no_obstacle() {
    let space = Space::new("namespaced").await;
    let config = account(&space, Scope::Namespace, "-").await;
    let (_world, operator) = (World::start(&space), Operator::on(config, &space, Faults::none()));
    space.create(&json!({"users": 10})).await;
    space.settled().await;
    let message = space.condition("Feasible", "Unknown", "NotAllSeen").await;
    for unseen in ["storage classes (the operator may not list them)", "nodes (the operator may not list them)"] {
        assert!(message.contains(unseen), "{message}");
    }
    assert!(!message.contains("quotas"), "{message}");
    drop(operator);
    space.remove().await;
}
