//! One keep-alive connection of a client, as real clients use them.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::load::{
    Failure, Response,
    response::{Body, Head, decode_chunks, parse_head},
};

/// A connection that is opened when it is needed and again after the server closed it.
#[derive(Debug)]
pub(super) struct Connection {
    address: SocketAddr,
    timeout: Duration,
    stream: Option<TcpStream>,
    /// Whether the open stream has carried a whole exchange before.
    used: bool,
    received: Vec<u8>,
    decoded: Vec<u8>,
    /// Events that are not failures.
    pub(super) counts: Counts,
}

/// What happened to a connection without a request failing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Connections opened.
    pub(super) opened: u64,
    /// Connections that the server had closed between two requests, in order.
    pub(super) idle_closed: u64,
    /// Requests sent a second time because the server closed the idle connection while they were on their way.
    pub(super) stale_retries: u64,
}

/// How an attempt failed: whether any byte of the response came decides if a retry is safe.
struct Broken {
    failure: Failure,
    answered: bool,
}

impl Connection {
    pub(super) fn new(address: SocketAddr, timeout: Duration) -> Self {
        let (received, decoded) = (Vec::with_capacity(128 * 1024), Vec::new());
        Self { address, timeout, stream: None, used: false, received, decoded, counts: Counts::default() }
    }

    /// Sends a request and reads the whole response.
    ///
    /// A used connection on which the server ends or resets the stream before the first byte of the response was closed
    /// idle, so the request goes out once more on a fresh one (RFC 9112 section 9.3.1, and what browsers and Go do).
    /// Everything else that goes wrong is a failure.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> Result<Response<'_>, Failure> {
        self.forget_if_closed();
        let reused = self.stream.is_some() && self.used;
        let head = match self.attempt(request).await {
            Ok(head) => head,
            Err(broken) => {
                let closed = matches!(broken.failure, Failure::Reset | Failure::Closed);
                if !(reused && closed && !broken.answered) {
                    return Err(broken.failure);
                }
                self.counts.stale_retries += 1;
                self.attempt(request).await.map_err(|broken| broken.failure)?
            }
        };
        let (head_bytes, rest) = self.received.split_at(head.length);
        let body = if head.body == Body::Chunked { &self.decoded } else { rest };
        Ok(Response { status: head.status, head: head_bytes, body })
    }

    /// Drops a stream that the server has closed since the last response.
    fn forget_if_closed(&mut self) {
        let Some(stream) = &self.stream else { return };
        let mut byte = [0];
        match stream.try_read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => {
                self.stream = None;
                self.counts.idle_closed += 1;
            }
        }
    }

    async fn attempt(&mut self, request: &[u8]) -> Result<Head, Broken> {
        self.received.clear();
        let result = tokio::time::timeout(self.timeout, self.send_and_receive(request)).await;
        let result = result.unwrap_or(Err(Failure::Timeout));
        match &result {
            Ok(head) if !head.close => self.used = true,
            _ => self.stream = None,
        }
        result.map_err(|failure| Broken { failure, answered: !self.received.is_empty() })
    }

    async fn send_and_receive(&mut self, request: &[u8]) -> Result<Head, Failure> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                let stream = TcpStream::connect(self.address).await.map_err(|error| connect_failure(&error))?;
                stream.set_nodelay(true).map_err(|error| io_failure(&error))?;
                self.counts.opened += 1;
                self.used = false;
                empty.insert(stream)
            }
        };
        let write = stream.write_all(request).await;
        // A server that answers early (413, 503) may close before it has read all: its answer counts.
        let head = loop {
            if read_more(stream, &mut self.received).await? == 0 {
                return Err(write.err().map_or(Failure::Closed, |error| io_failure(&error)));
            }
            if let Some(head) = parse_head(&self.received).map_err(Failure::Protocol)? {
                break head;
            }
        };
        let end = match head.body {
            Body::Length(length) => {
                let end = head.length + length;
                self.received.reserve(end.saturating_sub(self.received.len()));
                while self.received.len() < end {
                    if read_more(stream, &mut self.received).await? == 0 {
                        let got = self.received.len() - head.length;
                        return Err(Failure::Truncated(format!("{got} of {length} bytes")));
                    }
                }
                end
            }
            Body::Chunked => loop {
                let chunks = &self.received[head.length..];
                if let Some(taken) = decode_chunks(chunks, &mut self.decoded).map_err(Failure::Protocol)? {
                    break head.length + taken;
                }
                if read_more(stream, &mut self.received).await? == 0 {
                    return Err(Failure::Truncated("no last chunk".to_owned()));
                }
            },
            Body::UntilClose => {
                while read_more(stream, &mut self.received).await? != 0 {}
                self.received.len()
            }
        };
        if self.received.len() > end {
            return Err(Failure::Protocol(format!("{} bytes after the response", self.received.len() - end)));
        }
        Ok(head)
    }
}

async fn read_more(stream: &mut TcpStream, received: &mut Vec<u8>) -> Result<usize, Failure> {
    received.reserve(16 * 1024);
    stream.read_buf(received).await.map_err(|error| io_failure(&error))
}

fn connect_failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        _ => io_failure(error),
    }
}

fn io_failure(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Failure::Reset,
        io::ErrorKind::TimedOut => Failure::Timeout,
        _ => Failure::Io(error.to_string()),
    }
}
