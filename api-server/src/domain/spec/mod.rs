//! Validation of specs, by the rules of Perses v0.54. Pure: what depends on other documents (one default datasource per
//! scope, for example) is checked by the service.
//!
//! Every error names the place in the document; fields that this version does not know are kept and not looked at. What
//! plugins say about their `plugin.spec` is for [`super::lint`].

mod dashboard;
mod datasource;
mod folder;
pub(in crate::domain) mod node;
pub mod references;
mod role;
mod secret;
mod splice;
mod variable;

use serde_json::Value;
use serde_json::value::RawValue;

pub use datasource::{HTTP_PROXY, find_proxy, is_direct};
pub use variable::{circle, used as used_variables};

use self::node::Node;
use super::kind::Kind;

/// What is wrong with a spec, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct SpecError {
    /// The place, for example `spec.layouts[0].spec.items[2].content`.
    pub path: String,
    /// Upstream's text where it has one.
    pub message: String,
}

/// A spec that passed the checks.
#[derive(Debug)]
pub struct Checked {
    /// The spec, parsed, with upstream's defaults.
    pub value: Value,
    /// The text with upstream's defaults filled in, the rest as sent; `None` when it is stored as it is.
    pub normalised: Option<Box<RawValue>>,
}

/// Checks the spec of a document of this kind.
pub fn check(kind: Kind, spec: &RawValue) -> Result<Checked, SpecError> {
    let parse = |text: &RawValue| {
        let parsed = serde_json::from_str::<Value>(text.get());
        parsed.map_err(|error| SpecError { path: "spec".to_owned(), message: error.to_string() })
    };
    let mut value = parse(spec)?;
    let normalised = check_value(kind, &value, spec)?;
    if let Some(text) = &normalised {
        value = parse(text)?;
    }
    Ok(Checked { value, normalised })
}

fn check_value(kind: Kind, value: &Value, spec: &RawValue) -> Result<Option<Box<RawValue>>, SpecError> {
    let root = Node::root("spec", value);
    if value.is_null() {
        return Err(root.error("spec cannot be empty"));
    }
    root.object()?;
    match kind {
        Kind::Project => project(&root)?,
        Kind::Dashboard => {
            dashboard::check(&root)?;
            return dashboard::normalise(&root, spec);
        }
        Kind::Datasource | Kind::GlobalDatasource => datasource::check_document(&root)?,
        Kind::Folder => folder::check(&root)?,
        Kind::Variable | Kind::GlobalVariable => {
            variable::check_document(&root)?;
            return variable::normalise(&root, spec);
        }
        Kind::EphemeralDashboard => {
            dashboard::check_ephemeral(&root)?;
            return dashboard::normalise(&root, spec);
        }
        Kind::Role | Kind::GlobalRole => role::check_role(kind, &root)?,
        Kind::RoleBinding | Kind::GlobalRoleBinding => role::check_binding(&root)?,
        Kind::Secret | Kind::GlobalSecret => secret::check_secret(&root)?,
        Kind::User => secret::check_user(&root)?,
    }
    Ok(None)
}

/// Checks `metadata.name` where it has to follow more than the rule for every name: variables are used in expressions.
pub fn check_name(kind: Kind, name: &str) -> Result<(), SpecError> {
    if !matches!(kind, Kind::Variable | Kind::GlobalVariable) {
        return Ok(());
    }
    variable::check_name(name).map_err(|message| SpecError { path: "metadata.name".to_owned(), message })
}

/// Whether a dashboard has members of this name of its own: `datasources` or `variables`.
pub fn has_local(dashboard: &Value, key: &str) -> bool {
    match dashboard.get(key) {
        Some(Value::Object(members)) => !members.is_empty(),
        Some(Value::Array(elements)) => !elements.is_empty(),
        _ => false,
    }
}

/// The role that a (global) role binding gives; empty when the spec names none.
pub fn role_of_binding(binding: &RawValue) -> String {
    let spec: Value = serde_json::from_str(binding.get()).unwrap_or_default();
    spec.get("role").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Whether a datasource, or one that a dashboard brings along, names a secret: its requests carry credentials that its writer
/// may not be allowed to see.
pub fn names_secret(kind: Kind, spec: &RawValue) -> bool {
    // Most dashboards bring no datasource: their text is not parsed. An escape may stand for a letter.
    let may = |text: &str| text.contains("secret") || text.contains("\\u");
    if !may(spec.get()) {
        return false;
    }
    let spec: Value = serde_json::from_str(spec.get()).unwrap_or_default();
    match kind {
        Kind::Datasource | Kind::GlobalDatasource => datasource::names_secret(&spec),
        Kind::Dashboard | Kind::EphemeralDashboard => {
            let local = spec.get("datasources").and_then(Value::as_object);
            local.is_some_and(|local| local.values().any(datasource::names_secret))
        }
        _ => false,
    }
}

/// `spec.display.name`; `None` of a spec that has none, or is of another shape.
pub fn display_name(spec: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Spec {
        display: Option<Display>,
    }
    #[derive(serde::Deserialize)]
    struct Display {
        name: Option<String>,
    }
    serde_json::from_str::<Spec>(spec).ok()?.display?.name
}

fn project(spec: &Node<'_>) -> Result<(), SpecError> {
    display(spec)
}

/// `display` of most kinds: `{name?, description?}`.
fn display(spec: &Node<'_>) -> Result<(), SpecError> {
    if let Some(display) = spec.get("display") {
        display.object()?;
        display.opt_str("name")?;
        display.opt_str("description")?;
    }
    Ok(())
}

/// A plugin: `{kind, metadata?{version?,registry?}, spec}`.
fn plugin(parent: &Node<'_>) -> Result<(), SpecError> {
    let plugin = parent.required("plugin", "kind cannot be empty")?;
    plugin.object()?;
    if plugin.opt_str("kind")?.is_none_or(str::is_empty) {
        return Err(plugin.error("kind cannot be empty"));
    }
    if let Some(metadata) = plugin.get("metadata") {
        metadata.object()?;
        metadata.opt_str("version")?;
        metadata.opt_str("registry")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
