//! Answers as clients get them, with the headers that say where they came from (RFC 9211).

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, header};

use super::service::now_ms;
use super::stored::Stored;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

pub(super) fn hit(stored: &Stored, detail: &str) -> Response<Body> {
    let now = now_ms();
    let left = stored.remaining(now).unwrap_or_default().as_secs();
    let mut response = plain(stored);
    let headers = response.headers_mut();
    headers.insert(header::AGE, HeaderValue::from(stored.age(now).as_secs()));
    if let Ok(value) = HeaderValue::try_from(format!("perses; hit; ttl={left}; detail={detail}")) {
        headers.insert(CACHE_STATUS, value);
    }
    response
}

/// An answer without a word about where it came from.
pub(super) fn plain(stored: &Stored) -> Response<Body> {
    let mut response = Response::new(Body::from(stored.body.clone()));
    response.headers_mut().insert(header::CONTENT_TYPE, stored.content_type.clone());
    response
}

pub(super) fn with_status(mut response: Response<Body>, status: &'static str) -> Response<Body> {
    response.headers_mut().insert(CACHE_STATUS, HeaderValue::from_static(status));
    response
}

pub(super) fn content_type(headers: &HeaderMap) -> HeaderValue {
    headers.get(header::CONTENT_TYPE).cloned().unwrap_or(HeaderValue::from_static("application/json"))
}

/// Where an answer came from, as metrics say it: the `detail` of a hit, or how the request was forwarded.
pub(super) fn from(response: &Response<Body>) -> &'static str {
    const WORDS: [(&str, &str); 8] = [
        ("detail=l1", "l1"),
        ("detail=l2", "l2"),
        ("detail=points", "points"),
        ("detail=shared", "shared"),
        ("detail=stale", "stale"),
        ("fwd=partial", "partial"),
        ("fwd=miss", "datasource"),
        ("fwd=bypass", "bypass"),
    ];
    let said = response.headers().get(CACHE_STATUS).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let word = |part: &str| WORDS.iter().find(|(word, _)| *word == part).map(|(_, from)| *from);
    said.split(';').rev().find_map(|part| word(part.trim())).unwrap_or("other")
}
