//! `Folder`: a tree of dashboards; a dashboard may be in it once.

use std::collections::HashSet;

use super::SpecError;
use super::node::Node;

/// Deeper trees than a person makes; keeps the walk bounded.
const MAX_DEPTH: usize = 100;

pub(super) fn check(spec: &Node<'_>) -> Result<(), SpecError> {
    if let Some(display) = spec.get("display") {
        display.object()?;
        display.opt_str("name")?;
    }
    items(spec, &mut HashSet::new(), 0)
}

fn items<'v>(parent: &Node<'v>, seen: &mut HashSet<&'v str>, depth: usize) -> Result<(), SpecError> {
    let Some(list) = parent.get("items") else { return Ok(()) };
    if depth == MAX_DEPTH {
        return Err(list.error(format!("folders may be nested at most {MAX_DEPTH} deep")));
    }
    for item in list.elements()? {
        item.object()?;
        let kind = item.str_or_empty("kind")?;
        let is_dashboard = kind.eq_ignore_ascii_case("Dashboard");
        if !is_dashboard && !kind.eq_ignore_ascii_case("Folder") {
            return Err(item.error(format!("unknown kind {kind:?} used (Dashboard or Folder)")));
        }
        let name = item.str_or_empty("name")?;
        if name.is_empty() {
            return Err(item.error("name is required"));
        }
        if !is_dashboard {
            items(&item, seen, depth + 1)?;
            continue;
        }
        if let Some(children) = item.get("items")
            && children.elements()?.next().is_some()
        {
            return Err(item.error("when kind is equal to \"Dashboard\", then items must be empty"));
        }
        if !seen.insert(name) {
            return Err(item.error(format!("dashboard {name:?} is referenced multiple times in the folder")));
        }
    }
    Ok(())
}
