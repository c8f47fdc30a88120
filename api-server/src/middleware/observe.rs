//! Counts and times every request by its matched route, and logs those that failed on our side, once.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::metrics::gauge::Gauge;
use tracing::Instrument as _;

use crate::error::ErrorDetail;
use crate::metrics::{RequestLabels, RouteLabels};
use crate::middleware::request_id::RequestId;
use crate::state::AppState;
use crate::telemetry::traces;

/// Observes one request.
pub async fn record(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known_method(request.method());
    // Requests of no route share one label: paths must never become labels.
    let handler: Arc<str> =
        request.extensions().get::<MatchedPath>().map_or_else(|| Arc::from("other"), |path| Arc::from(path.as_str()));
    let id = request.extensions().get::<RequestId>().cloned();
    let metrics = state.metrics.clone();
    let in_flight = InFlight::new(&metrics.in_flight);
    let span = traces::request(request.method(), &handler, request.uri().path(), request.headers());
    let response = next.run(request).instrument(span.clone()).await;
    drop(in_flight);

    let status = response.status();
    traces::answered(&span, status);
    let labels = RequestLabels { code: status.as_u16(), handler: handler.clone(), method };
    metrics.requests.get_or_create(&labels).inc();
    let elapsed = started.elapsed();
    let route = RouteLabels { handler: handler.clone(), method };
    metrics.request_duration.get_or_create(&route).observe(elapsed.as_secs_f64());
    metrics.request_duration_summary.get_or_create(&route).observe(elapsed.as_secs_f64());
    if status.is_server_error() {
        let detail = response.extensions().get::<ErrorDetail>().map_or("", |detail| detail.0.as_str());
        let id = id.as_ref().and_then(|id| id.0.to_str().ok()).unwrap_or_default();
        tracing::warn!(status = status.as_u16(), method, route = %handler, id, ms = elapsed.as_millis(), detail, "request failed");
    }
    response
}

/// Counts down also when the client leaves and the request is dropped.
struct InFlight(Gauge);

impl InFlight {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
