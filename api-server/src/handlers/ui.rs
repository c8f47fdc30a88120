//! Everything that is no route of the API: the web UI and its plugins.

use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::state::AppState;

/// Serves a file of the UI; upstream's answers for the rest.
pub async fn serve(State(state): State<AppState>, request: Request) -> Response {
    let readable = matches!(*request.method(), Method::GET | Method::HEAD);
    if readable && !request.uri().path().starts_with("/api/") {
        if let Some(response) = state.assets.handle(request.method(), request.uri().path(), request.headers()) {
            return response;
        }
        return ApiError::NotFound.into_response();
    }
    ApiError::NoRoute.into_response()
}

/// Serves the first page of the UI, whatever the path.
pub async fn index(State(state): State<AppState>, request: Request) -> Response {
    let page = state.assets.handle(request.method(), "/", request.headers());
    page.unwrap_or_else(|| ApiError::NotFound.into_response())
}
