//! The UI and the plugins that build.rs put into the binary.

use std::collections::HashMap;

use bytes::Bytes;

use super::asset::Asset;

/// Answer of `GET /api/v1/plugins` for the plugins in the binary.
pub(super) const PLUGINS: &str = include_str!(concat!(env!("OUT_DIR"), "/plugins.json"));

static BLOB: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/assets.bin"));

/// Where a file is in the blob, as start and end. What compresses is there only in its compressed forms.
struct Entry {
    path: &'static str,
    etag: &'static str,
    identity: Option<(usize, usize)>,
    gzip: Option<(usize, usize)>,
    brotli: Option<(usize, usize)>,
}

#[expect(clippy::unreadable_literal, reason = "offsets, written by build.rs")]
mod table {
    use super::Entry;
    include!(concat!(env!("OUT_DIR"), "/assets.rs"));
}
use table::TABLE;

impl Entry {
    fn asset(&self) -> Asset {
        let bytes = |range: Option<(usize, usize)>| range.map(|(start, end)| Bytes::from_static(&BLOB[start..end]));
        Asset {
            tag: self.etag.to_owned(),
            identity: bytes(self.identity),
            gzip: bytes(self.gzip),
            brotli: bytes(self.brotli),
        }
    }
}

/// The embedded file of that name.
pub(super) fn lookup(name: &str) -> Option<Asset> {
    let index = TABLE.binary_search_by_key(&name, |entry| entry.path).ok()?;
    Some(TABLE[index].asset())
}

/// The files that name an absolute path, with `prefix` before it.
pub(super) fn with_prefix(prefix: &str) -> HashMap<String, Asset> {
    let paths = TABLE.iter().map(|entry| entry.path);
    paths.filter_map(|path| Some((path.to_owned(), prefixed(path, &lookup(path)?, prefix)?))).collect()
}

fn prefixed(path: &str, asset: &Asset, prefix: &str) -> Option<Asset> {
    let content = asset.content();
    let text = std::str::from_utf8(&content).ok();
    let changed = if path == "index.html" {
        text?.replace("<base href=\"/\"", &format!("<base href=\"{prefix}/\""))
    } else if super::plugins::names_its_path(path) {
        super::plugins::move_under(text?, prefix)
    } else {
        return None;
    };
    Some(Asset::compressed(path, changed.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::negotiate::gunzip;
    use crate::ui::asset::tag_of;

    #[test]
    fn the_table_is_sorted_and_every_gzip_decodes_to_what_its_tag_says() {
        assert!(TABLE.is_sorted_by(|a, b| a.path < b.path));
        for entry in TABLE {
            let asset = entry.asset();
            let plain = asset.identity.clone().unwrap_or_else(|| gunzip(asset.gzip.as_ref().unwrap()).unwrap().into());
            assert_eq!(tag_of(&plain), asset.tag, "{}", entry.path);
        }
    }
}
