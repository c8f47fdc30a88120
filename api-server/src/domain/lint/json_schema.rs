//! The part of JSON Schema 2020-12 that the schemas of plugins use. A keyword outside of it is an error when a schema is
//! compiled, so none is passed over in silence. Messages name fields and choices, never a value of the document.
//!
//! A library for all of JSON Schema is several times the size of this server, and takes minutes to compile.

use std::collections::HashMap;
use std::fmt::Write as _;

use regex::Regex;
use serde_json::{Map, Value};

/// References in references, at most: more is a circle.
const MAX_DEPTH: usize = 16;

/// Names of types as schemas and messages have them.
const TYPES: [(&str, &str); 7] = [
    ("string", "a string"),
    ("number", "a number"),
    ("integer", "a whole number"),
    ("boolean", "true or false"),
    ("object", "an object"),
    ("array", "an array"),
    ("null", "null"),
];

/// A compiled schema. Keywords for one type do not look at values of another.
#[derive(Debug, Default)]
pub(super) struct Schema {
    types: Vec<String>,
    choices: Option<Vec<Value>>,
    pattern: Option<Regex>,
    min_length: usize,
    minimum: Option<f64>,
    maximum: Option<f64>,
    required: Vec<String>,
    properties: HashMap<String, Self>,
    additional: Additional,
    items: Option<Box<Self>>,
    min_items: Option<u64>,
    max_items: Option<u64>,
    all_of: Vec<Self>,
    condition: Option<Box<(Self, Self)>>,
}

/// `additionalProperties`.
#[derive(Debug, Default)]
enum Additional {
    #[default]
    Any,
    None,
    Like(Box<Schema>),
}

impl Schema {
    /// Compiles a schema; `#/$defs/<name>` are looked up in `defs`.
    pub(super) fn compile(schema: &Value, defs: &Value) -> Result<Self, String> {
        compile(schema, defs, 0)
    }

    /// Adds what is wrong with a value: the place, which starts as `path`, and the text.
    pub(super) fn check(&self, value: &Value, path: &mut String, found: &mut Vec<(String, String)>) {
        if !self.types.is_empty() && !self.types.iter().any(|name| is(value, name)) {
            let wanted: Vec<&str> = self.types.iter().map(|name| describe(name)).collect();
            found.push((path.clone(), format!("must be {}", wanted.join(" or "))));
            // The rest would say the same again.
            return;
        }
        if let Some(choices) = &self.choices
            && !choices.iter().any(|choice| same(choice, value))
        {
            let choices: Vec<String> = choices.iter().map(ToString::to_string).collect();
            found.push((path.clone(), format!("must be one of {}", choices.join(", "))));
            return;
        }
        match value {
            Value::String(text) => self.check_text(text, path, found),
            Value::Number(number) => self.check_number(number.as_f64().unwrap_or(f64::NAN), path, found),
            Value::Array(values) => self.check_array(values, path, found),
            Value::Object(members) => self.check_object(members, path, found),
            Value::Null | Value::Bool(_) => {}
        }
        self.all_of.iter().for_each(|schema| schema.check(value, path, found));
        if let Some(condition) = &self.condition {
            let (when, then) = &**condition;
            let mut unmet = Vec::new();
            when.check(value, &mut String::new(), &mut unmet);
            if unmet.is_empty() {
                then.check(value, path, found);
            }
        }
    }

    fn check_text(&self, text: &str, path: &str, found: &mut Vec<(String, String)>) {
        if self.min_length > 0 && text.chars().count() < self.min_length {
            found.push((path.to_owned(), "must not be empty".to_owned()));
        } else if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            found.push((path.to_owned(), format!("must have the form {pattern}")));
        }
    }

    fn check_number(&self, number: f64, path: &str, found: &mut Vec<(String, String)>) {
        if let Some(minimum) = self.minimum.filter(|minimum| number < *minimum) {
            found.push((path.to_owned(), format!("must be at least {minimum}")));
        }
        if let Some(maximum) = self.maximum.filter(|maximum| number > *maximum) {
            found.push((path.to_owned(), format!("must be at most {maximum}")));
        }
    }

    fn check_array(&self, values: &[Value], path: &mut String, found: &mut Vec<(String, String)>) {
        let length = values.len() as u64;
        if let Some(least) = self.min_items.filter(|least| length < *least) {
            found.push((path.clone(), format!("must have at least {least} elements")));
        }
        if let Some(most) = self.max_items.filter(|most| length > *most) {
            found.push((path.clone(), format!("must have at most {most} elements")));
        }
        let Some(items) = &self.items else { return };
        for (index, value) in values.iter().enumerate() {
            let length = path.len();
            let _ = write!(path, "[{index}]");
            items.check(value, path, found);
            path.truncate(length);
        }
    }

    fn check_object(&self, members: &Map<String, Value>, path: &mut String, found: &mut Vec<(String, String)>) {
        for key in self.required.iter().filter(|key| !members.contains_key(*key)) {
            found.push((path.clone(), format!("{key:?} is missing")));
        }
        for (key, value) in members {
            let schema = match (self.properties.get(key), &self.additional) {
                (Some(schema), _) => schema,
                (None, Additional::Like(schema)) => schema,
                (None, Additional::Any) => continue,
                (None, Additional::None) => {
                    found.push((path.clone(), format!("unknown field {key:?}")));
                    continue;
                }
            };
            let length = path.len();
            let _ = write!(path, ".{key}");
            schema.check(value, path, found);
            path.truncate(length);
        }
    }
}

fn compile(schema: &Value, defs: &Value, depth: usize) -> Result<Schema, String> {
    let keywords = schema.as_object().ok_or("a schema must be an object")?;
    if let Some(reference) = keywords.get("$ref") {
        let name = reference.as_str().and_then(|text| text.strip_prefix("#/$defs/"));
        let target = name.and_then(|name| defs.get(name)).ok_or_else(|| format!("{reference} is nowhere"))?;
        if depth == MAX_DEPTH || keywords.len() > 1 {
            return Err(format!("{reference} stands in a circle, or not alone"));
        }
        return compile(target, defs, depth + 1);
    }
    let inner = |schema: &Value| compile(schema, defs, depth);
    let mut compiled = Schema::default();
    for (keyword, value) in keywords {
        let wrong = || format!("keyword {keyword:?} with {value} is not supported");
        match keyword.as_str() {
            "title" | "$comment" => {}
            "type" => {
                compiled.types = match value {
                    Value::String(one) => vec![one.clone()],
                    list => strings(list).ok_or_else(wrong)?,
                };
                if !compiled.types.iter().all(|name| TYPES.iter().any(|(known, _)| known == name)) {
                    return Err(wrong());
                }
            }
            "enum" => compiled.choices = Some(value.as_array().ok_or_else(wrong)?.clone()),
            "const" => compiled.choices = Some(vec![value.clone()]),
            "pattern" => {
                let pattern = Regex::new(value.as_str().ok_or_else(wrong)?).map_err(|error| error.to_string())?;
                compiled.pattern = Some(pattern);
            }
            "minLength" if value == 1 => compiled.min_length = 1,
            "minimum" => compiled.minimum = Some(value.as_f64().ok_or_else(wrong)?),
            "maximum" => compiled.maximum = Some(value.as_f64().ok_or_else(wrong)?),
            "minItems" => compiled.min_items = Some(value.as_u64().ok_or_else(wrong)?),
            "maxItems" => compiled.max_items = Some(value.as_u64().ok_or_else(wrong)?),
            "required" => compiled.required = strings(value).ok_or_else(wrong)?,
            "properties" => {
                for (key, value) in value.as_object().ok_or_else(wrong)? {
                    let schema = inner(value).map_err(|reason| format!("{key}: {reason}"))?;
                    compiled.properties.insert(key.clone(), schema);
                }
            }
            "additionalProperties" => {
                compiled.additional = match value {
                    Value::Bool(true) => Additional::Any,
                    Value::Bool(false) => Additional::None,
                    schema => Additional::Like(Box::new(inner(schema)?)),
                };
            }
            "items" => compiled.items = Some(Box::new(inner(value)?)),
            "allOf" => {
                compiled.all_of =
                    value.as_array().ok_or_else(wrong)?.iter().map(inner).collect::<Result<Vec<_>, String>>()?;
            }
            "if" => {
                let then = keywords.get("then").ok_or_else(wrong)?;
                compiled.condition = Some(Box::new((inner(value)?, inner(then)?)));
            }
            "then" if keywords.contains_key("if") => {}
            _ => return Err(wrong()),
        }
    }
    Ok(compiled)
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|one| one.as_str().map(str::to_owned)).collect()
}

fn is(value: &Value, name: &str) -> bool {
    match value {
        Value::Null => name == "null",
        Value::Bool(_) => name == "boolean",
        // `2.0` is an integer to JSON Schema.
        Value::Number(number) => {
            name == "number" || (name == "integer" && number.as_f64().is_some_and(|float| float.fract() == 0.0))
        }
        Value::String(_) => name == "string",
        Value::Array(_) => name == "array",
        Value::Object(_) => name == "object",
    }
}

/// Numbers are the same when they have the same value: `10` and `10.0`.
fn same(one: &Value, other: &Value) -> bool {
    one == other || (one.is_number() && one.as_f64() == other.as_f64())
}

fn describe(name: &str) -> &str {
    TYPES.iter().find(|(known, _)| *known == name).map_or(name, |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(schema: &Value, value: &Value) -> Vec<String> {
        let defs = json!({"short": {"type": "string", "pattern": "^.{1,3}$"}, "loop": {"$ref": "#/$defs/loop"}});
        let mut found = Vec::new();
        Schema::compile(schema, &defs).unwrap().check(value, &mut "v".to_owned(), &mut found);
        found.into_iter().map(|(path, text)| format!("{path}: {text}")).collect()
    }

    #[test]
    fn every_keyword_says_what_is_wrong() {
        for (schema, good, bad, text) in [
            (json!({"type": "string"}), json!("x"), json!(1), "v: must be a string"),
            (json!({"type": ["string", "object"]}), json!({}), json!([]), "v: must be a string or an object"),
            (json!({"type": "integer"}), json!(2.0), json!(2.5), "v: must be a whole number"),
            (json!({"enum": [2, 10, null]}), json!(10.0), json!(3), "v: must be one of 2, 10, null"),
            (json!({"const": "a"}), json!("a"), json!("b"), "v: must be one of \"a\""),
            (json!({"$ref": "#/$defs/short"}), json!("abc"), json!("abcd"), "v: must have the form ^.{1,3}$"),
            (json!({"minLength": 1}), json!("a"), json!(""), "v: must not be empty"),
            (json!({"minimum": 0.25}), json!(1), json!(0), "v: must be at least 0.25"),
            (json!({"maximum": 3}), json!(3), json!(3.5), "v: must be at most 3"),
            (json!({"minItems": 2}), json!([1, 2]), json!([1]), "v: must have at least 2 elements"),
            (json!({"maxItems": 1}), json!([1]), json!([1, 2]), "v: must have at most 1 elements"),
            (json!({"items": {"type": "null"}}), json!([null]), json!([null, 1]), "v[1]: must be null"),
            (json!({"required": ["a"]}), json!({"a": 1}), json!({}), "v: \"a\" is missing"),
            (
                json!({"properties": {"a": {"type": "boolean"}}}),
                json!({"b": 1}),
                json!({"a": "x"}),
                "v.a: must be true or false",
            ),
            (json!({"additionalProperties": false}), json!({}), json!({"z": 1}), "v: unknown field \"z\""),
            (
                json!({"additionalProperties": {"type": "number"}}),
                json!({"z": 1}),
                json!({"z": "1"}),
                "v.z: must be a number",
            ),
            (
                json!({"allOf": [{"if": {"properties": {"k": {"const": "a"}}}, "then": {"required": ["b"]}}]}),
                json!({"k": "c"}),
                json!({"k": "a"}),
                "v: \"b\" is missing",
            ),
        ] {
            assert_eq!(found(&schema, &good), Vec::<String>::new(), "{schema} {good}");
            assert_eq!(found(&schema, &bad), [text], "{schema} {bad}");
        }
    }

    #[test]
    fn what_is_not_supported_does_not_compile() {
        for schema in [
            json!({"oneOf": []}),
            json!({"type": "text"}),
            json!({"minLength": 2}),
            json!({"then": {}}),
            json!({"pattern": "("}),
            json!({"$ref": "#/$defs/none"}),
            json!({"$ref": "#/$defs/loop"}),
            json!({"properties": {"a": {"format": "uri"}}}),
            json!(true),
        ] {
            let defs = json!({"loop": {"$ref": "#/$defs/loop"}});
            assert!(Schema::compile(&schema, &defs).is_err(), "{schema}");
        }
    }
}
