//! `PERSES_<UPPER_PATH>`: which key a variable names, and as what its text is read. Both come from the schema of the
//! configuration, so that every key has its variable.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::Config;

/// Longer lists than anybody writes in variables; keeps a wrong number from making a huge one.
const MAX_INDEX: usize = 100;

/// The JSON Schema of the configuration, without references.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().to_value()
}

/// Puts the value of a variable into the tree; `name` is what follows the prefix, in lower case. A name that is no key of
/// the configuration changes nothing: it may be meant for something else.
pub(super) fn set(tree: &mut Value, schema: &Value, name: &str, text: &str) {
    if let Some((path, leaf)) = resolve(schema, name) {
        place(tree, &path, typed(leaf, text));
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// The path that a name means, and the schema at its end. Keys contain `_` too, so every split is tried.
fn resolve<'s>(schema: &'s Value, name: &str) -> Option<(Vec<Step>, &'s Value)> {
    let schema = without_null(schema);
    if name.is_empty() {
        return is_leaf(schema).then_some((Vec::new(), schema));
    }
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        return properties.iter().find_map(|(key, inner)| {
            let rest = name.strip_prefix(key.as_str())?;
            let rest = if rest.is_empty() { rest } else { rest.strip_prefix('_')? };
            let (mut path, leaf) = resolve(inner, rest)?;
            path.insert(0, Step::Key(key.clone()));
            Some((path, leaf))
        });
    }
    let items = schema.get("items")?;
    let (index, rest) = name.split_once('_').unwrap_or((name, ""));
    let index = index.parse().ok().filter(|index| *index < MAX_INDEX)?;
    let (mut path, leaf) = resolve(items, rest)?;
    path.insert(0, Step::Index(index));
    Some((path, leaf))
}

/// An optional value is described by its type or null.
fn without_null(schema: &Value) -> &Value {
    let choices = schema.get("anyOf").and_then(Value::as_array);
    choices.and_then(|all| all.iter().find(|one| one["type"] != "null")).unwrap_or(schema)
}

/// What a text can stand for: everything but groups; of lists those of texts.
fn is_leaf(schema: &Value) -> bool {
    match schema.get("items") {
        Some(items) => is(items, "string"),
        None => schema.get("properties").is_none(),
    }
}

fn is(schema: &Value, wanted: &str) -> bool {
    match &schema["type"] {
        Value::String(one) => one == wanted,
        Value::Array(all) => all.iter().any(|one| one == wanted),
        _ => false,
    }
}

/// The text as the type that the key has; a text that is not of the type stays one, and is refused with the rest.
fn typed(leaf: &Value, text: &str) -> Value {
    if is(leaf, "boolean") {
        text.parse::<bool>().map_or_else(|_| Value::from(text), Value::from)
    } else if is(leaf, "integer") {
        text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from)
    } else if is(leaf, "array") {
        text.split(',').map(str::trim).filter(|one| !one.is_empty()).map(Value::from).collect()
    } else {
        Value::from(text)
    }
}

fn place(node: &mut Value, path: &[Step], value: Value) {
    match path {
        [] => *node = value,
        [Step::Key(key), rest @ ..] => {
            if !node.is_object() {
                *node = Value::Object(Map::new());
            }
            if let Value::Object(map) = node {
                place(map.entry(key.clone()).or_insert(Value::Null), rest, value);
            }
        }
        [Step::Index(index), rest @ ..] => {
            if !node.is_array() {
                *node = Value::Array(Vec::new());
            }
            if let Value::Array(list) = node {
                while list.len() <= *index {
                    list.push(Value::Null);
                }
                place(&mut list[*index], rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set_all(variables: &[(&str, &str)]) -> Value {
        let (schema, mut tree) = (schema(), json!({}));
        for (name, text) in variables {
            set(&mut tree, &schema, name, text);
        }
        tree
    }

    #[test]
    fn a_name_finds_its_key_and_its_type() {
        let tree = set_all(&[
            ("cache_redis_addr", "perses-redis:6379"),
            ("cache_redis_password", "12345"),
            ("cache_l1_max_bytes", "7"),
            ("security_enable_auth", "true"),
            ("database_postgres_direct_port", "5432"),
            ("provisioning_folders", "/a, /b"),
            ("security_authentication_providers_oidc_0_client_id", "me"),
            ("security_authentication_providers_oidc_0_disable_pkce", "true"),
            ("plugin_archive_paths_0", "/archives"),
            ("ephemeral_dashboard_cleanup_interval", "1h"),
            ("service_port", "tcp://10.0.0.1:80"),
            ("cache_redis", "a group is no value"),
        ]);
        let wanted = json!({
            "cache": {"redis": {"addr": "perses-redis:6379", "password": "12345"}, "l1_max_bytes": 7},
            "security": {"enable_auth": true,
                "authentication": {"providers": {"oidc": [{"client_id": "me", "disable_pkce": true}]}}},
            "database": {"postgres": {"direct": {"port": 5432}}},
            "provisioning": {"folders": ["/a", "/b"]},
            "plugin": {"archive_paths": ["/archives"]},
            "ephemeral_dashboard": {"cleanup_interval": "1h"},
        });
        assert_eq!(tree, wanted);
    }

    #[test]
    fn lists_do_not_grow_without_bounds() {
        assert_eq!(set_all(&[("provisioning_folders_4000000000", "/a")]), json!({}));
    }
}
