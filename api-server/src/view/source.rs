//! Which datasource a query means, as Perses finds it: in the dashboard, in its project, among the global ones. Pure.

use std::sync::Arc;

use serde_json::Value as Json;

use super::Refusal;
use super::dashboard::Dashboard;
use super::interpolate::{self, Value, Values};
use crate::proxy::DatasourceRef;

/// Kind of the datasources that are asked.
pub const PROMETHEUS: &str = "PrometheusDatasource";
/// What the plugin takes for the scrape interval of a datasource that has none.
const SCRAPE_INTERVAL: &str = "1m";

/// A datasource, as far as it decides who is asked and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    name: String,
    kind: String,
    display: Option<String>,
    default: bool,
    /// Least seconds between two samples, as Prometheus' durations are written.
    pub scrape_interval: String,
}

impl Source {
    /// Of a document's name and spec.
    pub fn of(name: &str, spec: &Json) -> Self {
        let text = |pointer: &str| spec.pointer(pointer).and_then(Json::as_str).map(str::to_owned);
        Self {
            name: name.to_owned(),
            kind: text("/plugin/kind").unwrap_or_default(),
            display: text("/display/name"),
            default: spec["default"].as_bool().unwrap_or(false),
            scrape_interval: text("/plugin/spec/scrapeInterval").unwrap_or_else(|| SCRAPE_INTERVAL.to_owned()),
        }
    }
}

/// The datasources that a dashboard may mean, each list ordered as the API lists it.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Of the dashboard.
    pub local: Arc<[Source]>,
    /// Of its project.
    pub project: Arc<[Source]>,
    /// Those without a project.
    pub global: Arc<[Source]>,
}

#[derive(Debug, Clone, Copy)]
enum Level {
    Dashboard,
    Project,
    Global,
}

impl Sources {
    fn levels(&self) -> [(Level, &[Source]); 3] {
        [(Level::Dashboard, &*self.local), (Level::Project, &*self.project), (Level::Global, &*self.global)]
    }

    /// The datasource that a query of a dashboard means by `selector` (`datasource` of its spec). `fold` gives names the
    /// letter case of the store.
    pub fn find(
        &self,
        dashboard: &Dashboard,
        selector: &Json,
        values: &Values,
        fold: impl Fn(&str) -> String,
    ) -> Result<(DatasourceRef, &Source), Refusal> {
        let (kind, name) = match selector {
            Json::Null => (PROMETHEUS, None),
            Json::String(variable) if variable.starts_with('$') => (PROMETHEUS, self.of_variable(variable, values)?),
            selector => (selector["kind"].as_str().unwrap_or_default(), selector["name"].as_str()),
        };
        let found = self.levels().into_iter().find_map(|(level, sources)| {
            let wanted = name.map(|name| if matches!(level, Level::Dashboard) { name.to_owned() } else { fold(name) });
            let fits = |source: &&Source| {
                source.kind == kind && wanted.as_ref().map_or(source.default, |wanted| source.name == *wanted)
            };
            sources.iter().find(fits).map(|source| (level, source))
        });
        let Some((level, source)) = found else {
            return Err(Refusal::NoDatasource { kind: kind.to_owned(), name: name.map(str::to_owned) });
        };
        let (name, project) = (source.name.clone(), dashboard.metadata.project.clone());
        let reference = match level {
            Level::Dashboard => DatasourceRef::Dashboard { project, dashboard: dashboard.metadata.name.clone(), name },
            Level::Project => DatasourceRef::Project { project, name },
            Level::Global => DatasourceRef::Global { name },
        };
        Ok((reference, source))
    }

    /// The name that a variable's value stands for; the default one where it stands for none.
    fn of_variable(&self, variable: &str, values: &Values) -> Result<Option<&str>, Refusal> {
        let name = interpolate::first_reference(variable).unwrap_or_default();
        let shown = match values.get(name) {
            Some(Value::One(shown)) => shown,
            Some(Value::Unknown) => return Err(Refusal::NoValue(name.to_owned())),
            Some(Value::Many(_)) | None => return Ok(None),
        };
        // The choice "Default (... from ...)" comes first, and means the default as well.
        let mut all =
            self.levels().into_iter().flat_map(|(_, sources)| sources).filter(|source| source.kind == PROMETHEUS);
        let chosen = all.find(|source| source.display.as_ref().unwrap_or(&source.name) == shown);
        Ok(chosen.map(|source| source.name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_nearest_datasource_counts() {
        let source = |name: &str, default: bool| {
            Source::of(name, &json!({"default": default, "plugin": {"kind": PROMETHEUS, "spec": {}}}))
        };
        let other = Source::of("tempo", &json!({"default": true, "plugin": {"kind": "TempoDatasource", "spec": {}}}));
        let named = Source::of("c", &json!({"display": {"name": "See"}, "plugin": {"kind": PROMETHEUS, "spec": {}}}));
        let sources = Sources {
            local: [other, source("Mine", false)].into(),
            project: [source("a", false), source("mine", false)].into(),
            global: [source("a", true), source("b", false), named].into(),
        };
        let dashboard: Dashboard =
            serde_json::from_value(json!({"metadata": {"project": "p", "name": "d"}, "spec": {}})).unwrap();
        let values: Values = [
            ("ds".to_owned(), Value::One("See".to_owned())),
            ("none".to_owned(), Value::One("Default (a from global)".to_owned())),
            ("list".to_owned(), Value::Many(vec!["b".to_owned()])),
            ("unknown".to_owned(), Value::Unknown),
        ]
        .into();
        let found = |selector: Json| {
            let found = sources.find(&dashboard, &selector, &values, str::to_lowercase);
            found.map(|(reference, _)| reference.to_string()).map_err(|refusal| refusal.to_string())
        };
        for (selector, expected) in [
            (Json::Null, "global/a"),
            (json!({"kind": PROMETHEUS}), "global/a"),
            (json!({"kind": PROMETHEUS, "name": "A"}), "project/p/a"),
            (json!({"kind": PROMETHEUS, "name": "Mine"}), "dashboard/p/d/Mine"),
            (json!({"kind": PROMETHEUS, "name": "MINE"}), "project/p/mine"),
            (json!({"kind": PROMETHEUS, "name": "b"}), "global/b"),
            (json!({"kind": "TempoDatasource"}), "dashboard/p/d/tempo"),
            (json!("$ds"), "global/c"),
            (json!("${ds}"), "global/c"),
            (json!("$none"), "global/a"),
            (json!("$list"), "global/a"),
            (json!("$missing"), "global/a"),
        ] {
            assert_eq!(found(selector.clone()).as_deref(), Ok(expected), "{selector}");
        }
        assert_eq!(
            found(json!({"kind": PROMETHEUS, "name": "x"})).unwrap_err(),
            "no datasource of kind \"PrometheusDatasource\" has the name \"x\""
        );
        assert!(found(json!({"kind": "Other"})).unwrap_err().contains("is the default"));
        assert!(found(json!("$unknown")).unwrap_err().contains("unknown"));
    }
}
