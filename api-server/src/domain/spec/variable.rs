//! Variables, of dashboards and as documents: kinds, names, defaults, references among them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use serde_json::value::RawValue;

use super::node::Node;
use super::{SpecError, plugin, references, splice};

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
    let mut needs = BTreeMap::new();
    for entry in variables.elements()? {
        let Some(spec) = entry.get("spec") else { continue };
        needs.insert(spec.str_or_empty("name")?.to_owned(), used(spec.value()));
    }
    circle(needs).map_or(Ok(()), |names| {
        Err(variables.error(format!("circular dependency detected (among {})", names.join(", "))))
    })
}

/// The names of variables that need each other in a circle, or need one that does; sorted. `needs` holds what each one uses.
pub fn circle(mut needs: BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    while !needs.is_empty() {
        let waits = |used: &BTreeSet<String>| used.iter().any(|name| needs.contains_key(name));
        let ready: Vec<String> = needs.iter().filter(|(_, used)| !waits(used)).map(|(name, _)| name.clone()).collect();
        if ready.is_empty() {
            return Some(needs.into_keys().collect());
        }
        for name in ready {
            needs.remove(&name);
        }
    }
    None
}

/// Names that a variable's plugin or text uses. `spec` is the inner spec: with `value` or `plugin`.
pub fn used(spec: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    if let Some(text @ Value::String(_)) = spec.get("value") {
        collect(text, &mut names);
    }
    if let Some(inner) = spec.get("plugin").and_then(|plugin| plugin.get("spec")) {
        collect(inner, &mut names);
    }
    names
}

fn collect(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => names.extend(references::names(text).map(|(name, _)| name.to_owned())),
        Value::Array(values) => values.iter().for_each(|value| collect(value, names)),
        Value::Object(members) => members.values().for_each(|value| collect(value, names)),
        _ => {}
    }
}
