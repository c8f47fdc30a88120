//! A datasource that fails again and again is left alone for a while; then one query tries it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What is known of the datasource. The functions are pure but for `&mut self`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// All may ask; so many failed in a row.
    Closed(u32),
    /// Nobody may ask until then.
    Open(Instant),
    /// One tries.
    Trying,
}

impl State {
    /// Whether one may ask now; an error is how long to wait.
    fn ask(&mut self, pause: Duration, now: Instant) -> Result<(), Duration> {
        match *self {
            Self::Closed(_) => Ok(()),
            Self::Open(until) if until > now => Err(until - now),
            Self::Open(_) => {
                *self = Self::Trying;
                Ok(())
            }
            // Nobody knows when the one who tries is done.
            Self::Trying => Err(pause),
        }
    }

    fn succeeded(&mut self) {
        *self = Self::Closed(0);
    }

    fn failed(&mut self, most: u32, pause: Duration, now: Instant) {
        *self = match *self {
            Self::Closed(failures) if failures + 1 < most => Self::Closed(failures + 1),
            Self::Closed(_) | Self::Trying => Self::Open(now + pause),
            // One of those who asked before it opened.
            open @ Self::Open(_) => open,
        }
    }

    /// Who tried has left: the next one tries.
    fn left(&mut self, now: Instant) {
        if *self == Self::Trying {
            *self = Self::Open(now);
        }
    }
}

/// The breaker of one datasource.
#[derive(Debug, Clone)]
pub(super) struct Breaker(Arc<Mutex<State>>);

/// When it opens, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    pub(super) failures: u32,
    pub(super) pause: Duration,
}

/// A query that is being asked; dropped without a word it says nothing about the datasource.
#[must_use]
pub(super) struct Trial {
    state: Arc<Mutex<State>>,
    rule: Rule,
    is_done: bool,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State::Closed(0))))
    }

    /// Begins a query, and says whether it may be asked; an error is how long the datasource is left alone. Who asks all the
    /// same tells how it went.
    pub(super) fn ask(&self, rule: Rule, now: Instant) -> (Trial, Result<(), Duration>) {
        let allowed = self.0.lock().ask(rule.pause, now);
        (Trial { state: self.0.clone(), rule, is_done: allowed.is_err() }, allowed)
    }
}

impl Trial {
    /// The datasource answered, or failed.
    pub(super) fn done(mut self, has_failed: bool, now: Instant) {
        self.is_done = true;
        let mut state = self.state.lock();
        if has_failed { state.failed(self.rule.failures, self.rule.pause, now) } else { state.succeeded() }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if !self.is_done {
            self.state.lock().left(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { failures: 3, pause: Duration::from_secs(5) };

    #[test]
    fn opens_after_failures_in_a_row_and_closes_after_one_success() {
        let (breaker, start) = (Breaker::new(), Instant::now());
        let ask = |seconds: u64| breaker.ask(RULE, start + Duration::from_secs(seconds));
        let run = |seconds: u64, has_failed| {
            let (trial, allowed) = ask(seconds);
            allowed.unwrap();
            trial.done(has_failed, start + Duration::from_secs(seconds));
        };
        for has_failed in [true, true, false, true, true] {
            run(0, has_failed);
        }
        // Asked before the third failure, answered after it.
        let (early, _) = ask(0);
        run(0, true);
        early.done(true, start + Duration::from_secs(3));
        assert_eq!(ask(1).1, Err(Duration::from_secs(4)));
        let (trial, allowed) = ask(5);
        allowed.unwrap();
        assert_eq!(ask(5).1, Err(RULE.pause), "one tries at a time");
        trial.done(true, start + Duration::from_secs(6));
        assert_eq!(ask(10).1, Err(Duration::from_secs(1)), "the pause begins anew");
        run(11, false);
        run(11, true);
        run(11, true);
        assert_eq!(ask(11).1, Ok(()), "a success counts for all failures before it");
    }

    #[test]
    fn who_tries_and_leaves_lets_the_next_one_try() {
        let (breaker, start) = (Breaker::new(), Instant::now());
        for _ in 0..3 {
            breaker.ask(RULE, start).0.done(true, start);
        }
        let later = start + RULE.pause;
        let (trial, allowed) = breaker.ask(RULE, later);
        allowed.unwrap();
        let (refused, not_allowed) = breaker.ask(RULE, later);
        not_allowed.unwrap_err();
        drop(refused);
        breaker.ask(RULE, later).1.unwrap_err();
        drop(trial);
        let (trial, allowed) = breaker.ask(RULE, Instant::now() + RULE.pause);
        allowed.unwrap();
        trial.done(false, later);
        breaker.ask(RULE, later).1.unwrap();
    }
}
