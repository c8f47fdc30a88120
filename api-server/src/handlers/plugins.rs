//! `GET /api/v1/plugins`: the plugin modules that the UI can load.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::handlers::body;
use crate::state::AppState;

/// The one route.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/v1/plugins", get(plugins))
}

async fn plugins(State(state): State<AppState>) -> impl IntoResponse {
    (StatusCode::OK, [(header::CONTENT_TYPE, body::JSON)], state.assets.plugin_modules())
}
