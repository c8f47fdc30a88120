//! Redis, the cache that the API pods share.

mod sentinel;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::Container;

use super::labels::Component;
use super::pod::{self, Pod, Timing};
use super::{Cache, exporter, meta};
use crate::controllers::persesstack::validate::Validated;
use crate::sizing::{Bytes, RedisSizing};

pub(super) use sentinel::{LEADER, addresses};

/// Port of the server.
pub(super) const PORT: i32 = 6379;
/// Port of a sentinel.
pub(super) const SENTINEL_PORT: i32 = 26379;

/// One pod, or three with sentinels.
pub(super) fn build(v: &Validated, sizing: &RedisSizing) -> Cache {
    if sizing.sentinels {
        return sentinel::build(v, sizing);
    }
    let name = v.names.redis();
    // Without the Secret there is nothing to sign in with.
    let deployment = v.generated.text(&name, "users.acl").map(|acl| deployment(v, sizing, acl));
    let service = meta::service(v, name, Component::Redis, "redis", PORT);
    Cache {
        config: None,
        services: vec![exporter::served(v, service, exporter::REDIS)],
        deployment,
        stateful_set: None,
        pdb: None,
    }
}

/// What every Redis of a stack is set up with.
fn settings(sizing: &RedisSizing) -> Vec<(&'static str, Vec<String>)> {
    let maxmemory = sizing.maxmemory.value.0.to_string();
    let settings: [(&'static str, &[&str]); 11] = [
        ("port", &["6379"]),
        // Loopback and pod address, IPv6 where there is one. Protected mode looks at the default user, which is off.
        ("bind", &["*", "-::*"]),
        ("protected-mode", &["no"]),
        ("dir", &["/data"]),
        ("maxmemory", &[&maxmemory]),
        ("maxmemory-policy", &["allkeys-lru"]),
        ("save", &["900", "1"]),
        ("appendonly", &["no"]),
        // A full disk must not stop writes to a cache.
        ("stop-writes-on-bgsave-error", &["no"]),
        ("lazyfree-lazy-eviction", &["yes"]),
        ("tcp-keepalive", &["60"]),
    ];
    settings.into_iter().map(|(name, words)| (name, pod::words(words))).collect()
}

fn deployment(v: &Validated, sizing: &RedisSizing, acl: &str) -> Deployment {
    let name = v.names.redis();
    let mut options = settings(sizing);
    // Where it was always: a moved argument would start the pod anew.
    options.insert(3, ("aclfile", pod::words(&["/etc/perses/redis/users.acl"])));
    let args = options.into_iter().flat_map(|(name, words)| [vec![format!("--{name}")], words].concat()).collect();
    let container = Container {
        name: "redis".to_owned(),
        image: Some(v.images.redis.clone()),
        // Plain program name: found in the official image and in Debian's packages alike, past any entry point.
        command: Some(pod::words(&["redis-server"])),
        args: Some(args),
        ports: Some(vec![pod::port("redis", PORT)]),
        resources: Some(pod::resources(&sizing.compute)),
        startup_probe: Some(pod::tcp_probe("redis", Timing { period: 1, timeout: 1, failures: 120 })),
        readiness_probe: Some(pod::tcp_probe("redis", Timing { period: 5, timeout: 2, failures: 2 })),
        liveness_probe: Some(pod::tcp_probe("redis", Timing { period: 10, timeout: 5, failures: 6 })),
        volume_mounts: Some(vec![
            pod::mount("acl", "/etc/perses/redis", true),
            pod::mount("data", "/data", false),
            pod::mount("tmp", "/tmp", false),
        ]),
        ..Container::default()
    };
    Deployment {
        metadata: meta::owned(v, name.clone(), Component::Redis),
        spec: Some(DeploymentSpec {
            replicas: Some(v.running.cache.of(1)),
            revision_history_limit: Some(3),
            selector: meta::selector(v, Component::Redis),
            // Never two at once: half of the pods would miss the other half's invalidations.
            strategy: Some(DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None }),
            template: meta::seen(
                pod::template(
                    v,
                    Pod {
                        component: Component::Redis,
                        config_hash: Some(meta::hash([acl.as_bytes()])),
                        container,
                        sidecars: exporter::redis(v).into_iter().collect(),
                        volumes: vec![
                            pod::secret_volume("acl", &name, &[("users.acl", "users.acl")]),
                            // Survives a restart of the container, not of the pod: it is a cache.
                            pod::empty_dir("data", &Bytes(2 * sizing.compute.memory_limit.value.0).to_string()),
                            pod::empty_dir("tmp", "64Mi"),
                        ],
                        grace_seconds: 30,
                        data_user: true,
                        service_account: None,
                        restart_policy: None,
                        spread: None,
                        priority_class: None,
                    },
                ),
                v.seen().redis,
            ),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}
