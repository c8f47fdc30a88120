//! PURE: from a validated spec and its sizing to every object that should exist.

pub mod account;
mod api;
mod crunchy;
mod exporter;
mod exposure;
mod hpa;
mod job;
pub mod labels;
mod limits_file;
mod meta;
mod migration;
pub mod monitoring;
pub mod names;
pub mod network_policy;
mod pgbouncer;
mod pod;
mod pod_template;
mod postgres;
mod provisioning;
mod quota;
mod redis;
mod rotation;
mod server_config;
mod sign_in;
mod target;

pub use meta::{CONFIG_HASH, MIGRATION, SUSPENDED, hosts};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, ResourceQuota, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::DynamicObject;

use self::labels::Component;
use super::rotation::STATE;
use super::validate::{Invalid, Validated};
use crate::api::v1alpha1::{PoolerType, QuotaMode};
use crate::apply::footprint::footprint;
use crate::apply::order::plan;
use crate::sizing::Sizing;

/// Everything that should exist for one stack, grouped by what `apply` must know. Destructure it without `..`, so that
/// a new group cannot be forgotten. An object that needs something that is waited for is `None`: what exists of it stays
/// as it is.
#[derive(Clone, Debug)]
pub struct Resources {
    /// What must survive: created when absent, never overwritten.
    pub retained: Retained,
    /// Standalone database; `None` when the store is elsewhere.
    pub database: Option<Database>,
    /// Cluster of Crunchy's operator; `None` when the store is elsewhere.
    pub cluster: Option<Cluster>,
    /// Shared cache.
    pub cache: Option<Cache>,
    /// Connection pooler; apply after the database objects.
    pub pooler: Option<Pooler>,
    /// Schema migration for this image and database.
    pub migration: Option<Migration>,
    /// Jobs of rotations, each with its configuration.
    pub rotation: Vec<Migration>,
    /// The way in from outside; `None` while it is not known what to choose, or what is asked for is not there.
    pub exposure: Option<Exposure>,
    /// What Prometheus needs to watch the stack.
    pub monitoring: Monitoring,
    /// API server; its Deployment waits for the migration of a new image, never for less.
    pub api: Api,
    /// What the namespace and the network allow.
    pub limits: Limits,
}

/// Limits of the server, and around the stack.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// What the running server reads again.
    pub server: ConfigMap,
    /// Quota of the namespace; apply before anything that has pods.
    pub quota: Option<ResourceQuota>,
    /// One for each protected part.
    pub network_policies: Vec<NetworkPolicy>,
}

/// Objects that hold data. They have no owner reference under `deletionPolicy: Retain`.
#[derive(Clone, Debug)]
pub struct Retained {
    /// Generated once. When the Secret exists its values stand here, so applying again changes nothing but metadata.
    pub secrets: Vec<Secret>,
    /// Volume claim of the standalone database; server-side apply grows it, nothing else may change.
    pub claim: Option<PersistentVolumeClaim>,
}

/// Standalone PostgreSQL.
#[derive(Clone, Debug)]
pub struct Database {
    /// Start script, `pg_hba.conf`.
    pub config: ConfigMap,
    /// Headless-free ClusterIP Service on 5432.
    pub service: Service,
    /// One pod.
    pub stateful_set: Option<StatefulSet>,
}

/// PostgreSQL of Crunchy's operator. It has no owner reference under `deletionPolicy: Retain`.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The PostgresCluster; `None` while its API cannot be asked.
    pub object: Option<DynamicObject>,
}

/// Redis: one pod, or three with sentinels.
#[derive(Clone, Debug)]
pub struct Cache {
    /// What the three read at their start: settings, users, the script.
    pub config: Option<Secret>,
    /// The server's address, or that of the sentinels and the names of the three.
    pub services: Vec<Service>,
    /// One pod.
    pub deployment: Option<Deployment>,
    /// Three pods.
    pub stateful_set: Option<StatefulSet>,
    /// Keeps two of the three during drains.
    pub pdb: Option<PodDisruptionBudget>,
}

/// PgBouncer.
#[derive(Clone, Debug)]
pub struct Pooler {
    /// `pgbouncer.ini` and `userlist.txt`.
    pub config: Option<Secret>,
    /// Service 5432 -> 6432.
    pub service: Service,
    /// The pods.
    pub deployment: Option<Deployment>,
    /// Keeps one pod during drains.
    pub pdb: PodDisruptionBudget,
}

/// Schema migration. Both objects carry the same hash-built name and never change: create when absent.
#[derive(Clone, Debug)]
pub struct Migration {
    /// Immutable; configuration with the direct address of the primary.
    pub config: Secret,
    /// The Job.
    pub job: Job,
}

/// The way in from outside: at most one object.
#[derive(Clone, Debug)]
pub struct Exposure {
    /// Route of OpenShift.
    pub route: Option<DynamicObject>,
    /// HTTPRoute of the Gateway API.
    pub http_route: Option<DynamicObject>,
    /// Ingress.
    pub ingress: Option<Ingress>,
}

/// What Prometheus needs to watch the stack. Each is `None` while it is not known what is wanted of it.
#[derive(Clone, Debug)]
pub struct Monitoring {
    /// Where to scrape: the API pods, and the exporters.
    pub service_monitors: Option<Vec<DynamicObject>>,
    /// The exporters beside the instances of a PostgresCluster.
    pub pod_monitor: Option<Option<DynamicObject>>,
    /// What to alert on.
    pub rules: Option<Option<DynamicObject>>,
}

/// The API server.
#[derive(Clone, Debug)]
pub struct Api {
    /// Immutable and hash-named: create when absent, keep while a ReplicaSet refers to it.
    pub config: Option<Secret>,
    /// Datasources, re-read by the running server.
    pub provisioning: Secret,
    /// Without a token.
    pub service_account: ServiceAccount,
    /// Its bindings to cluster roles: outside the namespace, kept by [`crate::apply::cluster`].
    pub bindings: Vec<ClusterRoleBinding>,
    /// Authority of OpenShift's services, filled in by OpenShift.
    pub service_authority: Option<ConfigMap>,
    /// Service `http` 8080.
    pub service: Service,
    /// `spec.replicas` is set only when the Deployment does not exist yet: afterwards the HPA owns it. The annotation
    /// [`MIGRATION`] names the migration that it needs.
    pub deployment: Option<Deployment>,
    /// Autoscaler; `None` while it is not known whether a metric that it is to follow can be had.
    pub hpa: Option<HorizontalPodAutoscaler>,
    /// Disruption budget.
    pub pdb: PodDisruptionBudget,
}

/// Every object of the stack. Fails only when the server's configuration cannot be written.
pub fn build(validated: &Validated, sizing: &Sizing) -> Result<Resources, Invalid> {
    let own_pooler = sizing.pooler.as_ref().filter(|_| validated.spec.pooler.type_ == PoolerType::PgBouncer);
    let migration = validated.endpoint.as_ref().map(|endpoint| migration::build(validated, endpoint)).transpose()?;
    let rotation = validated.endpoint.as_ref().map(|endpoint| rotation::build(validated, endpoint)).transpose()?;
    let mut resources = Resources {
        rotation: rotation.unwrap_or_default(),
        retained: retained(validated, sizing),
        database: sizing.database.as_ref().filter(|own| !own.crunchy).map(|own| postgres::build(validated, own)),
        cluster: sizing.database.as_ref().filter(|own| own.crunchy).map(|own| Cluster {
            object: validated.cluster.map(|plan| crunchy::build(validated, plan, own, sizing.pooler.as_ref())),
        }),
        cache: sizing.redis.as_ref().map(|redis| redis::build(validated, redis)),
        pooler: own_pooler.map(|pooler| pgbouncer::build(validated, pooler)),
        exposure: exposure::build(validated),
        monitoring: monitoring::build(validated),
        api: api::build(validated, sizing, migration.as_ref())?,
        limits: Limits {
            server: limits_file::build(validated)?,
            quota: None,
            network_policies: network_policy::build(validated),
        },
        migration,
    };
    // Last: it counts what the others ask for. With a part held back it would be too small: then it stays as it is.
    let plan = plan(&resources);
    if validated.spec.quota == QuotaMode::Enabled && plan.complete {
        resources.limits.quota = Some(quota::build(validated, &footprint(&plan)));
    }
    Ok(resources)
}

fn retained(v: &Validated, sizing: &Sizing) -> Retained {
    let secrets = v
        .generated
        .secrets
        .iter()
        .map(|(name, data)| {
            let component = if [v.names.redis(), v.names.redis_peers()].contains(name) {
                Component::Redis
            } else if *name == v.names.database() {
                Component::Database
            } else if [v.names.pgbouncer_client(), v.names.pgbouncer_tls()].contains(name) {
                Component::PgBouncer
            } else {
                Component::Api
            };
            let mut metadata = meta::retained(v, name.clone(), component);
            let state = v.generated.state(name, &v.names);
            metadata.annotations = state.map(|state| [(STATE.to_owned(), state)].into());
            meta::secret(metadata, data.clone(), false)
        })
        .collect();
    Retained { secrets, claim: postgres::claim(v, sizing) }
}
