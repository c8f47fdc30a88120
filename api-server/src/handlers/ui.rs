//! Everything that is no route of the API: the web UI and its plugins.

use axum::extract::{Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::state::AppState;

/// Serves a file of the UI; upstream's answers for the rest.
pub async fn serve(State(state): State<AppState>, request: Request) -> Response {
    let readable = matches!(*request.method(), Method::GET | Method::HEAD);
    if readable && !state.config.frontend.disable {
        let path = request.uri().path();
        let asset =
            (!path.starts_with("/api/")).then(|| state.assets.handle(request.method(), path, request.headers()));
        return asset.flatten().unwrap_or_else(|| ApiError::NotFound.into_response());
    }
    ApiError::NoRoute.into_response()
}

/// Serves the first page of the UI, whatever the path.
pub async fn index(State(state): State<AppState>, request: Request) -> Response {
    let shown = !state.config.frontend.disable;
    let page = shown.then(|| state.assets.handle(request.method(), "/", request.headers())).flatten();
    page.unwrap_or_else(|| ApiError::NotFound.into_response())
}
