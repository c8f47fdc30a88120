//! What is special about users: creating them, and the questions about oneself. The other verbs are those of every kind.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde_json::Value;

use crate::auth::authorize::Action;
use crate::auth::kubernetes;
use crate::auth::token::Principal;
use crate::domain::document::{Envelope, Key};
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::handlers::body::{self, JsonBody};
use crate::middleware;
use crate::middleware::caller::Caller;
use crate::state::AppState;

const NO_AUTH: &str = "authentication is required to retrieve user permissions";

/// Routes for signed-in users.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/v1/user/whoami", get(whoami)).route("/api/v1/users/{name}/permissions", get(permissions))
}

/// `POST /api/v1/users`, which answers in its own words without a sign-in.
pub fn sign_up_routes(readonly: bool) -> Router<AppState> {
    if readonly { Router::new() } else { Router::new().route("/api/v1/users", post(create)) }
}

/// Creates a user: whoever may, or, when sign-up is open, anybody for themselves.
async fn create(State(state): State<AppState>, headers: HeaderMap, request: Request) -> Result<Response, ApiError> {
    let may = match middleware::auth::check(&state, &Method::POST, &headers).await {
        _ if !state.config.security.enable_auth => true,
        Ok(principal) => {
            let caller = Caller(Some(principal));
            if state.config.open_sign_up() {
                caller.may(&state, Action::Create, Kind::User, None).await?
            } else {
                caller.require(&state, Action::Create, Kind::User, None).await?;
                true
            }
        }
        Err(ApiError::MissingToken) if state.config.open_sign_up() => false,
        Err(ApiError::MissingToken) => {
            return Err(ApiError::Forbidden(
                "sign-up is closed: ask an administrator to create your account".to_owned(),
            ));
        }
        Err(error) => return Err(error),
    };
    let body = <JsonBody as axum::extract::FromRequest<AppState>>::from_request(request, &state).await?;
    let envelope: Envelope = body::parse(&body)?;
    if !may {
        check_sign_up(&state, &envelope)?;
    }
    let written = state.resources.create(Kind::User, None, envelope).await?;
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, body::JSON)], written.encoded.body).into_response())
}

/// What nobody may give themselves by choosing a name: the rights that a binding already holds for it (the first user's
/// among them), or the identity of somebody at a provider.
fn check_sign_up(state: &AppState, envelope: &Envelope) -> Result<(), ApiError> {
    let wants_admin = state.config.security.authentication.initial_admin.is_some();
    if wants_admin && state.metrics.initial_admin_exists.get() != 1 {
        return Err(ApiError::Unavailable("sign-up waits for the first user".to_owned()));
    }
    let name = state.resources.fold(&envelope.metadata.name);
    if state.authorizer.native().map_or(Ok(false), |rbac| rbac.names(&name))? {
        return Err(ApiError::Forbidden(format!(
            "roles are already bound to the name {name:?}: ask an administrator to create your account"
        )));
    }
    let spec: Value = envelope.spec.as_ref().and_then(|spec| serde_json::from_str(spec.get()).ok()).unwrap_or_default();
    if spec
        .get("oauthProviders")
        .is_some_and(|providers| !providers.is_null() && *providers != Value::Array(Vec::new()))
    {
        return Err(ApiError::Forbidden(
            "spec.oauthProviders cannot be given at sign-up: sign in at the provider instead".to_owned(),
        ));
    }
    Ok(())
}

async fn whoami(State(state): State<AppState>, principal: Option<Extension<Principal>>) -> Result<Response, ApiError> {
    let Some(Extension(principal)) = principal else { return Err(ApiError::Unauthorized(NO_AUTH.to_owned())) };
    if principal.cluster_user().is_some() {
        return Ok(body::json(StatusCode::OK, &kubernetes::public_user(principal.login())));
    }
    match state.resources.get(&Key::global(Kind::User, principal.login())).await {
        Ok(read) => Ok((StatusCode::OK, [(header::CONTENT_TYPE, body::JSON)], read.encoded.body).into_response()),
        Err(ApiError::NotFound) => {
            Err(ApiError::Unauthorized("failed to retrieve user information from context".to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// The caller's own permissions.
async fn permissions(
    State(state): State<AppState>,
    principal: Option<Extension<Principal>>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let Some(Extension(principal)) = principal else { return Err(ApiError::Unauthorized(NO_AUTH.to_owned())) };
    // Names of the cluster's users keep their letter case.
    if name != principal.login() && state.resources.fold(&name) != principal.login() {
        return Err(ApiError::Forbidden("you can only retrieve your permissions".to_owned()));
    }
    let permissions = state.authorizer.permissions(&principal).await?;
    Ok(body::json(StatusCode::OK, &serde_json::json!(permissions)))
}
