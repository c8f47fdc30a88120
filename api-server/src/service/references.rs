//! Checks of a document against the stored one.

use serde_json::value::RawValue;

use crate::domain::kind::Kind;
use crate::domain::spec;
use crate::error::ApiError;

/// A binding stays one to its role: who may change who has a role may not change which role it is (Perses v0.54).
pub fn check_same_role(kind: Kind, new: &RawValue, stored: &RawValue) -> Result<(), ApiError> {
    let same = !kind.is_binding() || spec::role_of_binding(new) == spec::role_of_binding(stored);
    if same { Ok(()) } else { Err(ApiError::BadRequest("spec.role can't be updated".to_owned())) }
}
