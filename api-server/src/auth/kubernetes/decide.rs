//! What handlers ask, answered by access reviews.

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _};

use super::cluster::{Cluster, ClusterUser};
use super::question::{EVERY_NAMESPACE, OF_PROJECTS, Question};
use crate::auth::authorize::{Action, EVERY_PROJECT, Permission, Permissions, Reach};
use crate::auth::token::Principal;
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::store::ListQuery;

/// Reviews that one request asks for at once.
const AT_ONCE: usize = 32;
/// Kinds that the permissions of a project name (Perses v0.54).
const IN_PROJECTS: [Kind; 6] =
    [Kind::Dashboard, Kind::Datasource, Kind::Secret, Kind::Variable, Kind::EphemeralDashboard, Kind::Folder];
/// Kinds that the global permissions name beside them.
const GLOBAL: [Kind; 3] = [Kind::GlobalDatasource, Kind::GlobalVariable, Kind::GlobalSecret];

impl Cluster {
    /// See [`crate::auth::authorize::Authorizer::allows`].
    pub async fn allows(
        &self,
        principal: Option<&Principal>,
        action: Action,
        kind: Kind,
        project: Option<&str>,
    ) -> Result<bool, ApiError> {
        let Some(user) = principal.and_then(Principal::cluster_user) else { return Ok(false) };
        self.may(user, Some(action), kind, project.unwrap_or(EVERY_NAMESPACE)).await
    }

    /// See [`crate::auth::authorize::Authorizer::readable`].
    pub async fn readable(&self, principal: Option<&Principal>, kind: Kind) -> Result<Reach, ApiError> {
        let Some(user) = principal.and_then(Principal::cluster_user) else {
            return Ok(Reach::Projects(BTreeSet::new()));
        };
        if self.may(user, Some(Action::Read), kind, EVERY_NAMESPACE).await? {
            return Ok(Reach::Everywhere);
        }
        if !kind.is_project_scoped() && kind != Kind::Project {
            return Ok(Reach::Projects(BTreeSet::new()));
        }
        let projects = self.projects().await?;
        let readable = futures::stream::iter(projects)
            .map(|project| async move {
                let may = self.may(user, Some(Action::Read), kind, &project).await?;
                Ok::<_, ApiError>(may.then_some(project))
            })
            .buffer_unordered(AT_ONCE);
        Ok(Reach::Projects(readable.try_filter_map(|project| async { Ok(project) }).try_collect().await?))
    }

    /// See [`crate::auth::authorize::Authorizer::permissions`].
    pub async fn permissions(&self, principal: &Principal) -> Result<Permissions, ApiError> {
        let mut permissions = Permissions::from([(EVERY_PROJECT.to_owned(), None)]);
        let Some(user) = principal.cluster_user() else { return Ok(permissions) };
        let mut everywhere = Vec::new();
        for kind in IN_PROJECTS.into_iter().chain(GLOBAL) {
            everywhere.extend(self.permission(user, kind, EVERY_NAMESPACE).await?);
        }
        let projects = self.projects().await?;
        let known = &everywhere;
        let by_project = futures::stream::iter(projects)
            .map(|project| async move {
                let mut found = Vec::new();
                for kind in IN_PROJECTS {
                    let permission = self.permission(user, kind, &project).await?;
                    // What holds everywhere is said there.
                    found.extend(permission.filter(|permission| !known.contains(permission)));
                }
                Ok::<_, ApiError>((project, found))
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        permissions.extend(
            by_project
                .into_iter()
                .filter(|(_, found)| !found.is_empty())
                .map(|(project, found)| (project, Some(found))),
        );
        if !everywhere.is_empty() {
            permissions.insert(EVERY_PROJECT.to_owned(), Some(everywhere));
        }
        Ok(permissions)
    }

    /// See [`crate::auth::authorize::Authorizer::is_administrator`].
    pub async fn is_administrator(&self, principal: Option<&Principal>) -> Result<bool, ApiError> {
        let Some(user) = principal.and_then(Principal::cluster_user) else { return Ok(false) };
        self.answer(user, Question::everything()).await
    }

    /// A project is whatever somebody has rights in: its namespace itself says nothing.
    async fn may(
        &self,
        user: &ClusterUser,
        action: Option<Action>,
        kind: Kind,
        namespace: &str,
    ) -> Result<bool, ApiError> {
        if kind != Kind::Project {
            return self.answer(user, Question::new(action, kind, namespace)).await;
        }
        for kind in OF_PROJECTS {
            if self.answer(user, Question::new(action, kind, namespace)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What may be done to a kind in a namespace. Who may not even read it is not asked about the rest, as upstream.
    async fn permission(
        &self,
        user: &ClusterUser,
        kind: Kind,
        namespace: &str,
    ) -> Result<Option<Permission>, ApiError> {
        let scopes = vec![kind.as_str().to_owned()];
        if self.may(user, None, kind, namespace).await? {
            return Ok(Some(Permission { actions: vec!["*".to_owned()], scopes }));
        }
        let mut actions = Vec::new();
        for action in Action::ALL {
            let may = self.may(user, Some(action), kind, namespace).await?;
            if may {
                actions.push(action.as_str().to_owned());
            } else if action == Action::Read {
                return Ok(None);
            }
        }
        Ok(Some(Permission { actions, scopes }))
    }

    async fn projects(&self) -> Result<Vec<String>, ApiError> {
        let query = ListQuery { kind: Kind::Project, project: None, name_prefix: None, metadata_only: true };
        let projects = self.store.list(&query).await?;
        Ok(projects.iter().map(|project| project.key.name.clone()).collect())
    }
}
