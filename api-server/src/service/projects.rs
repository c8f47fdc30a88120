//! A project that somebody creates comes with roles, and with its creator as owner (Perses v0.54).

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::cache::Encoded;
use crate::domain::document::{Draft, Envelope, Key, Origin};
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::service::resources::Resources;

/// The role, and the binding, of who creates a project.
const OWNER: &str = "owner";

impl Resources {
    /// Creates a project with the roles `owner`, `editor` and `viewer` and binds its creator to the first. It is one write:
    /// a crash leaves all of it or nothing that counts, and the same request works again.
    pub async fn create_project(&self, envelope: Envelope, creator: &str) -> Result<Encoded, ApiError> {
        let project = self.prepared(Kind::Project, envelope).await?;
        let contents = contents(&project.key.name, creator);
        self.write_project(project, contents).await
    }
}

fn contents(project: &str, creator: &str) -> Vec<Draft> {
    let draft = |kind: Kind, name: &str, spec: Value| Draft {
        key: Key::in_project(kind, project, name),
        tags: Vec::new(),
        spec: RawValue::from_string(spec.to_string()).unwrap_or_default(),
        origin: Origin::Api,
    };
    let role = |name, permissions| draft(Kind::Role, name, json!({ "permissions": permissions }));
    vec![
        role(OWNER, json!([{"actions": ["*"], "scopes": ["*"]}])),
        role(
            "editor",
            json!([
                {"actions": ["*"], "scopes": ["Dashboard", "Datasource", "Folder", "Secret", "Variable"]},
                {"actions": ["read"], "scopes": ["Project", "Role", "RoleBinding"]},
            ]),
        ),
        role("viewer", json!([{"actions": ["read"], "scopes": ["*"]}])),
        draft(Kind::RoleBinding, OWNER, json!({"role": OWNER, "subjects": [{"kind": "User", "name": creator}]})),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::spec;

    #[test]
    fn what_is_made_passes_the_rules_for_what_is_sent() {
        let made = contents("p", "ada");
        assert_eq!(made.len(), 4);
        for draft in made {
            assert_eq!(draft.key.project.as_deref(), Some("p"));
            spec::check(draft.key.kind, &draft.spec).unwrap();
        }
    }
}
