//! `Datasource` and `GlobalDatasource`, and the same inside a dashboard: the plugin and its proxy block.

use regex::Regex;
use serde_json::{Map, Value};
use url::Url;

use super::node::Node;
use super::{SpecError, display, plugin};

/// Kind of a proxy block for HTTP; letter case does not matter.
pub const HTTP_PROXY: &str = "HTTPProxy";
/// Kind of a proxy block for SQL; letter case does not matter.
const SQL_PROXY: &str = "SQLProxy";
const METHODS: [&str; 5] = ["GET", "POST", "DELETE", "PUT", "PATCH"];

pub(super) fn check_document(spec: &Node<'_>) -> Result<(), SpecError> {
    if spec.object()?.is_empty() {
        return Err(spec.error("spec cannot be empty"));
    }
    check(spec)
}

pub(super) fn check(spec: &Node<'_>) -> Result<(), SpecError> {
    spec.object()?;
    display(spec)?;
    spec.bool_or_false("default")?;
    plugin(spec)?;
    let Some(inner) = spec.get("plugin").and_then(|plugin| plugin.get("spec")) else { return Ok(()) };
    inner.object()?;
    let Some(proxy) = find(&inner) else { return Ok(()) };
    let Some(body) = proxy.get("spec") else { return Err(proxy.error("url cannot be empty")) };
    if kind_is(proxy.value(), HTTP_PROXY) { http(&body) } else { sql(&body) }
}

/// Whether the browser is to call the datasource itself, past this server: `plugin.spec.directUrl` is set.
pub fn is_direct(datasource: &Value) -> bool {
    datasource.pointer("/plugin/spec/directUrl").and_then(Value::as_str).is_some_and(|url| !url.is_empty())
}

/// The proxy block of a datasource's `plugin.spec`, at any depth: its kind is `HTTPProxy` or `SQLProxy`.
pub fn find_proxy(plugin_spec: &Value) -> Option<&Map<String, Value>> {
    find(&Node::root("", plugin_spec)).and_then(|node| node.value().as_object())
}

/// Whether the proxy block of a datasource's spec names a secret.
pub(super) fn names_secret(spec: &Value) -> bool {
    let proxy = spec.pointer("/plugin/spec").and_then(find_proxy);
    let secret = proxy.and_then(|proxy| proxy.get("spec")?.get("secret"));
    secret.is_some_and(|secret| !secret.is_null() && secret != "")
}

fn find<'v>(node: &Node<'v>) -> Option<Node<'v>> {
    if kind_is(node.value(), HTTP_PROXY) || kind_is(node.value(), SQL_PROXY) {
        return Some(node.clone());
    }
    node.value().as_object()?.keys().find_map(|key| find(&node.get(key)?))
}

fn kind_is(value: &Value, kind: &str) -> bool {
    value.get("kind").and_then(Value::as_str).is_some_and(|found| found.eq_ignore_ascii_case(kind))
}

fn http(spec: &Node<'_>) -> Result<(), SpecError> {
    spec.object()?;
    let url = spec.required("url", "url cannot be empty")?;
    let parsed = Url::parse(url.str()?).map_err(|error| url.error(format!("not a URL: {error}")))?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(url.error(format!("the scheme must be http or https, not {:?}", parsed.scheme())));
    }
    spec.opt_str("secret")?;
    if let Some(headers) = spec.get("headers") {
        for (_, header) in headers.members()? {
            header.str()?;
        }
    }
    let Some(endpoints) = spec.get("allowedEndpoints") else { return Ok(()) };
    for endpoint in endpoints.elements()? {
        endpoint.object()?;
        let method = endpoint.str_or_empty("method")?;
        if method.is_empty() {
            return Err(endpoint.error("HTTP method cannot be empty"));
        }
        let pattern = endpoint.required("endpointPattern", "HTTP endpoint pattern cannot be empty")?;
        Regex::new(pattern.str()?).map_err(|error| pattern.error(format!("not a regular expression: {error}")))?;
        if !METHODS.contains(&method) {
            return Err(endpoint.error(format!(
                "{method:?} is not a valid http method. Current supported HTTP method: {}",
                METHODS.join(", ")
            )));
        }
    }
    Ok(())
}

fn sql(spec: &Node<'_>) -> Result<(), SpecError> {
    spec.object()?;
    for key in ["host", "database"] {
        if spec.str_or_empty(key)?.is_empty() {
            return Err(spec.error(format!("{key} cannot be empty")));
        }
    }
    let driver = spec.str_or_empty("driver")?;
    if !matches!(driver, "mysql" | "mariadb" | "postgres") {
        return Err(spec.error(format!("unknown driver {driver:?} used (mysql, mariadb or postgres)")));
    }
    spec.opt_str("secret").map(|_| ())
}
