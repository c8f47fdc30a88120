//! At most so many stacks replace their pods at the same time when the operator itself, not a person, is the reason:
//! after an upgrade that brings new images or templates. A mistake in them then reaches few stacks before it is seen, and
//! one database server is not migrated by all of its stacks at once.
//!
//! A turn ends when the stack is settled, is gone, or has held it for too long: one bad stack never stops the others.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::context::StackKey;

/// A stack that is not settled after this time gives its turn to the next one. Longer than the progress deadline of a
/// Deployment (10 min), after which `Stalled` says what is wrong.
const PATIENCE: Duration = Duration::from_mins(12);

/// Who has a turn, and since when. Lost with the process: then the stacks that are rolling take theirs again as they are
/// looked at, beside at most as many others.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeMap<StackKey, Instant>>);

impl Turns {
    /// Whether this stack may replace pods now. `limit` 0 is no limit.
    pub fn take(&self, stack: &StackKey, limit: usize, now: Instant) -> bool {
        let mut held = self.0.lock();
        held.retain(|_, since| now.duration_since(*since) < PATIENCE);
        if limit == 0 || held.contains_key(stack) {
            return true;
        }
        let free = held.len() < limit;
        if free {
            held.insert(stack.clone(), now);
        }
        free
    }

    /// Gives this stack a turn whatever the limit: a person has asked for the change. Others wait for it all the same.
    pub fn grant(&self, stack: &StackKey, now: Instant) {
        self.0.lock().entry(stack.clone()).or_insert(now);
    }

    /// The stack is settled or gone.
    pub fn done(&self, stack: &StackKey) {
        self.0.lock().remove(stack);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> StackKey {
        ("n".to_owned(), name.to_owned())
    }

    #[test]
    fn a_turn_is_passed_on() {
        let (turns, now) = (Turns::default(), Instant::now());
        assert!(turns.take(&key("a"), 2, now) && turns.take(&key("b"), 2, now));
        assert!(turns.take(&key("a"), 2, now), "it keeps its own");
        assert!(!turns.take(&key("c"), 2, now));
        turns.done(&key("b"));
        assert!(turns.take(&key("c"), 2, now));
        assert!(turns.take(&key("d"), 0, now), "no limit");
        turns.grant(&key("e"), now);
        assert!(turns.take(&key("e"), 2, now), "asked for");
        turns.done(&key("c"));
        assert!(!turns.take(&key("d"), 2, now), "what was asked for counts");
    }

    #[test]
    fn a_stack_that_does_not_settle_stops_nobody() {
        let (turns, now) = (Turns::default(), Instant::now());
        assert!(turns.take(&key("bad"), 1, now));
        assert!(!turns.take(&key("a"), 1, now + PATIENCE / 2));
        assert!(turns.take(&key("a"), 1, now + PATIENCE));
        assert!(!turns.take(&key("bad"), 1, now + PATIENCE), "it stands in line again");
    }
}
