//! What programs of a node leave outside the cluster's folder, and mounts inside it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::command::run;

/// Where libcni keeps what plugins answered; containerd 1.6 offers no way to choose the folder.
const CNI_CACHE: &str = "/var/lib/cni/results";

/// Sockets of containerd's shims: containerd keeps their paths in the folder of each container.
pub(super) fn shim_sockets(folder: &Path) -> Vec<PathBuf> {
    let tasks = folder.join("containerd/state/io.containerd.runtime.v2.task/k8s.io");
    let Ok(entries) = std::fs::read_dir(tasks) else { return Vec::new() };
    let addresses = entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path().join("address")).ok());
    let mut paths: Vec<_> =
        addresses.filter_map(|text| Some(PathBuf::from(text.trim().strip_prefix("unix://")?))).collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Links to this cluster's container logs, which the kubelet makes in a fixed folder, and cached answers of CNI plugins.
pub(super) fn remove_strays(folder: &Path, cni_network: &str, sockets: &[PathBuf]) -> Result<()> {
    for socket in sockets {
        remove(socket)?;
    }
    for entry in entries(Path::new("/var/log/containers")) {
        if std::fs::read_link(&entry).is_ok_and(|target| target.starts_with(folder)) {
            remove(&entry)?;
        }
    }
    for name in cached_answers(cni_network) {
        remove(&Path::new(CNI_CACHE).join(name))?;
    }
    Ok(())
}

/// Names of the cached answers for one network and for the loopback of the same pods, whose network has a fixed name.
fn cached_answers(cni_network: &str) -> Vec<String> {
    let names: Vec<String> = entries(Path::new(CNI_CACHE))
        .iter()
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    let pod = |name: &str| -> Option<String> {
        name.strip_prefix(cni_network)?.strip_prefix('-')?.strip_suffix("-eth0").map(ToOwned::to_owned)
    };
    let loopbacks: Vec<String> =
        names.iter().filter_map(|name| pod(name)).map(|pod| format!("cni-loopback-{pod}-lo")).collect();
    names.into_iter().filter(|name| pod(name).is_some() || loopbacks.contains(name)).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The mount points under `folder`, the deepest first.
pub(super) fn mounts(folder: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let mut points: Vec<PathBuf> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(folder))
        .collect();
    points.sort();
    points.reverse();
    Ok(points)
}

/// Unmounts everything under `folder`; a mount that stays is an error, since the folder is removed next.
pub(super) fn unmount(folder: &Path) -> Result<()> {
    for _ in 0..3 {
        let points = mounts(folder)?;
        if points.is_empty() {
            return Ok(());
        }
        for point in points {
            run("umount", [Path::new("-l"), &point]).ok();
        }
    }
    let left = mounts(folder)?;
    if left.is_empty() {
        Ok(())
    } else {
        bail!("these stay mounted: {left:?}; look with `findmnt`, then `umount` them")
    }
}
