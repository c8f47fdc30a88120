//! The workspace itself.

use std::collections::BTreeSet;
use std::process::Command;

use e2e::paths::workspace_dir;

/// Every foreign crate with its version and features, as cargo would compile it.
fn crates(edges: &str) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["tree", "--workspace", "--locked", "--edges", edges, "--prefix", "none", "--format", "{p}: {f}"];
    let output = Command::new(cargo).args(arguments).current_dir(workspace_dir()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let root = workspace_dir().to_string_lossy().into_owned();
    let lines = text.lines().map(|line| line.trim_end_matches(" (*)").to_owned());
    lines.filter(|line| !line.is_empty() && !line.contains(&root)).collect()
}

/// With another feature in the tests alone, cargo compiles a crate and everything above it twice: once for the programs in
/// the images, once for the tests.
#[test]
fn tests_use_the_crates_of_the_programs() {
    let (programs, tests) = (crates("normal,build"), crates("normal,build,dev"));
    assert!(programs.len() > 100, "{programs:?}");
    let twice: Vec<_> = programs.difference(&tests).collect();
    assert!(twice.is_empty(), "other features or versions in the tests than in the programs: {twice:#?}");
}
