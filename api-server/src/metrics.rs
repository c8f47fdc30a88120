//! Metrics of the server: upstream's names where upstream has them, ours beside them (seed section 6).

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Labels of a finished request; `handler` is the matched route, never the path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// HTTP status.
    pub code: u16,
    /// Matched route.
    pub handler: Arc<str>,
    /// HTTP method.
    pub method: &'static str,
}

/// Labels of a request's duration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// Matched route.
    pub handler: Arc<str>,
    /// HTTP method.
    pub method: &'static str,
}

/// Labels of a look into a cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CacheLabels {
    /// `dashboard`, `query` or `authz`.
    pub cache: &'static str,
    /// `l1`, `l2` or `store`.
    pub tier: &'static str,
    /// `hit`, `miss`, `error`, ...
    pub result: &'static str,
}

type RouteHistogram = Family<RouteLabels, Histogram, fn() -> Histogram>;

fn request_histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0])
}

/// All metric families; cheap to clone through the `Arc` that holds it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// `perses_http_request_total{code,handler,method}` (upstream's name).
    pub requests: Family<RequestLabels, Counter>,
    /// `perses_http_request_duration_seconds{handler,method}`.
    pub request_duration: RouteHistogram,
    /// `perses_http_requests_in_flight`.
    pub in_flight: Gauge,
    /// `perses_cache_requests_total{cache,tier,result}`.
    pub cache_requests: Family<CacheLabels, Counter>,
}

impl Metrics {
    /// Makes and registers every family. `version` goes to `perses_build_info`.
    pub fn new(version: &str) -> Self {
        let mut registry = Registry::with_prefix("perses");
        let requests = Family::<RequestLabels, Counter>::default();
        // the text format appends `_total`
        registry.register("http_request", "Number of HTTP requests", requests.clone());
        let request_duration: RouteHistogram = Family::new_with_constructor(request_histogram as fn() -> Histogram);
        registry.register("http_request_duration_seconds", "Duration of HTTP requests", request_duration.clone());
        let in_flight = Gauge::default();
        registry.register("http_requests_in_flight", "HTTP requests that are being served", in_flight.clone());
        let cache_requests = Family::<CacheLabels, Counter>::default();
        registry.register("cache_requests", "Looks into caches", cache_requests.clone());
        registry.register("build", "Build of the server", Info::new(vec![("version", version.to_owned())]));
        Self { registry, requests, request_duration, in_flight, cache_requests }
    }

    /// The text exposition (OpenMetrics 1.0).
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }

    /// Counts a look into a cache.
    pub fn cache(&self, cache: &'static str, tier: &'static str, result: &'static str) {
        self.cache_requests.get_or_create(&CacheLabels { cache, tier, result }).inc();
    }
}
