//! The operator's own HTTP endpoints: metrics on one port, probes on another.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Whether the process can do its work; clones share the state.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Sets the state that `/readyz` reports.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// The state that `/readyz` reports.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// `/metrics`.
pub fn metrics_router(metrics: Metrics) -> Router {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let handler = async |State(metrics): State<Metrics>| ([(CONTENT_TYPE, TYPE)], metrics.text());
    Router::new().route("/metrics", get(handler)).with_state(metrics)
}

/// `/healthz` (the process answers) and `/readyz` (it leads or waits for the lease, with the API reachable).
pub fn probes_router(readiness: Readiness) -> Router {
    let ready = async |State(readiness): State<Readiness>| {
        if readiness.get() {
            (StatusCode::OK, "ok\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the Kubernetes API has not been reached yet\n")
        }
    };
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready)).with_state(readiness)
}

/// Serves until `stop` is cancelled.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(address: SocketAddr, router: Router, stop: CancellationToken) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(router: Router, path: &str) -> (StatusCode, String) {
        let response = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_follows_the_state() {
        let readiness = Readiness::default();
        assert_eq!(ask(probes_router(readiness.clone()), "/healthz").await.0, StatusCode::OK);
        assert_eq!(ask(probes_router(readiness.clone()), "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        readiness.set(true);
        assert_eq!(ask(probes_router(readiness), "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn metrics_end_with_the_mark_of_openmetrics() {
        let (status, text) = ask(metrics_router(Metrics::new()), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
