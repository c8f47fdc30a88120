//! `GET /api/v1/audit`: the audit log, for administrators.

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use jiff::Timestamp;
use serde::Deserialize;

use crate::domain::audit::{self, Cursor};
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::handlers::body;
use crate::middleware::caller::Caller;
use crate::state::AppState;

/// Records of a page when `limit` is not given.
const PAGE: usize = 100;
/// Most records of a page.
const LARGEST_PAGE: usize = 1000;

/// The one route.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/v1/audit", get(list))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    user: String,
    kind: String,
    project: String,
    name: String,
    from: String,
    to: String,
    limit: String,
    cursor: String,
}

async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(parameters): Query<Parameters>,
) -> Result<Response, ApiError> {
    caller.require_administrator(&state).await?;
    let Some(log) = &state.audit else {
        return Err(ApiError::BadRequest("the audit log is off (audit.enable)".to_owned()));
    };
    let mut query = parsed(parameters)?;
    let fold = |name: Option<String>| name.map(|name| state.resources.fold(&name));
    (query.user, query.project, query.name) = (fold(query.user), fold(query.project), fold(query.name));
    let page = query.limit;
    // One more tells whether there is a next page.
    query.limit = page + 1;
    let mut records = log.search(&query).await?;
    let more = records.len() > page;
    records.truncate(page);
    let mut answer = serde_json::json!({ "items": records });
    if let Some(last) = records.last().filter(|_| more) {
        answer["next"] = Cursor::of(last).to_string().into();
    }
    Ok(body::json(StatusCode::OK, &answer))
}

fn parsed(parameters: Parameters) -> Result<audit::Query, ApiError> {
    let given = |text: String| (!text.is_empty()).then_some(text);
    let wrong = |name: &str, text: &str, expected: &str| {
        ApiError::BadRequest(format!("query parameter {name}: {text:?} is not {expected}"))
    };
    let time = |name: &str, text: String| match given(text) {
        None => Ok(None),
        Some(text) => {
            text.parse::<Timestamp>().map(Some).map_err(|_| wrong(name, &text, "a time such as 2026-01-31T12:00:00Z"))
        }
    };
    let kind = match given(parameters.kind) {
        None => None,
        Some(text) => Some(Kind::parse(&text).ok_or_else(|| wrong("kind", &text, "a kind such as Dashboard"))?),
    };
    let before = match given(parameters.cursor) {
        None => None,
        Some(text) => Some(Cursor::parse(&text).ok_or_else(|| wrong("cursor", &text, "the `next` of a page before"))?),
    };
    let limit = match given(parameters.limit) {
        None => PAGE,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=LARGEST_PAGE).contains(limit))
            .ok_or_else(|| wrong("limit", &text, &format!("a number from 1 to {LARGEST_PAGE}")))?,
    };
    Ok(audit::Query {
        user: given(parameters.user),
        kind,
        project: given(parameters.project),
        name: given(parameters.name),
        from: time("from", parameters.from)?,
        to: time("to", parameters.to)?,
        before,
        limit,
    })
}
