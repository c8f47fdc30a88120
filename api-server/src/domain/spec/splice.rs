//! Changes to single values of a JSON text that leave the rest of it as it was sent.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A member of an object, by name, borrowed from the text.
#[derive(Deserialize)]
struct Members<'a>(#[serde(borrow)] HashMap<std::borrow::Cow<'a, str>, &'a RawValue>);

/// Replaces one value of the text, or inserts a member at the start of the outermost object.
pub(super) struct Edit {
    /// Byte range that is replaced; empty for an insertion.
    range: Option<std::ops::Range<usize>>,
    text: String,
}

impl Edit {
    /// Sets a member of the outermost object.
    pub(super) fn member(text: &RawValue, key: &str, value: &str) -> Self {
        if let Some(old) = member(text, key) {
            return Self { range: range_of(text, old), text: value.to_owned() };
        }
        let empty = members(text).is_none_or(|members| members.is_empty());
        let start = text.get().find('{').map(|brace| brace + 1);
        let comma = if empty { "" } else { "," };
        Self { range: start.map(|at| at..at), text: format!("\"{key}\":{value}{comma}") }
    }

    /// Replaces the value at a path of member names.
    pub(super) fn path(text: &RawValue, path: &[&str], value: &str) -> Self {
        Self { range: follow(text, path).and_then(|old| range_of(text, old)), text: value.to_owned() }
    }

    /// Replaces the value at a path inside the element `index` of the array `array`.
    pub(super) fn nested(text: &RawValue, array: &str, index: usize, path: &[&str], value: &str) -> Self {
        let element = member(text, array)
            .and_then(|list| serde_json::from_str::<Vec<&RawValue>>(list.get()).ok())
            .and_then(|elements| elements.get(index).copied());
        let old = element.and_then(|element| follow(element, path));
        Self { range: old.and_then(|old| range_of(text, old)), text: value.to_owned() }
    }
}

/// Applies the edits; `None` without any. Fails when a place was not found again, which would mean a bug here.
pub(super) fn apply(text: &RawValue, edits: Vec<Edit>) -> Result<Option<Box<RawValue>>, String> {
    if edits.is_empty() {
        return Ok(None);
    }
    let mut placed = Vec::with_capacity(edits.len());
    for edit in edits {
        let range = edit.range.ok_or("a default could not be filled in: the place was not found in the text")?;
        placed.push((range, edit.text));
    }
    // From the end, so that earlier ranges stay right.
    placed.sort_by_key(|(range, _)| std::cmp::Reverse(range.start));
    let mut out = text.get().to_owned();
    for (range, replacement) in placed {
        out.replace_range(range, &replacement);
    }
    RawValue::from_string(out).map(Some).map_err(|error| format!("a default could not be filled in: {error}"))
}

fn members(text: &RawValue) -> Option<HashMap<std::borrow::Cow<'_, str>, &RawValue>> {
    serde_json::from_str::<Members<'_>>(text.get()).ok().map(|members| members.0)
}

fn member<'a>(text: &'a RawValue, key: &str) -> Option<&'a RawValue> {
    members(text)?.get(key).copied()
}

fn follow<'a>(text: &'a RawValue, path: &[&str]) -> Option<&'a RawValue> {
    path.iter().try_fold(text, |at, key| member(at, key))
}

/// Where a borrowed part lies in the whole text.
fn range_of(whole: &RawValue, part: &RawValue) -> Option<std::ops::Range<usize>> {
    let start = part.get().as_ptr().addr().checked_sub(whole.get().as_ptr().addr())?;
    let range = start..start + part.get().len();
    (range.end <= whole.get().len()).then_some(range)
}
