//! The text of a document in a file: the whole envelope as JSON or YAML, as upstream writes it.

use std::fmt;

use jiff::Timestamp;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::config::FileExtension;
use crate::domain::document::{Document, Origin};
use crate::domain::kind::Kind;

/// A document as it stands in a file; what a hand-made file leaves out is `None`.
#[derive(Debug, Deserialize)]
pub(super) struct Stored {
    /// `kind`, any letter case.
    pub(super) kind: String,
    /// `metadata`.
    #[serde(default)]
    pub(super) metadata: Metadata,
    /// `spec`.
    #[serde(default)]
    pub(super) spec: Option<Box<RawValue>>,
}

/// `metadata` of a stored document.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) project: String,
    #[serde(default)]
    pub(crate) created_at: Option<Timestamp>,
    #[serde(default)]
    pub(crate) updated_at: Option<Timestamp>,
    #[serde(default)]
    pub(crate) version: u64,
    #[serde(default)]
    pub(crate) tags: Option<Vec<String>>,
    /// Ours, where it matters: who wrote the document ([`Origin`]). Perses ignores it.
    #[serde(default)]
    pub(crate) origin: Option<String>,
}

impl Metadata {
    /// Who wrote the document. A file without our mark was put there by whoever has access to the folder.
    pub(super) fn written_by(&self) -> Origin {
        self.origin.as_deref().map_or(Origin::Administrator, Origin::parse)
    }
}

/// Whether the files of this kind say who wrote them: what a secret may name depends on it, also after a restart.
pub(super) const fn keeps_origin(kind: Kind) -> bool {
    matches!(kind, Kind::Secret | Kind::GlobalSecret)
}

/// Reads a file's text. JSON in a YAML file is fine: JSON is YAML, and reading it as JSON keeps `spec` to the byte.
pub(super) fn decode(text: &str, extension: FileExtension) -> Result<Stored, String> {
    let is_json = extension == FileExtension::Json || text.trim_start().starts_with('{');
    if is_json {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    let node = parse_yaml(text)?;
    let json = serde_json::to_string(&node).map_err(|error| error.to_string())?;
    serde_json::from_str(&json).map_err(|error| error.to_string())
}

/// Writes a document. YAML that would not read back as the same document (duplicate keys, numbers beyond 64 bits, deep
/// nesting) is written as JSON, which is YAML too.
pub(super) fn encode(document: &Document, extension: FileExtension) -> String {
    let mut json = String::with_capacity(document.spec.get().len() + 512);
    document.write_json(&mut json, Some(document.spec.get()));
    json.push('\n');
    // What came from a provisioning folder is known as such after a restart.
    let keeps = document.origin == Origin::Provisioned || keeps_origin(document.key.kind);
    if keeps && document.origin != Origin::Administrator {
        // The first place of this text is the document's own metadata: only its kind stands before it.
        let mark = format!(r#""metadata":{{"origin":"{}","#, document.origin.as_str());
        json = json.replacen(r#""metadata":{"#, &mark, 1);
    }
    match extension {
        FileExtension::Json => json,
        FileExtension::Yaml => to_yaml(&json).unwrap_or(json),
    }
}

/// Deepest nesting that is written as YAML; far more than documents have, and little enough for a thread's stack.
const WRITTEN_DEPTH: usize = 40;
/// Deepest nesting that is read.
const READ_DEPTH: usize = 64;

fn to_yaml(json: &str) -> Option<String> {
    let node: Node = serde_json::from_str(json).ok()?;
    if node.depth() > WRITTEN_DEPTH {
        return None;
    }
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let yaml = serde_saphyr::to_string_with_options(&node, options).ok()?;
    (parse_yaml(&yaml).ok()? == node).then_some(yaml)
}

fn parse_yaml(text: &str) -> Result<Node, String> {
    let options = serde_saphyr::options! {
        // Several times the largest request body that the server takes by default.
        budget: serde_saphyr::budget! { max_depth: READ_DEPTH, max_nodes: 4_000_000, max_events: 8_000_000 },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())
}

/// A tree of plain data that keeps the order of keys.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
}

impl Node {
    fn depth(&self) -> usize {
        match self {
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
            Self::Map(entries) => 1 + entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Unsigned(value) => serializer.serialize_u64(*value),
            Self::Signed(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain data")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(u64::try_from(value).map_or(Node::Signed(value), Node::Unsigned))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = access.next_entry::<String, Node>()? {
            entries.push((key, value));
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::document::Key;

    fn document(spec: &str) -> Document {
        Document {
            key: Key::in_project(Kind::Dashboard, "p", "d"),
            created_at: "2026-01-02T03:04:05.678901Z".parse().unwrap(),
            updated_at: "2026-01-02T03:04:06Z".parse().unwrap(),
            version: 7,
            tags: vec!["no".to_owned(), "1.5".to_owned()],
            spec: RawValue::from_string(spec.to_owned()).unwrap().into(),
            origin: Origin::Api,
            revision: 1,
        }
    }

    /// Specs whose YAML is easy to get wrong.
    const TRICKY: [&str; 7] = [
        r#"{"z":1,"a":{"on":"off","y":"no","n":null,"t":true,"e":"","s":" ","tilde":"~"}}"#,
        r#"{"text":"line one\nline two\n\n","tab":"\ta","trail":"x ","crlf":"a\r\nb","nul":"\u0000","uni":"é\u2028☃","bom":"\ufeff"}"#,
        r#"{"q":"it's \"quoted\"","colon":"a: b","hash":"a # b","dash":"- x","flow":"{a}","pipe":"|","pct":"%a","at":"@x","amp":"&a *b","bang":"!x"}"#,
        r#"{"numbers":[0,-1,1.5,1e300,-0.0,18446744073709551615,-9223372036854775808,0.1],"like":["0x1F","0o7","1_000","1e3",".inf","2026-01-02","12:30:45","+1","null"]}"#,
        r#"{"empty":{},"list":[],"nested":[[],[[]],[{}],[{"a":[1,{"b":2}]}]]}"#,
        r#"{"":1,"1":2,"true":3,"a b":4,"null":5,"- x":6,"? y":7}"#,
        r#"{"expr":"sum by (instance) (rate(http_requests_total{job=~\"a|b\"}[5m])) > 0 and on (x) very_long_metric_name_that_makes_the_line_longer_than_eighty_characters"}"#,
    ];

    #[test]
    fn yaml_reads_back_as_the_same_data_in_the_same_order() {
        for spec in TRICKY {
            let text = encode(&document(spec), FileExtension::Yaml);
            assert!(text.starts_with("kind:"), "written as YAML proper: {text}");
            let stored = decode(&text, FileExtension::Yaml).unwrap();
            assert_eq!(
                serde_json::from_str::<Node>(stored.spec.unwrap().get()).unwrap(),
                serde_json::from_str::<Node>(spec).unwrap()
            );
            assert_eq!(stored.metadata.tags.unwrap(), ["no", "1.5"]);
            assert_eq!(stored.metadata.version, 7);
            assert_eq!(stored.metadata.created_at, Some("2026-01-02T03:04:05.678901Z".parse().unwrap()));
        }
    }

    #[test]
    fn what_yaml_cannot_hold_is_kept_as_json_to_the_byte() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(120), "}".repeat(120));
        for spec in [r#"{"a":1,"a":2}"#, r#"{"big":1e999}"#, &deep] {
            let text = encode(&document(spec), FileExtension::Yaml);
            assert_eq!(decode(&text, FileExtension::Yaml).unwrap().spec.unwrap().get(), spec);
        }
    }

    #[test]
    fn nesting_is_bounded_before_the_stack_is() {
        let nested = |depth: usize| format!("kind: Dashboard\nspec: {}{}\n", "{a: ".repeat(depth), "}".repeat(depth));
        assert!(decode(&nested(READ_DEPTH - 4), FileExtension::Yaml).is_ok());
        assert!(decode(&nested(10_000), FileExtension::Yaml).is_err());
        assert!(decode(&format!("kind: x\nspec: {}", "[".repeat(100_000)), FileExtension::Yaml).is_err());
        let widest = format!("{}1{}", r#"{"a":"#.repeat(WRITTEN_DEPTH - 3), "}".repeat(WRITTEN_DEPTH - 3));
        assert!(encode(&document(&widest), FileExtension::Yaml).starts_with("kind:"));
    }

    #[test]
    fn json_keeps_the_spec_to_the_byte() {
        let spec = r#"{"b": 1.0,  "a":[ 1e2 ]}"#;
        let text = encode(&document(spec), FileExtension::Json);
        assert_eq!(decode(&text, FileExtension::Json).unwrap().spec.unwrap().get(), spec);
    }

    #[test]
    fn secrets_say_who_wrote_them() {
        for (kind, origin, read) in [
            (Kind::GlobalSecret, Origin::Api, Origin::Api),
            (Kind::GlobalSecret, Origin::Provisioned, Origin::Provisioned),
            (Kind::GlobalSecret, Origin::Administrator, Origin::Administrator),
            (Kind::GlobalDatasource, Origin::Api, Origin::Administrator),
        ] {
            let secret = Document { key: Key::global(kind, "s"), origin, ..document(r#"{"metadata":{"a":1}}"#) };
            for extension in [FileExtension::Json, FileExtension::Yaml] {
                let stored = decode(&encode(&secret, extension), extension).unwrap();
                assert_eq!(stored.metadata.written_by(), read, "{kind}");
                assert_eq!(stored.spec.unwrap().get(), secret.spec.get());
            }
        }
    }

    #[test]
    fn reads_what_upstream_writes() {
        let text = "kind: Dashboard\nmetadata:\n    name: d\n    createdAt: 2024-11-05T10:00:00.123456789Z\n    updatedAt: 0001-01-01T00:00:00Z\n    version: 3\n    project: p\nspec:\n    duration: 1h\n    panels:\n        1:\n            kind: Panel\n";
        let stored = decode(text, FileExtension::Yaml).unwrap();
        assert_eq!(stored.metadata.created_at, Some("2024-11-05T10:00:00.123456789Z".parse().unwrap()));
        assert_eq!(stored.spec.unwrap().get(), r#"{"duration":"1h","panels":{"1":{"kind":"Panel"}}}"#);
        assert!(decode("kind: [", FileExtension::Yaml).is_err());
        assert!(decode("{", FileExtension::Json).is_err());
    }
}
