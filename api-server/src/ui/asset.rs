//! One file and the answers that it gives: content negotiation, validators, caching.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::content_type;
use crate::negotiate::{gunzip, gzip, matches_any, quality};

/// A file in one or more encodings; at least one is there.
#[derive(Debug, Clone)]
pub(super) struct Asset {
    /// Hash of the plain content.
    pub(super) tag: String,
    pub(super) identity: Option<Bytes>,
    pub(super) gzip: Option<Bytes>,
    pub(super) brotli: Option<Bytes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Brotli,
    Gzip,
    Identity,
}

impl Encoding {
    fn token(self) -> Option<&'static str> {
        match self {
            Self::Brotli => Some("br"),
            Self::Gzip => Some("gzip"),
            Self::Identity => None,
        }
    }
}

impl Asset {
    /// A file of this content, not compressed.
    pub(super) fn new(content: Bytes) -> Self {
        let tag = tag_of(&content);
        Self { tag, identity: Some(content), gzip: None, brotli: None }
    }

    /// A file of this content, also compressed where that helps.
    pub(super) fn compressed(name: &str, content: Bytes) -> Self {
        let mut asset = Self::new(content);
        if let Some(content) = asset.identity.as_ref().filter(|content| content.len() > 256)
            && content_type::is_compressible(name)
        {
            asset.gzip = gzip(content).ok().map(Bytes::from);
        }
        asset
    }

    /// The plain content.
    pub(super) fn content(&self) -> Bytes {
        match (&self.identity, &self.gzip) {
            (Some(content), _) => content.clone(),
            // Only our own build's gzip gets here, and a test decodes all of it.
            (None, Some(packed)) => gunzip(packed).map(Bytes::from).unwrap_or_default(),
            (None, None) => Bytes::new(),
        }
    }

    /// The answer to a GET or HEAD of this file under `name`.
    pub(super) fn respond(&self, name: &str, method: &Method, headers: &HeaderMap, immutable: bool) -> Response<Body> {
        let (encoding, body) = self.choose(headers);
        let tag = match encoding.token() {
            Some(token) => format!("\"{}-{token}\"", self.tag),
            None => format!("\"{}\"", self.tag),
        };
        let caching = if immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
        let is_known = matches_any(headers, &tag);
        let length = body.len();
        let mut response = if is_known || method == Method::HEAD {
            Response::new(Body::empty())
        } else {
            Response::new(Body::from(body))
        };
        let fields = response.headers_mut();
        fields.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
        fields.insert(VARY, HeaderValue::from_static("accept-encoding"));
        fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Ok(value) = HeaderValue::from_str(&tag) {
            fields.insert(ETAG, value);
        }
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(content_type::of(name)));
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
        if let Some(token) = encoding.token() {
            fields.insert(CONTENT_ENCODING, HeaderValue::from_static(token));
        }
        response
    }

    fn choose(&self, headers: &HeaderMap) -> (Encoding, Bytes) {
        let forms = [(Encoding::Brotli, &self.brotli), (Encoding::Gzip, &self.gzip)];
        let best = forms
            .into_iter()
            .filter_map(|(encoding, bytes)| Some((quality(headers, encoding.token()?), encoding, bytes.as_ref()?)))
            .filter(|(quality, ..)| *quality > 0)
            // The first of equals wins, and brotli is smaller.
            .reduce(|best, next| if next.0 > best.0 { next } else { best });
        match best {
            Some((_, encoding, bytes)) => (encoding, bytes.clone()),
            None => (Encoding::Identity, self.content()),
        }
    }
}

/// Hash of a file's plain content, as build.rs computes it too.
pub(super) fn tag_of(content: &[u8]) -> String {
    Sha256::digest(content)[..12].iter().fold(String::with_capacity(24), |mut tag, byte| {
        let _ = write!(tag, "{byte:02x}");
        tag
    })
}

/// Whether a file's name carries a hash of its content, as `name.1a2b3c4d.js`.
pub(super) fn has_hash(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or_default();
    file.split('.').rev().skip(1).any(|part| {
        (8..=64).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
            && part.bytes().any(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use axum::http::header::{ACCEPT_ENCODING, IF_NONE_MATCH};

    use super::*;

    fn accept(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn the_best_encoding_that_both_know_is_sent() {
        let asset =
            Asset { brotli: Some(Bytes::from_static(b"brotli")), ..Asset::compressed("a.js", vec![b'x'; 999].into()) };
        let chosen = |value| asset.choose(&accept(value)).0;
        assert_eq!(chosen("gzip, deflate, br, zstd"), Encoding::Brotli);
        assert_eq!(chosen("gzip, deflate"), Encoding::Gzip);
        assert_eq!(chosen("br;q=0.5, gzip;q=0.8"), Encoding::Gzip);
        assert_eq!(chosen("br;q=0, *;q=0.1"), Encoding::Gzip);
        assert_eq!(chosen("identity"), Encoding::Identity);
        assert_eq!(asset.choose(&HeaderMap::new()).0, Encoding::Identity);
        assert_eq!(chosen("gzip;q=nonsense"), Encoding::Identity);
    }

    #[test]
    fn a_client_without_gzip_gets_the_plain_bytes() {
        let plain = Bytes::from(vec![b'y'; 5000]);
        let asset = Asset { identity: None, ..Asset::compressed("a.js", plain.clone()) };
        assert_eq!(asset.choose(&HeaderMap::new()), (Encoding::Identity, plain));
    }

    #[test]
    fn an_unchanged_file_is_not_sent_again() {
        let asset = Asset::compressed("index.html", vec![b'z'; 999].into());
        let first = asset.respond("index.html", &Method::GET, &accept("gzip"), false);
        assert_eq!(first.headers()[CACHE_CONTROL], "no-cache");
        let mut again = accept("gzip");
        again.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        let second = asset.respond("index.html", &Method::GET, &again, false);
        assert_eq!(second.status(), StatusCode::NOT_MODIFIED);
        assert!(second.headers().get(CONTENT_LENGTH).is_none());
        // Another encoding is another representation.
        again.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        assert_eq!(asset.respond("index.html", &Method::GET, &again, false).status(), StatusCode::OK);
    }

    #[test]
    fn only_names_with_a_hash_count_as_hashed() {
        assert!(has_hash("static/js/main.1a2b3c4d.js"));
        assert!(!has_hash("main.js"));
        assert!(!has_hash("defaced.feedface.js"));
        assert!(!has_hash("locales/en.dashboard.json"));
    }
}
