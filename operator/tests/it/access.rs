//! The operator under the role that it ships with: no request is refused.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Api, PostParams};
use persesstack_operator::client::fault::Faults;
use persesstack_operator::rbac;
use serde_json::{Value, json};

use crate::cluster::{Operator, Space, World, control_plane, equipped};

const ACCOUNT: &str = "persesstack-operator";

/// Where the role for watched namespaces holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everywhere.
    Cluster,
    /// In the test's namespace: nothing that is cluster-wide may be read.
    Namespace,
}

/// Creates the account with both roles, without `forbidden` resources, and gives a configuration that acts as it.
pub(crate) async fn account(space: &Space, scope: Scope, forbidden: &str) -> kube::Config {
    let (client, namespace) = (space.client.clone(), space.namespace.as_str());
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let account = serde_json::from_value(json!({"metadata": {"name": ACCOUNT}})).unwrap();
    accounts.create(&PostParams::default(), &account).await.unwrap();
    let (mut cluster_role, mut role) = (rbac::cluster_role(), rbac::role());
    for rule in cluster_role.rules.iter_mut().flatten() {
        rule.resources.iter_mut().flatten().for_each(|resource| *resource = resource.replace(forbidden, "nothing"));
    }
    // Bound under the names of this test: tests run side by side.
    (cluster_role.metadata.name, role.metadata.name) = (Some(namespace.to_owned()), Some(namespace.to_owned()));
    role.metadata.namespace = Some(namespace.to_owned());
    Api::<ClusterRole>::all(client.clone()).create(&PostParams::default(), &cluster_role).await.unwrap();
    Api::<Role>::namespaced(client.clone(), namespace).create(&PostParams::default(), &role).await.unwrap();
    let binding = |kind: &str| -> Value {
        json!({"metadata": {"name": namespace},
               "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
               "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": namespace}})
    };
    let bindings = Api::<RoleBinding>::namespaced(client.clone(), namespace);
    if scope == Scope::Cluster {
        let cluster: ClusterRoleBinding = serde_json::from_value(binding("ClusterRole")).unwrap();
        Api::<ClusterRoleBinding>::all(client).create(&PostParams::default(), &cluster).await.unwrap();
    } else {
        let mut watched = binding("ClusterRole");
        watched["metadata"]["name"] = json!(format!("{namespace}-watched"));
        let watched: RoleBinding = serde_json::from_value(watched).unwrap();
        bindings.create(&PostParams::default(), &watched).await.unwrap();
    }
    let own: RoleBinding = serde_json::from_value(binding("Role")).unwrap();
    bindings.create(&PostParams::default(), &own).await.unwrap();

    let mut config = space.plane.config();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:{ACCOUNT}"));
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shipped_role_is_enough() {
    let space = Space::new("access").await;
    let config = account(&space, Scope::Cluster, "-").await;
    let log = control_plane().audit();
    let mark = log.mark().unwrap();
    let (_world, operator) = (World::start(&space), Operator::on(config, &space, Faults::none()));
    space.create(&json!({"users": 10, "auth": {"kubernetes": {}}})).await;
    space.settled().await;
    space.change(&json!({"cache": {"type": "None"}})).await;
    space.settled().await;
    space.delete().await;
    drop(operator);
    let agent = format!("operator-of-{}", space.namespace);
    let events = log.since(mark).unwrap().into_iter().filter(|event| event.user_agent == agent);
    let refused: Vec<String> =
        events.filter(|event| event.response_status.code == 403).map(|event| event.to_string()).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_of_one_namespace_does_without_what_it_may_not_read() {
    let space = Space::new("own").await;
    let config = account(&space, Scope::Namespace, "-").await;
    let log = control_plane().audit();
    let mark = log.mark().unwrap();
    let (_world, operator) = (World::start(&space), Operator::on(config, &space, Faults::none()));
    // Auto would look for an IngressClass.
    space.create(&json!({"users": 10, "exposure": {"host": "a.example"}})).await;
    space.settled().await;
    let looks = operator.reconciles("ok");
    let agent = format!("operator-of-{}", space.namespace);
    let events = log.since(mark).unwrap().into_iter().filter(|event| event.user_agent == agent);
    let refused: Vec<_> = events.filter(|event| event.response_status.code == 403).collect();
    let of = |resource: &str| refused.iter().filter(|event| event.object_ref.resource == resource).count();
    let (definitions, classes) = (of("customresourcedefinitions"), of("ingressclasses"));
    let (nodes, storage) = (of("nodes"), of("storageclasses"));
    assert_eq!(definitions + classes + nodes + storage, refused.len(), "{refused:#?}");
    assert!(nodes > 0 && nodes <= 3 && storage <= 3, "asked once a minute: {refused:#?}");
    assert_eq!(definitions, 1, "asked once, then never again: {refused:#?}");
    assert!(classes > 0 && looks > 0, "{classes} {looks}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_optional_kind_that_may_not_be_read_holds_back_nothing_else() {
    let Some(plane) = equipped() else { return };
    let space = Space::on(plane, "denied").await;
    let config = account(&space, Scope::Cluster, "routes").await;
    let (_world, operator) = (World::start(&space), Operator::on(config, &space, Faults::none()));
    space.create(&json!({"users": 10, "database": {"type": "Standalone"}})).await;
    let message = space.condition("ExposureReady", "Unknown", "ApiUnavailable").await;
    assert!(message.contains("the operator's role"), "{message}");
    space.condition("Ready", "True", "PodsReady").await;
    assert!(operator.reconciles("apply") == 0 && operator.reconciles("observe") == 0, "nothing failed");
}
