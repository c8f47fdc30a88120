//! What came from provisioning folders and is in none of them any more.

use std::collections::HashSet;

use super::files::Entry;
use crate::domain::document::{Key, Origin};
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::service::resources::Resources;
use crate::store::ListQuery;

/// The keys of what the folders hold, in the letter case of the store.
pub(super) fn keys(resources: &Resources, entries: &[Entry]) -> HashSet<Key> {
    let key = |entry: &Entry| {
        let kind = Kind::parse(&entry.envelope.kind)?;
        let metadata = &entry.envelope.metadata;
        let name = resources.fold(&metadata.name);
        let project = kind.is_project_scoped().then(|| resources.fold(&metadata.project));
        Some(Key { kind, project, name })
    };
    entries.iter().filter_map(key).collect()
}

/// Provisioned documents that are not wanted any more; what others need comes last.
pub(super) async fn find(resources: &Resources, wanted: &HashSet<Key>) -> Result<Vec<Key>, ApiError> {
    let mut left = Vec::new();
    for kind in Kind::ALL {
        let query = ListQuery { kind, project: None, name_prefix: None, metadata_only: true };
        let documents = resources.store().list(&query).await?;
        let provisioned = documents.into_iter().filter(|document| document.origin == Origin::Provisioned);
        left.extend(provisioned.map(|document| document.key).filter(|key| !wanted.contains(key)));
    }
    left.sort_by_key(|key| std::cmp::Reverse(super::files::rank(key.kind.as_str())));
    Ok(left)
}

/// A project with anything in it is not deleted: what is in it may be somebody's work. Other documents are always alone.
pub(super) async fn is_alone(resources: &Resources, key: &Key) -> bool {
    if key.kind != Kind::Project {
        return true;
    }
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_project_scoped()) {
        let query = ListQuery { kind, project: Some(key.name.clone()), name_prefix: None, metadata_only: true };
        if !resources.store().list(&query).await.is_ok_and(|found| found.is_empty()) {
            return false;
        }
    }
    true
}
