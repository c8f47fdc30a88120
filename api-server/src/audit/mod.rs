//! The audit log: who did what, when, from where and with which result, for every write and every sign-in.
//!
//! A request that may change something runs inside a [`Scope`], opened by the middleware from the route alone, so that a new
//! route cannot be forgotten. What only the inside knows (who it is, the name in a body, the version written) is noted from
//! there by [`user`], [`about`] and [`wrote`], which do nothing outside of a scope. The scope leaves its records when it
//! ends, however it ends. Work of the server itself runs in [`as_system`].

mod log;
mod route;

use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

pub use self::log::AuditLog;
pub use self::route::{Subject, subject};
use crate::domain::audit::{Record, Verb, capped};
use crate::domain::document::Key;
use crate::domain::kind::Kind;

/// Status of a record whose client left before the answer.
const CLIENT_LEFT: u16 = 499;

tokio::task_local! {
    static CURRENT: Arc<Scope>;
}

/// Where a request comes from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Address of the connection's other end.
    pub client: Option<String>,
    /// `X-Forwarded-For`.
    pub forwarded_for: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// `X-Request-Id`.
    pub request_id: Option<String>,
}

/// One document that was written.
#[derive(Debug, Clone)]
struct Written {
    verb: Verb,
    key: Key,
    version: Option<u64>,
}

/// What is known so far about something that is being done.
#[derive(Debug)]
pub struct Scope {
    log: Arc<AuditLog>,
    source: Source,
    /// Writes are noted at once, as there is no answer to wait for.
    system: bool,
    notes: Mutex<Notes>,
}

#[derive(Debug)]
struct Notes {
    user: Option<String>,
    subject: Subject,
    written: Vec<Written>,
    status: u16,
}

impl Scope {
    /// A scope for a request.
    pub fn new(log: Arc<AuditLog>, source: Source, subject: Subject) -> Arc<Self> {
        let notes = Notes { user: None, subject, written: Vec::new(), status: CLIENT_LEFT };
        Arc::new(Self { log, source, system: false, notes: Mutex::new(notes) })
    }

    /// Runs the inside of the scope; `status` reads the result. The records are left also when the future is dropped.
    pub async fn run<T>(self: Arc<Self>, inside: impl Future<Output = T>, status: impl FnOnce(&T) -> u16) -> T {
        let closing = Closing(self);
        let result = CURRENT.scope(closing.0.clone(), inside).await;
        closing.0.notes.lock().status = status(&result);
        result
    }

    fn record(&self, user: Option<String>, subject: Subject, version: Option<u64>, status: u16) -> Record {
        let Source { client, forwarded_for, user_agent, request_id } = self.source.clone();
        let now = Timestamp::now();
        Record {
            id: rand::random(),
            // PostgreSQL keeps microseconds.
            time: Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now),
            user,
            verb: subject.verb,
            kind: subject.kind,
            project: subject.project,
            name: subject.name,
            version,
            status,
            client,
            forwarded_for,
            user_agent,
            request_id,
        }
    }

    /// Leaves the records of what was written, or one of what was tried.
    fn close(&self) {
        let (user, subject, written, status) = {
            let mut notes = self.notes.lock();
            let written = std::mem::take(&mut notes.written);
            (notes.user.clone(), notes.subject.clone(), written, notes.status)
        };
        if self.system {
            return;
        }
        if written.is_empty() {
            // Browsers refresh every few minutes; of interest is only who could not.
            if subject.verb != Verb::Refresh || status >= 400 {
                self.log.leave(self.record(user, subject, None, status));
            }
            return;
        }
        for Written { verb, key, version } in written {
            self.log.leave(self.record(user.clone(), Subject::of(verb, &key), version, status));
        }
    }
}

struct Closing(Arc<Scope>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Runs work of the server itself: `name` stands where the user would, in brackets that no user's name can have.
pub async fn as_system<T>(log: Option<Arc<AuditLog>>, name: &'static str, work: impl Future<Output = T>) -> T {
    let Some(log) = log else { return work.await };
    let subject = Subject { verb: Verb::Other, kind: None, project: None, name: None };
    let notes = Notes { user: Some(name.to_owned()), subject, written: Vec::new(), status: 200 };
    let scope = Scope { log, source: Source::default(), system: true, notes: Mutex::new(notes) };
    CURRENT.scope(Arc::new(scope), work).await
}

/// Notes who sends the request.
pub fn user(login: &str) {
    // Outside of a scope nothing is audited.
    let _ = CURRENT.try_with(|scope| scope.notes.lock().user = Some(capped(login)));
}

/// Notes which document the request is about, should it be refused.
pub fn about(key: &Key) {
    let _ = CURRENT.try_with(|scope| {
        let mut notes = scope.notes.lock();
        // A request that writes several documents is about the one of its route.
        if notes.subject.kind == Some(key.kind) {
            notes.subject = Subject::of(notes.subject.verb, key);
        }
    });
}

/// Notes that a document was written.
pub fn wrote(verb: Verb, key: &Key, version: Option<u64>) {
    let _ = CURRENT.try_with(|scope| {
        if scope.system {
            let user = scope.notes.lock().user.clone();
            let status = if verb == Verb::Delete { 204 } else { 200 };
            scope.log.leave(scope.record(user, Subject::of(verb, key), version, status));
        } else {
            scope.notes.lock().written.push(Written { verb, key: key.clone(), version });
        }
    });
}

impl Subject {
    /// A document.
    fn of(verb: Verb, key: &Key) -> Self {
        Self { verb, kind: Some(key.kind), project: key.project.as_deref().map(capped), name: Some(capped(&key.name)) }
    }

    /// A document of a path, whose parts may be missing.
    fn of_kind(verb: Verb, kind: Kind, project: Option<String>, name: Option<String>) -> Self {
        Self { verb, kind: Some(kind), project, name }
    }
}
