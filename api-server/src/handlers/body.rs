//! Request bodies: content type, size and JSON, with upstream's answers for what is wrong.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::intake::{self, Unread};
use crate::state::AppState;

/// The bytes of a body that is declared as JSON and within the limit.
#[derive(Debug, Clone)]
pub struct JsonBody(pub Bytes);

impl FromRequest<AppState> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::UnsupportedMediaType);
        }
        read(request, state.config.server.max_body_bytes).await.map(Self)
    }
}

/// Reads a whole body of at most `limit` bytes.
pub async fn read(request: Request, limit: u64) -> Result<Bytes, ApiError> {
    Ok(intake::read(request.into_body(), limit).await?)
}

impl From<Unread> for ApiError {
    fn from(error: Unread) -> Self {
        match error {
            Unread::TooLarge(limit) => Self::TooLarge(limit),
            Unread::TooSlow => Self::SlowBody,
            Unread::Broken => Self::BadRequest(error.to_string()),
        }
    }
}

/// Parses a body; the message says where it is wrong.
pub fn parse<T: DeserializeOwned>(body: &JsonBody) -> Result<T, ApiError> {
    serde_json::from_slice(&body.0)
        .map_err(|error| ApiError::BadRequest(format!("the request body is not what was expected: {error}")))
}

/// Reads and parses the body of an endpoint that is no resource: upstream answers 400 for another content type there.
pub async fn bind<T: DeserializeOwned>(request: Request, state: &AppState) -> Result<T, ApiError> {
    require_json(request.headers())?;
    parse(&JsonBody(read(request, state.config.server.max_body_bytes).await?))
}

/// The answer of those endpoints to another content type.
pub fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    if is_json(headers) {
        return Ok(());
    }
    Err(ApiError::BadRequest("code=415, message=Unsupported Media Type".to_owned()))
}

/// `Content-Type` of every JSON answer.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A JSON answer; upstream ends them with a newline.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, JSON)], Body::from(format!("{value}\n"))).into_response()
}

fn is_json(headers: &HeaderMap) -> bool {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    declared.is_some_and(|value| value.to_ascii_lowercase().contains("application/json"))
}
