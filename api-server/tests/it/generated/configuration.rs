//! `docs/reference/configuration.md`, from the schema of the configuration.

use std::fmt::Write as _;

use perses_api_server::config::{Config, environment};
use serde_json::Value;

use super::{cell, check};

/// One key.
#[derive(Debug)]
struct Key {
    path: String,
    kind: String,
    default: String,
    meaning: String,
}

/// An optional value is described by its type or null.
fn without_null(schema: &Value) -> &Value {
    let choices = schema["anyOf"].as_array();
    choices.and_then(|all| all.iter().find(|one| one["type"] != "null")).unwrap_or(schema)
}

fn walk(schema: &Value, path: &str, default: Option<&Value>, keys: &mut Vec<Key>) {
    let inner = without_null(schema);
    let description = schema["description"].as_str().or_else(|| inner["description"].as_str()).unwrap_or_default();
    let default =
        default.filter(|value| !value.is_null()).or_else(|| inner.get("default")).or_else(|| schema.get("default"));
    if let Some(properties) = inner["properties"].as_object() {
        for (name, schema) in properties {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            walk(schema, &path, default.and_then(|value| value.get(name)), keys);
        }
        return;
    }
    if inner["items"]["properties"].is_object() {
        walk(&inner["items"], &format!("{path}.<n>"), None, keys);
        return;
    }
    keys.push(Key {
        path: path.to_owned(),
        kind: kind(inner),
        default: default.map(shown).unwrap_or_default(),
        meaning: cell(description),
    });
}

fn kind(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(shown).collect::<Vec<_>>().join(", ");
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        return choices.iter().map(|choice| shown(&choice["const"])).collect::<Vec<_>>().join(", ");
    }
    let name = match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or_default().into()
        }
        _ => "any".to_owned(),
    };
    match name.as_str() {
        "string" if schema["format"] == "duration" => "duration".to_owned(),
        "string" => "text".to_owned(),
        "array" => "list".to_owned(),
        "boolean" | "integer" => name,
        _ => "any".to_owned(),
    }
}

/// A value as the configuration file would have it; nothing for what is empty.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.is_empty() => String::new(),
        Value::String(text) => format!("`{text}`"),
        Value::Array(list) if list.is_empty() => String::new(),
        other => format!("`{other}`"),
    }
}

#[test]
fn the_reference_of_the_configuration_is_current() {
    let schema = environment::schema();
    let defaults = serde_json::to_value(Config::default()).unwrap();
    let mut text = "# Keys of the configuration\n\n\
        Generated from the code (`make generate`). How the file and the variables are read: [configuration](../configuration.md).\n\
        The variable of a key is `PERSES_` and its path in upper case with `_` between the parts; `<n>` is the place in a list,\n\
        from 0. A list of texts can also be given whole, with commas.\n"
        .to_owned();
    for (group, schema) in schema["properties"].as_object().unwrap() {
        let mut keys = Vec::new();
        walk(schema, group, defaults.get(group), &mut keys);
        let about = schema["description"].as_str().unwrap_or_default();
        writeln!(text, "\n## {group}\n").unwrap();
        if keys.len() != 1 {
            writeln!(text, "{}\n", cell(about)).unwrap();
        }
        text.push_str("| key, variable | type | default | meaning |\n|---|---|---|---|\n");
        for key in keys {
            assert!(!key.meaning.is_empty(), "{} has no description", key.path);
            let variable = key.path.replace('.', "_").to_uppercase().replace("<N>", "<n>");
            writeln!(
                text,
                "| `{}`<br>`PERSES_{variable}` | {} | {} | {} |",
                key.path, key.kind, key.default, key.meaning
            )
            .unwrap();
        }
    }
    check("docs/reference/configuration.md", &text);
}
