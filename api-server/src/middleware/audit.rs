//! Opens the scope of the audit log around every request that may change something.

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::audit::{self, Scope, Source};
use crate::domain::audit::capped;
use crate::middleware::request_id::RequestId;
use crate::state::AppState;

/// Lets a request through, and leaves its records.
pub async fn record(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let Some(log) = &state.audit else { return next.run(request).await };
    let prefix = state.config.api_prefix.as_str();
    let subject = request.extensions().get::<MatchedPath>().and_then(|route| {
        // Inside a nested router the URI has lost the prefix already.
        audit::subject(request.method(), below(prefix, route.as_str()), below(prefix, request.uri().path()))
    });
    let Some(subject) = subject else { return next.run(request).await };
    let scope = Scope::new(log.clone(), source(&state, &request), subject);
    scope.run(next.run(request), |response| response.status().as_u16()).await
}

fn below<'t>(prefix: &str, text: &'t str) -> &'t str {
    text.strip_prefix(prefix).unwrap_or(text)
}

fn source(state: &AppState, request: &Request) -> Source {
    let text = |headers: &HeaderMap, name| {
        headers.get(name).map(|value: &axum::http::HeaderValue| capped(&String::from_utf8_lossy(value.as_bytes())))
    };
    let headers = request.headers();
    Source {
        client: Some(state.trusted_proxies.client(headers, request.extensions()).to_string()),
        forwarded_for: text(headers, header::HeaderName::from_static("x-forwarded-for")),
        user_agent: text(headers, header::USER_AGENT),
        request_id: request.extensions().get::<RequestId>().map(|id| String::from_utf8_lossy(id.0.as_bytes()).into()),
    }
}
