//! Which plugins a document uses, and whether this server has them.

use std::collections::HashMap;

use serde_json::Value;

use super::Finding;
use crate::domain::kind::Kind;
use crate::domain::spec::node::Node;

/// What a plugin is used as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A chart, a table, a text.
    Panel,
    /// What fills a panel: `TimeSeriesQuery`, `TraceQuery`, ...
    Query,
    /// What fills the choices of a list variable.
    Variable,
    /// Where queries go.
    Datasource,
    /// Events over charts.
    Annotation,
}

impl Role {
    /// The role of a plugin by its `kind` in the list of plugins; `None` for those that documents do not use (`Explore`).
    fn parse(kind: &str) -> Option<Self> {
        Some(match kind {
            "Panel" => Self::Panel,
            "Variable" => Self::Variable,
            "Datasource" => Self::Datasource,
            "Annotation" => Self::Annotation,
            kind if kind.ends_with("Query") => Self::Query,
            _ => return None,
        })
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Panel => "panel",
            Self::Query => "query",
            Self::Variable => "variable",
            Self::Datasource => "datasource",
            Self::Annotation => "annotation",
        }
    }
}

/// The plugins of this server: role and name -> `kind` in the list of plugins.
#[derive(Debug, Clone, Default)]
pub struct PluginKinds(HashMap<(Role, String), String>);

impl PluginKinds {
    /// From the answer of `GET /api/v1/plugins`: an array of `PluginModule`. What is not of that shape is left out.
    pub fn from_modules(modules: &Value) -> Self {
        let modules = modules.as_array().map_or(&[][..], Vec::as_slice);
        let plugins = modules.iter().filter_map(|module| module.pointer("/spec/plugins")?.as_array()).flatten();
        let known = plugins.filter_map(|plugin| {
            let kind = plugin.get("kind")?.as_str()?;
            let name = plugin.pointer("/spec/name")?.as_str()?;
            Some(((Role::parse(kind)?, name.to_owned()), kind.to_owned()))
        });
        Self(known.collect())
    }

    /// A finding when this server does not have the plugin, or its spec cannot be checked. `has_schema`: it can be.
    pub(super) fn check(&self, used: &PluginUse<'_>, has_schema: bool) -> Option<Finding> {
        let (role, kind) = (used.role.as_str(), used.kind);
        let path = format!("{}.kind", used.path);
        match self.0.get(&(used.role, kind.to_owned())) {
            Some(found) if used.role == Role::Query && used.declared.is_some_and(|declared| declared != found) => {
                Some(Finding::error(
                    path,
                    format!("plugin {kind:?} is a {found}, not a {}", used.declared.unwrap_or_default()),
                ))
            }
            Some(_) if has_schema => None,
            Some(_) => Some(Finding::warning(
                path,
                format!("{role} plugin {kind:?} has no schema on this server: its spec is not checked"),
            )),
            None if has_schema && self.0.is_empty() => None,
            None if has_schema => {
                Some(Finding::warning(path, format!("{role} plugin {kind:?} is not among the plugins of this server")))
            }
            None if self.0.is_empty() => {
                Some(Finding::warning(path, format!("unknown {role} plugin {kind:?}: its spec is not checked")))
            }
            None => Some(Finding::error(
                path,
                format!("unknown {role} plugin {kind:?}: it is not among the plugins of this server"),
            )),
        }
    }
}

/// One use of a plugin.
#[derive(Debug, Clone)]
pub struct PluginUse<'v> {
    /// What it is used as.
    pub role: Role,
    /// Its name, such as `TimeSeriesChart`.
    pub kind: &'v str,
    /// Of queries: what they say to be, such as `TimeSeriesQuery`.
    pub declared: Option<&'v str>,
    /// Its own spec; `None` when left out.
    pub spec: Option<&'v Value>,
    /// The place of the plugin, for example `spec.panels.cpu.spec.plugin`.
    pub path: String,
    /// Of queries: the place of their panel.
    pub panel: Option<String>,
}

/// The plugins in the spec of a document that passed the structural checks.
pub fn of(kind: Kind, spec: &Value) -> Vec<PluginUse<'_>> {
    let root = Node::root("spec", spec);
    let mut uses = Vec::new();
    match kind {
        Kind::Dashboard | Kind::EphemeralDashboard => dashboard(&root, &mut uses),
        Kind::Datasource | Kind::GlobalDatasource => uses.extend(plugin(&root, Role::Datasource)),
        Kind::Variable | Kind::GlobalVariable => {
            uses.extend(root.get("spec").and_then(|inner| plugin(&inner, Role::Variable)));
        }
        _ => {}
    }
    uses
}

fn dashboard<'v>(root: &Node<'v>, uses: &mut Vec<PluginUse<'v>>) {
    for variable in elements(root, "variables") {
        uses.extend(variable.get("spec").and_then(|inner| plugin(&inner, Role::Variable)));
    }
    for panel in members(root, "panels") {
        let Some(body) = panel.get("spec") else { continue };
        uses.extend(plugin(&body, Role::Panel));
        for query in elements(&body, "queries") {
            let Some(mut used) = query.get("spec").and_then(|inner| plugin(&inner, Role::Query)) else { continue };
            used.declared = query.opt_str("kind").ok().flatten().filter(|kind| !kind.is_empty());
            used.panel = Some(panel.path().to_owned());
            uses.push(used);
        }
    }
    for datasource in members(root, "datasources") {
        uses.extend(plugin(&datasource, Role::Datasource));
    }
    for annotation in elements(root, "annotations") {
        uses.extend(plugin(&annotation, Role::Annotation));
    }
}

fn plugin<'v>(parent: &Node<'v>, role: Role) -> Option<PluginUse<'v>> {
    let plugin = parent.get("plugin")?;
    let kind = plugin.opt_str("kind").ok()??;
    let spec = plugin.get("spec").map(|inner| inner.value());
    Some(PluginUse { role, kind, declared: None, spec, path: plugin.path().to_owned(), panel: None })
}

fn elements<'v>(parent: &Node<'v>, key: &str) -> Vec<Node<'v>> {
    parent.get(key).and_then(|list| list.elements().ok().map(Iterator::collect)).unwrap_or_default()
}

fn members<'v>(parent: &Node<'v>, key: &str) -> Vec<Node<'v>> {
    let members = parent.get(key).and_then(|map| map.members().ok().map(|all| all.map(|(_, one)| one).collect()));
    members.unwrap_or_default()
}
