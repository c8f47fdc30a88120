//! A load generator for HTTP/1.1 that checks every response.
//!
//! It behaves as real clients do: connections are kept alive; one that the server closes between two requests is no
//! failure. So "no failed request" during a roll means what a user would see.

pub mod cli;
mod connection;
mod report;
mod response;
mod run;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, rngs::SmallRng};

pub use report::{FailedRequest, Latency, Report};
pub use run::{Load, run};

/// What to send, to whom, how fast.
#[derive(Clone)]
pub struct Plan {
    /// Where the server listens.
    pub address: SocketAddr,
    /// The requests.
    pub requests: Arc<[Request]>,
    /// Which of them is next.
    pub order: Order,
    /// Looks at each response; an error makes the request a failed one.
    pub check: Check,
    /// Taken when a request goes out and given to its check, for what may change while it is on its way.
    pub mark: Mark,
    /// Who decides when the next request goes out.
    pub pace: Pace,
    /// Connections at most.
    pub connections: usize,
    /// How long one request may take, connecting included.
    pub timeout: Duration,
    /// Seed of [`Order::Random`].
    pub seed: u64,
}

impl Plan {
    /// A plan for one connection, as fast as it goes, that accepts each 200.
    pub fn new(address: SocketAddr, requests: impl Into<Arc<[Request]>>) -> Self {
        Self {
            address,
            requests: requests.into(),
            order: Order::Random,
            check: Arc::new(|_, response| expect_status(response, 200)),
            mark: Arc::new(|_| 0),
            pace: Pace::Closed,
            connections: 1,
            timeout: Duration::from_secs(10),
            seed: 1,
        }
    }
}

/// A check of a response.
pub type Check = Arc<dyn Fn(Sent, &Response<'_>) -> Result<(), Failure> + Send + Sync>;

/// A mark for the request of this index.
pub type Mark = Arc<dyn Fn(usize) -> u64 + Send + Sync>;

/// The request that a response belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Its index in the plan.
    pub request: usize,
    /// What [`Plan::mark`] gave when it went out.
    pub mark: u64,
}

/// Which request is next.
#[derive(Debug, Clone)]
pub enum Order {
    /// Any, by the seed of the plan.
    Random,
    /// One after the other, from the first again after the last. The position is shared by all runs that have it.
    InTurn(Arc<AtomicUsize>),
}

impl Order {
    fn next(&self, random: &mut SmallRng, count: usize) -> usize {
        match self {
            Self::Random => random.random_range(0..count),
            Self::InTurn(position) => position.fetch_add(1, Ordering::Relaxed) % count,
        }
    }
}

/// When the next request goes out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Closed loop: each connection sends when it has its response. Measures what a server can do.
    Closed,
    /// Open loop: so many requests a second, whether or not the earlier ones have been answered. Measures what a user
    /// feels: a request that waits for a free connection is late from the moment it was due.
    PerSecond(f64),
}

/// A request as the bytes that go out.
#[derive(Debug, Clone)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A GET of `path`. `host` is the value of the `Host` header.
    pub fn get(host: &str, path: &str, headers: &[(&str, &str)]) -> Self {
        Self::new("GET", host, path, headers, None)
    }

    /// Any request; a body is sent with its length, its type belongs in `headers`.
    pub fn new(method: &str, host: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Self {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in headers {
            head += name;
            head += ": ";
            head += value;
            head += "\r\n";
        }
        if let Some(body) = body {
            head += "Content-Length: ";
            head += &body.len().to_string();
            head += "\r\n";
        }
        head += "\r\n";
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        Self { bytes }
    }
}

/// A whole response.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// The status code.
    pub status: u16,
    /// Status line and headers.
    head: &'a [u8],
    /// The body, without the framing of chunks.
    pub body: &'a [u8],
}

impl<'a> Response<'a> {
    /// The value of a header, when it is there and text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        response::find_header(self.head, name)
    }
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Nobody listens.
    Refused,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the response began.
    Closed,
    /// The connection was closed inside the response.
    Truncated(String),
    /// No whole response in time.
    Timeout,
    /// A status that the check does not want.
    Status(u16),
    /// Not HTTP/1.1.
    Protocol(String),
    /// The check refused the response.
    Check(String),
    /// Anything else of the network.
    Io(String),
}

impl Failure {
    /// A word for tables.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Truncated(_) => "truncated",
            Self::Timeout => "timeout",
            Self::Status(_) => "status",
            Self::Protocol(_) => "protocol",
            Self::Check(_) => "check",
            Self::Io(_) => "io",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Reset => f.write_str("connection reset"),
            Self::Closed => f.write_str("connection closed before the response"),
            Self::Truncated(got) => write!(f, "connection closed inside the response ({got})"),
            Self::Timeout => f.write_str("no whole response in time"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Protocol(what) => write!(f, "broken HTTP: {what}"),
            Self::Check(what) => write!(f, "wrong response: {what}"),
            Self::Io(what) => f.write_str(what),
        }
    }
}

/// The simplest check.
pub fn expect_status(response: &Response<'_>, status: u16) -> Result<(), Failure> {
    if response.status == status { Ok(()) } else { Err(Failure::Status(response.status)) }
}
