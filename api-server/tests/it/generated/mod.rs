//! Committed files that are generated from the code; `UPDATE=1` writes them.

mod configuration;
mod errors;
mod metrics;
mod openapi;

use std::path::PathBuf;

/// Folder of the workspace.
fn workspace() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Compares a generated file of the workspace, or writes it.
#[track_caller]
fn check(path: &str, text: &str) {
    let file = workspace().join(path);
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
    }
    let recorded = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = recorded.lines().zip(text.lines()).enumerate().find(|(_, (old, new))| old != new);
    assert!(recorded == text, "{path} is not what the code says (first difference: {differs:?}): run `make generate`");
}

/// A text as a cell of a table: one line, no bar.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
