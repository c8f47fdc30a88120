//! What strangers send to the parsers, in many broken forms: nothing panics, nothing hangs.
//!
//! Seeds are documents, queries and configurations of this repository; each round changes one a few times. The tests run a
//! fixed number of rounds with a fixed seed, `make fuzz` as many as fit into a time, with a new one. An input that ends a
//! round badly is kept in `target/fuzz`.

mod mutate;
mod seeds;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use self::mutate::mutated;
use self::targets::Target;

/// No input may take longer, on a busy machine without optimisation.
const LIMIT: Duration = Duration::from_secs(10);

/// When a run is over.
#[derive(Debug, Clone, Copy)]
enum End {
    Rounds(u64),
    At(Instant),
}

/// Where inputs are kept: bad ones, and the one at work, as a stack overflow ends the process.
fn folder() -> PathBuf {
    let folder = e2e::paths::target_dir().join("fuzz");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Feeds one target; the rounds that it had.
fn run(target: &Target, seed: u64, end: End) -> u64 {
    let seeds = (target.seeds)();
    assert!(seeds.len() > 3, "{} has too few seeds", target.name);
    let mut random = StdRng::seed_from_u64(seed);
    let at_work = folder().join(format!("{}-at-work", target.name));
    // The seeds themselves first.
    let mut inputs = seeds.clone().into_iter();
    let mut rounds = 0;
    loop {
        let goes_on = match end {
            End::Rounds(most) => rounds < most + seeds.len() as u64,
            End::At(time) => Instant::now() < time,
        };
        if !goes_on {
            let _ = std::fs::remove_file(&at_work);
            return rounds;
        }
        let input = inputs.next().unwrap_or_else(|| {
            let from = &seeds[random.random_range(0..seeds.len())];
            let other = &seeds[random.random_range(0..seeds.len())];
            mutated(from, other, target.is_json, &mut random)
        });
        if matches!(end, End::At(_)) {
            std::fs::write(&at_work, &input).unwrap();
        }
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.feed)(&input)));
        let took = started.elapsed();
        if outcome.is_err() || took > LIMIT {
            let kept = folder().join(format!("{}-{}", target.name, &blake3::hash(&input).to_hex()[..16]));
            std::fs::write(&kept, &input).unwrap();
            let what = if outcome.is_err() { "panicked".to_owned() } else { format!("took {took:?}") };
            panic!("{} {what} in round {rounds} of seed {seed}; the input is in {}", target.name, kept.display());
        }
        rounds += 1;
    }
}

#[test]
fn broken_documents_are_refused_and_no_more() {
    run(&targets::DOCUMENT, 1, End::Rounds(1_500));
}

#[test]
fn broken_queries_are_refused_and_no_more() {
    run(&targets::PROMQL, 2, End::Rounds(4_000));
}

#[test]
fn broken_query_requests_are_refused_and_no_more() {
    run(&targets::REQUEST, 3, End::Rounds(4_000));
}

#[test]
fn broken_configurations_are_refused_and_no_more() {
    run(&targets::CONFIG, 4, End::Rounds(200));
}

#[test]
fn broken_provisioning_files_are_refused_and_no_more() {
    run(&targets::YAML, 5, End::Rounds(300));
}

/// `make fuzz`: all targets by turns for `FUZZ_SECONDS`.
#[test]
#[ignore = "runs for as long as it is told to: make fuzz SECONDS=600"]
fn fuzz_for_a_while() {
    let seconds = std::env::var("FUZZ_SECONDS").map_or(60, |text| text.parse().unwrap());
    let seed = std::env::var("FUZZ_SEED").map_or_else(|_| rand::random(), |text| text.parse().unwrap());
    let share = Duration::from_secs(seconds) / u32::try_from(targets::ALL.len()).unwrap();
    println!("seed {seed}");
    for target in targets::ALL {
        let rounds = run(target, seed, End::At(Instant::now() + share));
        println!("{}: {rounds} inputs", target.name);
    }
}
