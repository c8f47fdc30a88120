//! The resource kinds that this server stores, with their names on the wire.

use std::fmt;

/// A kind of resource of the Perses API (v0.54).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `Project`: the scope that other resources live in.
    Project,
    /// `Dashboard` of a project.
    Dashboard,
    /// `Datasource` of a project.
    Datasource,
    /// `Folder` of a project: a tree of dashboards.
    Folder,
    /// `Variable` of a project.
    Variable,
    /// `Secret` of a project: credentials for datasources.
    Secret,
    /// `Role` of a project: what may be done in it.
    Role,
    /// `RoleBinding` of a project: who has one of its roles.
    RoleBinding,
    /// `EphemeralDashboard` of a project: a dashboard that is deleted when its time is over.
    EphemeralDashboard,
    /// `GlobalDatasource`: usable in every project.
    GlobalDatasource,
    /// `GlobalVariable`: usable in every project.
    GlobalVariable,
    /// `GlobalSecret`: credentials for global datasources.
    GlobalSecret,
    /// `GlobalRole`: what may be done in every project.
    GlobalRole,
    /// `GlobalRoleBinding`: who has a global role.
    GlobalRoleBinding,
    /// `User`: who may sign in.
    User,
}

impl Kind {
    /// Every kind, in the order of the API's routes.
    pub const ALL: [Self; 15] = [
        Self::Project,
        Self::Dashboard,
        Self::Datasource,
        Self::Folder,
        Self::Variable,
        Self::Secret,
        Self::Role,
        Self::RoleBinding,
        Self::EphemeralDashboard,
        Self::GlobalDatasource,
        Self::GlobalVariable,
        Self::GlobalSecret,
        Self::GlobalRole,
        Self::GlobalRoleBinding,
        Self::User,
    ];

    /// The value of `kind` in a document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Project => "Project",
            Self::Dashboard => "Dashboard",
            Self::Datasource => "Datasource",
            Self::Folder => "Folder",
            Self::Variable => "Variable",
            Self::Secret => "Secret",
            Self::Role => "Role",
            Self::RoleBinding => "RoleBinding",
            Self::EphemeralDashboard => "EphemeralDashboard",
            Self::GlobalDatasource => "GlobalDatasource",
            Self::GlobalVariable => "GlobalVariable",
            Self::GlobalSecret => "GlobalSecret",
            Self::GlobalRole => "GlobalRole",
            Self::GlobalRoleBinding => "GlobalRoleBinding",
            Self::User => "User",
        }
    }

    /// The path segment of the kind, also the name of its folder in a file store.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Project => "projects",
            Self::Dashboard => "dashboards",
            Self::Datasource => "datasources",
            Self::Folder => "folders",
            Self::Variable => "variables",
            Self::Secret => "secrets",
            Self::Role => "roles",
            Self::RoleBinding => "rolebindings",
            Self::EphemeralDashboard => "ephemeraldashboards",
            Self::GlobalDatasource => "globaldatasources",
            Self::GlobalVariable => "globalvariables",
            Self::GlobalSecret => "globalsecrets",
            Self::GlobalRole => "globalroles",
            Self::GlobalRoleBinding => "globalrolebindings",
            Self::User => "users",
        }
    }

    /// Whether resources of this kind belong to a project.
    pub const fn is_project_scoped(self) -> bool {
        matches!(
            self,
            Self::Dashboard
                | Self::Datasource
                | Self::Folder
                | Self::Variable
                | Self::Secret
                | Self::Role
                | Self::RoleBinding
                | Self::EphemeralDashboard
        )
    }

    /// Whether the kind takes part in native authorization: its routes exist only when that is on.
    pub const fn is_authorization(self) -> bool {
        matches!(self, Self::Role | Self::RoleBinding | Self::GlobalRole | Self::GlobalRoleBinding)
    }

    /// Whether the kind says who has a role.
    pub const fn is_binding(self) -> bool {
        matches!(self, Self::RoleBinding | Self::GlobalRoleBinding)
    }

    /// The kind of the secrets that datasources of this kind, or in documents of this kind, name: those of their own level.
    pub const fn secrets(self) -> Option<Self> {
        match self {
            Self::Datasource | Self::Dashboard | Self::EphemeralDashboard => Some(Self::Secret),
            Self::GlobalDatasource => Some(Self::GlobalSecret),
            _ => None,
        }
    }

    /// Whether `spec` holds secrets that are encrypted in the store and masked in answers.
    pub const fn holds_secrets(self) -> bool {
        matches!(self, Self::Secret | Self::GlobalSecret | Self::User)
    }

    /// Reads a kind as upstream does: letter case does not matter.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
