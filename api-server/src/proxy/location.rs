//! What a proxy path says: which datasource, and which path below it. Pure.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

use super::ProxyError;
use crate::domain::document::Key;
use crate::domain::kind::Kind;
use crate::domain::name;
use crate::query::params::escapes_are_complete;

/// A stored datasource, as the path of a request names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DatasourceRef {
    /// `GlobalDatasource`.
    Global {
        /// `metadata.name`.
        name: String,
    },
    /// `Datasource` of a project.
    Project {
        /// The project.
        project: String,
        /// `metadata.name`.
        name: String,
    },
    /// An entry of `spec.datasources` of a dashboard.
    Dashboard {
        /// The project.
        project: String,
        /// The dashboard.
        dashboard: String,
        /// The key in `spec.datasources`.
        name: String,
    },
}

impl DatasourceRef {
    /// The name that messages use.
    pub fn name(&self) -> &str {
        match self {
            Self::Global { name } | Self::Project { name, .. } | Self::Dashboard { name, .. } => name,
        }
    }

    /// The project, of those that have one.
    pub fn project(&self) -> Option<&str> {
        match self {
            Self::Global { .. } => None,
            Self::Project { project, .. } | Self::Dashboard { project, .. } => Some(project),
        }
    }

    /// The document that holds the datasource.
    pub fn document(&self) -> Key {
        match self {
            Self::Global { name } => Key::global(Kind::GlobalDatasource, name),
            Self::Project { project, name } => Key::in_project(Kind::Datasource, project, name),
            Self::Dashboard { project, dashboard, .. } => Key::in_project(Kind::Dashboard, project, dashboard),
        }
    }

    /// The secret that the datasource names: always of its own level.
    pub fn secret(&self, name: &str) -> Key {
        match self.project() {
            None => Key::global(Kind::GlobalSecret, name),
            Some(project) => Key::in_project(Kind::Secret, project, name),
        }
    }
}

impl fmt::Display for DatasourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global { name } => write!(f, "global/{name}"),
            Self::Project { project, name } => write!(f, "project/{project}/{name}"),
            Self::Dashboard { project, dashboard, name } => write!(f, "dashboard/{project}/{dashboard}/{name}"),
        }
    }
}

/// The part of the path below the datasource: empty, or starting with a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubPath {
    raw: String,
    decoded: String,
}

impl SubPath {
    /// Checks a raw (percent-encoded) path. Dot segments are refused in every spelling, since a server behind may resolve
    /// them after we have checked `allowedEndpoints`.
    pub fn parse(raw: &str) -> Result<Self, ProxyError> {
        let error = |reason| ProxyError::Path { path: raw.to_owned(), reason };
        if !raw.is_empty() && !raw.starts_with('/') {
            return Err(error("it must start with a slash"));
        }
        if !escapes_are_complete(raw) {
            return Err(error("a % is not followed by two hexadecimal digits"));
        }
        let plain = percent_decode_str(raw).decode_utf8().map_err(|_| error("it is not UTF-8"))?;
        if plain.chars().any(char::is_control) {
            return Err(error("it has a control character"));
        }
        if raw.contains('\\') {
            return Err(error("it has a backslash"));
        }
        // `;` starts parameters of a segment for some servers: `..;a` is `..` to them.
        let is_dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
        if plain.split(['/', '\\']).any(is_dots) {
            return Err(error("it has a . or .. segment"));
        }
        // An encoded slash is part of a name, not a separator.
        let decoded = raw.split('/').map(decode_segment).collect::<Vec<_>>().join("/");
        Ok(Self { raw: raw.to_owned(), decoded })
    }

    /// The path as it is on the wire.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// The path with its escapes resolved, except encoded slashes: what `allowedEndpoints` is matched with.
    pub fn decoded(&self) -> &str {
        &self.decoded
    }

    /// The path below a base, with the query string as sent.
    pub fn below(&self, base: &Url, query: Option<&str>) -> Url {
        let mut url = base.clone();
        if !self.raw.is_empty() {
            let path = format!("{}{}", base.path().trim_end_matches('/'), self.raw);
            url.set_path(&path);
        }
        let query = match (base.query(), query) {
            (Some(base), Some(query)) if !query.is_empty() => Some(format!("{base}&{query}")),
            (Some(base), _) => Some(base.to_owned()),
            (None, query) => query.map(str::to_owned),
        };
        url.set_query(query.as_deref());
        url
    }
}

/// Where a datasource that is not saved would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Global,
    Project { project: String },
    Dashboard { project: String, dashboard: String },
}

impl Place {
    /// The reference of a datasource of this name there.
    pub(super) fn datasource(self, name: String) -> DatasourceRef {
        match self {
            Self::Global => DatasourceRef::Global { name },
            Self::Project { project } => DatasourceRef::Project { project, name },
            Self::Dashboard { project, dashboard } => DatasourceRef::Dashboard { project, dashboard, name },
        }
    }
}

/// What the path of a proxy request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Located {
    Saved(DatasourceRef, SubPath),
    Unsaved(Place, SubPath),
}

/// Reads the path of a proxy request (from `/proxy/` on); `fold` gives names the letter case of the store.
pub(super) fn locate(path: &str, fold: impl Fn(&str) -> String) -> Result<Located, ProxyError> {
    let rest = path.strip_prefix("/proxy").ok_or(ProxyError::NotFound)?;
    if let Some(rest) = rest.strip_prefix("/unsaved") {
        let mut segments = Segments { rest };
        let place = segments.place(&fold)?;
        return Ok(Located::Unsaved(place, SubPath::parse(segments.rest)?));
    }
    let mut segments = Segments { rest };
    let place = segments.place(&fold)?;
    let name = segments.next()?.into_owned();
    let reference = place.datasource(name);
    let reference = match reference {
        // A key inside a document: its letter case is the document's.
        DatasourceRef::Dashboard { .. } if reference.name().is_empty() => return Err(ProxyError::NotFound),
        DatasourceRef::Dashboard { .. } => reference,
        DatasourceRef::Global { name } => DatasourceRef::Global { name: known(&fold(&name))? },
        DatasourceRef::Project { project, name } => DatasourceRef::Project { project, name: known(&fold(&name))? },
    };
    Ok(Located::Saved(reference, SubPath::parse(segments.rest)?))
}

/// The segments of a path, decoded one by one.
struct Segments<'a> {
    rest: &'a str,
}

impl<'a> Segments<'a> {
    fn next(&mut self) -> Result<Cow<'a, str>, ProxyError> {
        let text = self.rest.strip_prefix('/').ok_or(ProxyError::NotFound)?;
        let end = text.find('/').unwrap_or(text.len());
        self.rest = &text[end..];
        percent_decode_str(&text[..end]).decode_utf8().map_err(|_| ProxyError::NotFound)
    }

    /// `globaldatasources`, `projects/P/datasources` or `projects/P/dashboards/D/datasources`.
    fn place(&mut self, fold: impl Fn(&str) -> String) -> Result<Place, ProxyError> {
        match self.next()?.as_ref() {
            "globaldatasources" => Ok(Place::Global),
            "projects" => {
                let project = known(&fold(&self.next()?))?;
                match self.next()?.as_ref() {
                    "datasources" => Ok(Place::Project { project }),
                    "dashboards" => {
                        let dashboard = known(&fold(&self.next()?))?;
                        if self.next()? != "datasources" {
                            return Err(ProxyError::NotFound);
                        }
                        Ok(Place::Dashboard { project, dashboard })
                    }
                    _ => Err(ProxyError::NotFound),
                }
            }
            _ => Err(ProxyError::NotFound),
        }
    }
}

/// A name that a document could have.
fn known(name: &str) -> Result<String, ProxyError> {
    name::validate(name).map(|()| name.to_owned()).map_err(|_| ProxyError::NotFound)
}

fn decode_segment(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    let mut parts = split_encoded_slashes(segment).peekable();
    while let Some((part, slash)) = parts.next() {
        out.push_str(&percent_decode_str(part).decode_utf8_lossy());
        if parts.peek().is_some() {
            out.push_str(slash);
        }
    }
    out
}

/// The pieces between `%2F`, each with the escape that ends it.
fn split_encoded_slashes(segment: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = Some(segment);
    std::iter::from_fn(move || {
        let text = rest?;
        let found = text.as_bytes().windows(3).position(|escape| escape.eq_ignore_ascii_case(b"%2f"));
        if let Some(at) = found {
            rest = Some(&text[at + 3..]);
            Some((&text[..at], &text[at..at + 3]))
        } else {
            rest = None;
            Some((text, ""))
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn below(base: &str, raw: &str, query: Option<&str>) -> String {
        SubPath::parse(raw).unwrap().below(&Url::parse(base).unwrap(), query).to_string()
    }

    #[test]
    fn joins_base_path_and_query() {
        for (base, raw, query, expected) in [
            ("http://p:9090", "/api/v1/query", Some("query=up%20or+1"), "http://p:9090/api/v1/query?query=up%20or+1"),
            ("http://p:9090/", "", None, "http://p:9090/"),
            ("http://p/base/", "/api", None, "http://p/base/api"),
            ("http://p/base", "", Some("a=b"), "http://p/base?a=b"),
            ("http://p/base", "/", None, "http://p/base/"),
            ("http://p/base?token=x", "/api", Some("a=b"), "http://p/base/api?token=x&a=b"),
            ("http://p/base?token=x", "/api", None, "http://p/base/api?token=x"),
            ("http://p", "/label/a%2Fb/values", None, "http://p/label/a%2Fb/values"),
            ("http://p", "/a//b", None, "http://p/a//b"),
            ("http://p", "/a%20b", None, "http://p/a%20b"),
            ("http://p", "/a/...", None, "http://p/a/..."),
        ] {
            assert_eq!(below(base, raw, query), expected);
        }
    }

    #[test]
    fn finds_datasource_and_path() {
        let found = |path: &str| match locate(path, str::to_lowercase) {
            Ok(Located::Saved(reference, sub)) => Ok((reference.to_string(), sub.raw)),
            Ok(Located::Unsaved(place, sub)) => Ok((place.datasource("?".to_owned()).to_string(), sub.raw)),
            Err(error) => Err(error.to_string()),
        };
        for (path, reference, sub) in [
            ("/proxy/globaldatasources/Prom", "global/prom", ""),
            ("/proxy/globaldatasources/prom/", "global/prom", "/"),
            ("/proxy/globaldatasources/prom/api/v1/query", "global/prom", "/api/v1/query"),
            ("/proxy/projects/P/datasources/D%2D1/x/y", "project/p/d-1", "/x/y"),
            ("/proxy/projects/p/dashboards/B/datasources/Local/x", "dashboard/p/b/Local", "/x"),
            ("/proxy/unsaved/globaldatasources", "global/?", ""),
            ("/proxy/unsaved/globaldatasources/api/v1/query", "global/?", "/api/v1/query"),
            ("/proxy/unsaved/projects/P/datasources/", "project/p/?", "/"),
            ("/proxy/unsaved/projects/p/dashboards/B/datasources/x", "dashboard/p/b/?", "/x"),
        ] {
            assert_eq!(found(path), Ok((reference.to_owned(), sub.to_owned())), "{path}");
        }
        for path in [
            "/proxy",
            "/proxy/",
            "/proxy/globaldatasources",
            "/proxy/globaldatasources/",
            "/proxy/globaldatasources//x",
            "/proxy/other/a",
            "/proxy/unsaved",
            "/proxy/unsavedglobaldatasources/a",
            "/proxy/unsaved/projects/../datasources/x",
            "/proxy/projects/p/datasources",
            "/proxy/projects/p/folders/d",
            "/proxy/projects/p/dashboards/b/x/d",
            "/proxy/projects/../datasources/d",
            "/proxy/projects/%2e%2e/datasources/d",
            "/proxy/globaldatasources/a%2fb/x",
            "/proxy/globaldatasources/%ff/x",
        ] {
            assert_eq!(found(path), Err(ProxyError::NotFound.to_string()), "{path}");
        }
        assert!(found("/proxy/globaldatasources/prom/../../x").unwrap_err().contains("segment"));
    }

    #[test]
    fn refuses_what_could_leave_the_base_path() {
        for raw in [
            "/..",
            "/../admin",
            "/a/../b",
            "/a/..",
            "/.",
            "/a/./b",
            "/%2e%2e/admin",
            "/%2E./admin",
            "/.%2e",
            "/a%2f..%2fb",
            "/a%2f%2e%2e%2fb",
            "/..%5cadmin",
            "/a\\..\\b",
            "/..;/admin",
            "/..;x=1/admin",
            "/%2e%2e%3b/admin",
            "/a%00b",
            "/a%0d%0aX",
            "/a%zz",
            "/a%2",
            "/%ff",
            "api",
        ] {
            assert!(matches!(SubPath::parse(raw), Err(ProxyError::Path { .. })), "{raw}");
        }
    }

    #[test]
    fn encoded_slashes_stay_encoded_for_matching() {
        assert_eq!(SubPath::parse("/label/a%2Fb%20c/v%C3%A4lues").unwrap().decoded(), "/label/a%2Fb c/välues");
        assert_eq!(SubPath::parse("/%61pi").unwrap().decoded(), "/api");
    }

    proptest! {
        /// Whatever is accepted stays below the base path, also for a server that decodes and resolves once more.
        #[test]
        fn never_escapes(raw in "/([a-z./;%\\\\]|%2[eEfF]|%5[cC]|%3[bB]){0,24}") {
            if let Ok(sub_path) = SubPath::parse(&raw) {
                let url = sub_path.below(&Url::parse("http://host/base/dir").unwrap(), None);
                prop_assert!(url.path().starts_with("/base/dir/"), "{raw} -> {url}");
                let decoded = percent_decode_str(url.path()).decode_utf8().unwrap().into_owned();
                let resolved = Url::parse("http://host/").unwrap().join(&decoded.replace('\\', "/").replace('%', "%25"));
                if let Ok(resolved) = resolved && !decoded.starts_with("//") {
                    prop_assert!(resolved.path().starts_with("/base/dir/"), "{raw} -> {resolved}");
                }
            }
        }
    }
}
