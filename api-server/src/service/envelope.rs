//! The envelope around a spec, as clients send it: kind, names, tags, and how it fits the path. Pure.

use serde_json::value::RawValue;

use crate::domain::document::{Draft, Envelope, Key, Origin};
use crate::domain::kind::Kind;
use crate::domain::{name, spec};
use crate::error::ApiError;

/// Most tags of a document (Perses v0.54).
const MAX_TAGS: usize = 20;
/// Longest tag, in characters.
const MAX_TAG_LENGTH: usize = 50;

/// Envelope and path become a draft: an empty name or project is filled from the path, another one is refused.
pub(super) fn draft(
    kind: Kind,
    project: Option<&str>,
    path_name: Option<&str>,
    envelope: Envelope,
    fold: impl Fn(&str) -> String,
) -> Result<Draft, ApiError> {
    check_kind(kind, &envelope.kind)?;
    let body_name = fold(&envelope.metadata.name);
    let name = match path_name {
        Some(path) if body_name.is_empty() || body_name == path => path.to_owned(),
        Some(path) => {
            return Err(ApiError::BadRequest(format!(
                "name parameter value '{path}' does not match provided metadata value '{body_name}'"
            )));
        }
        None => body_name,
    };
    check_name(kind, &name)?;
    let project = if kind.is_project_scoped() {
        let body = fold(&envelope.metadata.project);
        match project {
            Some(path) if body.is_empty() || body == path => Some(path.to_owned()),
            Some(path) => {
                return Err(ApiError::BadRequest(format!(
                    "project parameter value '{path}' does not match provided metadata value '{body}'"
                )));
            }
            None if body.is_empty() => {
                return Err(ApiError::BadRequest("metadata.project cannot be empty".to_owned()));
            }
            None => Some(body),
        }
    } else {
        None
    };
    let tags = check_tags(envelope.metadata.tags.unwrap_or_default())?;
    // A project may come without a spec; its zero value is an empty object.
    let spec = match envelope.spec {
        None if kind == Kind::Project => empty_object(),
        spec => required_spec(spec)?,
    };
    let key = Key { kind, project, name };
    Ok(Draft { key, tags, spec, origin: Origin::Api })
}

pub(super) fn check_kind(kind: Kind, text: &str) -> Result<(), ApiError> {
    // Upstream looks at the kind of most types only.
    let may_be_absent =
        matches!(kind, Kind::Secret | Kind::GlobalSecret | Kind::Variable | Kind::GlobalVariable) && text.is_empty();
    if may_be_absent || Kind::parse(text) == Some(kind) {
        return Ok(());
    }
    Err(ApiError::BadRequest(format!("invalid kind: {text:?} for a {kind} type")))
}

/// Checks `metadata.name`.
pub(crate) fn check_name(kind: Kind, text: &str) -> Result<(), ApiError> {
    name::validate(text).map_err(|error| ApiError::BadRequest(format!("metadata.name: {error}")))?;
    spec::check_name(kind, text).map_err(|error| ApiError::BadRequest(error.to_string()))
}

/// The tag rules of Perses v0.54; duplicates are dropped, the order sent is kept.
pub(crate) fn check_tags(tags: Vec<String>) -> Result<Vec<String>, ApiError> {
    let mut unique: Vec<String> = Vec::with_capacity(tags.len());
    for tag in tags {
        let length = tag.chars().count();
        if length == 0 || length > MAX_TAG_LENGTH || tag.trim() != tag {
            return Err(ApiError::BadRequest(format!(
                "metadata.tags: {tag:?} must have 1 to {MAX_TAG_LENGTH} characters and no blanks at its ends"
            )));
        }
        if !unique.contains(&tag) {
            unique.push(tag);
        }
    }
    if unique.len() > MAX_TAGS {
        return Err(ApiError::BadRequest(format!(
            "metadata.tags: {} tags, at most {MAX_TAGS} are allowed",
            unique.len()
        )));
    }
    Ok(unique)
}

/// A path whose parts cannot be names finds nothing, and never reaches a store.
pub(super) fn require_sane(key: &Key) -> Result<(), ApiError> {
    let sane = |text: &str| name::validate(text).is_ok();
    if sane(&key.name) && key.project.as_deref().is_none_or(sane) { Ok(()) } else { Err(ApiError::NotFound) }
}

/// Tags are a set.
pub(super) fn same_tags(one: &[String], other: &[String]) -> bool {
    one.len() == other.len() && one.iter().all(|tag| other.contains(tag))
}

pub(super) fn required_spec(spec: Option<Box<RawValue>>) -> Result<Box<RawValue>, ApiError> {
    spec.ok_or_else(|| ApiError::BadRequest("spec cannot be empty".to_owned()))
}

fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_default()
}
