//! Matchers into every selector of an expression. Pure; the parser is promql-parser.
//!
//! What is sent is never the text that came: it is printed from the tree. So only the printer's few forms have to mean the same
//! to the datasource, not all that somebody may write.

use std::sync::Arc;

use promql_parser::label::{Matcher, Matchers as Selected};
use promql_parser::parser::{self, Expr, VectorSelector};

use super::Matchers;
use super::print::print;
use crate::domain::promql;
use crate::query::promql::{Analysis, look};

/// A function that reads series which no selector names.
const READS_MORE: &str = "info";

/// An expression with the matchers in each selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limited {
    /// Its text, and what the cache must know.
    pub(super) analysis: Arc<Analysis>,
    /// Whether it is nothing but a selector of series, as `match[]` takes it.
    pub is_selector: bool,
}

impl Limited {
    /// The text.
    pub fn text(&self) -> &str {
        &self.analysis.text
    }
}

/// Limits an expression.
///
/// # Errors
/// Why it cannot be done for certain, in words for people.
pub fn limit(query: &str, within: &Matchers) -> Result<Limited, String> {
    let enforced = enforced(within)?;
    promql::parse(query, |expr| {
        let mut tree = expr.clone();
        put_into(&mut tree, &enforced)?;
        let text = print(&tree);
        let again = parser::parse(&text).map_err(|_| NOT_PRINTABLE.to_owned())?;
        if again != tree || !has_everywhere(&again, &enforced) {
            return Err(NOT_PRINTABLE.to_owned());
        }
        let is_selector = matches!(&again, Expr::VectorSelector(VectorSelector { offset: None, at: None, .. }));
        let (reach, is_window_bound, names) = look(&again);
        Ok(Limited {
            analysis: Arc::new(Analysis { text, reach, is_window_bound, names: Arc::new(names) }),
            is_selector,
        })
    })?
}

const NOT_PRINTABLE: &str =
    "it has a form that cannot be limited to your data for certain: write it simpler (no @ before 1970)";

/// The matchers as the parser has them.
fn enforced(within: &Matchers) -> Result<Vec<Matcher>, String> {
    match parser::parse(&within.selector())? {
        Expr::VectorSelector(VectorSelector { name: None, matchers, offset: None, at: None })
            if matchers.or_matchers.is_empty() && !matchers.matchers.is_empty() =>
        {
            Ok(matchers.matchers)
        }
        _ => Err("the matchers of the tenant are no selector".to_owned()),
    }
}

/// Changes the tree.
fn put_into(expr: &mut Expr, enforced: &[Matcher]) -> Result<(), String> {
    let mut todo = vec![expr];
    while let Some(expr) = todo.pop() {
        match expr {
            Expr::VectorSelector(selector) => limit_selector(&mut selector.matchers, enforced),
            Expr::MatrixSelector(matrix) => limit_selector(&mut matrix.vs.matchers, enforced),
            Expr::Aggregate(aggregate) => {
                todo.push(&mut aggregate.expr);
                todo.extend(aggregate.param.as_deref_mut());
            }
            Expr::Unary(unary) => todo.push(&mut unary.expr),
            Expr::Binary(binary) => {
                todo.extend([&mut *binary.lhs, &mut *binary.rhs]);
            }
            Expr::Paren(paren) => todo.push(&mut paren.expr),
            Expr::Subquery(subquery) => todo.push(&mut subquery.expr),
            Expr::Call(call) if call.func.name == READS_MORE => {
                return Err(format!("{READS_MORE}() reads series beside those that are selected: join them yourself"));
            }
            Expr::Call(call) => todo.extend(call.args.args.iter_mut().map(|arg| &mut **arg)),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => {}
            Expr::Extension(_) => return Err("it has an unknown part".to_owned()),
        }
    }
    Ok(())
}

/// In front: with `=~` before them, absent() sees the caller's own matchers as if it were alone with them.
fn limit_selector(selected: &mut Selected, enforced: &[Matcher]) {
    if selected.or_matchers.is_empty() {
        drop(selected.matchers.splice(0..0, enforced.iter().cloned()));
    }
    for alternative in &mut selected.or_matchers {
        drop(alternative.splice(0..0, enforced.iter().cloned()));
    }
}

/// Whether every selector has the matchers, in each of its alternatives: a second look by another way through the tree.
fn has_everywhere(expr: &Expr, enforced: &[Matcher]) -> bool {
    let holds = |selected: &Selected| {
        let Selected { matchers, or_matchers } = selected;
        let has = |alternative: &Vec<Matcher>| enforced.iter().all(|matcher| alternative.contains(matcher));
        if or_matchers.is_empty() { has(matchers) } else { matchers.is_empty() && or_matchers.iter().all(has) }
    };
    let mut todo = vec![expr];
    while let Some(expr) = todo.pop() {
        let is_limited = match expr {
            Expr::VectorSelector(selector) => holds(&selector.matchers),
            Expr::MatrixSelector(matrix) => holds(&matrix.vs.matchers),
            Expr::Extension(_) => false,
            _ => true,
        };
        if !is_limited {
            return false;
        }
        todo.extend(promql::parts(expr));
    }
    true
}

#[cfg(test)]
mod tests;
