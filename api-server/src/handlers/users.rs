//! What is special about users: creating them, and the questions about oneself. The other verbs are those of every kind.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};

use crate::auth::token::Principal;
use crate::domain::document::Key;
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::handlers::body::{self, JsonBody};
use crate::middleware;
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

/// Creates a user. Every signed-in user may do everything (there are no roles yet), so nobody may sign up alone.
async fn create(State(state): State<AppState>, headers: HeaderMap, request: Request) -> Result<Response, ApiError> {
    if state.config.security.enable_auth {
        middleware::auth::check(&state, &Method::POST, &headers).map_err(|error| match error {
            ApiError::MissingToken => ApiError::Forbidden(
                "sign-up is closed, because every user has full rights: ask a signed-in user to create your account"
                    .to_owned(),
            ),
            error => error,
        })?;
    }
    let body = <JsonBody as axum::extract::FromRequest<AppState>>::from_request(request, &state).await?;
    let encoded = state.resources.create(Kind::User, None, body::parse(&body)?).await?;
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, body::JSON)], encoded.body).into_response())
}

async fn whoami(State(state): State<AppState>, principal: Option<Extension<Principal>>) -> Result<Response, ApiError> {
    let Some(Extension(principal)) = principal else { return Err(ApiError::Unauthorized(NO_AUTH.to_owned())) };
    match state.resources.get(&Key::global(Kind::User, principal.login())).await {
        Ok(read) => Ok((StatusCode::OK, [(header::CONTENT_TYPE, body::JSON)], read.encoded.body).into_response()),
        Err(ApiError::NotFound) => {
            Err(ApiError::Unauthorized("failed to retrieve user information from context".to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// The caller's own permissions: full ones, as there are no roles yet.
async fn permissions(
    State(state): State<AppState>,
    principal: Option<Extension<Principal>>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let Some(Extension(principal)) = principal else { return Err(ApiError::Unauthorized(NO_AUTH.to_owned())) };
    if state.resources.fold(&name) != principal.login() {
        return Err(ApiError::Forbidden("you can only retrieve your permissions".to_owned()));
    }
    Ok(body::json(StatusCode::OK, &serde_json::json!({"*": [{"actions": ["*"], "scopes": ["*"]}]})))
}
