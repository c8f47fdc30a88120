//! Request bodies: content type, size and JSON, with upstream's answers for what is wrong.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::pace::TooSlow;
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

/// How much of a body over the limit is read and thrown away, so that a client that is still sending sees the answer
/// instead of a broken connection.
const DISCARD: u64 = 64 << 20;
/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(10);

/// Reads a whole body of at most `limit` bytes.
pub async fn read(request: Request, limit: u64) -> Result<Bytes, ApiError> {
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let declared: u64 = declared.and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = request.into_body().into_data_stream();
    if declared > limit {
        discard(&mut body).await;
        return Err(ApiError::TooLarge(limit));
    }
    // The declared length is within the limit, so it may be believed.
    let mut read = BytesMut::with_capacity(usize::try_from(declared).unwrap_or(0));
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| {
            if TooSlow::is_cause_of(&error) {
                return ApiError::SlowBody;
            }
            ApiError::BadRequest("the request body could not be read to its end".to_owned())
        })?;
        if (read.len() + chunk.len()) as u64 > limit {
            drop(read);
            discard(&mut body).await;
            return Err(ApiError::TooLarge(limit));
        }
        read.extend_from_slice(&chunk);
    }
    Ok(read.freeze())
}

async fn discard(body: &mut BodyDataStream) {
    let all = async {
        let mut left = DISCARD;
        while let Some(Ok(chunk)) = body.next().await {
            left = left.saturating_sub(chunk.len() as u64);
            if left == 0 {
                break;
            }
        }
    };
    // Whether it was all or too much: the answer is the same.
    let _ = tokio::time::timeout(DISCARD_TIME, all).await;
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
