//! One service in a sandbox: chroot into the shared root, own mount and PID namespaces, a data folder of its own.
//!
//! A small shell script (`sandbox.sh`) is the supervisor. It ends with this process, whatever ended this process, and
//! takes the service and its data along: see the script for how.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::sync::watch;

use crate::{
    services::{
        READY_TIMEOUT,
        root::{self, PATH, UID},
    },
    wait::wait_until,
};

const SCRIPT: &str = include_str!("sandbox.sh");

/// How long the supervisor may take for an answer; generous, since tests share few cores.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the data folder appears inside the sandbox.
pub(super) const DATA: &str = "/data";

/// What the service does now, as the supervisor reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The supervisor is not set up yet.
    Preparing,
    /// No program was started yet.
    Idle,
    /// The program runs, with this id in the supervisor's namespace.
    Running(u32),
    /// The program ended with this code (128 + signal when a signal ended it).
    Exited(i32),
    /// The supervisor is gone.
    Gone,
}

/// A sandbox; dropping it ends every process in it and removes its data.
#[derive(Debug)]
pub(super) struct Sandbox {
    name: &'static str,
    root: PathBuf,
    data: PathBuf,
    supervisor: Child,
    // Dropped first in `drop`: closing it is what ends the supervisor.
    commands: Mutex<Option<ChildStdin>>,
    state: watch::Receiver<State>,
    /// How many commands the supervisor has reported as done.
    done: watch::Receiver<u64>,
}

impl Sandbox {
    /// Makes an empty sandbox, and the shared root when it is not cached yet. `name` is for messages.
    pub(super) async fn new(name: &'static str) -> Result<Self> {
        Self::new_in(name, root::ensure).await
    }

    /// As [`Self::new`], in another root.
    pub(super) async fn new_in(name: &'static str, root: fn() -> Result<PathBuf>) -> Result<Self> {
        let root = tokio::task::spawn_blocking(root).await.context("prepare the root of the services")??;
        ensure!(
            rustix::process::geteuid().is_root(),
            "{name} cannot start as an ordinary user: test services need root (chroot, mount and PID namespaces)"
        );
        let data = tempfile::Builder::new()
            .prefix(&format!("perses-stack-{name}-"))
            .tempdir()
            .context("create the data folder of a service")?;
        std::os::unix::fs::chown(data.path(), Some(UID), Some(UID)).context("hand over the data folder")?;

        let mut supervisor = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", SCRIPT, "sandbox"])
            .arg(&root)
            .arg(data.path())
            .args([&UID.to_string(), PATH])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal ends the test, and the test ends the service: not both at once.
            .process_group(0)
            .spawn()
            .context("run unshare (Debian package util-linux)")?;
        let (sender, state) = watch::channel(State::Preparing);
        let (done_sender, done) = watch::channel(0);
        let answers = supervisor.stdout.take().context("the supervisor has no output")?;
        std::thread::spawn(move || {
            for line in BufReader::new(answers).lines().map_while(Result::ok) {
                if line == "done" {
                    done_sender.send_modify(|done| *done += 1);
                } else if let Some(state) = parse_answer(&line) {
                    sender.send_replace(state);
                }
            }
            sender.send_replace(State::Gone);
        });
        // From here on `drop` removes the data.
        let commands = Mutex::new(supervisor.stdin.take());
        let mut sandbox = Self { name, root, data: data.keep(), supervisor, commands, state, done };
        if sandbox.wait_until(|state| state != State::Preparing).await? == State::Gone {
            let output = sandbox.supervisor.stderr.take().map(std::io::read_to_string);
            bail!(
                "cannot make a sandbox for {name}: {}; it needs the right to create mount and PID namespaces (CAP_SYS_ADMIN)",
                output.and_then(Result::ok).unwrap_or_default().trim()
            );
        }
        Ok(sandbox)
    }

    /// The data folder as seen from outside; inside it is [`DATA`].
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// Writes a file into the data folder that only the service can read.
    pub(super) fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.data.join(file);
        std::fs::write(&path, text).with_context(|| format!("write {file} of {}", self.name))?;
        std::os::unix::fs::chown(&path, Some(UID), Some(UID)).with_context(|| format!("hand over {file}"))?;
        rustix::fs::chmod(&path, rustix::fs::Mode::from_raw_mode(0o600)).with_context(|| format!("protect {file}"))
    }

    /// Gives the service this text as its `/etc/hosts`.
    pub(super) async fn know_hosts(&self, text: &str) -> Result<()> {
        self.write("hosts", text)?;
        self.command_done("hosts").await
    }

    /// Starts the service. No word may contain white space.
    pub(super) async fn start(&self, words: &[&str]) -> Result<()> {
        ensure!(!matches!(self.now(), State::Running(_)), "{} runs already", self.name);
        ensure!(
            words.iter().all(|word| !word.is_empty() && !word.contains(char::is_whitespace)),
            "the command of {} has white space in an argument: {words:?}",
            self.name
        );
        let mut state = self.state.clone();
        state.mark_unchanged();
        self.command(&format!("start {}", words.join(" ")))?;
        tokio::time::timeout(ANSWER_TIMEOUT, state.changed())
            .await
            .with_context(|| format!("{} did not start in {ANSWER_TIMEOUT:?}", self.name))?
            .with_context(|| format!("the supervisor of {} is gone", self.name))
    }

    /// Waits until `look` says that the started service answers; fails at once when the service ends instead.
    pub(super) async fn ready<F, Fut>(&self, look: F) -> Result<()>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<bool>>,
    {
        let what = format!("{} to answer", self.name);
        let result = tokio::select! {
            result = wait_until(&what, READY_TIMEOUT, look) => result,
            ended = self.wait_until(|state| !matches!(state, State::Running(_))) => {
                Err(anyhow!("{} ended before it answered ({:?})", self.name, ended?))
            }
        };
        result.with_context(|| format!("the end of the log of {}:\n{}", self.name, self.log_tail()))
    }

    /// Sends a signal to the service and waits until it has ended. Fine when it has ended already.
    pub(super) async fn end(&self, signal: &str, timeout: Duration) -> Result<()> {
        if let State::Running(pid) = self.now() {
            self.command(&format!("signal {signal} {pid}"))?;
            tokio::time::timeout(timeout, self.wait_until(|state| !matches!(state, State::Running(_))))
                .await
                .with_context(|| {
                    format!(
                        "{} still runs {timeout:?} after signal {signal}; the end of its log:\n{}",
                        self.name,
                        self.log_tail()
                    )
                })??;
        }
        Ok(())
    }

    /// Freezes all processes of the service: connections stay open and nothing answers.
    pub(super) async fn pause(&self) -> Result<()> {
        self.command_done("pause").await
    }

    /// Ends [`Self::pause`].
    pub(super) async fn resume(&self) -> Result<()> {
        self.command_done("resume").await
    }

    /// Runs another program of the root beside the service, with `input` as its standard input, and waits for it.
    pub(super) async fn run<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: &[S],
        env: &[(&str, &str)],
        input: &str,
    ) -> Result<Output> {
        let namespaces = format!("/proc/{}/ns", self.supervisor.id());
        let mut command = tokio::process::Command::new("nsenter");
        command
            .arg(format!("--mount={namespaces}/mnt"))
            .arg(format!("--pid={namespaces}/pid_for_children"))
            .arg("chroot")
            .arg(format!("--userspec={UID}:{UID}"))
            .arg(&self.root)
            .arg(program)
            .args(args)
            .env_clear()
            .envs([("PATH", PATH), ("HOME", DATA), ("LANG", "C.UTF-8"), ("TZ", "UTC")])
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().context("run nsenter (Debian package util-linux)")?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        let feed = async {
            // A program may end without reading everything; its status tells.
            _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await;
            drop(stdin);
        };
        let ((), output) = tokio::join!(feed, child.wait_with_output());
        output.with_context(|| format!("run {program}"))
    }

    /// As [`Self::run`], but anything but success is an error; returns the standard output.
    pub(super) async fn run_ok<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: &[S],
        env: &[(&str, &str)],
        input: &str,
    ) -> Result<String> {
        let output = self.run(program, args, env, input).await?;
        ensure!(
            output.status.success(),
            "{program} failed ({}): {}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The last lines that the service wrote.
    pub(super) fn log_tail(&self) -> String {
        let text = std::fs::read(self.data.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn now(&self) -> State {
        *self.state.borrow()
    }

    async fn command_done(&self, line: &str) -> Result<()> {
        let mut done = self.done.clone();
        done.mark_unchanged();
        self.command(line)?;
        tokio::time::timeout(ANSWER_TIMEOUT, done.changed())
            .await
            .with_context(|| format!("the supervisor of {} did not {line} it in {ANSWER_TIMEOUT:?}", self.name))?
            .with_context(|| format!("the supervisor of {} is gone", self.name))
    }

    fn command(&self, line: &str) -> Result<()> {
        let mut commands = self.commands.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let pipe = commands.as_mut().with_context(|| format!("the supervisor of {} is gone", self.name))?;
        writeln!(pipe, "{line}").with_context(|| format!("tell the supervisor of {}: {line}", self.name))
    }

    async fn wait_until(&self, mut condition: impl FnMut(State) -> bool) -> Result<State> {
        let mut state = self.state.clone();
        let state = state.wait_for(|state| *state == State::Gone || condition(*state)).await;
        state.map(|state| *state).with_context(|| format!("the supervisor of {} is gone", self.name))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the end of the log of {}:\n{}", self.name, self.log_tail());
        }
        self.commands.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        _ = self.supervisor.wait();
        // Only if the supervisor could not.
        _ = std::fs::remove_dir_all(&self.data);
    }
}

fn parse_answer(line: &str) -> Option<State> {
    match line.split_once(' ') {
        None if line == "ready" => Some(State::Idle),
        Some(("started", pid)) => pid.parse().ok().map(State::Running),
        Some(("exit", code)) => code.parse().ok().map(State::Exited),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_supervisor() {
        assert_eq!(parse_answer("ready"), Some(State::Idle));
        assert_eq!(parse_answer("started 7"), Some(State::Running(7)));
        assert_eq!(parse_answer("exit 137"), Some(State::Exited(137)));
        assert_eq!(parse_answer("noise"), None);
    }
}
