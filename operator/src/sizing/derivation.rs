//! A derived number that can say why it is what it is.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Serialize;

/// A number together with its reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Derived<T> {
    /// The number that is used.
    pub value: T,
    /// How the number is written for people (with its unit).
    pub text: String,
    /// Formula in words and symbols.
    pub formula: &'static str,
    /// Values of the formula's inputs.
    pub inputs: BTreeMap<&'static str, String>,
    /// The term that decided.
    pub limiting_factor: String,
    /// What the model says when the spec overrides it.
    pub overrides: Option<String>,
}

impl<T: Clone + Display + PartialEq> Derived<T> {
    /// A number from the model.
    pub fn new(value: T, formula: &'static str, limiting_factor: impl Into<String>) -> Self {
        let text = value.to_string();
        Self { value, text, formula, inputs: BTreeMap::new(), limiting_factor: limiting_factor.into(), overrides: None }
    }

    /// Adds an input of the formula.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.inputs.insert(name, value.to_string());
        self
    }

    /// Adds an input that only some stacks have.
    #[must_use]
    pub fn with_some(self, name: &'static str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Lets a value from the spec win; the model's own stays visible.
    #[must_use]
    pub fn or_override(mut self, value: Option<T>, field: &str) -> Self {
        if let Some(value) = value {
            self.overrides = Some(self.text);
            self.text = value.to_string();
            self.value = value;
            self.limiting_factor = format!("set by {field}");
        }
        self
    }
}

/// One line of the explanation: a number without its type.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Derivation {
    /// Field, for example `api.maxReplicas`.
    pub field: &'static str,
    /// The number with its unit.
    pub value: String,
    /// Formula in words and symbols.
    pub formula: &'static str,
    /// Values of the formula's inputs.
    pub inputs: BTreeMap<&'static str, String>,
    /// The term that decided.
    pub limiting_factor: String,
    /// What the model says when the spec overrides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overrides: Option<String>,
}

impl Derivation {
    /// The explanation of `derived`, which is called `field`.
    pub fn of<T>(field: &'static str, derived: &Derived<T>) -> Self {
        Self {
            field,
            value: derived.text.clone(),
            formula: derived.formula,
            inputs: derived.inputs.clone(),
            limiting_factor: derived.limiting_factor.clone(),
            overrides: derived.overrides.clone(),
        }
    }
}
