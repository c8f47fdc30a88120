//! Numbers of a cluster of Crunchy's operator beside those of its one instance.

use super::model_v1::SMALL_USERS;
use super::{Derived, Inputs};

/// Connections to one instance of a cluster beside those of the API.
pub(super) struct Beside {
    /// Of metrics exporters.
    pub(super) exporter: i64,
    /// Of Patroni and standbys.
    pub(super) replication: i64,
}

impl Beside {
    /// Both; `None` when there are none.
    pub(super) fn total(&self) -> Option<i64> {
        Some(self.exporter + self.replication).filter(|total| *total > 0)
    }

    /// pgMonitor scrapes over one connection and a second one when a scrape is slow; Patroni keeps two to its instance.
    /// Since PostgreSQL 12 standbys no longer count against `max_connections`; the design counts them, as a reserve for
    /// backups and people.
    pub(super) fn of(inputs: &Inputs, replicas: i32) -> Self {
        match inputs.cluster {
            None => Self { exporter: 0, replication: 0 },
            Some(cluster) => {
                Self { exporter: if cluster.exporter { 2 } else { 0 }, replication: 2 + i64::from(replicas - 1) }
            }
        }
    }
}

/// Instances of the cluster: without a second one there is no fail-over.
pub(super) fn replicas(inputs: &Inputs) -> Derived<i32> {
    if inputs.cluster.is_none() {
        return Derived::new(1, "1", "one pod");
    }
    let value = if inputs.users <= SMALL_USERS { 2 } else { 3 };
    Derived::new(value, "2 up to 50 users, else 3: a primary and two replicas (seed section 3)", "users")
        .with("users", inputs.users)
        .or_override(
            inputs.overrides.database_replicas.map(|n| i32::try_from(n).unwrap_or(i32::MAX)),
            "spec.database.crunchy.replicas",
        )
}
