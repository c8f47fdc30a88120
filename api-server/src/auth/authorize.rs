//! Who may do what: the one question that handlers ask, whoever answers it.
//!
//! Invariants: what cannot be decided is an error, never a pass; a check sees the rights of now, never those of a cached
//! answer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::kubernetes::Cluster;
use super::rbac::Rbac;
use super::token::Principal;
use crate::config;
use crate::domain::kind::Kind;
use crate::error::ApiError;

/// What a request wants to do with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Read or list.
    Read,
    /// Create.
    Create,
    /// Replace.
    Update,
    /// Delete.
    Delete,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 4] = [Self::Read, Self::Create, Self::Update, Self::Delete];

    /// The word in roles (Perses v0.54) and in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where somebody may do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// In every project, and with what belongs to none.
    Everywhere,
    /// In these projects.
    Projects(BTreeSet<String>),
}

impl Reach {
    /// Whether it holds a project.
    pub fn contains(&self, project: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Projects(projects) => projects.contains(project),
        }
    }
}

/// What may be done to which kinds, as roles and the permissions endpoint write it (Perses v0.54).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permission {
    /// `read`, `create`, `update`, `delete` or `*`.
    pub actions: Vec<String>,
    /// Kinds, or `*`.
    pub scopes: Vec<String>,
}

impl Permission {
    /// Everything.
    pub fn everything() -> Self {
        Self { actions: vec!["*".to_owned()], scopes: vec!["*".to_owned()] }
    }
}

impl From<&config::Permission> for Permission {
    fn from(permission: &config::Permission) -> Self {
        Self { actions: permission.actions.clone(), scopes: permission.scopes.clone() }
    }
}

/// Permissions of one user by project. What holds in every project, and for what belongs to none, is at [`EVERY_PROJECT`],
/// which is always there; `None` prints as null (Perses v0.54).
pub type Permissions = BTreeMap<String, Option<Vec<Permission>>>;

/// The key of [`Permissions`] for global ones.
pub const EVERY_PROJECT: &str = "*";

/// Who decides.
#[derive(Debug, Clone)]
pub enum Authorizer {
    /// Nobody: whoever passes the sign-in may do everything.
    Everyone,
    /// The roles and bindings of this server.
    Native(Arc<Rbac>),
    /// Access reviews of the cluster.
    Kubernetes(Arc<Cluster>),
}

impl Authorizer {
    /// Whether somebody may act on documents of a kind in a project; `None` is what belongs to no project: global kinds, and
    /// the creation of a project. A project itself is asked for by its own name. Without a sign-in there is no principal.
    pub async fn allows(
        &self,
        principal: Option<&Principal>,
        action: Action,
        kind: Kind,
        project: Option<&str>,
    ) -> Result<bool, ApiError> {
        match self {
            Self::Everyone => Ok(true),
            Self::Native(rbac) => rbac.ask(principal, |graph, who| graph.allows(&who.0, action, kind, project)),
            Self::Kubernetes(cluster) => cluster.allows(principal, action, kind, project).await,
        }
    }

    /// In which projects somebody may read documents of a kind.
    pub async fn readable(&self, principal: Option<&Principal>, kind: Kind) -> Result<Reach, ApiError> {
        match self {
            Self::Everyone => Ok(Reach::Everywhere),
            Self::Native(rbac) => rbac.ask(principal, |graph, who| graph.readable(&who.0, kind)),
            Self::Kubernetes(cluster) => cluster.readable(principal, kind).await,
        }
    }

    /// All permissions of somebody, for the UI.
    pub async fn permissions(&self, principal: &Principal) -> Result<Permissions, ApiError> {
        match self {
            Self::Everyone => Ok(Permissions::from([(EVERY_PROJECT.to_owned(), Some(vec![Permission::everything()]))])),
            Self::Native(rbac) => rbac.ask(Some(principal), |graph, who| graph.permissions(&who.0)),
            Self::Kubernetes(cluster) => cluster.permissions(principal).await,
        }
    }

    /// Whether somebody may do everything: what only administrators are shown asks this.
    pub async fn is_administrator(&self, principal: Option<&Principal>) -> Result<bool, ApiError> {
        match self {
            Self::Everyone => Ok(true),
            Self::Native(rbac) => rbac.ask(principal, |graph, who| graph.is_administrator(&who.0)),
            Self::Kubernetes(cluster) => cluster.is_administrator(principal).await,
        }
    }

    /// The roles of this server, when they decide.
    pub const fn native(&self) -> Option<&Arc<Rbac>> {
        match self {
            Self::Everyone | Self::Kubernetes(_) => None,
            Self::Native(rbac) => Some(rbac),
        }
    }

    /// The cluster, when it decides.
    pub const fn cluster(&self) -> Option<&Arc<Cluster>> {
        match self {
            Self::Everyone | Self::Native(_) => None,
            Self::Kubernetes(cluster) => Some(cluster),
        }
    }

    /// Whether questions can be answered; the error is for people.
    pub fn readiness(&self) -> Result<(), String> {
        match self {
            Self::Native(rbac) if !rbac.is_loaded() => Err("roles and bindings are not loaded yet".to_owned()),
            Self::Everyone | Self::Native(_) | Self::Kubernetes(_) => Ok(()),
        }
    }
}
