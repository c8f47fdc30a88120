//! A Debian root file system with PostgreSQL, PgBouncer, Redis and Prometheus, built once and cached.
//!
//! The same root is the content of the services image, so tests run exactly the programs that the demo runs. It is
//! needed because the host may carry other versions (or none) of these programs.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

use crate::{paths, services::mirror};

/// The Debian release of the root.
const SUITE: &str = "trixie";

/// What the services need; everything else comes as a dependency.
const PACKAGES: &[&str] = &["ca-certificates", "pgbouncer", "postgresql-17", "prometheus", "redis-server"];

/// What a root is made of.
#[derive(Debug, Clone, Copy)]
struct Recipe {
    packages: &'static [&'static str],
    /// Runs at the end.
    finish: &'static str,
}

const SERVICES: Recipe = Recipe { packages: PACKAGES, finish: FINISH };

/// What only the tests of the import from MySQL need: a root of its own, so that it is not in the image.
const MARIADB: Recipe = Recipe {
    packages: &["mariadb-server"],
    finish: r#"set -eu
rm -rf "$1"/var/cache/* "$1"/var/log/* "$1"/var/lib/apt/lists/* "$1"/var/lib/mysql/*
mkdir -p "$1/data"
chown 999:999 "$1/data"
"#,
};

/// The exporter beside Redis, likewise.
const EXPORTERS: Recipe = Recipe {
    packages: &["prometheus-redis-exporter"],
    finish: r#"set -eu
rm -rf "$1"/var/cache/* "$1"/var/log/* "$1"/var/lib/apt/lists/*
mkdir -p "$1/data"
chown 999:999 "$1/data"
"#,
};

/// User and group `postgres` of the root, the only user that services run as.
pub const UID: u32 = 999;

/// The search path for programs inside the root and in the image made from it.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/17/bin";

/// Left out of the root: text for people, other languages, sources of locales, and PostgreSQL's optional JIT, which
/// weighs more than PostgreSQL itself. PostgreSQL runs without JIT when the module is not there.
const EXCLUDED: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/locale/*/*",
    "/usr/share/i18n/*",
    "/usr/share/javascript/*",
    "/usr/share/nodejs/*",
    "/usr/lib/*/libLLVM*",
    "/usr/lib/*/libz3*",
    "/usr/lib/postgresql/*/lib/llvmjit*",
    "/usr/lib/postgresql/*/lib/bitcode/*",
];

/// Runs before the packages are configured: a fixed uid for `postgres`, and no cluster made by the packages.
const PREPARE: &str = r#"set -eu
echo 'postgres:x:999:' >>"$1/etc/group"
echo 'postgres:x:999:999:PostgreSQL:/var/lib/postgresql:/bin/sh' >>"$1/etc/passwd"
mkdir -p "$1/etc/postgresql-common"
echo 'create_main_cluster = false' >"$1/etc/postgresql-common/createcluster.conf"
"#;

/// Runs at the end: what only an installation needs goes, and the mount points of the test harness are made.
const FINISH: &str = r#"set -eu
rm -rf "$1"/var/cache/* "$1"/var/log/* "$1"/var/lib/apt/lists/* "$1"/var/lib/postgresql/* "$1"/usr/lib/*/perl/*/CORE
mkdir -p "$1/data"
chown 999:999 "$1/data" "$1/var/lib/postgresql"
"#;

/// The unpacked root, made when it is not there yet. Needs root and `mmdebstrap`; the first call downloads about 100 MB.
///
/// Several processes may call this at once: one builds, the others wait. Blocks, so call it from
/// [`tokio::task::spawn_blocking`] inside a runtime.
pub fn ensure() -> Result<PathBuf> {
    Ok(ensure_folder(SERVICES)?.join("root"))
}

/// As [`ensure`], with MariaDB only.
pub(super) fn ensure_mariadb() -> Result<PathBuf> {
    Ok(ensure_folder(MARIADB)?.join("root"))
}

/// As [`ensure`], with exporters only.
pub(super) fn ensure_exporters() -> Result<PathBuf> {
    Ok(ensure_folder(EXPORTERS)?.join("root"))
}

/// The same root as one uncompressed tar archive: the layer of the services image.
pub fn ensure_tar() -> Result<PathBuf> {
    Ok(ensure_folder(SERVICES)?.join("root.tar"))
}

/// Names the recipe: changes whenever what is built would change, so caches and image tags can use it.
pub fn key() -> String {
    key_of(SERVICES)
}

fn key_of(recipe: Recipe) -> String {
    let mut hash = Sha256::new();
    for part in [[SUITE, std::env::consts::ARCH, PREPARE, recipe.finish].as_slice(), recipe.packages, EXCLUDED].concat()
    {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

fn ensure_folder(recipe: Recipe) -> Result<PathBuf> {
    let cache = paths::cache_dir()?;
    let folder = cache.join(format!("services-{}", key_of(recipe)));
    // The rename at the end of `build` is atomic, so an existing folder is a complete one and needs no lock.
    if folder.is_dir() {
        return Ok(folder);
    }
    let _lock = lock(&cache.join("services.lock"))?;
    if !folder.is_dir() {
        build(&cache, &folder, recipe)?;
    }
    Ok(folder)
}

/// Holds the lock until the file is closed, which the kernel also does for a killed process.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("create the lock {}", path.display()))?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        note("waiting for another process that builds the root of the test services");
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .with_context(|| format!("wait for the lock {}", path.display()))?;
    }
    Ok(file)
}

fn build(cache: &Path, folder: &Path, recipe: Recipe) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the root of the test services cannot be built as an ordinary user: run as root (mmdebstrap and chroot need it)"
    );
    let mirror = mirror::find()?;
    let started = Instant::now();
    note(&format!("building the Debian {SUITE} root of the test services (once; 0.5 to 3 minutes)"));

    let scratch = tempfile::Builder::new().prefix(".services-").tempdir_in(cache).context("create a scratch folder")?;
    let tar = scratch.path().join("root.tar");
    let log_path = scratch.path().join("log");
    let log = File::create(&log_path).context("create the log of mmdebstrap")?;
    let apt_options = mirror::apt_options();
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--mode=root", "--variant=essential", "--format=tar"])
        .arg(format!("--include={}", recipe.packages.join(",")))
        .args(EXCLUDED.iter().map(|pattern| format!("--dpkgopt=path-exclude={pattern}")))
        .args(apt_options.iter().map(|option| format!("--aptopt={option}")))
        .arg(format!("--essential-hook={PREPARE}"))
        .arg(format!("--customize-hook={}", recipe.finish))
        .arg(SUITE)
        .arg(&tar)
        .arg(&mirror)
        // Files get no newer time than this: the same packages give the same archive.
        .env("SOURCE_DATE_EPOCH", "1735689600")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("share the log of mmdebstrap")?)
        .stderr(log);
    let status = command.status().context(
        "run mmdebstrap, which builds the root of the test services; install it (Debian package mmdebstrap)",
    )?;
    if !status.success() {
        let text = fs::read_to_string(&log_path).unwrap_or_default();
        let tail = text.lines().rev().take(15).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
        bail!("mmdebstrap could not build the root of the test services ({status}); the end of its log:\n{tail}");
    }

    let root = scratch.path().join("root");
    fs::create_dir(&root).context("create the folder of the root")?;
    let status = Command::new("tar")
        .args(["--extract", "--numeric-owner", "--preserve-permissions", "--exclude=./dev/*"])
        .arg("--file")
        .arg(&tar)
        .arg("--directory")
        .arg(&root)
        .status()
        .context("run tar")?;
    ensure!(status.success(), "tar could not unpack {} ({status})", tar.display());

    // `tempdir` makes the folder private; the services run as another user and have to reach the root in it.
    let complete = scratch.keep();
    rustix::fs::chmod(&complete, rustix::fs::Mode::from_raw_mode(0o755)).context("open the folder of the root")?;
    fs::rename(&complete, folder).with_context(|| format!("move {} to {}", complete.display(), folder.display()))?;
    note(&format!("the root of the test services is ready after {} s", started.elapsed().as_secs()));
    Ok(())
}

/// Progress for people: on the real standard error, also when a test runner captures `eprintln`.
fn note(text: &str) {
    _ = writeln!(std::io::stderr(), "services: {text}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn key_is_short_and_stable_within_a_build() {
        let key = super::key();
        assert_eq!(key.len(), 16);
        assert_eq!(key, super::key());
    }
}
