//! Where the harness keeps things: caches outside the clone, build output inside it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The cache folder shared by all clones: `$XDG_CACHE_HOME/perses-stack`, else `~/.cache/perses-stack`.
///
/// Every entry in it is named after a hash of what it is made from, so a stale entry is never used and the whole
/// folder may be deleted at any time.
pub fn cache_dir() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => std::env::home_dir()
            .context("no cache folder: neither XDG_CACHE_HOME nor HOME is set; set one of them")?
            .join(".cache"),
    };
    let folder = base.join("perses-stack");
    std::fs::create_dir_all(&folder).with_context(|| format!("create the cache folder {}", folder.display()))?;
    Ok(folder)
}

/// The root of the workspace, from where this crate was compiled.
pub fn workspace_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Cargo's output folder: `$CARGO_TARGET_DIR` when set (relative to the workspace, as cargo reads it), else `target`.
pub fn target_dir() -> PathBuf {
    let configured = std::env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty());
    workspace_dir().join(configured.map_or_else(|| PathBuf::from("target"), PathBuf::from))
}
