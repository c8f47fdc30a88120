//! Bindings to cluster roles: made once the stack holds them, removed with it, never taken from anybody.

use e2e::wait::wait_for;
use futures::StreamExt;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use persesstack_operator::apply::cluster::FINALIZER;
use persesstack_operator::client::fault::{Failure, Fault, Faults, Write};
use serde_json::{Value, json};

use crate::cluster::{DEADLINE, Operator, REPAIR, STACK, Space, World, alone, within};

fn spec() -> Value {
    json!({"users": 10, "auth": {"kubernetes": {}}})
}

fn bindings(space: &Space) -> Api<ClusterRoleBinding> {
    Api::all(space.client.clone())
}

fn name(space: &Space) -> String {
    format!("persesstack:{}:{STACK}:system:auth-delegator", space.namespace)
}

async fn finalizers(space: &Space) -> Vec<String> {
    space.stacks().get(STACK).await.unwrap().metadata.finalizers.unwrap_or_default()
}

async fn gone(space: &Space) {
    wait_for("the stack to go", DEADLINE, || async {
        Ok(space.stacks().get_opt(STACK).await?.is_none().then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_comes_and_goes_with_the_spec_and_with_the_stack() {
    let space = Space::new("bound").await;
    let (_world, operator) = (World::start(&space), Operator::start(&space));
    space.create(&spec()).await;
    space.condition("AuthReady", "True", "Configured").await;
    space.settled().await;
    let binding = bindings(&space).get(&name(&space)).await.unwrap();
    assert_eq!(binding.role_ref.name, "system:auth-delegator");
    let subject = &binding.subjects.unwrap()[0];
    assert_eq!((subject.name.as_str(), subject.namespace.as_deref()), ("perses-api", Some(space.namespace.as_str())));
    assert_eq!(finalizers(&space).await, [FINALIZER]);
    // Nothing is sent when nothing changed.
    let before = operator.faults.count();
    operator_looks(&space, &operator).await;
    assert_eq!(operator.faults.count(), before, "{:?}", operator.faults.writes());
    // Deleted by hand: it is made again.
    bindings(&space).delete(&name(&space), &DeleteParams::default()).await.unwrap();
    operator_looks(&space, &operator).await;
    within("the binding", DEADLINE, async || bindings(&space).get_opt(&name(&space)).await.unwrap()).await;

    space.change(&json!({"auth": {"kubernetes": null}})).await;
    within("the binding to go", DEADLINE, async || {
        let gone = bindings(&space).get_opt(&name(&space)).await.unwrap().is_none();
        (gone && finalizers(&space).await.is_empty()).then_some(())
    })
    .await;
    space.change(&json!({"auth": {"kubernetes": {}}})).await;
    within("the binding", DEADLINE, async || bindings(&space).get_opt(&name(&space)).await.unwrap()).await;
    space.settled().await;

    // Nobody works: the stack stays until its binding is removed.
    operator.stop().await;
    space.stacks().delete(STACK, &DeleteParams::background()).await.unwrap();
    assert!(space.stacks().get(STACK).await.unwrap().metadata.deletion_timestamp.is_some());
    let _operator = Operator::start(&space);
    gone(&space).await;
    assert!(bindings(&space).get_opt(&name(&space)).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_of_the_whole_cluster_repairs_a_binding_at_once() {
    let space = Space::on(alone(), "everywhere").await;
    let (_world, operator) = (World::start(&space), Operator::everywhere(&space));
    space.create(&spec()).await;
    space.settled().await;
    let before = bindings(&space).get(&name(&space)).await.unwrap();
    bindings(&space).delete(&name(&space), &DeleteParams::default()).await.unwrap();
    within("the binding to come back", REPAIR, async || bindings(&space).get_opt(&name(&space)).await.unwrap()).await;
    let edit = Patch::Merge(json!({"subjects": []}));
    bindings(&space).patch(&name(&space), &PatchParams::default(), &edit).await.unwrap();
    within("the repair", REPAIR, async || {
        (bindings(&space).get(&name(&space)).await.unwrap().subjects == before.subjects).then_some(())
    })
    .await;
    // An operator that may not remove it says so, and the stack stays.
    operator.stop().await;
    let mut config = space.plane.config();
    config.auth_info.impersonate = Some("system:serviceaccount:default:nobody".to_owned());
    allow_stacks_only(&space).await;
    let operator = Operator::on(config.clone(), &space, Faults::none());
    space.stacks().delete(STACK, &DeleteParams::background()).await.unwrap();
    let message = space.condition("Reconciling", "True", "RequestFailed").await;
    assert!(message.contains("could not be removed") && message.contains("cluster-wide"), "{message}");
    drop(operator);
    let operator = Operator::everywhere(&space);
    gone(&space).await;
    assert!(bindings(&space).get_opt(&name(&space)).await.unwrap().is_none());
    operator.stop().await;

    // One that may not see bindings makes the rest, and says what an administrator has to run.
    let _operator = Operator::on(config, &space, Faults::none());
    space.create(&spec()).await;
    let message = space.condition("AuthReady", "Unknown", "BindingForbidden").await;
    let command = format!("kubectl create clusterrolebinding {} --clusterrole=system:auth-delegator", name(&space));
    assert!(message.contains(&command), "{message}");
    space.settled().await;
    assert!(finalizers(&space).await.is_empty(), "there is nothing to remove");
}

/// Lets `nobody` do everything in the namespace, and nothing outside.
async fn allow_stacks_only(space: &Space) {
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "nobody"});
    let binding = json!({"metadata": {"name": "nobody"}, "roleRef": role,
        "subjects": [{"kind": "ServiceAccount", "name": "nobody", "namespace": "default"}]});
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let role: ClusterRole = serde_json::from_value(json!({"metadata": {"name": "nobody"}, "rules": rules})).unwrap();
    Api::all(space.client.clone()).create(&PostParams::default(), &role).await.unwrap();
    let binding: RoleBinding = serde_json::from_value(binding).unwrap();
    Api::namespaced(space.client.clone(), &space.namespace).create(&PostParams::default(), &binding).await.unwrap();
}

/// Wakes the operator and waits until it has looked.
async fn operator_looks(space: &Space, operator: &Operator) {
    for round in 0..2 {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"round": round.to_string()}}}));
        tokio::join!(operator.reconciled("ok"), async {
            space.stacks().patch(STACK, &PatchParams::default(), &patch).await.unwrap();
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_elses_binding_is_left_alone() {
    let space = Space::new("unbound").await;
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"});
    // The same operator's, for a stack of the same name in another namespace.
    let labels = json!({"app.kubernetes.io/managed-by": "persesstack-operator", "app.kubernetes.io/instance": STACK,
        "persesstack.io/namespace": "elsewhere"});
    let foreign = json!({"metadata": {"name": name(&space), "labels": labels}, "roleRef": role, "subjects": []});
    let foreign: ClusterRoleBinding = serde_json::from_value(foreign).unwrap();
    let before = bindings(&space).create(&PostParams::default(), &foreign).await.unwrap();
    let (_world, _operator) = (World::start(&space), Operator::start(&space));
    space.create(&spec()).await;
    let message = space.condition("NameConflict", "True", "ForeignObject").await;
    assert!(message.contains("ClusterRoleBinding") && message.contains("elsewhere"), "{message}");
    assert!(finalizers(&space).await.is_empty(), "there is nothing to remove");
    space.stacks().delete(STACK, &DeleteParams::background()).await.unwrap();
    gone(&space).await;
    let after = bindings(&space).get(&name(&space)).await.unwrap();
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version, "it was not touched");
    bindings(&space).delete(&name(&space), &DeleteParams::default()).await.unwrap();
}

/// Whether a write is about a binding or the finalizer.
fn concerns(write: &Write) -> bool {
    write.path.contains("clusterrolebindings") || write.path.ends_with(&format!("/persesstacks/{STACK}"))
}

/// The bindings of the stack to all cluster roles that there are.
async fn bound(space: &Space) -> Vec<ClusterRoleBinding> {
    let params = ListParams::default().labels(&format!("persesstack.io/namespace={}", space.namespace));
    bindings(space).list(&params).await.unwrap().items
}

/// Creates and deletes a stack with two bindings, each with a fault; the writes of both. Nobody plays its pods: bindings do
/// not wait for them.
async fn story(at_create: Option<Fault>, at_delete: Option<Fault>) -> (Vec<Write>, Vec<Write>) {
    let space = Space::new("undone").await;
    let mut spec = spec();
    spec["datasources"] = json!([{"name": "platform", "type": "OpenShift"}]);
    let created = async {
        space.create(&spec).await;
        wait_for("both bindings", DEADLINE, || async { Ok((bound(&space).await.len() == 2).then_some(())) })
            .await
            .unwrap();
    };
    let created = survives(&space, at_create, created, async {
        let safe = bound(&space).await.is_empty() || finalizers(&space).await == [FINALIZER];
        assert!(safe, "{at_create:?}: nobody would remove it");
    });
    let created = created.await;
    let deleted = async {
        space.stacks().delete(STACK, &DeleteParams::background()).await.unwrap();
        gone(&space).await;
    };
    let deleted = survives(&space, at_delete, deleted, async {}).await;
    assert!(bound(&space).await.is_empty(), "{at_delete:?}");
    (created, deleted)
}

/// Runs operators until something `ended`: one with a fault, and another one after its crash. The writes of both.
async fn survives(
    space: &Space,
    fault: Option<Fault>,
    ended: impl Future<Output = ()>,
    crashed: impl Future<Output = ()>,
) -> Vec<Write> {
    let faults = fault.map_or_else(Faults::none, Faults::with);
    let operator = Operator::with(space, faults.clone());
    tokio::pin!(ended);
    let (last, after) = tokio::select! {
        () = &mut ended => (operator, Faults::none()),
        () = faults.crashed() => {
            drop(operator);
            crashed.await;
            let survivor = Operator::start(space);
            ended.await;
            let after = survivor.faults.clone();
            (survivor, after)
        }
    };
    last.stop().await;
    assert!(fault.is_none() || faults.struck() > 0, "{fault:?} did not strike");
    [faults.writes(), after.writes()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_fault_around_a_binding_leaves_anything_behind() {
    let (created, deleted) = Box::pin(story(None, None)).await;
    let numbers = |writes: &[Write]| -> Vec<usize> {
        writes.iter().enumerate().filter(|(_, write)| concerns(write)).map(|(at, _)| at + 1).collect()
    };
    let (create, delete) = (numbers(&created), numbers(&deleted));
    // The finalizer and two bindings.
    assert!(create.len() == 3 && delete == [1, 2, 3], "{created:?} {deleted:?}");
    let faults = |numbers: &[usize]| -> Vec<Fault> {
        let of = |number: &usize| {
            let failures = Failure::ALL.map(|failure| Fault::Fail(*number, failure));
            [Fault::CrashBefore(*number), Fault::CrashAfter(*number), Fault::Duplicate(*number)]
                .into_iter()
                .chain(failures)
        };
        numbers.iter().flat_map(of).collect()
    };
    // Both halves of one run are independent of each other.
    let runs = faults(&create).into_iter().zip(faults(&delete)).map(|(create, delete)| {
        tokio::spawn(async move {
            let (_, deleted) = Box::pin(story(Some(create), Some(delete))).await;
            let lasting = deleted.iter().filter(|write| concerns(write)).count();
            assert!(lasting <= 4, "{delete:?}: {deleted:?}");
        })
    });
    futures::stream::iter(runs).buffer_unordered(8).for_each(async |run| run.unwrap()).await;
}
