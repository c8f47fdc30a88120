//! Running small system tools (`ip`, `ctr`, ...) and naming them when they fail.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program to its end and returns its standard output; an error holds what it complained about.
pub(super) fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Result<String> {
    let arguments: Vec<_> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
    let output = Command::new(program)
        .args(&arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}: is it installed? (`make setup` installs it)"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let line: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    bail!("{program} {}: {}", line.join(" "), String::from_utf8_lossy(&output.stderr).trim())
}

/// [`run`] with the arguments in one line, separated by spaces.
pub(super) fn ip(line: &str) -> Result<String> {
    run("ip", line.split_whitespace())
}
