//! A datasource that is not saved: the body of the request carries its spec, and the request that is meant for it (reference:
//! Perses v0.54, `POST /proxy/unsaved/...`). Pure.

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::ProxyError;

/// The name in messages of a datasource that gives itself none.
const NAMELESS: &str = "unsaved-datasource";

/// What the body says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unsaved {
    /// `spec.display.name`, for messages.
    pub(super) name: String,
    /// Method of the request to the datasource.
    pub(super) method: Method,
    /// Its body.
    pub(super) body: Bytes,
    /// Spec of the datasource.
    pub(super) spec: Value,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    method: String,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    spec: Value,
}

/// Reads the body.
pub(super) fn parse(body: &[u8]) -> Result<Unsaved, ProxyError> {
    let wrong = |text: String| ProxyError::Body(text);
    // The text of a serde error may quote a value, and a value may be a password in a URL: say only where.
    let raw: Raw = serde_json::from_slice(body).map_err(|error| {
        wrong(format!("it is no {{method, body, spec}}: see line {}, column {}", error.line(), error.column()))
    })?;
    let method = match raw.method.as_str() {
        "" => return Err(wrong("missing field 'method'".to_owned())),
        "GET" => Method::GET,
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "DELETE" => Method::DELETE,
        other => return Err(wrong(format!("invalid method {other:?}: it must be GET, POST, PUT or DELETE"))),
    };
    let body = match raw.body {
        None => Bytes::new(),
        Some(text) => {
            STANDARD.decode(text).map(Bytes::from).map_err(|_| wrong("the field 'body' is not base64".to_owned()))?
        }
    };
    let name = raw.spec.get("display").and_then(|display| display.get("name")).and_then(Value::as_str);
    let name = name.filter(|name| !name.is_empty()).unwrap_or(NAMELESS).to_owned();
    Ok(Unsaved { name, method, body, spec: raw.spec })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_method_body_and_name() {
        let read = |value: Value| parse(value.to_string().as_bytes()).unwrap();
        let full = read(json!({"method": "POST", "body": "YT1i", "spec": {"display": {"name": "mine"}}}));
        assert_eq!((full.method, full.body.as_ref(), full.name.as_str()), (Method::POST, b"a=b".as_slice(), "mine"));
        let short = read(json!({"method": "GET", "body": null, "spec": {}}));
        assert_eq!((short.method, short.body.len(), short.name.as_str()), (Method::GET, 0, NAMELESS));
    }

    #[test]
    fn says_what_is_wrong_and_quotes_nothing() {
        for (body, part) in [
            ("", "line 1"),
            ("5", "line 1"),
            ("{}", "method"),
            (r#"{"method":"PATCH"}"#, "PATCH"),
            (r#"{"method":"get"}"#, "get"),
            (r#"{"method":"GET","body":"?"}"#, "base64"),
            (r#"{"method":"GET","body":{"a":"hunter2"}}"#, "line 1"),
        ] {
            let error = parse(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("hunter2"), "{body}: {error}");
        }
    }
}
