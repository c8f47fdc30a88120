//! The standalone database: one PostgreSQL pod on one retained volume.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, Volume,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::labels::Component;
use super::pod::{self, Pod, Timing};
use super::{Database, meta};
use crate::controllers::persesstack::validate::Validated;
use crate::sizing::{DatabaseSizing, Sizing};

const START: &str = include_str!("postgres/start.sh");
const READY: &str = include_str!("postgres/ready.sh");
const HBA: &str = "# Within the pod everybody who may exec into it; from the network only with a password.\n\
                   local all all trust\n\
                   host all all all scram-sha-256\n";

/// ConfigMap, Service and StatefulSet.
pub(super) fn build(v: &Validated, sizing: &DatabaseSizing) -> Database {
    let name = v.names.database();
    let files = BTreeMap::from([
        ("start.sh".to_owned(), START.to_owned()),
        ("ready.sh".to_owned(), READY.to_owned()),
        ("pg_hba.conf".to_owned(), HBA.to_owned()),
        ("postgresql.conf".to_owned(), parameters(sizing)),
    ]);
    let stateful_set = v.endpoint.as_ref().map(|_| {
        // The password too: the start script hands one that was edited to the server.
        let password = v.generated.database_seed(&v.names);
        stateful_set(v, sizing, meta::hash(files.values().map(String::as_bytes).chain([password.as_bytes()])))
    });
    Database {
        config: config(v, files),
        service: meta::service(v, name, Component::Database, "postgres", 5432),
        stateful_set,
    }
}

/// The volume claim. Not a template of the StatefulSet: those cannot grow.
pub(super) fn claim(v: &Validated, sizing: &Sizing) -> Option<PersistentVolumeClaim> {
    let storage = &sizing.database.as_ref().filter(|own| !own.crunchy)?.storage;
    let class = v.spec.database.standalone.as_ref().and_then(|s| s.storage.storage_class_name.clone());
    Some(PersistentVolumeClaim {
        metadata: meta::retained(v, v.names.database(), Component::Database),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: class,
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(storage.value.to_string()))])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    })
}

fn config(v: &Validated, files: BTreeMap<String, String>) -> ConfigMap {
    meta::config_map(meta::owned(v, v.names.database(), Component::Database), files)
}

/// Seed section 3, scaled.
fn parameters(sizing: &DatabaseSizing) -> String {
    let mb = |bytes: crate::sizing::Bytes| format!("{}MB", bytes.mib());
    format!(
        "listen_addresses = '*'\n\
         port = 5432\n\
         unix_socket_directories = '/tmp'\n\
         hba_file = '/etc/perses/postgres/pg_hba.conf'\n\
         password_encryption = 'scram-sha-256'\n\
         max_connections = {connections}\n\
         superuser_reserved_connections = 5\n\
         shared_buffers = {shared}\n\
         effective_cache_size = {cache}\n\
         work_mem = {work}\n\
         maintenance_work_mem = {maintenance}\n\
         random_page_cost = 1.1\n\
         effective_io_concurrency = 200\n\
         max_wal_size = {wal}\n\
         checkpoint_completion_target = 0.9\n\
         checkpoint_timeout = 15min\n\
         wal_level = replica\n\
         max_wal_senders = 5\n\
         max_replication_slots = 5\n\
         hot_standby = on\n\
         tcp_keepalives_idle = 60\n\
         log_line_prefix = '%m [%p] %q%u@%d '\n",
        connections = sizing.max_connections.value,
        shared = mb(sizing.shared_buffers.value),
        cache = mb(sizing.effective_cache_size.value),
        work = mb(sizing.work_mem.value),
        maintenance = mb(sizing.maintenance_work_mem.value),
        wal = mb(sizing.max_wal_size.value),
    )
}

fn stateful_set(v: &Validated, sizing: &DatabaseSizing, hash: String) -> StatefulSet {
    let name = v.names.database();
    let ready = ["sh", "/etc/perses/postgres/ready.sh"];
    let container = Container {
        name: "postgres".to_owned(),
        image: Some(v.images.postgres.clone()),
        // Past the entry point of the image, which expects to start as root.
        command: Some(pod::words(&["sh", "/etc/perses/postgres/start.sh"])),
        ports: Some(vec![pod::port("postgres", 5432)]),
        resources: Some(pod::resources(&sizing.compute)),
        // Half an hour for crash recovery of a large log.
        startup_probe: Some(pod::exec_probe(&ready, Timing { period: 2, timeout: 5, failures: 900 })),
        readiness_probe: Some(pod::exec_probe(&ready, Timing { period: 5, timeout: 5, failures: 2 })),
        liveness_probe: Some(pod::exec_probe(&ready, Timing { period: 20, timeout: 10, failures: 6 })),
        volume_mounts: Some(vec![
            pod::mount("data", "/var/lib/perses", false),
            pod::mount("config", "/etc/perses/postgres", true),
            pod::mount("credentials", "/etc/perses/database", true),
            pod::mount("tmp", "/tmp", false),
        ]),
        ..Container::default()
    };
    let data = Volume {
        name: "data".to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name: name.clone(), read_only: None }),
        ..Volume::default()
    };
    StatefulSet {
        metadata: meta::owned(v, name.clone(), Component::Database),
        spec: Some(StatefulSetSpec {
            replicas: Some(v.running.database.of(1)),
            service_name: Some(name.clone()),
            revision_history_limit: Some(3),
            // With `OrderedReady` a pod that never gets ready blocks its own repair.
            pod_management_policy: Some("Parallel".to_owned()),
            selector: meta::selector(v, Component::Database),
            template: pod::template(
                v,
                Pod {
                    component: Component::Database,
                    config_hash: Some(hash),
                    container,
                    sidecars: Vec::new(),
                    volumes: vec![
                        data,
                        pod::config_map_volume("config", &name),
                        pod::secret_volume(
                            "credentials",
                            &name,
                            &[("dbname", "dbname"), ("user", "user"), ("password", "password")],
                        ),
                        pod::empty_dir("tmp", "256Mi"),
                    ],
                    // Fast shutdown writes a checkpoint.
                    grace_seconds: 120,
                    data_user: true,
                    service_account: None,
                    restart_policy: None,
                    spread: None,
                    priority_class: None,
                },
            ),
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}
