//! The namespace's quota (seed section 5, scaled): what the stack needs under full load, and room.

use super::footprint::Footprint;
use super::quantity::GIB;
use super::{Bytes, Cpu, Derivation, Derived};

/// Room beside the stack's own need, as a factor. The seed's quota is twice its breakdown. Pods that drain during a
/// rolling update live beside their successors: they are inside this room.
pub const HEADROOM: i64 = 2;

/// `spec.hard` of the quota.
#[derive(Clone, Debug, PartialEq)]
pub struct Quota {
    /// `requests.cpu`.
    pub cpu_requests: Derived<Cpu>,
    /// `requests.memory`.
    pub memory_requests: Derived<Bytes>,
    /// `limits.cpu`.
    pub cpu_limits: Derived<Cpu>,
    /// `limits.memory`.
    pub memory_limits: Derived<Bytes>,
    /// `persistentvolumeclaims`.
    pub claims: Derived<i64>,
    /// `requests.storage`.
    pub storage: Derived<Bytes>,
}

/// The quota that holds `footprint`.
pub fn quota(footprint: &Footprint) -> Quota {
    const PODS: &str = "2 x the sum over all pods (autoscaler's maximum, surge, migration), rounded up";
    let need = footprint.full();
    let cores = |cpu: Cpu| Cpu(round_up(cpu.0 * HEADROOM, 1000));
    let whole = |bytes: Bytes| Bytes(round_up(bytes.0 * HEADROOM, GIB));
    let note = |pods: i64| format!("{pods} pods");
    Quota {
        cpu_requests: Derived::new(cores(need.requests.cpu), PODS, note(need.pods)).with("sum", need.requests.cpu),
        memory_requests: Derived::new(whole(need.requests.memory), PODS, note(need.pods))
            .with("sum", need.requests.memory),
        cpu_limits: Derived::new(cores(need.limits.cpu), PODS, note(need.pods)).with("sum", need.limits.cpu),
        memory_limits: Derived::new(whole(need.limits.memory), PODS, note(need.pods)).with("sum", need.limits.memory),
        claims: Derived::new(
            need.claims * HEADROOM,
            "2 x the stack's claims: a restore or a move makes new volumes beside the old ones",
            format!("{} claims", need.claims),
        )
        .with("claims", need.claims),
        storage: Derived::new(
            whole(need.storage),
            "2 x the sum over all claims, rounded up",
            format!("{} claims", need.claims),
        )
        .with("sum", need.storage),
    }
}

impl Quota {
    /// Every number with its derivation.
    pub fn derivations(&self) -> Vec<Derivation> {
        vec![
            Derivation::of("quota.requests.cpu", &self.cpu_requests),
            Derivation::of("quota.requests.memory", &self.memory_requests),
            Derivation::of("quota.limits.cpu", &self.cpu_limits),
            Derivation::of("quota.limits.memory", &self.memory_limits),
            Derivation::of("quota.persistentvolumeclaims", &self.claims),
            Derivation::of("quota.requests.storage", &self.storage),
        ]
    }
}

fn round_up(value: i64, unit: i64) -> i64 {
    (value + unit - 1).div_euclid(unit) * unit
}
