//! The `HTTPProxy` inside a datasource's plugin spec (reference: Perses v0.54 `DatasourceSpec`). Pure.

use axum::http::Method;
use axum::http::header::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::headers;
use super::location::SubPath;

/// Plugin kind of Prometheus datasources.
const PROMETHEUS: &str = "PrometheusDatasource";

/// What a stored datasource says about proxying.
#[derive(Debug, Clone)]
pub(super) struct HttpProxy {
    /// Where to; without user, password and fragment.
    pub(super) url: Url,
    /// Empty means everything.
    pub(super) allowed: Vec<AllowedEndpoint>,
    /// Headers to set; the user and password of the URL are among them.
    pub(super) headers: HeaderMap,
    /// Name of the secret of the same level.
    pub(super) secret: Option<String>,
    /// Whether the query service may serve it.
    pub(super) is_prometheus: bool,
}

/// One entry of `allowedEndpoints`.
#[derive(Debug, Clone)]
pub(super) struct AllowedEndpoint {
    pattern: Regex,
    method: Method,
}

/// Why a datasource cannot be proxied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SpecError {
    /// No `HTTPProxy` inside.
    #[error("there is no HTTPProxy in its plugin spec")]
    NoProxy,
    /// A proxy of another kind.
    #[error("its plugin spec has an SQLProxy, which this server does not serve: only HTTPProxy is")]
    SqlProxy,
    /// Something inside is wrong.
    #[error("{0}")]
    Invalid(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawProxy {
    url: String,
    #[serde(default)]
    allowed_endpoints: Option<Vec<RawEndpoint>>,
    #[serde(default)]
    headers: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    secret: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEndpoint {
    endpoint_pattern: String,
    method: String,
}

impl HttpProxy {
    /// Reads a datasource spec (`{default, plugin: {kind, spec}}`).
    pub(super) fn parse(spec: &Value) -> Result<Self, SpecError> {
        let plugin = spec.get("plugin").unwrap_or(&Value::Null);
        let is_prometheus = plugin.get("kind").and_then(Value::as_str) == Some(PROMETHEUS);
        let found = find_proxy(plugin.get("spec").unwrap_or(&Value::Null)).ok_or(SpecError::NoProxy)?;
        let (kind, proxy) = found;
        if kind.eq_ignore_ascii_case("SQLProxy") {
            return Err(SpecError::SqlProxy);
        }
        let raw = RawProxy::deserialize(proxy)
            .map_err(|error| SpecError::Invalid(format!("the spec of its HTTPProxy is not as expected: {error}")))?;
        let (url, authorization) = parse_url(&raw.url)?;
        let mut headers = HeaderMap::new();
        for (name, value) in raw.headers.unwrap_or_default() {
            let (name, value) = parse_header(&name, &value)?;
            if headers::is_configurable(&name) {
                headers.insert(name, value);
            }
        }
        if let Some(authorization) = authorization {
            headers.insert(axum::http::header::AUTHORIZATION, authorization);
        }
        let allowed =
            raw.allowed_endpoints.unwrap_or_default().iter().map(AllowedEndpoint::parse).collect::<Result<_, _>>()?;
        Ok(Self { url, allowed, headers, secret: raw.secret.filter(|name| !name.is_empty()), is_prometheus })
    }

    /// Whether the datasource lets this request through.
    pub(super) fn allows(&self, method: &Method, path: &SubPath) -> bool {
        self.allowed.is_empty()
            || self.allowed.iter().any(|entry| entry.method == *method && entry.pattern.is_match(path.decoded()))
    }
}

impl AllowedEndpoint {
    fn parse(raw: &RawEndpoint) -> Result<Self, SpecError> {
        let pattern = Regex::new(&raw.endpoint_pattern).map_err(|_| {
            SpecError::Invalid(format!("allowedEndpoints: {:?} is not a regular expression", raw.endpoint_pattern))
        })?;
        let method = Method::from_bytes(raw.method.to_ascii_uppercase().as_bytes())
            .map_err(|_| SpecError::Invalid(format!("allowedEndpoints: {:?} is not a method", raw.method)))?;
        Ok(Self { pattern, method })
    }
}

/// The first object, depth first, whose `kind` is a proxy's; with its `spec`.
fn find_proxy(value: &Value) -> Option<(&str, &Value)> {
    match value {
        Value::Object(map) => {
            if let Some(kind) = map.get("kind").and_then(Value::as_str)
                && (kind.eq_ignore_ascii_case("HTTPProxy") || kind.eq_ignore_ascii_case("SQLProxy"))
            {
                return Some((kind, map.get("spec").unwrap_or(&Value::Null)));
            }
            map.values().find_map(find_proxy)
        }
        Value::Array(items) => items.iter().find_map(find_proxy),
        _ => None,
    }
}

fn parse_url(text: &str) -> Result<(Url, Option<HeaderValue>), SpecError> {
    // The text itself may hold a password: it is not repeated.
    let mut url =
        Url::parse(text).map_err(|error| SpecError::Invalid(format!("the url of its HTTPProxy is wrong: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(SpecError::Invalid(
            "the url of its HTTPProxy must start with http:// or https:// and name a host".into(),
        ));
    }
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, password) = (decode(url.username()), decode(url.password().unwrap_or_default()));
    let authorization = if user.is_empty() && password.is_empty() { None } else { Some(basic(&user, &password)?) };
    // Neither can fail: the URL has a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    Ok((url, authorization))
}

fn parse_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), SpecError> {
    let parsed = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
    let (name, mut value) =
        parsed.ok_or_else(|| SpecError::Invalid(format!("headers: {name:?} or its value is no HTTP header")))?;
    // An API key as likely as not: keep it out of debug output.
    value.set_sensitive(true);
    Ok((name, value))
}

/// The value of an `Authorization` header for basic authentication.
pub(super) fn basic(user: &str, password: &str) -> Result<HeaderValue, SpecError> {
    let text = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| SpecError::Invalid("the user or password cannot be sent".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(proxy: &Value) -> Value {
        json!({"default": true, "plugin": {"kind": "PrometheusDatasource", "spec": {"proxy": proxy}}})
    }

    #[test]
    fn finds_the_proxy_wherever_it_is() {
        let proxy = json!({"kind": "httpproxy", "spec": {"url": "http://u:p%40@prom:9090/base#x", "secret": "s"}});
        for spec in
            [spec(&proxy), json!({"plugin": {"kind": "Tempo", "spec": {"a": [{"b": 1}, {"deep": {"er": proxy}}]}}})]
        {
            let found = HttpProxy::parse(&spec).unwrap();
            assert_eq!(found.url.as_str(), "http://prom:9090/base");
            assert_eq!(found.headers["authorization"], "Basic dTpwQA==");
            assert_eq!(found.secret.as_deref(), Some("s"));
            assert_eq!(found.is_prometheus, spec["plugin"]["kind"] == "PrometheusDatasource");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let parse = |value: Value| HttpProxy::parse(&value).unwrap_err();
        assert_eq!(parse(json!({"plugin": {"kind": "X", "spec": {"directUrl": "http://p"}}})), SpecError::NoProxy);
        assert_eq!(parse(json!({})), SpecError::NoProxy);
        assert_eq!(parse(spec(&json!({"kind": "SQLProxy", "spec": {}}))), SpecError::SqlProxy);
        for broken in [
            json!({"kind": "HTTPProxy"}),
            json!({"kind": "HTTPProxy", "spec": {"url": "ftp://p"}}),
            json!({"kind": "HTTPProxy", "spec": {"url": "prom:9090"}}),
            json!({"kind": "HTTPProxy", "spec": {"url": "http://p", "headers": {"a b": "c"}}}),
            json!({"kind": "HTTPProxy", "spec": {"url": "http://p", "allowedEndpoints": [{"endpointPattern": "(", "method": "GET"}]}}),
        ] {
            assert!(matches!(parse(spec(&broken)), SpecError::Invalid(_)), "{broken}");
        }
        let error = parse(spec(&json!({"kind": "HTTPProxy", "spec": {"url": "http://user:hunter2@"}}))).to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn configured_headers_without_those_of_the_connection() {
        let proxy = json!({"kind": "HTTPProxy", "spec": {"url": "http://p", "headers":
            {"X-Scope-OrgID": "team", "Authorization": "Bearer x", "Connection": "close", "Host": "h"}}});
        let found = HttpProxy::parse(&spec(&proxy)).unwrap();
        assert_eq!(found.headers.len(), 1);
        assert_eq!(found.headers["x-scope-orgid"], "team");
    }

    #[test]
    fn allowed_endpoints_need_method_and_unanchored_pattern() {
        let proxy = json!({"kind": "HTTPProxy", "spec": {"url": "http://p", "allowedEndpoints": [
            {"endpointPattern": "/api/v1/query", "method": "post"}, {"endpointPattern": "^/api/v1/labels$", "method": "GET"}]}});
        let found = HttpProxy::parse(&spec(&proxy)).unwrap();
        let allows = |method: Method, path: &str| found.allows(&method, &SubPath::parse(path).unwrap());
        assert!(allows(Method::POST, "/api/v1/query_range"));
        assert!(allows(Method::POST, "/api/v1/%71uery"));
        assert!(allows(Method::GET, "/api/v1/labels"));
        assert!(!allows(Method::GET, "/api/v1/query"));
        assert!(!allows(Method::POST, "/api/v1/labels"));
        assert!(!allows(Method::GET, "/x/api/v1/labels"));
        assert!(!allows(Method::POST, "/admin%2Fapi%2Fv1%2Fquery"));
    }
}
