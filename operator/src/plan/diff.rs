//! What differs between two states of an object, field by field. PURE.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value};

/// Stands for a value that is not shown.
pub const MASK: &str = "<masked>";
/// Longest value that is shown whole, in characters.
const LONGEST: usize = 200;

/// One field that differs.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct FieldChange {
    /// Where, as `spec.template.spec.containers[name=api].image`.
    pub path: String,
    /// The value now; `None` when there is none. Of a long text the lines that go.
    pub before: Option<String>,
    /// The value then; `None` when there is none. Of a long text the lines that come.
    pub after: Option<String>,
}

/// Members that the API server keeps for itself.
const KEPT: [&str; 7] =
    ["managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink", "deletionTimestamp"];

/// Fields of an object that differ. Values inside a Secret are masked.
pub fn objects(before: &Value, after: &Value) -> Vec<FieldChange> {
    let secret = before["kind"] == "Secret" || after["kind"] == "Secret";
    let strip = |object: &Value| {
        let mut object = object.clone();
        if let Value::Object(fields) = &mut object {
            // Items of lists come without the first two.
            for name in ["apiVersion", "kind", "status"] {
                fields.remove(name);
            }
            if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
                metadata.retain(|name, _| !KEPT.contains(&name.as_str()));
            }
        }
        object
    };
    let mut changes = values(&strip(before), &strip(after));
    for change in &mut changes {
        // An annotation of a Secret may hold what somebody applied.
        let shown = !["data", "stringData", "metadata.annotations"].iter().any(|part| change.path.starts_with(part));
        if secret && !shown {
            mask(change);
        }
    }
    changes
}

/// Hides both values.
pub fn mask(change: &mut FieldChange) {
    for value in [&mut change.before, &mut change.after].into_iter().flatten() {
        MASK.clone_into(value);
    }
}

/// Fields that differ between two values.
pub fn values(before: &Value, after: &Value) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    walk(before, after, "", &mut changes);
    changes
}

fn walk(before: &Value, after: &Value, path: &str, changes: &mut Vec<FieldChange>) {
    match (before, after) {
        _ if before == after || (is_empty(before) && is_empty(after)) => {}
        (Value::Object(before), Value::Object(after)) => objects_at(before, after, path, changes),
        (Value::Object(before), Value::Null) => objects_at(before, &Map::new(), path, changes),
        (Value::Null, Value::Object(after)) => objects_at(&Map::new(), after, path, changes),
        (Value::Array(before), Value::Array(after)) => lists_at(before, after, path, changes),
        (Value::Array(before), Value::Null) => lists_at(before, &[], path, changes),
        (Value::Null, Value::Array(after)) => lists_at(&[], after, path, changes),
        (Value::String(before), Value::String(after)) if before.contains('\n') || after.contains('\n') => {
            let only = |text: &str, other: &str| {
                let others: BTreeSet<&str> = other.lines().collect();
                let lines: Vec<_> = text.lines().filter(|line| !others.contains(line)).collect();
                (!lines.is_empty()).then(|| lines.join("\n"))
            };
            let (gone, new) = (only(before, after), only(after, before));
            changes.push(FieldChange { path: path.to_owned(), before: gone, after: new });
        }
        _ => changes.push(FieldChange { path: path.to_owned(), before: shown(before), after: shown(after) }),
    }
}

fn objects_at(before: &Map<String, Value>, after: &Map<String, Value>, path: &str, changes: &mut Vec<FieldChange>) {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        // A name with a dot would read like two.
        let step = if name.contains('.') { format!("[{name}]") } else { format!(".{name}") };
        let path = format!("{path}{step}").trim_start_matches('.').to_owned();
        walk(before.get(name).unwrap_or(&Value::Null), after.get(name).unwrap_or(&Value::Null), &path, changes);
    }
}

/// Members by which the items of Kubernetes' lists are told apart.
const KEYS: [&str; 6] = ["name", "containerPort", "mountPath", "topologyKey", "type", "uid"];

fn lists_at(before: &[Value], after: &[Value], path: &str, changes: &mut Vec<FieldChange>) {
    let unique = |list: &[Value], key: &str| {
        let found: BTreeSet<String> = list.iter().filter_map(|item| item.get(key)).map(plain).collect();
        found.len() == list.len()
    };
    match KEYS.iter().find(|key| unique(before, key) && unique(after, key)) {
        Some(key) => {
            let names: BTreeSet<String> = before.iter().chain(after).map(|item| plain(&item[*key])).collect();
            for name in names {
                let item = |list: &'_ [Value]| list.iter().find(|item| plain(&item[*key]) == name).cloned();
                let (before, after) = (item(before).unwrap_or_default(), item(after).unwrap_or_default());
                walk(&before, &after, &format!("{path}[{key}={name}]"), changes);
            }
        }
        None => {
            for place in 0..before.len().max(after.len()) {
                let item = |list: &'_ [Value]| list.get(place).cloned().unwrap_or_default();
                walk(&item(before), &item(after), &format!("{path}[{place}]"), changes);
            }
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn shown(value: &Value) -> Option<String> {
    if value.is_null() {
        return None;
    }
    let text = plain(value);
    if text.chars().count() <= LONGEST {
        return Some(text);
    }
    Some(text.chars().take(LONGEST).collect::<String>() + " ...")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(before: &Value, after: &Value) -> Vec<String> {
        let text = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        objects(before, after)
            .into_iter()
            .map(|c| format!("{}: {} -> {}", c.path, text(c.before), text(c.after)))
            .collect()
    }

    #[test]
    fn fields_are_named_by_the_keys_of_lists() {
        let pod = |image: &str, env: Value| json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": image, "env": env}]}});
        let (before, after) = (pod("y:1", json!([])), pod("y:2", json!([{"name": "K", "value": "v"}])));
        assert_eq!(
            lines(&before, &after),
            [
                "spec.containers[name=b].env[name=K].name: none -> K",
                "spec.containers[name=b].env[name=K].value: none -> v",
                "spec.containers[name=b].image: y:1 -> y:2",
            ]
        );
        assert!(lines(&before, &before).is_empty());
        let plain = |args: Value| json!({"args": args});
        assert_eq!(
            lines(&plain(json!(["a", "b"])), &plain(json!(["a", "c", "d"]))),
            ["args[1]: b -> c", "args[2]: none -> d"]
        );
    }

    #[test]
    fn of_a_file_the_lines_that_differ_are_shown() {
        let map = |text: &str| json!({"kind": "ConfigMap", "data": {"a.conf": text}});
        assert_eq!(lines(&map("one\ntwo\nthree\n"), &map("one\n2\nthree\n")), ["data[a.conf]: two -> 2"]);
    }

    #[test]
    fn no_value_of_a_secret_is_shown() {
        let secret = |value: &str, label: &str| {
            json!({"kind": "Secret", "metadata": {"resourceVersion": value, "labels": {"l": label},
                   "annotations": {"kubectl.kubernetes.io/last-applied-configuration": value}}, "data": {"k": value}})
        };
        let lines = lines(&secret("c2VjcmV0", "a"), &secret("b3RoZXI=", "b"));
        assert_eq!(
            lines,
            [
                "data.k: <masked> -> <masked>",
                "metadata.annotations[kubectl.kubernetes.io/last-applied-configuration]: <masked> -> <masked>",
                "metadata.labels.l: a -> b",
            ]
        );
    }
}
