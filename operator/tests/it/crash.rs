//! The operator dies before and after every single write, and every write fails in every way: the end is always the same.
//!
//! A reference run numbers the writes of a create. Then, for each number, a run of its own lets the operator die before
//! that request leaves, or after the server has committed it, and starts a new one with empty memories.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use persesstack_operator::client::fault::{Failure, Fault, Faults};
use serde_json::{Value, json};

use crate::cluster::{Operator, Space, World, equipped, generated, ingress_class, normalised};

/// Runs at the same time: they wait for controllers most of the time.
const PARALLEL: usize = 8;

type EndState = Arc<BTreeMap<String, Value>>;

/// What a run does to the stack.
#[derive(Clone, Copy, Debug)]
enum Story {
    /// Create it.
    Create,
    /// Delete it and create it again: what was retained is adopted.
    Recreate,
    /// Take a part away: what is no longer wanted is deleted.
    Prune,
    /// Expose it in another way: one object takes the place of another, of a kind that not every cluster has.
    Expose,
}

impl Story {
    /// A namespace in a cluster that has what the story needs.
    async fn space(self) -> Space {
        match self {
            Self::Expose => {
                let space = Space::on(equipped().expect("asked before"), "crash").await;
                ingress_class(&space, "web").await;
                space
            }
            _ => Space::new("crash").await,
        }
    }

    /// What has happened before the operator's writes are counted.
    async fn prepare(self, space: &Space) {
        if !matches!(self, Self::Create) {
            let operator = Operator::start(space);
            let ingress = json!({"type": "Ingress", "host": "a.example", "ingress": {"className": "web"}});
            let exposure = if matches!(self, Self::Expose) { ingress } else { json!({"type": "None"}) };
            space.create(&json!({"users": 10, "database": {"type": "Standalone"}, "exposure": exposure})).await;
            space.settled().await;
            operator.stop().await;
        }
    }

    /// What happens while the writes are counted; the operator runs.
    async fn act(self, space: &Space) {
        match self {
            Self::Create => drop(space.create(&json!({"users": 10})).await),
            Self::Recreate => {
                space.delete().await;
                space.create(&json!({"users": 10})).await;
            }
            Self::Expose => drop(space.change(&json!({"exposure": {"type": "Route", "ingress": null}})).await),
            Self::Prune => drop(space.change(&json!({"cache": {"type": "None"}, "pooler": {"type": "None"}})).await),
        }
    }
}

/// Plays a story with a fault; the end state, the number of writes, and whether the fault struck.
async fn play(story: Story, fault: Option<Fault>) -> (BTreeMap<String, Value>, usize, bool) {
    let space = story.space().await;
    let _world = World::start(&space);
    story.prepare(&space).await;
    let faults = fault.map_or_else(Faults::none, Faults::with);
    let operator = Operator::with(&space, faults.clone());
    let acted = story.act(&space);
    let settled = async {
        acted.await;
        space.settled().await;
    };
    let mut writes = faults.count();
    let mut struck = false;
    let mut kept = BTreeMap::new();
    let mut second = None;
    tokio::pin!(settled);
    tokio::select! {
        () = &mut settled => {}
        () = faults.crashed() => {
            struck = true;
            drop(operator);
            kept = generated(&space).await;
            let survivor = Operator::start(&space);
            settled.await;
            writes = survivor.faults.count();
            second = Some(survivor);
        }
    }
    if !struck {
        writes = faults.count();
        struck = fault.is_some_and(|fault| faults.struck(fault));
    }
    let end = generated(&space).await;
    for (name, data) in &kept {
        assert_eq!(end.get(name), Some(data), "{fault:?}: the content of {name} was made again");
    }
    let state = normalised(&space).await;
    drop(second);
    space.remove().await;
    (state, writes, struck)
}

fn assert_same(reference: &EndState, state: &BTreeMap<String, Value>, what: &str) {
    let names = |state: &BTreeMap<String, Value>| state.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(reference), names(state), "{what}: other objects");
    for (name, value) in reference.iter() {
        assert_eq!(value, &state[name], "{what}: {name}");
    }
}

async fn crash_everywhere(story: Story) {
    let (reference, writes, _) = Box::pin(play(story, None)).await;
    let reference = Arc::new(reference);
    assert!(writes >= 3, "{writes} writes");
    // Writes of one stack follow each other, and a dead process remembers nothing: before number n + 1 the cluster is as
    // after number n. The create plays both all the same; a story with a prologue costs twice as much and plays one.
    let both = matches!(story, Story::Create);
    let before = (1..=writes).filter(|number| both || *number == 1).map(Fault::CrashBefore);
    let plans = before.chain((1..=writes).map(Fault::CrashAfter));
    let struck: Vec<bool> = futures::stream::iter(plans)
        .map(|fault| {
            let reference = reference.clone();
            tokio::spawn(async move {
                let (state, _, struck) = Box::pin(play(story, Some(fault))).await;
                assert_same(&reference, &state, &format!("{story:?} {fault:?}"));
                struck
            })
        })
        .buffer_unordered(PARALLEL)
        .map(Result::unwrap)
        .collect()
        .await;
    let hits = struck.iter().filter(|struck| **struck).count();
    println!(
        "{story:?}: {writes} writes in the reference run, {hits} of {} crashes struck, one end state",
        struck.len()
    );
    // The last writes are reports of progress; a run that is quicker than the reference has fewer of them.
    assert!(hits * 10 >= struck.len() * 8, "only {hits} of {} crashes struck", struck.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_of_a_create() {
    crash_everywhere(Story::Create).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_around_a_delete() {
    crash_everywhere(Story::Recreate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_of_a_prune() {
    crash_everywhere(Story::Prune).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_of_another_exposure() {
    if equipped().is_some() {
        crash_everywhere(Story::Expose).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delete_needs_no_operator() {
    let space = Space::new("gone").await;
    let _world = World::start(&space);
    Story::Recreate.prepare(&space).await;
    // Nobody runs: the garbage collector does it all, and what is retained is what it would be.
    space.delete().await;
    let without = normalised(&space).await;
    space.remove().await;

    let space = Space::new("gone").await;
    let _world = World::start(&space);
    Story::Recreate.prepare(&space).await;
    let operator = Operator::start(&space);
    space.delete().await;
    assert_eq!(operator.faults.count(), 0, "deleting costs no write: {:?}", operator.faults.writes());
    assert_same(&Arc::new(without), &normalised(&space).await, "with an operator");
    space.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_failure_at_any_write_of_a_create() {
    let (reference, writes, _) = Box::pin(play(Story::Create, None)).await;
    let reference = Arc::new(reference);
    let kinds = [
        Failure::Conflict,
        Failure::TooManyRequests,
        Failure::InternalError,
        Failure::Unavailable,
        Failure::GatewayTimeout,
        Failure::Unsent,
        Failure::LostReply,
    ];
    // Every kind at some writes, and every write with some kind: all pairs would take minutes and tell no more.
    let failures = (1..=writes).map(|number| Fault::Fail(number, kinds[number % kinds.len()]));
    let duplicates = (1..=writes).step_by(3).map(Fault::Duplicate);
    let results = futures::stream::iter(failures.chain(duplicates)).map(|fault| {
        let reference = reference.clone();
        tokio::spawn(async move {
            let (state, _, struck) = Box::pin(play(Story::Create, Some(fault))).await;
            assert_same(&reference, &state, &format!("{fault:?}"));
            struck
        })
    });
    let struck: Vec<bool> = results.buffer_unordered(PARALLEL).map(Result::unwrap).collect().await;
    let hits = struck.iter().filter(|struck| **struck).count();
    assert!(hits * 10 >= struck.len() * 8, "only {hits} of {} faults struck", struck.len());
}
