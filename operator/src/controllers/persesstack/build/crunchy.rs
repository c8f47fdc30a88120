//! The PostgresCluster of Crunchy's operator, as JSON: only fields that we own.

use kube::api::DynamicObject;
use serde_json::{Map, Value, json};

use super::labels::{self, Component};
use super::pgbouncer::STATEMENT_WAIT_SECONDS;
use super::{meta, pod};
use crate::api::v1alpha1::{BackupType, Backups, Crunchy, Exporter, PoolerType};
use crate::apply::kind::Kind;
use crate::controllers::persesstack::crunchy::{SET, USER};
use crate::controllers::persesstack::provider::{ClusterPlan, READ_ONLY};
use crate::controllers::persesstack::suspension::Pods;
use crate::controllers::persesstack::validate::Validated;
use crate::sizing::{Compute, DatabaseSizing, PoolerSizing};

const PREFIX: &str = "postgres-operator.crunchydata.com";
/// The one backup repository.
const REPOSITORY: &str = "repo1";

/// The cluster.
pub(super) fn build(
    v: &Validated,
    plan: ClusterPlan,
    sizing: &DatabaseSizing,
    pooler: Option<&PoolerSizing>,
) -> DynamicObject {
    let wanted = v.spec.database.crunchy.clone().unwrap_or_default();
    let name = v.names.database();
    let mut metadata = meta::retained(v, name.clone(), Component::Database);
    // PostgreSQL 15 and later lets nobody create tables in `public`: the user gets a schema of its own name.
    let mut annotations = vec![(format!("{PREFIX}/autoCreateUserSchema"), "true".to_owned())];
    if plan.backups_end {
        annotations.push((format!("{PREFIX}/authorizeBackupRemoval"), "true".to_owned()));
    }
    metadata.annotations = Some(annotations.into_iter().collect());

    let parameters = parameters(&wanted, sizing);
    let mut spec = json!({
        "postgresVersion": 17,
        // Copied to PGO's objects. None of the labels that say whose child an object is: those are PGO's.
        "metadata": { "labels": { "app.kubernetes.io/part-of": "perses-stack", labels::STACK_KEY: v.names.stack() } },
        "imagePullPolicy": v.spec.image_pull_policy.as_str(),
        "instances": [instance(&name, &wanted, plan, sizing)],
        "users": [{
            "name": USER,
            "databases": [USER],
            // The role that owns the tables is made by `migrate`, so that users can be replaced.
            "options": "CREATEROLE",
            // Letters and digits are safe in addresses and configuration files.
            "password": { "type": "AlphaNumeric" },
        }],
    });
    if plan.schema.parameters {
        spec["config"] = json!({ "parameters": parameters });
    } else {
        spec["patroni"] = json!({ "dynamicConfiguration": { "postgresql": { "parameters": parameters } } });
    }
    if let Some(image) = &wanted.image {
        spec["image"] = json!(image);
    }
    if !v.spec.image_pull_secrets.is_empty() {
        spec["imagePullSecrets"] = json!(v.spec.image_pull_secrets);
    }
    if wanted.exporter == Exporter::Enabled {
        let resources = json!({
            "requests": { "cpu": "10m", "memory": "64Mi" }, "limits": { "cpu": "200m", "memory": "128Mi" } });
        spec["monitoring"] = json!({ "pgmonitor": { "exporter": { "resources": resources } } });
    }
    if wanted.backups.type_ != BackupType::None {
        spec["backups"] = backups(&wanted.backups, sizing);
    }
    if let Some(pooler) = pooler.filter(|_| v.spec.pooler.type_ == PoolerType::Crunchy) {
        spec["proxy"] = proxy(&name, sizing, pooler);
    }
    if v.running.database == Pods::Stop {
        spec["shutdown"] = json!(true);
    }
    meta::custom(Kind::PostgresCluster, metadata, &spec)
}

fn instance(cluster: &str, wanted: &Crunchy, plan: ClusterPlan, sizing: &DatabaseSizing) -> Value {
    let storage = &wanted.storage;
    let mut resources = json!({ "requests": { "storage": sizing.storage.value.to_string() } });
    let mut claim = json!({ "accessModes": ["ReadWriteOnce"] });
    if let Some(most) = &storage.max_size {
        resources["limits"] = json!({ "storage": most });
        if plan.schema.auto_grow {
            claim["autoGrow"] = json!({ "trigger": 75 });
        }
    }
    claim["resources"] = resources;
    if let Some(class) = &storage.storage_class_name {
        claim["storageClassName"] = json!(class);
    }
    let selector =
        json!({ "matchLabels": { (format!("{PREFIX}/cluster")): cluster, (format!("{PREFIX}/instance-set")): SET } });
    json!({
        "name": SET,
        "replicas": sizing.replicas.value,
        "resources": compute(&sizing.compute),
        "dataVolumeClaimSpec": claim,
        "topologySpreadConstraints": spread(&selector),
    })
}

fn spread(selector: &Value) -> Vec<Value> {
    // One node must be enough.
    let constraint = |key: &str| json!({ "maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector });
    vec![constraint(pod::ZONE), constraint(pod::HOST)]
}

fn compute(compute: &Compute) -> Value {
    json!({
        "requests": { "cpu": compute.cpu_request.value.to_string(), "memory": compute.memory_request.value.to_string() },
        "limits": { "cpu": compute.cpu_limit.value.to_string(), "memory": compute.memory_limit.value.to_string() },
    })
}

/// Seed section 3, scaled. Left out, because the CRD refuses it: `wal_level` (always logical) and `hot_standby` (always on).
fn parameters(wanted: &Crunchy, sizing: &DatabaseSizing) -> Map<String, Value> {
    let mb = |bytes: crate::sizing::Bytes| json!(format!("{}MB", bytes.mib()));
    // The seed's 5, and enough for every replica, its first copy, and backups.
    let senders = (sizing.replicas.value + 3).max(5);
    let derived = json!({
        "max_connections": sizing.max_connections.value,
        "superuser_reserved_connections": crate::sizing::budget::SUPERUSER_RESERVED,
        "shared_buffers": mb(sizing.shared_buffers.value),
        "effective_cache_size": mb(sizing.effective_cache_size.value),
        "work_mem": mb(sizing.work_mem.value),
        "maintenance_work_mem": mb(sizing.maintenance_work_mem.value),
        "random_page_cost": "1.1",
        "effective_io_concurrency": 200,
        "wal_buffers": "16MB",
        "max_wal_size": mb(sizing.max_wal_size.value),
        "checkpoint_completion_target": "0.9",
        "checkpoint_timeout": "15min",
        "max_wal_senders": senders,
        "max_replication_slots": senders,
    });
    let mut all = match derived {
        Value::Object(all) => all,
        _ => Map::new(),
    };
    all.extend(wanted.parameters.iter().map(|(name, value)| (name.clone(), json!(value))));
    all
}

fn backups(wanted: &Backups, sizing: &DatabaseSizing) -> Value {
    let schedules = json!({ "full": wanted.schedules.full, "differential": wanted.schedules.differential });
    let mut repository = json!({ "name": REPOSITORY, "schedules": schedules });
    let mut pgbackrest = json!({
        // By time: a full backup and what builds on it go when a younger full one covers the days. Without it they never go.
        "global": {
            (format!("{REPOSITORY}-retention-full")): wanted.retention_days.to_string(),
            (format!("{REPOSITORY}-retention-full-type")): "time",
        },
    });
    if let Some(s3) = &wanted.s3 {
        repository["s3"] = json!({ "bucket": s3.bucket, "endpoint": s3.endpoint, "region": s3.region });
        pgbackrest["configuration"] = json!([{ "secret": { "name": s3.secret_ref.name } }]);
    } else {
        let size = sizing.backup_storage.as_ref().unwrap_or(&sizing.storage);
        let mut claim = json!({
            "accessModes": ["ReadWriteOnce"],
            "resources": { "requests": { "storage": size.value.to_string() } },
        });
        if let Some(class) = wanted.volume.as_ref().and_then(|volume| volume.storage_class_name.as_ref()) {
            claim["storageClassName"] = json!(class);
        }
        repository["volume"] = json!({ "volumeClaimSpec": claim });
    }
    pgbackrest["repos"] = json!([repository]);
    json!({ "pgbackrest": pgbackrest })
}

/// PGO's own pooler. Every value of `global` is a string: the CRD refuses numbers.
fn proxy(cluster: &str, database: &DatabaseSizing, sizing: &PoolerSizing) -> Value {
    let (pool, reserve) = (sizing.default_pool_size.value, sizing.reserve_pool_size.value);
    let mut config = json!({ "global": {
        "pool_mode": "transaction",
        "max_prepared_statements": "200",
        "max_client_conn": sizing.max_client_conn.value.to_string(),
        "default_pool_size": pool.to_string(),
        "reserve_pool_size": reserve.to_string(),
        "reserve_pool_timeout": "3",
        "max_db_connections": (pool + reserve).to_string(),
        "query_wait_timeout": STATEMENT_WAIT_SECONDS.to_string(),
        "server_idle_timeout": "300",
        "ignore_startup_parameters": "extra_float_digits,options",
    } });
    if database.replicas.value > 1 {
        config["databases"] = json!({
            READ_ONLY: format!("host={cluster}-replicas port=5432 dbname={USER}"),
            // An entry of ours replaces PGO's own for all other names.
            "*": format!("host={cluster}-primary port=5432"),
        });
    }
    let selector =
        json!({ "matchLabels": { (format!("{PREFIX}/cluster")): cluster, (format!("{PREFIX}/role")): "pgbouncer" } });
    json!({ "pgBouncer": {
        "replicas": sizing.replicas.value,
        "resources": compute(&sizing.compute),
        "config": config,
        "topologySpreadConstraints": spread(&selector),
    } })
}
