//! The programs under `e2e/go`, built once and kept in the cache folder under a key of what they are built from.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::progress::step;

/// A Go module of `e2e/go` and what is built from it.
#[derive(Debug, Clone, Copy)]
pub struct Module {
    /// Folder under `e2e/go`, and the first part of the folder in the cache.
    pub name: &'static str,
    /// Packages, as `go build` takes them.
    packages: &'static [&'static str],
    /// Values for `-ldflags -X`.
    variables: &'static [(&'static str, &'static str)],
    /// Programs that must be there afterwards.
    programs: &'static [&'static str],
    /// Other names for programs that look at the name they are called by: (name, program).
    links: &'static [(&'static str, &'static str)],
    /// A folder of a required module that is kept beside the programs: (module, folder).
    copies: Option<(&'static str, &'static str)>,
}

/// The Kubernetes release of the test cluster. 1.34 is the last one whose kubelet accepts cgroup v1.
pub const KUBERNETES: &str = "v1.34.4";

/// Control plane, node and DNS of the test cluster: one module, so that what they share is compiled once.
pub const CLUSTER: Module = Module {
    name: "cluster",
    packages: &["./controlplane", "./node", "./coredns", "./pause"],
    variables: &[
        ("k8s.io/component-base/version.gitVersion", KUBERNETES),
        ("k8s.io/component-base/version.gitMajor", "1"),
        ("k8s.io/component-base/version.gitMinor", "34"),
    ],
    programs: &["controlplane", "node", "coredns", "pause"],
    links: &[("kubectl", "node")],
    copies: None,
};

/// What `kubectl top` and the HPA read. Its releases need a newer Kubernetes library than the kubelet that we run.
pub const METRICS_SERVER: Module = Module {
    name: "metrics-server",
    packages: &["."],
    variables: &[],
    programs: &["metrics-server"],
    links: &[],
    copies: None,
};

/// Perses' own command line client.
pub const PERCLI: Module = Module {
    name: "percli",
    packages: &["github.com/perses/perses/cmd/percli"],
    variables: &[("github.com/prometheus/common/version.Version", "0.54.0")],
    programs: &["percli"],
    links: &[],
    copies: None,
};

/// Upstream's operator, which deploys our server's image in place of upstream's; with its CRDs in `bases`.
pub const PERSES_OPERATOR: Module = Module {
    name: "perses-operator",
    packages: &["github.com/perses/perses-operator"],
    variables: &[],
    programs: &["perses-operator"],
    links: &[],
    copies: Some(("github.com/perses/perses-operator", "config/crd/bases")),
};

/// Every module.
pub const ALL: [Module; 4] = [CLUSTER, METRICS_SERVER, PERCLI, PERSES_OPERATOR];

impl Module {
    /// The folder that holds this module's programs, when they are built. Takes a few milliseconds.
    pub fn built(&self) -> Result<Option<PathBuf>> {
        let folder = self.folder()?;
        Ok(self.programs.iter().all(|program| folder.join(program).is_file()).then_some(folder))
    }

    /// As [`Module::built`], but not being built is an error that says what to do.
    pub fn require(&self) -> Result<PathBuf> {
        self.built()?.with_context(|| {
            format!("the programs of e2e/go/{} are not built: run `make tools` (a few minutes, once)", self.name)
        })
    }

    /// Builds the module's programs unless they are there, and returns their folder.
    pub fn ensure(&self) -> Result<PathBuf> {
        if let Some(folder) = self.built()? {
            return Ok(folder);
        }
        build_once(self.name, &self.folder()?, self.programs, |output| {
            self.compile(output)?;
            for (name, program) in self.links {
                std::os::unix::fs::symlink(program, output.join(name))?;
            }
            match self.copies {
                Some((module, folder)) => copy(&module_folder(&self.source(), module)?.1.join(folder), output),
                None => Ok(()),
            }
        })
    }

    fn source(&self) -> PathBuf {
        paths::workspace_dir().join("e2e/go").join(self.name)
    }

    /// Where this module's programs are, or will be.
    pub fn folder(&self) -> Result<PathBuf> {
        Ok(paths::cache_dir()?.join("tools").join(format!("{}-{}", self.name, self.key()?)))
    }

    /// Hash of the module's files, the compiler's version and the flags.
    fn key(&self) -> Result<String> {
        let source = self.source();
        let mut files = Vec::new();
        collect(&source, &mut files).with_context(|| format!("reading {}", source.display()))?;
        files.sort();
        let mut hash = blake3::Hasher::new();
        for file in files {
            let content = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            let name = file.strip_prefix(&source).unwrap_or(&file);
            hash.update(format!("{}\0{}\0", name.display(), content.len()).as_bytes());
            hash.update(&content);
        }
        hash.update(format!("{:?}{:?}{}", self.links, self.arguments(Path::new("-")), compiler()?).as_bytes());
        Ok(hash.finalize().to_hex()[..16].to_owned())
    }

    fn arguments(&self, output: &Path) -> Vec<String> {
        let variables: String = self.variables.iter().flat_map(|(name, value)| [" -X ", name, "=", value]).collect();
        let mut arguments = vec!["build".into(), "-trimpath".into(), "-buildvcs=false".into()];
        arguments.push(format!("-ldflags=-s -w{variables}"));
        arguments.push(format!("-o={}/", output.display()));
        arguments.extend(self.packages.iter().map(ToString::to_string));
        arguments
    }

    fn compile(&self, output: &Path) -> Result<()> {
        // Without cgo: static programs, which run in images that hold nothing else.
        let status = Command::new("go")
            .args(self.arguments(output))
            .current_dir(self.source())
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-mod=readonly")
            .status()
            .context("starting go: install Go (see go.mod for the version)")?;
        if !status.success() {
            bail!("go build in e2e/go/{} failed ({status}); its messages are above", self.name);
        }
        Ok(())
    }
}

/// Version and folder of a module that the one in `source` requires, downloaded and checked against its sums.
pub(super) fn module_folder(source: &Path, module: &str) -> Result<(String, PathBuf)> {
    let go = |arguments: &[&str]| {
        Command::new("go").args(arguments).current_dir(source).output().context("starting go: install Go")
    };
    go(&["mod", "download", module])?;
    let output = go(&["list", "-m", "-f", "{{.Version}} {{.Dir}}", module])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let (version, folder) = text.trim().split_once(' ').with_context(|| {
        format!("{module} cannot be downloaded: {}", String::from_utf8_lossy(&output.stderr).trim())
    })?;
    Ok((version.to_owned(), PathBuf::from(folder)))
}

/// The folder of a release that nothing here requires, if it has this sum (as in go.sum).
pub(super) fn download(module: &str, version: &str, sum: &str) -> Result<PathBuf> {
    let output = Command::new("go")
        .args(["mod", "download", "-json", &format!("{module}@{version}")])
        // Outside of every module.
        .current_dir("/")
        .output()
        .context("starting go: install Go")?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("{module} {version} cannot be downloaded: {}", String::from_utf8_lossy(&output.stderr).trim())
    })?;
    let said = |name: &str| answer[name].as_str().unwrap_or_default();
    if said("Sum") != sum {
        bail!("{module} {version} has the sum {:?}, expected {sum:?} ({})", said("Sum"), said("Error"));
    }
    Ok(PathBuf::from(said("Dir")))
}

/// Copies a folder out of Go's cache into another one; the copy can be written.
pub(super) fn copy(folder: &Path, into: &Path) -> Result<()> {
    let status = Command::new("cp").args(["-r", "--no-preserve=mode"]).args([folder, into]).status();
    if !status.context("starting cp")?.success() {
        bail!("copying {} to {} failed", folder.display(), into.display());
    }
    Ok(())
}

/// Fills `folder` of the cache by `compile`, which gets an empty folder; one build at a time, and never half a result.
pub(super) fn build_once(
    name: &str,
    folder: &Path,
    programs: &[&str],
    compile: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let complete = || programs.iter().all(|program| folder.join(program).is_file());
    let parent = folder.parent().context("the cache folder has no parent")?;
    std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    // Whoever waited finds the result.
    let lock = File::create(parent.join(format!("{name}.lock")))?;
    lock.lock().context("locking the folder of built tools")?;
    if complete() {
        return Ok(folder.to_owned());
    }
    let started = Instant::now();
    step(format!("building {name} ({}): minutes the first time", programs.join(", ")));
    let temporary = tempfile::Builder::new().prefix(&format!("{name}.")).tempdir_in(parent)?;
    compile(temporary.path())?;
    for program in programs {
        if !temporary.path().join(program).is_file() {
            bail!("the build of {name} ended well but made no {program}");
        }
    }
    // What a crash of an earlier build left under the final name is incomplete.
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::rename(temporary.keep(), folder).with_context(|| format!("renaming to {}", folder.display()))?;
    step(format!("built {name} in {:.0} s", started.elapsed().as_secs_f32()));
    Ok(folder.to_owned())
}

/// The compiler's version.
pub(super) fn compiler() -> Result<String> {
    let output = Command::new("go").arg("version").output().context("starting `go version`: install Go")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}
