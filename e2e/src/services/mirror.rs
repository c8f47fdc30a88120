//! Which Debian mirror this machine uses, read from its own apt configuration.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, bail};

/// Overrides the mirror, for machines that are not Debian.
const OVERRIDE: &str = "PERSES_STACK_DEBIAN_MIRROR";

/// The first Debian archive in the apt sources of the host.
pub(super) fn find() -> Result<String> {
    if let Ok(mirror) = std::env::var(OVERRIDE)
        && !mirror.is_empty()
    {
        return Ok(mirror);
    }
    let mut files = vec![Path::new("/etc/apt/sources.list").to_path_buf()];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    // `read_dir` has no order; the same machine should always give the same mirror.
    files.sort();
    for file in &files {
        let Ok(text) = fs::read_to_string(file) else { continue };
        let found = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => from_one_line(&text),
            Some("sources") => from_deb822(&text),
            _ => None,
        };
        if let Some(mirror) = found {
            return Ok(mirror);
        }
    }
    bail!(
        "no Debian mirror in the apt sources of this machine; set {OVERRIDE} to the address of one (its path ends in /debian)"
    )
}

/// The host's settings for downloads (proxies, checks) as apt options, since a fresh root has none of them.
pub(super) fn apt_options() -> Vec<String> {
    const KEPT: &[&str] = &["Acquire::http", "Acquire::https", "Acquire::Check-Valid-Until", "Acquire::Check-Date"];
    let mut options = vec!["Acquire::Retries \"5\"".to_owned()];
    let mut command = Command::new("apt-config");
    command.args(["dump", "--no-empty", "--format", "%F \"%v\"%n"]).args(KEPT);
    if let Ok(output) = command.output() {
        options.extend(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned));
    }
    options
}

/// An archive for packages, not for security updates (which has no whole release), by the path that every mirror keeps.
fn is_archive(uri: &str) -> bool {
    uri.contains("://") && uri.trim_end_matches('/').ends_with("/debian")
}

/// `deb [options] URI suite component...`, see sources.list(5).
fn from_one_line(text: &str) -> Option<String> {
    text.lines().filter_map(|line| line.trim().strip_prefix("deb ")).find_map(|entry| {
        let entry = entry.trim_start();
        let entry = if entry.starts_with('[') { entry.split_once(']')?.1 } else { entry };
        entry.split_whitespace().next().filter(|uri| is_archive(uri)).map(str::to_owned)
    })
}

/// Stanzas of `Field: value` lines, see sources.list(5).
fn from_deb822(text: &str) -> Option<String> {
    let uris = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.strip_prefix("URIs:"));
    uris.flat_map(str::split_whitespace).find(|uri| is_archive(uri)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_sources() {
        let text = "# deb http://a.example/debian x main\n\
                    deb http://b.example/debian-security x-security main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://c.example/mirror/debian/ x main\n";
        assert_eq!(from_one_line(text).as_deref(), Some("http://c.example/mirror/debian/"));
        assert_eq!(from_one_line("deb-src http://b.example/debian x main\n"), None);
    }

    #[test]
    fn deb822_sources() {
        let text = "Types: deb\nURIs: http://a.example/debian-security\nSuites: x\n\n\
                    Types: deb\n# URIs: http://b.example/debian\nURIs: http://c.example/debian\nSuites: x\n";
        assert_eq!(from_deb822(text).as_deref(), Some("http://c.example/debian"));
        assert_eq!(from_deb822("Types: deb\nURIs: https://tools.example/apt\n"), None);
    }
}
