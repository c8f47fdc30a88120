//! Files of the repository that tests read, and with `UPDATE=1` write.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Folder of this crate.
pub(crate) fn crate_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Folder of the workspace.
pub(crate) fn workspace_dir() -> PathBuf {
    crate_dir().parent().expect("workspace").to_owned()
}

/// Whether recorded files are to be written.
pub(crate) fn updating() -> bool {
    std::env::var_os("UPDATE").is_some_and(|v| v == "1")
}

/// A file of this crate.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(crate_dir().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Calls `visit` with every source file of this crate below `folder`, without its tests.
pub(crate) fn sources(folder: &str, visit: &mut impl FnMut(&str, &str)) {
    for entry in fs::read_dir(crate_dir().join(folder)).expect("folder") {
        let name = entry.expect("entry").file_name().into_string().expect("UTF-8");
        let path = format!("{folder}/{name}");
        if crate_dir().join(&path).is_dir() {
            sources(&path, visit);
        } else if Path::new(&name).extension().is_some_and(|end| end == "rs") && name != "tests.rs" {
            let text = read(&path);
            visit(&path, text.split("#[cfg(test)]").next().unwrap_or_default());
        }
    }
}

/// Compares a generated file of the workspace, or writes it.
pub(crate) fn generated(path: &str, command: &str, text: &str) {
    let file = workspace_dir().join(path);
    if updating() {
        fs::create_dir_all(file.parent().expect("folder")).expect("folder");
        fs::write(&file, text).expect("write");
    }
    let recorded = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        recorded == text,
        "{}\n{path} is not what `{command}` prints: run with UPDATE=1",
        difference(&file, &recorded, text)
    );
}

/// The first lines that differ.
pub(crate) fn difference(file: &Path, old: &str, new: &str) -> String {
    let mut out = file.display().to_string();
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let lines = (0..old.len().max(new.len())).filter(|i| old.get(*i) != new.get(*i)).take(10);
    for i in lines {
        let (was, is) = (old.get(i).unwrap_or(&"(end)"), new.get(i).unwrap_or(&"(end)"));
        let _ = write!(out, "\n{:>5} - {was}\n      + {is}", i + 1);
    }
    out
}
