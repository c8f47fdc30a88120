//! `GET /api/v1/openapi.json`: the description of the API, open to everybody.

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::handlers::body;
use crate::openapi;
use crate::state::AppState;

/// The one route.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/v1/openapi.json", get(document))
}

async fn document(State(state): State<AppState>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, body::JSON)], openapi::text(&state.config.api_prefix))
}
