//! Files from folders, read once at start.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use thiserror::Error;

use super::asset::Asset;
use super::content_type;
use crate::negotiate::gunzip;

/// Upstream's word in a built UI for the place of `api_prefix`.
const PLACEHOLDER: &str = "PREFIX_PATH_PLACEHOLDER";
/// A folder given by mistake (`/`) must not fill the memory.
const MAX_BYTES: u64 = 256 << 20;
/// Against symbolic links that lead in a circle.
const MAX_DEPTH: usize = 16;

/// A folder that can't be served.
#[derive(Debug, Error)]
pub enum UiError {
    /// A file or folder can't be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The folder is larger than a web UI can be.
    #[error("{path} holds more than {limit} MiB: is it the folder of a built web UI?", path = path.display(), limit = MAX_BYTES >> 20)]
    TooLarge {
        /// The folder.
        path: PathBuf,
    },
    /// The folder has no `index.html`.
    #[error("{path} has no index.html: give the folder of a built web UI", path = path.display())]
    NoIndex {
        /// The folder.
        path: PathBuf,
    },
}

/// A built UI: every file by its name, with `prefix` in place of upstream's placeholder.
pub(super) fn read_ui(folder: &Path, prefix: &str) -> Result<HashMap<String, Asset>, UiError> {
    let mut files = HashMap::new();
    for (name, content) in read_tree(folder)? {
        let content = match std::str::from_utf8(&content) {
            Ok(text) if content_type::may_hold_prefix(&name) && text.contains(PLACEHOLDER) => {
                text.replace(PLACEHOLDER, prefix).into()
            }
            _ => content,
        };
        let asset = Asset::compressed(&name, content);
        files.insert(name, asset);
    }
    if files.contains_key("index.html") { Ok(files) } else { Err(UiError::NoIndex { path: folder.to_owned() }) }
}

/// All files below a folder with their plain content. A `.gz` stands for the file that it was made from, unless that is
/// there too; `.br` is left out.
pub(super) fn read_tree(root: &Path) -> Result<HashMap<String, Bytes>, UiError> {
    let mut found = Vec::new();
    let mut size = 0;
    list(root, root, 0, &mut size, &mut found)?;
    let mut files = HashMap::new();
    // Plain files last, so that they win.
    found.sort_by_key(|(name, _)| content_type::ending(name) != "gz");
    for (name, path) in found {
        if content_type::ending(&name) == "br" {
            continue;
        }
        let read = |source| UiError::Read { path: path.clone(), source };
        let content = std::fs::read(&path).map_err(read)?;
        match name.strip_suffix(".gz") {
            Some(plain) => files.insert(plain.to_owned(), gunzip(&content).map_err(read)?.into()),
            None => files.insert(name, content.into()),
        };
    }
    Ok(files)
}

fn list(
    root: &Path,
    folder: &Path,
    depth: usize,
    size: &mut u64,
    found: &mut Vec<(String, PathBuf)>,
) -> Result<(), UiError> {
    let read = |path: &Path| {
        let path = path.to_owned();
        |source| UiError::Read { path, source }
    };
    for entry in std::fs::read_dir(folder).map_err(read(folder))? {
        let path = entry.map_err(read(folder))?.path();
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        // Kubernetes keeps the versions of a mounted volume in `..data` and the like.
        if path.file_name().is_some_and(|file| file.to_string_lossy().starts_with("..")) {
            continue;
        }
        // Follows links: mounted files are links.
        let metadata = std::fs::metadata(&path).map_err(read(&path))?;
        if metadata.is_dir() {
            if depth < MAX_DEPTH {
                list(root, &path, depth + 1, size, found)?;
            }
        } else if metadata.is_file() {
            *size += metadata.len();
            if *size > MAX_BYTES {
                return Err(UiError::TooLarge { path: root.to_owned() });
            }
            found.push((name, path));
        }
    }
    Ok(())
}
