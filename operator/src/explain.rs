//! `explain`: why a number is what it is.

use std::fmt::Write as _;

use serde::Serialize;

use crate::render::Rendered;
use crate::sizing::price::{Cost, PriceTable, cost, money};
use crate::sizing::quota::quota;
use crate::sizing::{BudgetState, ConnectionBudget, Derivation, Derived};
use crate::table;

/// Name of the connection budget among the fields.
const BUDGET: &str = "connectionBudget";

/// Every number of one stack that was asked for.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Name of the stack.
    pub stack: String,
    /// The numbers, in reading order.
    pub numbers: Vec<Derivation>,
    /// Whether the connections of all layers fit, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_budget: Option<Budget>,
    /// Numbers that contradict each other.
    pub contradictions: Vec<String>,
}

/// The connection budget.
#[derive(Clone, Debug, Serialize)]
pub struct Budget {
    /// `holds`, `VIOLATED` or `unknown`.
    pub state: &'static str,
    /// The arithmetic, a line each.
    pub arithmetic: Vec<String>,
}

/// Everything about `rendered`.
pub fn of(rendered: &Rendered, prices: &PriceTable) -> Explanation {
    let sizing = &rendered.sizing;
    let users = rendered.validated.inputs.users;
    let bill = cost(&rendered.footprint, sizing.demand.egress.value, users, prices);
    let mut numbers = sizing.derivations();
    numbers.extend(quota(&rendered.footprint).derivations());
    numbers.extend(costs(&bill, users));
    Explanation {
        stack: rendered.validated.names.stack().to_owned(),
        numbers,
        connection_budget: Some(budget(&sizing.budget)),
        contradictions: sizing.contradictions.clone(),
    }
}

fn budget(budget: &ConnectionBudget) -> Budget {
    let state = match budget.state {
        BudgetState::Holds => "holds",
        BudgetState::Violated => "VIOLATED",
        BudgetState::Unknown => "unknown",
    };
    Budget { state, arithmetic: budget.message.split("; ").map(str::to_owned).collect() }
}

fn costs(bill: &Cost, users: i64) -> Vec<Derivation> {
    const MONTH: &str = "sum over pods (requests x price x 720 h), volumes and egress; see `plan` for the lines";
    let number = |field, amount: f64, formula, factor: &str| {
        let derived = Derived::new(format!("{} {}", money(amount), bill.currency), formula, factor);
        Derivation::of(field, &derived.with("users", users))
    };
    vec![
        number("cost.month.fewestPods", bill.least, MONTH, "minReplicas all month"),
        number("cost.month.mostPods", bill.most, MONTH, "maxReplicas all month"),
        number("cost.userMonth.fewestPods", bill.least_per_user, "cost.month.fewestPods / users", "users"),
        number("cost.userMonth.mostPods", bill.most_per_user, "cost.month.mostPods / users", "users"),
        number(
            "cost.monthWithSpot.mostPods",
            bill.most_with_spot,
            "cost.month.mostPods with the spot discount on stateless pods (API, PgBouncer)",
            "spotDiscountPercent",
        ),
    ]
}

impl Explanation {
    /// Names of all fields, for an error message.
    pub fn fields(&self) -> Vec<&'static str> {
        self.numbers.iter().map(|number| number.field).chain([BUDGET]).collect()
    }

    /// The numbers whose field is `field` or lies under it (`spec.` in front may be left out); `None` when there are none.
    pub fn select(mut self, field: &str) -> Option<Self> {
        let wanted = field.trim_start_matches("spec.").trim_matches('.');
        let under = |name: &str| name == wanted || name.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('.'));
        self.numbers.retain(|number| under(number.field));
        self.connection_budget = self.connection_budget.filter(|_| wanted == BUDGET);
        self.contradictions.clear();
        (!self.numbers.is_empty() || self.connection_budget.is_some()).then_some(self)
    }

    /// A paragraph for each number.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for number in &self.numbers {
            paragraph(&mut out, number);
        }
        // Writing to a String cannot fail.
        if let Some(budget) = &self.connection_budget {
            let _ = writeln!(out, "{BUDGET}: {}\n  {}", budget.state, budget.arithmetic.join("\n  "));
        }
        for contradiction in &self.contradictions {
            let _ = writeln!(out, "NOT FEASIBLE: {contradiction}");
        }
        out
    }

    /// A line for each number.
    pub fn table(&self) -> String {
        let mut rows = vec![["field", "value", "model", "decided by", "formula"].map(str::to_owned)];
        rows.extend(self.numbers.iter().map(|number| {
            [
                number.field.to_owned(),
                number.value.clone(),
                number.overrides.clone().unwrap_or_default(),
                number.limiting_factor.clone(),
                number.formula.to_owned(),
            ]
        }));
        if let Some(budget) = &self.connection_budget {
            rows.push([BUDGET, budget.state, "", "", &budget.arithmetic.join("; ")].map(str::to_owned));
        }
        table::text(&rows)
    }
}

// Writing to a String cannot fail.
fn paragraph(out: &mut String, d: &Derivation) {
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
