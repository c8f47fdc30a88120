//! Committed files that are generated, and what must hold of them.

use persesstack_operator::controllers::persesstack::reasons;
use persesstack_operator::settings::DefaultImages;
use persesstack_operator::{bundle, crd, rbac};
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

#[test]
fn the_bundle_is_current() {
    let images = DefaultImages::default();
    let mut input = bundle::Input { images, operator_image: None, require_digests: false };
    for (path, text) in bundle::files(&input).expect("bundle") {
        files::generated(&format!("bundle/{path}"), "persesstack-operator bundle", &text);
    }
    // A release names every image by its digest, and is told which one it has forgotten.
    input.require_digests = true;
    let error = bundle::files(&input).expect_err("tags").to_string();
    assert!(error.contains("OPERATOR_IMAGE"), "{error}");
    let digest = |name: &str| format!("example.com/{name}@sha256:{}", "0".repeat(64));
    input.operator_image = Some(digest("operator"));
    let error = bundle::files(&input).expect_err("tags").to_string();
    assert!(error.contains("RELATED_IMAGE_API_SERVER"), "{error}");
    input.images = DefaultImages {
        api_server: digest("api-server"),
        redis: digest("redis"),
        pgbouncer: digest("pgbouncer"),
        postgres: digest("postgres"),
        pgbouncer_exporter: digest("pgbouncer-exporter"),
        redis_exporter: digest("redis-exporter"),
    };
    let files = bundle::files(&input).expect("digests");
    let csv: Value = serde_saphyr::from_str(&files[0].1).expect("YAML");
    let container = &csv["spec"]["install"]["spec"]["deployments"][0]["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], digest("operator"));
    let related = csv["spec"]["relatedImages"].as_array().expect("relatedImages");
    for variable in container["env"].as_array().expect("env") {
        let name = variable["name"].as_str().unwrap_or_default();
        if name.starts_with("RELATED_IMAGE_") {
            assert!(related.iter().any(|image| image["image"] == variable["value"]), "{name} is not a related image");
        }
    }
    let examples: Value =
        serde_json::from_str(csv["metadata"]["annotations"]["alm-examples"].as_str().expect("text")).expect("JSON");
    for example in examples.as_array().expect("list") {
        assert_eq!(crd::check(example), Vec::<String>::new());
    }
}

#[test]
fn the_reasons_are_documented() {
    files::generated("docs/reference/events.md", "UPDATE=1 cargo test", &reasons::markdown());
    let words: Vec<_> = reasons::REASONS.iter().map(|(word, _, _)| *word).collect();
    assert!(words.is_sorted() && words.windows(2).all(|pair| pair[0] != pair[1]), "sorted, each once");
    // Where reasons are written: findings, invalid specs, and the fields and tuples that carry one.
    let places = [
        r#"Finding::new\([^;"]*?,\s*"([A-Z]\w+)""#,
        r#"Invalid::terminal\(\s*"([A-Z]\w+)""#,
        r#"reason: "([A-Z]\w+)""#,
        r#"\(Status::\w+, "([A-Z]\w+)"\)"#,
        r#"\b(?:not|held)\(\s*"([A-Z]\w+)""#,
        r#"\("(Rotation\w+)","#,
    ]
    .map(|place| regex::Regex::new(place).expect("pattern"));
    let mut found = 0;
    files::sources("src/controllers/persesstack", &mut |path, text| {
        for reason in places.iter().flat_map(|place| place.captures_iter(text)) {
            found += 1;
            assert!(words.contains(&&reason[1]), "{path}: reason {} is not in reasons.rs", &reason[1]);
        }
    });
    assert!(found > 50, "only {found} reasons were looked at");
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
    assert_eq!(value("RELATED_IMAGE_PGBOUNCER_EXPORTER"), images.pgbouncer_exporter);
    assert_eq!(value("RELATED_IMAGE_REDIS_EXPORTER"), images.redis_exporter);
    let version = images.api_server.rsplit(':').next().expect("tag");
    assert_eq!(container["image"], format!("ghcr.io/perses-stack/operator:{version}"));
}
