//! A JSON value and its place in the document, for errors that say where.

use serde_json::{Map, Value};

use super::SpecError;

#[derive(Debug, Clone)]
pub(in crate::domain) struct Node<'v> {
    value: &'v Value,
    path: String,
}

impl<'v> Node<'v> {
    pub(in crate::domain) fn root(path: &str, value: &'v Value) -> Self {
        Self { value, path: path.to_owned() }
    }

    pub(in crate::domain) fn value(&self) -> &'v Value {
        self.value
    }

    pub(in crate::domain) fn path(&self) -> &str {
        &self.path
    }

    pub(in crate::domain) fn error(&self, message: impl Into<String>) -> SpecError {
        SpecError { path: self.path.clone(), message: message.into() }
    }

    /// A member that is there and not null: Go decodes null as absent.
    pub(in crate::domain) fn get(&self, key: &str) -> Option<Self> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(self.child(key, value))
    }

    fn child(&self, key: &str, value: &'v Value) -> Self {
        Self { value, path: format!("{}.{key}", self.path) }
    }

    pub(in crate::domain) fn required(&self, key: &str, message: &str) -> Result<Self, SpecError> {
        self.get(key).ok_or_else(|| SpecError { path: format!("{}.{key}", self.path), message: message.to_owned() })
    }

    pub(in crate::domain) fn object(&self) -> Result<&'v Map<String, Value>, SpecError> {
        self.value.as_object().ok_or_else(|| self.wrong_type("an object"))
    }

    /// Members of an object, null ones included.
    pub(in crate::domain) fn members(&self) -> Result<impl Iterator<Item = (&'v str, Self)> + '_, SpecError> {
        Ok(self.object()?.iter().map(|(key, value)| (key.as_str(), self.child(key, value))))
    }

    /// Elements of an array.
    pub(in crate::domain) fn elements(&self) -> Result<impl Iterator<Item = Self> + '_, SpecError> {
        let elements = self.value.as_array().ok_or_else(|| self.wrong_type("an array"))?;
        Ok(elements.iter().enumerate().map(|(index, value)| Self { value, path: format!("{}[{index}]", self.path) }))
    }

    pub(in crate::domain) fn str(&self) -> Result<&'v str, SpecError> {
        self.value.as_str().ok_or_else(|| self.wrong_type("a string"))
    }

    pub(in crate::domain) fn opt_str(&self, key: &str) -> Result<Option<&'v str>, SpecError> {
        self.get(key).map(|node| node.str()).transpose()
    }

    /// The string at `key`, or the empty one: Go's zero value.
    pub(in crate::domain) fn str_or_empty(&self, key: &str) -> Result<&'v str, SpecError> {
        Ok(self.opt_str(key)?.unwrap_or_default())
    }

    pub(in crate::domain) fn bool_or_false(&self, key: &str) -> Result<bool, SpecError> {
        self.get(key).map_or(Ok(false), |node| node.value.as_bool().ok_or_else(|| node.wrong_type("true or false")))
    }

    pub(in crate::domain) fn opt_int(&self, key: &str) -> Result<(), SpecError> {
        match self.get(key) {
            Some(node) if !node.value.is_i64() && !node.value.is_u64() => Err(node.wrong_type("a whole number")),
            _ => Ok(()),
        }
    }

    fn wrong_type(&self, wanted: &str) -> SpecError {
        let found = match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        self.error(format!("must be {wanted}, not {found}"))
    }
}
