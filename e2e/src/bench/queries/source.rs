//! A datasource that costs next to nothing, so that what is measured is what is in front of it: counters whose values are a
//! function of series and time, answered as Prometheus answers `query_range`, and counted.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, Result};
use axum::{Router, extract::State, http::header, response::IntoResponse, routing::any};

/// Seconds between two points.
pub(super) const STEP: u64 = 15;
/// Series of an answer.
pub(super) const SERIES: u64 = 10;

/// What was asked for until now.
#[derive(Debug, Default)]
pub(super) struct Asked {
    queries: AtomicU64,
    points: AtomicU64,
}

/// The running source. Its runtime is the one that it was started in.
#[derive(Debug)]
pub(super) struct Source {
    address: SocketAddr,
    asked: Arc<Asked>,
}

impl Source {
    pub(super) async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen as a source")?;
        let asked = Arc::<Asked>::default();
        let source = Self { address: listener.local_addr()?, asked: asked.clone() };
        let router = Router::new()
            .route("/api/v1/query_range", any(answer))
            // Thanos asks whether what is behind it is ready.
            .route("/-/ready", any(async || "ready"))
            .with_state(asked);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(source)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Queries and points until now.
    pub(super) fn asked(&self) -> (u64, u64) {
        (self.asked.queries.load(Ordering::Relaxed), self.asked.points.load(Ordering::Relaxed))
    }
}

async fn answer(State(asked): State<Arc<Asked>>, request: axum::extract::Request) -> impl IntoResponse {
    let query_string = request.uri().query().unwrap_or_default().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or_default();
    let url = format!("http://source/?{query_string}&{}", String::from_utf8_lossy(&body));
    let pairs: HashMap<String, String> =
        reqwest::Url::parse(&url).map(|url| url.query_pairs().into_owned().collect()).unwrap_or_default();
    let seconds = |name: &str| pairs.get(name).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds of this century")]
    let (start, end) = (seconds("start") as u64, seconds("end") as u64);
    let query = pairs.get("query").map(String::as_str).unwrap_or_default();
    asked.queries.fetch_add(1, Ordering::Relaxed);
    asked.points.fetch_add(SERIES * ((end.saturating_sub(start)) / STEP + 1), Ordering::Relaxed);
    ([(header::CONTENT_TYPE, "application/json")], window(query, start, end))
}

/// The answer for a window of whole steps, as Prometheus prints it.
pub(super) fn window(query: &str, start: u64, end: u64) -> String {
    let mut text = r#"{"status":"success","data":{"resultType":"matrix","result":["#.to_owned();
    let name = query.split('{').next().unwrap_or_default();
    for series in 0..SERIES {
        let comma = if series == 0 { "" } else { "," };
        _ = write!(
            text,
            r#"{comma}{{"metric":{{"__name__":"{name}","instance":"host-{series:03}.example.org:9100","job":"node"}},"values":["#
        );
        for time in (start..=end).step_by(usize::try_from(STEP).unwrap_or(1)) {
            let comma = if time == start { "" } else { "," };
            _ = write!(text, r#"{comma}[{time},"{}"]"#, value(series, time));
        }
        text += "]}";
    }
    text += "]}}";
    text
}

/// A counter of requests: about seven a second, and never two steps alike.
fn value(series: u64, time: u64) -> u64 {
    let noise =
        (time / STEP).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(u32::try_from(series).unwrap_or(0) + 7) % 50;
    (time - 1_600_000_000) * 7 + series * 1_000 + noise
}
