//! One request to a datasource: sent through the pooled client, the answer handed on as it comes.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Response, header};
use http_body::Body as _;
use url::Url;

use super::ProxyError;
use super::headers::clean_response;
use super::targets::Target;

/// A request to a datasource, without what the target adds.
pub(super) struct Outgoing {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<reqwest::Body>,
    /// Whether asking twice does no harm.
    pub(super) repeatable: bool,
}

/// A body that is streamed; its length is sent when it is known, so that the datasource sees the same framing.
pub(super) fn streamed(body: Body, headers: &mut HeaderMap) -> Option<reqwest::Body> {
    if body.is_end_stream() {
        return None;
    }
    if let Some(length) = body.size_hint().exact() {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Some(reqwest::Body::wrap_stream(body.into_data_stream()))
}

/// Sends a request; the answer's head must be there within `limit`.
pub(super) async fn send(target: &Target, outgoing: Outgoing, limit: Duration) -> Result<Response<Body>, ProxyError> {
    let Outgoing { method, url, mut headers, body, repeatable } = outgoing;
    for (name, value) in &target.proxy.headers {
        headers.insert(name, value.clone());
    }
    if let Some(host) = &target.host {
        headers.insert(header::HOST, host.clone());
    }
    let mut request = reqwest::Request::new(method, url);
    *request.headers_mut() = headers;
    *request.body_mut() = body;
    let timeout = || ProxyError::Timeout { datasource: target.name.clone(), seconds: limit.as_secs() };
    // A body that is streamed cannot be cloned, and then nothing is repeated.
    let again = if repeatable { request.try_clone() } else { None };
    let exchange = async {
        match (target.client.execute(request).await, again) {
            // A kept connection may have been closed just as it was taken: the datasource has seen nothing.
            (Err(error), Some(again)) if is_broken_off(&error) => target.client.execute(again).await,
            (answer, _) => answer,
        }
    };
    let answer = tokio::time::timeout(limit, exchange).await.map_err(|_| timeout())?;
    let answer = answer.map_err(|error| {
        if error.is_timeout() && !error.is_connect() {
            return timeout();
        }
        ProxyError::Unreachable { datasource: target.name.clone(), reason: reason(&error) }
    })?;
    let (mut parts, body) = axum::http::Response::<reqwest::Body>::from(answer).into_parts();
    clean_response(&mut parts.headers);
    // The client's connection has its own version.
    parts.version = axum::http::Version::default();
    parts.extensions.clear();
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// Whether the connection was there and ended before an answer.
fn is_broken_off(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout()
}

/// The innermost cause, which names neither URL nor credentials ("connection refused", "certificate has expired").
fn reason(error: &reqwest::Error) -> String {
    if error.is_connect() && error.is_timeout() {
        return "no connection in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if std::ptr::addr_eq(cause, error) { "the request failed".to_owned() } else { cause.to_string() }
}
