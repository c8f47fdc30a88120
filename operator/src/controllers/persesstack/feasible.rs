//! PURE: does the stack fit into its namespace and cluster? Asked before the first write, and told ever after.
//!
//! What cannot be read is unknown and never an obstacle. A stack that runs is never taken down by an answer.

use std::collections::BTreeMap;

use crate::sizing::footprint::{Amount, Footprint, PodGroup, Total, Volume};
use crate::sizing::{Bytes, Cpu};

/// Annotation of the stack: with the value `Ignore` nothing is held back; the condition still says what does not fit. For
/// clusters whose nodes or storage classes appear on demand.
pub const ANNOTATION: &str = "persesstack.io/feasibility";

/// Something about the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact<T> {
    /// It was read.
    Known(T),
    /// It was not, and why.
    Unknown(String),
}

impl<T> Default for Fact<T> {
    fn default() -> Self {
        Self::Unknown("not read".to_owned())
    }
}

/// What was read about the namespace and the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Quotas of the namespace.
    pub quotas: Fact<Vec<QuotaFact>>,
    /// LimitRanges of the namespace.
    pub limit_ranges: Fact<Vec<RangeFact>>,
    /// Storage classes.
    pub storage_classes: Fact<Vec<ClassFact>>,
    /// Nodes that take pods without tolerations.
    pub nodes: Fact<Vec<Amount>>,
}

/// A ResourceQuota without scopes. Amounts as the API server writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaFact {
    /// Name.
    pub name: String,
    /// `status.hard`, else `spec.hard`.
    pub hard: BTreeMap<String, String>,
    /// `status.used`.
    pub used: BTreeMap<String, String>,
}

/// One item of a LimitRange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeFact {
    /// Name of the LimitRange.
    pub name: String,
    /// `Container`, `Pod` or `PersistentVolumeClaim`.
    pub type_: String,
    /// Least amounts.
    pub min: BTreeMap<String, String>,
    /// Greatest amounts.
    pub max: BTreeMap<String, String>,
}

/// A StorageClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassFact {
    /// Name.
    pub name: String,
    /// Claims that name no class get this one.
    pub default: bool,
    /// Volumes can grow.
    pub expandable: bool,
}

/// What the stack has now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// What its pods and volumes use of the quotas.
    pub usage: Total,
    /// Size and class of its claims by name.
    pub claims: BTreeMap<String, (Bytes, Option<String>)>,
    /// Name of its own quota, which follows the stack.
    pub quota: String,
}

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Reason for the condition.
    pub reason: &'static str,
    /// What was asked, what is missing, what to do.
    pub message: String,
    /// The stack could not come up: nothing of it is created.
    pub blocks: bool,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feasibility {
    /// What does not fit.
    pub problems: Vec<Problem>,
    /// What was not looked at, and why.
    pub unknown: Vec<String>,
}

impl Feasibility {
    /// Whether something keeps the stack from coming up.
    pub fn blocks(&self) -> bool {
        self.problems.iter().any(|problem| problem.blocks)
    }
}

/// Compares what the stack asks for with what there is.
pub fn judge(footprint: &Footprint, present: &Present, facts: &Facts) -> Feasibility {
    let mut verdict = Feasibility::default();
    match &facts.quotas {
        Fact::Known(all) => {
            for quota in all.iter().filter(|quota| quota.name != present.quota) {
                in_quota(footprint, present, quota, &mut verdict.problems);
            }
        }
        Fact::Unknown(why) => verdict.unknown.push(format!("quotas ({why})")),
    }
    match &facts.limit_ranges {
        Fact::Known(all) => all.iter().for_each(|range| in_range(footprint, range, &mut verdict.problems)),
        Fact::Unknown(why) => verdict.unknown.push(format!("limit ranges ({why})")),
    }
    match &facts.storage_classes {
        Fact::Known(all) => {
            footprint.volumes.iter().for_each(|volume| storage(volume, present, all, &mut verdict.problems));
        }
        Fact::Unknown(why) => verdict.unknown.push(format!("storage classes ({why})")),
    }
    match &facts.nodes {
        Fact::Known(all) if all.is_empty() => verdict.unknown.push("nodes (none takes pods now)".to_owned()),
        Fact::Known(all) => footprint.pods.iter().for_each(|group| on_node(group, all, &mut verdict.problems)),
        Fact::Unknown(why) => verdict.unknown.push(format!("nodes ({why})")),
    }
    verdict
}

/// How an amount under a name of a quota or range is read and written.
#[derive(Clone, Copy)]
enum Unit {
    Cpu,
    Bytes,
    Count,
}

impl Unit {
    fn of(name: &str) -> Self {
        match name.rsplit(['.', '/']).next() {
            Some("cpu") => Self::Cpu,
            Some("memory" | "storage") => Self::Bytes,
            _ => Self::Count,
        }
    }

    fn parse(self, text: &str) -> Option<i64> {
        match self {
            Self::Cpu => Cpu::parse(text).ok().map(|cpu| cpu.0),
            Self::Bytes | Self::Count => Bytes::parse(text).ok().map(|bytes| bytes.0),
        }
    }

    fn write(self, value: i64) -> String {
        match self {
            Self::Cpu => Cpu(value).to_string(),
            Self::Bytes => Bytes(value).to_string(),
            Self::Count => value.to_string(),
        }
    }
}

/// The part of a total that a quota counts under `name`; `None` when it is about something else.
fn counted(name: &str, total: &Total, footprint: &Footprint) -> Option<i64> {
    if let Some(class) = name.strip_suffix(".storageclass.storage.k8s.io/requests.storage") {
        let of_class = footprint.volumes.iter().filter(|volume| volume.class.as_deref() == Some(class));
        return Some(of_class.map(|volume| volume.size.0 * volume.count).sum());
    }
    Some(match name {
        "cpu" | "requests.cpu" => total.requests.cpu.0,
        "memory" | "requests.memory" => total.requests.memory.0,
        "limits.cpu" => total.limits.cpu.0,
        "limits.memory" => total.limits.memory.0,
        "pods" | "count/pods" => total.pods,
        "persistentvolumeclaims" | "count/persistentvolumeclaims" => total.claims,
        "requests.storage" => total.storage.0,
        _ => return None,
    })
}

fn in_quota(footprint: &Footprint, present: &Present, quota: &QuotaFact, problems: &mut Vec<Problem>) {
    let (start, full) = (footprint.start(), footprint.full());
    for (name, hard) in &quota.hard {
        let unit = Unit::of(name);
        let (Some(hard), Some(start), Some(full)) =
            (unit.parse(hard), counted(name, &start, footprint), counted(name, &full, footprint))
        else {
            continue;
        };
        if let Some(container) = silent(footprint, name) {
            problems.push(Problem {
                reason: "QuotaNeedsResources",
                message: format!(
                    "ResourceQuota {} counts {name}, and container {container} names none: the API server refuses its pod. \
                     Set it in spec",
                    quota.name
                ),
                blocks: true,
            });
        }
        let used = quota.used.get(name).and_then(|text| unit.parse(text)).unwrap_or(0);
        // What the stack uses now is part of what it may use.
        let by_class = name.ends_with(".storageclass.storage.k8s.io/requests.storage");
        let own = if by_class { 0 } else { counted(name, &present.usage, footprint).unwrap_or(0) };
        let left = (hard - (used - own).max(0)).max(0);
        let (need, blocks, when) =
            if start > left { (start, true, "to start") } else { (full, false, "under full load") };
        if need > left {
            problems.push(Problem {
                reason: if blocks { "QuotaTooSmall" } else { "QuotaTooSmallForFullLoad" },
                message: format!(
                    "ResourceQuota {}: {name} {} are needed {when}, {} of {} are left, {} are missing: raise the quota, or lower \
                     spec.users or the resources in spec",
                    quota.name,
                    unit.write(need),
                    unit.write(left),
                    unit.write(hard),
                    unit.write(need - left)
                ),
                blocks,
            });
        }
    }
}

/// A container that says nothing about a resource that a quota counts under `name`: such a quota refuses its pod.
pub fn silent(footprint: &Footprint, name: &str) -> Option<String> {
    let zero = |group: &PodGroup| {
        let found = group.containers.iter().find(|container| match name {
            "cpu" | "requests.cpu" => container.requests.cpu.0 == 0 && container.limits.cpu.0 == 0,
            "memory" | "requests.memory" => container.requests.memory.0 == 0 && container.limits.memory.0 == 0,
            "limits.cpu" => container.limits.cpu.0 == 0,
            "limits.memory" => container.limits.memory.0 == 0,
            _ => false,
        });
        found.map(|container| format!("{} of {}", container.name, group.workload))
    };
    footprint.pods.iter().find_map(zero)
}

fn in_range(footprint: &Footprint, range: &RangeFact, problems: &mut Vec<Problem>) {
    let mut refuse = |what: &str, part: &str, name: &str, asked: i64, bound: i64, above: bool| {
        let unit = Unit::of(name);
        let (word, by, cure) =
            if above { ("at most", asked - bound, "lower it") } else { ("at least", bound - asked, "raise it") };
        problems.push(Problem {
            reason: "LimitRangeRefuses",
            message: format!(
                "LimitRange {} allows {word} {name} {} for a {}; {what} has a {part} of {}, {} off: {cure} in spec, or change the \
                 LimitRange",
                range.name,
                unit.write(bound),
                range.type_,
                unit.write(asked),
                unit.write(by)
            ),
            blocks: true,
        });
    };
    let bound = |map: &BTreeMap<String, String>, name: &str| map.get(name).and_then(|text| Unit::of(name).parse(text));
    let mut compare = |what: &str, requests: Amount, limits: Amount| {
        let amounts = [("cpu", requests.cpu.0, limits.cpu.0), ("memory", requests.memory.0, limits.memory.0)];
        for (name, request, limit) in amounts {
            // An amount that is not named gets the range's default.
            if let Some(least) = bound(&range.min, name).filter(|least| request > 0 && request < *least) {
                refuse(what, "request", name, request, least, false);
            }
            if let Some(most) = bound(&range.max, name).filter(|most| limit > *most) {
                refuse(what, "limit", name, limit, most, true);
            }
        }
    };
    match range.type_.as_str() {
        "Container" => {
            for group in &footprint.pods {
                for container in &group.containers {
                    let what = format!("container {} of {}", container.name, group.workload);
                    compare(&what, container.requests, container.limits);
                }
            }
        }
        "Pod" => {
            for group in &footprint.pods {
                compare(&format!("a pod of {}", group.workload), group.requests(), group.limits());
            }
        }
        "PersistentVolumeClaim" => {
            for volume in &footprint.volumes {
                let (what, size) = (format!("claim {}", volume.name), volume.size.0);
                if let Some(least) = bound(&range.min, "storage").filter(|least| size < *least) {
                    refuse(&what, "request", "storage", size, least, false);
                }
                if let Some(most) = bound(&range.max, "storage").filter(|most| size > *most) {
                    refuse(&what, "request", "storage", size, most, true);
                }
            }
        }
        _ => {}
    }
}

fn storage(volume: &Volume, present: &Present, classes: &[ClassFact], problems: &mut Vec<Problem>) {
    let found = |name: &Option<String>| match name {
        Some(name) => classes.iter().find(|class| class.name == *name),
        None => classes.iter().find(|class| class.default),
    };
    if let Some((size, class)) = present.claims.get(&volume.name) {
        let cannot_grow = found(class).is_some_and(|class| !class.expandable);
        if volume.size > *size && cannot_grow {
            problems.push(Problem {
                reason: "VolumeCannotGrow",
                message: format!(
                    "volume {} has {size} and {} are asked for, but its storage class does not allow growth: set \
                     allowVolumeExpansion on the class if the storage can do it, or move the data to a larger volume",
                    volume.name, volume.size
                ),
                blocks: false,
            });
        }
        return;
    }
    if found(&volume.class).is_none() {
        let known: Vec<_> = classes.iter().map(|class| class.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let message = match &volume.class {
            Some(class) => format!(
                "volume {} asks for storage class {class}, which does not exist (there are: {known}): name another one",
                volume.name
            ),
            None => format!(
                "volume {} names no storage class and the cluster has no default one (there are: {known}): set \
                 storageClassName in spec, or make one class the default",
                volume.name
            ),
        };
        problems.push(Problem { reason: "StorageClassMissing", message, blocks: true });
    }
}

fn on_node(group: &PodGroup, nodes: &[Amount], problems: &mut Vec<Problem>) {
    let pod = group.requests();
    let short = |node: &Amount| ((pod.cpu.0 - node.cpu.0).max(0), (pod.memory.0 - node.memory.0).max(0));
    // The node that lacks least, in the order of memory, then CPU.
    let nearest = nodes.iter().min_by_key(|node| {
        let (cpu, memory) = short(node);
        (memory, cpu)
    });
    let Some(node) = nearest.filter(|_| !nodes.iter().any(|node| short(node) == (0, 0))) else { return };
    let (cpu, memory) = short(node);
    let mut missing = Vec::new();
    if cpu > 0 {
        missing.push(format!("cpu {}", Cpu(cpu)));
    }
    if memory > 0 {
        missing.push(format!("memory {}", Bytes(memory)));
    }
    problems.push(Problem {
        reason: "NodeTooSmall",
        message: format!(
            "a pod of {} asks for cpu {} and memory {}; the nearest of {} nodes offers cpu {} and memory {}, missing: {}. Lower the \
             requests in spec, or add larger nodes (with an autoscaler that will: annotation {ANNOTATION}=Ignore)",
            group.workload,
            pod.cpu,
            pod.memory,
            nodes.len(),
            node.cpu,
            node.memory,
            missing.join(", ")
        ),
        blocks: true,
    });
}

#[cfg(test)]
mod tests;
