//! `POST /api/v1/cache/flush`: forget cached answers of datasources, in all pods; for administrators.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use serde_json::json;

use crate::error::ApiError;
use crate::handlers::body;
use crate::middleware::caller::Caller;
use crate::service::flush::Flush;
use crate::state::AppState;

/// The one route.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/v1/cache/flush", post(flush))
}

async fn flush(State(state): State<AppState>, caller: Caller, request: Request) -> Result<Response, ApiError> {
    caller.require_administrator(&state).await?;
    let flush: Flush = body::bind(request, &state).await?;
    let scopes = flush.scopes(async |key| state.store.get(&key).await, |name| state.resources.fold(name)).await?;
    let dropped = state.query.flush(scopes.clone()).await;
    Ok(body::json(StatusCode::OK, &json!({"dropped": dropped, "scopes": scopes})))
}
