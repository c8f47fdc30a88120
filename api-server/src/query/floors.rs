//! What was flushed: answers from before a floor are of no use any more. Pure.
//!
//! A floor holds for answers by what they are about, not by where they lie: an answer that is on its way when somebody
//! flushes is below it, too, whoever keeps it and wherever.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::promql::Names;

/// Floors at most; beyond that the older ones become floors for everything.
const MOST: usize = 1_000;
/// Clocks of pods may differ by this much, in milliseconds.
pub const CLOCK_SKEW_MS: i64 = 5_000;

/// What is flushed: answers to which all that is said here applies; everything when nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    /// Of datasources in this project (and its dashboards).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Of datasources of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datasource: Option<String>,
    /// That read, or may read, this metric.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// With this key, as `explain` shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// What an answer is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// As [`super::plan::Source::reference`].
    pub source: &'a str,
    /// The metrics that it reads.
    pub names: &'a Names,
    /// Digests of its key, and of the key of its points.
    pub keys: [Option<&'a blake3::Hash>; 2],
}

impl Scope {
    /// Whether an answer is meant.
    pub fn fits(&self, subject: &Subject<'_>) -> bool {
        let mut parts = subject.source.split('/');
        let project = parts.next().filter(|place| *place != "global").and_then(|_| parts.next());
        let name = subject.source.rsplit('/').next();
        let is = |said: &Option<String>, found: Option<&str>| said.as_deref().is_none_or(|said| found == Some(said));
        is(&self.project, project)
            && is(&self.datasource, name)
            && self.metric.as_deref().is_none_or(|metric| subject.names.may_be(metric))
            && self.key.as_deref().is_none_or(|key| {
                subject.keys.iter().flatten().any(|found| found.to_hex().as_str().eq_ignore_ascii_case(key))
            })
    }

    /// In words.
    pub fn describe(&self) -> Cow<'static, str> {
        let said = [
            ("project", &self.project),
            ("datasource", &self.datasource),
            ("metric", &self.metric),
            ("key", &self.key),
        ];
        let said: Vec<String> =
            said.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{name} {value}"))).collect();
        if said.is_empty() { Cow::Borrowed("everything") } else { Cow::Owned(said.join(", ")) }
    }
}

/// Until when answers are of no use, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Floor {
    /// For what this process asked for, by its own clock.
    pub own: i64,
    /// For what is in Redis, by anybody's clock.
    pub shared: i64,
}

impl Default for Floor {
    fn default() -> Self {
        Self { own: i64::MIN, shared: i64::MIN }
    }
}

impl Floor {
    /// Of a flush at `at` by the clock of whoever flushed, heard of at `now` by ours.
    pub const fn of(at: i64, now: i64) -> Self {
        Self { own: now, shared: at.saturating_add(CLOCK_SKEW_MS) }
    }

    fn max(self, other: Self) -> Self {
        Self { own: self.own.max(other.own), shared: self.shared.max(other.shared) }
    }
}

/// All floors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Floors(Vec<(Scope, Floor)>);

impl Floors {
    /// The floor of an answer.
    pub fn of(&self, subject: &Subject<'_>) -> Floor {
        let fitting = self.0.iter().filter(|(scope, _)| scope.fits(subject));
        fitting.fold(Floor::default(), |highest, (_, floor)| highest.max(*floor))
    }

    /// Whether nothing was flushed.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// With a floor for each of these scopes. Those that are older than `longest` (milliseconds), the longest life of any answer,
    /// are forgotten.
    #[must_use]
    pub fn with(&self, scopes: &[Scope], floor: Floor, longest: i64) -> Self {
        let useful = |known: &Floor| known.own.max(known.shared) >= floor.own.saturating_sub(longest);
        let mut all: Vec<_> =
            self.0.iter().filter(|(scope, known)| useful(known) && !scopes.contains(scope)).cloned().collect();
        all.extend(scopes.iter().map(|scope| (scope.clone(), floor)));
        if all.len() > MOST {
            // Too many to look through for each request: the older half is for everything.
            let kept = all.split_off(all.len().saturating_sub(MOST / 2));
            let highest = all.iter().fold(Floor::default(), |highest, (_, floor)| highest.max(*floor));
            all = std::iter::once((Scope::default(), highest)).chain(kept).collect();
        }
        Self(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(project: &str, datasource: &str, metric: &str) -> Scope {
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Scope { project: said(project), datasource: said(datasource), metric: said(metric), key: None }
    }

    fn names(text: &str) -> Names {
        Names { written: text.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect(), others: false }
    }

    #[test]
    fn all_that_is_said_must_apply() {
        let up = names("up down");
        let fits = |scope: &Scope, source: &str| scope.fits(&Subject { source, names: &up, keys: [None, None] });
        let sources = ["global/prom", "project/p/prom", "dashboard/p/d/prom", "project/q/other", "global/p"];
        for (scope, expected) in [
            (Scope::default(), [true; 5]),
            (scope("", "prom", ""), [true, true, true, false, false]),
            (scope("p", "", ""), [false, true, true, false, false]),
            (scope("p", "prom", "up"), [false, true, true, false, false]),
            (scope("", "", "sideways"), [false; 5]),
        ] {
            assert_eq!(sources.map(|source| fits(&scope, source)), expected, "{}", scope.describe());
        }
        let any = Names::unknown();
        assert!(scope("", "", "up").fits(&Subject { source: "global/a", names: &any, keys: [None, None] }));
        let hash = blake3::hash(b"x");
        let key = Scope { key: Some(hash.to_hex().to_string()), ..Scope::default() };
        assert!(key.fits(&Subject { source: "global/a", names: &any, keys: [None, Some(&hash)] }));
        assert!(!key.fits(&Subject { source: "global/a", names: &any, keys: [None, None] }));
    }

    #[test]
    fn the_highest_floor_counts_and_old_ones_are_forgotten() {
        let up = names("up");
        let of = |floors: &Floors| floors.of(&Subject { source: "global/a", names: &up, keys: [None, None] }).own;
        let floors = Floors::default();
        assert_eq!(of(&floors), i64::MIN);
        let floors = floors.with(&[scope("", "", "up")], Floor::of(10, 10), 1_000_000);
        let floors = floors.with(&[scope("", "a", "")], Floor::of(20, 20), 1_000_000);
        assert_eq!(of(&floors), 20);
        let floors = floors.with(&[scope("", "", "up")], Floor::of(30, 30), 1_000_000);
        assert_eq!((of(&floors), floors.0.len()), (30, 2), "the same scope again is one floor");
        let floors = floors.with(&[scope("", "b", "")], Floor::of(2_000_000, 2_000_000), 1_000);
        assert_eq!((of(&floors), floors.0.len()), (i64::MIN, 1));
    }

    #[test]
    fn many_floors_become_one_for_everything() {
        let mut floors = Floors::default();
        for at in 0..5_000 {
            floors = floors.with(&[scope("", "", &at.to_string())], Floor::of(at, at), i64::MAX);
            assert!(floors.0.len() <= MOST);
        }
        let none = names("");
        let floor = floors.of(&Subject { source: "global/a", names: &none, keys: [None, None] });
        assert!((4_000..4_999).contains(&floor.own), "{floor:?}");
    }
}
