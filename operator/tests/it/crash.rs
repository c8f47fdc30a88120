//! The operator dies after every single write, and every write fails: the end is always the same.
//!
//! A reference run takes a step. Then it is taken by operators that die after their first write, one after the other; and by
//! one whose writes fail. Each create has a namespace of its own. What is done to a stack that runs is done to the same few
//! stacks, there and back again: to make one costs more than to change it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use e2e::cluster::ControlPlane;
use futures::StreamExt;
use futures::future::join_all;
use parking_lot::Mutex;
use persesstack_operator::client::fault::{Fault, Faults, Often};
use persesstack_operator::conditions::is_true;
use serde_json::{Value, json};

use crate::cluster::pgo::Pgo;
use crate::cluster::{DEADLINE, Operator, Space, World, control_plane, equipped, generated, ingress_class, normalised};

/// Creates that run at the same time: they wait for controllers most of the time.
const PARALLEL: usize = 8;
/// Between two looks, and looks without a change until a stack counts as at rest.
const PAUSE: Duration = Duration::from_millis(100);
const STILL: usize = 10;
/// Stacks on which the same is done at the same time.
const STACKS: usize = 3;

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

/// What goes wrong while a step is taken.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// The operator dies after its first write, and the next one after its own, until there is none left to make: a dead
    /// process remembers nothing, so each begins where any process would that died there.
    Deaths,
    /// Writes fail, and the process goes on.
    Failures(Often),
}

/// Every write survives a death after it and, one of so many at a time, failures: with a pause after each failure that
/// doubles, all at a time would take minutes. Each write fails in two ways, and each way is met at many writes.
fn troubles() -> Vec<Trouble> {
    const EVERY: usize = 4;
    let failures = |run| Trouble::Failures(Often { every: EVERY, skip: run % EVERY, way: 3 * run });
    std::iter::once(Trouble::Deaths).chain((0..2 * EVERY).map(failures)).collect()
}

/// What became of a step.
#[derive(Debug)]
struct Outcome {
    state: State,
    /// Writes, without those of the status: how many reports of progress there are depends on time.
    lasting: usize,
    /// Operators that died, or writes that failed.
    struck: usize,
}

/// Objects and status, without what differs from run to run.
type State = BTreeMap<String, Value>;

/// Waits until all is as it was without trouble. Whether it came to that is for the comparison to say.
async fn agree(space: &Space, reference: &State) {
    let same = async {
        while normalised(space).await != *reference {
            tokio::time::sleep(PAUSE).await;
        }
    };
    drop(tokio::time::timeout(DEADLINE, same).await);
}

/// Waits until nothing changes any more: what a controller says last may come after a stack is ready.
async fn rest(space: &Space) {
    let still = async {
        let (mut state, mut looks) = (normalised(space).await, 0);
        while looks < STILL {
            tokio::time::sleep(PAUSE).await;
            let now = normalised(space).await;
            looks = if now == state { looks + 1 } else { 0 };
            state = now;
        }
    };
    tokio::time::timeout(DEADLINE, still).await.expect("the stack never comes to rest");
}

/// Takes a step: with a trouble, until the state is the given one; or without, until it is at rest.
async fn play(place: &Place, step: &Step, trouble: Option<(Trouble, &State)>) -> Outcome {
    let space = &place.space;
    let mut kept = generated(space).await;
    let reference = trouble.map(|(_, reference)| reference);
    let trouble = trouble.map(|(trouble, _)| trouble);
    let ended = async {
        step.act(space).await;
        step.ended(space).await;
        match reference {
            Some(reference) => agree(space, reference).await,
            None => rest(space).await,
        }
    };
    tokio::pin!(ended);
    let (mut lasting, mut struck) = (0, 0);
    loop {
        let faults = match trouble {
            None => Faults::none(),
            Some(Trouble::Deaths) => Faults::with(Fault::CrashAfter(1)),
            Some(Trouble::Failures(often)) => Faults::often(often),
        };
        let operator = Operator::with(space, faults.clone());
        let alive = tokio::select! {
            () = &mut ended => Some(operator),
            () = faults.crashed() => None,
        };
        let over = alive.is_some();
        if let Some(last) = alive {
            // One that must die now will not let its reconcile end.
            tokio::select! {
                () = last.stop() => {}
                () = faults.crashed() => {}
            }
        }
        lasting += faults.writes().iter().filter(|write| !write.path.ends_with("/status")).count();
        struck += faults.struck();
        if over {
            break;
        }
        kept.extend(generated(space).await);
    }
    let end = generated(space).await;
    for (name, data) in &kept {
        assert_eq!(end.get(name), Some(data), "{step:?} {trouble:?}: the content of {name} was made again");
    }
    Outcome { state: normalised(space).await, lasting, struck }
}

/// The same objects with the same content.
pub(crate) fn assert_same(reference: &State, state: &State, what: &str) {
    let names = |state: &State| state.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(reference), names(state), "{what}: other objects");
    for (name, value) in reference {
        assert_eq!(value, &state[name], "{what}: {name}");
    }
}

/// One end state, and few writes beyond: for each that fails its repetition, and one because two changes go in one write or
/// in two.
fn assert_equal(reference: &Outcome, outcome: &Outcome, trouble: Trouble, what: &str) {
    assert_same(&reference.state, &outcome.state, what);
    let (lasting, usual) = (outcome.lasting, reference.lasting);
    let (beyond, least) = match trouble {
        Trouble::Deaths => (2, usual),
        Trouble::Failures(often) => (2 * outcome.struck, usual / often.every),
    };
    println!("{what}: {lasting} writes where {usual} are usual, {} struck", outcome.struck);
    assert!(lasting <= usual + beyond, "{what}: {lasting} writes where {usual} are usual");
    assert!(outcome.struck >= least, "{what}: only {} struck", outcome.struck);
}

/// Creates a stack again and again, each time with another trouble.
async fn creates(plane: &'static ControlPlane, spec: Value) {
    let step = Step::Create(spec);
    let reference = play(&Place::new(plane).await, &step, None).await;
    assert!(reference.lasting >= 20, "{} writes", reference.lasting);
    let (reference, step) = (&Arc::new(reference), &step);
    let runs = futures::stream::iter(troubles()).map(|trouble| {
        let (reference, step) = (reference.clone(), step.clone());
        tokio::spawn(async move {
            let place = Place::new(plane).await;
            let outcome = Box::pin(play(&place, &step, Some((trouble, &reference.state)))).await;
            place.space.remove().await;
            assert_equal(&reference, &outcome, trouble, &format!("create {trouble:?}"));
        })
    });
    runs.buffer_unordered(PARALLEL).for_each(async |run| run.unwrap()).await;
}

/// Takes the steps, which lead back to where they began, until each was taken with each of the troubles.
async fn goes_round(plane: &'static ControlPlane, spec: Value, steps: Vec<Step>) {
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
    for (step, (first, second)) in steps.iter().zip(first.iter().zip(&reference)) {
        assert_same(&first.state, &second.state, &format!("{step:?} once more"));
    }
    place.space.remove().await;
    let shared = Arc::new((spec, steps, reference, Mutex::new(VecDeque::from(troubles()))));
    let stacks = (0..STACKS).map(|_| {
        let shared = shared.clone();
        tokio::spawn(async move {
            let (spec, steps, reference, troubles) = &*shared;
            let place = Place::with(plane, spec).await;
            // As the reference: the first round is not counted.
            for step in steps {
                Box::pin(play(&place, step, None)).await;
            }
            loop {
                let next = troubles.lock().pop_front();
                let Some(trouble) = next else { break };
                for (step, reference) in steps.iter().zip(reference) {
                    let outcome = Box::pin(play(&place, step, Some((trouble, &reference.state)))).await;
                    assert_equal(reference, &outcome, trouble, &format!("{step:?} {trouble:?}"));
                }
            }
            place.space.remove().await;
        })
    });
    join_all(stacks).await.into_iter().for_each(Result::unwrap);
}

/// A stack for people who need nothing else.
fn plain() -> Value {
    json!({"users": 10, "database": {"type": "Standalone"}, "exposure": {"type": "None"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_write_of_a_create() {
    creates(control_plane(), json!({"users": 10})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_write_of_a_create_on_crunchys_operator() {
    let Some(plane) = equipped() else { return };
    creates(plane, json!({"users": 20, "exposure": {"type": "None"}})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_write_around_a_delete() {
    goes_round(control_plane(), plain(), vec![Step::Recreate(plain())]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_write_of_a_prune() {
    let steps = [
        json!({"cache": {"type": "None"}, "pooler": {"type": "None"}}),
        json!({"cache": {"type": "Standalone"}, "pooler": {"type": "PgBouncer"}}),
    ];
    goes_round(control_plane(), plain(), steps.map(Step::Change).into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_write_of_a_change_of_size() {
    // No volume is ever there, so none could grow.
    let mut spec = plain();
    spec["database"]["standalone"] = json!({"storage": {"size": "20Gi"}});
    let steps = [json!({"users": 100}), json!({"users": 10})];
    goes_round(control_plane(), spec, steps.map(Step::Change).into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_write_while_a_stack_falls_asleep_and_wakes() {
    let steps = [json!({"suspend": true}), json!({"suspend": false})];
    goes_round(control_plane(), plain(), steps.map(Step::Change).into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_write_while_a_cluster_of_crunchys_operator_sleeps_and_wakes() {
    let Some(plane) = equipped() else { return };
    let steps = [json!({"suspend": true}), json!({"suspend": false})];
    goes_round(plane, json!({"users": 20, "exposure": {"type": "None"}}), steps.map(Step::Change).into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_write_of_another_exposure() {
    let Some(plane) = equipped() else { return };
    ingress_class(&Space::on(plane, "crash").await, "web").await;
    let mut spec = plain();
    spec["exposure"] = json!({"type": "Ingress", "host": "a.example", "ingress": {"className": "web"}});
    let steps = [json!({"exposure": {"type": "Route", "ingress": null}}), json!({"exposure": spec["exposure"]})];
    goes_round(plane, spec, steps.map(Step::Change).into()).await;
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
