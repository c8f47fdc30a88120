//! Documents as clients get them: secrets masked, one or a list. Pure.

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use super::resources::ListOptions;
use crate::cache::Encoded;
use crate::domain::document::Document;
use crate::domain::secret;

/// The body of a GET, and its validators.
pub(super) fn body(document: &Document) -> Encoded {
    let body = match public_spec(document) {
        None => document.to_body(),
        Some(spec) => Document { spec: spec.into(), ..document.clone() }.to_body(),
    };
    Encoded::new(body, document.version, document.revision)
}

/// The masked spec of kinds that hold secrets; `None` for the others.
fn public_spec(document: &Document) -> Option<Box<RawValue>> {
    document.key.kind.holds_secrets().then(|| secret::mask(document.key.kind, document.spec.raw()))
}

/// Kind of the plugin and `spec.default` of a datasource.
pub(super) fn plugin_and_default(spec: &str) -> Option<(String, bool)> {
    let spec: Value = serde_json::from_str(spec).ok()?;
    let plugin = spec.pointer("/plugin/kind")?.as_str()?.to_owned();
    Some((plugin, spec.get("default").and_then(Value::as_bool).unwrap_or(false)))
}

fn fits(document: &Document, options: &ListOptions) -> bool {
    plugin_and_default(document.spec.get()).is_some_and(|(plugin, default)| {
        options.plugin_kind.as_ref().is_none_or(|wanted| *wanted == plugin)
            && options.default.is_none_or(|wanted| wanted == default)
    })
}

/// Bytes of a piece of a list, at least.
const PIECE: usize = 128 << 10;

/// A list as one JSON array, made a piece at a time: a whole one may have tens of megabytes.
#[derive(Debug)]
pub struct List {
    documents: std::vec::IntoIter<Document>,
    with_spec: bool,
    state: ListState,
}

#[derive(Debug, PartialEq, Eq)]
enum ListState {
    Start,
    Middle,
    End,
}

impl List {
    /// Of these documents, those that the options want.
    pub(super) fn new(mut documents: Vec<Document>, options: &ListOptions) -> Self {
        if options.by_spec() {
            documents.retain(|document| fits(document, options));
        }
        let with_spec = !options.metadata_only || options.titles;
        Self { documents: documents.into_iter(), with_spec, state: ListState::Start }
    }

    /// About how many bytes are still to come.
    pub fn length(&self) -> usize {
        let spec = |document: &Document| if self.with_spec { document.spec.get().len() } else { 2 };
        self.documents.as_slice().iter().map(|document| spec(document) + 256).sum()
    }

    /// All pieces in one.
    pub fn whole(self) -> Bytes {
        let mut whole = bytes::BytesMut::with_capacity(self.length());
        self.for_each(|piece| whole.extend_from_slice(&piece));
        whole.freeze()
    }
}

impl Iterator for List {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.state == ListState::End {
            return None;
        }
        let mut out = String::with_capacity(self.length().min(2 * PIECE));
        while out.len() < PIECE {
            let Some(document) = self.documents.next() else {
                out.push_str(if self.state == ListState::Start { "[]\n" } else { "]\n" });
                self.state = ListState::End;
                break;
            };
            out.push(if self.state == ListState::Start { '[' } else { ',' });
            self.state = ListState::Middle;
            let public = if self.with_spec { public_spec(&document) } else { None };
            let spec = public.as_ref().map_or(document.spec.get(), |spec| spec.get());
            document.write_json(&mut out, self.with_spec.then_some(spec));
        }
        Some(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::document::{Key, Origin, Spec};
    use crate::domain::kind::Kind;

    fn documents(count: usize, size: usize) -> Vec<Document> {
        let document = |index: usize| Document {
            key: Key::in_project(Kind::Dashboard, "p", format!("d{index}")),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            updated_at: jiff::Timestamp::UNIX_EPOCH,
            version: 0,
            tags: Vec::new(),
            spec: Spec::stored(format!(r#"{{"text":"{}"}}"#, "x".repeat(size))),
            origin: Origin::Api,
            revision: 1,
        };
        (0..count).map(document).collect()
    }

    #[test]
    fn the_pieces_of_a_list_are_one_array() {
        for (count, size, pieces) in [(0, 0, 1..=1), (1, 10, 1..=1), (3, 10, 1..=1), (40, 30_000, 5..=11)] {
            for metadata_only in [false, true] {
                let options = ListOptions { metadata_only, ..ListOptions::default() };
                let list = || List::new(documents(count, size), &options);
                let whole: Vec<Value> = serde_json::from_slice(&list().whole()).unwrap();
                assert_eq!(whole.len(), count);
                assert!(whole.iter().all(|one| one["spec"].get("text").is_some() != metadata_only));
                assert!(list().whole().ends_with(b"]\n"));
                if !metadata_only {
                    assert!(pieces.contains(&list().count()), "{count}: {}", list().count());
                }
                assert_eq!(list().collect::<Vec<_>>().concat(), list().whole());
            }
        }
    }
}
