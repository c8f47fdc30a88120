//! Parts that every pod shares: the `restricted` security profile, spreading, probes, volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, ExecAction,
    HTTPGetAction, KeyToPath, LocalObjectReference, PodAffinityTerm, PodAntiAffinity, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, TCPSocketAction,
    TopologySpreadConstraint, Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::{self, Component};
use super::meta::{self, CONFIG_HASH};
use crate::api::v1alpha1::Spread;
use crate::controllers::persesstack::validate::Validated;
use crate::sizing::Compute;

/// User and group of the data services in the images of Debian's packages and of the official ones.
const DATA_USER: i64 = 999;

/// What differs from pod to pod.
pub(super) struct Pod {
    /// Part of the stack.
    pub component: Component,
    /// Hash of configuration that is read only at the start.
    pub config_hash: Option<String>,
    /// The container; security context and pull policy are filled in.
    pub container: Container,
    /// More containers, treated as the first one.
    pub sidecars: Vec<Container>,
    /// Volumes.
    pub volumes: Vec<Volume>,
    /// Seconds from the request to stop until the kill.
    pub grace_seconds: i64,
    /// Set the user of data services, whose images start as root when nothing is said.
    pub data_user: bool,
    /// Own service account; none needs the API server.
    pub service_account: Option<String>,
    /// `Always` in Deployments and StatefulSets.
    pub restart_policy: Option<&'static str>,
    /// Spread over nodes and zones, and how strictly.
    pub spread: Option<Spread>,
    /// PriorityClass.
    pub priority_class: Option<String>,
}

/// The pod template.
pub(super) fn template(v: &Validated, pod: Pod) -> PodTemplateSpec {
    let Pod {
        component,
        config_hash,
        container,
        sidecars,
        volumes,
        grace_seconds,
        data_user,
        service_account,
        restart_policy,
        spread,
        priority_class,
    } = pod;
    let mut containers = [vec![container], sidecars].concat();
    for container in &mut containers {
        container.image_pull_policy = Some(v.spec.image_pull_policy.as_str().to_owned());
        container.security_context = Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        });
    }
    // OpenShift assigns ids from the namespace's range and refuses others.
    let user = (data_user && !v.openshift).then_some(DATA_USER);
    let pull_secrets: Vec<_> =
        v.spec.image_pull_secrets.iter().map(|s| LocalObjectReference { name: s.name.clone() }).collect();
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels::labels(v.names.stack(), component)),
            annotations: config_hash.map(|hash| BTreeMap::from([(CONFIG_HASH.to_owned(), hash)])),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            service_account_name: service_account,
            termination_grace_period_seconds: Some(grace_seconds),
            restart_policy: restart_policy.map(str::to_owned),
            image_pull_secrets: (!pull_secrets.is_empty()).then_some(pull_secrets),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: user,
                run_as_group: user,
                fs_group: user,
                fs_group_change_policy: user.map(|_| "OnRootMismatch".to_owned()),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
                ..PodSecurityContext::default()
            }),
            affinity: spread.map(|spread| anti_affinity(v, component, spread)),
            topology_spread_constraints: spread.map(|spread| spread_constraints(v, component, spread)),
            priority_class_name: priority_class,
            containers,
            volumes: Some(volumes),
            ..PodSpec::default()
        }),
    }
}

pub(super) const HOST: &str = "kubernetes.io/hostname";
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";

fn anti_affinity(v: &Validated, component: Component, spread: Spread) -> Affinity {
    let other_host = PodAffinityTerm {
        label_selector: Some(meta::selector(v, component)),
        topology_key: HOST.to_owned(),
        ..PodAffinityTerm::default()
    };
    let (required, preferred) = match spread {
        Spread::ScheduleAnyway => {
            (None, Some(vec![WeightedPodAffinityTerm { weight: 100, pod_affinity_term: other_host }]))
        }
        Spread::DoNotSchedule => (Some(vec![other_host]), None),
    };
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: required,
            preferred_during_scheduling_ignored_during_execution: preferred,
        }),
        ..Affinity::default()
    }
}

fn spread_constraints(v: &Validated, component: Component, spread: Spread) -> Vec<TopologySpreadConstraint> {
    [ZONE, HOST]
        .into_iter()
        .map(|key| TopologySpreadConstraint {
            max_skew: 1,
            topology_key: key.to_owned(),
            when_unsatisfiable: match spread {
                // One node must be enough.
                Spread::ScheduleAnyway => "ScheduleAnyway".to_owned(),
                Spread::DoNotSchedule => "DoNotSchedule".to_owned(),
            },
            label_selector: Some(meta::selector(v, component)),
            ..TopologySpreadConstraint::default()
        })
        .collect()
}

/// Requests and limits.
pub(super) fn resources(compute: &Compute) -> ResourceRequirements {
    let list = |cpu: &str, memory: &str| {
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu.to_owned())),
            ("memory".to_owned(), Quantity(memory.to_owned())),
        ])
    };
    ResourceRequirements {
        requests: Some(list(&compute.cpu_request.value.to_string(), &compute.memory_request.value.to_string())),
        limits: Some(list(&compute.cpu_limit.value.to_string(), &compute.memory_limit.value.to_string())),
        claims: None,
    }
}

/// A TCP port.
pub(super) fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// Timing of a probe: every `period` seconds, `failures` in a row count, each waits `timeout` seconds.
#[derive(Clone, Copy)]
pub(super) struct Timing {
    pub period: i32,
    pub timeout: i32,
    pub failures: i32,
}

/// GET on the port `http`, by HTTPS when the server serves that.
pub(super) fn http_probe(path: &str, tls: bool, timing: Timing) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            scheme: tls.then(|| "HTTPS".to_owned()),
            ..HTTPGetAction::default()
        }),
        ..probe(timing)
    }
}

/// TCP connect.
pub(super) fn tcp_probe(port: &str, timing: Timing) -> Probe {
    Probe {
        tcp_socket: Some(TCPSocketAction { port: IntOrString::String(port.to_owned()), host: None }),
        ..probe(timing)
    }
}

/// A command that ends with 0.
pub(super) fn exec_probe(command: &[&str], timing: Timing) -> Probe {
    Probe {
        exec: Some(ExecAction { command: Some(command.iter().map(|word| (*word).to_owned()).collect()) }),
        ..probe(timing)
    }
}

fn probe(timing: Timing) -> Probe {
    Probe {
        period_seconds: Some(timing.period),
        timeout_seconds: Some(timing.timeout),
        failure_threshold: Some(timing.failures),
        ..Probe::default()
    }
}

/// A Secret as files; with `items`, only these keys under these file names.
pub(super) fn secret_volume(name: &str, secret: &str, items: &[(&str, &str)]) -> Volume {
    let items: Vec<_> = items
        .iter()
        .map(|(key, path)| KeyToPath { key: (*key).to_owned(), path: (*path).to_owned(), mode: None })
        .collect();
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            items: (!items.is_empty()).then_some(items),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// A ConfigMap as files.
pub(super) fn config_map_volume(name: &str, config_map: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        config_map: Some(ConfigMapVolumeSource { name: config_map.to_owned(), ..ConfigMapVolumeSource::default() }),
        ..Volume::default()
    }
}

/// Scratch space of at most `limit`.
pub(super) fn empty_dir(name: &str, limit: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource { size_limit: Some(Quantity(limit.to_owned())), medium: None }),
        ..Volume::default()
    }
}

/// A volume at `path`.
pub(super) fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// Words of a command line.
pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
