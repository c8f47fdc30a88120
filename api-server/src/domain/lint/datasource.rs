//! Datasources that the browser calls itself.

use serde_json::Value;

use super::Finding;
use super::plugins::{PluginUse, Role};
use super::schema::has_schema_for;

/// A datasource of a known plugin goes through this server or past it, not both, not neither.
pub(super) fn check(used: &PluginUse<'_>, findings: &mut Vec<Finding>) {
    if used.role != Role::Datasource {
        return;
    }
    let member = |key: &str| used.spec.and_then(|spec| spec.get(key)).filter(|value| !value.is_null());
    let direct = member("directUrl").and_then(Value::as_str).is_some_and(|url| !url.is_empty());
    let proxied = member("proxy").is_some();
    let path = format!("{}.spec", used.path);
    if direct {
        findings.push(Finding::warning(
            format!("{path}.directUrl"),
            "the browser calls this address itself: no secret, no allowed endpoints, no cache and no audit apply; use proxy",
        ));
    }
    if direct && proxied {
        findings.push(Finding::error(path, "directUrl and proxy exclude each other: give one"));
    } else if !direct && !proxied && has_schema_for(used.kind) {
        findings.push(Finding::error(path, "the datasource has no address: give proxy (or directUrl)"));
    }
}
