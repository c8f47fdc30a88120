//! The real Perses server (Go), which ours is compared with: by answers in tests, by time in benchmarks.
//!
//! Its module cannot be built in place, because the file that embeds the web UI is made by upstream's own build. So the
//! module is copied out of Go's cache and given a page of one line in place of the UI.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::go::{build_once, compiler, copy, module_folder};
use crate::paths;

/// The version whose wire contract ours follows; that of percli in `e2e/go/percli`.
pub const VERSION: &str = "v0.54.0";

const MODULE: &str = "github.com/perses/perses";
const PROGRAM: &str = "perses";
const EMBED: &str = "package ui\n\nimport \"embed\"\n\n//go:embed app/dist\nvar embedFS embed.FS\n";

/// The program, built unless it is there.
pub fn ensure() -> Result<PathBuf> {
    let key = blake3::hash(format!("{VERSION}{EMBED}{}", compiler()?).as_bytes()).to_hex();
    let folder = paths::cache_dir()?.join("tools").join(format!("perses-{}", &key[..16]));
    let program = folder.join(PROGRAM);
    if !program.is_file() {
        build_once(PROGRAM, &folder, &[PROGRAM], compile)?;
    }
    Ok(program)
}

fn compile(output: &Path) -> Result<()> {
    let (version, module) = module_folder(&paths::workspace_dir().join("e2e/go/percli"), MODULE)?;
    ensure!(version == VERSION, "e2e/go/percli requires {MODULE} {version}, this harness {VERSION}: make them equal");
    let source = tempfile::Builder::new().prefix("perses-source-").tempdir()?;
    copy(&module.join("."), source.path())?;
    let ui = source.path().join("ui");
    std::fs::create_dir_all(ui.join("app/dist")).context("making the folder of the UI")?;
    std::fs::write(ui.join("app/dist/index.html"), "<html></html>\n").context("writing a page for the UI")?;
    std::fs::write(ui.join("embed.go"), EMBED).context("writing ui/embed.go")?;
    let version = VERSION.trim_start_matches('v');
    let built = Command::new("go")
        .args(["build", "-trimpath", "-buildvcs=false"])
        .arg(format!("-ldflags=-s -w -X github.com/prometheus/common/version.Version={version}"))
        .arg(format!("-o={}/", output.display()))
        .arg("./cmd/perses")
        .current_dir(source.path())
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .status()
        .context("starting go: install Go")?;
    ensure!(built.success(), "go build of {MODULE} {VERSION} failed ({built}); its messages are above");
    Ok(())
}
