//! Checks beyond what Perses refuses: specs of plugins, plugins that nobody has, limits of queries, datasources past the
//! server; and the operator's own rules. Everything is compiled once, at start.

mod custom;
mod datasource;
mod json_schema;
mod limits;
pub mod plugins;
pub mod reads;
mod schema;
mod substitute;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use self::custom::Rules;
pub use self::custom::{RuleSource, Subject};
pub use self::limits::{Facts, QueryLimits};
use self::plugins::PluginKinds;
use self::schema::Schemas;
use super::kind::Kind;
use super::spec::references::{Place, Reference};

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// To know; never refused.
    Warning,
    /// Wrong; refused where rules are enforced.
    Error,
}

impl Severity {
    /// `error` or `warning`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something to tell about a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it weighs.
    pub severity: Severity,
    /// The place, for example `spec.panels.cpu.spec.plugin.spec.legend.position`.
    pub path: String,
    /// What is wrong, without values of the document that could be secret.
    pub text: String,
}

impl Finding {
    fn error(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { severity: Severity::Error, path: path.into(), text: text.into() }
    }

    fn warning(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, path: path.into(), text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.text)
    }
}

/// What is done with findings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is looked for.
    Off,
    /// They are told.
    #[default]
    Warn,
    /// Errors refuse the document, warnings are told.
    Enforce,
}

/// What a [`Linter`] is made of.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What is done with findings. The operator's own rules are enforced in any mode.
    pub mode: Mode,
    /// Limits of PromQL.
    pub limits: QueryLimits,
    /// `dashboard.custom_lint_rules`.
    pub rules: Vec<RuleSource>,
    /// Plugins that this server has; empty when it has no UI of its own.
    pub plugins: PluginKinds,
}

/// The compiled checks.
#[derive(Debug)]
pub struct Linter {
    mode: Mode,
    limits: QueryLimits,
    compiled: Arc<Compiled>,
}

/// What takes time to make and never changes.
#[derive(Debug)]
struct Compiled {
    rules: Rules,
    plugins: PluginKinds,
    schemas: Schemas,
}

impl Linter {
    /// Compiles everything.
    ///
    /// # Errors
    /// One of the operator's rules cannot be used: which and why.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let Settings { mode, limits, rules, plugins } = settings;
        let compiled = Compiled { rules: Rules::compile(&rules)?, plugins, schemas: Schemas::compile()? };
        Ok(Self { mode, limits, compiled: Arc::new(compiled) })
    }

    /// The same checks with another mode and other limits.
    #[must_use]
    pub fn with(&self, mode: Mode, limits: QueryLimits) -> Self {
        Self { mode, limits, compiled: self.compiled.clone() }
    }

    /// What is done with findings.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The operator's own rules, for dashboards.
    ///
    /// # Errors
    /// The message of the first rule that the document breaks, as Perses answers it.
    pub fn custom_rules(&self, subject: &Subject<'_>) -> Result<(), String> {
        if subject.kind == Kind::Dashboard { self.compiled.rules.check(subject) } else { Ok(()) }
    }

    /// What is to be said about the spec of a document that passed the structural checks; nothing in mode [`Mode::Off`].
    pub fn lint(&self, kind: Kind, spec: &Value) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.mode == Mode::Off {
            return findings;
        }
        let uses = plugins::of(kind, spec);
        for used in &uses {
            let has_schema = self.compiled.schemas.check(used, &mut findings);
            findings.extend(self.compiled.plugins.check(used, has_schema));
            datasource::check(used, &mut findings);
        }
        limits::check(&self.limits, &uses, &mut findings);
        findings
    }

    /// What is to be said about a query of a panel, whatever the mode.
    pub fn lint_query(&self, query: &str) -> Vec<Finding> {
        let spec = serde_json::json!({ "query": query });
        let used = plugins::PluginUse {
            role: plugins::Role::Query,
            kind: "PrometheusTimeSeriesQuery",
            declared: None,
            spec: Some(&spec),
            path: "query".to_owned(),
            panel: Some("query".to_owned()),
        };
        let mut findings = Vec::new();
        limits::check(&self.limits, &[used], &mut findings);
        findings
    }

    /// What is to be said about a variable that is defined nowhere.
    pub fn undefined_variable(&self, reference: &Reference) -> Option<Finding> {
        if self.mode == Mode::Off {
            return None;
        }
        let text =
            format!("variable {:?} is used but not defined in the dashboard, its project or globally", reference.name);
        Some(match reference.place {
            // Texts may hold a `$` that means none.
            Place::Text => Finding::warning(&reference.path, text),
            Place::Request | Place::Variable(_) => Finding::error(&reference.path, text),
        })
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
