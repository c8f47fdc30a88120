//! Whether the stack fits, in the status. PURE.

use super::{Report, condition};
use crate::conditions::{Finding, Status};
use crate::controllers::persesstack::feasible::Feasibility;
use crate::sizing::Sizing;

/// The condition: what contradicts itself, what does not fit, what was not seen.
pub(super) fn feasible(sizing: &Sizing, feasibility: &Feasibility) -> Finding {
    let type_ = condition::FEASIBLE;
    if !sizing.contradictions.is_empty() {
        return Finding::new(type_, false, "NumbersContradict", sizing.contradictions.join("; "));
    }
    // What keeps the stack from coming up is the reason; everything is told.
    let worst = feasibility.problems.iter().max_by_key(|problem| problem.blocks);
    if let Some(worst) = worst {
        let all: Vec<_> = feasibility.problems.iter().map(|problem| problem.message.as_str()).collect();
        return Finding::new(type_, false, worst.reason, all.join("; "));
    }
    if feasibility.unknown.is_empty() {
        Finding::new(type_, true, "Fits", "the numbers agree with each other and fit the namespace and the cluster")
    } else {
        let message =
            format!("the numbers agree with each other; not compared with: {}", feasibility.unknown.join(", "));
        Finding::new(type_, Status::Unknown, "NotAllSeen", message)
    }
}

/// The finding about a stack that is held back because it does not fit.
pub(super) fn infeasible<'a>(report: &Report<'_>, parts: &'a [Finding]) -> Option<&'a Finding> {
    let held = report.plan.as_ref().is_ok_and(|planned| planned.held);
    parts.iter().find(|part| held && part.type_ == condition::FEASIBLE)
}
