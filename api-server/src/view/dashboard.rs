//! What a view needs of a dashboard, read leniently: what is missing or null is empty, what is not known is passed over.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// A dashboard, as the API serves it.
#[derive(Debug, Deserialize)]
pub struct Dashboard {
    /// Where it belongs.
    pub metadata: Metadata,
    /// What it shows.
    pub spec: Spec,
}

/// `metadata`.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    /// The project.
    pub project: String,
    /// Its name.
    pub name: String,
}

/// `spec`.
#[derive(Debug, Deserialize)]
pub struct Spec {
    /// By key.
    #[serde(default, deserialize_with = "or_empty")]
    pub panels: Ordered<Panel>,
    #[serde(default, deserialize_with = "or_empty")]
    layouts: Vec<Layout>,
    /// Text and list variables.
    #[serde(default, deserialize_with = "or_empty")]
    pub variables: Vec<Variable>,
    /// Its own datasources, by name.
    #[serde(default, deserialize_with = "or_empty")]
    pub datasources: Ordered<Value>,
    /// How far back it looks unless somebody says otherwise.
    #[serde(default)]
    pub duration: Option<String>,
}

/// The members of an object in their order.
#[derive(Debug)]
pub struct Ordered<T>(pub Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Ordered<T> {
    /// The member of a name.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Ordered(members))
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

fn or_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A panel.
#[derive(Debug, Deserialize)]
pub struct Panel {
    /// What it draws, and what it asks.
    pub spec: PanelSpec,
}

/// `spec` of a panel.
#[derive(Debug, Deserialize)]
pub struct PanelSpec {
    /// What draws it.
    pub plugin: Plugin,
    /// What it asks.
    #[serde(default, deserialize_with = "or_empty")]
    pub queries: Vec<Query>,
}

/// A query of a panel.
#[derive(Debug, Deserialize)]
pub struct Query {
    /// What asks it.
    pub spec: QuerySpec,
}

/// `spec` of a query.
#[derive(Debug, Deserialize)]
pub struct QuerySpec {
    /// What asks it.
    pub plugin: Plugin,
}

/// A plugin with its settings.
#[derive(Debug, Deserialize)]
pub struct Plugin {
    /// Its name.
    pub kind: String,
    /// Its settings.
    #[serde(default)]
    pub spec: Value,
}

impl PanelSpec {
    /// Whether its plugin asks for one instant, as `queryOptions` of the plugins have it.
    pub fn is_instant(&self) -> bool {
        match self.plugin.kind.as_str() {
            "TimeSeriesTable" | "HistogramChart" => true,
            // Cells that draw need ranges.
            "Table" => {
                let columns = self.plugin.spec["columnSettings"].as_array();
                !columns.is_some_and(|columns| columns.iter().any(|column| !column["plugin"].is_null()))
            }
            _ => false,
        }
    }
}

/// A variable.
#[derive(Debug, Deserialize)]
pub struct Variable {
    /// `TextVariable` or `ListVariable`.
    pub kind: String,
    /// Name and value.
    pub spec: VariableSpec,
}

/// `spec` of a variable.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VariableSpec {
    /// Its name.
    pub name: String,
    /// Of a text.
    #[serde(default)]
    pub value: Option<String>,
    /// Of a list: what is chosen at first.
    #[serde(default)]
    pub default_value: Option<Chosen>,
    /// Of a list: what "all" stands for.
    #[serde(default)]
    pub custom_all_value: Option<String>,
}

/// One or several values.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "the value of a variable is a text or a list of texts")]
pub enum Chosen {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct Layout {
    #[serde(default, deserialize_with = "or_empty")]
    spec: LayoutSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutSpec {
    #[serde(default)]
    display: Value,
    #[serde(default, deserialize_with = "or_empty")]
    items: Vec<Item>,
    #[serde(default)]
    repeat_variable: Option<String>,
    #[serde(default, deserialize_with = "or_empty")]
    tabs: Vec<Tab>,
    #[serde(default)]
    default_tab: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct Tab {
    #[serde(default, deserialize_with = "or_empty")]
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    #[serde(default)]
    x: Option<f64>,
    #[serde(default)]
    y: Option<f64>,
    #[serde(default)]
    width: Option<f64>,
    #[serde(default)]
    content: Value,
}

/// Where a panel is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Place<'a> {
    /// Key of the panel.
    pub panel: &'a str,
    /// Columns of the grid that it takes.
    pub columns: Option<f64>,
    /// The variable for each of whose values its row is repeated.
    pub repeat: Option<&'a str>,
    /// Whether it is on the screen when the dashboard is opened: not in a row that is collapsed, nor under another tab.
    pub open: bool,
}

impl Spec {
    /// Where panels are shown, in the order in which one reads them.
    pub fn places(&self) -> Vec<Place<'_>> {
        let mut places = Vec::new();
        for Layout { spec } in &self.layouts {
            let open = spec.display["collapse"]["open"].as_bool() != Some(false);
            put(&mut places, &spec.items, spec.repeat_variable.as_deref().filter(|name| !name.is_empty()), open);
            for (at, tab) in spec.tabs.iter().enumerate() {
                put(&mut places, &tab.items, None, at == spec.default_tab.unwrap_or(0));
            }
        }
        places
    }
}

fn put<'a>(places: &mut Vec<Place<'a>>, items: &'a [Item], repeat: Option<&'a str>, open: bool) {
    let mut items: Vec<&Item> = items.iter().collect();
    let corner = |item: &Item| (item.y.unwrap_or(0.0), item.x.unwrap_or(0.0));
    items.sort_by(|one, other| corner(one).partial_cmp(&corner(other)).unwrap_or(std::cmp::Ordering::Equal));
    places.extend(items.into_iter().filter_map(|item| {
        let panel = item.content["$ref"].as_str()?.rsplit('/').next()?;
        Some(Place { panel, columns: item.width, repeat, open })
    }));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn panels_come_as_one_reads_them() {
        let item = |panel: &str, x: i32, y: i32| json!({"x": x, "y": y, "width": 12, "height": 4, "content": {"$ref": format!("#/spec/panels/{panel}")}});
        let spec: Spec = serde_json::from_value(json!({"layouts": [
            {"kind": "Grid", "spec": {"items": [item("c", 0, 4), item("b", 12, 0), item("a", 0, 0)]}},
            {"kind": "Grid", "spec": {"display": {"title": "", "collapse": {"open": false}}, "items": [item("d", 0, 0)]}},
            {"kind": "Grid", "spec": {"repeatVariable": "node", "items": [item("e", 0, 0)]}},
            {"kind": "Tabs", "spec": {"defaultTab": 1, "tabs": [{"items": [item("f", 0, 0)]}, {"items": [item("g", 0, 0)]}]}},
            {"kind": "Grid", "spec": {"items": null}},
            {"kind": "Other"},
        ]}))
        .unwrap();
        let places = spec.places();
        let seen: Vec<_> = places.iter().map(|place| (place.panel, place.repeat, place.open)).collect();
        let expected = [
            ("a", None, true),
            ("b", None, true),
            ("c", None, true),
            ("d", None, false),
            ("e", Some("node"), true),
            ("f", None, false),
            ("g", None, true),
        ];
        assert_eq!(seen, expected);
    }
}
