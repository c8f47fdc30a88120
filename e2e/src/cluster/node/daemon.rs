//! Programs of the node: they outlive the command that starts them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::cgroup::Group;
use super::network;
use crate::cluster::program::tail;

/// Becomes a member of the control group, says its id, enters the network namespace and turns into the program.
const ENTER: &str = r#"echo $$ > "$1" && echo $$ > "$2.new" && mv "$2.new" "$2" && net=$3 && shift 3 && exec nsenter "--net=$net" -- "$@""#;

/// Where a program of the node runs.
pub(super) struct Place<'a> {
    pub(super) folder: &'a Path,
    pub(super) group: &'a Group,
    pub(super) namespace: &'a str,
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    pid: u32,
    /// Clock ticks between the start of the machine and of the process.
    start: u64,
}

impl Identity {
    /// The living process with this number.
    fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The program's name comes second, in parentheses, and may hold anything.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let start = fields.nth(18)?.parse().ok()?;
        (state != "Z").then_some(Self { pid, start })
    }
}

impl Place<'_> {
    /// The id of the program that was started under this name, while it runs.
    pub(super) fn process(&self, name: &str) -> Option<u32> {
        let text = std::fs::read_to_string(self.identity(name)).ok()?;
        let kept: Identity = serde_json::from_str(&text).ok()?;
        (Identity::of(kept.pid) == Some(kept)).then_some(kept.pid)
    }

    fn runs(&self, name: &str) -> bool {
        self.process(name).is_some()
    }

    /// Starts `program` unless it runs; output goes to `<folder>/log/<name>.log`. Returns whether it was started.
    pub(super) fn ensure(&self, name: &str, program: &Path, arguments: &[String]) -> Result<bool> {
        if self.runs(name) {
            return Ok(false);
        }
        let log = self.log(name);
        for file in [&log, &self.identity(name)] {
            std::fs::create_dir_all(file.parent().context("no folder")?)?;
        }
        let output = std::fs::File::options().create(true).append(true).open(&log)?;
        let started = self.identity(name).with_extension("pid");
        let _ = std::fs::remove_file(&started);
        // `setsid --fork`: no child of ours, no terminal, a session of its own.
        let status = Command::new("setsid")
            .args(["--fork", "sh", "-c", ENTER, "sh"])
            .args([&self.group.members(), &started, &network::path(self.namespace)])
            .arg(program)
            .args(arguments)
            .current_dir(self.folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .status()
            .context("starting setsid (package util-linux)")?;
        if !status.success() {
            bail!("setsid failed for {name} ({status})\n{}", tail(&log));
        }
        let since = Instant::now();
        let pid = loop {
            if let Some(pid) = std::fs::read_to_string(&started).ok().and_then(|text| text.trim().parse().ok()) {
                break pid;
            }
            if since.elapsed() > Duration::from_secs(20) {
                bail!("{name} did not start\n{}", tail(&log));
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let identity = Identity::of(pid).with_context(|| format!("{name} ended at once\n{}", tail(&log)))?;
        std::fs::write(self.identity(name), serde_json::to_string(&identity)?)?;
        Ok(true)
    }

    /// An error with the end of the log when the program has ended.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        if self.runs(name) { Ok(()) } else { bail!("{name} has ended; the end of its log:\n{}", tail(&self.log(name))) }
    }

    /// The program's log.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.folder.join("log").join(format!("{name}.log"))
    }

    fn identity(&self, name: &str) -> PathBuf {
        self.folder.join("run").join(format!("{name}.json"))
    }
}
