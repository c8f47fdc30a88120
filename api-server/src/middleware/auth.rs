//! Sign-in: nobody passes without a token that counts, when `security.enable_auth` is on.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use crate::audit;
use crate::auth;
use crate::error::ApiError;
use crate::middleware::cors;
use crate::state::AppState;

/// Lets a signed-in request through, with its [`auth::token::Principal`] in the extensions.
pub async fn require(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    if !state.config.security.enable_auth {
        return next.run(request).await;
    }
    match check(&state, request.method(), request.headers()).await {
        Ok(principal) => {
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Who sends the request. A browser sends cookies along wherever a request starts; when it says that another site started
/// one that changes something, that is a forgery (`SameSite` already stops it, unless it was set to `none`), except from sites
/// that `security.cors` lets in with their cookies.
pub async fn check(state: &AppState, method: &Method, headers: &HeaderMap) -> Result<auth::token::Principal, ApiError> {
    if let Some(cluster) = state.authorizer.cluster() {
        if headers.contains_key("impersonate-group") {
            return Err(ApiError::Forbidden("Impersonate-Group is not supported: act as a user only".to_owned()));
        }
        let token = auth::bearer(headers).ok_or(ApiError::MissingToken)?;
        let other = headers.get("impersonate-user").map(|name| name.to_str().map_err(|_| ApiError::InvalidToken));
        let principal = cluster.authenticate(token, other.transpose()?).await?;
        audit::user(principal.login());
        return Ok(principal);
    }
    let principal = auth::authenticate(&state.tokens, headers, Timestamp::now())?;
    audit::user(principal.login());
    let cross_site = headers.get("sec-fetch-site").is_some_and(|value| value.as_bytes() == b"cross-site");
    let forged = cross_site && !method.is_safe() && auth::is_by_cookie(headers);
    if forged && !cors::trusts(&state.config.security.cors, headers) {
        return Err(ApiError::Forbidden("the request was started by another site".to_owned()));
    }
    Ok(principal)
}
