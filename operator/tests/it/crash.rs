//! The operator dies before and after every single write, and every write fails in every way: the end is always the same.
//!
//! A reference run numbers the writes of a step. Then, for each number, the step is taken while the operator dies before that
//! request leaves, or after the server has committed it, and a new one with empty memories goes on; or while that request
//! fails. Each create has a namespace of its own. What is done to a stack that runs is done to the same few stacks, there
//! and back again: to make one costs more than to change it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use e2e::cluster::ControlPlane;
use futures::StreamExt;
use futures::future::join_all;
use parking_lot::Mutex;
use persesstack_operator::client::fault::{Failure, Fault, Faults, Write};
use persesstack_operator::conditions::is_true;
use serde_json::{Value, json};

use crate::cluster::pgo::Pgo;
use crate::cluster::{Operator, Space, World, control_plane, equipped, generated, ingress_class, normalised};

/// Creates that run at the same time: they wait for controllers most of the time.
const PARALLEL: usize = 8;
/// Stacks on which the same is done at the same time.
const STACKS: usize = 5;

/// Every way in which a request fails.
pub(crate) const FAILURES: [Failure; 7] = [
    Failure::Conflict,
    Failure::TooManyRequests,
    Failure::InternalError,
    Failure::Unavailable,
    Failure::GatewayTimeout,
    Failure::Unsent,
    Failure::LostReply,
];

/// What is done to a stack while the operator runs.
#[derive(Clone, Debug)]
enum Step {
    /// It is made.
    Create(Value),
    /// This is merged into its spec.
    Change(Value),
    /// It is deleted and made again: what was retained is adopted.
    Recreate(Value),
}

impl Step {
    async fn act(&self, space: &Space) {
        match self {
            Self::Create(spec) => drop(space.create(spec).await),
            Self::Change(spec) => drop(space.change(spec).await),
            Self::Recreate(spec) => {
                space.delete().await;
                space.create(spec).await;
            }
        }
    }

    /// Waits until the operator has brought it to its end.
    async fn ended(&self, space: &Space) {
        if !matches!(self, Self::Change(spec) if spec["suspend"] == true) {
            space.settled().await;
            return;
        }
        let asleep = space.until("the stack to sleep", |stack| {
            let Some(status) = &stack.status else { return false };
            status.observed_generation == stack.metadata.generation && is_true(&status.conditions, "Suspended")
        });
        asleep.await;
    }
}

/// A namespace and what plays around the operator in it.
struct Place {
    space: Space,
    _world: World,
    /// Where the cluster has the API.
    _pgo: Option<Pgo>,
}

impl Place {
    async fn new(plane: &'static ControlPlane) -> Self {
        let space = Space::on(plane, "crash").await;
        let pgo = !std::ptr::eq(plane, control_plane());
        Self { _world: World::start(&space), _pgo: pgo.then(|| Pgo::start(&space)), space }
    }

    /// With a stack that runs.
    async fn with(plane: &'static ControlPlane, spec: &Value) -> Self {
        let place = Self::new(plane).await;
        play(&place, &Step::Create(spec.clone()), None).await;
        place
    }
}

/// What became of a step.
#[derive(Debug)]
struct Outcome {
    state: BTreeMap<String, Value>,
    /// Writes of the first operator, in order: whether it is one of the status.
    writes: Vec<bool>,
    /// Writes until the end, without those of the status: how many reports of progress there are depends on time.
    lasting: usize,
    struck: bool,
}

/// Takes a step with a fault.
async fn play(place: &Place, step: &Step, fault: Option<Fault>) -> Outcome {
    let space = &place.space;
    let mut kept = generated(space).await;
    let faults = fault.map_or_else(Faults::none, Faults::with);
    let operator = Operator::with(space, faults.clone());
    let ended = async {
        step.act(space).await;
        step.ended(space).await;
    };
    tokio::pin!(ended);
    let (last, crashed) = tokio::select! {
        () = &mut ended => (operator, false),
        () = faults.crashed() => {
            drop(operator);
            kept.extend(generated(space).await);
            let survivor = Operator::start(space);
            ended.await;
            (survivor, true)
        }
    };
    let (first, second) = (faults.writes(), if crashed { last.faults.writes() } else { Vec::new() });
    last.stop().await;
    let end = generated(space).await;
    for (name, data) in &kept {
        assert_eq!(end.get(name), Some(data), "{step:?} {fault:?}: the content of {name} was made again");
    }
    let status = |write: &Write| write.path.ends_with("/status");
    Outcome {
        state: normalised(space).await,
        lasting: first.iter().chain(&second).filter(|write| !status(write)).count(),
        writes: first.iter().map(status).collect(),
        struck: crashed || fault.is_some_and(|fault| faults.struck(fault)),
    }
}

fn assert_same(reference: &BTreeMap<String, Value>, state: &BTreeMap<String, Value>, what: &str) {
    let names = |state: &BTreeMap<String, Value>| state.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(reference), names(state), "{what}: other objects");
    for (name, value) in reference {
        assert_eq!(value, &state[name], "{what}: {name}");
    }
}

/// One end state, and few writes beyond: the one that is repeated, and one because two changes go in one write or in two.
fn assert_equal(reference: &Outcome, outcome: &Outcome, what: &str) {
    assert_same(&reference.state, &outcome.state, what);
    let (lasting, usual) = (outcome.lasting, reference.lasting);
    assert!(lasting <= usual + 2, "{what}: {lasting} writes where {usual} are usual");
}

/// The last writes are reports of progress; a run that is quicker than the reference has fewer of them.
fn assert_struck(struck: &[bool], what: &str) {
    let hits = struck.iter().filter(|struck| **struck).count();
    println!("{what}: {hits} of {} faults struck, one end state", struck.len());
    assert!(hits * 10 >= struck.len() * 8, "{what}: only {hits} of {} faults struck", struck.len());
}

/// A crash after every write; one after a report of progress only at the end: what it reported is as it was. Writes of one
/// stack follow each other, and a dead process remembers nothing: before number n + 1 the cluster is as after number n.
fn crashes(writes: &[bool]) -> impl Iterator<Item = Fault> {
    let lasting = (1..=writes.len()).filter(|number| *number == writes.len() || !writes[*number - 1]);
    std::iter::once(Fault::CrashBefore(1)).chain(lasting.map(Fault::CrashAfter))
}

/// Each write with one fault, crashes and failures in turn. That both are survived at every write is shown on creates; this
/// is about the state between the writes.
fn in_turn(writes: &[bool], first: usize) -> Vec<Fault> {
    let either = |(at, failure): (usize, Fault)| {
        if (at + first).is_multiple_of(2) { Fault::CrashAfter(at + 1) } else { failure }
    };
    failures(writes.len(), first).enumerate().map(either).collect()
}

/// Every kind at some writes, and every write with some kind: all pairs would take minutes and tell no more.
fn failures(writes: usize, first: usize) -> impl Iterator<Item = Fault> {
    (1..=writes).map(move |number| match FAILURES.get((number + first) % (FAILURES.len() + 1)) {
        Some(failure) => Fault::Fail(number, *failure),
        None => Fault::Duplicate(number),
    })
}

/// Creates a stack again and again, each time with another of the `faults` for so many writes.
async fn creates(plane: &'static ControlPlane, spec: Value, faults: impl Fn(&[bool]) -> Vec<Fault>) {
    let step = Step::Create(spec);
    let reference = play(&Place::new(plane).await, &step, None).await;
    assert!(reference.writes.len() >= 20, "{} writes", reference.writes.len());
    let plans = faults(&reference.writes);
    let (reference, step) = (&Arc::new(reference), &step);
    let struck: Vec<bool> = futures::stream::iter(plans)
        .map(|fault| {
            let (reference, step) = (reference.clone(), step.clone());
            tokio::spawn(async move {
                let place = Place::new(plane).await;
                let outcome = Box::pin(play(&place, &step, Some(fault))).await;
                place.space.remove().await;
                assert_equal(&reference, &outcome, &format!("create {fault:?}"));
                outcome.struck
            })
        })
        .buffer_unordered(PARALLEL)
        .map(Result::unwrap)
        .collect()
        .await;
    assert_struck(&struck, "create");
}

/// Takes the steps, which lead back to where they began, until each of the `faults` for their writes has struck.
async fn goes_round(
    plane: &'static ControlPlane,
    spec: Value,
    steps: Vec<Step>,
    faults: impl Fn(&[bool], usize) -> Vec<Fault>,
) {
    let place = Place::with(plane, &spec).await;
    let round = async || {
        let mut outcomes = Vec::new();
        for step in &steps {
            outcomes.push(Box::pin(play(&place, step, None)).await);
        }
        outcomes
    };
    // What is new in the first round is there in the second one, such as the Secret with another configuration.
    let (first, reference) = (round().await, round().await);
    let mut plans = Vec::new();
    for (at, (first, second)) in first.iter().zip(&reference).enumerate() {
        assert_same(&first.state, &second.state, &format!("{:?} once more", steps[at]));
        let mut faults = VecDeque::from(faults(&second.writes, 3 * at));
        // And these, spread over it, for the first round of each stack.
        for number in (0..STACKS).map(|stack| 1 + stack * first.writes.len() / STACKS) {
            faults.push_front(Fault::CrashAfter(number));
        }
        plans.push(Mutex::new(faults));
    }
    let shared = Arc::new((spec, steps, reference, plans));
    let stacks = (0..STACKS).map(|_| {
        let shared = shared.clone();
        tokio::spawn(async move {
            let (spec, steps, reference, plans) = &*shared;
            let place = Place::with(plane, spec).await;
            let mut struck = Vec::new();
            loop {
                let faults: Vec<Option<Fault>> = plans.iter().map(|plan| plan.lock().pop_front()).collect();
                if faults.iter().all(Option::is_none) {
                    place.space.remove().await;
                    return struck;
                }
                for ((step, reference), fault) in steps.iter().zip(reference).zip(faults) {
                    let outcome = Box::pin(play(&place, step, fault)).await;
                    assert_equal(reference, &outcome, &format!("{step:?} {fault:?}"));
                    struck.extend(fault.map(|_| outcome.struck));
                }
            }
        })
    });
    let struck: Vec<bool> = join_all(stacks).await.into_iter().flat_map(Result::unwrap).collect();
    assert_struck(&struck, &format!("{:?}", shared.1));
}

/// A stack for people who need nothing else.
fn plain() -> Value {
    json!({"users": 10, "database": {"type": "Standalone"}, "exposure": {"type": "None"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_of_a_create() {
    creates(control_plane(), json!({"users": 10}), |writes| crashes(writes).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_failure_at_any_write_of_a_create() {
    creates(control_plane(), json!({"users": 10}), |writes| failures(writes.len(), 0).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_write_of_a_create_on_crunchys_operator() {
    let Some(plane) = equipped() else { return };
    // What comes before the cluster is as on any other database.
    creates(plane, json!({"users": 20, "exposure": {"type": "None"}}), |writes| in_turn(writes, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_around_a_delete() {
    // How its writes fail is that of a create.
    goes_round(control_plane(), plain(), vec![Step::Recreate(plain())], |writes, _| crashes(writes).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_write_of_a_prune() {
    let steps = [
        json!({"cache": {"type": "None"}, "pooler": {"type": "None"}}),
        json!({"cache": {"type": "Standalone"}, "pooler": {"type": "PgBouncer"}}),
    ];
    goes_round(control_plane(), plain(), steps.map(Step::Change).into(), in_turn).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_write_of_a_change_of_size() {
    // No volume is ever there, so none could grow.
    let mut spec = plain();
    spec["database"]["standalone"] = json!({"storage": {"size": "20Gi"}});
    let steps = [json!({"users": 100}), json!({"users": 10})];
    goes_round(control_plane(), spec, steps.map(Step::Change).into(), in_turn).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_write_while_a_stack_falls_asleep_and_wakes() {
    let steps = [json!({"suspend": true}), json!({"suspend": false})];
    goes_round(control_plane(), plain(), steps.map(Step::Change).into(), in_turn).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_write_while_a_cluster_of_crunchys_operator_sleeps_and_wakes() {
    let Some(plane) = equipped() else { return };
    let steps = [json!({"suspend": true}), json!({"suspend": false})];
    goes_round(plane, json!({"users": 20, "exposure": {"type": "None"}}), steps.map(Step::Change).into(), in_turn)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_write_of_another_exposure() {
    let Some(plane) = equipped() else { return };
    ingress_class(&Space::on(plane, "crash").await, "web").await;
    let mut spec = plain();
    spec["exposure"] = json!({"type": "Ingress", "host": "a.example", "ingress": {"className": "web"}});
    let steps = [json!({"exposure": {"type": "Route", "ingress": null}}), json!({"exposure": spec["exposure"]})];
    goes_round(plane, spec, steps.map(Step::Change).into(), in_turn).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_needs_no_operator() {
    // Nobody runs: the garbage collector does it all, and what is retained is what it would be.
    let alone = Place::with(control_plane(), &plain()).await;
    alone.space.delete().await;

    let place = Place::with(control_plane(), &plain()).await;
    let operator = Operator::start(&place.space);
    place.space.delete().await;
    assert_eq!(operator.faults.count(), 0, "deleting costs no write: {:?}", operator.faults.writes());
    assert_same(&normalised(&alone.space).await, &normalised(&place.space).await, "with an operator");
}
