//! What the status says of a stack that falls asleep, sleeps and wakes. PURE.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::condition;
use crate::api::v1alpha1::{PersesStack, SuspensionStatus};
use crate::conditions::{Finding, Status};
use crate::controllers::persesstack::crunchy::ClusterState;
use crate::controllers::persesstack::observed::{WorkloadState, Workloads};
use crate::controllers::persesstack::suspension::Pods;
use crate::controllers::persesstack::validate::Validated;

/// Whether the stack was suspended and is not ready again.
pub(super) fn wakes(stack: &PersesStack) -> bool {
    let suspension = stack.status.as_ref().and_then(|status| status.suspension.as_ref());
    !stack.spec.suspend && suspension.is_some_and(|suspension| suspension.suspended_at.is_some())
}

/// The new times. Whole seconds: that is what the API stores.
pub(super) fn times(
    old: Option<SuspensionStatus>,
    suspend: bool,
    is_ready: bool,
    now: Timestamp,
) -> Option<SuspensionStatus> {
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    if suspend {
        let old = old.unwrap_or_default();
        let suspended_at = old.suspended_at.filter(|_| old.waking_since.is_none()).or(Some(now));
        return Some(SuspensionStatus { suspended_at, waking_since: None, ..old });
    }
    let old = old?;
    if old.suspended_at.is_none() {
        return Some(old);
    }
    let since = old.waking_since.unwrap_or_else(|| now.clone());
    Some(if is_ready {
        let took = now.0.as_second() - since.0.as_second();
        SuspensionStatus { suspended_at: None, waking_since: None, last_wake_seconds: Some(took.max(0)) }
    } else {
        SuspensionStatus { waking_since: Some(since), ..old }
    })
}

/// Says of every part that is stopped that this is meant, and adds the condition of the whole.
pub(super) fn mark(parts: &mut Vec<Finding>, validated: &Validated, workloads: &Workloads, waking: bool) {
    let (suspend, running) = (validated.spec.suspend, validated.running);
    if !suspend && !waking {
        return;
    }
    let stopped = [
        (condition::API, running.api),
        (condition::POOLER, running.pooler),
        (condition::CACHE, running.cache),
        (
            condition::DATABASE,
            if workloads.database.is_some() || workloads.cluster.is_some() { running.database } else { Pods::Run },
        ),
    ];
    for (type_, pods) in stopped {
        let Some(part) = parts.iter_mut().find(|part| part.type_ == type_ && pods == Pods::Stop) else { continue };
        *part = if suspend {
            Finding::new(type_, false, "Suspended", "stopped because spec.suspend is true")
        } else {
            Finding::new(type_, false, "Waking", "starts when what it needs is ready")
        };
    }
    let Workloads { api, pgbouncer, redis, database, cluster, .. } = workloads;
    let cluster = cluster.as_ref().map(ClusterState::instances);
    let database = database.as_ref().or(cluster.as_ref());
    let all =
        [("API", api.as_ref()), ("PgBouncer", pgbouncer.as_ref()), ("Redis", redis.as_ref()), ("PostgreSQL", database)];
    let left = |state: Option<&WorkloadState>| state.is_some_and(|state| state.desired > 0 || state.total > 0);
    let left: Vec<_> = all.iter().filter(|(_, state)| left(*state)).map(|(name, _)| *name).collect();
    parts.push(if !suspend {
        let text = "the parts start one after the other: database, cache, pooler, API";
        Finding::new(condition::SUSPENDED, false, "Waking", text)
    } else if left.is_empty() {
        let text = "no pod runs; data, credentials and addresses are kept. Set spec.suspend to false to wake it";
        Finding::new(condition::SUSPENDED, true, "Suspended", text)
    } else {
        let text = format!("stopping one after the other; left: {}", left.join(", "));
        Finding::new(condition::SUSPENDED, Status::False, "Suspending", text)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn times_of_a_night() {
        assert_eq!(times(None, false, true, at(1)), None, "never suspended, nothing to say");
        let asleep = times(None, true, false, at(10)).unwrap();
        assert_eq!(asleep.suspended_at, Some(Time(at(10))));
        assert_eq!(times(Some(asleep.clone()), true, false, at(20)).as_ref(), Some(&asleep), "nothing to write");
        let waking = times(Some(asleep.clone()), false, false, at(30)).unwrap();
        assert_eq!(
            (waking.suspended_at.clone(), waking.waking_since.clone()),
            (asleep.suspended_at, Some(Time(at(30))))
        );
        let again = times(Some(waking.clone()), true, false, at(35)).unwrap();
        assert_eq!((again.suspended_at, again.waking_since), (Some(Time(at(35))), None));
        let awake = times(Some(waking), false, true, at(42)).unwrap();
        assert_eq!(awake, SuspensionStatus { last_wake_seconds: Some(12), ..SuspensionStatus::default() });
        assert_eq!(
            times(Some(awake.clone()), false, false, at(50)),
            Some(awake.clone()),
            "a pod that is lost is no waking"
        );
        assert_eq!(times(Some(awake), true, false, at(60)).unwrap().last_wake_seconds, Some(12));
    }
}
