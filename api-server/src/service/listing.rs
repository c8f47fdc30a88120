//! Lists of what somebody may see.

use std::collections::BTreeSet;

use crate::domain::document::Document;
use crate::domain::kind::Kind;
use crate::store::{ListQuery, Store, StoreError};

/// Up to so many projects are asked for one by one; with more, everything is read and the rest left out.
const FEW: usize = 16;

/// Lists documents, of these projects only when they are given. Of projects themselves those with these names.
pub(super) async fn list_within(
    store: &dyn Store,
    query: &ListQuery,
    projects: Option<&BTreeSet<String>>,
) -> Result<Vec<Document>, StoreError> {
    let Some(projects) = projects else { return store.list(query).await };
    let within = |document: &Document| {
        let project =
            if query.kind == Kind::Project { Some(&document.key.name) } else { document.key.project.as_ref() };
        project.is_some_and(|project| projects.contains(project))
    };
    match &query.project {
        _ if projects.is_empty() => Ok(Vec::new()),
        None if query.kind.is_project_scoped() && projects.len() <= FEW => {
            let mut all = Vec::new();
            // In the order of the set, which is that of a list of everything.
            for project in projects {
                all.extend(store.list(&ListQuery { project: Some(project.clone()), ..query.clone() }).await?);
            }
            Ok(all)
        }
        _ => Ok(store.list(query).await?.into_iter().filter(within).collect()),
    }
}
