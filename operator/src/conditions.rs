//! Merging of `metav1.Condition` lists. PURE.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// A condition before it has a time: what is the case now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Condition type, for example `Ready`.
    pub type_: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: Status,
    /// One CamelCase word that programs can compare.
    pub reason: &'static str,
    /// What is the case and, if something is wrong, what to do.
    pub message: String,
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// It cannot be known now.
    Unknown,
}

impl Status {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Status {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

impl Finding {
    /// A finding from its parts.
    pub fn new(
        type_: &'static str,
        status: impl Into<Status>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { type_, status: status.into(), reason, message: message.into() }
    }
}

/// The new list: one condition per finding, in the order of the findings.
///
/// The transition time is kept while the status stays the same; a type that is no longer found is dropped; nothing else
/// depends on the time, so an unchanged world gives an unchanged list.
pub fn merge(old: &[Condition], findings: &[Finding], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let condition = |finding: &Finding| {
        let before = old.iter().find(|condition| condition.type_ == finding.type_);
        let since = before.filter(|condition| condition.status == finding.status.as_str());
        Condition {
            type_: finding.type_.to_owned(),
            status: finding.status.as_str().to_owned(),
            reason: finding.reason.to_owned(),
            message: finding.message.clone(),
            observed_generation: generation,
            // Whole seconds: that is what the API stores.
            last_transition_time: since
                .map_or_else(|| whole_seconds(now), |condition| condition.last_transition_time.clone()),
        }
    };
    findings.iter().map(condition).collect()
}

fn whole_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// The condition of a type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this type is `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn times_change_with_the_status_only() {
        let ready = |status: bool, message: &str| [Finding::new("Ready", status, "Pods", message)];
        let first = merge(&[], &ready(false, "0 of 2"), Some(1), at(10));
        let second = merge(&first, &ready(false, "1 of 2"), Some(2), at(20));
        assert_eq!(second[0].last_transition_time, first[0].last_transition_time);
        assert_eq!(second[0].message, "1 of 2");
        assert_eq!(second[0].observed_generation, Some(2));
        let third = merge(&second, &ready(true, "2 of 2"), Some(2), at(30));
        assert_eq!(third[0].last_transition_time.0, at(30));
        assert_eq!(merge(&third, &ready(true, "2 of 2"), Some(2), at(40)), third, "nothing changed, nothing to write");
    }

    #[test]
    fn dead_types_are_dropped() {
        let old = merge(&[], &[Finding::new("Gone", true, "Was", "")], None, at(1));
        assert!(merge(&old, &[], None, at(2)).is_empty());
    }
}
