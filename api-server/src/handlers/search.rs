//! `GET /api/v1/search/dashboards?query=&project=` (Perses after v0.54).

use axum::Router;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;

use crate::auth::authorize::{Action, Reach};
use crate::domain::kind::Kind;
use crate::domain::name;
use crate::error::ApiError;
use crate::middleware::caller::Caller;
use crate::service::search;
use crate::state::AppState;

/// The routes of search.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/v1/search/dashboards", get(dashboards))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    query: String,
    project: String,
}

async fn dashboards(
    State(state): State<AppState>,
    caller: Caller,
    Query(query): Query<Parameters>,
) -> Result<Response, ApiError> {
    let kind = Kind::Dashboard;
    let projects = if query.project.is_empty() {
        match caller.readable(&state, kind).await? {
            Reach::Everywhere => None,
            Reach::Projects(projects) => Some(projects.into_iter().collect()),
        }
    } else {
        name::validate(&query.project).map_err(|error| {
            ApiError::BadRequest(format!("the project name in the query parameter is invalid: {error}"))
        })?;
        let project = state.resources.fold(&query.project);
        caller.require(&state, Action::Read, kind, Some(&project)).await?;
        Some(vec![project])
    };
    let body = search::dashboards(&state.store, &query.query, projects).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}
