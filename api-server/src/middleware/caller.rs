//! Who sends the request, and the question whether they may do what they ask for.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::auth::authorize::{Action, Reach};
use crate::auth::token::Principal;
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::state::AppState;

/// The sender of a request; nobody while sign-in is off.
#[derive(Debug, Clone)]
pub struct Caller(pub Option<Principal>);

impl FromRequestParts<AppState> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &AppState) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Principal>().cloned()))
    }
}

impl Caller {
    /// The user's `metadata.name`.
    pub fn login(&self) -> Option<&str> {
        self.0.as_ref().map(Principal::login)
    }

    /// Whether the caller may act on documents of a kind in a project (`None`: what belongs to none); see
    /// [`crate::auth::authorize::Authorizer::allows`].
    pub async fn may(
        &self,
        state: &AppState,
        action: Action,
        kind: Kind,
        project: Option<&str>,
    ) -> Result<bool, ApiError> {
        state.authorizer.allows(self.0.as_ref(), action, kind, project).await
    }

    /// 403 unless the caller may. Where a project is read or written to that does not exist, 400 says so first, as upstream.
    pub async fn require(
        &self,
        state: &AppState,
        action: Action,
        kind: Kind,
        project: Option<&str>,
    ) -> Result<(), ApiError> {
        if self.may(state, action, kind, project).await? {
            return Ok(());
        }
        if let (Some(project), Action::Read | Action::Create, true) = (project, action, kind.is_project_scoped()) {
            state.resources.require_project(project).await?;
        }
        Err(Self::refusal(state, action, kind, project))
    }

    /// The 403 for who may not, counted.
    pub fn refusal(state: &AppState, action: Action, kind: Kind, project: Option<&str>) -> ApiError {
        state.metrics.denied(action.as_str(), kind.as_str());
        ApiError::Forbidden(missing(action, kind, project))
    }

    /// 403 unless the caller may do everything.
    pub async fn require_administrator(&self, state: &AppState) -> Result<(), ApiError> {
        if state.authorizer.is_administrator(self.0.as_ref()).await? {
            return Ok(());
        }
        state.metrics.denied("*", "*");
        Err(ApiError::Forbidden("only administrators (a global role with \"*\" on \"*\") may do this".to_owned()))
    }

    /// In which projects the caller may read documents of a kind.
    pub async fn readable(&self, state: &AppState, kind: Kind) -> Result<Reach, ApiError> {
        state.authorizer.readable(self.0.as_ref(), kind).await
    }
}

/// What the caller lacks, in the words of Perses v0.54.
pub fn missing(action: Action, kind: Kind, project: Option<&str>) -> String {
    match project {
        Some(project) => format!("missing '{action}' permission in '{project}' project for '{kind}' kind"),
        None if kind == Kind::Project => format!("missing '{action}' permission for '{kind}' kind"),
        None => format!("missing '{action}' global permission for '{kind}' kind"),
    }
}
