//! What the documents of the five kinds that decide about rights say, each by its key. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use super::grants::Grants;
use crate::auth::authorize::Permission;
use crate::domain::document::{Document, Key};
use crate::domain::kind::Kind;

/// Whether documents of a kind decide about rights. A deleted project takes its roles and bindings with it, each with a
/// change of its own.
pub const fn concerns(kind: Kind) -> bool {
    kind.is_authorization() || matches!(kind, Kind::User)
}

/// A role, as it is looked at.
#[derive(Debug)]
pub(super) struct Role {
    pub(super) permissions: Vec<Permission>,
    pub(super) grants: Grants,
}

/// What one document says.
#[derive(Debug, Clone)]
pub(super) enum Fact {
    /// The user exists.
    User,
    /// A role, global or of a project.
    Role(Arc<Role>),
    /// Who has a role.
    Binding { role: String, users: Vec<String> },
}

/// What all of them say.
#[derive(Debug, Default)]
pub struct Facts {
    known: HashMap<Key, (i64, Fact)>,
}

impl Facts {
    /// Takes a document in unless a newer one is known. One whose spec cannot be understood says nothing.
    pub fn put(&mut self, document: &Document) {
        if self.revision(&document.key).is_some_and(|known| known > document.revision) {
            return;
        }
        match read(document) {
            Ok(fact) => {
                self.known.insert(document.key.clone(), (document.revision, fact));
            }
            Err(error) => {
                tracing::warn!(kind = %document.key.kind, name = document.key.path(), %error, "this document gives no rights: its spec cannot be understood");
                self.known.remove(&document.key);
            }
        }
    }

    /// Forgets a document unless a newer one is known; whether there was one.
    pub fn remove(&mut self, key: &Key, revision: i64) -> bool {
        if self.revision(key).is_some_and(|known| known > revision) {
            return false;
        }
        self.known.remove(key).is_some()
    }

    /// The revision of a document that was taken in.
    pub fn revision(&self, key: &Key) -> Option<i64> {
        self.known.get(key).map(|(revision, _)| *revision)
    }

    /// How many documents say something.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Fact)> {
        self.known.iter().map(|(key, (_, fact))| (key, fact))
    }
}

#[derive(Deserialize)]
struct RoleSpec {
    #[serde(default)]
    permissions: Vec<Permission>,
}

#[derive(Deserialize)]
struct BindingSpec {
    role: String,
    #[serde(default)]
    subjects: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
}

fn read(document: &Document) -> Result<Fact, serde_json::Error> {
    Ok(match document.key.kind {
        Kind::Role | Kind::GlobalRole => {
            let RoleSpec { permissions } = serde_json::from_str(document.spec.get())?;
            Fact::Role(Arc::new(Role { grants: Grants::of(&permissions), permissions }))
        }
        Kind::RoleBinding | Kind::GlobalRoleBinding => {
            let BindingSpec { role, subjects } = serde_json::from_str(document.spec.get())?;
            let users = subjects.into_iter().filter(|subject| Kind::parse(&subject.kind) == Some(Kind::User));
            Fact::Binding { role, users: users.map(|subject| subject.name).collect() }
        }
        _ => Fact::User,
    })
}
