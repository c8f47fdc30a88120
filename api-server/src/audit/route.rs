//! What a request is about, by its method and route alone. Pure.

use axum::http::Method;
use percent_encoding::percent_decode_str;

use crate::domain::audit::{Verb, capped};
use crate::domain::kind::Kind;

/// What a request does, and to what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What is done.
    pub verb: Verb,
    /// The kind of document, where there is one.
    pub kind: Option<Kind>,
    /// Its project.
    pub project: Option<String>,
    /// Its name; for what is no document the route.
    pub name: Option<String>,
}

/// Routes that only read or pass on, whatever their method: the datasource has its own log of what it is asked.
const READING: [&str; 6] = [
    "/proxy/",
    "/api/validate/",
    "/api/migrate",
    "/api/v1/view",
    "/api/v1/query/explain",
    "/api/v1/projects/{project}/dashboards/{name}/query",
];

/// The subject of a request, or `None` when it changes nothing. `route` is the matched route and `path` the raw path, both
/// without the prefix of the API. What is not known to be reading counts as a change, so that nothing new is left out.
pub fn subject(method: &Method, route: &str, path: &str) -> Option<Subject> {
    let plain = |verb| Some(Subject { verb, kind: None, project: None, name: None });
    if route.starts_with("/api/auth/") {
        let is_provider = route.starts_with("/api/auth/providers/");
        return if is_provider && ["/callback", "/token", "/native/login"].iter().any(|end| route.ends_with(end)) {
            plain(Verb::SignIn)
        } else if route == "/api/auth/refresh" {
            plain(Verb::Refresh)
        } else if method.is_safe() || route.ends_with("/device/code") {
            // The beginning of a sign-in elsewhere, and its end in the browser.
            None
        } else {
            other(method, route)
        };
    }
    if method.is_safe() || READING.iter().any(|reading| route.starts_with(reading)) {
        return None;
    }
    let verb = match method.as_str() {
        "POST" => Verb::Create,
        "PUT" => Verb::Update,
        "DELETE" => Verb::Delete,
        _ => Verb::Other,
    };
    let Some(rest) = route.strip_prefix("/api/v1/") else { return other(method, route) };
    let parts: Vec<&str> = rest.split('/').collect();
    let part = |wanted: &str| {
        let at = route.split('/').position(|part| part == wanted)?;
        let raw = path.split('/').nth(at)?;
        Some(capped(&percent_decode_str(raw).decode_utf8_lossy()))
    };
    let (["projects", "{project}", plural]
    | ["projects", "{project}", plural, "{name}"]
    | [plural]
    | [plural, "{name}"]) = parts.as_slice()
    else {
        return other(method, route);
    };
    match Kind::ALL.into_iter().find(|kind| kind.plural() == *plural) {
        Some(kind) => Some(Subject::of_kind(verb, kind, part("{project}"), part("{name}"))),
        None => other(method, route),
    }
}

#[allow(clippy::unnecessary_wraps, reason = "one of several answers of `subject`")]
fn other(method: &Method, route: &str) -> Option<Subject> {
    Some(Subject { verb: Verb::Other, kind: None, project: None, name: Some(format!("{method} {route}")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, route: &str, path: &str) -> Option<Subject> {
        subject(&method.parse().unwrap(), route, path)
    }

    fn about(verb: Verb, kind: Option<Kind>, project: Option<&str>, name: Option<&str>) -> Subject {
        Subject { verb, kind, project: project.map(str::to_owned), name: name.map(str::to_owned) }
    }

    #[test]
    fn documents_are_named_by_the_path() {
        let item = "/api/v1/projects/{project}/dashboards/{name}";
        assert_eq!(
            of("PUT", item, "/api/v1/projects/a/dashboards/b%20c"),
            Some(about(Verb::Update, Some(Kind::Dashboard), Some("a"), Some("b c")))
        );
        assert_eq!(of("GET", item, "/api/v1/projects/a/dashboards/b"), None);
        assert_eq!(
            of("POST", "/api/v1/projects/{project}/roles", "/api/v1/projects/a/roles"),
            Some(about(Verb::Create, Some(Kind::Role), Some("a"), None))
        );
        assert_eq!(
            of("DELETE", "/api/v1/projects/{name}", "/api/v1/projects/a"),
            Some(about(Verb::Delete, Some(Kind::Project), None, Some("a")))
        );
        assert_eq!(
            of("POST", "/api/v1/users", "/api/v1/users"),
            Some(about(Verb::Create, Some(Kind::User), None, None))
        );
    }

    #[test]
    fn sign_ins_count_and_reading_does_not() {
        let verb = |method, route: &str| of(method, route, route).map(|found| found.verb);
        assert_eq!(verb("POST", "/api/auth/providers/native/login"), Some(Verb::SignIn));
        assert_eq!(verb("GET", "/api/auth/providers/oidc/{slug}/callback"), Some(Verb::SignIn));
        assert_eq!(verb("POST", "/api/auth/providers/oidc/{slug}/token"), Some(Verb::SignIn));
        assert_eq!(verb("GET", "/api/auth/providers/oidc/{slug}/login"), None);
        assert_eq!(verb("POST", "/api/auth/refresh"), Some(Verb::Refresh));
        assert_eq!(verb("POST", "/proxy/globaldatasources/{name}/{*path}"), None);
        assert_eq!(verb("POST", "/api/validate/dashboards"), None);
        assert_eq!(verb("POST", "/api/v1/view"), None);
        assert_eq!(verb("POST", "/api/v1/query/explain"), None);
        assert_eq!(verb("POST", "/api/v1/projects/{project}/dashboards/{name}/query"), None);
    }

    #[test]
    fn what_is_not_known_is_not_left_out() {
        assert_eq!(
            of("POST", "/api/v1/cache/flush", "/api/v1/cache/flush"),
            Some(about(Verb::Other, None, None, Some("POST /api/v1/cache/flush")))
        );
        assert!(of("PATCH", "/api/v1/new", "/api/v1/new").is_some());
    }
}
