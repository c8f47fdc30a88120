//! One request to the datasource on behalf of a flight: gather the answer, or hand it through when it is too large.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt as _};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::params::Bounds;
use super::protect::Exceeded;
use crate::error::ApiError;

/// Sends the request to the datasource, maybe with other bounds than it came with; may be called more than once.
pub type Fetch = Arc<dyn Fn(Option<Bounds>) -> BoxFuture<'static, Result<Response<Body>, ApiError>> + Send + Sync>;

/// Above this many bytes an answer is checked on a thread for blocking work (about 1 ms per megabyte).
const CHECK_ASIDE: usize = 1 << 20;

/// An answer that was gathered whole.
#[derive(Debug, Clone)]
pub(super) struct Gathered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What came of the request.
pub(super) enum Fetched {
    /// The whole answer.
    Whole(Gathered),
    /// More than the limit: the answer as a stream, for one reader.
    Oversize(Response<Body>),
}

/// An answer for one reader among several.
pub(super) type OneReader = Arc<Mutex<Option<Response<Body>>>>;

/// Reads an answer up to `limit` bytes.
pub(super) async fn gather(response: Response<Body>, limit: usize) -> Result<Fetched, ApiError> {
    let declared =
        response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > limit) {
        return Ok(Fetched::Oversize(response));
    }
    let (parts, mut body) = response.into_parts();
    let mut read = BytesMut::with_capacity(declared.unwrap_or(0).min(limit));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let broken = || ApiError::BadGateway("the datasource broke off its answer".to_owned());
            Exceeded::cause_of(&error).unwrap_or_else(broken)
        })?;
        let Ok(data) = frame.into_data() else { continue };
        read.extend_from_slice(&data);
        if read.len() > limit {
            let head = stream::once(async move { Ok(read.freeze()) });
            let body = Body::from_stream(head.chain(body.into_data_stream()));
            return Ok(Fetched::Oversize(Response::from_parts(parts, body)));
        }
    }
    // What is kept is weighed by its length: no spare room behind it.
    let body =
        if read.capacity() > read.len() + read.len() / 8 { Bytes::copy_from_slice(&read) } else { read.freeze() };
    Ok(Fetched::Whole(Gathered { status: parts.status, headers: parts.headers, body }))
}

impl Gathered {
    /// As it came.
    pub(super) fn response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }

    /// Whether its headers let it be kept.
    pub(super) fn headers_allow(&self) -> bool {
        headers_allow(&self.headers)
    }

    /// Whether it may be served again.
    pub(super) async fn is_cacheable(&self) -> bool {
        if self.status != StatusCode::OK || !self.headers_allow() {
            return false;
        }
        if self.body.len() <= CHECK_ASIDE {
            return is_complete_success(&self.body);
        }
        let body = self.body.clone();
        tokio::task::spawn_blocking(move || is_complete_success(&body)).await.unwrap_or(false)
    }
}

/// What the headers say about keeping the answer.
fn headers_allow(headers: &HeaderMap) -> bool {
    let lists = |name, words: &[&str]| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|word| words.iter().any(|refused| word.trim().eq_ignore_ascii_case(refused)))
    };
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.to_ascii_lowercase().starts_with("application/json"));
    is_json
        && !lists(header::CACHE_CONTROL, &["no-store", "no-cache", "private"])
        && !lists(header::VARY, &["*"])
        // Asked for identity; whoever encodes regardless is not kept.
        && !headers.contains_key(header::CONTENT_ENCODING)
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    warnings: Option<Vec<Cow<'a, str>>>,
    #[serde(rename = "data")]
    _data: IgnoredAny,
}

/// How warnings about the query itself start (Prometheus 2 lists infos among them); they come again every time.
const ABOUT_THE_QUERY: [&str; 2] = ["PromQL warning: ", "PromQL info: "];

/// Whether the body is a whole JSON text that says success and was computed from all data: any warning that is not about
/// the query itself may mean that a part is missing.
fn is_complete_success(body: &[u8]) -> bool {
    serde_json::from_slice::<Envelope<'_>>(body)
        .is_ok_and(|envelope| envelope.status == "success" && says_all_is_there(&envelope.warnings.unwrap_or_default()))
}

/// Whether no warning may mean that a part is missing.
pub(super) fn says_all_is_there<S: AsRef<str>>(warnings: &[S]) -> bool {
    warnings.iter().all(|warning| ABOUT_THE_QUERY.iter().any(|start| warning.as_ref().starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_successes_without_doubt_are_kept() {
        for good in [
            r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#,
            r#"{"data":{}, "infos":["PromQL info: x"], "status":"success"}"#,
            r#"{"status":"success","data":1,"warnings":["PromQL warning: a mix of histograms and floats", "PromQL info: x"]}"#,
            r#"{"status":"success","data":1,"warnings":[]}"#,
        ] {
            assert!(is_complete_success(good.as_bytes()), "{good}");
        }
        for bad in [
            r#"{"status":"error","errorType":"bad_data","error":"x"}"#,
            r#"{"status":"success"}"#,
            r#"{"status":"success","data":{"resultType":"vector","result":["#,
            r#"{"status":"success","data":1,"warnings":["receive series from Addr: context deadline exceeded"]}"#,
            "<html>",
            "",
        ] {
            assert!(!is_complete_success(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn headers_of_the_datasource_are_obeyed() {
        let allow = |name: Option<(&'static str, &'static str)>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap());
            if let Some((name, value)) = name {
                headers.insert(name, value.parse().unwrap());
            }
            headers_allow(&headers)
        };
        assert!(allow(None));
        assert!(allow(Some(("vary", "Origin"))));
        assert!(allow(Some(("cache-control", "max-age=10"))));
        for refused in [
            ("cache-control", "no-store"),
            ("cache-control", "max-age=10, Private"),
            ("vary", "Origin, *"),
            ("content-encoding", "gzip"),
            ("content-type", "text/plain"),
        ] {
            assert!(!allow(Some(refused)), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn too_much_is_handed_through_whole() {
        let chunks: Vec<Result<Bytes, std::io::Error>> = (0..10_u8).map(|n| Ok(Bytes::from(vec![n; 10]))).collect();
        let expected: Vec<u8> = (0..10_u8).flat_map(|n| vec![n; 10]).collect();
        for limit in [0, 9, 10, 55, 99] {
            let response = Response::new(Body::from_stream(stream::iter(
                chunks.iter().map(|c| Ok::<_, std::io::Error>(c.as_ref().unwrap().clone())).collect::<Vec<_>>(),
            )));
            let Ok(Fetched::Oversize(response)) = gather(response, limit).await else { panic!("limit {limit}") };
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), expected, "limit {limit}");
        }
        let Ok(Fetched::Whole(whole)) = gather(Response::new(Body::from_stream(stream::iter(chunks))), 100).await
        else {
            panic!("limit 100")
        };
        assert_eq!(whole.body, expected);
    }

    #[tokio::test]
    async fn a_broken_answer_is_an_error() {
        let chunks = [Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))];
        let response = Response::new(Body::from_stream(stream::iter(chunks)));
        assert!(matches!(gather(response, 100).await, Err(ApiError::BadGateway(_))));
    }
}
