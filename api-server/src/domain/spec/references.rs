//! Where a dashboard uses variables that it does not define itself.

use std::collections::HashSet;

use serde_json::Value;

/// What a variable is used in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Place {
    /// Another variable of the dashboard, by name.
    Variable(String),
    /// What is sent to a datasource: queries and annotations.
    Request,
    /// What people read, and options of panels and layouts.
    Text,
}

/// A use of a variable that the dashboard does not define.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Name of the variable, without `$`.
    pub name: String,
    /// The place in the document, for example `spec.panels.cpu.spec.queries[0].spec.plugin.spec.query`.
    pub path: String,
    /// What it is used in.
    pub place: Place,
    /// Whether it was written `${name}`, which Perses v0.54 does not look at when a dashboard is written.
    pub braced: bool,
}

/// Names in `$name`, `${name}`, `${name:format}` and `${name.property}`, each with whether it had braces. Digits alone are
/// placeholders of PromQL's label_replace.
pub(in crate::domain) fn names(text: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            rest = &rest[rest.find('$')? + 1..];
            let (inner, braced) = rest.strip_prefix('{').map_or((rest, false), |inner| (inner, true));
            let length = inner.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            let (name, tail) = inner.split_at(length);
            rest = tail;
            let closed = !braced || (tail.starts_with(['}', ':', '.']) && tail.contains('}'));
            if closed && !name.bytes().all(|b| b.is_ascii_digit()) {
                return Some((name, braced));
            }
        }
    })
}

/// Perses itself defines what starts with `__`: `$__interval`, `$__range`, `$__from`, ...
pub(super) fn is_builtin(name: &str) -> bool {
    name.starts_with("__")
}

/// The variables that the spec of a dashboard uses and does not define; one entry for each name and place.
pub fn undefined(dashboard: &Value) -> Vec<Reference> {
    let entries = array(dashboard, "variables");
    let defined = entries.iter().filter_map(|entry| entry.get("spec")?.get("name")?.as_str()).collect();
    let mut search = Search { defined, seen: HashSet::new(), path: "spec".to_owned(), found: Vec::new() };
    for (index, entry) in entries.iter().enumerate() {
        let name = entry.pointer("/spec/name").and_then(Value::as_str).unwrap_or_default();
        let place = Place::Variable(name.to_owned());
        search.at(&format!(".variables[{index}].spec"), |search| {
            search.member(entry.get("spec"), "value", &place);
            search.member(entry.pointer("/spec/plugin"), "plugin.spec", &place);
        });
    }
    if let Some(panels) = dashboard.get("panels").and_then(Value::as_object) {
        for (key, panel) in panels {
            let Some(spec) = panel.get("spec") else { continue };
            search.at(&format!(".panels.{key}.spec"), |search| search.panel(spec));
        }
    }
    for (index, annotation) in array(dashboard, "annotations").iter().enumerate() {
        search.at(&format!(".annotations[{index}]"), |search| {
            search.member(annotation.get("plugin"), "plugin.spec", &Place::Request);
        });
    }
    search.links(dashboard);
    for (index, layout) in array(dashboard, "layouts").iter().enumerate() {
        let Some(spec) = layout.get("spec") else { continue };
        search.at(&format!(".layouts[{index}].spec"), |search| search.layout(spec));
    }
    search.found
}

struct Search<'v> {
    defined: HashSet<&'v str>,
    seen: HashSet<(String, Place)>,
    path: String,
    found: Vec<Reference>,
}

impl<'v> Search<'v> {
    fn at(&mut self, step: &str, work: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(step);
        work(self);
        self.path.truncate(length);
    }

    fn panel(&mut self, spec: &'v Value) {
        for key in ["display.name", "display.description"] {
            self.member(spec.get("display"), key, &Place::Text);
        }
        self.member(spec.get("plugin"), "plugin.spec", &Place::Text);
        self.links(spec);
        for (index, query) in array(spec, "queries").iter().enumerate() {
            self.at(&format!(".queries[{index}].spec"), |search| {
                search.member(query.pointer("/spec/plugin"), "plugin.spec", &Place::Request);
            });
        }
    }

    /// Links show variables only when told to.
    fn links(&mut self, parent: &'v Value) {
        for (index, link) in array(parent, "links").iter().enumerate() {
            if link.get("renderVariables").and_then(Value::as_bool) == Some(true) {
                self.at(&format!(".links[{index}]"), |search| search.strings(link, &Place::Text));
            }
        }
    }

    fn layout(&mut self, spec: &'v Value) {
        self.member(spec.get("display"), "display.title", &Place::Text);
        self.repeat(spec.get("repeatVariable"), ".repeatVariable");
        let groups = array(spec, "tabs").iter().enumerate().map(|(index, tab)| (format!(".tabs[{index}]"), tab));
        for (step, group) in groups.chain([(String::new(), spec)]) {
            self.at(&step, |search| {
                for (index, item) in array(group, "items").iter().enumerate() {
                    let value = item.pointer("/repeatVariable/value");
                    search.repeat(value, &format!(".items[{index}].repeatVariable.value"));
                }
            });
        }
    }

    /// The name of a variable itself, without `$`.
    fn repeat(&mut self, value: Option<&'v Value>, step: &str) {
        if let Some(name) = value.and_then(Value::as_str).filter(|name| !name.is_empty()) {
            self.at(step, |search| search.used(name.trim_start_matches('$'), false, &Place::Text));
        }
    }

    /// The strings in the last member of `step`, which is a member of `parent`.
    fn member(&mut self, parent: Option<&'v Value>, step: &str, place: &Place) {
        let key = step.rsplit('.').next().unwrap_or(step);
        if let Some(value) = parent.and_then(|parent| parent.get(key)) {
            self.at(&format!(".{step}"), |search| search.strings(value, place));
        }
    }

    fn strings(&mut self, value: &'v Value, place: &Place) {
        match value {
            Value::String(text) => names(text).for_each(|(name, braced)| self.used(name, braced, place)),
            Value::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    self.at(&format!("[{index}]"), |search| search.strings(value, place));
                }
            }
            Value::Object(members) => {
                for (key, value) in members {
                    if !matches!(value, Value::Bool(_) | Value::Number(_) | Value::Null) {
                        self.at(&format!(".{key}"), |search| search.strings(value, place));
                    }
                }
            }
            _ => {}
        }
    }

    fn used(&mut self, name: &str, braced: bool, place: &Place) {
        if self.defined.contains(name) || is_builtin(name) || !self.seen.insert((name.to_owned(), place.clone())) {
            return;
        }
        let (name, path) = (name.to_owned(), self.path.clone());
        self.found.push(Reference { name, path, place: place.clone(), braced });
    }
}

fn array<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
