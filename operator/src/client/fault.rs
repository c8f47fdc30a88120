//! Fault injection below the Kubernetes client.
//!
//! Numbers every mutating request of a run (1, 2, 3, ...) and breaks the one that a test names: the operator dies before
//! or after it, the server refuses it, its answer is lost, or it arrives twice. "What if the process dies between two
//! writes" is then a loop over numbers, not luck (Sieve, OSDI'22: such bugs sit in windows of under a millisecond). What takes
//! too long for such a loop is done with every write broken once.
//!
//! Leases and events are not numbered: they carry no desired state and their count depends on time.

use std::collections::HashSet;
use std::future::pending;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode};
use kube::client::Body;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Answer, RequestError};

/// Sends a request to the server.
type Forward<'a> = dyn Fn(Request<Body>) -> BoxFuture<'static, Answer> + Sync + 'a;

/// What happens to a mutating request; numbers start at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies before the request leaves.
    CrashBefore(usize),
    /// The process dies after the server has committed, before the answer is seen.
    CrashAfter(usize),
    /// The request fails; the process goes on.
    Fail(usize, Failure),
    /// The request reaches the server twice; the second answer is seen.
    Duplicate(usize),
}

impl Fault {
    fn number(self) -> usize {
        match self {
            Self::CrashBefore(number) | Self::CrashAfter(number) | Self::Fail(number, _) | Self::Duplicate(number) => {
                number
            }
        }
    }
}

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 409 with reason `Conflict`, the server has done nothing.
    Conflict,
    /// 429 with `Retry-After: 1`, the server has done nothing.
    TooManyRequests,
    /// 500, the server has done nothing.
    InternalError,
    /// 503, the server has done nothing.
    Unavailable,
    /// 504, and the server has committed.
    GatewayTimeout,
    /// The connection breaks before the server has seen the request.
    Unsent,
    /// The server has committed and the answer is lost.
    LostReply,
}

impl Failure {
    /// Every way.
    pub const ALL: [Self; 7] = [
        Self::Conflict,
        Self::TooManyRequests,
        Self::InternalError,
        Self::Unavailable,
        Self::GatewayTimeout,
        Self::Unsent,
        Self::LostReply,
    ];

    /// Whether the server has done its work all the same.
    fn commits(self) -> bool {
        matches!(self, Self::GatewayTimeout | Self::LostReply)
    }
}

/// One numbered request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// HTTP method.
    pub method: Method,
    /// Path without the query.
    pub path: String,
}

/// The fault plan of one run and the record of its writes. Clones share both.
#[derive(Clone, Debug)]
pub struct Faults(Arc<State>);

/// Which requests are broken.
#[derive(Debug)]
enum Plan {
    /// The one of the fault; `None` when it has struck.
    One(Option<Fault>),
    /// Many, each once.
    Often(Progress),
}

/// One of `every` writes is broken, the first of them after `skip`, one way after the other from the way with this number on.
/// What is sent once more because it was broken gets through, and is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Often {
    /// 1 for every write.
    pub every: usize,
    /// Less than `every`: runs with all of these break every write.
    pub skip: usize,
    /// Of [`Failure::ALL`], or that it arrives twice.
    pub way: usize,
}

impl Often {
    /// How many ways there are.
    pub const WAYS: usize = Failure::ALL.len() + 1;
}

/// How far it is.
#[derive(Debug)]
struct Progress {
    often: Often,
    seen: usize,
    /// Places whose next request is the repetition of a broken one.
    repeated: HashSet<(Method, String)>,
}

impl Progress {
    fn next(&mut self, number: usize, write: &Write) -> Option<Fault> {
        let place = (write.method.clone(), write.path.clone());
        if self.repeated.remove(&place) {
            return None;
        }
        let Often { every, skip, way } = self.often;
        let seen = self.seen;
        self.seen += 1;
        if seen % every != skip {
            return None;
        }
        let failure = Failure::ALL.get((seen / every + way) % Often::WAYS).copied();
        let Some(failure) = failure else { return Some(Fault::Duplicate(number)) };
        // Nobody repeats a create that has happened.
        if !(failure.commits() && write.method == Method::POST) {
            self.repeated.insert(place);
        }
        Some(Fault::Fail(number, failure))
    }
}

#[derive(Debug)]
struct State {
    plan: Mutex<Plan>,
    writes: Mutex<Vec<Write>>,
    struck: Mutex<usize>,
    crashed: watch::Sender<bool>,
}

impl Faults {
    /// Only records.
    pub fn none() -> Self {
        Self::new(Plan::One(None))
    }

    /// Records, and breaks one request.
    pub fn with(fault: Fault) -> Self {
        Self::new(Plan::One(Some(fault)))
    }

    /// Records, and breaks many requests.
    pub fn often(often: Often) -> Self {
        Self::new(Plan::Often(Progress { often, seen: 0, repeated: HashSet::new() }))
    }

    fn new(plan: Plan) -> Self {
        Self(Arc::new(State {
            plan: Mutex::new(plan),
            writes: Mutex::new(Vec::new()),
            struck: Mutex::new(0),
            crashed: watch::channel(false).0,
        }))
    }

    /// The mutating requests so far, in the order they were sent.
    pub fn writes(&self) -> Vec<Write> {
        self.0.writes.lock().clone()
    }

    /// How many mutating requests there were so far.
    pub fn count(&self) -> usize {
        self.0.writes.lock().len()
    }

    /// How many were broken.
    pub fn struck(&self) -> usize {
        *self.0.struck.lock()
    }

    /// Resolves when a crash fault has struck. The test then aborts the operator; until it does, no request of the
    /// dead process gets through.
    pub async fn crashed(&self) {
        // The sender lives as long as `self`: waiting cannot fail.
        let _ = self.0.crashed.subscribe().wait_for(|crashed| *crashed).await;
    }

    /// Sends `request` by `forward` unless the plan says otherwise.
    pub(super) async fn inject(&self, request: Request<Body>, forward: &Forward<'_>) -> Answer {
        if *self.0.crashed.borrow() {
            return pending().await;
        }
        let Some(fault) = self.record(&request) else { return forward(request).await };
        tracing::info!(?fault, method = %request.method(), path = request.uri().path(), "injecting a fault");
        match fault {
            Fault::CrashBefore(_) => self.crash().await,
            Fault::CrashAfter(_) => {
                let _committed = forward(request).await?;
                self.crash().await
            }
            Fault::Duplicate(_) => {
                let first =
                    super::copy(&request).ok_or(RequestError::Injected("a streamed body cannot be repeated"))?;
                let _ignored = forward(first).await?;
                forward(request).await
            }
            Fault::Fail(_, failure) => fail(failure, request, forward).await,
        }
    }

    /// Numbers a mutating request; the fault if this is the number it waits for.
    fn record(&self, request: &Request<Body>) -> Option<Fault> {
        if !is_write(request) {
            return None;
        }
        let mut writes = self.0.writes.lock();
        let write = Write { method: request.method().clone(), path: request.uri().path().to_owned() };
        let number = writes.len() + 1;
        let fault = match &mut *self.0.plan.lock() {
            Plan::One(fault) => fault.take_if(|fault| fault.number() == number),
            Plan::Often(progress) => progress.next(number, &write),
        };
        *self.0.struck.lock() += usize::from(fault.is_some());
        writes.push(write);
        fault
    }

    async fn crash<T>(&self) -> T {
        self.0.crashed.send_replace(true);
        pending().await
    }
}

async fn fail(failure: Failure, request: Request<Body>, forward: &Forward<'_>) -> Answer {
    let (status, reason) = match failure {
        Failure::Conflict => (StatusCode::CONFLICT, "Conflict"),
        Failure::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
        Failure::InternalError => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        Failure::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        Failure::GatewayTimeout => {
            let _committed = forward(request).await?;
            (StatusCode::GATEWAY_TIMEOUT, "Timeout")
        }
        Failure::Unsent => return Err(RequestError::Injected("the connection broke before the request").into()),
        Failure::LostReply => {
            let _committed = forward(request).await?;
            return Err(RequestError::Injected("the answer was lost").into());
        }
    };
    let body = serde_json::json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure",
        "code": status.as_u16(), "reason": reason, "message": "injected fault",
    });
    let mut answer = Response::builder().status(status).header(hyper::header::CONTENT_TYPE, "application/json");
    if failure == Failure::TooManyRequests {
        answer = answer.header(hyper::header::RETRY_AFTER, "1");
    }
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed_unsync();
    Ok(answer.body(body)?)
}

/// Whether a request changes desired state: not a read, a review, a lease or an event.
fn is_write(request: &Request<Body>) -> bool {
    let changes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(request.method());
    let path = request.uri().path();
    let exempt = |segment: &str| matches!(segment, "leases" | "events") || segment.ends_with("reviews");
    changes && !path.split('/').any(exempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, path: &str) -> Request<Body> {
        Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
    }

    #[test]
    fn writes_are_numbered_and_reads_are_not() {
        let faults = Faults::with(Fault::CrashBefore(2));
        assert_eq!(faults.record(&request(Method::GET, "/api/v1/namespaces/a/secrets/b")), None);
        assert_eq!(faults.record(&request(Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/a/leases/b")), None);
        assert_eq!(faults.record(&request(Method::POST, "/apis/events.k8s.io/v1/namespaces/a/events")), None);
        assert_eq!(faults.record(&request(Method::POST, "/api/v1/namespaces/a/secrets")), None);
        let second = request(Method::PATCH, "/apis/apps/v1/namespaces/a/deployments/b");
        assert_eq!(faults.record(&second), Some(Fault::CrashBefore(2)));
        assert_eq!(faults.record(&second), None, "a fault strikes once");
        assert_eq!(faults.count(), 3);
    }

    #[test]
    fn every_write_is_broken_once_in_one_way_after_the_other() {
        let faults = Faults::often(Often { every: 1, skip: 0, way: 3 });
        let (secret, jobs) = ("/api/v1/namespaces/a/secrets/b", "/apis/batch/v1/namespaces/a/jobs");
        let record = |method: Method, path: &str| faults.record(&request(method, path));
        assert_eq!(record(Method::PATCH, secret), Some(Fault::Fail(1, Failure::Unavailable)));
        assert_eq!(record(Method::DELETE, secret), Some(Fault::Fail(2, Failure::GatewayTimeout)));
        assert_eq!(record(Method::PATCH, secret), None, "its repetition");
        assert_eq!(record(Method::PATCH, secret), Some(Fault::Fail(4, Failure::Unsent)));
        assert_eq!(record(Method::POST, jobs), Some(Fault::Fail(5, Failure::LostReply)));
        assert_eq!(record(Method::POST, jobs), Some(Fault::Duplicate(6)), "another one: the first was made");
        assert_eq!(record(Method::POST, jobs), Some(Fault::Fail(7, Failure::Conflict)), "it came twice already");
        assert_eq!((faults.struck(), faults.count()), (6, 7));
    }

    #[test]
    fn some_writes_are_broken_and_others_are_not() {
        let faults = Faults::often(Often { every: 3, skip: 1, way: 7 });
        let sent: Vec<_> = (0..8).map(|at| faults.record(&request(Method::PATCH, &format!("/a/{at}")))).collect();
        let struck: Vec<_> = sent.into_iter().flatten().collect();
        assert_eq!(
            struck,
            [Fault::Duplicate(2), Fault::Fail(5, Failure::Conflict), Fault::Fail(8, Failure::TooManyRequests)]
        );
    }
}
