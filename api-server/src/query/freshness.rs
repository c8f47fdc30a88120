//! What a client demands of a cached answer.

use axum::http::{HeaderMap, HeaderName, header};

/// What a client demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// A cached answer is fine.
    Cached,
    /// `no-cache`: ask the datasource, and keep its answer.
    Refresh,
    /// `no-store`: ask the datasource, keep nothing.
    NoStore,
}

impl Freshness {
    /// From `Cache-Control`, else `Pragma` (RFC 9111).
    pub fn of(headers: &HeaderMap) -> Self {
        let has = |name: HeaderName, word: &str| {
            let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            values.any(|value| value.split(',').any(|directive| directive.trim().eq_ignore_ascii_case(word)))
        };
        if has(header::CACHE_CONTROL, "no-store") {
            Self::NoStore
        } else if has(header::CACHE_CONTROL, "no-cache")
            || has(header::CACHE_CONTROL, "max-age=0")
            || !headers.contains_key(header::CACHE_CONTROL) && has(header::PRAGMA, "no-cache")
        {
            Self::Refresh
        } else {
            Self::Cached
        }
    }

    /// The stricter of this and, if it is demanded, [`Self::Refresh`].
    #[must_use]
    pub fn or_refresh(self, demanded: bool) -> Self {
        if demanded && self == Self::Cached { Self::Refresh } else { self }
    }
}
