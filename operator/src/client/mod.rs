//! The operator's connection to the Kubernetes API (I/O).
//!
//! kube's own retry answers 429, 503 and 504 up to fifteen times with waits of up to a thousand seconds; one throttled
//! call could hold a reconcile for minutes. Here a request has a deadline and at most two quick retries, and only where
//! a repetition cannot do harm; everything slower is the business of the reconcile's own backoff.
//!
//! Order of the layers, outermost first: retry, deadline of one attempt, [`fault`] (a no-op unless installed), kube's
//! stack (authentication, TLS, HTTP).

pub mod fault;

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::TryFutureExt;
use futures::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use kube::client::{Body, ClientBuilder, DynBody};
use tower::buffer::Buffer;
use tower::layer::layer_fn;
use tower::util::BoxService;
use tower::{BoxError, Service, ServiceExt};

use fault::Faults;

/// Repetitions of one request after the first attempt.
const MAX_RETRIES: u32 = 2;
/// The longest `Retry-After` that is waited for inside a request.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(2);
/// Wait before a repetition when the server names none.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// Requests that may wait for a place in the connection pool.
const BUFFER: usize = 256;

/// What a client of the Kubernetes API needs beside the address and credentials.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Deadline of one attempt, from sending to the last byte of the answer. Watches have none.
    pub request_timeout: Duration,
    /// Deadline of connecting, TLS included.
    pub connect_timeout: Duration,
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// Fault injection for tests; `None` in production.
    pub faults: Option<Faults>,
    /// Refuse to send any request that could change something and is no dry run.
    pub dry_run_only: bool,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            user_agent: concat!("persesstack-operator/", env!("CARGO_PKG_VERSION")).to_owned(),
            faults: None,
            dry_run_only: false,
        }
    }
}

/// Failures of building a client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The configuration has no usable credentials or certificates.
    #[error("build the Kubernetes client; check the kubeconfig or the mounted service account")]
    Build(#[source] Box<kube::Error>),
    /// The user agent has characters that a header may not have.
    #[error("user agent {0:?} is not a valid header value; use printable ASCII")]
    UserAgent(String),
}

/// Failures of one request below kube.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No complete answer before the deadline.
    #[error("{method} {path}: no complete answer within {timeout:?}")]
    Timeout {
        /// HTTP method of the request.
        method: Method,
        /// Path of the request.
        path: String,
        /// The deadline that passed.
        timeout: Duration,
    },
    /// A client for dry runs was asked to write.
    #[error("{method} {path} would write; only dry runs are allowed here")]
    WouldWrite {
        /// HTTP method of the request.
        method: Method,
        /// Path of the request.
        path: String,
    },
    /// A fault that a test installed.
    #[error("injected fault: {0}")]
    Injected(&'static str),
}

type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;
type Answer = Result<Response<ResponseBody>, BoxError>;
type KubeStack = BoxService<Request<Body>, Response<Box<DynBody>>, BoxError>;

/// Builds a client with the layers of this module. Must be called inside a Tokio runtime.
///
/// # Errors
/// [`ClientError`] when the configuration or the user agent is unusable.
pub fn build(mut config: kube::Config, options: &ClientOptions) -> Result<kube::Client, ClientError> {
    config.default_retry = false;
    config.connect_timeout = Some(options.connect_timeout);
    let agent =
        HeaderValue::from_str(&options.user_agent).map_err(|_| ClientError::UserAgent(options.user_agent.clone()))?;
    let builder = ClientBuilder::try_from(config).map_err(|error| ClientError::Build(Box::new(error)))?;
    let layer = layer_fn(|inner: KubeStack| ApiService {
        inner: Buffer::new(inner, BUFFER),
        agent: agent.clone(),
        timeout: options.request_timeout,
        faults: options.faults.clone(),
        dry_run_only: options.dry_run_only,
    });
    Ok(builder.with_layer(&layer).build())
}

/// kube's stack with our retry, deadline and fault layer around it.
#[derive(Clone)]
struct ApiService {
    inner: Buffer<Request<Body>, <KubeStack as Service<Request<Body>>>::Future>,
    agent: HeaderValue,
    timeout: Duration,
    faults: Option<Faults>,
    dry_run_only: bool,
}

impl Service<Request<Body>> for ApiService {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Each attempt waits for its own place in the buffer.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { service.send(request).await })
    }
}

impl ApiService {
    /// Sends with retries.
    async fn send(&self, mut request: Request<Body>) -> Answer {
        if self.dry_run_only && !is_harmless(&request) {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            return Err(RequestError::WouldWrite { method, path }.into());
        }
        request.headers_mut().insert(USER_AGENT, self.agent.clone());
        let mut attempt = 0;
        loop {
            let again = copy(&request);
            let result = self.attempt(request).await;
            let Some(next) = again else { return result };
            let Some(delay) = retry_delay(next.method(), &result) else { return result };
            if attempt == MAX_RETRIES {
                return result;
            }
            drop(result);
            attempt += 1;
            tracing::debug!(method = %next.method(), path = next.uri().path(), attempt, "repeating a request");
            tokio::time::sleep(delay).await;
            request = next;
        }
    }

    /// One attempt: a watch streams, everything else is read to its end before the deadline.
    async fn attempt(&self, request: Request<Body>) -> Answer {
        if is_watch(&request) {
            return self.exchange(request).await;
        }
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let whole = async {
            let (parts, body) = self.exchange(request).await?.into_parts();
            let bytes = body.collect().await?.to_bytes();
            Ok(Response::from_parts(parts, Full::new(bytes).map_err(|never| match never {}).boxed_unsync()))
        };
        match tokio::time::timeout(self.timeout, whole).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::Timeout { method, path, timeout: self.timeout }.into()),
        }
    }

    /// Through the fault layer to kube's stack.
    async fn exchange(&self, request: Request<Body>) -> Answer {
        match &self.faults {
            Some(faults) => faults.inject(request, &|request| self.forward(request)).await,
            None => self.forward(request).await,
        }
    }

    fn forward(&self, request: Request<Body>) -> BoxFuture<'static, Answer> {
        let sent = self.inner.clone().oneshot(request);
        Box::pin(sent.map_ok(|response| response.map(BodyExt::boxed_unsync)))
    }
}

/// Whether a request changes nothing: a read, or a dry run.
fn is_harmless(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    [Method::GET, Method::HEAD].contains(request.method()) || query.split('&').any(|pair| pair == "dryRun=All")
}

/// Whether the answer is an endless stream.
fn is_watch(request: &Request<Body>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1" | "follow=true"))
        || request.headers().contains_key(hyper::header::UPGRADE)
}

/// The wait before repeating, or `None` when the request must not or need not be repeated.
///
/// A create is repeated only after 429: the server refused it before it did anything. The others are idempotent here:
/// we apply whole objects and delete with preconditions.
fn retry_delay<B>(method: &Method, result: &Result<Response<B>, BoxError>) -> Option<Duration> {
    let idempotent = *method != Method::POST;
    match result {
        Ok(response) => match response.status() {
            StatusCode::TOO_MANY_REQUESTS => retry_after(response),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT if idempotent => retry_after(response),
            _ => None,
        },
        // A deadline that passed is not repeated: the caller has waited long enough.
        Err(error) if error.is::<RequestError>() => None,
        Err(_) if idempotent => Some(RETRY_DELAY),
        Err(_) => None,
    }
}

/// `Retry-After` in seconds; a wait over [`MAX_RETRY_AFTER`] is left to the caller's backoff.
fn retry_after<B>(response: &Response<B>) -> Option<Duration> {
    let Some(value) = response.headers().get(RETRY_AFTER) else { return Some(RETRY_DELAY) };
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    let delay = Duration::from_secs(seconds).max(RETRY_DELAY);
    (delay <= MAX_RETRY_AFTER).then_some(delay)
}

/// A copy of the request, when its body is in memory.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "it stands for the result of a request")]
    fn answer(status: u16, retry_after: Option<&str>) -> Result<Response<()>, BoxError> {
        let mut response = Response::builder().status(status);
        if let Some(value) = retry_after {
            response = response.header(RETRY_AFTER, value);
        }
        Ok(response.body(()).unwrap())
    }

    #[test]
    fn only_harmless_repetitions() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(retry_delay(&Method::PATCH, &answer(503, Some("1"))), second);
        assert_eq!(retry_delay(&Method::POST, &answer(429, Some("1"))), second);
        assert_eq!(retry_delay(&Method::POST, &answer(503, None)), None, "a create may have happened");
        assert_eq!(retry_delay(&Method::GET, &answer(500, None)), None);
        assert_eq!(retry_delay(&Method::GET, &answer(429, Some("60"))), None, "left to the backoff");
        assert_eq!(retry_delay(&Method::GET, &answer(503, Some("0"))), Some(RETRY_DELAY));
        assert_eq!(retry_delay::<()>(&Method::DELETE, &Err("connection reset".into())), Some(RETRY_DELAY));
        assert_eq!(retry_delay::<()>(&Method::POST, &Err("connection reset".into())), None);
    }

    #[test]
    fn a_client_for_dry_runs_cannot_write() {
        let request =
            |method: Method, uri: &str| Request::builder().method(method).uri(uri).body(Body::empty()).unwrap();
        assert!(is_harmless(&request(Method::GET, "/api/v1/secrets")));
        assert!(is_harmless(&request(Method::PATCH, "/api/v1/secrets/a?force=true&dryRun=All")));
        for (method, uri) in [
            (Method::PATCH, "/api/v1/secrets/a?fieldManager=dryRun"),
            (Method::POST, "/api/v1/secrets"),
            (Method::DELETE, "/api/v1/secrets/dryRun=All"),
        ] {
            assert!(!is_harmless(&request(method, uri)), "{uri}");
        }
    }

    #[test]
    fn watches_have_no_deadline() {
        let request = |uri: &str| Request::get(uri).body(Body::empty()).unwrap();
        assert!(is_watch(&request("/api/v1/secrets?labelSelector=a%3Db&watch=true")));
        assert!(!is_watch(&request("/api/v1/namespaces/watch=true/secrets?limit=50")));
    }
}
