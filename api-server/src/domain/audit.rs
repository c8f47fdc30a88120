//! A record of the audit log, and how records are asked for.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::kind::Kind;

/// Longest text that a record keeps of what a client sent, in bytes.
pub const MAX_TEXT: usize = 256;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// A document was created.
    Create,
    /// A document was replaced.
    Update,
    /// A document was deleted; of a project also everything in it.
    Delete,
    /// Somebody signed in, or tried to.
    SignIn,
    /// A new access token was asked for; only kept when it was refused.
    Refresh,
    /// Anything else that changes something.
    Other,
}

impl Verb {
    const ALL: [Self; 6] = [Self::Create, Self::Update, Self::Delete, Self::SignIn, Self::Refresh, Self::Other];

    /// The word in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::SignIn => "sign-in",
            Self::Refresh => "refresh",
            Self::Other => "other",
        }
    }

    /// Reads the word; what is not known is something else.
    pub fn parse(text: &str) -> Self {
        Self::ALL.into_iter().find(|verb| verb.as_str() == text).unwrap_or(Self::Other)
    }
}

/// One write or sign-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// With `time` the identity of the record; random.
    #[serde(skip)]
    pub id: i64,
    /// When the answer was there; microseconds are kept.
    pub time: Timestamp,
    /// Who: `metadata.name` of the user, `(provisioning)` and the like for the server itself, nobody when not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What was done.
    #[serde(serialize_with = "word")]
    pub verb: Verb,
    /// To what: the kind, where there is one.
    #[serde(serialize_with = "kind", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Its project.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Its name; of what is no document the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `metadata.version` that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// HTTP status of the answer; 499 when the client left before it (the write may have happened).
    pub status: u16,
    /// Address of the client: the other end of the connection, or what a trusted proxy says (`server.trusted_proxies`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// `X-Forwarded-For` as it came, which may be a lie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forwarded_for: Option<String>,
    /// `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// `X-Request-Id` of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

// serde hands fields over by reference.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
fn word<S: Serializer>(verb: &Verb, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(verb.as_str())
}

#[allow(clippy::trivially_copy_pass_by_ref, clippy::ref_option, reason = "the signature is serde's")]
fn kind<S: Serializer>(kind: &Option<Kind>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.map_or("", Kind::as_str))
}

/// A text of a client as a record keeps it: short, and without NUL, which PostgreSQL takes in no text.
pub fn capped(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace('\0', "")
}

/// A place in the log: records come newest first, the next page begins below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Time of the last record of the page, in microseconds since the epoch.
    pub micros: i64,
    /// Its `id`.
    pub id: i64,
}

impl Cursor {
    /// The place of a record.
    pub fn of(record: &Record) -> Self {
        Self { micros: record.time.as_microsecond(), id: record.id }
    }

    /// Reads what [`Self::to_string`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (micros, id) = text.split_once('.')?;
        Some(Self { micros: micros.parse().ok()?, id: id.parse().ok()? })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.micros, self.id)
    }
}

/// Which records to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only of this user.
    pub user: Option<String>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only in this project.
    pub project: Option<String>,
    /// Only of this name.
    pub name: Option<String>,
    /// From this time on, itself included.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub to: Option<Timestamp>,
    /// Only older than this place.
    pub before: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

impl Query {
    /// Whether a record is asked for.
    pub fn matches(&self, record: &Record) -> bool {
        let is = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        is(&self.user, &record.user)
            && is(&self.project, &record.project)
            && is(&self.name, &record.name)
            && (self.kind.is_none() || self.kind == record.kind)
            && self.from.is_none_or(|from| record.time >= from)
            && self.to.is_none_or(|to| record.time < to)
            && self.before.is_none_or(|before| Cursor::of(record) < before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_clients_are_cut_between_characters() {
        assert_eq!(capped("a\0b"), "ab");
        let long = "ä".repeat(MAX_TEXT);
        assert_eq!(capped(&long).len(), MAX_TEXT);
        assert_eq!(capped(&format!("x{long}")).len(), MAX_TEXT - 1);
    }

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let cursor = Cursor { micros: 1_700_000_000_000_001, id: -5 };
        assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
        for wrong in ["", "1", "1.", "a.b", "1.2.3"] {
            assert_eq!(Cursor::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn verbs_have_one_word_each() {
        for verb in Verb::ALL {
            assert_eq!(Verb::parse(verb.as_str()), verb);
        }
    }
}
