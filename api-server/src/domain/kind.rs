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
    /// `GlobalDatasource`: usable in every project.
    GlobalDatasource,
    /// `GlobalVariable`: usable in every project.
    GlobalVariable,
    /// `GlobalSecret`: credentials for global datasources.
    GlobalSecret,
    /// `User` with native sign-in.
    User,
}

impl Kind {
    /// Every kind, in the order of the API's routes.
    pub const ALL: [Self; 10] = [
        Self::Project,
        Self::Dashboard,
        Self::Datasource,
        Self::Folder,
        Self::Variable,
        Self::Secret,
        Self::GlobalDatasource,
        Self::GlobalVariable,
        Self::GlobalSecret,
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
            Self::GlobalDatasource => "GlobalDatasource",
            Self::GlobalVariable => "GlobalVariable",
            Self::GlobalSecret => "GlobalSecret",
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
            Self::GlobalDatasource => "globaldatasources",
            Self::GlobalVariable => "globalvariables",
            Self::GlobalSecret => "globalsecrets",
            Self::User => "users",
        }
    }

    /// Whether resources of this kind belong to a project.
    pub const fn is_project_scoped(self) -> bool {
        matches!(self, Self::Dashboard | Self::Datasource | Self::Folder | Self::Variable | Self::Secret)
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
