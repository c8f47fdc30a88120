//! A child process with a log file.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::guard::Guard;

/// How much of a log an error shows, lines.
const TAIL: usize = 20;

/// A running program.
pub(super) struct Program {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `program`; its output is appended to `<folder>/<name>.log`, and `guard` watches over it.
    pub(super) fn start(
        name: &'static str,
        program: &Path,
        arguments: &[String],
        folder: &Path,
        guard: &Guard,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("opening {}", log.display()))?;
        let child = Command::new(program)
            .args(arguments)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| {
                format!("starting {}: is it installed? (`e2e/setup.sh` installs it)", program.display())
            })?;
        guard.watch(child.id())?;
        Ok(Self { name, child, log })
    }

    /// An error when it has ended by itself.
    pub(super) fn exited(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} has ended with {status}\n{}", self.name, tail(&self.log)),
            None => Ok(()),
        }
    }

    /// The end of its log, for an error message.
    pub(super) fn tail(&self) -> String {
        format!("the end of {}'s log:\n{}", self.name, tail(&self.log))
    }

    /// Ends it with SIGKILL and waits for that.
    pub(super) fn end(mut self, guard: &Guard) -> Result<()> {
        self.child.kill().with_context(|| format!("ending {}", self.name))?;
        self.child.wait().with_context(|| format!("waiting for the end of {}", self.name))?;
        guard.forget(self.child.id())
    }
}

/// The last lines of a file, or why there are none.
pub(super) fn tail(file: &Path) -> String {
    match std::fs::read(file) {
        Ok(content) => {
            let text = String::from_utf8_lossy(&content);
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(TAIL)..].join("\n")
        }
        Err(error) => format!("({}: {error})", file.display()),
    }
}
