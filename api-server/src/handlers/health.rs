//! Probes, upstream's health answer and the metrics.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::state::{AppState, VERSION};

/// `GET /livez`: the process answers.
pub async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: able to serve. Once the schema was known and right, caches carry the server through an outage of the
/// database, so it stays ready; it is unready before that, and while it drains.
pub async fn readyz(State(state): State<AppState>) -> Response {
    if state.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    match state.follower.readiness().and_then(|()| state.authorizer.readiness()) {
        Ok(()) => format!("ok\n{}", first_user(&state)).into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

/// A line about `security.authentication.initial_admin`, when it is set: the operator waits for the user, readiness does not.
fn first_user(state: &AppState) -> &'static str {
    if state.config.security.authentication.initial_admin.is_none() {
        ""
    } else if state.metrics.initial_admin_exists.get() == 1 {
        "first user: present\n"
    } else {
        "first user: pending\n"
    }
}

/// The Perses whose API this is. Clients such as percli look whether they fit it; our own version is in `commit`.
const API_VERSION: &str = "0.54.0";

/// `GET /api/v1/health`: upstream's answer, 503 without the store.
pub async fn health(State(state): State<AppState>) -> Response {
    let database = state.store.check().await.is_ok();
    let body = serde_json::json!({
        "buildTime": option_env!("PERSES_BUILD_TIME").unwrap_or_default(),
        "version": API_VERSION,
        "commit": format!("perses-api-server {VERSION} {}", option_env!("PERSES_COMMIT").unwrap_or_default()).trim_end(),
        "database": database,
    });
    let status = if database { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.to_string() + "\n")
        .into_response()
}

/// `GET /metrics`.
pub async fn metrics(State(state): State<AppState>) -> Result<Response, ApiError> {
    state.query.measure();
    let text = state.metrics.encode().map_err(|error| ApiError::Internal(error.to_string()))?;
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
