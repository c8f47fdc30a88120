//! Argo CD's health checks.

use serde_json::{Value, json};

use crate::files;

fn script(name: &str) -> String {
    std::fs::read_to_string(files::workspace_dir().join("config/argocd").join(name)).expect("script")
}

fn health(name: &str, object: &Value) -> (String, String) {
    e2e::lua::health(&script(name), object).unwrap()
}

fn stack(observed: i64, conditions: &[(&str, &str)]) -> Value {
    let conditions: Vec<_> = conditions
        .iter()
        .map(|(type_, status)| json!({"type": type_, "status": status, "reason": "R", "message": format!("m of {type_}")}))
        .collect();
    json!({"metadata": {"generation": 2}, "status": {"observedGeneration": observed, "conditions": conditions}})
}

#[test]
fn health_of_a_stack() {
    let of = |object: &Value| health("persesstack.lua", object).0;
    assert_eq!(of(&json!({"metadata": {"generation": 1}})), "Progressing");
    let ready = [("Ready", "True"), ("Reconciling", "False"), ("Stalled", "False")];
    assert_eq!(of(&stack(2, &ready)), "Healthy");
    assert_eq!(of(&stack(1, &ready)), "Progressing", "the status of an older spec");
    assert_eq!(of(&stack(2, &[("Ready", "True"), ("Reconciling", "True"), ("Stalled", "False")])), "Progressing");
    let stalled = stack(2, &[("Ready", "True"), ("Reconciling", "False"), ("Stalled", "True")]);
    assert_eq!(health("persesstack.lua", &stalled), ("Degraded".to_owned(), "m of Stalled".to_owned()));
    assert_eq!(of(&stack(2, &[("Ready", "False"), ("Reconciling", "False"), ("Stalled", "False")])), "Degraded");
    let asleep = [("Ready", "False"), ("Reconciling", "False"), ("Stalled", "False"), ("Suspended", "True")];
    assert_eq!(of(&stack(2, &asleep)), "Suspended");
    let falling = [("Ready", "False"), ("Reconciling", "True"), ("Stalled", "False"), ("Suspended", "False")];
    assert_eq!(of(&stack(2, &falling)), "Progressing");
}

#[test]
fn health_of_a_postgres_cluster() {
    let good = json!({
        "metadata": {"generation": 3},
        "spec": {"instances": [{"name": "instance", "replicas": 3}, {"replicas": 1}], "proxy": {"pgBouncer": {}}},
        "status": {
            "observedGeneration": 3,
            "instances": [{"name": "instance", "replicas": 3, "readyReplicas": 3, "updatedReplicas": 3},
                          {"name": "01", "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1}],
            "conditions": [{"type": "ProxyAvailable", "status": "True", "message": ""}],
        },
    });
    let of = |change: &dyn Fn(&mut Value)| {
        let mut object = good.clone();
        change(&mut object);
        health("postgrescluster.lua", &object).0
    };
    assert_eq!(of(&|_| {}), "Healthy");
    assert_eq!(of(&|o| o["status"] = Value::Null), "Progressing");
    assert_eq!(of(&|o| o["status"]["observedGeneration"] = json!(2)), "Progressing");
    assert_eq!(of(&|o| o["status"]["instances"][0]["readyReplicas"] = json!(2)), "Progressing");
    assert_eq!(of(&|o| o["status"]["instances"][1]["updatedReplicas"] = json!(0)), "Progressing");
    assert_eq!(of(&|o| o["status"]["instances"] = json!([])), "Progressing");
    assert_eq!(of(&|o| o["status"]["conditions"][0]["status"] = json!("False")), "Progressing");
    assert_eq!(of(&|o| o["spec"]["shutdown"] = json!(true)), "Suspended");
    let condition = |type_: &str, status: &str, reason: &str| json!([{"type": type_, "status": status, "reason": reason, "message": "why"}]);
    assert_eq!(of(&|o| o["status"]["conditions"] = condition("Progressing", "False", "Paused")), "Suspended");
    assert_eq!(of(&|o| o["status"]["conditions"] = condition("Progressing", "False", "Invalid")), "Degraded");
    assert_eq!(of(&|o| o["status"]["conditions"] = condition("PersistentVolumeResizeError", "True", "X")), "Degraded");
}

#[test]
fn the_config_map_for_argocd_is_generated() {
    let indented = |name: &str| -> String {
        script(name)
            .lines()
            .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") })
            .collect()
    };
    let text = format!(
        "# Generated from the .lua files by `UPDATE=1 cargo test`; do not edit.\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  \
         name: argocd-cm\n  namespace: argocd\n  labels:\n    app.kubernetes.io/part-of: argocd\ndata:\n  \
         resource.customizations.health.persesstack.io_PersesStack: |\n{}  \
         resource.customizations.health.postgres-operator.crunchydata.com_PostgresCluster: |\n{}",
        indented("persesstack.lua"),
        indented("postgrescluster.lua"),
    );
    files::generated("config/argocd/argocd-cm.yaml", "UPDATE=1 cargo test", &text);
    let parsed: Value = serde_saphyr::from_str(&text).unwrap();
    let check = &parsed["data"]["resource.customizations.health.persesstack.io_PersesStack"];
    assert_eq!(check.as_str(), Some(script("persesstack.lua").as_str()));
}
