//! The rights that the operator ships with: every operator of these tests runs under `config/rbac` and nothing more.

use e2e::cluster::ControlPlane;
use e2e::wait::wait_for;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use persesstack_operator::api::v1alpha1::PersesStack;
use serde_json::{Value, json};

use super::DEADLINE;
use crate::files;

/// Namespace of `config/default`.
const NAMESPACE: &str = "persesstack-system";
const ACCOUNT: &str = "persesstack-operator";

/// Applies `config/rbac` and waits until it is in force.
pub(super) async fn install(plane: &ControlPlane, client: &Client) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply(client, &namespace).await;
    for object in shipped() {
        apply(client, &object).await;
    }
    let stacks: Api<PersesStack> = Api::all(Client::try_from(of_the_operator(plane)).unwrap());
    wait_for("the roles to be in force", DEADLINE, || async { Ok(stacks.list(&ListParams::default()).await.ok()) })
        .await
        .unwrap();
}

/// Signs in as the service account that the roles are bound to.
pub(crate) fn of_the_operator(plane: &ControlPlane) -> kube::Config {
    let mut config = plane.config();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}"));
    config
}

/// Binds the Role of the operator's own namespace in `namespace`, for a test that has its lease there.
pub(crate) async fn own_namespace(client: &Client, namespace: &str) {
    let role = shipped().into_iter().find(|object| object["kind"] == "Role").unwrap();
    let mut role: Role = serde_json::from_value(role).unwrap();
    role.metadata.namespace = Some(namespace.to_owned());
    Api::<Role>::namespaced(client.clone(), namespace).create(&PostParams::default(), &role).await.unwrap();
    let binding = json!({
        "metadata": {"name": ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT},
    });
    let binding: RoleBinding = serde_json::from_value(binding).unwrap();
    Api::<RoleBinding>::namespaced(client.clone(), namespace).create(&PostParams::default(), &binding).await.unwrap();
}

/// The objects of `config/rbac`, in the namespace that `config/default` gives them.
fn shipped() -> Vec<Value> {
    let mut objects = Vec::new();
    for file in ["service_account.yaml", "role.yaml", "role_binding.yaml"] {
        let text = std::fs::read_to_string(files::workspace_dir().join("config/rbac").join(file)).unwrap();
        let parsed: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        objects.extend(parsed.into_iter().map(|mut object| {
            if !object["kind"].as_str().unwrap().starts_with("Cluster") {
                object["metadata"]["namespace"] = json!(NAMESPACE);
            }
            object
        }));
    }
    objects
}

async fn apply(client: &Client, object: &Value) {
    let text = |field: &str| object[field].as_str().unwrap();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = object["metadata"]["name"].as_str().unwrap();
    api.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await.unwrap();
}
