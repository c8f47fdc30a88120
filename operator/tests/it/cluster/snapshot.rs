//! The end state of a namespace, without what differs from run to run.

use std::collections::BTreeMap;

use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams};
use persesstack_operator::apply::REPLICAS_MANAGER;
use persesstack_operator::apply::kind::Kind;
use serde_json::{Value, json};

use super::{STACK, Space};

/// Secrets that are generated once.
const GENERATED: [&str; 6] =
    ["perses-keys", "perses-admin", "perses-redis", "perses-redis-peers", "perses-db", "perses-pgbouncer-client"];

/// Content of the generated Secrets that exist.
pub(crate) async fn generated(space: &Space) -> BTreeMap<String, Value> {
    let secrets = space.api(Kind::Secret).list(&ListParams::default()).await.unwrap();
    let of = |secret: DynamicObject| (secret.name_any(), secret.data["data"].clone());
    secrets.into_iter().map(of).filter(|(name, _)| GENERATED.contains(&name.as_str())).collect()
}

/// UID of every object and of the stack, and the API server's record of who wrote which fields and when. Without the status:
/// controllers go on writing that.
pub(crate) async fn versions(space: &Space) -> BTreeMap<String, Value> {
    let identity = |metadata: &Value| {
        let written = metadata["managedFields"].as_array().cloned().unwrap_or_default();
        let written: Vec<_> = written.into_iter().filter(|entry| entry["subresource"] != "status").collect();
        json!([metadata["uid"], written])
    };
    let mut all = BTreeMap::new();
    for object in space.objects().await {
        let id = format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        all.insert(id, identity(&object["metadata"]));
    }
    let stack = serde_json::to_value(space.stacks().get_opt(STACK).await.unwrap()).unwrap();
    all.insert("stack".to_owned(), identity(&stack["metadata"]));
    all
}

/// Every object and the stack's status, by kind and name.
pub(crate) async fn normalised(space: &Space) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let uid = space.stacks().get_opt(STACK).await.unwrap().and_then(|stack| {
        let status = serde_json::to_string(&stack.status).unwrap();
        let generation = format!("generation {} of", stack.metadata.generation.unwrap_or_default());
        let status = serde_json::from_str(&status.replace(&generation, "generation N of")).unwrap();
        all.insert("status".to_owned(), mask(status, &space.namespace));
        stack.metadata.uid
    });
    for object in space.objects().await {
        let id = format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
        let owners: Vec<_> = owners
            .iter()
            .map(|owner| if owner["uid"].as_str() == uid.as_deref() { "stack" } else { "other" })
            .collect();
        let mut spec = object["spec"].clone();
        strip(&mut spec);
        let data = object["data"].as_object().map(|data| data.keys().cloned().collect::<Vec<_>>());
        let managers = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let mut managers: Vec<_> = managers
            .iter()
            .map(|entry| entry["manager"].clone())
            // Who keeps the number of pods for the autoscaler is there once a Deployment has been applied a second time.
            .filter(|name| {
                name.as_str().is_some_and(|name| name.starts_with("persesstack") && name != REPLICAS_MANAGER)
            })
            .collect();
        managers.sort_by_key(ToString::to_string);
        managers.dedup();
        let value = json!({"labels": object["metadata"]["labels"], "owners": owners, "spec": spec, "data": data, "managers": managers});
        all.insert(id, mask(value, &space.namespace));
    }
    // The host of a PostgresCluster has the namespace in it, and so have the hashes of settings that name it.
    if all.keys().any(|id| id.starts_with("PostgresCluster ")) { without_hashes(all) } else { all }
}

/// With one word for the hashes in names.
fn without_hashes(all: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let hashed = |id: &String| {
        let name = id.split(' ').nth(1)?;
        let (stem, _) = name.rsplit_once('-')?;
        ["perses-migrate", "perses-api-config"].contains(&stem).then(|| (name.to_owned(), format!("{stem}-HASH")))
    };
    let names: Vec<_> = all.keys().filter_map(hashed).collect();
    let masked = |text: String| names.iter().fold(text, |text, (name, masked)| text.replace(name, masked));
    all.into_iter().map(|(id, value)| (masked(id), serde_json::from_str(&masked(value.to_string())).unwrap())).collect()
}

/// Removes what the API server or a controller fills in differently each time.
fn strip(value: &mut Value) {
    const VOLATILE: [&str; 12] = [
        "clusterIP",
        "clusterIPs",
        "persesstack.io/config-hash",
        "volumeName",
        "batch.kubernetes.io/controller-uid",
        "controller-uid",
        "healthCheckNodePort",
        "lastTransitionTime",
        "observedGeneration",
        "suspendedAt",
        "wakingSince",
        "lastWakeSeconds",
    ];
    match value {
        Value::Object(object) => {
            object.retain(|key, _| !VOLATILE.contains(&key.as_str()));
            object.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

fn mask(mut value: Value, namespace: &str) -> Value {
    strip(&mut value);
    let text = value.to_string().replace(namespace, "NAMESPACE");
    serde_json::from_str(&text).unwrap()
}
