//! An expression as text. The parser's own printer orders matchers, which changes what absent() answers, and leaves out an
//! `ignoring ()` that `group_left` needs.

use std::fmt::Write as _;

use promql_parser::label::{Labels, Matcher, Matchers};
use promql_parser::parser::{
    AtModifier, BinModifier, Expr, LabelModifier, Offset, VectorMatchCardinality, VectorSelector,
};
use promql_parser::util::display_duration;

/// Prints a tree; recursion is as deep as the tree, which the parser's guard bounds.
pub(super) fn print(expr: &Expr) -> String {
    let mut out = String::new();
    write(&mut out, expr);
    out
}

fn write(out: &mut String, expr: &Expr) {
    match expr {
        Expr::Aggregate(aggregate) => {
            push(out, format_args!("{}", aggregate.op));
            match &aggregate.modifier {
                Some(LabelModifier::Include(labels)) => push(out, format_args!(" by ({labels}) ")),
                Some(LabelModifier::Exclude(labels)) => push(out, format_args!(" without ({labels}) ")),
                None => {}
            }
            list(out, aggregate.param.as_deref().into_iter().chain([&*aggregate.expr]));
        }
        Expr::Unary(unary) => {
            out.push('-');
            write(out, &unary.expr);
        }
        Expr::Binary(binary) => {
            write(out, &binary.lhs);
            push(out, format_args!(" {} ", binary.op));
            modifier(out, binary.modifier.as_ref());
            write(out, &binary.rhs);
        }
        Expr::Paren(paren) => list(out, std::iter::once(&*paren.expr)),
        Expr::Subquery(subquery) => {
            write(out, &subquery.expr);
            let step = subquery.step.as_ref().map(display_duration).unwrap_or_default();
            push(out, format_args!("[{}:{step}]", display_duration(&subquery.range)));
            time(out, subquery.at.as_ref(), subquery.offset.as_ref());
        }
        Expr::Call(call) => {
            out.push_str(call.func.name);
            list(out, call.args.args.iter().map(|arg| &**arg));
        }
        Expr::VectorSelector(selector) => {
            series(out, selector);
            time(out, selector.at.as_ref(), selector.offset.as_ref());
        }
        Expr::MatrixSelector(matrix) => {
            series(out, &matrix.vs);
            push(out, format_args!("[{}]", display_duration(&matrix.range)));
            time(out, matrix.vs.at.as_ref(), matrix.vs.offset.as_ref());
        }
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => push(out, format_args!("{expr}")),
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Never fails: it is memory.
    let _ = out.write_fmt(text);
}

fn list<'e>(out: &mut String, parts: impl Iterator<Item = &'e Expr>) {
    out.push('(');
    for (n, part) in parts.enumerate() {
        out.push_str(if n == 0 { "" } else { ", " });
        write(out, part);
    }
    out.push(')');
}

fn series(out: &mut String, selector: &VectorSelector) {
    out.push_str(selector.name.as_deref().unwrap_or_default());
    let Matchers { matchers, or_matchers } = &selector.matchers;
    let alternative = |matchers: &Vec<Matcher>| matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let alternatives: Vec<String> = if or_matchers.is_empty() {
        vec![alternative(matchers)]
    } else {
        or_matchers.iter().map(alternative).collect()
    };
    push(out, format_args!("{{{}}}", alternatives.join(" or ")));
}

fn time(out: &mut String, at: Option<&AtModifier>, offset: Option<&Offset>) {
    if let Some(at) = at {
        push(out, format_args!(" {at}"));
    }
    if let Some(offset) = offset {
        push(out, format_args!(" offset {offset}"));
    }
}

fn modifier(out: &mut String, modifier: Option<&BinModifier>) {
    let Some(BinModifier { card, matching, return_bool, fill_values }) = modifier else { return };
    if *return_bool {
        out.push_str("bool ");
    }
    let mut labels = |word: &str, labels: &Labels| push(out, format_args!("{word} ({labels}) "));
    match matching {
        Some(LabelModifier::Include(list)) => labels("on", list),
        Some(LabelModifier::Exclude(list)) => labels("ignoring", list),
        None => {}
    }
    match card {
        VectorMatchCardinality::ManyToOne(list) => labels("group_left", list),
        VectorMatchCardinality::OneToMany(list) => labels("group_right", list),
        VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => {}
    }
    for (word, value) in [("fill_left", fill_values.lhs), ("fill_right", fill_values.rhs)] {
        if let Some(value) = value {
            push(out, format_args!("{word} ({value}) "));
        }
    }
}
