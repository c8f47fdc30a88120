//! Checks of a document against others in the store.

use std::collections::HashSet;

use serde_json::value::RawValue;

use crate::domain::kind::Kind;
use crate::domain::spec;
use crate::error::ApiError;
use crate::store::{ListQuery, Store};

/// A binding stays one to its role: who may change who has a role may not change which role it is (Perses v0.54).
pub fn check_same_role(kind: Kind, new: &RawValue, stored: &RawValue) -> Result<(), ApiError> {
    let same = !kind.is_binding() || spec::role_of_binding(new) == spec::role_of_binding(stored);
    if same { Ok(()) } else { Err(ApiError::BadRequest("spec.role can't be updated".to_owned())) }
}

/// Every variable that a dashboard's variables use must be defined in it, in its project or globally (Perses v0.54).
pub async fn check_variables(store: &dyn Store, project: Option<&str>, dashboard: &RawValue) -> Result<(), ApiError> {
    let used = spec::undefined_variables(dashboard);
    if used.is_empty() {
        return Ok(());
    }
    let mut known = names(store, Kind::GlobalVariable, None).await?;
    if let Some(project) = project {
        known.extend(names(store, Kind::Variable, Some(project)).await?);
    }
    match used.iter().find(|(name, _)| !known.contains(name)) {
        None => Ok(()),
        Some((name, by)) => Err(ApiError::BadRequest(format!(
            "spec.variables: variable {name:?} is used in the variable {by:?} but not defined"
        ))),
    }
}

async fn names(store: &dyn Store, kind: Kind, project: Option<&str>) -> Result<HashSet<String>, ApiError> {
    let query = ListQuery { kind, project: project.map(str::to_owned), name_prefix: None, metadata_only: true };
    Ok(store.list(&query).await?.into_iter().map(|document| document.key.name).collect())
}
