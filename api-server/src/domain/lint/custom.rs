//! The operator's own rules for dashboards (`dashboard.custom_lint_rules` of Perses): a JSONPath (RFC 9535) finds what is
//! looked at, a CEL expression over `value` says whether all is well.
//!
//! As in Perses, a path without wildcards gives the one value, which must be there; another gives the list of all.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr};
use cel::objects::{Key, Map};
use cel::{Context, IdedExpr, Program};
use serde_json::{Value, json};
use serde_json_path::JsonPath;

use crate::domain::kind::Kind;

/// Steps that one rule may take for one document; a few hundred milliseconds at worst.
const MAX_STEPS: usize = 2_000_000;
/// `..` in one path: each multiplies the work by the depth of the document.
const MAX_DESCENTS: usize = 2;
/// Longest error text of an expression that is passed on, in characters.
const MAX_REASON: usize = 200;
/// What an expression may call, beside operators and macros (`has`, `all`, `exists`, `exists_one`, `map`, `filter`).
const FUNCTIONS: [&str; 12] =
    ["contains", "size", "max", "min", "startsWith", "endsWith", "matches", "string", "bytes", "double", "int", "uint"];

/// One of `dashboard.custom_lint_rules`.
#[derive(Debug, Clone, Default)]
pub struct RuleSource {
    /// Name, unique.
    pub name: String,
    /// JSONPath over the whole document: `kind`, `metadata`, `spec`.
    pub target: String,
    /// CEL over `value`.
    pub assertion: String,
    /// What a client is told.
    pub message: String,
    /// Whether the rule is only compiled.
    pub disable: bool,
}

/// A document as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its kind.
    pub kind: Kind,
    /// `metadata.project`.
    pub project: Option<&'a str>,
    /// `metadata.name`.
    pub name: &'a str,
    /// `metadata.tags`.
    pub tags: &'a [String],
    /// Its spec, with upstream's defaults.
    pub spec: &'a Value,
}

#[derive(Debug)]
struct Rule {
    name: String,
    target: String,
    path: JsonPath,
    /// Whether the path leads to one place at most.
    single: bool,
    program: Program,
    cost: Cost,
    message: String,
}

#[derive(Debug)]
pub(super) struct Rules(Vec<Rule>);

impl Rules {
    pub(super) fn compile(sources: &[RuleSource]) -> Result<Self, String> {
        let (mut names, mut rules) = (HashSet::new(), Vec::new());
        for (index, source) in sources.iter().enumerate() {
            let place = format!("dashboard.custom_lint_rules[{index}]");
            if source.name.is_empty() {
                return Err(format!("{place}: name is required"));
            }
            if !names.insert(&source.name) {
                return Err(format!("{place}: duplicate rule name {:?}", source.name));
            }
            let rule = Rule::compile(source).map_err(|reason| format!("{place} ({}): {reason}", source.name))?;
            if !source.disable {
                rules.push(rule);
            }
        }
        Ok(Self(rules))
    }

    /// The message of the first rule that is broken.
    pub(super) fn check(&self, subject: &Subject<'_>) -> Result<(), String> {
        if self.0.is_empty() {
            return Ok(());
        }
        let mut metadata = json!({"name": subject.name, "tags": subject.tags});
        if let Some(project) = subject.project {
            metadata["project"] = project.into();
        }
        let document = json!({"kind": subject.kind.as_str(), "metadata": metadata, "spec": subject.spec});
        self.0.iter().try_for_each(|rule| rule.check(&document))
    }
}

impl Rule {
    fn compile(source: &RuleSource) -> Result<Self, String> {
        for (key, text) in [("target", &source.target), ("assertion", &source.assertion), ("message", &source.message)]
        {
            if text.is_empty() {
                return Err(format!("{key} is required"));
            }
        }
        let path = JsonPath::parse(&source.target)
            .map_err(|error| format!("target {:?} is not a JSONPath (RFC 9535): {error}", source.target))?;
        let outside = outside_quotes(&source.target);
        if outside.matches("..").count() > MAX_DESCENTS {
            return Err(format!("target {:?} has more than {MAX_DESCENTS} `..`", source.target));
        }
        let wrong = |reason: String| format!("assertion {:?} cannot be used: {reason}", source.assertion);
        // The parser is not ours: a panic of it is an error of the rule.
        let program = catch_unwind(|| Program::compile(&source.assertion))
            .map_err(|_| wrong("the CEL parser gave up".to_owned()))?
            .map_err(|error| wrong(error.to_string().trim().to_owned()))?;
        let cost = cost(program.expression(), &["value"]).map_err(wrong)?;
        Ok(Self {
            name: source.name.clone(),
            target: source.target.clone(),
            single: !outside.contains(['*', '?', ',', ':']) && !outside.contains(".."),
            path,
            program,
            cost,
            message: source.message.clone(),
        })
    }

    fn check(&self, document: &Value) -> Result<(), String> {
        let name = &self.name;
        let found = self.path.query(document).all();
        let value = match (self.single, &found[..]) {
            (true, [one]) => convert(one),
            (true, _) => {
                return Err(format!(
                    "error while evaluating the jsonpath expression for the rule {name:?}: nothing is at {}",
                    self.target
                ));
            }
            (false, all) => cel::Value::List(Arc::new(all.iter().map(|one| convert(one)).collect())),
        };
        let longest = found.iter().map(|one| longest(one)).max().unwrap_or(0).max(found.len());
        if self.cost.steps(longest) > MAX_STEPS {
            return Err(format!("the rule {name:?} would take too long for this document: it has lists of {longest}"));
        }
        let mut context = Context::default();
        context.add_variable_from_value("value", value);
        let result = catch_unwind(AssertUnwindSafe(|| self.program.execute(&context)));
        let failed = |reason: &str| {
            let reason: String = reason.chars().take(MAX_REASON).collect();
            Err(format!("error while evaluating the CEL program for the rule {name:?}: {reason}"))
        };
        match result {
            Ok(Ok(cel::Value::Bool(true))) => Ok(()),
            Ok(Ok(cel::Value::Bool(false))) => Err(self.message.clone()),
            Ok(Ok(_)) => Err(format!("the returned type of the CEL program for the rule {name:?} is not a boolean")),
            Ok(Err(error)) => failed(&error.to_string()),
            Err(_) => failed("the interpreter gave up"),
        }
    }
}

/// The path without its quoted names.
fn outside_quotes(path: &str) -> String {
    let (mut out, mut quote, mut escaped) = (String::new(), None, false);
    for c in path.chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None => out.push(c),
        }
    }
    out
}

/// How the work of an expression grows with the lists that it goes through.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// Parts of the expression.
    size: usize,
    /// Loops in loops.
    depth: u32,
}

impl Cost {
    fn steps(self, longest: usize) -> usize {
        longest.max(1).saturating_pow(self.depth).saturating_mul(self.size)
    }
}

/// Counts the parts of an expression; refuses names that mean nothing. `names` are the variables that it may use.
fn cost(expr: &IdedExpr, names: &[&str]) -> Result<Cost, String> {
    let mut total = Cost { size: 1, depth: 0 };
    let mut add = |expr: &IdedExpr, names: &[&str], deeper: u32| {
        let part = cost(expr, names)?;
        total.size = total.size.saturating_add(part.size);
        total.depth = total.depth.max(part.depth + deeper);
        Ok::<(), String>(())
    };
    match &expr.expr {
        Expr::Ident(name) if !names.contains(&name.as_str()) => {
            return Err(format!("unknown name {name:?} (the value is called \"value\")"));
        }
        Expr::Call(call) => {
            let is_word = call.func_name.starts_with(|c: char| c.is_ascii_alphabetic());
            if is_word && !FUNCTIONS.contains(&call.func_name.as_str()) {
                return Err(format!("unknown function {:?} (there are {})", call.func_name, FUNCTIONS.join(", ")));
            }
            call.target.iter().try_for_each(|target| add(target, names, 0))?;
            call.args.iter().try_for_each(|arg| add(arg, names, 0))?;
        }
        Expr::Comprehension(all) => {
            add(&all.iter_range, names, 0)?;
            add(&all.accu_init, names, 0)?;
            let mut inner = names.to_vec();
            inner.extend([all.iter_var.as_str(), all.accu_var.as_str()]);
            inner.extend(all.iter_var2.as_deref());
            [&all.loop_cond, &all.loop_step, &all.result].into_iter().try_for_each(|part| add(part, &inner, 1))?;
        }
        Expr::List(list) => list.elements.iter().try_for_each(|element| add(element, names, 0))?,
        Expr::Select(select) => add(&select.operand, names, 0)?,
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => add(&entry.key, names, 0).and_then(|()| add(&entry.value, names, 0)),
            EntryExpr::StructField(field) => add(&field.value, names, 0),
        })?,
        Expr::Struct(_) => return Err("messages are not supported".to_owned()),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
    Ok(total)
}

/// Length of the longest list or map in a value.
fn longest(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.iter().map(longest).max().unwrap_or(0).max(values.len()),
        Value::Object(members) => members.values().map(longest).max().unwrap_or(0).max(members.len()),
        _ => 1,
    }
}

/// JSON as CEL. Whole numbers are integers: here `==` holds between numbers of one type only, and `value == 1` is what people
/// write. (In Perses all are doubles, and `==` holds across types.)
fn convert(value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(is) => cel::Value::Bool(*is),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => cel::Value::Int(whole),
            None => cel::Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Array(values) => cel::Value::List(Arc::new(values.iter().map(convert).collect())),
        Value::Object(members) => {
            let map: HashMap<Key, cel::Value> =
                members.iter().map(|(key, value)| (Key::String(Arc::new(key.clone())), convert(value))).collect();
            cel::Value::Map(Map { map: Arc::new(map) })
        }
    }
}
