//! From a dashboard and a request to distinct queries.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value as Json;

use super::Refusal;
use super::dashboard::{Chosen, Dashboard, Panel, Place, Query, Variable};
use super::interpolate::{Budget, Value, Values, replace_variable, replace_variables};
use super::request::{View, Wanted};
use super::source::Sources;
use super::time::{Instants, number, print_duration, read_duration};
use crate::proxy::DatasourceRef;

/// Bytes of the texts of a view's queries.
pub const MAX_TEXT: usize = 8 << 20;
/// The value of a list variable that stands for all its options.
const ALL: &str = "$__all";
const PLUGIN: &str = "PrometheusTimeSeriesQuery";
/// Columns of the grid, pixels between two panels, and the width up to which a grid has only two columns.
const COLUMNS: f64 = 24.0;
const MARGIN: f64 = 10.0;
const NARROW: f64 = 600.0;

/// A query of a panel that an answer is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct For {
    /// Key of the panel.
    pub panel: String,
    /// Which of its queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Name and value of the variable that its row is repeated for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat: Option<(String, String)>,
}

/// What Prometheus is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Who is asked.
    pub datasource: DatasourceRef,
    /// The expression, variables put in.
    pub query: String,
    /// When.
    pub instants: Instants,
    /// Whether only the last instant counts.
    pub instant: bool,
}

impl Question {
    /// The path below the datasource.
    pub const fn path(&self) -> &'static str {
        if self.instant { "/api/v1/query" } else { "/api/v1/query_range" }
    }

    /// The parameters, as the plugin sends them.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let Instants { start, end, step } = self.instants;
        let mut parameters = vec![("query", self.query.clone())];
        if self.instant {
            parameters.push(("time", number(end)));
        } else {
            parameters.extend([("start", number(start)), ("end", number(end)), ("step", number(step))]);
        }
        parameters
    }
}

/// One distinct query of a view.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// For which queries of panels.
    pub panels: Vec<For>,
    /// What is asked, or why nothing.
    pub question: Result<Question, Refusal>,
}

/// A view asks more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the view has more than {0} queries (query.batch.max_queries): name fewer panels in \"panels\"")]
pub struct TooMany(pub usize);

/// The distinct queries of a view in the order in which they are wanted; at most `max` queries of panels.
pub fn plan(
    dashboard: &Dashboard,
    sources: &Sources,
    view: &View,
    max: usize,
    fold: impl Fn(&str) -> String,
) -> Result<Vec<Entry>, TooMany> {
    let mut planner = Planner {
        dashboard,
        sources,
        view,
        max,
        fold: &fold,
        values: values(dashboard, view),
        budget: Budget::new(MAX_TEXT),
        asked: 0,
        entries: Vec::new(),
        known: HashMap::new(),
    };
    let places = dashboard.spec.places();
    match &view.panels {
        None => places.iter().filter(|place| place.open).try_for_each(|place| planner.place(place))?,
        Some(wanted) => wanted.iter().try_for_each(|wanted| planner.wanted(wanted, &places))?,
    }
    Ok(planner.entries)
}

/// Values of all variables: those that were sent, else the dashboard's own, and those that Perses defines.
fn values(dashboard: &Dashboard, view: &View) -> Values {
    let mut values: Values = view.variables.iter().map(|(name, chosen)| (name.clone(), value(chosen, None))).collect();
    for Variable { kind, spec } in &dashboard.spec.variables {
        let value = match (kind.as_str(), view.variables.get(&spec.name), spec.default_value.as_ref()) {
            (_, Some(chosen), _) | ("ListVariable", None, Some(chosen)) => {
                value(chosen, spec.custom_all_value.as_deref())
            }
            ("ListVariable", None, None) => Value::Unknown,
            (_, None, _) => Value::One(spec.value.clone().unwrap_or_default()),
        };
        values.insert(spec.name.clone(), value);
    }
    let (range, metadata) = (view.range, &dashboard.metadata);
    let own = [
        ("__from", range.start_ms.to_string()),
        ("__to", range.end_ms.to_string()),
        ("__range", print_duration(range.length_ms())),
        ("__range_s", number(range.length_ms() / 1000.0)),
        ("__range_ms", number(range.length_ms())),
        ("__dashboard", metadata.name.clone()),
        ("__project", metadata.project.clone()),
        // The plugin has put them in before; what is left of them stays.
        ("__interval", "$__interval".to_owned()),
        ("__interval_ms", "$__interval_ms".to_owned()),
        ("__rate_interval", "$__rate_interval".to_owned()),
    ];
    values.extend(own.map(|(name, value)| (name.to_owned(), Value::One(value))));
    values
}

fn value(chosen: &Chosen, all: Option<&str>) -> Value {
    let is_all = match chosen {
        Chosen::One(one) => one == ALL,
        Chosen::Many(many) => many.iter().any(|one| one == ALL),
    };
    match (chosen, all.filter(|all| !all.is_empty())) {
        (_, Some(all)) if is_all => Value::One(all.to_owned()),
        _ if is_all => Value::Unknown,
        (Chosen::One(one), _) => Value::One(one.clone()),
        (Chosen::Many(many), _) => Value::Many(many.clone()),
    }
}

/// What makes two questions one: datasource and parameters.
type Asked = (DatasourceRef, Vec<(&'static str, String)>);

struct Planner<'a> {
    dashboard: &'a Dashboard,
    sources: &'a Sources,
    view: &'a View,
    max: usize,
    fold: &'a dyn Fn(&str) -> String,
    values: Values,
    budget: Budget,
    asked: usize,
    entries: Vec<Entry>,
    /// Where an equal question is: by datasource, path and parameters.
    known: HashMap<Asked, usize>,
}

impl Planner<'_> {
    /// A panel that the request names: wherever it is shown, unless the request says how.
    fn wanted(&mut self, wanted: &Wanted, places: &[Place<'_>]) -> Result<(), TooMany> {
        let panel = wanted.panel();
        if self.dashboard.spec.panels.get(panel).is_none() {
            let target = For { panel: panel.to_owned(), index: None, repeat: None };
            return self.add(target, Err(Refusal::NoPanel(panel.to_owned())));
        }
        match wanted {
            Wanted::Placed { width, repeat, .. } => {
                let columns = places.iter().find(|place| place.panel == panel).and_then(|place| place.columns);
                let width = width.or_else(|| self.width(columns));
                match repeat {
                    Some((name, value)) => self.repeated(panel, width, name, std::slice::from_ref(value)),
                    None => self.panel(panel, width, None),
                }
            }
            Wanted::Key(_) => {
                let mut shown = places.iter().filter(|place| place.panel == panel).peekable();
                if shown.peek().is_none() {
                    return self.panel(panel, None, None);
                }
                shown.try_for_each(|place| self.place(place))
            }
        }
    }

    /// A panel where the dashboard shows it, once for each value of the variable that its row is repeated for.
    fn place(&mut self, place: &Place<'_>) -> Result<(), TooMany> {
        let width = self.width(place.columns);
        let repeated = place.repeat.and_then(|name| Some((name, self.values.get(name)?.clone())));
        match repeated {
            Some((name, Value::Many(many))) if !many.is_empty() => self.repeated(place.panel, width, name, &many),
            _ => self.panel(place.panel, width, None),
        }
    }

    fn repeated(&mut self, panel: &str, width: Option<f64>, name: &str, values: &[String]) -> Result<(), TooMany> {
        let usual = self.values.get(name).cloned();
        for value in values {
            self.values.insert(name.to_owned(), Value::One(value.clone()));
            self.panel(panel, width, Some((name, value)))?;
        }
        match usual {
            Some(usual) => self.values.insert(name.to_owned(), usual),
            None => self.values.remove(name),
        };
        Ok(())
    }

    /// Pixels of so many columns, as Perses computes them.
    fn width(&self, columns: Option<f64>) -> Option<f64> {
        let (all, columns) = (self.view.width?, columns?);
        let count = if all > NARROW { COLUMNS } else { 2.0 };
        let column = (all - MARGIN * (count - 1.0)) / count;
        Some((column * columns + (columns - 1.0).max(0.0) * MARGIN + 0.5).floor())
    }

    fn panel(&mut self, key: &str, width: Option<f64>, repeat: Option<(&str, &str)>) -> Result<(), TooMany> {
        let Some(panel) = self.dashboard.spec.panels.get(key) else { return Ok(()) };
        for (index, query) in panel.spec.queries.iter().enumerate() {
            // What other plugins ask is theirs.
            if query.spec.plugin.kind != PLUGIN {
                continue;
            }
            if let Some(question) = self.question(panel, query, width).transpose() {
                let repeat = repeat.map(|(name, value)| (name.to_owned(), value.to_owned()));
                self.add(For { panel: key.to_owned(), index: Some(index), repeat }, question)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, target: For, question: Result<Question, Refusal>) -> Result<(), TooMany> {
        self.asked += 1;
        if self.asked > self.max {
            return Err(TooMany(self.max));
        }
        if let Ok(asked) = &question {
            let key = (asked.datasource.clone(), asked.parameters());
            if let Some(at) = self.known.get(&key) {
                self.entries[*at].panels.push(target);
                return Ok(());
            }
            self.known.insert(key, self.entries.len());
        }
        self.entries.push(Entry { panels: vec![target], question });
        Ok(())
    }

    /// What the plugin would ask; nothing for a query without a text.
    fn question(&mut self, panel: &Panel, query: &Query, width: Option<f64>) -> Result<Option<Question>, Refusal> {
        let spec = &query.spec.plugin.spec;
        let text = match &spec["query"] {
            Json::Null => return Ok(None),
            Json::String(text) if text.is_empty() => return Ok(None),
            Json::String(text) => text.clone(),
            _ => return Err(Refusal::Spec("the query is no text".to_owned())),
        };
        let (datasource, source) = self.sources.find(self.dashboard, &spec["datasource"], &self.values, self.fold)?;
        let seconds = |what: &str, text: &str| {
            let read = read_duration(text).map(|milliseconds| (milliseconds / 1000.0).floor());
            read.ok_or_else(|| Refusal::Spec(format!("{what} is no duration: {text:?}")))
        };
        let scrape_interval = seconds("scrapeInterval of the datasource", &source.scrape_interval)?;
        let min_step = match &spec["minStep"] {
            Json::Null => scrape_interval,
            Json::String(min_step) => match replace_variables(min_step, &self.values, &self.budget)?.as_str() {
                "" => scrape_interval,
                min_step => seconds("minStep", min_step)?,
            },
            _ => return Err(Refusal::Spec("minStep is no text".to_owned())),
        };
        let suggested = self.view.step_ms.or_else(|| width.map(|width| self.view.range.suggested_step_ms(width)));
        let instants = Instants::of(self.view.range, min_step, suggested.unwrap_or(0.0), self.view.utc_offset)
            .ok_or_else(|| Refusal::Spec("the step would be 0: send one, or a width".to_owned()))?;
        let query = self.text(text, min_step * 1000.0, instants.step * 1000.0)?;
        self.budget.take(&query)?;
        Ok(Some(Question { datasource, query, instants, instant: panel.spec.is_instant() }))
    }

    fn text(&self, mut text: String, min_step_ms: f64, interval_ms: f64) -> Result<String, Refusal> {
        let rate_interval_ms = (interval_ms + min_step_ms).max(4.0 * min_step_ms);
        for (name, value) in [
            ("__interval_ms", number(interval_ms)),
            ("__interval", print_duration(interval_ms)),
            ("__rate_interval", print_duration(rate_interval_ms)),
        ] {
            text = replace_variable(text, name, &Value::One(value), None, &self.budget)?;
        }
        replace_variables(&text, &self.values, &self.budget)
    }
}

#[cfg(test)]
mod tests;
