//! kube-apiserver's audit log, for tests that count who asked for what.

use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

/// One request that kube-apiserver has answered (audit.k8s.io/v1 `Event`, level Metadata).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Who signed in.
    pub user: User,
    /// The client's own name, empty when it gave none.
    #[serde(default)]
    pub user_agent: String,
    /// What it was about; absent for paths that name no object.
    #[serde(default)]
    pub object_ref: Object,
    /// The answer.
    #[serde(default)]
    pub response_status: Status,
    /// When the answer was sent (RFC 3339, microseconds).
    pub stage_timestamp: String,
}

/// Who signed in.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct User {
    /// `admin`, `system:serviceaccount:<namespace>:<name>`, ...
    #[serde(default)]
    pub username: String,
}

/// The object of a request. Empty strings stand for what the request did not name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Object {
    /// API group; empty for the core group.
    pub api_group: String,
    /// Plural, lower case.
    pub resource: String,
    /// `status`, `scale`, `token`, ...
    pub subresource: String,
    /// Namespace; empty for cluster-wide objects.
    pub namespace: String,
    /// Name; empty for lists and for creates.
    pub name: String,
}

/// The answer's status.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Status {
    /// HTTP status.
    #[serde(default)]
    pub code: u16,
}

impl Event {
    /// Did it ask for a change? (A refused one counts: it was asked.)
    pub fn is_write(&self) -> bool {
        matches!(self.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection")
    }

    /// Is it about a Lease, or about a review of access or of a token? These are "writes" that change no object of ours.
    pub fn is_housekeeping(&self) -> bool {
        self.object_ref.resource == "leases"
            || self.object_ref.resource.ends_with("reviews")
            || self.object_ref.subresource == "token"
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { verb, request_uri, user, response_status, stage_timestamp, .. } = self;
        write!(f, "{stage_timestamp} {verb} {request_uri} {} by {}", response_status.code, user.username)
    }
}

/// A place in the log: events after it are newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

/// The log of one cluster.
#[derive(Debug, Clone)]
pub struct AuditLog {
    file: PathBuf,
}

impl AuditLog {
    /// The log in `file`.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into() }
    }

    /// The log's file.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The end of the log now. kube-apiserver writes an event before the client sees the end of the answer.
    pub fn mark(&self) -> Result<Mark> {
        let size = std::fs::metadata(&self.file).with_context(|| format!("looking at {}", self.file.display()))?.len();
        Ok(Mark(size))
    }

    /// Every event since the log began.
    pub fn all(&self) -> Result<Vec<Event>> {
        self.since(Mark(0))
    }

    /// The events after `mark`, in the order in which they were answered.
    pub fn since(&self, mark: Mark) -> Result<Vec<Event>> {
        let name = self.file.display();
        let mut file = std::fs::File::open(&self.file).with_context(|| format!("opening {name}"))?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        let mut events = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            // The last line may still be in the making.
            if line.last() != Some(&b'\n') {
                break;
            }
            events.push(serde_json::from_slice(&line).with_context(|| format!("reading an event of {name}"))?);
            line.clear();
        }
        Ok(events)
    }

    /// The requests for a change after `mark` by users for whom `by` says yes, without housekeeping
    /// ([`Event::is_housekeeping`]).
    pub fn writes_since(&self, mark: Mark, by: impl Fn(&Event) -> bool) -> Result<Vec<Event>> {
        let mut events = self.since(mark)?;
        events.retain(|event| event.is_write() && !event.is_housekeeping() && by(event));
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"kind":"Event","level":"Metadata","stage":"ResponseComplete","requestURI":"/api/v1/namespaces/a/secrets?fieldManager=x","verb":"create","user":{"username":"admin","groups":["system:masters"]},"userAgent":"operator/1","objectRef":{"resource":"secrets","namespace":"a","apiVersion":"v1"},"responseStatus":{"metadata":{},"code":201},"stageTimestamp":"2026-01-01T00:00:00.000000Z"}"#;
    const LEASE: &str = r#"{"requestURI":"/apis/x","verb":"update","user":{"username":"admin"},"objectRef":{"resource":"leases","apiGroup":"coordination.k8s.io"},"responseStatus":{"code":200},"stageTimestamp":"t"}"#;

    #[test]
    fn counts_what_came_after_the_mark_and_leaves_half_a_line() {
        use std::io::Write;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let log = AuditLog::new(file.path());
        writeln!(file, "{LINE}").unwrap();
        let mark = log.mark().unwrap();
        write!(file, "{LINE}\n{LEASE}\n{}", &LINE[..100]).unwrap();
        assert_eq!(log.all().unwrap().len(), 3);
        let writes = log.writes_since(mark, |event| event.user_agent.starts_with("operator/")).unwrap();
        assert_eq!(writes.len(), 1);
        assert_eq!((writes[0].object_ref.resource.as_str(), writes[0].response_status.code), ("secrets", 201));
        assert!(log.writes_since(mark, |event| event.user.username == "nobody").unwrap().is_empty());
    }
}
