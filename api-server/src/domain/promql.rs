//! Parsing PromQL that strangers send: bounded in length and depth, and a panic of the parser is no more than a refusal.

use std::panic::catch_unwind;

use promql_parser::parser::{Expr, FunctionArgs};

/// Longer texts are not parsed.
const MAX_LENGTH: usize = 16 * 1024;
/// Bounds the depth of the tree: walking, printing and dropping it recurse, and a stack overflow would end the process.
pub(crate) const MAX_OPERATORS: usize = 300;

/// Parses an expression and gives the tree to `work`, guarded like the parser.
///
/// # Errors
/// Why the text is not understood, in words for people.
pub fn parse<T>(query: &str, work: impl FnOnce(&Expr) -> T + std::panic::UnwindSafe) -> Result<T, String> {
    if query.len() > MAX_LENGTH {
        return Err(format!("longer than {MAX_LENGTH} bytes"));
    }
    if operators(query) > MAX_OPERATORS {
        return Err(format!("more than {MAX_OPERATORS} operators, calls and selectors"));
    }
    catch_unwind(|| promql_parser::parser::parse(query).map(|expr| work(&expr)))
        .unwrap_or_else(|_| Err("the parser gave up".to_owned()))
}

/// The direct parts of an expression.
pub fn parts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::Aggregate(aggregate) => {
            let mut parts = vec![&*aggregate.expr];
            parts.extend(aggregate.param.as_deref());
            parts
        }
        Expr::Unary(unary) => vec![&*unary.expr],
        Expr::Binary(binary) => vec![&*binary.lhs, &*binary.rhs],
        Expr::Paren(paren) => vec![&*paren.expr],
        Expr::Subquery(subquery) => vec![&*subquery.expr],
        Expr::Call(call) => {
            let FunctionArgs { args } = &call.args;
            args.iter().map(|arg| &**arg).collect()
        }
        Expr::VectorSelector(_)
        | Expr::MatrixSelector(_)
        | Expr::NumberLiteral(_)
        | Expr::StringLiteral(_)
        | Expr::Extension(_) => Vec::new(),
    }
}

/// An upper bound of the depth of the tree.
fn operators(query: &str) -> usize {
    let signs = query.bytes().filter(|byte| b"([+-*/%^<>=!@".contains(byte)).count();
    let words = query
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| ["and", "or", "unless", "atan2"].iter().any(|operator| word.eq_ignore_ascii_case(operator)))
        .count();
    signs + words
}
