//! What a caller must be allowed to do before a request goes to a datasource (Perses v0.54): the one list of them. Pure.

use super::location::DatasourceRef;
use crate::auth::authorize::Action;
use crate::domain::kind::Kind;

/// One right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// What has to be allowed.
    pub action: Action,
    /// On which kind.
    pub kind: Kind,
    /// In which project; without one in all of them.
    pub project: Option<String>,
}

impl Right {
    fn of(action: Action, reference: &DatasourceRef, global: Kind, of_project: Kind) -> Self {
        let project = reference.project().map(str::to_owned);
        let kind = if project.is_some() { of_project } else { global };
        Self { action, kind, project }
    }

    /// To use a saved datasource: to read it. One inside a dashboard counts as one of the project.
    pub(super) fn to_use(reference: &DatasourceRef) -> Self {
        Self::of(Action::Read, reference, Kind::GlobalDatasource, Kind::Datasource)
    }

    /// To use one that is not saved: to create it.
    pub(super) fn to_try(reference: &DatasourceRef) -> Self {
        Self::of(Action::Create, reference, Kind::GlobalDatasource, Kind::Datasource)
    }

    /// To have a secret of that level used in one that is not saved: to read it.
    pub(super) fn to_name_a_secret(reference: &DatasourceRef) -> Self {
        Self::of(Action::Read, reference, Kind::GlobalSecret, Kind::Secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_decides() {
        let name = "n".to_owned();
        let global = DatasourceRef::Global { name: name.clone() };
        let local = DatasourceRef::Dashboard { project: "p".to_owned(), dashboard: "d".to_owned(), name };
        let right = |action, kind, project: Option<&str>| Right { action, kind, project: project.map(str::to_owned) };
        assert_eq!(Right::to_use(&global), right(Action::Read, Kind::GlobalDatasource, None));
        assert_eq!(Right::to_use(&local), right(Action::Read, Kind::Datasource, Some("p")));
        assert_eq!(Right::to_try(&global), right(Action::Create, Kind::GlobalDatasource, None));
        assert_eq!(Right::to_try(&local), right(Action::Create, Kind::Datasource, Some("p")));
        assert_eq!(Right::to_name_a_secret(&global), right(Action::Read, Kind::GlobalSecret, None));
        assert_eq!(Right::to_name_a_secret(&local), right(Action::Read, Kind::Secret, Some("p")));
    }
}
