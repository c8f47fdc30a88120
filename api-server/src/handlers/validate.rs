//! `POST /api/validate/<kind>`: checks a document without writing it.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::post;

use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::handlers::{body, warnings};
use crate::state::AppState;

const KINDS: [Kind; 5] =
    [Kind::Dashboard, Kind::Datasource, Kind::GlobalDatasource, Kind::Variable, Kind::GlobalVariable];

/// One route per kind that can be validated.
pub fn routes() -> Router<AppState> {
    KINDS.into_iter().fold(Router::new(), |router, kind| {
        let handler = move |State(state): State<AppState>, request: Request| async move {
            let envelope = body::bind(request, &state).await?;
            let findings = state.resources.validate(kind, envelope).await?;
            let mut response = StatusCode::OK.into_response();
            warnings::add(response.headers_mut(), &findings);
            Ok::<_, ApiError>(response)
        };
        router.route(&format!("/api/validate/{}", kind.plural()), post(handler))
    })
}
