//! Puts the web UI into the binary: finds or builds `ui/dist` and writes one blob of its files and a table over it.
//!
//! Built UIs are kept outside the clone, keyed by everything that they are built from, so that a second clone or a
//! second target folder does not build again.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use sha2::{Digest, Sha256};

const HELP: &str = "\
Node.js 20.19 or newer with npm is needed to build the web UI. Install it (Debian: apt-get install nodejs npm, or from
https://nodejs.org) and build again, or build the server without its UI: PERSES_UI=none cargo build";

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    for variable in ["PERSES_UI", "PSTACK_CACHE"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot put the web UI into the server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failure> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    match std::env::var("PERSES_UI").as_deref() {
        Ok("none") => return Ok(write_table(&out, &[], None)?),
        Ok(other) if !other.is_empty() => {
            return Err(format!("PERSES_UI is {other:?}; the one value that means anything is \"none\"").into());
        }
        _ => {}
    }
    let ui = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("ui");
    let inputs = input_files(&ui)?;
    for (_, file) in &inputs {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    for folder in ["src", "public"] {
        println!("cargo::rerun-if-changed={}", ui.join(folder).display());
    }
    let key = input_key(&inputs)?;
    let dist = find_or_build(&ui, &inputs, &key, &out)?;
    println!("cargo::rerun-if-changed={}", dist.join("stamp").display());
    Ok(write_table(&out, &assets_of(&dist)?, Some(&fs::read(dist.join("plugins.json"))?))?)
}

// --- what the UI is built from

type Named = (String, PathBuf);

/// All files below `root` with their relative names, sorted by name.
fn files_below(root: &Path, skip: &[&str]) -> io::Result<Vec<Named>> {
    fn walk(root: &Path, folder: &Path, skip: &[&str], found: &mut Vec<Named>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if skip.iter().any(|name| entry.file_name() == *name) {
                continue;
            }
            if kind.is_dir() {
                walk(root, &path, skip, found)?;
            } else if kind.is_file() {
                let name = path.strip_prefix(root).map_err(io::Error::other)?;
                found.push((name.to_string_lossy().replace('\\', "/"), path));
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(root, root, skip, &mut found)?;
    found.sort();
    Ok(found)
}

fn input_files(ui: &Path) -> io::Result<Vec<Named>> {
    files_below(ui, &["node_modules", "dist"])
}

/// The same hash as `stamp` in ui/pack.mjs.
fn input_key(inputs: &[Named]) -> io::Result<String> {
    let mut hash = Sha256::new();
    for (name, file) in inputs {
        let content = fs::read(file)?;
        hash.update(format!("{name}\0{}\0", content.len()));
        hash.update(&content);
    }
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

// --- the built UI

fn is_built(dist: &Path, key: &str) -> bool {
    fs::read_to_string(dist.join("stamp")).is_ok_and(|stamp| stamp == key)
}

fn cache_root(out: &Path) -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("PSTACK_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|path| path.join("perses-stack")))
        .or_else(|| set("HOME").map(|path| path.join(".cache/perses-stack")))
        .unwrap_or_else(|| out.to_owned())
}

fn find_or_build(ui: &Path, inputs: &[Named], key: &str, out: &Path) -> Result<PathBuf, Failure> {
    // Whoever works on the UI runs `npm run dist` in its folder.
    let local = ui.join("dist");
    if is_built(&local, key) {
        return Ok(local);
    }
    let root = cache_root(out);
    let home = root.join(format!("ui-{}", &key[..16]));
    let dist = home.join("dist");
    if is_built(&dist, key) {
        return Ok(dist);
    }
    fs::create_dir_all(&root).map_err(|error| format!("cannot make the cache folder {}: {error}", root.display()))?;
    let lock = File::create(root.join("ui.lock"))?;
    lock.lock()?;
    if is_built(&dist, key) {
        return Ok(dist);
    }
    let began = Instant::now();
    let work = root.join("ui-work");
    remove(&work)?;
    remove(&home)?;
    for (name, file) in inputs {
        let target = work.join(name);
        fs::create_dir_all(target.parent().unwrap_or(&work))?;
        fs::copy(file, target)?;
    }
    check_node()?;
    npm(&work, &["ci"])?;
    npm(&work.join("plugins"), &["ci"])?;
    npm(&work, &["run", "dist"])?;
    if !is_built(&work.join("dist"), key) {
        return Err(format!("the build of the UI in {} left no dist with the stamp {key}", work.display()).into());
    }
    fs::create_dir_all(&home)?;
    fs::rename(work.join("dist"), &dist)?;
    remove(&work)?;
    println!("cargo::warning=built the web UI in {} s; kept in {}", began.elapsed().as_secs(), home.display());
    Ok(dist)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn check_node() -> Result<(), Failure> {
    let output =
        Command::new("node").arg("--version").output().map_err(|error| format!("cannot run node: {error}\n{HELP}"))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut parts = version.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or(0));
    let found: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < (20, 19) {
        return Err(format!("node is {version}\n{HELP}").into());
    }
    Ok(())
}

fn npm(folder: &Path, args: &[&str]) -> Result<(), Failure> {
    let output = Command::new("npm")
        .args(args)
        .current_dir(folder)
        .output()
        .map_err(|error| format!("cannot run npm: {error}\n{HELP}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(40)..].join("\n");
    Err(format!("`npm {}` in {} failed ({}):\n{tail}", args.join(" "), folder.display(), output.status).into())
}

// --- what goes into the binary

struct Asset {
    path: String,
    etag: String,
    identity: Option<PathBuf>,
    gzip: Option<PathBuf>,
    brotli: Option<PathBuf>,
}

/// Files of the app at the root, files of plugins under `plugins/`. Of what compresses only the compressed forms.
fn assets_of(dist: &Path) -> io::Result<Vec<Asset>> {
    let mut assets = Vec::new();
    for (folder, prefix) in [("app", ""), ("plugins", "plugins/")] {
        for (name, file) in files_below(&dist.join(folder), &[])? {
            if matches!(file.extension().and_then(OsStr::to_str), Some("gz" | "br")) {
                continue;
            }
            let beside =
                |ending: &str| Some(PathBuf::from(format!("{}{ending}", file.display()))).filter(|path| path.is_file());
            let (gzip, brotli) = (beside(".gz"), beside(".br"));
            assets.push(Asset {
                path: format!("{prefix}{name}"),
                etag: hex(&Sha256::digest(fs::read(&file)?)[..12]),
                identity: gzip.is_none().then_some(file),
                gzip,
                brotli,
            });
        }
    }
    assets.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(assets)
}

/// Equal content is stored once: plugins carry the same fonts.
#[derive(Default)]
struct Blob {
    bytes: Vec<u8>,
    known: HashMap<Vec<u8>, (usize, usize)>,
}

impl Blob {
    fn add(&mut self, file: Option<&Path>) -> io::Result<String> {
        let Some(file) = file else { return Ok("None".to_owned()) };
        let content = fs::read(file)?;
        let (start, end) = *self.known.entry(content).or_insert_with_key(|content| {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(content);
            (start, self.bytes.len())
        });
        Ok(format!("Some(({start}, {end}))"))
    }
}

fn write_table(out: &Path, assets: &[Asset], plugins: Option<&[u8]>) -> io::Result<()> {
    let mut blob = Blob::default();
    let mut table = String::from("pub(super) static TABLE: &[Entry] = &[\n");
    for asset in assets {
        let _ = writeln!(
            table,
            "    Entry {{ path: {:?}, etag: {:?}, identity: {}, gzip: {}, brotli: {} }},",
            asset.path,
            asset.etag,
            blob.add(asset.identity.as_deref())?,
            blob.add(asset.gzip.as_deref())?,
            blob.add(asset.brotli.as_deref())?,
        );
    }
    table.push_str("];\n");
    fs::write(out.join("assets.rs"), table)?;
    fs::write(out.join("assets.bin"), blob.bytes)?;
    fs::write(out.join("plugins.json"), plugins.unwrap_or(b"[]"))
}
