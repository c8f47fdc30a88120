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

/// A list as one JSON array.
pub(super) fn list(documents: &[Document], options: &ListOptions) -> Bytes {
    let spec_length = |document: &Document| if options.metadata_only { 2 } else { document.spec.get().len() };
    let mut out = String::with_capacity(documents.iter().map(|document| spec_length(document) + 256).sum());
    out.push('[');
    for document in documents.iter().filter(|document| !options.by_spec() || fits(document, options)) {
        if out.len() > 1 {
            out.push(',');
        }
        let public = if options.metadata_only { None } else { public_spec(document) };
        let spec = public.as_ref().map_or(document.spec.get(), |spec| spec.get());
        document.write_json(&mut out, (!options.metadata_only || options.titles).then_some(spec));
    }
    out.push_str("]\n");
    out.into()
}
