//! Checks of a document beyond its structure: against others in the store, the operator's rules, and the linter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::Value;

use crate::config::{self, Config, ValidationMode};
use crate::domain::kind::Kind;
use crate::domain::lint::plugins::PluginKinds;
use crate::domain::lint::{Finding, Linter, Mode, QueryLimits, RuleSource, Settings, Severity, Subject};
use crate::domain::spec;
use crate::domain::spec::references::{Place, Reference, undefined};
use crate::error::ApiError;
use crate::store::{ListQuery, Store};

/// Errors that one refusal tells, at most.
const MAX_TOLD: usize = 5;

/// What documents are checked by.
#[derive(Debug)]
pub struct Checks {
    /// Swapped when limits change.
    linter: ArcSwap<Linter>,
    local_datasources: bool,
    local_variables: bool,
    direct_urls: bool,
}

impl Checks {
    /// Compiles what the configuration says. `plugins` are those of this server.
    ///
    /// # Errors
    /// One of `dashboard.custom_lint_rules` cannot be used.
    pub fn new(config: &Config, plugins: PluginKinds) -> Result<Self, String> {
        let settings = Settings {
            mode: mode(config.validation.mode),
            limits: limits(&config.validation.query_limits),
            rules: config.dashboard.custom_lint_rules.iter().map(rule).collect(),
            plugins,
        };
        Ok(Self {
            linter: ArcSwap::from_pointee(Linter::new(settings)?),
            local_datasources: !config.datasource.disable_local,
            local_variables: !config.variable.disable_local,
            direct_urls: !config.datasource.disable_direct_url,
        })
    }

    /// The checks of documents.
    pub fn linter(&self) -> Arc<Linter> {
        self.linter.load_full()
    }

    /// Takes another mode and other limits from the next document on.
    pub fn set_limits(&self, validation: &config::Validation) {
        let linter = self.linter().with(mode(validation.mode), limits(&validation.query_limits));
        self.linter.store(Arc::new(linter));
    }

    /// Checks a document whose structure is right; returns what is to be told.
    pub async fn check(&self, store: &dyn Store, subject: &Subject<'_>) -> Result<Vec<Finding>, ApiError> {
        // One for the whole document.
        let linter = self.linter();
        let is_dashboard = matches!(subject.kind, Kind::Dashboard | Kind::EphemeralDashboard);
        let references = if is_dashboard { undefined(subject.spec) } else { Vec::new() };
        let missing = undefined_variables(&linter, store, subject, references).await?;
        self.check_rules(subject).map_err(ApiError::BadRequest)?;
        let mut findings = linter.lint(subject.kind, subject.spec);
        findings.extend(missing);
        if linter.mode() == Mode::Enforce {
            refuse_errors(&findings)?;
        }
        Ok(findings)
    }

    /// The rules that refuse in every mode and need no other document: the switches and the operator's own.
    pub fn check_rules(&self, subject: &Subject<'_>) -> Result<(), String> {
        self.linter.load().custom_rules(subject)?;
        let is_dashboard = matches!(subject.kind, Kind::Dashboard | Kind::EphemeralDashboard);
        if is_dashboard && !self.local_datasources && spec::has_local(subject.spec, "datasources") {
            return Err("local datasource cannot be used as it has been disabled in the configuration".to_owned());
        }
        if is_dashboard && !self.local_variables && spec::has_local(subject.spec, "variables") {
            return Err("local variable cannot be used as it has been disabled in the configuration".to_owned());
        }
        match self.direct_url(subject) {
            Some(place) => Err(format!(
                "{place}.plugin.spec.directUrl: datasources that the browser calls itself are disabled in the configuration (datasource.disable_direct_url): use proxy"
            )),
            None => Ok(()),
        }
    }

    /// The place of a datasource past this server, where that is forbidden.
    fn direct_url(&self, subject: &Subject<'_>) -> Option<String> {
        if self.direct_urls {
            return None;
        }
        match subject.kind {
            Kind::Datasource | Kind::GlobalDatasource => spec::is_direct(subject.spec).then(|| "spec".to_owned()),
            Kind::Dashboard | Kind::EphemeralDashboard => {
                let local = subject.spec.get("datasources")?.as_object()?;
                let direct = local.iter().find(|(_, datasource)| spec::is_direct(datasource));
                direct.map(|(name, _)| format!("spec.datasources.{name}"))
            }
            _ => None,
        }
    }
}

/// Every variable must be defined in the dashboard, in its project or globally. In the dashboard's variables that is a
/// rule of Perses v0.54; elsewhere, and in the form with braces, it is a finding.
async fn undefined_variables(
    linter: &Linter,
    store: &dyn Store,
    subject: &Subject<'_>,
    references: Vec<Reference>,
) -> Result<Vec<Finding>, ApiError> {
    let of_variables = references.iter().any(|one| matches!(one.place, Place::Variable(_)));
    if references.is_empty() || (linter.mode() == Mode::Off && !of_variables) {
        return Ok(Vec::new());
    }
    // What stands nearer wins: the project's over the global ones.
    let mut outside = needs(store, Kind::GlobalVariable, None).await?;
    if let Some(project) = subject.project {
        outside.extend(needs(store, Kind::Variable, Some(project)).await?);
    }
    let missing: Vec<Reference> = references.into_iter().filter(|one| !outside.contains_key(&one.name)).collect();
    let refused = missing.iter().filter_map(|one| match &one.place {
        Place::Variable(by) if !one.braced => Some((&one.name, by)),
        _ => None,
    });
    if let Some((name, by)) = refused.min() {
        return Err(ApiError::BadRequest(format!(
            "spec.variables: variable {name:?} is used in the variable {by:?} but not defined"
        )));
    }
    if of_variables {
        check_circle(outside, subject.spec)?;
    }
    Ok(missing.iter().filter_map(|one| linter.undefined_variable(one)).collect())
}
/// What the variables of a scope use, by name.
async fn needs(
    store: &dyn Store,
    kind: Kind,
    project: Option<&str>,
) -> Result<BTreeMap<String, BTreeSet<String>>, ApiError> {
    let query = ListQuery { kind, project: project.map(str::to_owned), name_prefix: None, metadata_only: false };
    let variables = store.list(&query).await?;
    Ok(variables
        .into_iter()
        .map(|document| {
            let spec: Value = serde_json::from_str(document.spec.get()).unwrap_or_default();
            (document.key.name, spec.get("spec").map(spec::used_variables).unwrap_or_default())
        })
        .collect())
}

/// No variable may need itself by way of variables outside the dashboard. Those that the dashboard does not lead to are not
/// its fault.
fn check_circle(mut all: BTreeMap<String, BTreeSet<String>>, dashboard: &Value) -> Result<(), ApiError> {
    let entries = dashboard.get("variables").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let mut todo = Vec::new();
    for inner in entries.iter().filter_map(|entry| entry.get("spec")) {
        let name = inner.get("name").and_then(Value::as_str).unwrap_or_default();
        all.insert(name.to_owned(), spec::used_variables(inner));
        todo.push(name.to_owned());
    }
    let mut reached = BTreeMap::new();
    while let Some(name) = todo.pop() {
        if let Some(used) = all.remove(&name) {
            todo.extend(used.iter().cloned());
            reached.insert(name, used);
        }
    }
    spec::circle(reached).map_or(Ok(()), |names| {
        let names = names.join(", ");
        Err(ApiError::BadRequest(format!("spec.variables: circular dependency detected (among {names})")))
    })
}

fn refuse_errors(findings: &[Finding]) -> Result<(), ApiError> {
    let errors: Vec<String> =
        findings.iter().filter(|finding| finding.severity == Severity::Error).map(ToString::to_string).collect();
    if errors.is_empty() {
        return Ok(());
    }
    let more = errors.len().saturating_sub(MAX_TOLD);
    let told = errors[..errors.len() - more].join("; ");
    Err(ApiError::BadRequest(if more > 0 { format!("{told}; and {more} more") } else { told }))
}

const fn mode(config: ValidationMode) -> Mode {
    match config {
        ValidationMode::Off => Mode::Off,
        ValidationMode::Warn => Mode::Warn,
        ValidationMode::Enforce => Mode::Enforce,
    }
}

fn limits(config: &config::QueryLimits) -> QueryLimits {
    QueryLimits {
        max_time_series_per_chart: config.max_time_series_per_chart,
        max_lookback_window: config.max_lookback_window.0,
        max_query_length: config.max_query_length,
        required_label_filters: config.required_label_filters.clone(),
    }
}

fn rule(config: &config::LintRule) -> RuleSource {
    RuleSource {
        name: config.name.clone(),
        target: config.target.clone(),
        assertion: config.assertion.clone(),
        message: config.message.clone(),
        disable: config.disable,
    }
}
