//! Sessions: native login, refresh, logout (Perses v0.54). Other ways to sign in are in [`super::providers`].

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde::Deserialize;

use crate::audit;
use crate::auth::provider::redirect;
use crate::auth::token::{Claims, TokenError};
use crate::auth::{self, cookies};
use crate::config::Config;
use crate::domain::document::Key;
use crate::domain::kind::Kind;
use crate::domain::{name, secret};
use crate::error::ApiError;
use crate::handlers::{body, providers};
use crate::service::admin;
use crate::state::AppState;

/// Upstream's text, its final blank included.
const WRONG: &str = "wrong login or password ";

/// Routes of the sign-in; none when it is off, or is a matter of the cluster.
pub fn routes(config: &Config) -> Router<AppState> {
    if !config.security.enable_auth || config.security.authentication.providers.kubernetes.enable {
        return Router::new();
    }
    let mut router = Router::new()
        .route("/api/auth/refresh", post(refresh))
        .route("/api/auth/logout", get(logout))
        .merge(providers::routes());
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
    let address = state.trusted_proxies.client(request.headers(), request.extensions());
    let Credentials { login, password } = body::bind(request, &state).await?;
    for (field, text) in [("login", &login), ("password", &password)] {
        if text.is_empty() {
            return Err(ApiError::BadRequest(format!("{field} cannot be empty")));
        }
    }
    let login = state.resources.fold(&login);
    let attempt = state.limits.attempt(address, &login).map_err(too_many)?;
    // A text that can be no name finds nobody, and takes as long.
    let user =
        if name::validate(&login).is_ok() { state.store.get(&Key::global(Kind::User, &*login)).await? } else { None };
    // Only names that exist: what else is typed there may be a password.
    if user.is_some() {
        audit::user(&login);
    }
    let hash = user.and_then(|user| secret::password_hash(user.spec.raw()));
    let passwords = state.sealer.passwords();
    let mut right = passwords.verify(password.clone(), hash.clone()).await;
    if let (Ok(false), Some(admin)) = (&right, &state.config.security.authentication.initial_admin)
        && admin::is_first(admin, &login, |name| state.resources.fold(name)).await
    {
        right = admin::counts_meanwhile(admin, passwords, &password, hash.as_deref()).await;
    }
    if !right.map_err(|error| ApiError::Internal(error.to_string()))? {
        return Err(ApiError::BadRequest(WRONG.to_owned()));
    }
    attempt.succeeded();
    Ok(session(&state, &Claims::native(&login), Timestamp::now())?.into_response())
}

/// 429 after too many failed sign-ins, with the seconds to wait.
pub(super) fn too_many(wait: Duration) -> ApiError {
    ApiError::TooManySignIns(wait.as_secs() + 1)
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
    Ok(renewed(&state, &claims, &token, now)?.into_response())
}

async fn logout(State(state): State<AppState>, request: Request) -> Response {
    let (headers, extensions) = (request.headers().clone(), request.extensions().clone());
    let prefix = &state.config.api_prefix;
    let home = if prefix.is_empty() { "/" } else { prefix };
    let mut target = HeaderValue::from_str(home).unwrap_or(HeaderValue::from_static("/"));
    // Whoever came from a provider signs out there as well, when that is configured.
    if let Some(claims) = signed_in(&state, &headers)
        && let Some(provider) = state.providers.of_claims(&claims.pkd, &claims.pid)
        && let Some(root) = redirect::root(&headers, &extensions, prefix)
        && let Some(url) = provider.end_session_url(&root).await
        && let Ok(url) = HeaderValue::from_str(url.as_str())
    {
        target = url;
    }
    let mut response = (StatusCode::FOUND, [(header::LOCATION, target)]).into_response();
    for line in cookies::clear() {
        response.headers_mut().append(header::SET_COOKIE, line);
    }
    response
}

/// Who is about to sign out: by the access token, or by the refresh token when that one has ended.
fn signed_in(state: &AppState, headers: &HeaderMap) -> Option<Claims> {
    let now = Timestamp::now();
    let access = auth::authenticate(&state.tokens, headers, now).ok().map(|principal| (*principal.0).clone());
    access.or_else(|| state.tokens.verify_refresh(cookies::read(headers, cookies::REFRESH)?, now).ok())
}

/// A session as it is handed out: the body of the answer, and the cookies.
pub(super) struct Session {
    body: serde_json::Value,
    /// `Set-Cookie` lines.
    pub(super) cookies: Vec<HeaderValue>,
}

impl IntoResponse for Session {
    fn into_response(self) -> Response {
        let mut response = body::json(StatusCode::OK, &self.body);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for line in self.cookies {
            response.headers_mut().append(header::SET_COOKIE, line);
        }
        response
    }
}

/// A new session: both tokens.
pub(super) fn session(state: &AppState, claims: &Claims, now: Timestamp) -> Result<Session, ApiError> {
    audit::user(&claims.sub);
    let refresh = state.tokens.refresh(claims, now).map_err(internal)?;
    let cookie = cookies::refresh(&state.tokens, &state.config.security.cookie, &refresh, now);
    let mut session = renewed(state, claims, &refresh, now)?;
    session.cookies.extend(cookie);
    Ok(session)
}

/// A new access token beside the refresh token. `expiry` is Go's zero time, as upstream sends it.
fn renewed(state: &AppState, claims: &Claims, refresh: &str, now: Timestamp) -> Result<Session, ApiError> {
    let access = state.tokens.access(claims, now).map_err(internal)?;
    let cookies = cookies::access(&state.tokens, &state.config.security.cookie, &access, now);
    let body = serde_json::json!({
        "access_token": access,
        "token_type": "Bearer",
        "refresh_token": refresh,
        "expiry": "0001-01-01T00:00:00Z",
        "expires_in": state.tokens.access_ttl.as_secs(),
    });
    Ok(Session { body, cookies })
}

fn internal(error: TokenError) -> ApiError {
    ApiError::Internal(error.to_string())
}
