use serde_json::json;

use super::*;

const MANAGER: &str = "persesstack-operator";

/// A Deployment as kube-apiserver 1.34 answers it: defaults filled in, quantities canonical, other managers beside us.
fn live() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "perses-api", "namespace": "a", "uid": "1", "resourceVersion": "7", "generation": 1,
            "labels": {"app.kubernetes.io/name": "perses", "added-by": "someone"},
            "annotations": {"deployment.kubernetes.io/revision": "1"},
            "ownerReferences": [{"apiVersion": "persesstack.io/v1alpha1", "kind": "PersesStack", "name": "perses",
                                 "uid": "42", "controller": true, "blockOwnerDeletion": true}],
            "managedFields": [
                {"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "apps/v1", "subresource": "status",
                 "fieldsV1": {"f:status": {"f:replicas": {}}}},
                {"manager": MANAGER, "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": {
                    "f:metadata": {
                        "f:labels": {"f:app.kubernetes.io/name": {}},
                        "f:ownerReferences": {"k:{\"uid\":\"42\"}": {}}},
                    "f:spec": {
                        "f:selector": {},
                        "f:template": {"f:spec": {
                            "f:containers": {"k:{\"name\":\"api\"}": {
                                ".": {}, "f:args": {}, "f:image": {}, "f:name": {},
                                "f:env": {"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}},
                                          "k:{\"name\":\"B\"}": {".": {}, "f:name": {}, "f:value": {}}},
                                "f:ports": {"k:{\"containerPort\":8080,\"protocol\":\"TCP\"}": {
                                    ".": {}, "f:containerPort": {}, "f:name": {}}},
                                "f:resources": {"f:limits": {"f:cpu": {}, "f:memory": {}}}}},
                            "f:volumes": {"k:{\"name\":\"tmp\"}": {".": {}, "f:emptyDir": {}, "f:name": {}}}}}}}}]
        },
        "spec": {
            "replicas": 3, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app.kubernetes.io/name": "perses"}},
            "template": {"spec": {
                "restartPolicy": "Always",
                "containers": [{
                    "name": "api", "image": "example/api:1", "args": ["serve", "--config=/a"],
                    "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}, {"name": "C", "value": "foreign"}],
                    "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
                    "resources": {"limits": {"cpu": "250m", "memory": "512Mi"}}}],
                "volumes": [{"name": "tmp", "emptyDir": {}}]}}
        },
        "status": {"replicas": 3}
    })
}

fn desired() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "perses-api", "namespace": "a", "annotations": {},
            "labels": {"app.kubernetes.io/name": "perses"},
            "ownerReferences": [{"apiVersion": "persesstack.io/v1alpha1", "kind": "PersesStack", "name": "perses",
                                 "uid": "42", "controller": true, "blockOwnerDeletion": true}]
        },
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": "perses"}},
            "template": {"spec": {
                "containers": [{
                    "name": "api", "image": "example/api:1", "args": ["serve", "--config=/a"],
                    "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                    "ports": [{"containerPort": 8080, "name": "http"}],
                    "resources": {"limits": {"cpu": "0.25", "memory": "0.5Gi"}}}],
                "volumes": [{"name": "tmp", "emptyDir": {}}]}}
        }
    })
}

fn found(desired: &Value, live: &Value) -> Option<(String, Why)> {
    difference(desired, live, MANAGER).map(|difference| (difference.path, difference.why))
}

#[test]
fn nothing_to_do_despite_defaults_order_and_spelling_of_quantities() {
    assert_eq!(found(&desired(), &live()), None);
}

#[test]
fn a_changed_value_is_found_at_its_path() {
    let mut edited = live();
    edited["spec"]["template"]["spec"]["containers"][0]["image"] = json!("example/api:2");
    let path = "spec.template.spec.containers[name=api].image".to_owned();
    assert_eq!(found(&desired(), &edited), Some((path, Why::Changed)));

    let mut edited = live();
    edited["spec"]["template"]["spec"]["containers"][0]["args"] = json!(["serve", "--config=/a", "--debug"]);
    assert_eq!(found(&desired(), &edited).map(|found| found.1), Some(Why::Changed), "lists of scalars are atomic");

    let mut edited = live();
    edited["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = json!("513Mi");
    assert_eq!(found(&desired(), &edited).map(|found| found.1), Some(Why::Changed));

    let mut edited = live();
    edited["metadata"]["labels"].as_object_mut().unwrap().remove("app.kubernetes.io/name");
    assert_eq!(found(&desired(), &edited).map(|found| found.1), Some(Why::Changed), "a removed value");
}

#[test]
fn a_field_that_another_writer_took_is_taken_back() {
    let mut edited = live();
    let fields = &mut edited["metadata"]["managedFields"][1]["fieldsV1"]["f:spec"]["f:template"]["f:spec"];
    fields["f:containers"]["k:{\"name\":\"api\"}"].as_object_mut().unwrap().remove("f:image");
    let path = "spec.template.spec.containers[name=api].image".to_owned();
    assert_eq!(found(&desired(), &edited), Some((path, Why::NotOurs)));
}

#[test]
fn new_and_dropped_fields() {
    let mut more = desired();
    more["spec"]["minReadySeconds"] = json!(5);
    assert_eq!(found(&more, &live()), Some(("spec.minReadySeconds".to_owned(), Why::NotOurs)));

    let mut more = desired();
    let env = more["spec"]["template"]["spec"]["containers"][0]["env"].as_array_mut().unwrap();
    env.push(json!({"name": "D", "value": "4"}));
    assert_eq!(found(&more, &live()).map(|found| found.1), Some(Why::NotOurs));

    let mut less = desired();
    less["spec"]["template"]["spec"]["containers"][0]["env"].as_array_mut().unwrap().pop();
    let path = "spec.template.spec.containers[name=api].env[name=B]".to_owned();
    assert_eq!(found(&less, &live()), Some((path, Why::Unwanted)));

    let mut less = desired();
    less["spec"]["template"]["spec"].as_object_mut().unwrap().remove("volumes");
    assert_eq!(found(&less, &live()), Some(("spec.template.spec.volumes".to_owned(), Why::Unwanted)));
}

#[test]
fn items_of_others_in_lists_of_ours() {
    let edited_by = |spec: Value| {
        let mut edited = live();
        let entry = json!({"manager": "kubectl-edit", "operation": "Update", "apiVersion": "apps/v1",
                           "fieldsV1": {"f:spec": {"f:replicas": {}, "f:template": {"f:spec": spec}}}});
        edited["metadata"]["managedFields"].as_array_mut().unwrap().push(entry);
        let desired = desired();
        let found = lists_with_strangers(&desired, &edited, MANAGER);
        assert!(found.iter().all(|(pointer, list)| desired.pointer(pointer) == Some(*list)));
        found.into_keys().collect::<Vec<_>>()
    };
    assert!(edited_by(json!({"f:nodeSelector": {}})).is_empty());
    let value_only =
        json!({"f:containers": {"k:{\"name\":\"api\"}": {"f:env": {"k:{\"name\":\"A\"}": {"f:value": {}}}}}});
    assert!(edited_by(value_only).is_empty(), "a value of an item of ours is taken back by an apply");
    let volume = json!({"f:volumes": {"k:{\"name\":\"other\"}": {".": {}}}});
    assert_eq!(edited_by(volume), ["/spec/template/spec/volumes"]);
    let port = json!({"f:containers": {"k:{\"name\":\"api\"}": {
        "f:ports": {"k:{\"containerPort\":9999,\"protocol\":\"TCP\"}": {".": {}}}}}});
    assert_eq!(edited_by(port), ["/spec/template/spec/containers"]);
}

#[test]
fn an_object_that_we_never_applied() {
    let mut foreign = live();
    foreign["metadata"]["managedFields"][1]["operation"] = json!("Update");
    assert_eq!(found(&desired(), &foreign).map(|found| found.1), Some(Why::NeverApplied));
    let mut older = live();
    older["metadata"]["managedFields"][1]["apiVersion"] = json!("apps/v1beta2");
    assert_eq!(found(&desired(), &older).map(|found| found.1), Some(Why::NeverApplied));
}

#[test]
fn who_manages_replicas() {
    let mut object = live();
    assert!(!manages(&object, MANAGER, &["spec", "replicas"]));
    object["metadata"]["managedFields"][1]["fieldsV1"]["f:spec"]["f:replicas"] = json!({});
    assert!(manages(&object, MANAGER, &["spec", "replicas"]));
}

#[test]
fn quantities_by_value() {
    for (a, b) in [("0.25", "250m"), ("1Gi", "1024Mi"), ("1e3", "1k"), ("1.5Gi", "1536Mi"), ("100", "100")] {
        assert_eq!(quantity(a), quantity(b), "{a} {b}");
        assert!(quantity(a).is_some());
    }
    assert_ne!(quantity("1G"), quantity("1Gi"));
    for text in ["", "Gi", "five", "1Xi", "1.2.3"] {
        assert_eq!(quantity(text), None, "{text}");
    }
}
