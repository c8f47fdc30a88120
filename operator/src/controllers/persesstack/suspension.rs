//! PURE: which parts of a stack run while it falls asleep, sleeps and wakes.
//!
//! Asleep in the order in which they need each other: API -> pooler -> cache -> database, each when no pod of the one
//! before is left; so nobody loses what it talks to. Awake in reverse, each when the one before is ready. Nothing is
//! remembered: the order follows from what is seen, so a restart in between goes on where it stands. Data, credentials and
//! every other object stay.
//!
//! The autoscaler stays too: it does nothing to a Deployment of zero pods (Kubernetes, "implicit maintenance-mode
//! deactivation"). While suspended `spec.replicas` of the API Deployment is ours; an annotation on it says so, and tells
//! our zero from one that somebody else has set.

use super::crunchy::ClusterState;
use super::observed::{WorkloadState, Workloads};

/// What becomes of the pods of one part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pods {
    /// They run.
    #[default]
    Run,
    /// There are none.
    Stop,
}

impl Pods {
    /// `count` pods, or none.
    pub fn of(self, count: i32) -> i32 {
        match self {
            Self::Run => count,
            Self::Stop => 0,
        }
    }

    fn run(running: bool) -> Self {
        if running { Self::Run } else { Self::Stop }
    }
}

/// What becomes of each part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// API server.
    pub api: Pods,
    /// Connection pooler.
    pub pooler: Pods,
    /// Shared cache.
    pub cache: Pods,
    /// Database, standalone or a PostgresCluster.
    pub database: Pods,
    /// The API pods were stopped by us and start now: their number is ours this once.
    pub wakes_api: bool,
    /// Neither a new migration is started nor pods wait for one: the database does not run, or is on its way.
    pub holds_migration: bool,
}

/// Decides for every part from the wish and from what runs. A part that this stack does not have is no hindrance.
pub fn running(suspend: bool, workloads: &Workloads) -> Running {
    let Workloads { api, pgbouncer: pooler, redis: cache, database, cluster, .. } = workloads;
    let cluster = cluster.as_ref().map(ClusterState::instances);
    let (api, pooler, cache) = (api.as_ref(), pooler.as_ref(), cache.as_ref());
    let database = database.as_ref().or(cluster.as_ref());
    if suspend {
        let (no_api, no_pooler, no_cache) = (gone(api), gone(pooler), gone(cache));
        return Running {
            api: Pods::Stop,
            pooler: Pods::run(!no_api),
            cache: Pods::run(!(no_api && no_pooler)),
            database: Pods::run(!(no_api && no_pooler && no_cache)),
            wakes_api: false,
            holds_migration: true,
        };
    }
    let database_up = up(database);
    let cache_up = database_up && up(cache);
    let stopped = api.is_some_and(|api| api.suspended);
    let api = Pods::run(!stopped || (cache_up && up(pooler)));
    Running {
        api,
        pooler: Pods::run(!asleep(pooler) || cache_up),
        cache: Pods::run(!asleep(cache) || database_up),
        database: Pods::Run,
        wakes_api: stopped && api == Pods::Run,
        holds_migration: asleep(database) || (stopped && !database_up),
    }
}

/// Whether no pod of it is left.
fn gone(part: Option<&WorkloadState>) -> bool {
    part.is_none_or(|part| part.current && part.desired == 0 && part.total == 0)
}

/// Whether it is there and nobody wants a pod of it.
fn asleep(part: Option<&WorkloadState>) -> bool {
    part.is_some_and(|part| part.desired == 0)
}

fn up(part: Option<&WorkloadState>) -> bool {
    part.is_none_or(|part| part.desired > 0 && part.ready >= part.desired)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "it stands for a workload that exists")]
    fn pods(desired: i32, ready: i32) -> Option<WorkloadState> {
        Some(WorkloadState { current: true, desired, total: ready, updated: ready, ready, ..WorkloadState::default() })
    }

    fn all(desired: i32, ready: i32) -> Workloads {
        let (api, redis, database, pgbouncer) =
            (pods(desired, ready), pods(desired, ready), pods(desired, ready), pods(desired, ready));
        Workloads { api, redis, database, pgbouncer, ..Workloads::default() }
    }

    fn letters(running: Running) -> String {
        let parts = [(running.api, 'a'), (running.pooler, 'p'), (running.cache, 'c'), (running.database, 'd')];
        parts.iter().filter(|(pods, _)| *pods == Pods::Run).map(|(_, letter)| letter).collect()
    }

    #[test]
    fn parts_stop_one_after_the_other() {
        let mut found = all(2, 2);
        assert_eq!(letters(running(true, &found)), "pcd");
        found.api = pods(0, 1);
        assert_eq!(letters(running(true, &found)), "pcd", "a pod is still there");
        found.api = pods(0, 0);
        assert_eq!(letters(running(true, &found)), "cd");
        found.pgbouncer = pods(0, 0);
        assert_eq!(letters(running(true, &found)), "d");
        found.redis = None;
        assert_eq!(letters(running(true, &found)), "", "a cache that is not there is no hindrance");
        assert!(running(true, &found).holds_migration);
    }

    #[test]
    fn parts_start_in_reverse() {
        let mut found = all(0, 0);
        let sleeping = found.api.as_mut().unwrap();
        sleeping.suspended = true;
        let step = running(false, &found);
        assert_eq!((letters(step).as_str(), step.holds_migration), ("d", true));
        found.database = pods(1, 0);
        assert_eq!(letters(running(false, &found)), "d");
        found.database = pods(1, 1);
        assert_eq!(letters(running(false, &found)), "cd");
        assert!(!running(false, &found).holds_migration, "the schema can be looked after");
        found.redis = pods(1, 1);
        assert_eq!(letters(running(false, &found)), "pcd");
        found.pgbouncer = pods(2, 2);
        let step = running(false, &found);
        assert!(letters(step) == "apcd" && step.wakes_api);
    }

    #[test]
    fn a_cluster_of_crunchy_is_the_database() {
        let cluster = |shutdown: bool, ready: i32| {
            let mut cluster = ClusterState { shutdown, ..ClusterState::well() };
            cluster.sets[0].replicas = ready;
            cluster.sets[0].ready = ready;
            Some(cluster)
        };
        let mut found = Workloads { database: None, cluster: cluster(false, 1), ..all(0, 0) };
        assert_eq!(running(true, &found).database, Pods::Stop);
        found.api.as_mut().unwrap().suspended = true;
        found.cluster = cluster(true, 0);
        assert_eq!((letters(running(false, &found)).as_str(), running(false, &found).holds_migration), ("d", true));
        found.cluster = cluster(false, 0);
        assert_eq!(letters(running(false, &found)), "d");
        found.cluster = cluster(false, 1);
        assert_eq!(letters(running(false, &found)), "cd");
        for edit in [|c: &mut ClusterState| c.users_revision.clear(), |c: &mut ClusterState| c.generation += 1] {
            found.cluster.as_mut().map(edit);
            assert_eq!(letters(running(false, &found)), "d", "nobody could sign in, or it is not known");
            found.cluster = cluster(false, 1);
        }
    }

    #[test]
    fn a_stack_that_is_awake_stops_for_nothing() {
        // Everything is out of order, but nobody asked for sleep; and a zero of somebody else is theirs.
        let found = Workloads { api: pods(0, 0), database: pods(1, 0), ..all(2, 0) };
        let step = running(false, &found);
        assert!(letters(step) == "apcd" && !step.wakes_api && !step.holds_migration);
        assert_eq!(letters(running(false, &Workloads::default())), "apcd", "a new stack");
    }

    #[test]
    fn half_asleep_it_wakes() {
        let mut found = all(2, 2);
        found.api = Some(WorkloadState { suspended: true, ..pods(0, 0).unwrap() });
        let step = running(false, &found);
        assert!(letters(step) == "apcd" && step.wakes_api);
    }
}
