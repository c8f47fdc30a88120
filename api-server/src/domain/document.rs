//! Documents of the Perses API: envelope, metadata and the spec as it was sent.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::kind::Kind;

/// What identifies a resource: kind, project (of project-scoped kinds) and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The kind.
    pub kind: Kind,
    /// The project, for project-scoped kinds only.
    pub project: Option<String>,
    /// `metadata.name`.
    pub name: String,
}

impl Key {
    /// A key of a project-scoped resource.
    pub fn in_project(kind: Kind, project: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, project: Some(project.into()), name: name.into() }
    }

    /// A key of a global resource, or of a project.
    pub fn global(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, project: None, name: name.into() }
    }

    /// `project/name` or `name`, for messages and cache keys (neither part may contain a slash).
    pub fn path(&self) -> String {
        self.project.as_ref().map_or_else(|| self.name.clone(), |project| format!("{project}/{}", self.name))
    }
}

/// Who wrote a document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// A client of the API.
    #[default]
    Api,
    /// A provisioning folder.
    Provisioned,
    /// The administrator of the server, who has put the document into the folder of the file store (or moved there what
    /// Perses wrote).
    Administrator,
}

impl Origin {
    /// The text in the store.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Provisioned => "provisioned",
            Self::Administrator => "administrator",
        }
    }

    /// Reads the text in the store; what is not known counts as written through the API.
    pub fn parse(text: &str) -> Self {
        match text {
            "provisioned" => Self::Provisioned,
            "administrator" => Self::Administrator,
            _ => Self::Api,
        }
    }

    /// Whether a secret may name any file of the server: whoever wrote it can read those anyway.
    pub const fn may_name_files(&self) -> bool {
        matches!(self, Self::Provisioned | Self::Administrator)
    }
}

/// The JSON text of a spec, shared, so that a list copies none. It was checked when it came in, and is not again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec(Arc<str>);

impl Spec {
    /// A spec that the store has kept.
    pub fn stored(text: String) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn get(&self) -> &str {
        &self.0
    }

    /// For what takes checked JSON; checks it once more. `null` when it is none, which no writer lets in.
    pub fn raw(&self) -> &RawValue {
        serde_json::from_str(&self.0).unwrap_or(RawValue::NULL)
    }
}

impl From<Box<RawValue>> for Spec {
    fn from(spec: Box<RawValue>) -> Self {
        Self(Box::<str>::from(spec).into())
    }
}

/// A document as a writer gives it: the store adds times and versions.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Where it belongs.
    pub key: Key,
    /// `metadata.tags`, unique, in the order sent.
    pub tags: Vec<String>,
    /// `spec` as sent (JSON text); secrets in it are already encrypted.
    pub spec: Box<RawValue>,
    /// Who writes it.
    pub origin: Origin,
}

/// A document as the store keeps it.
#[derive(Debug, Clone)]
pub struct Document {
    /// Where it belongs.
    pub key: Key,
    /// When it was created; microseconds are kept.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// `metadata.version`: 0 when created, one more with every update.
    pub version: u64,
    /// `metadata.tags`.
    pub tags: Vec<String>,
    /// `spec` as sent.
    pub spec: Spec,
    /// Who wrote it last.
    pub origin: Origin,
    /// Rises with every write of this key, also across delete and create; what caches compare. Never leaves the server.
    pub revision: i64,
}

impl Document {
    /// The body of a GET: one line of JSON with a final newline, as upstream sends it.
    pub fn to_body(&self) -> Bytes {
        let mut body = String::with_capacity(self.spec.get().len() + 256);
        self.write_json(&mut body, Some(self.spec.get()));
        body.push('\n');
        Bytes::from(body)
    }

    /// Appends the document as JSON; without a spec it is written as `{}` (`metadata_only`).
    pub fn write_json(&self, out: &mut String, spec: Option<&str>) {
        let _ = write!(out, r#"{{"kind":"{}","metadata":"#, self.key.kind);
        self.write_metadata(out);
        let _ = write!(out, r#","spec":{}}}"#, spec.unwrap_or("{}"));
    }

    /// Appends `metadata` as JSON.
    pub fn write_metadata(&self, out: &mut String) {
        let _ = write!(
            out,
            r#"{{"name":{},"createdAt":"{}","updatedAt":"{}","version":{}"#,
            json_string(&self.key.name),
            self.created_at,
            self.updated_at,
            self.version
        );
        if !self.tags.is_empty() {
            let tags: Vec<String> = self.tags.iter().map(|tag| json_string(tag)).collect();
            let _ = write!(out, r#","tags":[{}]"#, tags.join(","));
        }
        if let Some(project) = &self.key.project {
            let _ = write!(out, r#","project":{}"#, json_string(project));
        }
        out.push('}');
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The envelope of a request body. Fields that the server sets (times, version) are read and ignored.
#[derive(Debug, Deserialize)]
pub struct Envelope {
    /// `kind`, any letter case; empty is taken for the kind of the path.
    #[serde(default)]
    pub kind: String,
    /// `metadata`.
    #[serde(default)]
    pub metadata: EnvelopeMetadata,
    /// `spec` as sent.
    pub spec: Option<Box<RawValue>>,
}

/// The part of `metadata` that a client decides.
#[derive(Debug, Default, Deserialize)]
pub struct EnvelopeMetadata {
    /// `name`; may be empty when the path gives it.
    #[serde(default)]
    pub name: String,
    /// `project`; may be empty when the path gives it.
    #[serde(default)]
    pub project: String,
    /// `tags`.
    #[serde(default)]
    pub tags: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_the_envelope_around_the_spec_as_sent() {
        let document = Document {
            key: Key::in_project(Kind::Dashboard, "demo", "cpu"),
            created_at: "2026-01-02T03:04:05.678901Z".parse().unwrap(),
            updated_at: "2026-01-02T03:04:06Z".parse().unwrap(),
            version: 3,
            tags: vec!["a\"b".to_owned()],
            spec: RawValue::from_string(r#"{"duration": "1h",  "z":1}"#.to_owned()).unwrap().into(),
            origin: Origin::Api,
            revision: 9,
        };
        assert_eq!(
            document.to_body(),
            concat!(
                r#"{"kind":"Dashboard","metadata":{"name":"cpu","createdAt":"2026-01-02T03:04:05.678901Z","#,
                r#""updatedAt":"2026-01-02T03:04:06Z","version":3,"tags":["a\"b"],"project":"demo"},"#,
                r#""spec":{"duration": "1h",  "z":1}}"#,
                "\n"
            )
        );
    }
}
