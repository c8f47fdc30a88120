//! Native sign-in: login, refresh, logout (Perses v0.54).

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde::Deserialize;

use crate::auth::cookies;
use crate::auth::token::{Claims, TokenError};
use crate::config::Config;
use crate::domain::document::Key;
use crate::domain::kind::Kind;
use crate::domain::{name, secret};
use crate::error::ApiError;
use crate::handlers::body;
use crate::state::AppState;

/// Upstream's text, its final blank included.
const WRONG: &str = "wrong login or password ";

/// Routes of the sign-in; none when it is off.
pub fn routes(config: &Config) -> Router<AppState> {
    if !config.security.enable_auth {
        return Router::new();
    }
    let mut router = Router::new().route("/api/auth/refresh", post(refresh)).route("/api/auth/logout", get(logout));
    if config.security.authentication.providers.enable_native {
        router = router.route("/api/auth/providers/native/login", post(login));
    }
    router
}

#[derive(Deserialize)]
struct Credentials {
    #[serde(default)]
    login: String,
    #[serde(default)]
    password: String,
}

async fn login(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let Credentials { login, password } = body::bind(request, &state).await?;
    for (field, text) in [("login", &login), ("password", &password)] {
        if text.is_empty() {
            return Err(ApiError::BadRequest(format!("{field} cannot be empty")));
        }
    }
    let login = state.resources.fold(&login);
    // A text that can be no name finds nobody, and takes as long.
    let user =
        if name::validate(&login).is_ok() { state.store.get(&Key::global(Kind::User, &*login)).await? } else { None };
    let hash = user.and_then(|user| secret::password_hash(&user.spec));
    let right = state.sealer.passwords().verify(password, hash).await;
    if !right.map_err(|error| ApiError::Internal(error.to_string()))? {
        return Err(ApiError::BadRequest(WRONG.to_owned()));
    }
    let now = Timestamp::now();
    let claims = Claims::native(&login);
    let token = state.tokens.refresh(&claims, now).map_err(internal)?;
    let mut response = answer(&state, &claims, &token, now)?;
    if let Some(line) = cookies::refresh(&state.tokens, &state.config.security.cookie, &token, now) {
        response.headers_mut().append(header::SET_COOKIE, line);
    }
    Ok(response)
}

#[derive(Deserialize)]
struct RefreshRequest {
    #[serde(default)]
    refresh_token: String,
}

async fn refresh(State(state): State<AppState>, request: Request) -> Result<Response, ApiError> {
    let token = match cookies::read(request.headers(), cookies::REFRESH) {
        Some(token) => token.to_owned(),
        None => body::bind::<RefreshRequest>(request, &state).await?.refresh_token,
    };
    if token.is_empty() {
        return Err(ApiError::BadRequest("refreshToken cannot be empty".to_owned()));
    }
    let now = Timestamp::now();
    let claims = state.tokens.verify_refresh(&token, now).map_err(|error| ApiError::BadRequest(error.to_string()))?;
    answer(&state, &claims, &token, now)
}

async fn logout(State(state): State<AppState>) -> Response {
    let target = if state.config.api_prefix.is_empty() { "/" } else { &state.config.api_prefix };
    let target = HeaderValue::from_str(target).unwrap_or(HeaderValue::from_static("/"));
    let mut response = (StatusCode::FOUND, [(header::LOCATION, target)]).into_response();
    for line in cookies::clear() {
        response.headers_mut().append(header::SET_COOKIE, line);
    }
    response
}

/// A new access token beside the refresh token, as body and as cookies. `expiry` is Go's zero time, as upstream sends it.
fn answer(state: &AppState, claims: &Claims, refresh: &str, now: Timestamp) -> Result<Response, ApiError> {
    let access = state.tokens.access(claims, now).map_err(internal)?;
    let body = serde_json::json!({
        "access_token": access,
        "token_type": "Bearer",
        "refresh_token": refresh,
        "expiry": "0001-01-01T00:00:00Z",
        "expires_in": state.tokens.access_ttl.as_secs(),
    });
    let mut response = body::json(StatusCode::OK, &body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for line in cookies::access(&state.tokens, &state.config.security.cookie, &access, now) {
        response.headers_mut().append(header::SET_COOKIE, line);
    }
    Ok(response)
}

fn internal(error: TokenError) -> ApiError {
    ApiError::Internal(error.to_string())
}
