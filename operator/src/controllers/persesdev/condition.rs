//! PURE: what became of a resource, as one condition of our own type. Those of upstream's operator are not touched.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::conditions::{Finding, find};

/// Our condition type. Upstream's operator writes `Available` and `Degraded`.
pub const SYNCED: &str = "persesstack.io/Synced";

/// What became of one resource in one stack; the worst comes last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The copy is as wanted.
    Synced,
    /// The stack does not answer yet (`Ready` is not true).
    NotReady,
    /// The server of the stack did not answer, or not as one should.
    Unreachable(String),
    /// The administrator of the stack cannot sign in.
    SignInFailed(String),
    /// Values for the credentials are missing.
    CredentialsMissing(String),
    /// A document of this name belongs to somebody else.
    NameTaken(String),
    /// The server refuses the document; its text says where.
    Refused(String),
    /// The resource cannot be carried out.
    Invalid(String),
    /// Upstream's operator syncs it as well.
    OwnedByPersesOperator(String),
}

impl Outcome {
    fn reason(&self) -> &'static str {
        match self {
            Self::Synced => "Synced",
            Self::NotReady => "WaitingForStack",
            Self::Unreachable(_) => "StackUnreachable",
            Self::SignInFailed(_) => "SignInFailed",
            Self::CredentialsMissing(_) => "CredentialsMissing",
            Self::NameTaken(_) => "NameTaken",
            Self::Refused(_) => "Refused",
            Self::Invalid(_) => "Invalid",
            Self::OwnedByPersesOperator(_) => "OwnedByPersesOperator",
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Synced => "synced".to_owned(),
            Self::NotReady => "the stack is not Ready; the copy is made when it is".to_owned(),
            Self::Unreachable(text) => format!("{text}; it is tried again"),
            Self::OwnedByPersesOperator(instance) => format!(
                "spec.instanceSelector also matches the Perses {instance}, which perses-operator syncs: narrow the selector \
                 or remove that instance. Nothing is written meanwhile"
            ),
            Self::SignInFailed(text)
            | Self::CredentialsMissing(text)
            | Self::NameTaken(text)
            | Self::Refused(text)
            | Self::Invalid(text) => text.clone(),
        }
    }
}

/// What became of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// By stack (`namespace/name`); the empty name for what concerns no single one.
    pub stacks: Vec<(String, Outcome)>,
    /// Stacks whose surplus copy could not be removed, and why.
    pub left: Vec<(String, String)>,
    /// The resource is being deleted.
    pub deleting: bool,
}

/// The condition; `None` when there is nothing to say (no stack is selected and none has a copy).
pub fn finding(report: &Report) -> Option<Finding> {
    let worst = report.stacks.iter().map(|(_, outcome)| outcome).max();
    let mut texts: Vec<String> = report
        .stacks
        .iter()
        .filter(|(_, outcome)| *outcome != Outcome::Synced)
        .map(|(stack, outcome)| if stack.is_empty() { outcome.text() } else { format!("{stack}: {}", outcome.text()) })
        .collect();
    texts.extend(report.left.iter().map(|(stack, why)| format!("{stack}: the copy is not removed yet: {why}")));
    let synced: Vec<_> = report.stacks.iter().filter(|(_, outcome)| *outcome == Outcome::Synced).collect();
    if !synced.is_empty() {
        let names: Vec<_> = synced.iter().map(|(stack, _)| stack.as_str()).collect();
        texts.insert(0, format!("synced into {}", names.join(", ")));
    }
    let reason = match worst {
        None | Some(Outcome::Synced) if !report.left.is_empty() => {
            if report.deleting {
                "Deleting"
            } else {
                "CopyNotRemoved"
            }
        }
        None => return None,
        Some(worst) => worst.reason(),
    };
    let good = reason == Outcome::Synced.reason();
    // The API takes 32 KiB; a server's text and a few hundred stacks stay readable.
    let mut message = texts.join("; ");
    if message.len() > 4000 {
        message = message.chars().take(1000).collect::<String>() + " ...";
    }
    Some(Finding::new(SYNCED, good, reason, message))
}

/// Whether the condition that is there already says this.
pub fn is_current(conditions: &[Condition], finding: Option<&Finding>, generation: Option<i64>) -> bool {
    match (find(conditions, SYNCED), finding) {
        (None, None) => true,
        (Some(found), Some(finding)) => {
            found.status == finding.status.as_str()
                && found.reason == finding.reason
                && found.message == finding.message
                && found.observed_generation == generation
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::Status;

    fn report(stacks: &[(&str, Outcome)]) -> Report {
        let stacks = stacks.iter().map(|(name, outcome)| ((*name).to_owned(), outcome.clone())).collect();
        Report { stacks, ..Report::default() }
    }

    #[test]
    fn the_worst_outcome_is_the_reason_and_every_one_is_told() {
        let refused = Outcome::Refused("400: spec.panels: wrong".to_owned());
        let away = Outcome::Unreachable("connection refused".to_owned());
        let found =
            finding(&report(&[("a/x", Outcome::Synced), ("b/y", refused), ("c/z", away)])).expect("a condition");
        assert_eq!((found.status, found.reason), (Status::False, "Refused"));
        for part in ["synced into a/x", "b/y: 400: spec.panels", "c/z: connection refused; it is tried again"] {
            assert!(found.message.contains(part), "{part} is not in {}", found.message);
        }
        let good = finding(&report(&[("a/x", Outcome::Synced), ("b/y", Outcome::Synced)])).expect("a condition");
        assert_eq!((good.status, good.reason, good.message.as_str()), (Status::True, "Synced", "synced into a/x, b/y"));
    }

    #[test]
    fn a_copy_that_is_left_is_told_and_nothing_is_nothing() {
        assert_eq!(finding(&Report::default()), None);
        let left = vec![("a/x".to_owned(), "no answer".to_owned())];
        let narrowed = finding(&Report { left: left.clone(), ..Report::default() }).expect("a condition");
        assert_eq!((narrowed.status, narrowed.reason), (Status::False, "CopyNotRemoved"));
        let deleting = finding(&Report { left, deleting: true, ..Report::default() }).expect("a condition");
        assert_eq!(deleting.reason, "Deleting");
    }
}
