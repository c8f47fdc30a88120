//! The namespace's ResourceQuota: the stack under full load, and room.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::labels::Component;
use super::meta;
use crate::controllers::persesstack::feasible::silent;
use crate::controllers::persesstack::validate::Validated;
use crate::sizing::footprint::Footprint;
use crate::sizing::quota::quota;

/// The quota that holds `footprint`.
pub(super) fn build(v: &Validated, footprint: &Footprint) -> ResourceQuota {
    ResourceQuota {
        metadata: meta::owned(v, v.names.quota(), Component::Api),
        spec: Some(ResourceQuotaSpec { hard: Some(hard(footprint)), ..ResourceQuotaSpec::default() }),
        status: None,
    }
}

/// What is limited. A resource that some container does not name is not: such a quota would refuse its pod.
fn hard(footprint: &Footprint) -> BTreeMap<String, Quantity> {
    let quota = quota(footprint);
    let hard = [
        ("requests.cpu", quota.cpu_requests.text),
        ("requests.memory", quota.memory_requests.text),
        ("limits.cpu", quota.cpu_limits.text),
        ("limits.memory", quota.memory_limits.text),
        ("persistentvolumeclaims", quota.claims.text),
        ("requests.storage", quota.storage.text),
    ];
    let counted = hard.into_iter().filter(|(name, _)| silent(footprint, name).is_none());
    counted.map(|(name, text)| (name.to_owned(), Quantity(text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sizing::footprint::{Amount, ContainerLoad, PodGroup};
    use crate::sizing::{Bytes, Cpu};

    #[test]
    fn a_resource_that_a_container_does_not_name_is_not_limited() {
        let amount = Amount { cpu: Cpu(100), memory: Bytes(1 << 20) };
        let container = |limits: Amount| ContainerLoad { name: "c".to_owned(), requests: amount, limits };
        let names = |limits: Amount| {
            let group = PodGroup {
                workload: "Deployment a".to_owned(),
                fewest: 1,
                most: 1,
                surge: 0,
                stateless: false,
                task: false,
                containers: vec![container(amount), container(limits)],
            };
            hard(&Footprint { pods: vec![group], volumes: Vec::new() }).into_keys().collect::<Vec<_>>()
        };
        assert_eq!(names(amount).len(), 6);
        let without_cpu = names(Amount { cpu: Cpu(0), ..amount });
        assert!(without_cpu.len() == 5 && !without_cpu.contains(&"limits.cpu".to_owned()), "{without_cpu:?}");
    }
}
