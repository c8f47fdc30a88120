//! All objects of a stack in the order in which they are applied. PURE.
//!
//! What others need comes first: generated Secrets before everything that mounts them, Services before pods, the database
//! before the pooler before the migration before the API pods. The API Deployment and its autoscaler come last and only
//! when the schema is there: pods that start before it would only crash-loop.

use serde_json::json;

use super::inventory::Inventory;
use super::kind::Kind;
use super::ssa::{Child, Lifecycle};
use crate::controllers::persesstack::build::{Api, Cache, Database, Migration, Pooler, Resources, Retained};

/// Annotation of the API Deployment: the migration that was complete when it was applied.
pub const MIGRATION_ANNOTATION: &str = "persesstack.io/migration";

/// Desired objects, in order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Generated once. If one cannot be created nothing else is: the others embed its content.
    pub generated: Vec<Child>,
    /// Everything that does not wait.
    pub base: Vec<Child>,
    /// What waits for the migration: API Deployment, then its autoscaler.
    pub gated: Vec<Child>,
    /// Name of the migration Job.
    pub migration: String,
}

impl Plan {
    /// Every object.
    pub fn children(&self) -> impl Iterator<Item = &Child> {
        self.generated.iter().chain(&self.base).chain(&self.gated)
    }

    /// Whether the live API Deployment was applied for this migration: then it need not wait for the Job again, which may
    /// have been deleted since.
    pub fn deployed_for(&self, inventory: &Inventory) -> bool {
        let api = self.gated.iter().find(|child| child.kind == Kind::Deployment);
        let live = api.and_then(|api| inventory.get(api.kind, &api.name));
        live.is_some_and(|live| live["metadata"]["annotations"][MIGRATION_ANNOTATION] == self.migration.as_str())
    }
}

/// Orders the objects. Every group is taken apart without `..`: a new object that nobody applies does not compile.
pub fn plan(resources: &Resources) -> Plan {
    use Lifecycle::{Applied, Generated, Immutable};
    let Resources { retained, database, cache, pooler, migration, api } = resources;
    let Retained { secrets, claim } = retained;
    let generated = secrets.iter().map(|secret| Child::new(Kind::Secret, Generated, secret)).collect();

    let mut base = Vec::new();
    base.extend(claim.iter().map(|claim| Child::new(Kind::PersistentVolumeClaim, Applied, claim)));
    if let Some(Database { config, service, stateful_set }) = database {
        base.push(Child::new(Kind::ConfigMap, Applied, config));
        base.push(Child::new(Kind::Service, Applied, service));
        base.push(Child::new(Kind::StatefulSet, Applied, stateful_set));
    }
    if let Some(Cache { service, deployment }) = cache {
        base.push(Child::new(Kind::Service, Applied, service));
        base.push(Child::new(Kind::Deployment, Applied, deployment));
    }
    if let Some(Pooler { config, service, deployment, pdb }) = pooler {
        base.push(Child::new(Kind::Secret, Applied, config));
        base.push(Child::new(Kind::Service, Applied, service));
        base.push(Child::new(Kind::Deployment, Applied, deployment));
        base.push(Child::new(Kind::PodDisruptionBudget, Applied, pdb));
    }
    let Migration { config, job } = migration;
    base.push(Child::new(Kind::Secret, Immutable, config));
    let job = Child::new(Kind::Job, Immutable, job);
    let name = job.name.clone();
    base.push(job);

    let Api { config, provisioning, service_account, service, deployment, hpa, pdb } = api;
    base.push(Child::new(Kind::ServiceAccount, Applied, service_account));
    base.push(Child::new(Kind::Secret, Immutable, config));
    base.push(Child::new(Kind::Secret, Applied, provisioning));
    base.push(Child::new(Kind::Service, Applied, service));
    base.push(Child::new(Kind::PodDisruptionBudget, Applied, pdb));
    let mut deployment = Child::new(Kind::Deployment, Applied, deployment);
    deployment.value["metadata"]["annotations"][MIGRATION_ANNOTATION] = json!(name);
    let gated = vec![deployment, Child::new(Kind::HorizontalPodAutoscaler, Applied, hpa)];
    Plan { generated, base, gated, migration: name }
}
