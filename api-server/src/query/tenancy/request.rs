//! A request to a datasource with tenancy: what may be asked at all, and its parameters with the matchers in them. Pure.

use std::sync::Arc;

use axum::http::Method;

use super::{Limited, Matchers, Refused};
use crate::config::Tenancy;
use crate::query::params::Params;

/// Paths that show no data of anybody.
const OPEN: [&str; 5] =
    ["/-/healthy", "/-/ready", "/api/v1/format_query", "/api/v1/parse_query", "/api/v1/status/buildinfo"];
const QUERY: &str = "query";
const MATCH: &str = "match[]";
/// The type of parameters in a body.
const FORM: &str = "application/x-www-form-urlencoded";

/// What came.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path below the datasource, as it is on the wire.
    pub path: &'a str,
    /// The query string.
    pub query_string: Option<&'a str>,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
}

/// What goes on: the parameters where they were, in the query string of a GET or in the form of a POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    /// All parameters, encoded.
    pub parameters: String,
    /// The queries among them.
    pub queries: Vec<Arc<Limited>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    /// A PromQL expression in `query`.
    Expression,
    /// Selectors in `match[]`: at least one.
    Series,
    /// Selectors in `match[]`, or none for everything.
    Names,
    /// Nothing that is anybody's.
    Open,
}

/// Limits a request; `limit` is [`super::limit`], maybe remembered.
pub fn rewrite(
    asked: &Asked<'_>,
    rule: &Tenancy,
    within: &Matchers,
    limit: impl Fn(&str, &Matchers) -> Result<Arc<Limited>, String>,
) -> Result<Rewritten, Refused> {
    let call = call(asked, rule)?;
    let form = match *asked.method {
        Method::POST if is_form(asked.content_type) => Some(asked.body),
        Method::POST if asked.body.is_empty() => None,
        Method::POST => return Err(bad("the parameters of a POST must be a form", &format!("(Content-Type: {FORM})"))),
        _ if asked.body.is_empty() => None,
        _ => return Err(bad("a GET has no body here", "put the parameters into the query string")),
    };
    if call == Call::Open {
        let form = form.map(std::str::from_utf8).transpose().map_err(|_| undecodable())?;
        let both = [form, asked.query_string].into_iter().flatten().filter(|text| !text.is_empty());
        return Ok(Rewritten { parameters: both.collect::<Vec<_>>().join("&"), queries: Vec::new() });
    }
    let pairs = Params::parse(asked.query_string, form).ok_or_else(undecodable)?.into_pairs();
    let mut queries = Vec::new();
    let mut selectors = 0;
    let mut parameters = form_urlencoded::Serializer::new(String::new());
    for (name, value) in &pairs {
        let value = match name.as_str() {
            QUERY | MATCH => {
                let limited = limit(value, within).map_err(|reason| not_limited(name, &reason))?;
                if name == MATCH {
                    selectors += 1;
                    if !limited.is_selector {
                        return Err(not_limited(name, "it must be a selector of series and nothing else"));
                    }
                }
                parameters.append_pair(name, limited.text());
                queries.push(limited);
                continue;
            }
            // Some datasources take it for `match[]`.
            "match" => return Err(bad("parameter \"match\" is not known", "write match[]")),
            _ => value,
        };
        parameters.append_pair(name, value);
    }
    match call {
        Call::Series if selectors == 0 => return Err(Refused::BadData("no match[] parameter provided".to_owned())),
        Call::Names if selectors == 0 => {
            parameters.append_pair(MATCH, &within.selector());
        }
        _ => {}
    }
    Ok(Rewritten { parameters: parameters.finish(), queries })
}

/// What is asked for, by exactly this path: another spelling may be another thing to us than to who answers it.
fn call(asked: &Asked<'_>, rule: &Tenancy) -> Result<Call, Refused> {
    let Asked { method, path, .. } = *asked;
    let (is_get, is_post) = (method == Method::GET, method == Method::POST);
    let call = match path {
        "/api/v1/query" | "/api/v1/query_range" | "/api/v1/query_exemplars" => {
            (is_get || is_post).then_some(Call::Expression)
        }
        "/api/v1/series" => (is_get || is_post).then_some(Call::Series),
        "/api/v1/labels" => (is_get || is_post).then_some(Call::Names),
        path if is_label_values(path) => is_get.then_some(Call::Names),
        path if OPEN.contains(&path) => (is_get || is_post && path.ends_with("_query")).then_some(Call::Open),
        path => (is_get && rule.open_paths.iter().any(|open| open == path)).then_some(Call::Open),
    };
    call.ok_or_else(|| {
        Refused::Forbidden(format!(
            "{method} {path} is not let through: this datasource shows each project its own data (query.datasources[].tenancy), \
             and what it answers there cannot be limited. Served are query, query_range, query_exemplars, series, labels, \
             label/<name>/values below /api/v1, {} and open_paths of the rule",
            OPEN.join(", ")
        ))
    })
}

fn is_label_values(path: &str) -> bool {
    let name = path.strip_prefix("/api/v1/label/").and_then(|rest| rest.strip_suffix("/values"));
    name.is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

fn is_form(content_type: Option<&str>) -> bool {
    let kind = content_type.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case(FORM)
}

fn bad(what: &str, instead: &str) -> Refused {
    Refused::BadData(format!(
        "{what}: this datasource shows each project its own data (query.datasources[].tenancy); {instead}"
    ))
}

fn undecodable() -> Refused {
    bad("the parameters cannot be decoded for certain", "encode them as a form, in UTF-8, without ';'")
}

fn not_limited(name: &str, reason: &str) -> Refused {
    bad(&format!("invalid parameter {name:?}: {reason}"), "what is not understood is not let through")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Asker, limit, of};
    use super::*;

    fn rewritten(method: &str, path: &str, query_string: &str, body: &str) -> Result<String, Refused> {
        let rule = json!({"labels": [{"label": "ns", "values": ["a"]}], "open_paths": ["/api/v1/metadata"]});
        let rule: Tenancy = serde_json::from_value(rule).unwrap();
        let within = of(&rule, &Asker::default()).unwrap();
        let method = method.parse().unwrap();
        let asked = Asked {
            method: &method,
            path,
            query_string: Some(query_string),
            content_type: (!body.is_empty()).then_some("application/x-www-form-urlencoded; charset=utf-8"),
            body: body.as_bytes(),
        };
        let limit = |query: &str, within: &Matchers| limit(query, within).map(Arc::new);
        let rewritten = rewrite(&asked, &rule, &within, limit)?;
        let pairs = form_urlencoded::parse(rewritten.parameters.as_bytes());
        Ok(pairs.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn every_spelling_of_a_parameter_is_limited() {
        for (method, path, query_string, body, expected) in [
            ("GET", "query", "query=up&time=1", "", "query up{ns=~\"a\"}; time 1"),
            ("GET", "query", "%71uery=up", "", "query up{ns=~\"a\"}"),
            // The body comes first, as Prometheus reads it.
            ("POST", "query", "query=other&x=%2B", "query=up", "query up{ns=~\"a\"}; query other{ns=~\"a\"}; x +"),
            ("POST", "query_range", "query=up", "", "query up{ns=~\"a\"}"),
            ("GET", "query", "query=up&query=down", "", "query up{ns=~\"a\"}; query down{ns=~\"a\"}"),
            ("GET", "query_exemplars", "query=sum(up)", "", "query sum(up{ns=~\"a\"})"),
            ("GET", "query", "query=1", "", "query 1"),
            (
                "GET",
                "series",
                "match[]=up&match%5B%5D={b=\"c\"}",
                "",
                "match[] up{ns=~\"a\"}; match[] {ns=~\"a\",b=\"c\"}",
            ),
            ("POST", "series", "", "match%5b%5d=up", "match[] up{ns=~\"a\"}"),
            ("GET", "labels", "start=1", "", "start 1; match[] {ns=~\"a\"}"),
            ("POST", "labels", "", "limit=1", "limit 1; match[] {ns=~\"a\"}"),
            ("GET", "label/ns/values", "", "", "match[] {ns=~\"a\"}"),
            ("GET", "label/__name__/values", "match[]=up", "", "match[] up{ns=~\"a\"}"),
            ("GET", "status/buildinfo", "", "", ""),
            ("POST", "format_query", "", "query=up", "query up"),
            ("GET", "metadata", "metric=up", "", "metric up"),
        ] {
            let found = rewritten(method, &format!("/api/v1/{path}"), query_string, body);
            assert_eq!(found.as_deref(), Ok(expected), "{method} {path} {query_string} {body}");
        }
    }

    #[test]
    fn other_paths_and_methods_are_not_let_through() {
        for (method, path) in [
            ("GET", ""),
            ("GET", "/"),
            ("GET", "/api/v1/query/"),
            ("GET", "/api/v1//query"),
            ("GET", "//api/v1/query"),
            ("GET", "/API/v1/query"),
            ("GET", "/api/v2/query"),
            ("GET", "/api/v1/Query"),
            ("GET", "/api/v1/%71uery"),
            ("GET", "/api/v1/query;x"),
            ("GET", "/x/api/v1/query"),
            ("PUT", "/api/v1/query"),
            ("HEAD", "/api/v1/query"),
            ("DELETE", "/api/v1/series"),
            ("POST", "/api/v1/label/ns/values"),
            ("GET", "/api/v1/label//values"),
            ("GET", "/api/v1/label/a/b/values"),
            ("GET", "/api/v1/label/a%2Fb/values"),
            ("GET", "/api/v1/label/a/values/"),
            ("GET", "/api/v1/rules"),
            ("GET", "/api/v1/alerts"),
            ("GET", "/api/v1/targets"),
            ("GET", "/api/v1/targets/metadata"),
            ("GET", "/api/v1/status/config"),
            ("GET", "/api/v1/status/tsdb"),
            ("POST", "/api/v1/read"),
            ("POST", "/api/v1/write"),
            ("POST", "/api/v1/metadata"),
            ("POST", "/api/v1/admin/tsdb/delete_series"),
            ("GET", "/federate"),
            ("GET", "/graph"),
            ("GET", "/metrics"),
        ] {
            let found = rewritten(method, path, "query=up&match[]=up", "");
            assert!(matches!(&found, Err(Refused::Forbidden(_))), "{method} {path}: {found:?}");
        }
    }

    #[test]
    fn what_cannot_be_limited_for_certain_is_refused() {
        for (method, path, query_string, body) in [
            ("GET", "query", "query=", ""),
            ("GET", "query", "query=up{", ""),
            ("GET", "query", "query=up%ff", ""),
            ("GET", "query", "query=up;x=1", ""),
            ("GET", "query", "query=up", "query=up"),
            ("GET", "series", "", ""),
            ("GET", "series", "match=up", ""),
            ("GET", "series", "match[]=up%20offset%205m", ""),
            ("GET", "series", "match[]=(up)", ""),
            ("GET", "series", "match[]=up[5m]", ""),
            ("GET", "series", "match[]=up&match[]=1", ""),
            ("GET", "labels", "match[]=", ""),
        ] {
            let found = rewritten(method, &format!("/api/v1/{path}"), query_string, body);
            assert!(matches!(&found, Err(Refused::BadData(_))), "{method} {path} {query_string} {body}: {found:?}");
        }
        let rule: Tenancy = serde_json::from_value(json!({"labels": [{"label": "ns", "values": ["a"]}]})).unwrap();
        let within = of(&rule, &Asker::default()).unwrap();
        let never = |_: &str, _: &Matchers| -> Result<Arc<Limited>, String> { panic!("nothing to limit") };
        for kind in [None, Some("multipart/form-data; boundary=x"), Some("application/json"), Some("text/plain")] {
            let path = "/api/v1/query";
            let asked =
                Asked { method: &Method::POST, path, query_string: None, content_type: kind, body: b"query=up" };
            assert!(matches!(rewrite(&asked, &rule, &within, never), Err(Refused::BadData(_))), "{kind:?}");
        }
    }
}
