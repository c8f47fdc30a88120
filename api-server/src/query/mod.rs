//! Prometheus queries: exact windows are answered from memory, Redis, or one shared request to the datasource.
//!
//! ```text
//! params (pure) -> plan (pure: key, life) -> L1 -> flight: L1 again -> Redis -> datasource -> L1, Redis
//! ```
//!
//! Invariants: an answer is the datasource's bytes, never printed anew; only complete answers with `"status":"success"` are
//! kept; a key holds everything that may change an answer, and no credentials.

pub mod flight;
pub mod params;
pub mod plan;
pub mod promql;
pub mod stored;
pub mod ttl;

mod fetch;
mod service;

pub use fetch::Fetch;
pub use service::{Freshness, QueryService};
