//! `POST /api/v1/view`: the UI reports that a dashboard was shown.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::post;
use serde::Deserialize;

use crate::auth::authorize::Action;
use crate::domain::document::Key;
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::handlers::body;
use crate::middleware::caller::{Caller, missing};
use crate::state::AppState;

/// The one route.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/v1/view", post(view))
}

#[derive(Deserialize)]
struct View {
    #[serde(default)]
    project: String,
    #[serde(default)]
    dashboard: String,
    /// Seconds.
    #[serde(default)]
    render_time: f64,
    #[serde(default)]
    render_errors: i64,
}

async fn view(State(state): State<AppState>, caller: Caller, request: Request) -> Result<StatusCode, ApiError> {
    let view: View = body::bind(request, &state).await?;
    let refuse = |text: &str| Err(ApiError::BadRequest(text.to_owned()));
    if view.project.is_empty() {
        return refuse("project cannot be empty");
    }
    if view.dashboard.is_empty() {
        return refuse("dashboard cannot be empty");
    }
    let Ok(errors) = u64::try_from(view.render_errors) else { return refuse("render_errors cannot be negative") };
    if view.render_time < 0.0 {
        return refuse("render_time cannot be negative");
    }
    let key =
        Key::in_project(Kind::Dashboard, state.resources.fold(&view.project), state.resources.fold(&view.dashboard));
    let project = key.project.as_deref();
    if !caller.may(&state, Action::Read, Kind::Dashboard, project).await? {
        // Upstream answers 401 here.
        return Err(ApiError::Unauthorized(missing(Action::Read, Kind::Dashboard, project)));
    }
    // Labels only of dashboards that exist: nobody can fill the registry with names.
    match state.resources.get(&key).await {
        Ok(_) => {}
        Err(ApiError::BadRequest(_)) => return Err(ApiError::NotFound),
        Err(error) => return Err(error),
    }
    let project = key.project.unwrap_or_default();
    state.metrics.dashboard_viewed(&project, &key.name, view.render_time, errors);
    Ok(StatusCode::OK)
}
