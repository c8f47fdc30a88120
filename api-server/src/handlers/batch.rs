//! `POST /api/v1/projects/{project}/dashboards/{name}/query`: what a view of a dashboard asks, in one request, each answer
//! sent as it comes.
//!
//! Each query goes the way of the proxy, so it has the proxy's rights, limits and cache. Nothing runs beside the answer's own
//! stream: a client that goes ends the work, and one that does not read holds no more than what is under way.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http_body_util::LengthLimitError;
use jiff::Timestamp;

use crate::auth::authorize::Action;
use crate::domain::document::Key;
use crate::domain::kind::Kind;
use crate::error::{ApiError, ErrorDetail};
use crate::handlers::{body, proxy};
use crate::middleware::caller::Caller;
use crate::proxy::Asked;
use crate::state::AppState;
use crate::view::dashboard::Dashboard;
use crate::view::line::{Form, Outcome, line};
use crate::view::plan::{Entry, plan};
use crate::view::request;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// What tells nginx not to collect an answer.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The one route.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/v1/projects/{project}/dashboards/{name}/query", post(query))
}

async fn query(
    State(state): State<AppState>,
    caller: Caller,
    Path((project, name)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let key = Key::in_project(Kind::Dashboard, state.resources.fold(&project), state.resources.fold(&name));
    caller.require(&state, Action::Read, Kind::Dashboard, key.project.as_deref()).await?;
    let (mut client, sent) = request.into_parts();
    let body: request::Body = body::bind(Request::from_parts(client.clone(), sent), &state).await?;
    if body.refresh {
        client.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    let asker = proxy::asker(&state, &caller, &client.headers, &client.extensions);
    client.extensions.insert(asker);
    let document = state.resources.get(&key).await?.encoded.body;
    let dashboard: Dashboard = serde_json::from_slice(&document)
        .map_err(|error| ApiError::BadRequest(format!("the stored dashboard cannot be read: {error}")))?;
    let view = body
        .view(Timestamp::now().as_millisecond(), dashboard.spec.duration.as_deref())
        .map_err(ApiError::BadRequest)?;
    let batch = state.config.query.batch.clone();
    let sources = state.datasources.of(&dashboard).await?;
    let entries = plan(&dashboard, &sources, &view, batch.max_queries.get(), |name| state.resources.fold(name))
        .map_err(|error| ApiError::BadRequest(error.to_string()))?;

    let form = form(&client.headers);
    let concurrency = batch.concurrency.get();
    let view = Arc::new(Viewer { state, caller, client });
    let lines = stream::iter(entries)
        .map(move |entry| view.clone().line(entry, form))
        .buffer_unordered(concurrency)
        .map(Ok::<_, Infallible>);
    let kind = match form {
        Form::Lines => "application/x-ndjson",
        Form::Events => "text/event-stream",
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::VARY, HeaderValue::from_static("accept")),
        (BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(lines)).into_response())
}

fn form(headers: &HeaderMap) -> Form {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if accepted.any(|value| value.to_ascii_lowercase().contains("text/event-stream")) {
        Form::Events
    } else {
        Form::Lines
    }
}

/// Who asks.
struct Viewer {
    state: AppState,
    caller: Caller,
    client: Parts,
}

impl Viewer {
    /// The line of a query.
    async fn line(self: Arc<Self>, entry: Entry, form: Form) -> Bytes {
        let limit = usize::try_from(self.state.config.query.max_cached_bytes).unwrap_or(usize::MAX);
        let response = self.answer(&entry).await.unwrap_or_else(ApiError::into_response);
        let outcome = match gather(response, limit).await {
            Ok(outcome) => outcome,
            Err(error) => {
                let (status, message) = (error.status(), serde_json::json!({"message": error.to_string()}));
                Outcome { status, cache_status: None, age: None, body: message.to_string().into() }
            }
        };
        line(&entry, &outcome, form)
    }

    /// The proxy's answer.
    async fn answer(&self, entry: &Entry) -> Result<Response, ApiError> {
        let question = entry.question.as_ref().map_err(|refusal| ApiError::BadRequest(refusal.to_string()))?;
        let (datasource, from) = (question.datasource.clone(), proxy::forwarded(&self.client.extensions));
        let asked = Asked::query(datasource, question.path(), &question.parameters(), &self.client, from)?;
        proxy::answer(&self.state, &self.caller, asked).await
    }
}

/// Reads an answer whole: a line cannot be taken back.
async fn gather(response: Response, limit: usize) -> Result<Outcome, ApiError> {
    let (parts, body) = response.into_parts();
    let text = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let cache_status = text(CACHE_STATUS).map(str::to_owned);
    let age = text(header::AGE).and_then(|age| age.parse().ok());
    // What else would be logged with the request.
    if let Some(ErrorDetail(detail)) = parts.extensions.get() {
        tracing::error!(%detail, "a query of a view failed");
    }
    let body = to_bytes(body, limit).await.map_err(|error| {
        let too_large = std::error::Error::source(&error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>);
        ApiError::BadGateway(if too_large {
            format!(
                "the answer is larger than {limit} bytes (query.max_cached_bytes): ask for it alone, through the proxy"
            )
        } else {
            "the datasource broke off its answer".to_owned()
        })
    })?;
    Ok(Outcome { status: parts.status, cache_status, age, body })
}
