//! What `observe` found in the cluster, as plain data: the only input of the pure steps beside the spec and settings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::crunchy::{ClusterState, CrunchySchema};
use super::feasible::Facts;
use super::rotation::Evidence;
use super::sign_in::OauthServer;
use super::validate::Invalid;
use crate::api::v1alpha1::DatabaseType;
use crate::apply::kind::Kind;

/// Everything that was read for one stack.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Owned and referenced Secrets of the namespace that exist, by name.
    pub secrets: BTreeMap<String, SecretData>,
    /// Referenced ConfigMaps of the namespace that exist, by name.
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
    /// Datasources that the server was given last: `<stack>-provisioning`.
    pub provisioned: SecretData,
    /// The OAuth server of OpenShift; `None` when it is not needed, or the API server names none.
    pub oauth_server: Option<OauthServer>,
    /// The operator may not read the bindings to cluster roles that the spec needs.
    pub bindings_forbidden: bool,
    /// Optional APIs of the cluster.
    pub capabilities: Capabilities,
    /// What the installed CRD of PostgresCluster can express; `None` when it cannot be asked or is not there.
    pub crunchy_schema: Option<CrunchySchema>,
    /// The cluster's IngressClasses; `None` when they were not needed or may not be read.
    pub ingress_classes: Option<Vec<IngressClass>>,
    /// Listeners of the Gateway that the spec names; empty when it cannot be read.
    pub listeners: Vec<Listener>,
    /// Which store already holds this stack's data (labelled objects were found); decides for `Auto`.
    pub database: Option<DatabaseType>,
    /// Requested size of the existing data volume of the store in use (Kubernetes quantity): a claim never shrinks.
    pub database_claim_size: Option<String>,
    /// `spec.replicas` of the live API Deployment.
    pub api_replicas: Option<i32>,
    /// Names of this stack's migration Jobs that completed.
    pub completed_migrations: BTreeSet<String>,
    /// Readiness of what runs.
    pub workloads: Workloads,
    /// Objects under one of our names that are not ours.
    pub foreign: Vec<ForeignObject>,
    /// What the namespace and the cluster have for it.
    pub facts: Facts,
    /// What it shows of rotations.
    pub rotation: Evidence,
}

/// A Secret's data; `Debug` shows the keys only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretData {
    /// The values by key.
    pub data: BTreeMap<String, Vec<u8>>,
    /// Whether the Secret carries our labels for this stack.
    pub ours: bool,
    /// How far its rotation is, or how old its certificate: the annotation [`STATE`](super::rotation::STATE).
    pub rotation: Option<String>,
}

impl SecretData {
    /// The value of `key` as text without surrounding white space; `None` when absent, empty or not UTF-8.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.data.get(key).and_then(|v| std::str::from_utf8(v).ok()).map(str::trim).filter(|v| !v.is_empty())
    }
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretData")
            .field("keys", &self.data.keys().collect::<Vec<_>>())
            .field("ours", &self.ours)
            .field("rotation", &self.rotation)
            .finish()
    }
}

/// Whether an optional API is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Availability {
    /// Discovery answered and the API is in the answer.
    Present,
    /// Discovery answered and the API is not in the answer.
    Absent,
    /// Discovery did not answer: nothing may be concluded.
    #[default]
    Unknown,
}

/// Optional APIs of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// `security.openshift.io`: user ids are assigned by the platform and must not be set.
    pub openshift: Availability,
    /// `custom.metrics.k8s.io`: the autoscaler can follow metrics of the pods.
    pub custom_metrics: Availability,
    /// Gateways, which HTTPRoutes are attached to. They are read only, and a cluster may have the one without the other.
    pub gateways: Availability,
    /// In the order of [`Kind::OPTIONAL`].
    kinds: [Availability; Kind::OPTIONAL.len()],
}

impl Capabilities {
    /// A cluster with these optional kinds and no other; one with HTTPRoutes has Gateways.
    pub fn with(kinds: &[Kind]) -> Self {
        let there = |kind| if kinds.contains(&kind) { Availability::Present } else { Availability::Absent };
        let (openshift, custom_metrics) = (Availability::Absent, Availability::Absent);
        let gateways = there(Kind::HttpRoute);
        let mut capabilities = Self { openshift, custom_metrics, gateways, ..Self::default() };
        for kind in Kind::OPTIONAL {
            capabilities.set(kind, there(kind));
        }
        capabilities
    }

    /// Whether objects of this kind can be read and written; always, when the kind is built in.
    pub fn of(self, kind: Kind) -> Availability {
        let place = Kind::OPTIONAL.iter().position(|optional| *optional == kind);
        place.and_then(|place| self.kinds.get(place)).copied().unwrap_or(Availability::Present)
    }

    /// Notes what discovery says about an optional kind.
    pub fn set(&mut self, kind: Kind, availability: Availability) {
        for (optional, known) in Kind::OPTIONAL.iter().zip(&mut self.kinds) {
            if *optional == kind {
                *known = availability;
            }
        }
    }

    /// Whether the kind's API is there.
    ///
    /// # Errors
    /// It is not known: discovery of its group does not answer. What depends on it is held back, so that an API that is
    /// out of order for a while changes nothing.
    pub fn has(self, kind: Kind) -> Result<bool, Invalid> {
        match self.of(kind) {
            Availability::Present => Ok(true),
            Availability::Absent => Ok(false),
            Availability::Unknown => Err(Invalid::unavailable(kind)),
        }
    }
}

/// State of the workloads of one stack; `None` when the object does not exist.
#[derive(Clone, Debug, Default)]
pub struct Workloads {
    /// Deployment `<stack>-api`.
    pub api: Option<WorkloadState>,
    /// Deployment `<stack>-redis`, or the StatefulSet of three.
    pub redis: Option<WorkloadState>,
    /// StatefulSet `<stack>-db`.
    pub database: Option<WorkloadState>,
    /// PostgresCluster `<stack>-db`.
    pub cluster: Option<ClusterState>,
    /// Deployment `<stack>-pgbouncer`.
    pub pgbouncer: Option<WorkloadState>,
    /// The migration Jobs by name.
    pub migrations: BTreeMap<String, JobState>,
    /// HorizontalPodAutoscaler `<stack>-api`.
    pub hpa: Option<HpaState>,
    /// The object that exposes the service.
    pub exposure: Option<ExposureState>,
    /// Kinds of what Prometheus needs that exist.
    pub monitoring: Vec<Kind>,
}

/// An IngressClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressClass {
    /// Name.
    pub name: String,
    /// Whether it is the cluster's default.
    pub default: bool,
}

/// A listener of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Name within the Gateway.
    pub name: String,
    /// `HTTP`, `HTTPS`, ...
    pub protocol: String,
    /// TCP port.
    pub port: i64,
    /// Host name that it takes, perhaps `*.domain`; every one when absent.
    pub hostname: Option<String>,
}

/// State of the object that exposes the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExposureState {
    /// Its kind.
    pub kind: Kind,
    /// Host name under which it is reached.
    pub host: Option<String>,
    /// `scheme://host[:port]`, without a path; `None` when that cannot be told.
    pub address: Option<String>,
    /// Whether what stands in front of the cluster serves it.
    pub admitted: bool,
    /// Why it is not admitted, in the words of who decided.
    pub message: Option<String>,
}

/// State of a Deployment or StatefulSet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadState {
    /// Whether the controller has seen the latest spec (`observedGeneration == generation`).
    pub current: bool,
    /// `spec.replicas`.
    pub desired: i32,
    /// Pods, those of older templates included; of a suspended stack also those that are about to end.
    pub total: i32,
    /// Pods of the latest template.
    pub updated: i32,
    /// Ready pods.
    pub ready: i32,
    /// Available pods.
    pub available: i32,
    /// Why it does not progress, in the controller's words.
    pub message: Option<String>,
    /// We have taken its pods away for as long as the stack is suspended.
    pub suspended: bool,
}

impl WorkloadState {
    /// Every wanted pod runs the latest template and is ready, and no older one is left.
    pub fn settled(&self) -> bool {
        self.current && self.updated >= self.desired && self.total <= self.updated && self.ready >= self.desired
    }
}

/// State of a Job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobState {
    /// Condition `Complete` is true.
    pub complete: bool,
    /// Message of condition `Failed`.
    pub failed: Option<String>,
    /// It failed because the schema is one of a later release.
    pub too_new: bool,
}

/// State of the autoscaler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HpaState {
    /// `status.currentReplicas`.
    pub current: i32,
    /// `status.desiredReplicas`.
    pub desired: i32,
    /// Why it cannot scale (`ScalingActive=False`).
    pub message: Option<String>,
}

/// An object under one of our names that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignObject {
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Whose it is, as far as it can be told.
    pub owner: String,
}
