//! Datasource proxy: the path names a stored datasource, its document says where to and with which credentials.
//!
//! ```text
//! path -> location (pure) -> targets (document + secret -> Target, kept) -> Prometheus query? -> query service
//!                                                                        -> else             -> forward, streaming
//!      -> unsaved (pure): the spec is in the body, nothing is kept       -> forward, streaming
//! ```
//!
//! Invariants: nothing that signs a user in to this server (cookies, `Authorization`) ever leaves it; a path never leaves the
//! base path of the datasource; a datasource's answer does nothing to our origin (no cookies, no redirects); credentials are in
//! no error, log or cache key. Upstream (Perses v0.54) forwards both.

mod client;
mod credentials;
mod explain;
mod forward;
mod headers;
mod location;
mod network;
mod oauth;
mod rights;
mod service;
mod spec;
mod targets;
mod tenancy;
mod unsaved;

pub use explain::Question;
pub use headers::Forwarded;
pub use location::{DatasourceRef, SubPath};
pub use rights::Right;
pub use service::{Asked, Parts, Proxy};

use crate::intake::Unread;

/// Why a request was not proxied. The texts go to clients: they name datasources, never URLs with credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// No such datasource, or no such secret.
    #[error("document not found")]
    NotFound,
    /// The project of the path does not exist (upstream's text; percli matches its end).
    #[error("metadata.project \"{0}\" doesn't exist")]
    ProjectMissing(String),
    /// The path would leave the datasource's base path, or is no path.
    #[error("the path {path:?} is not accepted by the datasource proxy: {reason}")]
    Path {
        /// What was asked.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `allowedEndpoints` of the datasource does not list it.
    #[error(
        "you are not allowed to use {method} {path} of datasource {datasource:?}: no entry of allowedEndpoints matches"
    )]
    EndpointNotAllowed {
        /// The datasource.
        datasource: String,
        /// Method of the request.
        method: String,
        /// Decoded sub-path of the request.
        path: String,
    },
    /// The datasource has no proxy: the browser talks to it directly.
    #[error(
        "datasource {0:?} has no HTTPProxy in its plugin spec (a directUrl is used by the browser itself): nothing to proxy"
    )]
    NoProxy(String),
    /// The body of a request to an unsaved datasource is wrong.
    #[error("{0}")]
    Body(String),
    /// The datasource is an SQL database.
    #[error("datasource {0:?} has an SQLProxy, which this server does not serve: only HTTPProxy is")]
    SqlProxy(String),
    /// The datasource, or what gives it its tokens, is in an excluded network.
    #[error("datasource {datasource:?} may not be reached: {reason}")]
    Denied {
        /// The datasource.
        datasource: String,
        /// Which host, and what excludes it.
        reason: String,
    },
    /// There is no access token for the datasource.
    #[error("datasource {datasource:?} cannot be used: {reason}")]
    Token {
        /// The datasource.
        datasource: String,
        /// What the token endpoint did.
        reason: String,
    },
    /// The datasource sent the client elsewhere.
    #[error(
        "datasource {datasource:?} answered {status} with a redirect to {to}, which the proxy does not follow: put the final \
         address into the url of its HTTPProxy"
    )]
    Redirect {
        /// The datasource.
        datasource: String,
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// Scheme, host and path.
        to: String,
    },
    /// The stored document or its secret cannot be used.
    #[error("datasource {datasource:?} cannot be used: {reason}")]
    Invalid {
        /// The datasource.
        datasource: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The body of the request was not read.
    #[error(transparent)]
    Unread(#[from] Unread),
    /// No connection, or it broke.
    #[error("datasource {datasource:?} cannot be reached: {reason}")]
    Unreachable {
        /// The datasource.
        datasource: String,
        /// What the network said.
        reason: String,
    },
    /// No answer in time.
    #[error("datasource {datasource:?} did not answer within {seconds} s ({key})")]
    Timeout {
        /// The datasource.
        datasource: String,
        /// The limit in seconds.
        seconds: u64,
        /// The configuration key of the limit.
        key: &'static str,
    },
    /// The store is away and the datasource is not known here yet.
    #[error("the store is unavailable: {0}")]
    StoreUnavailable(String),
    /// Anything else; the text is for the log.
    #[error("the proxy failed: {0}")]
    Failed(String),
}
