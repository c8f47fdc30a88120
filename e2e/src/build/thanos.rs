//! The query frontend of Thanos, which benchmarks compare ours with: the cache in front of Prometheus that most people know.
//!
//! Its program cannot be installed by name, because its module replaces other modules: so it is built in a copy.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::go::{build_once, compiler, copy, download};
use crate::paths;

/// The newest release that the Go in use can build.
pub const VERSION: &str = "v0.42.0";
const SUM: &str = "h1:9d+cAEq/lCuhQY6VK3FzxFmXhE/1Qy0Gv45xSYn1EAM=";

const MODULE: &str = "github.com/thanos-io/thanos";
const PROGRAM: &str = "thanos";
/// Its code holds labels as Prometheus did before: without this it panics at the first answer.
const TAGS: &str = "-tags=slicelabels";

/// The program, built unless it is there (some minutes, once).
pub fn ensure() -> Result<PathBuf> {
    let key = blake3::hash(format!("{VERSION}{TAGS}{}", compiler()?).as_bytes()).to_hex();
    let folder = paths::cache_dir()?.join("tools").join(format!("thanos-{}", &key[..16]));
    let program = folder.join(PROGRAM);
    if !program.is_file() {
        build_once(PROGRAM, &folder, &[PROGRAM], compile)?;
    }
    Ok(program)
}

fn compile(output: &Path) -> Result<()> {
    let source = tempfile::Builder::new().prefix("thanos-source-").tempdir()?;
    copy(&download(MODULE, VERSION, SUM)?.join("."), source.path())?;
    let built = Command::new("go")
        .args(["build", "-trimpath", "-buildvcs=false", TAGS, "-ldflags=-s -w"])
        .arg(format!("-o={}/", output.display()))
        .arg("./cmd/thanos")
        .current_dir(source.path())
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .status()
        .context("starting go: install Go")?;
    ensure!(built.success(), "go build of {MODULE} {VERSION} failed ({built}); its messages are above");
    Ok(())
}
