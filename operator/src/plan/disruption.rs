//! What a change costs those who use the stack. PURE.

use serde::Serialize;

use super::diff::FieldChange;
use crate::controllers::persesstack::build::labels::Component;

/// What people notice; the worst is the greatest.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "camelCase")]
pub enum Disruption {
    /// Nothing.
    None,
    /// Pods are replaced.
    Roll,
    /// The database is away for a while.
    DatabaseRestart,
    /// The object is deleted and made again.
    Recreate,
}

impl Disruption {
    /// For tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Roll => "roll",
            Self::DatabaseRestart => "database restart",
            Self::Recreate => "recreate",
        }
    }
}

/// What is done to an object.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Created.
    Create,
    /// Changed.
    Change,
    /// Deleted and made again.
    Recreate,
    /// Deleted.
    Delete,
    /// Left alone: it is somebody else's.
    Foreign,
    /// Refused by the API server.
    Refused,
}

impl Action {
    /// For tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Change => "change",
            Self::Recreate => "recreate",
            Self::Delete => "delete",
            Self::Foreign => "foreign",
            Self::Refused => "refused",
        }
    }
}

/// Parameters of PostgreSQL that count only after a restart, and fields of a cluster that restart its pods.
const RESTARTS: [&str; 12] = [
    "].resources",
    "].affinity",
    "].tolerations",
    "].topologySpreadConstraints",
    "].containers",
    "].sidecars",
    "parameters.max_connections",
    "parameters.shared_buffers",
    "parameters.superuser_reserved_connections",
    "parameters.max_wal_senders",
    "parameters.max_replication_slots",
    "parameters.wal_buffers",
];

/// What it costs, and a word about it.
pub fn of(kind: &str, component: &str, action: Action, changes: &[FieldChange]) -> (Disruption, &'static str) {
    let under = |part: &str| changes.iter().any(|change| change.path.starts_with(part));
    let is = |wanted: Component| component == wanted.as_str();
    match (action, kind) {
        (Action::Foreign | Action::Refused, _) => (Disruption::None, "nothing happens to it"),
        (Action::Create, "Job") => (Disruption::None, "brings the schema up to date; the old one serves on"),
        (Action::Recreate, _) => (Disruption::Recreate, "it cannot be changed, so it is made again"),
        (Action::Delete, "StatefulSet") if is(Component::Redis) => (Disruption::Roll, "its pods end"),
        (Action::Delete, "StatefulSet" | "PostgresCluster") => (Disruption::DatabaseRestart, "its pods end"),
        (Action::Delete, "Deployment") => (Disruption::Roll, "its pods end"),
        (Action::Change, "Deployment") if under("spec.template") => {
            if is(Component::Redis) {
                (Disruption::Roll, "the cache is empty for a while: slower answers, none fails")
            } else {
                (Disruption::Roll, "one pod at a time, without a failed request")
            }
        }
        (Action::Change, "StatefulSet") if is(Component::Redis) && under("spec.template") => {
            (Disruption::Roll, "one pod at a time, the one that leads hands over first")
        }
        (Action::Change, "StatefulSet") if is(Component::Redis) => (Disruption::None, ""),
        (Action::Change, "StatefulSet") if under("spec.template") || under("spec.replicas") => {
            (Disruption::DatabaseRestart, "cached dashboards are served meanwhile, writes are answered with 503")
        }
        (Action::Change, "PostgresCluster") => {
            let restarts = changes.iter().any(|change| {
                RESTARTS.iter().any(|part| change.path.contains(part))
                    || change.path.starts_with("spec.image")
                    || change.path.starts_with("spec.postgresVersion")
            });
            if restarts {
                (Disruption::DatabaseRestart, "pod by pod, the primary with a short pause of writes")
            } else {
                (Disruption::None, "")
            }
        }
        (Action::Change, "PersistentVolumeClaim") => (Disruption::None, "the volume grows while it is used"),
        (Action::Change, "NetworkPolicy") => (Disruption::None, "what it no longer allows is cut off"),
        (Action::Create | Action::Change | Action::Delete, _) => (Disruption::None, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::kind::Kind;

    fn cost(kind: Kind, component: Component, action: Action, path: &str) -> Disruption {
        let change = FieldChange { path: path.to_owned(), before: None, after: None };
        of(kind.name(), component.as_str(), action, &[change]).0
    }

    #[test]
    fn each_kind_of_change_has_its_price() {
        use Action::{Change, Create, Delete, Recreate};
        use Component::{Api, Database, Migration, PgBouncer, Redis};
        let image = "spec.template.spec.containers[name=api].image";
        let cases = [
            (Kind::Deployment, Api, Change, image, Disruption::Roll),
            (Kind::Deployment, Redis, Change, image, Disruption::Roll),
            (Kind::StatefulSet, Redis, Change, image, Disruption::Roll),
            (Kind::StatefulSet, Redis, Delete, "", Disruption::Roll),
            (Kind::Deployment, PgBouncer, Change, "spec.replicas", Disruption::None),
            (Kind::Deployment, PgBouncer, Delete, "", Disruption::Roll),
            (Kind::Deployment, Api, Create, image, Disruption::None),
            (Kind::StatefulSet, Database, Change, "spec.template.metadata.annotations", Disruption::DatabaseRestart),
            (Kind::StatefulSet, Database, Change, "metadata.labels.a", Disruption::None),
            (Kind::PersistentVolumeClaim, Database, Change, "spec.resources.requests.storage", Disruption::None),
            (Kind::HorizontalPodAutoscaler, Api, Change, "spec.maxReplicas", Disruption::None),
            (Kind::Job, Migration, Recreate, "spec.template", Disruption::Recreate),
            (Kind::ConfigMap, Database, Change, "data", Disruption::None),
        ];
        for (kind, component, action, path, expected) in cases {
            assert_eq!(cost(kind, component, action, path), expected, "{kind:?} {component:?} {action:?} {path}");
        }
        assert!(Disruption::Recreate > Disruption::DatabaseRestart && Disruption::Roll > Disruption::None);
    }
}
