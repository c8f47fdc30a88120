//! Prometheus queries: answered from memory, Redis, points that are known ([`range`]), or one shared request to the datasource.
//!
//! ```text
//! params (pure) -> plan (pure: key, life) -> L1 -> flight: L1 again -> Redis -> points -> lease -> datasource -> points, L1, Redis
//! ```
//!
//! Invariants: an answer is the datasource's, byte for byte, or put together from its texts as it would print them; only complete
//! answers with `"status":"success"` are kept; a key holds everything that may change an answer, and no credentials.

pub mod explain;
pub mod flight;
pub mod floors;
pub mod lease;
pub mod params;
pub mod plan;
pub mod policy;
pub mod promql;
pub mod protect;
pub mod range;
pub mod stale;
pub mod stored;
pub mod tenancy;
pub mod ttl;

mod answer;
mod costs;
mod fetch;
mod finished;
mod flush;
mod freshness;
mod points;
mod service;
mod turns;

pub use answer::encoded;
pub use fetch::Fetch;
pub(crate) use flush::tell as tell_flush;
pub use freshness::Freshness;
pub use service::QueryService;
