//! From the claims of a sign-in elsewhere to what role mappings look at. Pure.
//!
//! A token carries only what some mapping names, as texts: the group itself, or claim and value. So it stays small however
//! many groups a user has.

use serde_json::Value;

use crate::config::RoleMapping;

/// Between the name of a claim and its value; no group has it in its name.
const BETWEEN: char = '\u{1f}';

/// What stands in the token for a value of a claim other than the groups.
pub fn claim_entry(claim: &str, value: &str) -> String {
    format!("{claim}{BETWEEN}{value}")
}

impl RoleMapping {
    /// Only brings a group into the token: for what looks at groups beside roles.
    pub fn without_role(group: &str) -> Self {
        Self { group: Some(group.to_owned()), claim: None, value: None, role: String::new(), project: None }
    }

    /// What the token of a user must hold for this mapping to count; `None` when the mapping names nothing.
    pub fn entry(&self) -> Option<String> {
        match (&self.group, &self.claim, &self.value) {
            (Some(group), None, None) => Some(group.clone()),
            (None, Some(claim), Some(value)) => Some(claim_entry(claim, value)),
            _ => None,
        }
    }
}

/// What of the claims of a sign-in goes into the token: the entries of the mappings that match. A claim is one text or a list
/// of texts; `groups_claim` names the one with the groups. A dot in the name of a claim leads into an object
/// (`realm_access.roles`), unless there is a claim with the whole name.
pub fn mapped_entries(mappings: &[RoleMapping], groups_claim: &str, claims: &Value) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for mapping in mappings {
        let (claim, wanted) = match (&mapping.group, &mapping.claim, &mapping.value) {
            (Some(group), None, None) => (groups_claim, group),
            (None, Some(claim), Some(value)) => (claim.as_str(), value),
            _ => continue,
        };
        if let Some(entry) = mapping.entry()
            && !entries.contains(&entry)
            && find(claims, claim).is_some_and(|found| holds(found, wanted))
        {
            entries.push(entry);
        }
    }
    entries
}

fn find<'v>(claims: &'v Value, name: &str) -> Option<&'v Value> {
    claims.get(name).or_else(|| name.split('.').try_fold(claims, |at, part| at.get(part)))
}

fn holds(found: &Value, wanted: &str) -> bool {
    match found {
        Value::String(text) => text == wanted,
        Value::Array(list) => list.iter().any(|one| one.as_str() == Some(wanted)),
        Value::Bool(found) => wanted == if *found { "true" } else { "false" },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_a_mapping_names_goes_into_the_token() {
        let mapping = |text: Value| serde_json::from_value::<RoleMapping>(text).unwrap();
        let mappings = [
            mapping(json!({"group": "sre", "role": "admin"})),
            mapping(json!({"group": "sre", "role": "editor", "project": "p"})),
            mapping(json!({"group": "dev", "role": "viewer"})),
            mapping(json!({"claim": "team", "value": "core", "role": "viewer"})),
            mapping(json!({"claim": "realm_access.roles", "value": "boss", "role": "admin"})),
            mapping(json!({"claim": "https://a.b/c", "value": "true", "role": "admin"})),
        ];
        let claims = json!({
            "groups": ["sre", "other", 7], "team": "core", "realm_access": {"roles": ["boss"]}, "https://a.b/c": true,
        });
        assert_eq!(
            mapped_entries(&mappings, "groups", &claims),
            ["sre", "team\u{1f}core", "realm_access.roles\u{1f}boss", "https://a.b/c\u{1f}true"]
        );
        assert!(mapped_entries(&mappings, "roles", &json!({"groups": ["sre"], "team": null})).is_empty());
        // A group that is named like a claim and its value is not that claim.
        assert!(mapped_entries(&mappings, "groups", &json!({"groups": ["team=core"]})).is_empty());
    }
}
