//! Rules for `security.authorization`.

use super::Config;
use super::security::{Authorization, Permission, RoleMapping};
use crate::domain::kind::Kind;

const ACTIONS: [&str; 5] = ["read", "create", "update", "delete", "*"];

impl Authorization {
    /// What every signed-in user may do, from its place and its old place.
    pub fn guest_permissions(&self) -> impl Iterator<Item = &Permission> {
        self.provider.native.guest_permissions.iter().chain(&self.guest_permissions)
    }
}

impl Config {
    /// Whether everybody may create a user for themselves: only where new users have no rights to begin with.
    pub fn open_sign_up(&self) -> bool {
        let authentication = &self.security.authentication;
        self.native_authorization() && authentication.providers.enable_native && !authentication.disable_sign_up
    }
}

/// What is wrong, and what to do. A word that is not known would silently give no right.
pub(super) fn check(authorization: &Authorization) -> Result<(), String> {
    let native = "security.authorization.provider.native";
    for permission in authorization.guest_permissions() {
        let place = format!("{native}.guest_permissions");
        if let Some(action) = permission.actions.iter().find(|action| !ACTIONS.contains(&action.as_str())) {
            return Err(format!("{place}: {action:?} is no action (one of {})", ACTIONS.join(", ")));
        }
        let is_scope = |scope: &&String| *scope != "*" && Kind::parse(scope).is_none();
        if let Some(scope) = permission.scopes.iter().find(is_scope) {
            return Err(format!("{place}: {scope:?} is no kind and not \"*\""));
        }
        if permission.actions.is_empty() || permission.scopes.is_empty() {
            return Err(format!("{place}: each entry needs actions and scopes"));
        }
    }
    for (at, RoleMapping { group, claim, value, role, project }) in
        authorization.provider.native.role_mappings.iter().enumerate()
    {
        let place = format!("{native}.role_mappings[{at}]");
        if !matches!((group, claim, value), (Some(_), None, None) | (None, Some(_), Some(_))) {
            return Err(format!("{place}: give either group, or claim and value"));
        }
        let texts = [group, claim, value, project].into_iter().flatten().chain([role]);
        if texts.into_iter().any(|text| text.is_empty() || text.chars().any(char::is_control)) {
            return Err(format!("{place}: a text is empty or has control characters (role is required)"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(native: &str) -> Result<(), String> {
        let text = format!(r#"{{"provider": {{"native": {native}}}}}"#);
        check(&serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn words_that_would_give_no_right_are_refused() {
        for (native, part) in [
            (r#"{"guest_permissions": [{"actions": ["write"], "scopes": ["*"]}]}"#, "\"write\" is no action"),
            (r#"{"guest_permissions": [{"actions": ["*"], "scopes": ["dashboards"]}]}"#, "is no kind"),
            (r#"{"guest_permissions": [{"actions": [], "scopes": ["*"]}]}"#, "needs actions and scopes"),
            (r#"{"role_mappings": [{"role": "a"}]}"#, "role_mappings[0]: give either"),
            (r#"{"role_mappings": [{"group": "g", "claim": "c", "value": "v", "role": "a"}]}"#, "give either"),
            (r#"{"role_mappings": [{"claim": "c", "role": "a"}]}"#, "give either"),
            (r#"{"role_mappings": [{"group": "g"}]}"#, "role is required"),
            (r#"{"role_mappings": [{"group": "g\u001f", "role": "a"}]}"#, "control characters"),
        ] {
            let error = checked(native).unwrap_err();
            assert!(error.contains(part), "{native}: {error}");
        }
        checked(
            r#"{"guest_permissions": [{"actions": ["read", "*"], "scopes": ["*", "dashboard"]}],
                "role_mappings": [{"group": "g", "role": "a"}, {"claim": "c", "value": "v", "role": "a", "project": "p"}]}"#,
        )
        .unwrap();
    }
}
