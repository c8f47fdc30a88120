//! The capacity model beside the design document that it comes from ("the seed"): every number of the seed, ours, and why
//! they differ where they do. `docs/reference/sizing.md` is written from this.

mod numbers;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use persesstack_operator::apply::kind::Kind;
use persesstack_operator::controllers::persesstack::observed::Capabilities;
use persesstack_operator::explain::{self, Explanation};
use persesstack_operator::render::{self, Rendered};
use persesstack_operator::settings::Settings;
use persesstack_operator::sizing::price::{Cost, PriceTable, cost, money};
use persesstack_operator::table;
use serde_json::json;

use self::numbers::{Row, Verdict, rows};
use crate::files;

/// Users of the golden tables.
const USERS: [i32; 7] = [5, 50, 100, 250, 500, 1_000, 5_000];

/// A stack with the database that runs without anything else installed.
pub(crate) fn stack(users: i32) -> Rendered {
    stack_on("Standalone", users)
}

/// A stack with this database.
fn stack_on(database: &str, users: i32) -> Rendered {
    let document = json!({"apiVersion": "persesstack.io/v1alpha1", "kind": "PersesStack",
        "metadata": {"name": "perses", "namespace": "a"},
        "spec": {"users": users, "database": {"type": database}, "quota": "Enabled"}});
    let capabilities = Capabilities::with(&[Kind::PostgresCluster]);
    render::render(&document.to_string(), &Settings::default(), capabilities).unwrap().remove(0)
}

pub(crate) fn bill(rendered: &Rendered) -> Cost {
    let egress = rendered.sizing.demand.egress.value;
    cost(&rendered.footprint, egress, rendered.validated.inputs.users, &PriceTable::default())
}

#[test]
fn every_number_of_the_seed_is_ours_or_differs_for_a_reason() {
    for Row { what, seed, ours, verdict, .. } in rows() {
        match verdict {
            Verdict::Same => assert_eq!(seed, ours, "{what}: no longer the seed's number; give the reason"),
            Verdict::Differs(why) => {
                assert_ne!(seed, ours, "{what}: the difference is gone");
                assert!(why.len() > 20, "{what}: the reason is no reason");
            }
        }
    }
}

/// Pods and costs by users, as a table and as bars.
fn overview(database: &str) -> String {
    let head = [
        "users",
        "requests/s",
        "API pods",
        "fewest pods: cost",
        "most pods: cost",
        "most, per user",
        "most, with spot",
    ];
    let mut table = vec![head.map(str::to_owned)];
    let mut bars = String::new();
    let stacks: Vec<Rendered> = USERS.into_iter().map(|users| stack_on(database, users)).collect();
    let most = stacks.iter().map(|rendered| bill(rendered).most_per_user).fold(0.0, f64::max);
    for (users, rendered) in USERS.into_iter().zip(&stacks) {
        let (api, bill) = (&rendered.sizing.api, bill(rendered));
        table.push([
            users.to_string(),
            api.request_rate.value.to_string(),
            format!("{}-{}", api.min_replicas.value, api.max_replicas.value),
            money(bill.least),
            money(bill.most),
            money(bill.most_per_user),
            money(bill.most_with_spot),
        ]);
        // At most 40 signs.
        let signs = (1..=40).filter(|sign| f64::from(*sign) * most <= bill.most_per_user * 40.0 + 1e-9).count();
        let _ = writeln!(
            bars,
            "{users:>5} users  {:<40}  {} USD per user",
            "#".repeat(signs.max(1)),
            money(bill.most_per_user)
        );
    }
    format!("{}\n```text\n{bars}```\n", table::markdown(&table))
}

/// Every number of the model by users, then the formulas.
fn numbers_by_users(database: &str) -> String {
    let all: BTreeMap<i32, Explanation> = USERS
        .into_iter()
        .map(|users| (users, explain::of(&stack_on(database, users), &PriceTable::default())))
        .collect();
    let mut table: Vec<[String; 8]> = vec![std::array::from_fn(|column| match column {
        0 => "field".to_owned(),
        _ => USERS[column - 1].to_string(),
    })];
    for field in all[&500].numbers.iter().map(|number| number.field) {
        table.push(std::array::from_fn(|column| {
            if column == 0 {
                return format!("`{field}`");
            }
            let numbers = &all[&USERS[column - 1]].numbers;
            numbers.iter().find(|number| number.field == field).map(|number| number.value.clone()).unwrap_or_default()
        }));
    }
    let mut formulas = vec![["field", "formula", "decided at 500 users by"].map(str::to_owned)];
    formulas.extend(
        all[&500]
            .numbers
            .iter()
            .map(|number| [format!("`{}`", number.field), number.formula.to_owned(), number.limiting_factor.clone()]),
    );
    format!("{}\n{}", table::markdown(&table), table::markdown(&formulas))
}

fn reference() -> String {
    let mut out = String::from(
        "<!-- Generated from operator/tests/it/seed by `UPDATE=1 cargo test --workspace --test operator -- generated`; do not edit. -->\n\
         # Sizing, number by number\n\n\
         Capacity model `v1`, stacks with defaults but for the database. What the numbers mean is in [sizing.md](../sizing.md);\n\
         `persesstack-operator explain -f FILE` prints them for a stack of yours. Costs are USD per month by the prices of the\n\
         built-in table.\n",
    );
    for (title, database) in [
        ("A database that is part of the stack (`Standalone`)", "Standalone"),
        ("Highly available databases (`Crunchy`)", "Crunchy"),
    ] {
        let _ = writeln!(out, "\n## {title}\n\n{}", overview(database));
        out += &numbers_by_users(database);
    }
    out += "\n## The design's numbers and ours, 500 users\n\n\
            The design document's own number, ours, and why they differ where they do. A test compares each row.\n";
    let mut section = "";
    let mut table: Vec<[String; 5]> = Vec::new();
    let head = ["number", "design", "ours", "formula", "why it differs"].map(str::to_owned);
    for row in rows() {
        if row.section != section {
            out += &table::markdown(&table);
            table = vec![head.clone()];
            section = row.section;
            let _ = writeln!(out, "\n### {section}\n");
        }
        let why = match row.verdict {
            Verdict::Same => String::new(),
            Verdict::Differs(why) => why.to_owned(),
        };
        table.push([row.what.to_owned(), row.seed, row.ours, row.formula.to_owned(), why]);
    }
    out + &table::markdown(&table)
}

#[test]
fn generated_sizing_reference_is_current() {
    files::generated("docs/reference/sizing.md", "the model", &reference());
}

/// The overview stands in the guide too, between two comments.
#[test]
fn generated_overview_of_the_guide_is_current() {
    const BEGIN: &str = "<!-- generated: overview -->\n";
    const END: &str = "<!-- end -->";
    let path = files::workspace_dir().join("docs/sizing.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the comment before the table");
    let (_, after) = rest.split_once(END).expect("the comment after the table");
    files::generated("docs/sizing.md", "the model", &format!("{before}{BEGIN}{}{END}{after}", overview("Standalone")));
}
