//! Committed files that are generated, and what must hold of them.

use persesstack_operator::settings::DefaultImages;
use persesstack_operator::{crd, rbac};
use serde_json::Value;

use crate::files;

#[test]
fn the_custom_resource_definition_is_current() {
    files::generated("crds/persesstack.io_persesstacks.yaml", "persesstack-operator crd", &crd::yaml().expect("YAML"));
}

#[test]
fn the_roles_are_current() {
    files::generated("config/rbac/role.yaml", "persesstack-operator rbac", &rbac::yaml().expect("YAML"));
}

/// Calls `visit` with every schema under `schema`.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        walk(field, &format!("{path}.{name}"), visit);
    }
    for part in ["items", "additionalProperties"] {
        if schema[part].is_object() {
            walk(&schema[part], &format!("{path}[]"), visit);
        }
    }
}

#[test]
fn every_field_is_described_and_typed_as_kubernetes_wants() {
    let schema = crd::schema();
    let mut fields = 0;
    for part in ["spec", "status"] {
        walk(&schema["properties"][part], part, &mut |path, field| {
            fields += 1;
            let described = field["description"].as_str().is_some_and(|d| d.len() > 3);
            assert!(described || path.ends_with("[]"), "{path} has no description");
            let format = field["format"].as_str().unwrap_or_default();
            assert!(!format.starts_with('u'), "{path} has the format {format}: Kubernetes knows no unsigned integers");
            for keyword in ["oneOf", "anyOf", "allOf", "not", "$ref"] {
                assert!(field.get(keyword).is_none(), "{path} uses {keyword}: the schema would not be structural");
            }
        });
    }
    assert!(fields > 80, "only {fields} fields were looked at");
}

#[test]
fn the_manager_names_the_built_in_images() {
    let manager =
        std::fs::read_to_string(files::workspace_dir().join("config/manager/manager.yaml")).expect("manager.yaml");
    let manager: Value = serde_saphyr::from_str(&manager).expect("YAML");
    let container = &manager["spec"]["template"]["spec"]["containers"][0];
    let value = |name: &str| {
        let variables = container["env"].as_array().expect("env");
        variables.iter().find(|v| v["name"] == name).and_then(|v| v["value"].as_str()).unwrap_or_default().to_owned()
    };
    let images = DefaultImages::default();
    assert_eq!(value("RELATED_IMAGE_API_SERVER"), images.api_server);
    assert_eq!(value("RELATED_IMAGE_REDIS"), images.redis);
    assert_eq!(value("RELATED_IMAGE_PGBOUNCER"), images.pgbouncer);
    assert_eq!(value("RELATED_IMAGE_POSTGRES"), images.postgres);
    let version = images.api_server.rsplit(':').next().expect("tag");
    assert_eq!(container["image"], format!("ghcr.io/perses-stack/operator:{version}"));
}
