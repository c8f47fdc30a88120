//! What a stack asks of a cluster: pods with their resources, and volumes.

use super::{Bytes, Cpu};

/// Every pod and volume of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Groups of equal pods.
    pub pods: Vec<PodGroup>,
    /// Volumes.
    pub volumes: Vec<Volume>,
}

/// Equal pods of one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodGroup {
    /// Kind and name of the workload, as `Deployment perses-api`.
    pub workload: String,
    /// Fewest pods.
    pub fewest: i64,
    /// Most pods, without those of a rolling update.
    pub most: i64,
    /// Pods that a rolling update adds.
    pub surge: i64,
    /// The pods can be moved or lost at any time: they hold no data and others serve meanwhile.
    pub stateless: bool,
    /// Runs to its end and is not counted in the costs.
    pub task: bool,
    /// Containers.
    pub containers: Vec<ContainerLoad>,
}

/// Resources of one container; what it does not say is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerLoad {
    /// Its name.
    pub name: String,
    /// What the scheduler reserves.
    pub requests: Amount,
    /// What it may use at most.
    pub limits: Amount,
}

/// CPU and memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// CPU.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Bytes,
}

/// A volume claim, or several equal ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Name of the claim, or of what makes it.
    pub name: String,
    /// How many.
    pub count: i64,
    /// Size of one.
    pub size: Bytes,
    /// Storage class; `None` is the cluster's default.
    pub class: Option<String>,
    /// Holds backups, which may lie on cheaper storage.
    pub backup: bool,
}

/// Sums over a footprint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Pods.
    pub pods: i64,
    /// `requests`.
    pub requests: Amount,
    /// `limits`.
    pub limits: Amount,
    /// Volume claims.
    pub claims: i64,
    /// Bytes of all volumes.
    pub storage: Bytes,
}

impl Amount {
    fn plus(self, other: Self, times: i64) -> Self {
        Self {
            cpu: Cpu(self.cpu.0.saturating_add(other.cpu.0.saturating_mul(times))),
            memory: Bytes(self.memory.0.saturating_add(other.memory.0.saturating_mul(times))),
        }
    }
}

impl PodGroup {
    /// Requests of one pod.
    pub fn requests(&self) -> Amount {
        self.containers.iter().fold(Amount::default(), |sum, container| sum.plus(container.requests, 1))
    }

    /// Limits of one pod.
    pub fn limits(&self) -> Amount {
        self.containers.iter().fold(Amount::default(), |sum, container| sum.plus(container.limits, 1))
    }
}

impl Footprint {
    /// What the stack needs to come up: fewest pods, the surge of a rolling update, tasks and volumes.
    pub fn start(&self) -> Total {
        self.total(|group| group.fewest + group.surge)
    }

    /// What the stack needs under full load during a rolling update, tasks and volumes included.
    pub fn full(&self) -> Total {
        self.total(|group| group.most + group.surge)
    }

    fn total(&self, count: impl Fn(&PodGroup) -> i64) -> Total {
        let mut total = Total::default();
        for group in &self.pods {
            let pods = count(group);
            total.pods += pods;
            total.requests = total.requests.plus(group.requests(), pods);
            total.limits = total.limits.plus(group.limits(), pods);
        }
        for volume in &self.volumes {
            total.claims += volume.count;
            total.storage.0 = total.storage.0.saturating_add(volume.size.0.saturating_mul(volume.count));
        }
        total
    }
}
