//! OpenTelemetry traces: off, and free of cost, unless `OTEL_EXPORTER_OTLP_ENDPOINT` (or `..._TRACES_ENDPOINT`) is set.
//!
//! Everything is set by OpenTelemetry's own variables: endpoint, headers and timeout of the exporter (OTLP over HTTP with
//! protobuf), `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`; `OTEL_SDK_DISABLED=true`
//! and `OTEL_TRACES_EXPORTER=none` turn them off. Spans hold routes, paths and the names of operations: no values, no headers.

use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderMap, Method, StatusCode};
use bytes::Bytes;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{HeaderExtractor, HeaderInjector, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::{Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

/// Target of all spans; the lines of the log do not have them.
const TARGET: &str = "perses_trace";
/// Name of the service when the environment gives none.
const SERVICE: &str = "perses-api-server";
/// How long the last spans may take when the server stops.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// The running exporter; dropping it sends what is left.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Starts the exporter when the environment asks for it.
    pub fn from_environment(runtime: &Handle) -> Result<Option<Self>, String> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint =
            variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let Some(endpoint) = endpoint else { return Ok(None) };
        let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || variable("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        if disabled {
            return Ok(None);
        }
        let client = Client::new(runtime.clone(), &endpoint)?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .build()
            .map_err(|error| format!("traces cannot be sent as the OTEL_EXPORTER_OTLP_* variables say: {error}"))?;
        let mut resource = Resource::builder();
        let attributes = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        if variable("OTEL_SERVICE_NAME").is_none() && !attributes.contains("service.name=") {
            resource = resource.with_service_name(SERVICE);
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        Ok(Some(Self { provider }))
    }

    /// What turns our spans into OpenTelemetry's.
    pub(super) fn layer<S: Subscriber + for<'span> LookupSpan<'span>>(&self) -> impl Layer<S> + use<S> {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(SERVICE))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_filter(Targets::new().with_target(TARGET, Level::TRACE))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_LIMIT) {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Sends for the exporter, whose thread knows nothing of our runtime, on that runtime.
#[derive(Debug, Clone)]
struct Client {
    runtime: Handle,
    client: reqwest::Client,
}

impl Client {
    fn new(runtime: Handle, endpoint: &str) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        if endpoint.starts_with("http://") {
            // The system's authorities are not needed, and may not be there.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| format!("traces cannot be sent: {error}"))?;
        Ok(Self { runtime, client })
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let exchange = async move {
            let (parts, body) = client.execute(request.try_into()?).await.map(axum::http::Response::from)?.into_parts();
            let body = http_body_util::BodyExt::collect(body).await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(parts, body))
        };
        self.runtime.spawn(exchange).await?
    }
}

/// Whether this is part of a request that is traced. What the server does by itself, twice a second, is not.
fn in_request() -> bool {
    tracing::enabled!(target: TARGET, Level::TRACE) && !Span::current().is_none()
}

/// The span of a request, below the client's own when it sent a `traceparent`.
pub fn request(method: &Method, route: &str, path: &str, headers: &HeaderMap) -> Span {
    let span = tracing::trace_span!(
        target: TARGET,
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        http.request.method = method.as_str(),
        http.route = route,
        url.path = path,
        http.response.status_code = tracing::field::Empty,
    );
    if !span.is_disabled() {
        // Without a usable header the span begins a trace of its own.
        let _ = span.set_parent(TraceContextPropagator::new().extract(&HeaderExtractor(headers)));
    }
    span
}

/// Notes how a request ended.
pub fn answered(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        failed(span);
    }
}

/// Notes that what the span stands for failed.
pub fn failed(span: &Span) {
    span.record("otel.status_code", "ERROR");
}

/// The span of an operation on the database.
pub fn database(operation: &'static str) -> Span {
    if !in_request() {
        return Span::none();
    }
    tracing::trace_span!(
        target: TARGET,
        "database",
        otel.name = operation,
        otel.kind = "client",
        otel.status_code = tracing::field::Empty,
        db.system.name = "postgresql",
        db.operation.name = operation,
    )
}

/// The span of a command to Redis.
pub fn redis(command: &'static str) -> Span {
    if !in_request() {
        return Span::none();
    }
    tracing::trace_span!(
        target: TARGET,
        "redis",
        otel.name = command,
        otel.kind = "client",
        otel.status_code = tracing::field::Empty,
        db.system.name = "redis",
        db.operation.name = command,
    )
}

/// The span of a request to a datasource.
pub fn upstream(method: &Method, datasource: &str, host: Option<&str>) -> Span {
    tracing::trace_span!(
        target: TARGET,
        "datasource",
        otel.name = format!("{method} {datasource}"),
        otel.kind = "client",
        otel.status_code = tracing::field::Empty,
        http.request.method = method.as_str(),
        http.response.status_code = tracing::field::Empty,
        server.address = host,
        perses.datasource = datasource,
    )
}

/// Puts the span into the headers of an outgoing request (`traceparent`).
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    if !span.is_disabled() {
        TraceContextPropagator::new().inject_context(&span.context(), &mut HeaderInjector(headers));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_exporter_there_are_no_spans() {
        let span = request(&Method::GET, "/", "/", &HeaderMap::new());
        assert!(span.is_disabled() && database("get").is_disabled() && redis("GET").is_disabled());
        let mut headers = HeaderMap::new();
        inject(&span, &mut headers);
        answered(&span, StatusCode::OK);
        assert!(headers.is_empty());
    }
}
