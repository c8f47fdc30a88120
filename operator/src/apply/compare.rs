//! Does the live object already say what we want? PURE.
//!
//! An apply that changes nothing still costs the API server a write request, so before one is sent the desired object is
//! compared with the live one. Which fields are ours, and how lists are keyed, is read from the live object's
//! `managedFields`: the API server's own record of our last apply. An apply is needed when
//! - we have never applied the object, or with another API version;
//! - we want a field that the record does not have (new, or taken over by another writer);
//! - the record has a field that we no longer want (it must be given up);
//! - a field of ours has another value (quantities are compared by value, server defaults inside are allowed).
//!
//! Fields of others are never looked at.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The first field that makes an apply necessary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, as `spec.template.spec.containers[name=api].image`. Never holds a value: values may be secret.
    pub path: String,
    /// Why.
    pub why: Why,
}

/// Why an apply is necessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// We have not applied this object yet.
    NeverApplied,
    /// We want the field and are not its manager.
    NotOurs,
    /// We manage the field and no longer want it.
    Unwanted,
    /// The value is another one.
    Changed,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let why = match self.why {
            Why::NeverApplied => return f.write_str("not applied yet"),
            Why::NotOurs => "not managed by us",
            Why::Unwanted => "no longer wanted",
            Why::Changed => "differs",
        };
        write!(f, "{} {why}", self.path)
    }
}

/// The first difference between `desired`, as it would be applied by `manager`, and `live`; `None` when an apply would
/// change nothing.
pub fn difference(desired: &Value, live: &Value, manager: &str) -> Option<Difference> {
    match fields_of(live, manager, desired["apiVersion"].as_str()) {
        None => Some(Difference { path: String::new(), why: Why::NeverApplied }),
        Some(fields) => walk(desired, live, fields, &mut Path::default()),
    }
}

/// The first difference in the pod template of a Deployment or StatefulSet: an apply would replace its pods.
pub fn template_difference(desired: &Value, live: &Value, manager: &str) -> Option<Difference> {
    let fields = fields_of(live, manager, desired["apiVersion"].as_str())?;
    let fields = fields.get("f:spec")?.get("f:template")?.as_object()?;
    let mut path = Path(vec![".spec".to_owned(), ".template".to_owned()]);
    walk(&desired["spec"]["template"], &live["spec"]["template"], fields, &mut path)
}

/// Whether `manager` has applied `field` (a path of plain names, as `["spec", "replicas"]`) on `live`.
pub fn manages(live: &Value, manager: &str, field: &[&str]) -> bool {
    let mut fields = fields_of(live, manager, None);
    for name in field {
        fields = fields.and_then(|fields| fields.get(&format!("f:{name}"))?.as_object());
    }
    fields.is_some()
}

/// Keyed lists of ours into which others have put items: JSON pointer and the list as we want it.
///
/// An apply never removes such items, and normally they are none of our business. But an edited key (a Service's port,
/// say) is such an item beside ours, and the two may contradict each other.
pub fn lists_with_strangers<'a>(desired: &'a Value, live: &Value, manager: &str) -> BTreeMap<String, &'a Value> {
    let managers = live["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut found = BTreeMap::new();
    for entry in managers.iter().filter(|entry| entry["manager"] != manager && entry["subresource"].is_null()) {
        if let Some(fields) = entry["fieldsV1"].as_object() {
            collect(desired, fields, "", &mut found);
        }
    }
    found
}

fn collect<'a>(
    desired: &'a Value,
    fields: &Map<String, Value>,
    pointer: &str,
    found: &mut BTreeMap<String, &'a Value>,
) {
    if let Some(wanted) = desired.as_array() {
        let strange = |(key, inner): (&String, &Value)| {
            let Some(keys) = key.strip_prefix("k:").and_then(|keys| serde_json::from_str(keys).ok()) else {
                return false;
            };
            let Some(item) = wanted.iter().find(|item| matches(item, &keys)) else { return true };
            // A list inside an item is replaced with the list that the item is in: places in lists may differ.
            let mut inside = BTreeMap::new();
            collect(item, inner.as_object().unwrap_or(&Map::new()), "", &mut inside);
            !inside.is_empty()
        };
        if fields.iter().any(strange) {
            found.insert(pointer.to_owned(), desired);
        }
        return;
    }
    for (name, inner) in fields.iter().filter_map(|(key, inner)| Some((key.strip_prefix("f:")?, inner.as_object()?))) {
        if let Some(wanted) = desired.get(name) {
            let name = name.replace('~', "~0").replace('/', "~1");
            collect(wanted, inner, &format!("{pointer}/{name}"), found);
        }
    }
}

/// The fields that `manager` holds by server-side apply on the object itself (not on a subresource).
fn fields_of<'a>(live: &'a Value, manager: &str, api_version: Option<&str>) -> Option<&'a Map<String, Value>> {
    live["metadata"]["managedFields"].as_array()?.iter().find_map(|entry| {
        let ours = entry["manager"] == manager
            && entry["operation"] == "Apply"
            && entry["subresource"].as_str().unwrap_or_default().is_empty()
            && api_version.is_none_or(|version| entry["apiVersion"] == version);
        if ours { entry["fieldsV1"].as_object() } else { None }
    })
}

#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn difference(&self, last: &str, why: Why) -> Difference {
        let mut path = self.0.join("");
        path.push_str(last);
        Difference { path: path.trim_start_matches('.').to_owned(), why }
    }

    /// Whether numbers and strings here are Kubernetes quantities.
    fn is_quantity(&self) -> bool {
        const PARENTS: [&str; 8] =
            [".limits", ".requests", ".capacity", ".hard", ".sizeLimit", ".averageValue", ".divisor", ".target"];
        self.0.iter().rev().take(2).any(|segment| PARENTS.contains(&segment.as_str()))
    }

    fn within<T>(&mut self, segment: String, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.0.push(segment);
        let result = inside(self);
        self.0.pop();
        result
    }
}

fn walk(desired: &Value, live: &Value, fields: &Map<String, Value>, path: &mut Path) -> Option<Difference> {
    if fields.keys().all(|key| key == ".") {
        return (!same(desired, live, path)).then(|| path.difference("", Why::Changed));
    }
    for (key, inner) in fields.iter().filter(|(key, _)| *key != ".") {
        let Some((segment, wanted, present)) = step(key, desired, live) else {
            return Some(path.difference(key, Why::Unwanted));
        };
        let Some(wanted) = wanted else { return Some(path.difference(&segment, Why::Unwanted)) };
        let empty = Map::new();
        let inner = inner.as_object().unwrap_or(&empty);
        let present = present.unwrap_or(&Value::Null);
        let found = path.within(segment, |path| walk(wanted, present, inner, path));
        if found.is_some() {
            return found;
        }
    }
    uncovered(desired, fields, path)
}

/// One step of the field record: the segment to show, the desired and the live value there.
fn step<'a>(key: &str, desired: &'a Value, live: &'a Value) -> Option<(String, Option<&'a Value>, Option<&'a Value>)> {
    if let Some(name) = key.strip_prefix("f:") {
        return Some((format!(".{name}"), desired.get(name).filter(|value| !value.is_null()), live.get(name)));
    }
    if let Some(keys) = key.strip_prefix("k:") {
        let keys: Map<String, Value> = serde_json::from_str(keys).ok()?;
        let find = |list: &'a Value| list.as_array()?.iter().find(|item| matches(item, &keys));
        let label: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
        return Some((format!("[{}]", label.join(",")), find(desired), find(live)));
    }
    let value: Value = serde_json::from_str(key.strip_prefix("v:")?).ok()?;
    let find = |list: &'a Value| list.as_array()?.iter().find(|item| **item == value);
    Some(("[*]".to_owned(), find(desired), find(live)))
}

/// Whether a list item has these keys; a key that the item leaves out is a server default and matches.
fn matches(item: &Value, keys: &Map<String, Value>) -> bool {
    keys.iter().all(|(name, value)| item.get(name).is_none_or(|found| found == value))
        && keys.keys().any(|name| item.get(name).is_some())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A part of `desired` that is not in our record of fields.
fn uncovered(desired: &Value, fields: &Map<String, Value>, path: &Path) -> Option<Difference> {
    match desired {
        Value::Object(object) => object.iter().find_map(|(name, value)| {
            let covered = is_empty(value) || fields.contains_key(&format!("f:{name}")) || is_identity(path, name);
            (!covered).then(|| path.difference(&format!(".{name}"), Why::NotOurs))
        }),
        Value::Array(items) => items.iter().find_map(|item| {
            let covered = fields.keys().any(|key| {
                if let Some(keys) = key.strip_prefix("k:") {
                    serde_json::from_str(keys).is_ok_and(|keys| matches(item, &keys))
                } else {
                    key.strip_prefix("v:").and_then(|value| serde_json::from_str::<Value>(value).ok()).as_ref()
                        == Some(item)
                }
            });
            (!covered).then(|| path.difference("[+]", Why::NotOurs))
        }),
        _ => None,
    }
}

/// Fields that name the object and are in nobody's record.
fn is_identity(path: &Path, name: &str) -> bool {
    match path.0.as_slice() {
        [] => matches!(name, "apiVersion" | "kind"),
        [metadata] if metadata == ".metadata" => matches!(name, "name" | "namespace" | "uid" | "resourceVersion"),
        _ => false,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(object) => object.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Whether the live value says what the desired one does; more keys in live objects are server defaults.
fn same(desired: &Value, live: &Value, path: &mut Path) -> bool {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => desired.iter().all(|(name, value)| {
            path.within(format!(".{name}"), |path| same(value, live.get(name).unwrap_or(&Value::Null), path))
        }),
        (Value::Array(desired), Value::Array(live)) => {
            desired.len() == live.len() && desired.iter().zip(live).all(|(desired, live)| same(desired, live, path))
        }
        _ if desired == live || (is_empty(desired) && is_empty(live)) => true,
        (Value::Number(desired), Value::Number(live)) => desired.as_f64() == live.as_f64(),
        _ if path.is_quantity() => {
            let quantity = |value: &Value| quantity(&plain(value));
            quantity(desired).is_some_and(|desired| quantity(live) == Some(desired))
        }
        _ => false,
    }
}

/// A quantity in units of 10^-9; `None` when it is not one. Binary and decimal suffixes as in the Kubernetes API.
fn quantity(text: &str) -> Option<i128> {
    const NANO: i128 = 1_000_000_000;
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '-' | '+')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let scale = match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => NANO,
        "k" => NANO * 1_000,
        "M" => NANO * 1_000_000,
        "G" => NANO * 1_000_000_000,
        "T" => NANO * 1_000_000_000_000,
        "P" => NANO * 1_000_000_000_000_000,
        "Ki" => NANO << 10,
        "Mi" => NANO << 20,
        "Gi" => NANO << 30,
        "Ti" => NANO << 40,
        "Pi" => NANO << 50,
        exponent => {
            let exponent: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            NANO.checked_mul(10_i128.checked_pow(exponent)?)?
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let negative = whole.starts_with('-');
    let digits: i128 = format!("{}{fraction}", whole.trim_start_matches(['-', '+'])).parse().ok()?;
    let divisor = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let value = digits.checked_mul(scale)?.checked_div(divisor)?;
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests;
