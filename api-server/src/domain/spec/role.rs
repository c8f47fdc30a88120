//! `Role`, `GlobalRole` and their bindings: who may do what (Perses v0.54).

use super::SpecError;
use super::node::Node;
use crate::domain::kind::Kind;

/// What a permission may allow; `*` is everything.
const ACTIONS: [&str; 5] = ["read", "create", "update", "delete", "*"];

pub(super) fn check_role(kind: Kind, spec: &Node<'_>) -> Result<(), SpecError> {
    let permissions = spec.required("permissions", "permissions cannot be empty")?;
    for permission in permissions.elements()? {
        permission.object()?;
        let actions = required_list(&permission, "actions", "permission actions cannot be empty")?;
        for action in actions.elements()? {
            let text = action.str()?;
            if !ACTIONS.contains(&text) {
                return Err(
                    action.error(format!("{text:?} has no associated struct: use one of {}", ACTIONS.join(", ")))
                );
            }
        }
        let scopes = required_list(&permission, "scopes", "permission scopes cannot be empty")?;
        for scope in scopes.elements()? {
            check_scope(kind, &scope)?;
        }
    }
    Ok(())
}

fn check_scope(kind: Kind, scope: &Node<'_>) -> Result<(), SpecError> {
    let text = scope.str()?;
    if text == "*" {
        return Ok(());
    }
    let Some(found) = Kind::parse(text) else {
        return Err(scope.error(format!("unknown scope {text:?} used")));
    };
    // Whether somebody may see or change a project is decided in it; everything else without a project is global.
    if kind == Kind::Role && !found.is_project_scoped() && found != Kind::Project {
        return Err(scope.error(format!("invalid scope: {text:?} for a Role scope, which needs a GlobalRole")));
    }
    Ok(())
}

pub(super) fn check_binding(spec: &Node<'_>) -> Result<(), SpecError> {
    if spec.str_or_empty("role")?.is_empty() {
        return Err(spec.error("role cannot be empty"));
    }
    let subjects = required_list(spec, "subjects", "subjects cannot be empty")?;
    for subject in subjects.elements()? {
        subject.object()?;
        let kind = subject.str_or_empty("kind")?;
        if Kind::parse(kind) != Some(Kind::User) {
            return Err(subject.error(format!("invalid subject kind {kind:?}: only User is supported")));
        }
        if subject.str_or_empty("name")?.is_empty() {
            return Err(subject.error("subject name cannot be empty"));
        }
    }
    Ok(())
}

fn required_list<'v>(node: &Node<'v>, key: &str, message: &str) -> Result<Node<'v>, SpecError> {
    let list = node.required(key, message)?;
    if list.elements()?.next().is_none() {
        return Err(list.error(message));
    }
    Ok(list)
}
