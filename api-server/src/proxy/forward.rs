//! One request to a datasource: sent through the pooled client, the answer handed on as it comes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use futures::StreamExt as _;
use http_body::Body as _;
use parking_lot::Mutex;
use reqwest::Request;
use tokio::time::{Instant, timeout_at};
use tracing::Instrument as _;
use url::Url;

use super::ProxyError;
use super::headers::clean_response;
use super::network::Denied;
use super::oauth::Token;
use super::targets::Target;
use crate::intake::Unread;
use crate::pace::{Pace, Paced, TooSlow};
use crate::telemetry::traces;

/// A request to a datasource, without what the target adds.
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<reqwest::Body>,
    /// Whether asking twice does no harm.
    pub(super) repeatable: bool,
    /// When the last piece of the body went out.
    pub(super) progress: Progress,
}

/// How long a datasource may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Until the head of the answer is there, counted from the last piece of the request's body.
    pub(super) head: Duration,
    /// Until the next piece of the answer's body is there.
    pub(super) idle: Duration,
    /// The configuration key of `head`, for messages.
    pub(super) key: &'static str,
}

/// When the last piece of a body went out.
#[derive(Debug, Clone)]
pub(super) struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    pub(super) fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn touch(&self) {
        *self.0.lock() = Instant::now();
    }

    fn latest(&self) -> Instant {
        *self.0.lock()
    }
}

/// A body that is streamed; its length is sent when it is known, so that the datasource sees the same framing.
pub(super) fn streamed(body: Body, headers: &mut HeaderMap, progress: &Progress) -> Option<reqwest::Body> {
    if body.is_end_stream() {
        return None;
    }
    if let Some(length) = body.size_hint().exact() {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    let progress = progress.clone();
    Some(reqwest::Body::wrap_stream(body.into_data_stream().inspect(move |_| progress.touch())))
}

/// Sends a request with the credentials of the target; a token that the datasource no longer takes is replaced once.
pub(super) async fn send(target: &Target, outgoing: Outgoing, limits: Limits) -> Result<Response<Body>, ProxyError> {
    let Outgoing { method, url, mut headers, body, repeatable, progress } = outgoing;
    for (name, value) in &target.proxy.headers {
        headers.insert(name, value.clone());
    }
    if let Some(host) = &target.route.host {
        headers.insert(header::HOST, host.clone());
    }
    let mut request = Request::new(method, url);
    *request.headers_mut() = headers;
    *request.body_mut() = body;
    let exchange = Exchange { target, repeatable, limits, progress };
    let Some(source) = &target.tokens else {
        return exchange.answer(exchange.run(request).await?);
    };
    let token = || async {
        let failed = |reason: String| ProxyError::Token { datasource: target.name.clone(), reason };
        source.token().await.map_err(|error| failed(error.to_string()))
    };
    let first = token().await?;
    // A body that is streamed cannot be cloned, and then nothing is sent twice.
    let again = request.try_clone();
    exchange.progress.touch();
    let answer = exchange.run(with_token(request, &first)).await?;
    if answer.status() != StatusCode::UNAUTHORIZED {
        first.accepted();
        return exchange.answer(answer);
    }
    match (source.refused(&first), again) {
        (true, Some(again)) => {
            let second = token().await?;
            exchange.progress.touch();
            let answer = exchange.run(with_token(again, &second)).await?;
            if answer.status() != StatusCode::UNAUTHORIZED {
                second.accepted();
            }
            exchange.answer(answer)
        }
        _ => exchange.answer(answer),
    }
}

fn with_token(mut request: Request, token: &Token) -> Request {
    request.headers_mut().insert(header::AUTHORIZATION, token.header.clone());
    request
}

/// What requests to one target have in common.
struct Exchange<'a> {
    target: &'a Target,
    repeatable: bool,
    limits: Limits,
    progress: Progress,
}

impl Exchange<'_> {
    /// Sends a request and waits for the head of its answer.
    async fn run(&self, mut request: Request) -> Result<reqwest::Response, ProxyError> {
        let span = traces::upstream(request.method(), &self.target.name, request.url().host_str());
        traces::inject(&span, request.headers_mut());
        let again = if self.repeatable { request.try_clone() } else { None };
        let client = &self.target.route.client;
        let work = async {
            match (client.execute(request).await, again) {
                // A kept connection may have been closed just as it was taken: the datasource has seen nothing.
                (Err(error), Some(again)) if is_broken_off(&error) => client.execute(again).await,
                (answer, _) => answer,
            }
        };
        let answer = self.in_time(work).instrument(span.clone()).await;
        match &answer {
            Some(Ok(answer)) => traces::answered(&span, answer.status()),
            _ => traces::failed(&span),
        }
        let Some(answer) = answer else {
            // Of what was left of the time the whole is told.
            let (seconds, key) = (whole_seconds(self.limits.head), self.limits.key);
            return Err(ProxyError::Timeout { datasource: self.target.name.clone(), seconds, key });
        };
        answer.map_err(|error| {
            let datasource = self.target.name.clone();
            if TooSlow::is_cause_of(&error) {
                // Not the datasource: the client's body.
                return ProxyError::Unread(Unread::TooSlow);
            }
            match Denied::cause_of(&error) {
                Some(denied) => ProxyError::Denied { datasource, reason: denied.to_string() },
                None => ProxyError::Unreachable { datasource, reason: reason(&error) },
            }
        })
    }

    /// The result of some work, unless nothing moved for too long.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            let deadline = self.progress.latest() + self.limits.head;
            match timeout_at(deadline, &mut work).await {
                Ok(done) => return Some(done),
                Err(_) if self.progress.latest() + self.limits.head <= Instant::now() => return None,
                Err(_) => {}
            }
        }
    }

    /// What the client gets. A redirect is not followed, and not handed on either: the browser would follow it from our
    /// origin, with the user's cookies.
    fn answer(&self, answer: reqwest::Response) -> Result<Response<Body>, ProxyError> {
        if matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Err(ProxyError::Redirect {
                datasource: self.target.name.clone(),
                status: answer.status().as_u16(),
                to: place(&answer),
            });
        }
        let (mut parts, body) = axum::http::Response::<reqwest::Body>::from(answer).into_parts();
        clean_response(&mut parts.headers);
        // The client's connection has its own version.
        parts.version = axum::http::Version::default();
        parts.extensions.clear();
        let pace = Pace { within: self.limits.idle, bytes: 1 };
        Ok(Response::from_parts(parts, Body::new(Paced::new(body, pace))))
    }
}

/// Rounded up.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Where a redirect leads, without what could be secret in it.
fn place(answer: &reqwest::Response) -> String {
    let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    match location.and_then(|location| answer.url().join(location).ok()) {
        Some(url) if url.has_host() => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
        }
        _ => "another place".to_owned(),
    }
}

/// Whether the connection was there and ended before an answer.
fn is_broken_off(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout()
}

/// The innermost cause, which names neither URL nor credentials ("connection refused", "certificate has expired").
pub(super) fn reason(error: &reqwest::Error) -> String {
    if error.is_connect() && error.is_timeout() {
        return "no connection in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if std::ptr::addr_eq(cause, error) { "the request failed".to_owned() } else { cause.to_string() }
}
