//! All objects of a stack in the order in which they are applied. PURE.
//!
//! What others need comes first: generated Secrets before everything that mounts them, Services before pods, the database
//! before the pooler before the migration before the API pods. The API Deployment and its autoscaler come last and only
//! when the schema is there: pods that start before it would only crash-loop.

use serde_json::Value;

use super::inventory::Inventory;
use super::kind::Kind;
use super::ssa::{Child, Lifecycle};
use crate::controllers::persesstack::build::{
    self, Api, Cache, Cluster, Database, Exposure, Limits, Migration, Monitoring, Pooler, Resources, Retained,
};

/// Desired objects, in order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Generated once. If one cannot be created nothing else is: the others embed its content. Those that are waited for
    /// are not here, and neither is what needs them.
    pub generated: Vec<Child>,
    /// Everything that does not wait.
    pub base: Vec<Child>,
    /// What waits for the migration: API Deployment, then its autoscaler, which comes only where the Deployment is.
    pub gated: Vec<Child>,
    /// Bindings to cluster roles: outside the namespace.
    pub bindings: Vec<Value>,
    /// Name of the migration Job; `None` while the database's credentials are waited for.
    pub migration: Option<String>,
    /// Nothing of what the API pods need is held back.
    pub complete: bool,
    /// Kinds of which nothing is deleted: it is not known what is wanted of them.
    pub undecided: Vec<Kind>,
}

impl Plan {
    /// Every object.
    pub fn children(&self) -> impl Iterator<Item = &Child> {
        self.generated.iter().chain(&self.base).chain(&self.gated)
    }

    /// Whether the live API Deployment was applied for this migration: then it need not wait for the Job again, which may
    /// have been deleted since.
    pub fn deployed_for(&self, migration: &str, inventory: &Inventory) -> bool {
        let api = self.gated.iter().find(|child| child.kind == Kind::Deployment);
        let live = api.and_then(|api| inventory.get(api.kind, &api.name));
        live.is_some_and(|live| live["metadata"]["annotations"][build::MIGRATION] == migration)
    }
}

/// Orders the objects. Every group is taken apart without `..`: a new object that nobody applies does not compile.
pub fn plan(resources: &Resources) -> Plan {
    use Lifecycle::{Applied, Generated, Immutable};
    let Resources {
        retained,
        database,
        cluster,
        cache,
        pooler,
        migration,
        rotation,
        exposure,
        monitoring,
        api,
        limits,
    } = resources;
    let Retained { secrets, claim } = retained;
    let generated = secrets.iter().map(|secret| Child::new(Kind::Secret, Generated, secret)).collect();

    let mut base = Vec::new();
    let Limits { server, quota, network_policies } = limits;
    base.push(Child::new(Kind::ConfigMap, Applied, server));
    base.extend(quota.iter().map(|quota| Child::new(Kind::ResourceQuota, Applied, quota)));
    base.extend(network_policies.iter().map(|policy| Child::new(Kind::NetworkPolicy, Applied, policy)));
    base.extend(claim.iter().map(|claim| Child::new(Kind::PersistentVolumeClaim, Applied, claim)));
    if let Some(Database { config, service, stateful_set }) = database {
        base.push(Child::new(Kind::ConfigMap, Applied, config));
        base.push(Child::new(Kind::Service, Applied, service));
        base.extend(stateful_set.iter().map(|set| Child::new(Kind::StatefulSet, Applied, set)));
    }
    let mut undecided = Vec::new();
    if let Some(Cluster { object }) = cluster {
        base.extend(object.iter().map(|object| Child::custom(Kind::PostgresCluster, Applied, object)));
        if object.is_none() {
            undecided.push(Kind::PostgresCluster);
        }
    }
    if let Some(Cache { config, services, deployment, stateful_set, pdb }) = cache {
        base.extend(config.iter().map(|config| Child::new(Kind::Secret, Applied, config)));
        base.extend(services.iter().map(|service| Child::new(Kind::Service, Applied, service)));
        base.extend(deployment.iter().map(|deployment| Child::new(Kind::Deployment, Applied, deployment)));
        base.extend(stateful_set.iter().map(|set| Child::new(Kind::StatefulSet, Applied, set)));
        base.extend(pdb.iter().map(|pdb| Child::new(Kind::PodDisruptionBudget, Applied, pdb)));
    }
    if let Some(Pooler { config, service, deployment, pdb }) = pooler {
        base.extend(config.iter().map(|config| Child::new(Kind::Secret, Applied, config)));
        base.push(Child::new(Kind::Service, Applied, service));
        base.extend(deployment.iter().map(|deployment| Child::new(Kind::Deployment, Applied, deployment)));
        base.push(Child::new(Kind::PodDisruptionBudget, Applied, pdb));
    }
    for Migration { config, job } in migration.iter().chain(rotation) {
        base.push(Child::new(Kind::Secret, Immutable, config));
        base.push(Child::new(Kind::Job, Immutable, job));
    }
    let migration = migration.as_ref().and_then(|migration| migration.job.metadata.name.clone());

    let Api { config, provisioning, service_account, bindings, service_authority, service, deployment, hpa, pdb } = api;
    base.push(Child::new(Kind::ServiceAccount, Applied, service_account));
    // Serializing a Kubernetes type to JSON cannot fail: keys are strings and numbers are finite.
    let bindings = bindings.iter().map(|binding| serde_json::to_value(binding).unwrap_or_default()).collect();
    base.extend(service_authority.iter().map(|authority| Child::new(Kind::ConfigMap, Applied, authority)));
    base.extend(config.iter().map(|config| Child::new(Kind::Secret, Immutable, config)));
    base.push(Child::new(Kind::Secret, Applied, provisioning));
    base.push(Child::new(Kind::Service, Applied, service));
    base.push(Child::new(Kind::PodDisruptionBudget, Applied, pdb));
    // Everything that can be held back holds back the API pods too.
    let complete = deployment.is_some();
    let deployment = deployment.iter().map(|deployment| Child::new(Kind::Deployment, Applied, deployment));
    let hpa_child = hpa.iter().map(|hpa| Child::new(Kind::HorizontalPodAutoscaler, Applied, hpa));
    let gated = deployment.chain(hpa_child).collect();

    if hpa.is_none() {
        undecided.push(Kind::HorizontalPodAutoscaler);
    }
    match exposure {
        Some(Exposure { route, http_route, ingress }) => {
            base.extend(route.iter().map(|route| Child::custom(Kind::Route, Applied, route)));
            base.extend(http_route.iter().map(|route| Child::custom(Kind::HttpRoute, Applied, route)));
            base.extend(ingress.iter().map(|ingress| Child::new(Kind::Ingress, Applied, ingress)));
        }
        None => undecided.extend([Kind::Route, Kind::HttpRoute, Kind::Ingress]),
    }
    let Monitoring { service_monitors, pod_monitor, rules } = monitoring;
    let monitoring = [
        (Kind::ServiceMonitor, service_monitors.as_deref()),
        (Kind::PodMonitor, pod_monitor.as_ref().map(Option::as_slice)),
        (Kind::PrometheusRule, rules.as_ref().map(Option::as_slice)),
    ];
    for (kind, objects) in monitoring {
        match objects {
            Some(objects) => base.extend(objects.iter().map(|object| Child::custom(kind, Applied, object))),
            None => undecided.push(kind),
        }
    }
    Plan { generated, base, gated, bindings, migration, complete, undecided }
}
