//! A watcher that ends our child processes and removes our folders when this process goes away, however it goes: a test
//! binary killed with SIGKILL runs no destructor.
//!
//! It is a shell that reads from a pipe whose only writer is this process. End of file means that we are gone.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};
use parking_lot::Mutex;

/// One line per order. `kill` is a shell builtin: nothing is searched for when it is needed.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
pids=; dirs=
while read -r order value; do
  case $order in
    pid) pids="$pids $value" ;;
    gone) kept=; for p in $pids; do [ "$p" = "$value" ] || kept="$kept $p"; done; pids=$kept ;;
    dir) dirs="$dirs $value" ;;
    done) exit 0 ;;
  esac
done
for p in $pids; do kill -9 "$p" 2>/dev/null; done
for d in $dirs; do
  tries=0
  until rm -rf "$d" 2>/dev/null || [ "$tries" -ge 50 ]; do tries=$((tries + 1)); sleep 0.1; done
done
"#;

/// The watcher. Dropping it ends it without any effect: the owner has cleaned up by then.
pub struct Guard {
    shell: Child,
    orders: Mutex<Option<ChildStdin>>,
}

impl Guard {
    /// Starts a watcher with nothing to watch.
    pub fn new() -> Result<Self> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT])
            // A group of its own: a Ctrl-C in the terminal is for us, and the watcher acts after us.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting /bin/sh as the watcher of child processes")?;
        let orders = Mutex::new(shell.stdin.take());
        Ok(Self { shell, orders })
    }

    /// Kill this child of ours when we are gone.
    pub fn watch(&self, pid: u32) -> Result<()> {
        self.order("pid", &pid.to_string())
    }

    /// This child has been waited for: its number may belong to somebody else from now on.
    pub fn forget(&self, pid: u32) -> Result<()> {
        self.order("gone", &pid.to_string())
    }

    /// Remove this folder when we are gone. Its path must not hold white space.
    pub fn remove(&self, folder: &Path) -> Result<()> {
        self.order("dir", &folder.display().to_string())
    }

    fn order(&self, order: &str, value: &str) -> Result<()> {
        let mut orders = self.orders.lock();
        let pipe = orders.as_mut().context("the watcher of child processes has ended")?;
        writeln!(pipe, "{order} {value}").context("writing to the watcher of child processes")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.order("done", "");
        self.orders.lock().take();
        let _ = self.shell.wait();
    }
}
