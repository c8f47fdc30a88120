//! The cluster's control groups. Every process of the cluster is in them, also those that left their parents: that is
//! how `down` finds what to end, whatever crashed before.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

const ROOT: &str = "/sys/fs/cgroup";
/// How long killed processes may take to be gone.
const END_DEADLINE: Duration = Duration::from_secs(20);

/// One group in every hierarchy of the machine.
#[derive(Debug, Clone)]
pub(super) struct Group {
    name: String,
    /// Where the group is made.
    hierarchies: Vec<PathBuf>,
    /// Where it may be found afterwards: beside version 1, runc makes groups in a mounted version 2 as well.
    mounted: Vec<PathBuf>,
}

impl Group {
    /// The group of a cluster; it need not be there.
    pub(super) fn of(cluster: &str) -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
        let (mounted, hierarchies) = hierarchies(&mounts);
        if hierarchies.is_empty() {
            bail!("no control groups are mounted under {ROOT}: the node cannot run pods on this machine");
        }
        Ok(Self { name: format!("pstack-{cluster}"), hierarchies, mounted })
    }

    /// Name of the group, and of everything else of the cluster that needs a name on this machine.
    pub(super) fn root_name(&self) -> &str {
        &self.name
    }

    /// The name that the kubelet takes as its root.
    pub(super) fn root(&self) -> String {
        format!("/{}", self.name)
    }

    /// Makes the groups: the root and in it `host`, for the programs of the node.
    pub(super) fn create(&self) -> Result<()> {
        for hierarchy in &self.hierarchies {
            for folder in [hierarchy.join(&self.name), hierarchy.join(&self.name).join("host")] {
                std::fs::create_dir_all(&folder).with_context(|| {
                    format!("making the control group {} (root with a writable {ROOT}?)", folder.display())
                })?;
                // Without processors and memory a group of this controller takes no process (cgroup v1).
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let (own, parent) = (folder.join(file), folder.join("..").join(file));
                    if own.exists() && std::fs::read_to_string(&own)?.trim().is_empty() && parent.exists() {
                        std::fs::write(&own, std::fs::read_to_string(parent)?)?;
                    }
                }
            }
        }
        self.delegate()
    }

    /// cgroup v2: what the kubelet's groups may control has to be handed down.
    fn delegate(&self) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let group = hierarchy.join(&self.name);
            let Ok(controllers) = std::fs::read_to_string(group.join("cgroup.controllers")) else { continue };
            for controller in controllers.split_whitespace() {
                std::fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"))
                    .with_context(|| format!("handing the controller {controller} down in {}", group.display()))?;
            }
        }
        Ok(())
    }

    /// The file to which a program of the node writes its process id to become a member.
    pub(super) fn members(&self) -> PathBuf {
        self.tracking().join("host/cgroup.procs")
    }

    /// The hierarchy in which members are looked for: containers are in all of them, the node's programs in this one.
    fn tracking(&self) -> PathBuf {
        let named = self.hierarchies.iter().find(|hierarchy| hierarchy.ends_with("pids"));
        named.or(self.hierarchies.first()).cloned().unwrap_or_default().join(&self.name)
    }

    /// The ids of all processes of the cluster.
    pub(super) fn processes(&self) -> Vec<i32> {
        let mut ids = Vec::new();
        walk(&self.tracking(), &mut |folder| {
            let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            ids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        });
        ids
    }

    /// Ends every member with SIGKILL and waits until there is none.
    pub(super) fn kill(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let ids = self.processes();
            if ids.is_empty() {
                return Ok(());
            }
            for id in &ids {
                // Read from the group a moment ago: a process that ended meanwhile is not there to be hit.
                if let Some(pid) = Pid::from_raw(*id) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            if started.elapsed() > END_DEADLINE {
                bail!("processes {ids:?} of {} do not end after SIGKILL", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Removes the groups, which must have no members.
    pub(super) fn remove(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let mut left = None;
            for hierarchy in &self.mounted {
                let mut folders = Vec::new();
                walk(&hierarchy.join(&self.name), &mut |folder| folders.push(folder.to_owned()));
                for folder in folders.iter().rev() {
                    left = std::fs::remove_dir(folder).err().map(|error| (folder.clone(), error)).or(left);
                }
            }
            let Some((folder, error)) = left else { return Ok(()) };
            // The kernel lets go of a group a moment after its last process.
            if started.elapsed() > END_DEADLINE {
                return Err(error).with_context(|| format!("removing the control group {}", folder.display()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Calls `visit` for `folder` and every folder under it, parents first; a folder that is not there is not visited.
fn walk(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    visit(folder);
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}

/// Mount points of all hierarchies, and of those that the kubelet uses: every one of v1, or the one of v2 when it stands
/// alone.
fn hierarchies(mountinfo: &str) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let of_type = |wanted: &str| -> Vec<PathBuf> {
        let mut points: Vec<PathBuf> = mountinfo
            .lines()
            .filter_map(|line| {
                let (left, right) = line.split_once(" - ")?;
                let point = left.split_whitespace().nth(4)?;
                let kind = right.split_whitespace().next()?;
                (kind == wanted && point.starts_with(ROOT)).then(|| PathBuf::from(point))
            })
            .collect();
        points.sort();
        points.dedup();
        points
    };
    let (first, second) = (of_type("cgroup"), of_type("cgroup2"));
    let all = first.iter().chain(&second).cloned().collect();
    (all, if first.is_empty() { second } else { first })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_hierarchies_of_both_versions() {
        let hybrid = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n31 30 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      32 30 0:28 / /sys/fs/cgroup/cpu rw shared:3 - cgroup cgroup rw,cpu\n33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let path = |name: &str| Path::new(ROOT).join(name);
        let used = vec![path("cpu"), path("pids")];
        assert_eq!(hierarchies(hybrid), ([used.clone(), vec![path("unified")]].concat(), used));
        let unified = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(hierarchies(unified), (vec![ROOT.into()], vec![ROOT.into()]));
    }
}
