use proptest::prelude::*;
use serde_json::json;

use super::*;

fn base() -> PodTemplateSpec {
    serde_json::from_value(json!({
        "metadata": {"labels": {"app.kubernetes.io/name": "perses"}},
        "spec": {
            "restartPolicy": "Always",
            "containers": [{
                "name": "api", "image": "image",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5},
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }))
    .unwrap()
}

fn merged(own: &Value) -> Result<Value, String> {
    let merged = merge(base(), own.as_object().unwrap()).map_err(|invalid| invalid.message)?;
    Ok(serde_json::to_value(merged).unwrap())
}

#[test]
fn lists_merge_by_their_keys() {
    let own = json!({
        "metadata": {"labels": {"team": "a"}, "annotations": {"sidecar.istio.io/inject": "false"}},
        "spec": {
            "tolerations": [{"key": "spot", "operator": "Exists"}],
            "nodeSelector": {"disk": "fast"},
            "containers": [
                {"name": "api", "env": [{"name": "OTEL_SERVICE_NAME", "value": "perses"}],
                 "readinessProbe": {"periodSeconds": 9}, "ports": [{"name": "debug", "containerPort": 9999}],
                 "volumeMounts": [{"name": "extra", "mountPath": "/extra"}]},
                {"name": "sidecar", "image": "other"}],
            "volumes": [{"name": "extra", "configMap": {"name": "mine"}}],
        },
    });
    let result = merged(&own).unwrap();
    let api = &result["spec"]["containers"][0];
    assert_eq!(api["image"], "image");
    assert_eq!(api["readinessProbe"], json!({"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 9}));
    assert_eq!(api["ports"].as_array().unwrap().len(), 2);
    assert_eq!(api["volumeMounts"].as_array().unwrap().len(), 2);
    assert_eq!(result["spec"]["containers"][1], json!({"name": "sidecar", "image": "other"}));
    assert_eq!(result["spec"]["volumes"].as_array().unwrap().len(), 2);
    assert_eq!(result["spec"]["tolerations"][0]["key"], "spot");
    assert_eq!(result["metadata"]["labels"], json!({"app.kubernetes.io/name": "perses", "team": "a"}));
}

#[test]
fn what_the_operator_must_set_is_refused_by_its_name() {
    let api = |container: Value| {
        let mut container = container;
        container["name"] = json!("api");
        json!({"spec": {"containers": [container]}})
    };
    let cases = [
        (json!({"spec": {"restartPolicy": "Never"}}), "podTemplate.spec.restartPolicy"),
        (json!({"spec": {"terminationGracePeriodSeconds": 1}}), "podTemplate.spec.terminationGracePeriodSeconds"),
        (json!({"metadata": {"labels": {"app.kubernetes.io/name": "x"}}}), "app.kubernetes.io/name"),
        (json!({"metadata": {"annotations": {"persesstack.io/x": "x"}}}), "persesstack.io/x"),
        (json!({"metadata": {"name": "x"}}), "podTemplate.metadata.name"),
        (json!({"spec": {"volumes": [{"name": "tmp", "emptyDir": {}}]}}), "a volume of the operator"),
        (json!({"spec": {"tolerations": null}}), "podTemplate.spec.tolerations is null"),
        (json!({"spec": {"toleration": []}}), "podTemplate.spec.toleration is not a field"),
        (json!({"spec": {"containers": [{"name": "x", "imagee": "y"}]}}), "spec.containers[0].imagee is not a field"),
        (json!({"spec": {"containers": {}}}), "is no pod template"),
        (api(json!({"image": "x"})), "use spec.images.apiServer"),
        (api(json!({"args": ["x"]})), "use spec.api.config"),
        (api(json!({"resources": {"limits": {"cpu": "1"}}})), "use spec.api.resources"),
        (api(json!({"livenessProbe": {"httpGet": {"port": 1}}})), "livenessProbe.httpGet"),
        (api(json!({"ports": [{"containerPort": 8080}]})), "8080, a port of the server"),
        (api(json!({"env": [{"name": "PERSES_CONFIG", "value": "x"}]})), "PERSES_CONFIG"),
        (api(json!({"volumeMounts": [{"name": "x", "mountPath": "/etc/perses/keys"}]})), "/etc/perses/keys"),
        (api(json!({"volumeMounts": [{"name": "x", "mountPath": "/tmp/"}]})), "/tmp/"),
    ];
    for (own, expected) in cases {
        let message = merged(&own).expect_err(expected);
        assert!(message.contains(expected), "{message} does not name {expected}");
        assert!(message.starts_with("spec.api.podTemplate"), "{message}");
    }
}

fn words() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

prop_compose! {
    fn containers()(names in prop::collection::btree_set(prop::sample::select(vec!["api", "x", "y"]), 0..3), env in prop::collection::btree_map(words(), words(), 0..3), ports in prop::collection::btree_set(9000..9004, 0..3)) -> Vec<Value> {
        let env: Vec<_> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let ports: Vec<_> = ports.iter().map(|port| json!({"containerPort": port, "name": format!("p{port}")})).collect();
        names.into_iter().map(|name| json!({"name": name, "env": env, "ports": ports})).collect()
    }
}

prop_compose! {
    fn templates()(containers in containers(), volumes in prop::collection::btree_set(words(), 0..3), labels in prop::collection::btree_map(words(), words(), 0..3), tolerations in prop::collection::vec(words(), 0..3)) -> Value {
        let volumes: Vec<_> = volumes.iter().map(|name| json!({"name": name, "emptyDir": {}})).collect();
        let tolerations: Vec<_> = tolerations.iter().map(|key| json!({"key": key})).collect();
        json!({"metadata": {"labels": labels}, "spec": {"containers": containers, "volumes": volumes, "tolerations": tolerations}})
    }
}

/// Whether everything of `part` is in `whole`: fields by name, items of lists wherever they are.
fn within(part: &Value, whole: &Value) -> bool {
    match (part, whole) {
        (Value::Object(part), _) => part.iter().all(|(name, field)| {
            whole.get(name).map_or(field.as_array().is_some_and(Vec::is_empty), |whole| within(field, whole))
        }),
        (Value::Array(part), Value::Array(whole)) => {
            part.iter().all(|item| whole.iter().any(|found| within(item, found)))
        }
        _ => part == whole,
    }
}

proptest! {
    #[test]
    fn nothing_of_either_side_is_lost(own in templates()) {
        let result = merged(&own).unwrap();
        prop_assert!(within(&own, &result), "{own} is not whole in {result}");
        let base = serde_json::to_value(base()).unwrap();
        prop_assert!(within(&base, &result), "{base} is not whole in {result}");
    }

    #[test]
    fn names_stay_unique(own in templates()) {
        let result = merged(&own).unwrap();
        for list in ["/spec/containers", "/spec/volumes", "/spec/containers/0/env"] {
            let items = result.pointer(list).and_then(Value::as_array).cloned().unwrap_or_default();
            let names: std::collections::BTreeSet<_> = items.iter().map(|item| item["name"].to_string()).collect();
            prop_assert_eq!(names.len(), items.len(), "{} of {}", list, result);
        }
    }
}
