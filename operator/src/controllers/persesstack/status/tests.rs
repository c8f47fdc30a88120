use serde_json::json;

use super::*;
use crate::controllers::persesstack::build::build;
use crate::controllers::persesstack::feasible::Problem;
use crate::controllers::persesstack::observed::{Capabilities, JobState, Observed};
use crate::controllers::persesstack::validate::validate;
use crate::settings::{Entropy, Settings};
use crate::sizing::size;

fn stack() -> PersesStack {
    serde_json::from_value(json!({
        "apiVersion": "persesstack.io/v1alpha1", "kind": "PersesStack",
        "metadata": {"name": "perses", "namespace": "a", "uid": "1", "generation": 3},
        "spec": {"users": 10}
    }))
    .unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "it stands for a workload that exists")]
fn state(ready: i32) -> Option<WorkloadState> {
    Some(WorkloadState {
        current: true,
        desired: 2,
        total: 2,
        updated: 2,
        ready,
        available: ready,
        message: None,
        suspended: false,
    })
}

fn healthy(migration: &str) -> Workloads {
    let one = || Some(WorkloadState { desired: 1, total: 1, updated: 1, ..state(1).unwrap() });
    Workloads {
        cluster: None,
        api: state(2),
        redis: one(),
        database: one(),
        pgbouncer: state(2),
        migrations: [(migration.to_owned(), JobState { complete: true, ..JobState::default() })].into(),
        hpa: None,
        exposure: None,
        monitoring: Vec::new(),
    }
}

/// Status of the stack in a world that `change` has made worse.
fn status(stack: &PersesStack, change: impl FnOnce(&mut Workloads)) -> PersesStackStatus {
    fitting(stack, &Feasibility::default(), false, change)
}

/// The same where the stack fits as `feasibility` says.
fn fitting(
    stack: &PersesStack,
    feasibility: &Feasibility,
    held: bool,
    change: impl FnOnce(&mut Workloads),
) -> PersesStackStatus {
    let settings = Settings::default();
    let observed = Observed { capabilities: Capabilities::with(&[]), ..Observed::default() };
    let validated = validate(stack, &observed, &settings, &Entropy::fixed()).unwrap();
    let sizing = size(&validated.inputs);
    let migration = build(&validated, &sizing).unwrap().migration.unwrap().job.metadata.name.unwrap();
    let mut workloads = healthy(&migration);
    change(&mut workloads);
    let planned = Planned { validated: &validated, sizing: &sizing, migration: Some(&migration), feasibility, held };
    let report = Report {
        plan: Ok(planned),
        workloads: &workloads,
        foreign: &[],
        failed: None,
        terminating: &[],
        waits_turn: false,
    };
    compute(stack, &report, Timestamp::from_second(100).unwrap())
}

fn is(status: &PersesStackStatus, type_: &str) -> String {
    find(&status.conditions, type_).map_or("absent".to_owned(), |found| format!("{} {}", found.status, found.reason))
}

#[test]
fn what_does_not_fit_stops_a_stack_that_is_not_begun_and_no_other() {
    let problem = |reason, blocks| Problem { reason, message: format!("{reason}: 1Gi are missing"), blocks };
    let feasibility = Feasibility {
        problems: vec![problem("QuotaTooSmallForFullLoad", false), problem("NodeTooSmall", true)],
        unknown: vec!["storage classes".to_owned()],
    };
    let held = fitting(&stack(), &feasibility, true, |world| *world = Workloads::default());
    assert_eq!(is(&held, condition::FEASIBLE), "False NodeTooSmall");
    assert_eq!(is(&held, condition::READY), "False NodeTooSmall");
    assert_eq!(is(&held, condition::STALLED), "True NodeTooSmall");
    assert_eq!(is(&held, condition::RECONCILING), "False NodeTooSmall");
    let message = &find(&held.conditions, condition::FEASIBLE).unwrap().message;
    assert!(message.contains("QuotaTooSmallForFullLoad: 1Gi") && message.contains("NodeTooSmall: 1Gi"), "{message}");
    let running = fitting(&stack(), &feasibility, false, |_| {});
    assert_eq!(is(&running, condition::FEASIBLE), "False NodeTooSmall");
    assert_eq!(is(&running, condition::READY), "True PodsReady");
    assert_eq!(is(&running, condition::STALLED), "False Proceeding");
    let unseen = Feasibility { problems: Vec::new(), ..feasibility };
    assert_eq!(is(&fitting(&stack(), &unseen, false, |_| {}), condition::FEASIBLE), "Unknown NotAllSeen");
    assert_eq!(is(&status(&stack(), |_| {}), condition::FEASIBLE), "True Fits");
}

#[test]
fn a_healthy_stack() {
    let status = status(&stack(), |_| {});
    assert_eq!(is(&status, condition::READY), "True PodsReady");
    assert_eq!(is(&status, condition::RECONCILING), "False Settled");
    assert_eq!(is(&status, condition::STALLED), "False Proceeding");
    assert_eq!(is(&status, condition::DATABASE), "True SchemaReady");
    assert_eq!(is(&status, condition::CONFLICT), "absent");
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(status.api.unwrap().summary, "2/2");
    assert_eq!(status.url.as_deref(), Some("http://perses-api.a.svc:8080"));
    assert!(status.sizing.unwrap().numbers.contains_key("api.minReplicas"));
}

#[test]
fn the_same_world_gives_the_same_status() {
    let mut stack = stack();
    let first = status(&stack, |_| {});
    stack.status = Some(first.clone());
    assert_eq!(status(&stack, |_| {}), first);
}

#[test]
fn a_lost_cache_or_database_does_not_make_a_serving_stack_unready() {
    let status = status(&stack(), |world| {
        world.redis = Some(WorkloadState { desired: 1, ..WorkloadState::default() });
        world.database = Some(WorkloadState { desired: 1, ..WorkloadState::default() });
    });
    assert_eq!(is(&status, condition::READY), "True PodsReady");
    assert_eq!(is(&status, condition::CACHE), "False PodsNotReady");
    assert_eq!(is(&status, condition::DATABASE), "False PodsNotReady");
    assert_eq!(is(&status, condition::RECONCILING), "True PodsNotReady");
}

#[test]
fn before_the_schema_the_database_is_to_blame() {
    let status = status(&stack(), |world| {
        world.api = None;
        world.migrations.clear();
    });
    assert_eq!(is(&status, condition::READY), "False Migrating");
    assert_eq!(is(&status, condition::API), "False WaitingForSchema");
}

#[test]
fn too_few_pods_and_a_rollout() {
    let lacking = status(&stack(), |world| world.api = state(1));
    assert_eq!(is(&lacking, condition::READY), "False PodsNotReady");
    let rolling = status(&stack(), |world| world.api.as_mut().unwrap().updated = 1);
    assert_eq!(is(&rolling, condition::READY), "True PodsReady");
    assert_eq!(is(&rolling, condition::RECONCILING), "True RollingOut");
    let leaving = status(&stack(), |world| world.api.as_mut().unwrap().total = 3);
    assert_eq!(is(&leaving, condition::RECONCILING), "True RollingOut", "an older pod is left");
    let stuck = status(&stack(), |world| world.api.as_mut().unwrap().message = Some("exceeded".to_owned()));
    assert_eq!(is(&stuck, condition::STALLED), "True RolloutStuck");
}

#[test]
fn a_failed_migration_during_an_upgrade_keeps_serving() {
    let failed = |world: &mut Workloads| {
        world
            .migrations
            .values_mut()
            .for_each(|job| *job = JobState { failed: Some("boom".to_owned()), ..JobState::default() });
    };
    let status = status(&stack(), failed);
    assert_eq!(is(&status, condition::DATABASE), "False MigrationFailed");
    assert_eq!(is(&status, condition::READY), "True PodsReady");
}

#[test]
fn an_image_that_is_too_old_for_the_schema_stops_and_costs_nobody_his_pods() {
    let refused = |world: &mut Workloads| {
        let refused = JobState { failed: Some("exit code 3".to_owned()), too_new: true, ..JobState::default() };
        world.migrations.values_mut().for_each(|job| *job = refused.clone());
    };
    let mut stack = stack();
    let before = status(&stack, refused);
    assert_eq!(is(&before, condition::DATABASE), "False SchemaTooNew");
    assert_eq!(is(&before, condition::STALLED), "True SchemaTooNew");
    assert_eq!(is(&before, condition::RECONCILING), "False Stalled");
    assert_eq!(is(&before, condition::READY), "True PodsReady");
    let message = &find(&before.conditions, condition::STALLED).unwrap().message;
    assert!(message.contains("api-server") && message.contains("restore a backup"), "{message}");

    // While it is tried again nothing new is said; a changed spec begins anew.
    stack.status = Some(before.clone());
    let again = status(&stack, |world| world.migrations.clear());
    assert_eq!(is(&again, condition::STALLED), "True SchemaTooNew");
    assert!(news(&before.conditions, &again.conditions).is_empty());
    stack.metadata.generation = Some(4);
    let changed = status(&stack, |world| world.migrations.clear());
    assert_eq!(is(&changed, condition::DATABASE), "False Migrating");
    assert_eq!(is(&changed, condition::STALLED), "False Proceeding");

    // A new stack over the data of a later release.
    stack.status = None;
    let new = status(&stack, |world| {
        refused(world);
        world.api = None;
    });
    assert_eq!(is(&new, condition::READY), "False SchemaTooNew");
}

#[test]
fn an_invalid_spec_keeps_what_the_last_good_one_made() {
    let mut stack = stack();
    stack.status = Some(status(&stack, |_| {}));
    let invalid =
        Invalid { reason: "DatabaseNotChosen", message: "set it".to_owned(), waiting_for: None, terminal: true };
    let workloads = healthy("m");
    let report = Report {
        plan: Err(&invalid),
        workloads: &workloads,
        foreign: &[],
        failed: None,
        terminating: &[],
        waits_turn: false,
    };
    let status = compute(&stack, &report, Timestamp::from_second(200).unwrap());
    assert_eq!(is(&status, condition::STALLED), "True DatabaseNotChosen");
    assert_eq!(is(&status, condition::READY), "True PodsReady", "the pods still serve");
    assert!(status.url.is_some() && status.sizing.is_some());

    let nothing = Workloads::default();
    let report = Report { workloads: &nothing, ..report };
    stack.status = None;
    let status = compute(&stack, &report, Timestamp::from_second(200).unwrap());
    assert_eq!(is(&status, condition::READY), "False DatabaseNotChosen");
    assert_eq!(is(&status, condition::RECONCILING), "False Stalled");
}

#[test]
fn somebody_elses_object_is_named() {
    let workloads = healthy("m");
    let foreign = [ForeignObject {
        kind: "Service".to_owned(),
        name: "perses-api".to_owned(),
        owner: "managed by Helm".to_owned(),
    }];
    let invalid = Invalid { reason: "x", message: String::new(), waiting_for: None, terminal: true };
    let report = Report {
        plan: Err(&invalid),
        workloads: &workloads,
        foreign: &foreign,
        failed: None,
        terminating: &[],
        waits_turn: false,
    };
    let status = compute(&stack(), &report, Timestamp::from_second(1).unwrap());
    assert_eq!(is(&status, condition::CONFLICT), "True ForeignObject");
    assert_eq!(is(&status, condition::READY), "False NameConflict");
    let message = &find(&status.conditions, condition::CONFLICT).unwrap().message;
    assert!(message.contains("Service perses-api (managed by Helm)"), "{message}");
}

#[test]
fn only_changes_are_news() {
    let mut stack = stack();
    let good = status(&stack, |_| {});
    let told = |old: &[Condition], new: &PersesStackStatus| {
        news(old, &new.conditions).into_iter().map(|(found, good)| (found.type_.clone(), good)).collect::<Vec<_>>()
    };
    assert_eq!(told(&[], &good), [("Ready".to_owned(), true)]);
    assert!(told(&good.conditions, &good).is_empty());
    stack.status = Some(good.clone());
    let worse = status(&stack, |world| world.redis = Some(WorkloadState { desired: 1, ..WorkloadState::default() }));
    assert_eq!(told(&good.conditions, &worse), [("CacheReady".to_owned(), false)]);
    assert_eq!(told(&worse.conditions, &good), [("CacheReady".to_owned(), true)]);
}
