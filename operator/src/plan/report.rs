//! A plan for people. PURE. Writing to a String cannot fail.

use std::fmt::Write as _;

use super::StackPlan;
use super::diff::FieldChange;
use super::disruption::Action;
use crate::sizing::price::{Cost, money};
use crate::table;

/// Spec, objects with their disruption, fields, and costs.
pub fn text(plan: &StackPlan) -> String {
    let mut out = format!("PersesStack {}/{}\n", plan.namespace, plan.name);
    if !plan.changes() {
        out += "  nothing changes\n";
    }
    if !plan.new && !plan.spec.is_empty() {
        out += "\nSpec\n";
        out += &fields(&plan.spec, "  ");
    }
    if !plan.objects.is_empty() {
        out += "\nObjects\n";
        out += &indented(&objects(plan), "  ");
        let changed: Vec<_> = plan.objects.iter().filter(|object| !object.changes.is_empty()).collect();
        if !changed.is_empty() {
            out += "\nFields\n";
        }
        for object in changed {
            let _ = writeln!(out, "  {} {}", object.kind, object.name);
            out += &fields(&object.changes, "    ");
        }
    }
    for (title, lines) in [("Does not fit", &plan.infeasible), ("Not compared with", &plan.unknown)] {
        if !lines.is_empty() {
            let _ = writeln!(out, "\n{title}");
            for line in lines {
                let _ = writeln!(out, "  {line}");
            }
        }
    }
    if plan.held {
        out += "  Nothing would be created until it fits.\n";
    }
    if let Some(waits) = &plan.waits {
        let _ = writeln!(out, "\nWaits\n  {waits}");
    }
    out += "\nCost\n";
    out += &indented(&costs(plan.cost_before.as_ref(), &plan.cost_after), "  ");
    let _ = writeln!(out, "\n{}", summary(plan));
    out
}

/// A line for each object that is touched.
pub fn objects(plan: &StackPlan) -> String {
    let mut rows = vec![["action", "object", "disruption", "note"].map(str::to_owned)];
    rows.extend(plan.objects.iter().map(|object| {
        let note = object.note.lines().collect::<Vec<_>>().join(" ");
        [
            object.action.as_str().to_owned(),
            format!("{} {}", object.kind, object.name),
            object.disruption.as_str().to_owned(),
            note,
        ]
    }));
    table::text(&rows)
}

/// One line: how many objects, and what people notice.
pub fn summary(plan: &StackPlan) -> String {
    let count = |action| plan.objects.iter().filter(|object| object.action == action).count();
    let mut parts = Vec::new();
    for action in [Action::Create, Action::Change, Action::Recreate, Action::Delete, Action::Foreign, Action::Refused] {
        let number = count(action);
        if number > 0 {
            parts.push(format!("{number} {}", action.as_str()));
        }
    }
    let objects = if parts.is_empty() { "no object is touched".to_owned() } else { parts.join(", ") };
    format!("{objects}; disruption: {}", plan.disruption.as_str())
}

fn costs(before: Option<&Cost>, after: &Cost) -> String {
    let unit = format!("{} per month", after.currency);
    let mut rows = vec![[unit, "before".to_owned(), "after".to_owned()]];
    let mut row = |what: &str, of: &dyn Fn(&Cost) -> f64| {
        let old = before.map_or_else(|| "-".to_owned(), |cost| money(of(cost)));
        rows.push([what.to_owned(), old, money(of(after))]);
    };
    row("fewest pods", &|cost| cost.least);
    row("most pods", &|cost| cost.most);
    row("fewest pods, per user", &|cost| cost.least_per_user);
    row("most pods, per user", &|cost| cost.most_per_user);
    row("fewest pods, stateless on spot", &|cost| cost.least_with_spot);
    row("most pods, stateless on spot", &|cost| cost.most_with_spot);
    table::text(&rows)
}

fn fields(changes: &[FieldChange], indent: &str) -> String {
    let mut out = String::new();
    for change in changes {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
        let (before, after) = (value(&change.before), value(&change.after));
        if before.contains('\n') || after.contains('\n') {
            let _ = writeln!(out, "{indent}{}:", change.path);
            for (sign, text) in [("-", &change.before), ("+", &change.after)] {
                for line in text.iter().flat_map(|text| text.lines()) {
                    let _ = writeln!(out, "{indent}  {sign} {line}");
                }
            }
        } else {
            let _ = writeln!(out, "{indent}{}: {before} -> {after}", change.path);
        }
    }
    out
}

fn indented(text: &str, indent: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let _ = writeln!(out, "{indent}{line}");
    }
    out
}
