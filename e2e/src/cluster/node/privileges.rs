//! What the node needs of the machine, checked before anything is made: each failure says what is missing and how to get it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// (program, Debian package)
const PROGRAMS: [(&str, &str); 12] = [
    ("etcd", "etcd-server"),
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
    ("mount", "mount"),
    ("sysctl", "procps"),
];

/// (bit of `CapEff`, name, what for)
const CAPABILITIES: [(u32, &str, &str); 4] = [
    (12, "CAP_NET_ADMIN", "network interfaces, routes and nftables"),
    (21, "CAP_SYS_ADMIN", "namespaces and mounts"),
    (18, "CAP_SYS_CHROOT", "containers"),
    (27, "CAP_MKNOD", "device files of containers"),
];

/// Where distributions put the CNI plugins.
const CNI: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// Everything that is missing, in one error.
pub(super) fn check() -> Result<()> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push("root: run it with sudo, or use another cluster by setting KUBECONFIG".to_owned());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    missing.extend(missing_capabilities(&status));
    missing.extend(PROGRAMS.iter().filter(|(program, _)| find(program).is_none()).map(|(program, package)| {
        format!("the program {program}: `apt-get install {package}`, or `make setup` for all of them")
    }));
    if cni_folder().is_none() {
        missing.push("the CNI plugins: `apt-get install containernetworking-plugins`, or `make setup`".to_owned());
    }
    if missing.is_empty() {
        Ok(())
    } else {
        bail!("the node cannot be started, this is missing:\n  - {}", missing.join("\n  - "))
    }
}

fn missing_capabilities(status: &str) -> Vec<String> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    let absent = CAPABILITIES.iter().filter(|(bit, ..)| mask & (1 << bit) == 0);
    absent
        .map(|(_, name, purpose)| format!("{name} ({purpose}): grant it to the container or user that runs this"))
        .collect()
}

/// The folder with the CNI plugins.
pub(super) fn cni_folder() -> Option<&'static Path> {
    CNI.iter().map(Path::new).find(|folder| folder.join("bridge").exists() && folder.join("portmap").exists())
}

/// A program of `PATH`, or of the folders that only root's `PATH` holds.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_capabilities_that_are_missing() {
        assert_eq!(missing_capabilities("Name:\tx\nCapEff:\t000001fffeffffff\n"), Vec::<String>::new());
        // Docker's default set.
        let docker = missing_capabilities("CapEff:\t00000000a80425fb\n").join("\n");
        assert!(
            docker.contains("CAP_NET_ADMIN") && docker.contains("CAP_SYS_ADMIN") && !docker.contains("CAP_MKNOD"),
            "{docker}"
        );
    }
}
