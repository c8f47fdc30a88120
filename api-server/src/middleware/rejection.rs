//! What the framework itself refuses (a path or a query that cannot be read) gets the shape of every other error.

use axum::body::to_bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;

/// Its texts are a line.
const MAX_TEXT: usize = 4096;

/// Turns a plain text with status 400 into `{"message": ...}`. Not for routes that hand on what others say.
pub async fn explain(response: Response) -> Response {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if response.status() != StatusCode::BAD_REQUEST || !kind.starts_with("text/plain") {
        return response;
    }
    let text = to_bytes(response.into_body(), MAX_TEXT).await.unwrap_or_default();
    ApiError::BadRequest(String::from_utf8_lossy(&text).into_owned()).into_response()
}
