//! Three Redis with a sentinel beside each. Who leads is theirs to decide; nothing here names a leader.
//!
//! Everybody is known by the name of a pod, never by an address, since a pod comes back under another one. Each begins with
//! knowing all (`pods`), so a leader that is away from the beginning is replaced too, and two are always needed for that.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ExecAction, Lifecycle, LifecycleHandler, ObjectFieldSelector,
    ResourceRequirements, Secret, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{PORT, SENTINEL_PORT, settings};
use crate::api::v1alpha1::Spread;
use crate::controllers::persesstack::build::labels::Component;
use crate::controllers::persesstack::build::pod::{self, Pod, Timing};
use crate::controllers::persesstack::build::{Cache, exporter, meta};
use crate::controllers::persesstack::generated::PEER;
use crate::controllers::persesstack::validate::Validated;
use crate::sizing::{Bytes, RedisSizing};

/// Name under which the sentinels know the leader.
pub(in super::super) const LEADER: &str = "perses";
/// Where the pods find their files.
const FOLDER: &str = "/etc/perses/redis";
const SCRIPT: &str = include_str!("redis.sh");

/// Until a sentinel counts a server as away, and how long one attempt to replace it may take, in milliseconds.
const DOWN_AFTER: u32 = 5000;
const FAILOVER_TIMEOUT: u32 = 10_000;

/// Configuration, Services, StatefulSet and disruption budget.
pub(super) fn build(v: &Validated, sizing: &RedisSizing) -> Cache {
    let name = v.names.redis();
    let files = files(v, sizing);
    let stateful_set = files.as_ref().map(|files| {
        let hash = meta::hash(files.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_slice()]));
        stateful_set(v, sizing, hash)
    });
    let sentinels = meta::service(v, name.clone(), Component::Redis, "sentinel", SENTINEL_PORT);
    Cache {
        config: files.map(|files| config(v, files)),
        services: vec![exporter::served(v, sentinels, exporter::REDIS), peers(v)],
        deployment: None,
        stateful_set,
        pdb: Some(meta::pdb(v, name, Component::Redis)),
    }
}

/// `host:port` of each sentinel.
pub(in super::super) fn addresses(v: &Validated, sizing: &RedisSizing) -> Vec<String> {
    hosts(v, sizing).into_iter().map(|host| format!("{host}:{SENTINEL_PORT}")).collect()
}

/// Under what the pods know each other, the one that leads in the beginning first.
fn hosts(v: &Validated, sizing: &RedisSizing) -> Vec<String> {
    let (pod, service) = (v.names.redis(), v.names.redis_peers());
    (0..sizing.replicas.value).map(|number| format!("{pod}-{number}.{service}")).collect()
}

/// Names for the pods. Those that are not ready have theirs too: they must find each other to get ready.
fn peers(v: &Validated) -> Service {
    let mut service = meta::service(v, v.names.redis_peers(), Component::Redis, "redis", PORT);
    if let Some(spec) = &mut service.spec {
        spec.cluster_ip = Some("None".to_owned());
        spec.publish_not_ready_addresses = Some(true);
    }
    service
}

/// What the pods read at their start; `None` while passwords are waited for.
fn files(v: &Validated, sizing: &RedisSizing) -> Option<BTreeMap<String, Vec<u8>>> {
    let (own, peers) = (v.names.redis(), v.names.redis_peers());
    let password = v.generated.text(&peers, "password")?;
    let other = v.generated.text(&peers, "other-password")?;
    let client = (v.generated.text(&own, "username")?, accepted(v.generated.text(&own, "users.acl")?));
    let peer = (PEER, if other == password { format!(">{password}") } else { format!(">{password} >{other}") });
    let pods = hosts(v, sizing).into_iter().fold(String::new(), |mut text, host| {
        // As long as a name of a sentinel must be.
        let id = &blake3::hash(format!("{}/{host}", v.namespace).as_bytes()).to_hex()[..40];
        _ = writeln!(text, "{host} {id}");
        text
    });
    let files = [
        ("redis.sh", SCRIPT.to_owned()),
        ("redis.conf", redis_conf(sizing, password)),
        ("users.acl", redis_users(&client, &peer)),
        ("sentinel.conf", sentinel_conf(password, &client, &peer)),
        ("pods", pods),
        ("password", password.to_owned()),
    ];
    Some(files.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes())).collect())
}

/// The passwords of the server's user as the ACL of the generated Secret has them.
fn accepted(acl: &str) -> String {
    let words = acl.split_whitespace().filter(|word| word.starts_with(['>', '#']));
    words.collect::<Vec<_>>().join(" ")
}

/// The server as with one Redis; it also asks who leads. Peers copy data and make each other replica or leader.
fn redis_users((user, passwords): &(&str, String), (peer, peers): &(&str, String)) -> String {
    format!(
        "user default off\n\
         user {user} on {passwords} ~* &* +@all -@admin -@dangerous +info +flushdb +role\n\
         user {peer} on {peers} ~* &* -@all +psync +replconf +ping +info +role +publish +subscribe +multi +exec +slaveof \
         +replicaof +config|rewrite +client|setname +client|setinfo +client|kill +script|kill\n"
    )
}

fn redis_conf(sizing: &RedisSizing, password: &str) -> String {
    let mut text = String::new();
    for (name, words) in settings(sizing) {
        _ = writeln!(text, "{name} {}", words.join(" "));
    }
    let memory = sizing.compute.memory_limit.value.0;
    _ = write!(
        text,
        "masteruser {PEER}\n\
         masterauth {password}\n\
         repl-diskless-sync-delay 0\n\
         repl-backlog-size {backlog}\n\
         client-output-buffer-limit replica {buffer} {buffer} 60\n",
        // Beside the data, of which a sync makes a copy.
        backlog = memory / 64,
        buffer = memory / 8,
    );
    text
}

/// The start script puts the leader in.
fn sentinel_conf(password: &str, (user, passwords): &(&str, String), (peer, peers): &(&str, String)) -> String {
    format!(
        "port {SENTINEL_PORT}\n\
         bind * -::*\n\
         protected-mode no\n\
         dir /data\n\
         user default off\n\
         user {user} on {passwords} -@all +auth +hello +ping +role +client|setname +client|setinfo +sentinel|masters \
         +sentinel|master +sentinel|replicas +sentinel|sentinels +sentinel|get-master-addr-by-name\n\
         user {peer} on {peers} &* +@all\n\
         sentinel sentinel-user {peer}\n\
         sentinel sentinel-pass {password}\n\
         sentinel resolve-hostnames yes\n\
         sentinel announce-hostnames yes\n\
         sentinel deny-scripts-reconfig yes\n\
         sentinel monitor {LEADER} LEADER {PORT} 2\n\
         sentinel auth-user {LEADER} {peer}\n\
         sentinel auth-pass {LEADER} {password}\n\
         sentinel down-after-milliseconds {LEADER} {DOWN_AFTER}\n\
         sentinel failover-timeout {LEADER} {FAILOVER_TIMEOUT}\n"
    )
}

fn config(v: &Validated, files: BTreeMap<String, Vec<u8>>) -> Secret {
    meta::secret(meta::owned(v, v.names.redis_config(), Component::Redis), files, false)
}

/// A command of the script.
fn script(word: &str) -> Vec<String> {
    pod::words(&["sh", &format!("{FOLDER}/redis.sh"), word])
}

fn redis(v: &Validated, sizing: &RedisSizing) -> Container {
    let ready = script("ready");
    let ready: Vec<&str> = ready.iter().map(String::as_str).collect();
    Container {
        name: "redis".to_owned(),
        image: Some(v.images.redis.clone()),
        command: Some(script("server")),
        env: Some(vec![pod_name()]),
        ports: Some(vec![pod::port("redis", PORT)]),
        resources: Some(pod::resources(&sizing.compute)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                exec: Some(ExecAction { command: Some(script("leave")) }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        startup_probe: Some(pod::tcp_probe("redis", Timing { period: 1, timeout: 1, failures: 120 })),
        readiness_probe: Some(pod::exec_probe(&ready, Timing { period: 5, timeout: 5, failures: 2 })),
        liveness_probe: Some(pod::tcp_probe("redis", Timing { period: 10, timeout: 5, failures: 6 })),
        volume_mounts: Some(mounts("data")),
        ..Container::default()
    }
}

fn sentinel(v: &Validated) -> Container {
    let list = |cpu: &str, memory: &str| {
        let quantity = |text: &str| Quantity(text.to_owned());
        BTreeMap::from([("cpu".to_owned(), quantity(cpu)), ("memory".to_owned(), quantity(memory))])
    };
    Container {
        name: "sentinel".to_owned(),
        image: Some(v.images.redis.clone()),
        command: Some(script("sentinel")),
        env: Some(vec![pod_name()]),
        ports: Some(vec![pod::port("sentinel", SENTINEL_PORT)]),
        resources: Some(ResourceRequirements {
            requests: Some(list("20m", "32Mi")),
            limits: Some(list("200m", "64Mi")),
            claims: None,
        }),
        startup_probe: Some(pod::tcp_probe("sentinel", Timing { period: 1, timeout: 1, failures: 60 })),
        readiness_probe: Some(pod::tcp_probe("sentinel", Timing { period: 5, timeout: 2, failures: 2 })),
        liveness_probe: Some(pod::tcp_probe("sentinel", Timing { period: 10, timeout: 5, failures: 6 })),
        volume_mounts: Some(mounts("sentinel")),
        ..Container::default()
    }
}

fn pod_name() -> EnvVar {
    let field = ObjectFieldSelector { api_version: None, field_path: "metadata.name".to_owned() };
    EnvVar {
        name: "POD_NAME".to_owned(),
        value: None,
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
    }
}

fn mounts(data: &str) -> Vec<k8s_openapi::api::core::v1::VolumeMount> {
    vec![pod::mount("config", FOLDER, true), pod::mount(data, "/data", false), pod::mount("tmp", "/tmp", false)]
}

fn stateful_set(v: &Validated, sizing: &RedisSizing, hash: String) -> StatefulSet {
    StatefulSet {
        metadata: meta::owned(v, v.names.redis(), Component::Redis),
        spec: Some(StatefulSetSpec {
            replicas: Some(v.running.cache.of(sizing.replicas.value)),
            service_name: Some(v.names.redis_peers()),
            revision_history_limit: Some(3),
            // All at once where none runs: two are needed to know who leads. Replaced are they one by one all the same.
            pod_management_policy: Some("Parallel".to_owned()),
            selector: meta::selector(v, Component::Redis),
            template: meta::seen(
                pod::template(
                    v,
                    Pod {
                        component: Component::Redis,
                        config_hash: Some(hash),
                        container: redis(v, sizing),
                        sidecars: std::iter::once(sentinel(v)).chain(exporter::redis(v)).collect(),
                        volumes: vec![
                            pod::secret_volume("config", &v.names.redis_config(), &[]),
                            // Survive a restart of the container, not of the pod: what a new pod needs the others have.
                            pod::empty_dir("data", &Bytes(2 * sizing.compute.memory_limit.value.0).to_string()),
                            pod::empty_dir("sentinel", "16Mi"),
                            pod::empty_dir("tmp", "64Mi"),
                        ],
                        // For the handing over, and then for saving.
                        grace_seconds: 60,
                        data_user: true,
                        service_account: None,
                        restart_policy: None,
                        spread: Some(Spread::ScheduleAnyway),
                        priority_class: None,
                    },
                ),
                v.seen().redis,
            ),
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}
