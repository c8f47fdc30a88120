//! PURE: the kinds of `perses.dev/v1alpha2` that are synced, and what they become in a server.

use kube::core::{ApiResource, GroupVersionKind};

/// API group of the resources.
pub const GROUP: &str = "perses.dev";
/// Version that is read; upstream's operator stores this one.
pub const VERSION: &str = "v1alpha2";

/// A kind of resource that becomes a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `PersesDashboard`, namespaced.
    Dashboard,
    /// `PersesDatasource`, namespaced.
    Datasource,
    /// `PersesGlobalDatasource`, cluster-scoped.
    GlobalDatasource,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Dashboard, Self::Datasource, Self::GlobalDatasource];

    /// The kind's name in the Kubernetes API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dashboard => "PersesDashboard",
            Self::Datasource => "PersesDatasource",
            Self::GlobalDatasource => "PersesGlobalDatasource",
        }
    }

    /// The plural in the Kubernetes API.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Dashboard => "persesdashboards",
            Self::Datasource => "persesdatasources",
            Self::GlobalDatasource => "persesglobaldatasources",
        }
    }

    /// Whether the resource lives in a namespace, and its document in the project of that name.
    pub fn is_namespaced(self) -> bool {
        self != Self::GlobalDatasource
    }

    /// Group, version and plural.
    pub fn resource(self) -> ApiResource {
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, self.name()), self.plural())
    }

    /// The kind of its document.
    pub fn document(self) -> DocumentKind {
        match self {
            Self::Dashboard => DocumentKind::Dashboard,
            Self::Datasource => DocumentKind::Datasource,
            Self::GlobalDatasource => DocumentKind::GlobalDatasource,
        }
    }

    /// The kind of the document with its credentials; `None` for what has none.
    pub fn secret(self) -> Option<DocumentKind> {
        match self {
            Self::Dashboard => None,
            Self::Datasource => Some(DocumentKind::Secret),
            Self::GlobalDatasource => Some(DocumentKind::GlobalSecret),
        }
    }
}

/// `Perses`: an instance that upstream's operator runs. Only its labels are read.
pub fn instances() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, "Perses"), "perses")
}

/// A kind of document of the Perses API (v0.54) that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentKind {
    /// `Dashboard` of a project.
    Dashboard,
    /// `Datasource` of a project.
    Datasource,
    /// `GlobalDatasource`.
    GlobalDatasource,
    /// `Secret` of a project.
    Secret,
    /// `GlobalSecret`.
    GlobalSecret,
    /// `Project`.
    Project,
}

impl DocumentKind {
    /// The value of `kind` in a document; also the metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dashboard => "Dashboard",
            Self::Datasource => "Datasource",
            Self::GlobalDatasource => "GlobalDatasource",
            Self::Secret => "Secret",
            Self::GlobalSecret => "GlobalSecret",
            Self::Project => "Project",
        }
    }

    /// The word in paths.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Dashboard => "dashboards",
            Self::Datasource => "datasources",
            Self::GlobalDatasource => "globaldatasources",
            Self::Secret => "secrets",
            Self::GlobalSecret => "globalsecrets",
            Self::Project => "projects",
        }
    }
}
