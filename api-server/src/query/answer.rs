//! Answers as clients get them, with the headers that say where they came from (RFC 9211).

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, header};

use super::service::now_ms;
use super::stored::Stored;
use crate::negotiate::wants_gzip;

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

pub(super) fn hit(stored: &Arc<Stored>, detail: &str) -> Response<Body> {
    let now = now_ms();
    // Seconds; below zero when the time is over.
    let ends_at = stored.stored_at_ms.saturating_add(i64::try_from(stored.ttl.as_millis()).unwrap_or(i64::MAX));
    let left = ends_at.saturating_sub(now).div_euclid(1000);
    let mut response = plain(stored);
    let headers = response.headers_mut();
    headers.insert(header::AGE, HeaderValue::from(stored.age(now).as_secs()));
    if let Ok(value) = HeaderValue::try_from(format!("perses; hit; ttl={left}; detail={detail}")) {
        headers.insert(CACHE_STATUS, value);
    }
    response
}

/// An answer without a word about where it came from.
pub(super) fn plain(stored: &Arc<Stored>) -> Response<Body> {
    let mut response = Response::new(Body::from(stored.body.clone()));
    // For [`encoded`].
    response.extensions_mut().insert(stored.clone());
    response.headers_mut().insert(header::CONTENT_TYPE, stored.content_type.clone());
    response
}

/// A kept answer in the form that the client takes; compressed once for all.
pub async fn encoded(mut response: Response<Body>, headers: &HeaderMap) -> Response<Body> {
    let Some(stored) = response.extensions_mut().remove::<Arc<Stored>>() else { return response };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    if wants_gzip(headers, stored.body.len())
        && let Some(zipped) = stored.gzip().await
    {
        *response.body_mut() = Body::from(zipped);
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
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
