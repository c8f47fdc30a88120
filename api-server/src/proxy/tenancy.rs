//! Tenancy at the proxy: whose data a caller may see, and the request that asks for no other ([`crate::query::tenancy`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::uri::PathAndQuery;
use axum::http::{Method, Request, Uri};
use parking_lot::Mutex;

use super::headers::is_neutral;
use super::location::SubPath;
use super::service::FORM;
use super::targets::Target;
use crate::auth::authorize::Reach;
use crate::config::Tenancy;
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::intake;
use crate::query::QueryService;
use crate::query::params::Params;
use crate::query::tenancy::{Asked, Asker, Matchers, Refused, of, rewrite};
use crate::store::{Change, ListQuery, Store, StoreError};

/// What is known of the projects is read again after so long even if no change was announced.
const MAX_AGE: Duration = Duration::from_mins(1);

/// Names of all projects, with their tags.
type Known = BTreeMap<String, Vec<String>>;

/// The projects that there are. What was read before a change is not used after it.
#[derive(Debug)]
pub(super) struct Projects {
    store: Arc<dyn Store>,
    state: Mutex<State>,
    /// One read for all who wait for it.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// How many changes there were.
    changes: u64,
    known: Option<(Arc<Known>, Instant)>,
}

impl Projects {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, state: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    pub(super) fn apply(&self, changes: &[Change]) {
        if changes.iter().any(|change| change.key.kind == Kind::Project) {
            self.clear();
        }
    }

    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        state.changes += 1;
        state.known = None;
    }

    async fn all(&self) -> Result<Arc<Known>, StoreError> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let _one = self.reading.lock().await;
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let before = self.state.lock().changes;
        let query = ListQuery { kind: Kind::Project, project: None, name_prefix: None, metadata_only: true };
        let documents = self.store.list(&query).await?;
        let known = Arc::new(documents.into_iter().map(|document| (document.key.name, document.tags)).collect());
        let mut state = self.state.lock();
        if state.changes == before {
            state.known = Some((Arc::clone(&known), Instant::now() + MAX_AGE));
        }
        Ok(known)
    }

    fn known(&self) -> Option<Arc<Known>> {
        let state = self.state.lock();
        state.known.as_ref().filter(|(_, ends)| *ends > Instant::now()).map(|(known, _)| known.clone())
    }

    /// The matchers of a rule for who may use datasources of these projects.
    pub(super) async fn matchers(
        &self,
        rule: &Tenancy,
        reach: &Reach,
        groups: &[String],
    ) -> Result<Matchers, ApiError> {
        let none: &[String] = &[];
        let is_asked_for = match reach {
            Reach::Everywhere => rule.asks_for_projects(),
            Reach::Projects(_) => rule.asks_for_tags(),
        };
        let known = if is_asked_for { self.all().await? } else { Arc::default() };
        let projects = match reach {
            Reach::Everywhere => known.iter().map(|(name, tags)| (name.as_str(), tags.as_slice())).collect(),
            Reach::Projects(names) => {
                let tags = |name: &String| known.get(name).map_or(none, Vec::as_slice);
                names.iter().map(|name| (name.as_str(), tags(name))).collect()
            }
        };
        Ok(of(rule, &Asker { projects, groups })?)
    }
}

/// The request that asks for nothing beyond the matchers.
pub(super) async fn limited(
    request: Request<Body>,
    path: &SubPath,
    target: &Target,
    (rule, within): (&Tenancy, &Matchers),
    query: &QueryService,
    max_body_bytes: u64,
) -> Result<Request<Body>, ApiError> {
    can_be_limited(target)?;
    let (mut parts, body) = request.into_parts();
    let body = intake::read(body, max_body_bytes).await?;
    let content_type = parts.headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or_default());
    let asked =
        Asked { method: &parts.method, path: path.raw(), query_string: parts.uri.query(), content_type, body: &body };
    let rewritten = rewrite(&asked, rule, within, |text, within| query.limit(text, within))?;
    drop_deciding(&mut parts.headers);
    let (query_string, body) = match parts.method {
        Method::POST => {
            parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(FORM));
            (String::new(), Body::from(rewritten.parameters))
        }
        _ => (rewritten.parameters, Body::empty()),
    };
    // Only the query string of it is looked at from here on.
    let uri = if query_string.is_empty() { "/".to_owned() } else { format!("/?{query_string}") };
    let uri = PathAndQuery::try_from(uri).map_err(|_| {
        Refused::BadData("the query is too long for a GET once it is limited: send it as a POST".to_owned())
    })?;
    parts.uri = Uri::from(uri);
    Ok(Request::from_parts(parts, body))
}

/// The parameters that ask for nothing beyond the matchers.
pub(super) fn limited_params(
    params: Params,
    path: &SubPath,
    target: &Target,
    (rule, within): (&Tenancy, &Matchers),
    query: &QueryService,
) -> Result<Params, ApiError> {
    can_be_limited(target)?;
    let query_string = form_urlencoded::Serializer::new(String::new()).extend_pairs(params.into_pairs()).finish();
    let asked = Asked {
        method: &Method::GET,
        path: path.raw(),
        query_string: Some(&query_string),
        content_type: None,
        body: &[],
    };
    let rewritten = rewrite(&asked, rule, within, |text, within| query.limit(text, within))?;
    Params::parse(Some(&rewritten.parameters), None)
        .ok_or_else(|| ApiError::Internal("limited parameters cannot be read".to_owned()))
}

/// Leaves out headers that may say to the datasource whose data it is, or what the body means.
pub(super) fn drop_deciding(headers: &mut HeaderMap) {
    let dropped: Vec<_> = headers.keys().filter(|name| !is_neutral(name) || is_of_body(name)).cloned().collect();
    for name in dropped {
        headers.remove(name);
    }
}

/// Whether it is known what its requests ask for.
fn can_be_limited(target: &Target) -> Result<(), ApiError> {
    if !target.proxy.is_prometheus {
        return Err(Refused::Forbidden(format!(
            "datasource {:?} is no PrometheusDatasource: query.datasources[].tenancy holds for it, and data of other kinds \
             cannot be limited",
            target.name
        ))
        .into());
    }
    if target.proxy.url.query().is_some() {
        let text =
            "the url of datasource has parameters of its own, which query.datasources[].tenancy does not look into";
        return Err(
            Refused::Forbidden(text.replace("datasource has", &format!("datasource {:?} has", target.name))).into()
        );
    }
    Ok(())
}

fn is_of_body(name: &header::HeaderName) -> bool {
    name.as_str().starts_with("content-")
}
