//! The images of this project: the two programs, and one with the services that the demo and the tests run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Config, Files, Image, Layer, write_archive};
use crate::paths;
use crate::progress::step;
use crate::services;

/// How the programs are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Optimised: what users run.
    Release,
    /// Quick to compile: what tests run. Debug information is left out of the image.
    Dev,
}

impl Profile {
    fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "debug",
        }
    }
}

/// A program of this workspace that has an image.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Last part of the image's name, and name of its archive.
    pub image: &'static str,
    binary: &'static str,
    entrypoint: &'static [&'static str],
    cmd: &'static [&'static str],
}

/// Both programs.
pub const PROGRAMS: [Program; 2] = [
    Program {
        image: "api-server",
        binary: "perses-api-server",
        entrypoint: &["/usr/bin/perses-api-server", "--web.listen-address=:8080"],
        cmd: &[],
    },
    Program {
        image: "operator",
        binary: "persesstack-operator",
        entrypoint: &["/usr/bin/persesstack-operator"],
        cmd: &["run"],
    },
];

/// Archive of the services image, without its ending.
pub const SERVICES: &str = "services";

/// Where the archives are written when nothing else is said.
pub fn default_folder() -> PathBuf {
    paths::workspace_dir().join("target/images")
}

/// The name of an image of this project in a local cluster.
pub fn name(image: &str) -> String {
    format!("localhost/perses-stack/{image}:dev")
}

/// The name of the server's image as it is one or two releases later (`api-server/examples/later_release.rs`).
pub fn later(releases: usize) -> String {
    format!("localhost/perses-stack/api-server:later-{releases}")
}

/// Compiles both programs and writes all three archives into `folder`. Returns their paths.
pub fn write_all(profile: Profile, folder: &Path) -> Result<Vec<PathBuf>> {
    step(format!("compiling the programs ({})", profile.folder()));
    compile(profile)?;
    let mut archives = Vec::new();
    for program in PROGRAMS {
        let path = folder.join(format!("{}.tar", program.image));
        let built = paths::target_dir().join(profile.folder()).join(program.binary);
        write_archive(&[program_image(program, &built, name(program.image))?], &path)?;
        archives.push(path);
    }
    archives.push(write_services(folder)?);
    for archive in &archives {
        let size = std::fs::metadata(archive)?.len() / 1_000_000;
        step(format!("{} ({size} MB)", archive.display()));
    }
    Ok(archives)
}

/// Writes one archive with the images of the two releases to come of the server, for tests of upgrades.
pub fn write_later(folder: &Path) -> Result<PathBuf> {
    cargo(&["--workspace", "--bins", "--example", LATER])?;
    let built = paths::target_dir().join(Profile::Dev.folder()).join("examples").join(LATER);
    let first = program_image(PROGRAMS[0], &built, later(1))?;
    let mut config = first.config.clone();
    config.env.push("RELEASES_LATER=2".into());
    let second = Image { name: later(2), config, layers: first.layers.clone() };
    let path = folder.join("api-server-later.tar");
    write_archive(&[first, second], &path)?;
    Ok(path)
}

const LATER: &str = "later_release";

fn compile(profile: Profile) -> Result<()> {
    // The whole workspace: with `--package` cargo would choose other features for shared crates and compile them again.
    match profile {
        Profile::Release => cargo(&["--workspace", "--bins", "--release"]),
        Profile::Dev => cargo(&["--workspace", "--bins"]),
    }
}

fn cargo(what: &[&str]) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg("build").args(what).current_dir(paths::workspace_dir());
    let status = cargo.status().context("starting cargo")?;
    if !status.success() {
        bail!("cargo build failed ({status}); its messages are above");
    }
    Ok(())
}

fn program_image(program: Program, built: &Path, name: String) -> Result<Image> {
    // Line tables are several times the size of the code and nobody debugs inside the container.
    let stripped = tempfile::NamedTempFile::new()?.into_temp_path();
    let status = Command::new("strip").arg("--strip-debug").arg("-o").arg(&stripped).arg(built).status();
    if !status.context("starting strip (package binutils)")?.success() {
        bail!("strip could not read {}", built.display());
    }
    let mut files = Files::default();
    files.copy(&stripped, &format!("usr/bin/{}", program.binary), 0o755);
    for library in libraries(&stripped)? {
        files.copy(&library, &library, 0o755);
    }
    base(&mut files);
    let config = Config {
        entrypoint: program.entrypoint.iter().map(ToString::to_string).collect(),
        cmd: program.cmd.iter().map(ToString::to_string).collect(),
        env: vec!["PATH=/usr/bin".into(), "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt".into()],
        user: "65532:65532".into(),
    };
    Ok(Image { name, config, layers: vec![files.finish()?] })
}

/// What a program expects of any system: users, names, certificates, a place for temporary files. No shell.
fn base(files: &mut Files) {
    files
        .text("etc/passwd", "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n")
        .text("etc/group", "root:x:0:\nnonroot:x:65532:\n")
        .text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
        .folder("tmp", 0o1777);
    let certificates = "/etc/ssl/certs/ca-certificates.crt";
    if Path::new(certificates).exists() {
        files.copy(certificates, certificates, 0o644);
    }
}

/// The shared libraries that a program is linked with, the loader included, as `ldd` finds them.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().context("starting ldd (package libc-bin)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.contains("not found") {
        bail!("ldd {}: {}{}", program.display(), text, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(parse_ldd(&text))
}

fn parse_ldd(text: &str) -> Vec<String> {
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    let mut paths: Vec<_> = paths.map(ToOwned::to_owned).collect();
    paths.sort();
    paths
}

/// PostgreSQL, PgBouncer, Redis and Prometheus: written once for each recipe of their root, which takes long to hash.
fn write_services(folder: &Path) -> Result<PathBuf> {
    let path = folder.join(format!("{SERVICES}.tar"));
    let mark = folder.join(format!("{SERVICES}.key"));
    let key = services::root::key();
    if path.exists() && std::fs::read_to_string(&mark).is_ok_and(|kept| kept == key) {
        return Ok(path);
    }
    step("making the root of the services image");
    let layer = Layer::from_tar(&services::root::ensure_tar()?)?;
    let config = Config {
        entrypoint: Vec::new(),
        cmd: vec!["/bin/sh".into()],
        env: vec![format!("PATH={}", services::root::PATH)],
        user: format!("{0}:{0}", services::root::UID),
    };
    write_archive(&[Image { name: name(SERVICES), config, layers: vec![layer] }], &path)?;
    std::fs::write(&mark, key).with_context(|| format!("writing {}", mark.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_libraries_and_the_loader() {
        let text = "\tlinux-vdso.so.1 (0x00007ffe)\n\tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x0)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x0)\n\t/lib64/ld-linux-x86-64.so.2 (0x0)\n";
        assert_eq!(
            parse_ldd(text),
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib64/ld-linux-x86-64.so.2"]
        );
        assert_eq!(parse_ldd("\tstatically linked\n"), Vec::<String>::new());
    }
}
