//! From facts to rights: for every user what may be done where. Pure and immutable.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::facts::{Fact, Facts, Role};
use super::grants::Grants;
use crate::auth::authorize::{Action, EVERY_PROJECT, Permission, Permissions, Reach};
use crate::auth::token::Claims;
use crate::config::RoleMapping;
use crate::domain::kind::Kind;

/// What the configuration says about rights.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// What every signed-in user may do, everywhere (Perses v0.54).
    pub guest: Vec<Permission>,
    /// Roles that come with a sign-in elsewhere.
    pub mappings: Vec<RoleMapping>,
    /// Whether names keep their letter case; else a binding to `Alice` is one to `alice`.
    pub case_sensitive: bool,
}

impl Rules {
    fn fold(&self, name: &str) -> String {
        if self.case_sensitive { name.to_owned() } else { name.to_lowercase() }
    }
}

/// A role that somebody has, and where.
#[derive(Debug, Clone)]
struct Held {
    /// `None` is everywhere.
    project: Option<Arc<str>>,
    role: Arc<Role>,
}

/// What roles give together.
#[derive(Debug, Clone, Default)]
struct Rights {
    /// Everywhere.
    global: Grants,
    /// In one project, ordered by its name; few, so that a search beats a hash.
    projects: Vec<(Arc<str>, Grants)>,
    roles: Vec<Held>,
}

impl Rights {
    fn add(&mut self, held: Held) {
        let grants = held.role.grants;
        match &held.project {
            None => self.global = self.global.with(grants),
            Some(project) => match self.projects.binary_search_by(|(name, _)| name.cmp(project)) {
                Ok(at) => self.projects[at].1 = self.projects[at].1.with(grants),
                Err(at) => self.projects.insert(at, (project.clone(), grants)),
            },
        }
        self.roles.push(held);
    }

    fn allow(&self, wanted: Grants, project: Option<&str>) -> bool {
        self.global.has(wanted)
            || project.is_some_and(|project| {
                let found = self.projects.binary_search_by(|(name, _)| (**name).cmp(project));
                found.is_ok_and(|at| self.projects[at].1.has(wanted))
            })
    }
}

/// Rights of all users.
#[derive(Debug, Default)]
pub struct Graph {
    guest: Grants,
    guest_permissions: Vec<Permission>,
    /// Every user that exists, also those without a role.
    users: HashMap<String, Rights>,
    /// What the entries of a token give to users that exist.
    mapped: HashMap<String, Rights>,
    /// Everybody who is named by a binding, whether they exist or not.
    subjects: HashSet<String>,
}

impl Graph {
    /// Puts facts together. Roles that do not exist give nothing; users that do not exist have nothing (Perses v0.54).
    pub fn build(facts: &Facts, rules: &Rules) -> Self {
        let mut roles: HashMap<(Option<&str>, &str), &Arc<Role>> = HashMap::new();
        let mut users: HashMap<String, Rights> = HashMap::new();
        let mut bindings = Vec::new();
        for (key, fact) in facts.iter() {
            match fact {
                Fact::User => {
                    users.entry(key.name.clone()).or_default();
                }
                Fact::Role(role) => {
                    roles.insert((key.project.as_deref(), &key.name), role);
                }
                Fact::Binding { role, users } => bindings.push((key, role, users)),
            }
        }
        // The order of facts is that of hashing: what the permissions endpoint prints should not change with it.
        bindings.sort_unstable_by_key(|(key, ..)| *key);
        let mut names: HashMap<&str, Arc<str>> = HashMap::new();
        let mut subjects = HashSet::new();
        for (key, role, named) in bindings {
            let role = rules.fold(role);
            let role = roles.get(&(key.project.as_deref(), role.as_str()));
            let project = key
                .project
                .as_deref()
                .map(|project| names.entry(project).or_insert_with(|| Arc::from(project)).clone());
            for user in named {
                let user = rules.fold(user);
                if let (Some(rights), Some(&role)) = (users.get_mut(&user), role) {
                    rights.add(Held { project: project.clone(), role: role.clone() });
                }
                subjects.insert(user);
            }
        }
        let mut mapped: HashMap<String, Rights> = HashMap::new();
        for mapping in &rules.mappings {
            let project = mapping.project.as_deref().map(|project| rules.fold(project));
            let role = rules.fold(&mapping.role);
            let role = roles.get(&(project.as_deref(), role.as_str()));
            if let (Some(entry), Some(&role)) = (mapping.entry(), role) {
                let project = project.as_deref().map(Arc::from);
                mapped.entry(entry).or_default().add(Held { project, role: role.clone() });
            }
        }
        Self { guest: Grants::of(&rules.guest), guest_permissions: rules.guest.clone(), users, mapped, subjects }
    }

    /// Whether a user may act on documents of a kind in a project; `None` is what belongs to no project.
    pub fn allows(&self, who: &Claims, action: Action, kind: Kind, project: Option<&str>) -> bool {
        let wanted = Grants::one(action, kind);
        self.guest.has(wanted) || self.rights(who).any(|rights| rights.allow(wanted, project))
    }

    /// In which projects a user may read documents of a kind.
    pub fn readable(&self, who: &Claims, kind: Kind) -> Reach {
        let wanted = Grants::one(Action::Read, kind);
        if self.guest.has(wanted) || self.rights(who).any(|rights| rights.global.has(wanted)) {
            return Reach::Everywhere;
        }
        let projects = self.rights(who).flat_map(|rights| &rights.projects);
        Reach::Projects(
            projects.filter(|(_, grants)| grants.has(wanted)).map(|(name, _)| (**name).to_owned()).collect(),
        )
    }

    /// Whether a user may do everything everywhere.
    pub fn is_administrator(&self, who: &Claims) -> bool {
        self.rights(who).fold(self.guest, |all, rights| all.with(rights.global)) == Grants::ALL
    }

    /// All permissions of a user: those of guests first, then by binding (Perses v0.54).
    pub fn permissions(&self, who: &Claims) -> Permissions {
        let guest = (!self.guest_permissions.is_empty()).then(|| self.guest_permissions.clone());
        let mut all: Permissions = BTreeMap::from([(EVERY_PROJECT.to_owned(), guest)]);
        for held in self.rights(who).flat_map(|rights| &rights.roles) {
            let project = held.project.as_deref().unwrap_or(EVERY_PROJECT);
            let list = all.entry(project.to_owned()).or_default().get_or_insert_default();
            list.extend(held.role.permissions.iter().cloned());
        }
        all
    }

    /// Whether a binding names a user, who need not exist.
    pub fn names(&self, user: &str) -> bool {
        self.subjects.contains(user)
    }

    /// Rights of a user: by bindings, then by what the token brings. A user that was deleted has neither.
    fn rights<'g>(&'g self, who: &'g Claims) -> impl Iterator<Item = &'g Rights> {
        let own = self.users.get(&who.sub);
        let brought = own.is_some().then_some(&who.groups).into_iter().flatten();
        own.into_iter().chain(brought.filter_map(|entry| self.mapped.get(entry)))
    }
}
