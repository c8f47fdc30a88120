//! Whose data: a datasource that holds the series of many shows each caller the series of their projects.
//!
//! ```text
//! rule + caller + projects -> values (pure) -> matchers -> put into every selector (pure, remembered) -> the request as usual
//! ```
//!
//! Invariants: what is sent to the datasource was printed here, and reads back as a tree of which every selector has the
//! matchers, in each alternative; what is not understood is refused; no value means no data, never all. The rewritten query is
//! what the cache sees, so answers are shared by those who may see the same, and by nobody else.

mod print;
mod request;
mod selectors;
mod values;

use std::sync::Arc;

use axum::http::StatusCode;
use moka::sync::Cache;

pub use request::{Asked, Rewritten, rewrite};
pub use selectors::{Limited, limit};
pub use values::{Asker, Matchers, of};

use super::promql::Analysis;
use crate::config::Tenancy;
use crate::error::ApiError;

/// Bytes for remembered rewritings.
const REMEMBERED_MAX_BYTES: u64 = 8 << 20;

/// What of a datasource's data a caller may see.
#[derive(Debug, Clone)]
pub enum Scope {
    /// No rule limits the datasource.
    Unlimited,
    /// A rule does, and it lets this caller see everything.
    Free,
    /// Series with these labels.
    Within(Arc<Tenancy>, Arc<Matchers>),
}

/// Why a request to a datasource with tenancy is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// What was sent cannot be limited for certain.
    #[error("{0}")]
    BadData(String),
    /// It would show what is not the caller's.
    #[error("{0}")]
    Forbidden(String),
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let (status, kind) = match refused {
            Refused::BadData(_) => (StatusCode::BAD_REQUEST, "bad_data"),
            Refused::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
        };
        Self::Prometheus { status, kind, text: refused.to_string() }
    }
}

/// Queries that were limited before.
#[derive(Debug)]
pub struct Rewrites(Cache<blake3::Hash, Result<Arc<Limited>, String>>);

impl Default for Rewrites {
    fn default() -> Self {
        let weight = |_: &blake3::Hash, known: &Result<Arc<Limited>, String>| {
            let length = known.as_ref().map_or_else(String::len, |limited| 2 * limited.analysis.text.len());
            u32::try_from(length + 300).unwrap_or(u32::MAX)
        };
        Self(Cache::builder().max_capacity(REMEMBERED_MAX_BYTES).weigher(weight).build())
    }
}

impl Rewrites {
    /// As [`limit`], parsed once.
    pub fn limit(&self, query: &str, within: &Matchers) -> Result<Arc<Limited>, String> {
        let mut key = blake3::Hasher::new();
        key.update(&(within.text().len() as u64).to_le_bytes()).update(within.text().as_bytes());
        let key = key.update(query.as_bytes()).finalize();
        if let Some(known) = self.0.get(&key) {
            return known;
        }
        let limited = limit(query, within).map(Arc::new);
        self.0.insert(key, limited.clone());
        limited
    }
}

impl Limited {
    /// What the cache must know of the limited query.
    pub fn analysis(&self) -> &Arc<Analysis> {
        &self.analysis
    }
}
