//! Variables in texts, exactly as Perses' `replaceVariables` puts them in (plugin-system 0.52), with its order of work: names
//! by length, one after the other over the whole text, the last format of a name for all its places.

use std::borrow::Cow;
use std::collections::HashMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Refusal;

/// The value of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One text.
    One(String),
    /// Those that were chosen of a list.
    Many(Vec<String>),
    /// What only the client knows; a text that needs it cannot be made.
    Unknown,
}

/// Values by name.
pub type Values = HashMap<String, Value>;

const FORMATS: [&str; 15] = [
    "csv",
    "distributed",
    "doublequote",
    "glob",
    "json",
    "lucene",
    "percentencode",
    "pipe",
    "prometheus",
    "raw",
    "regex",
    "singlequote",
    "sqlstring",
    "text",
    "queryparam",
];

/// What JavaScript's `encodeURIComponent` leaves as it is.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// Bytes of text that a view may still make.
#[derive(Debug)]
pub struct Budget(usize);

impl Budget {
    /// So many bytes.
    pub const fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    /// Takes the length of a text that is kept.
    pub fn take(&mut self, text: &str) -> Result<(), Refusal> {
        match self.0.checked_sub(text.len()) {
            Some(left) => {
                self.0 = left;
                Ok(())
            }
            None => Err(Refusal::TooLong),
        }
    }
}

/// A name that a text refers to, its format, and the bytes that the reference takes: `$name`, `${name}`, `${name.field}`,
/// `${name:format}`. `text` begins behind the dollar.
fn reference(text: &str) -> Option<(&str, Option<&str>, usize)> {
    let word = |text: &str| text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    let Some(braced) = text.strip_prefix('{') else {
        let length = word(text);
        return (length > 0).then(|| (&text[..length], None, length));
    };
    let (name, mut rest) = braced.split_at(word(braced));
    if let Some(field) = rest.strip_prefix('.') {
        let length = field.find([':', '^', '}'])?;
        rest = &field[length..];
        if length == 0 {
            return None;
        }
    }
    let (format, rest) = match rest.strip_prefix(':') {
        Some(format) => {
            let (format, rest) = format.split_at(format.find('}')?);
            (Some(format), rest)
        }
        None => (None, rest),
    };
    let is_whole = !name.is_empty() && format != Some("") && rest.starts_with('}');
    is_whole.then(|| (name, format, text.len() - rest.len() + 1))
}

/// The names that a text refers to with their formats, in the order in which they come first.
fn references(text: &str) -> Vec<(&str, Option<&'static str>)> {
    let mut found: Vec<(&str, Option<&'static str>)> = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        rest = &rest[dollar + 1..];
        let Some((name, format, length)) = reference(rest) else { continue };
        rest = &rest[length..];
        let format = format.and_then(|format| {
            let format = format.to_lowercase();
            FORMATS.into_iter().find(|known| *known == format)
        });
        match found.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = format,
            None => found.push((name, format)),
        }
    }
    found
}

/// The first name that a text refers to.
pub fn first_reference(text: &str) -> Option<&str> {
    references(text).first().map(|(name, _)| *name)
}

/// The text with the variables that have a value put in.
pub fn replace_variables(text: &str, values: &Values, budget: &Budget) -> Result<String, Refusal> {
    let mut names = references(text);
    // So that no name is found in a longer one; stable, as in JavaScript.
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let mut out = text.to_owned();
    for (name, format) in names {
        if let Some(value) = values.get(name) {
            out = replace_variable(out, name, value, format, budget)?;
        }
    }
    Ok(out)
}

/// The text with one variable put in, in both ways of writing it.
pub fn replace_variable(
    text: String,
    name: &str,
    value: &Value,
    format: Option<&str>,
    budget: &Budget,
) -> Result<String, Refusal> {
    let replacement = match value {
        Value::One(one) => interpolate(std::slice::from_ref(one), name, format.unwrap_or("raw")),
        Value::Many(many) => interpolate(many, name, format.unwrap_or("prometheus")),
        Value::Unknown => return Err(Refusal::NoValue(name.to_owned())),
    };
    let braced = format.map_or_else(|| format!("${{{name}}}"), |format| format!("${{{name}:{format}}}"));
    let text = replace_all(text, &format!("${name}"), &replacement, budget)?;
    replace_all(text, &braced, &replacement, budget)
}

/// Values as a format writes them.
fn interpolate(values: &[String], name: &str, format: &str) -> String {
    let each = |write: &dyn Fn(&str) -> String, separator: &str| {
        values.iter().map(|value| write(value)).collect::<Vec<_>>().join(separator)
    };
    match format {
        "csv" | "raw" => values.join(","),
        "distributed" => values.join(&format!(",{name}=")),
        "doublequote" => each(&|value| format!("\"{value}\""), ","),
        "glob" => format!("{{{}}}", values.join(",")),
        "json" => serde_json::Value::from(values.to_vec()).to_string(),
        "lucene" => format!("({})", each(&|value| format!("\"{value}\""), " OR ")),
        "percentencode" => component(&values.join(",")).into_owned(),
        "pipe" => values.join("|"),
        "regex" => format!("({})", each(&escape_regex, "|")),
        "singlequote" => each(&|value| format!("'{value}'"), ","),
        "sqlstring" => each(&|value| format!("'{}'", value.replace('\'', "''")), ","),
        "text" => values.join(" + "),
        "queryparam" => each(&|value| format!("{name}={}", component(value)), "&"),
        _ => format!("({})", values.join("|")),
    }
}

fn component(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, COMPONENT).into()
}

fn escape_regex(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 8);
    for char in value.chars() {
        if "-/\\^$*+?.()|[]{}".contains(char) {
            out.push('\\');
        }
        out.push(char);
    }
    out
}

/// JavaScript's `replaceAll` of a text: `$$`, `$&`, `` $` `` and `$'` mean something in the replacement.
fn replace_all(text: String, pattern: &str, replacement: &str, budget: &Budget) -> Result<String, Refusal> {
    if !text.contains(pattern) {
        return Ok(text);
    }
    let mut out = String::with_capacity(text.len() + replacement.len());
    let mut end = 0;
    for (at, found) in text.match_indices(pattern) {
        out.push_str(&text[end..at]);
        end = at + found.len();
        let mut rest = replacement;
        while let Some(dollar) = rest.find('$') {
            out.push_str(&rest[..dollar]);
            let (put, taken) = match rest.as_bytes().get(dollar + 1) {
                Some(b'$') => ("$", 2),
                Some(b'&') => (found, 2),
                Some(b'`') => (&text[..at], 2),
                Some(b'\'') => (&text[end..], 2),
                _ => ("$", 1),
            };
            out.push_str(put);
            rest = &rest[dollar + taken..];
            if out.len() > budget.0 {
                return Err(Refusal::TooLong);
            }
        }
        out.push_str(rest);
        // A value may be long and stand in many places.
        if out.len() > budget.0 {
            return Err(Refusal::TooLong);
        }
    }
    out.push_str(&text[end..]);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, Value)]) -> Values {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn one(text: &str) -> Value {
        Value::One(text.to_owned())
    }

    fn many(texts: &[&str]) -> Value {
        Value::Many(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    fn replaced(text: &str, pairs: &[(&str, Value)]) -> String {
        replace_variables(text, &values(pairs), &Budget::new(1000)).unwrap()
    }

    #[test]
    fn a_text_that_grows_too_long_is_refused_before_it_is_made() {
        let long = values(&[("x", one(&"x".repeat(400)))]);
        assert!(replace_variables("$x $x", &long, &Budget::new(1000)).is_ok());
        assert_eq!(replace_variables(&"$x ".repeat(1000), &long, &Budget::new(1000)), Err(Refusal::TooLong));
        let doubling = values(&[("x", one(&"$`".repeat(400)))]);
        assert_eq!(replace_variables(&"$x ".repeat(1000), &doubling, &Budget::new(100_000)), Err(Refusal::TooLong));
        let mut budget = Budget::new(5);
        budget.take("1234").unwrap();
        assert_eq!(budget.take("12"), Err(Refusal::TooLong));
    }

    #[test]
    fn what_only_the_client_knows_is_an_error_where_it_is_needed() {
        let pairs = values(&[("x", Value::Unknown), ("y", one("1"))]);
        assert_eq!(replace_variables("$y", &pairs, &Budget::new(1000)).unwrap(), "1");
        assert_eq!(replace_variables("${x:csv}", &pairs, &Budget::new(1000)), Err(Refusal::NoValue("x".to_owned())));
    }

    #[test]
    fn names_that_are_not_known_stay() {
        assert_eq!(replaced("$x ${y} $", &[("z", one("1"))]), "$x ${y} $");
        assert_eq!(replaced("$xy", &[("x", one("1"))]), "$xy", "the name is xy");
        assert_eq!(replaced("$xy $x", &[("x", one("1"))]), "1y 1", "as Perses has it");
        assert_eq!(replaced("a{b=~\"$x\"}", &[("x", many(&["1", "2"]))]), "a{b=~\"(1|2)\"}");
    }
}
