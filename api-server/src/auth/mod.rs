//! Sign-in: the encryption key, tokens and cookies of Perses v0.54, passwords.
//!
//! Invariants: no secret, password or token is ever part of an error or a log line; tokens are stateless, so any pod with the
//! same key accepts them.

pub mod address;
pub mod authorize;
pub mod cookies;
pub mod crypto;
pub(crate) mod key_files;
pub mod kubernetes;
pub mod limit;
pub mod password;
pub mod provider;
pub mod rbac;
pub mod seal;
pub mod token;

use axum::http::{HeaderMap, header};
use jiff::Timestamp;

use self::token::{Principal, Tokens};
use crate::error::ApiError;

/// Finds who sends a request: the cookies when both are there (they win, as upstream), else the bearer token.
pub fn authenticate(tokens: &Tokens, headers: &HeaderMap, now: Timestamp) -> Result<Principal, ApiError> {
    let verified = match (cookies::read(headers, cookies::PAYLOAD), cookies::read(headers, cookies::SIGNATURE)) {
        (Some(payload), Some(signature)) => tokens.verify_access(payload, Some(signature), now),
        _ => tokens.verify_access(bearer(headers).ok_or(ApiError::MissingToken)?, None, now),
    };
    verified.map_err(|_| ApiError::InvalidToken)
}

/// Whether the sign-in comes from cookies, which a browser sends by itself.
pub fn is_by_cookie(headers: &HeaderMap) -> bool {
    cookies::read(headers, cookies::PAYLOAD).is_some() && cookies::read(headers, cookies::SIGNATURE).is_some()
}

/// The bearer token of a request.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("Bearer") && !token.is_empty()).then_some(token)
}
