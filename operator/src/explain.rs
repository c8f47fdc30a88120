//! `explain`: why a number is what it is.

use std::fmt::Write as _;

use crate::sizing::{BudgetState, Derivation, Sizing};

/// Derivations whose field is `field` or lies under it; all of them without a field. `None` when there is none.
pub fn text(sizing: &Sizing, field: Option<&str>) -> Option<String> {
    let wanted = field.map(|f| f.trim_start_matches("spec.").trim_matches('.'));
    let chosen: Vec<_> = sizing
        .derivations()
        .into_iter()
        .filter(|d| {
            wanted.is_none_or(|w| d.field == w || d.field.strip_prefix(w).is_some_and(|rest| rest.starts_with('.')))
        })
        .collect();
    let budget = wanted.is_none_or(|w| w == "connectionBudget");
    if chosen.is_empty() && !budget {
        return None;
    }
    let mut out = String::new();
    for derivation in &chosen {
        one(&mut out, derivation);
    }
    if budget {
        let state = match sizing.budget.state {
            BudgetState::Holds => "holds",
            BudgetState::Violated => "VIOLATED",
            BudgetState::Unknown => "unknown",
        };
        let _ = writeln!(out, "connectionBudget: {state}\n  {}", sizing.budget.message.replace("; ", "\n  "));
    }
    if wanted.is_none() {
        for contradiction in &sizing.contradictions {
            let _ = writeln!(out, "NOT FEASIBLE: {contradiction}");
        }
    }
    Some(out)
}

/// Names of all fields, for an error message.
pub fn fields(sizing: &Sizing) -> Vec<&'static str> {
    sizing.derivations().into_iter().map(|d| d.field).chain(["connectionBudget"]).collect()
}

// Writing to a String cannot fail.
fn one(out: &mut String, d: &Derivation) {
    let _ = writeln!(out, "{}: {}", d.field, d.value);
    if let Some(model) = &d.overrides {
        let _ = writeln!(out, "  override: the model says {model}");
    }
    let _ = writeln!(out, "  formula: {}", d.formula);
    if !d.inputs.is_empty() {
        let inputs: Vec<_> = d.inputs.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let _ = writeln!(out, "  inputs:  {}", inputs.join(", "));
    }
    if !d.limiting_factor.is_empty() {
        let _ = writeln!(out, "  decided: {}", d.limiting_factor);
    }
}
