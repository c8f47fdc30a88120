//! Variables, of dashboards and as documents: kinds, names, defaults, references among them.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;
use serde_json::value::RawValue;

use super::node::Node;
use super::{SpecError, plugin, splice};

const SORTS: [&str; 8] = [
    "",
    "none",
    "alphabetical-asc",
    "alphabetical-desc",
    "numerical-asc",
    "numerical-desc",
    "alphabetical-ci-asc",
    "alphabetical-ci-desc",
];

/// `Variable` and `GlobalVariable`: the spec is one entry without a name.
pub(super) fn check_document(spec: &Node<'_>) -> Result<(), SpecError> {
    check_entry(spec).map(|_| ())
}

/// The one-element default list of a single-valued variable becomes a string, as upstream does.
pub(super) fn normalise(spec: &Node<'_>, text: &RawValue) -> Result<Option<Box<RawValue>>, SpecError> {
    let edits = single_default(spec)?.map(|default| splice::Edit::path(text, &["spec", "defaultValue"], &default));
    splice::apply(text, edits.into_iter().collect()).map_err(|message| spec.error(message))
}

/// `{kind, spec}`; returns the inner spec.
pub(super) fn check_entry<'v>(entry: &Node<'v>) -> Result<Node<'v>, SpecError> {
    entry.object()?;
    let kind = entry.str_or_empty("kind")?;
    if kind.is_empty() {
        return Err(entry.error("variable.kind cannot be empty"));
    }
    if !matches!(kind, "TextVariable" | "ListVariable") {
        return Err(entry.error(format!("unknown variable.kind {kind:?} used")));
    }
    let spec = entry.required("spec", "spec cannot be empty")?;
    spec.object()?;
    if let Some(display) = spec.get("display") {
        display.object()?;
        display.opt_str("name")?;
        display.opt_str("description")?;
        display.bool_or_false("hidden")?;
    }
    if kind == "TextVariable" {
        text(&spec)?;
    } else {
        list(&spec)?;
    }
    Ok(spec)
}

fn text(spec: &Node<'_>) -> Result<(), SpecError> {
    if spec.str_or_empty("value")?.is_empty() && spec.bool_or_false("constant")? {
        return Err(spec.error("value for a constant text variable cannot be empty"));
    }
    Ok(())
}

fn list(spec: &Node<'_>) -> Result<(), SpecError> {
    plugin(spec)?;
    let all = spec.bool_or_false("allowAllValue")?;
    let multiple = spec.bool_or_false("allowMultiple")?;
    if !spec.str_or_empty("customAllValue")?.is_empty() && !all {
        return Err(spec.error("customAllValue cannot be set if allowAllValue is not set to true"));
    }
    spec.opt_str("capturingRegexp")?;
    let sort = spec.str_or_empty("sort")?;
    if !SORTS.contains(&sort) {
        return Err(spec.error(format!("unknown sort method {sort:?} used")));
    }
    let Some(default) = spec.get("defaultValue") else { return Ok(()) };
    match default.value() {
        Value::String(_) => Ok(()),
        Value::Array(values) if values.iter().all(Value::is_string) => {
            if values.len() > 1 && !multiple {
                return Err(default.error("you can not use a list of default values if allowMultiple is set to false"));
            }
            Ok(())
        }
        _ => Err(default.error("unable to unmarshal defaultValue. Only string or array of string can be used")),
    }
}

/// JSON text of the string that replaces a one-element list, by index in `spec.variables`.
pub(super) fn single_defaults(spec: &Node<'_>) -> Result<Vec<(usize, String)>, SpecError> {
    let Some(variables) = spec.get("variables") else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (index, entry) in variables.elements()?.enumerate() {
        found.extend(single_default(&entry)?.map(|default| (index, default)));
    }
    Ok(found)
}

fn single_default(entry: &Node<'_>) -> Result<Option<String>, SpecError> {
    let Some(spec) = entry.get("spec") else { return Ok(None) };
    if entry.str_or_empty("kind")? != "ListVariable" || spec.bool_or_false("allowMultiple")? {
        return Ok(None);
    }
    let value = spec.get("defaultValue").map(|node| node.value());
    Ok(value.and_then(Value::as_array).and_then(|values| match &values[..] {
        [only] => Some(only.to_string()),
        _ => None,
    }))
}

/// The rule for names in expressions, `^\w*?[^0-9]\w*$` and no `__` in front: one character that is not a digit, and at most
/// one that is not a word character.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let odd = name.chars().filter(|c| !c.is_ascii_alphanumeric() && *c != '_').count();
    let digits_only = name.bytes().all(|b| b.is_ascii_digit());
    if odd > 1 || digits_only {
        return Err(format!("variable name '{name}' is not valid"));
    }
    if name.starts_with("__") {
        return Err(format!("variable name '{name}' can not have builtin variable prefix: __"));
    }
    Ok(())
}

/// No variable may need itself, directly or through others. (Whether a name that is not in the dashboard exists in the
/// project or globally is for the service to say.)
pub(super) fn check_order(variables: &Node<'_>) -> Result<(), SpecError> {
    let mut needs: HashMap<&str, HashSet<String>> = HashMap::new();
    for entry in variables.elements()? {
        let Some(spec) = entry.get("spec") else { continue };
        needs.insert(spec.str_or_empty("name")?, used(&spec));
    }
    while !needs.is_empty() {
        let ready: Vec<&str> = needs
            .iter()
            .filter(|(_, used)| !used.iter().any(|name| needs.contains_key(name.as_str())))
            .map(|(name, _)| *name)
            .collect();
        if ready.is_empty() {
            let mut names: Vec<&str> = needs.into_keys().collect();
            names.sort_unstable();
            return Err(variables.error(format!("circular dependency detected (among {})", names.join(", "))));
        }
        for name in ready {
            needs.remove(name);
        }
    }
    Ok(())
}

/// Names that a variable's plugin or text uses.
fn used(spec: &Node<'_>) -> HashSet<String> {
    let mut names = HashSet::new();
    if let Some(text) = spec.get("value").and_then(|node| node.value().as_str()) {
        collect(&Value::String(text.to_owned()), &mut names);
    }
    if let Some(inner) = spec.get("plugin").and_then(|plugin| plugin.get("spec")) {
        collect(inner.value(), &mut names);
    }
    names
}

fn collect(value: &Value, names: &mut HashSet<String>) {
    static REFERENCE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\$([0-9A-Za-z_]+)").ok());
    match value {
        Value::String(text) => {
            let Some(reference) = REFERENCE.as_ref() else { return };
            for found in reference.captures_iter(text) {
                // `$1` is a placeholder of PromQL's label_replace.
                if !found[1].bytes().all(|b| b.is_ascii_digit()) {
                    names.insert(found[1].to_owned());
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, names)),
        Value::Object(members) => members.values().for_each(|value| collect(value, names)),
        _ => {}
    }
}

/// Names that a dashboard's variables use and that neither it nor Perses itself (`__...`) defines, with the variable that
/// uses them: they must exist in the project or globally.
pub(super) fn undefined(dashboard: &Value) -> Vec<(String, String)> {
    let root = Node::root("spec", dashboard);
    let Some(Ok(entries)) = root.get("variables").map(|node| node.elements().map(Iterator::collect::<Vec<_>>)) else {
        return Vec::new();
    };
    let specs: Vec<Node<'_>> = entries.iter().filter_map(|entry| entry.get("spec")).collect();
    let names: HashSet<&str> = specs.iter().filter_map(|spec| spec.value().get("name")?.as_str()).collect();
    let mut missing = Vec::new();
    for spec in &specs {
        let by = spec.value().get("name").and_then(Value::as_str).unwrap_or_default();
        for name in used(spec) {
            if !names.contains(name.as_str()) && !name.starts_with("__") {
                missing.push((name, by.to_owned()));
            }
        }
    }
    missing.sort_unstable();
    missing
}
