//! A proxied request from its path to its answer.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, Request, Response, Uri, request};
use bytes::Bytes;
use futures::FutureExt as _;

use super::ProxyError;
use super::forward::{Limits, Outgoing, Progress, send, streamed};
use super::headers::{Forwarded, add_forwarded, end_to_end, is_neutral, sandbox};
use super::location::{DatasourceRef, Located, Place, SubPath, locate};
use super::network::DenyList;
use super::rights::Right;
use super::spec::{HttpProxy, SpecError};
use super::targets::{Target, Targets};
use super::unsaved::{self, Unsaved};
use crate::auth::crypto::SecretBox;
use crate::cache::Listener;
use crate::config::Config;
use crate::domain::document::Key;
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::intake;
use crate::query::params::{Bounds, Params};
use crate::query::plan::Endpoint;
use crate::query::policy::Policy;
use crate::query::{Fetch, Freshness, QueryService};
use crate::store::{Change, Store};

const FORM: &str = "application/x-www-form-urlencoded";
/// What speaks of the body and the answer of a request that stands for several queries.
const OF_THE_OUTER_REQUEST: [HeaderName; 10] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
    header::TRANSFER_ENCODING,
];

/// What a proxy is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where datasources and secrets are read.
    pub store: Arc<dyn Store>,
    /// Decrypts secrets.
    pub secrets: Arc<SecretBox>,
    /// Serves what is cacheable.
    pub query: QueryService,
    /// Whether names keep their letter case.
    pub case_sensitive: bool,
}

/// The datasource proxy.
#[derive(Debug)]
pub struct Proxy {
    store: Arc<dyn Store>,
    targets: Targets,
    query: QueryService,
    /// For everything but Prometheus queries.
    other_limits: Limits,
    max_body_bytes: u64,
    case_sensitive: bool,
}

/// A request that was read as far as needed to know what it asks for; see [`Asked::rights`].
#[derive(Debug)]
pub struct Asked {
    reference: DatasourceRef,
    path: SubPath,
    request: Request<Body>,
    forwarded: Forwarded,
    unsaved: Option<(serde_json::Value, HttpProxy)>,
}

impl Asked {
    /// A Prometheus query of a saved datasource, as if it had come on the proxy's path: from the sender of `client`, whose
    /// headers count as they would there.
    pub fn query(
        reference: DatasourceRef,
        path: &'static str,
        parameters: &[(&str, String)],
        client: &request::Parts,
        forwarded: Forwarded,
    ) -> Result<Self, ProxyError> {
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
        let mut request = Request::new(Body::from(form));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(path);
        *request.extensions_mut() = client.extensions.clone();
        let headers = request.headers_mut();
        headers.clone_from(&client.headers);
        for name in OF_THE_OUTER_REQUEST {
            headers.remove(name);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(FORM));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Ok(Self { reference, path: SubPath::parse(path)?, request, forwarded, unsaved: None })
    }

    /// What the caller must be allowed to do before [`Proxy::serve`] is called.
    pub fn rights(&self) -> Vec<Right> {
        let Some((_, proxy)) = &self.unsaved else { return vec![Right::to_use(&self.reference)] };
        let secret = proxy.secret.is_some().then(|| Right::to_name_a_secret(&self.reference));
        [Right::to_try(&self.reference)].into_iter().chain(secret).collect()
    }
}

impl Proxy {
    /// Puts the parts together.
    pub fn new(config: &Config, parts: Parts) -> Self {
        let Parts { store, secrets, query, case_sensitive } = parts;
        let datasource = &config.datasource;
        let folders = datasource.secret_file_folders.clone();
        Self {
            targets: Targets::new(store.clone(), secrets, folders, DenyList::new(datasource)),
            store,
            query,
            other_limits: Limits {
                head: datasource.header_timeout.0,
                idle: datasource.idle_timeout.0,
                key: "datasource.header_timeout",
            },
            max_body_bytes: config.server.max_body_bytes,
            case_sensitive,
        }
    }

    /// Reads what a request asks for whose path starts with `/proxy/`.
    pub async fn read(&self, request: Request<Body>, forwarded: Forwarded) -> Result<Asked, ApiError> {
        let fold = |name: &str| if self.case_sensitive { name.to_owned() } else { name.to_lowercase() };
        match locate(request.uri().path(), fold)? {
            Located::Saved(reference, path) => Ok(Asked { reference, path, request, forwarded, unsaved: None }),
            Located::Unsaved(place, path) => self.read_unsaved(place, path, request, forwarded).await,
        }
    }

    /// Turns the request inside out: what its body says becomes method and body.
    async fn read_unsaved(
        &self,
        place: Place,
        path: SubPath,
        request: Request<Body>,
        forwarded: Forwarded,
    ) -> Result<Asked, ApiError> {
        let (mut parts, body) = request.into_parts();
        let Unsaved { name, method, body, spec } = unsaved::parse(&self.read_body(body).await?)?;
        let reference = place.datasource(name);
        if let Some(project) = reference.project() {
            self.require_project(project).await?;
        }
        let proxy = HttpProxy::parse(&spec).map_err(|error| match error {
            SpecError::NoProxy => ProxyError::NoProxy(reference.name().to_owned()),
            SpecError::SqlProxy => ProxyError::SqlProxy(reference.name().to_owned()),
            SpecError::Invalid(reason) => ProxyError::Body(format!("spec: {reason}")),
        })?;
        parts.method = method;
        parts.headers.remove(header::CONTENT_LENGTH);
        // The declared type is that of the outer body. Prometheus takes parameters as a form only.
        parts.headers.remove(header::CONTENT_TYPE);
        if !body.is_empty() {
            let kind = if proxy.is_prometheus { FORM } else { "application/json" };
            parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let request = Request::from_parts(parts, Body::from(body));
        Ok(Asked { reference, path, request, forwarded, unsaved: Some((spec, proxy)) })
    }

    /// Answers a request.
    pub async fn serve(&self, asked: Asked) -> Result<Response<Body>, ApiError> {
        let Asked { reference, path, request, forwarded, unsaved } = asked;
        let is_saved = unsaved.is_none();
        let target = match unsaved {
            Some((spec, proxy)) => self.targets.of_unsaved(&reference, spec, proxy).await?,
            None => match self.targets.get(&reference).await {
                Err(ProxyError::NotFound) => return Err(self.not_found(&reference, request.method()).await?.into()),
                found => found?,
            },
        };
        if !target.proxy.allows(request.method(), &path) {
            let (method, path) = (request.method().to_string(), path.decoded().to_owned());
            return Err(ProxyError::EndpointNotAllowed { datasource: target.name.clone(), method, path }.into());
        }
        let policy = self.query.policy(reference.project(), reference.name());
        let endpoint = Endpoint::from_path(path.decoded()).filter(|_| target.proxy.is_prometheus);
        let limits = if endpoint.is_some() { limits_of(&policy) } else { self.other_limits };
        let is_cached = is_saved && policy.cache && is_plannable(&target, &request);
        let mut response = match endpoint.filter(|_| is_cached) {
            Some(endpoint) => self.query(&target, &policy, endpoint, &path, request, forwarded).await?,
            None => self.forward(&target, &path, request, forwarded, limits).await?,
        };
        sandbox(response.headers_mut());
        Ok(response)
    }

    async fn require_project(&self, project: &str) -> Result<(), ApiError> {
        match self.store.get(&Key::global(Kind::Project, project)).await? {
            Some(_) => Ok(()),
            None => Err(ProxyError::ProjectMissing(project.to_owned()).into()),
        }
    }

    /// 404, or 400 when the project is what does not exist (GET and POST only, as upstream).
    async fn not_found(&self, reference: &DatasourceRef, method: &Method) -> Result<ProxyError, ApiError> {
        let Some(project) = reference.project().filter(|_| matches!(*method, Method::GET | Method::POST)) else {
            return Ok(ProxyError::NotFound);
        };
        self.require_project(project).await?;
        Ok(ProxyError::NotFound)
    }

    /// Streams a request and its answer.
    async fn forward(
        &self,
        target: &Arc<Target>,
        path: &SubPath,
        request: Request<Body>,
        forwarded: Forwarded,
        limits: Limits,
    ) -> Result<Response<Body>, ProxyError> {
        let (parts, body) = request.into_parts();
        let mut headers = end_to_end(&parts.headers);
        add_forwarded(&mut headers, forwarded);
        let url = path.below(&target.route.url, parts.uri.query());
        let progress = Progress::now();
        let body = streamed(body, &mut headers, &progress);
        let repeatable = parts.method.is_safe();
        send(target, Outgoing { method: parts.method, url, headers, body, repeatable, progress }, limits).await
    }

    /// Answers a Prometheus query, from the cache if it may be.
    async fn query(
        &self,
        target: &Arc<Target>,
        policy: &Arc<Policy>,
        endpoint: Endpoint,
        path: &SubPath,
        request: Request<Body>,
        forwarded: Forwarded,
    ) -> Result<Response<Body>, ApiError> {
        let (parts, body) = request.into_parts();
        let form = self.read_body(body).await?;
        let own = end_to_end(&parts.headers);
        let deciding = deciding_headers(&own, &target.proxy.headers);
        let plan = Params::parse(parts.uri.query(), Some(&form))
            .ok_or(crate::query::plan::Uncacheable::Params)
            .and_then(|params| self.query.plan(endpoint, &target.fingerprint, &params, &deciding, policy));
        // An answer that several share is asked for in the name of none: only headers that are part of the key go along.
        let headers = if plan.is_ok() { shared_headers(&own) } else { with_forwarded(own, forwarded) };
        let asking = Asking {
            method: parts.method.clone(),
            base: path.below(&target.route.url, None),
            query_string: parts.uri.query().map(str::to_owned),
            headers,
            form,
        };
        let content_type = parts.headers.get(header::CONTENT_TYPE).cloned();
        let fetch = fetch(target, limits_of(policy), asking, content_type);
        match plan {
            Ok(plan) => self.query.serve(plan, Freshness::of(&parts.headers), fetch).await,
            Err(reason) => {
                tracing::trace!(%reason, "a query is passed through");
                self.query.pass(endpoint, &fetch).await
            }
        }
    }

    async fn read_body(&self, body: Body) -> Result<Bytes, ProxyError> {
        Ok(intake::read(body, self.max_body_bytes).await?)
    }
}

fn fetch(target: &Arc<Target>, limits: Limits, mut asking: Asking, content_type: Option<HeaderValue>) -> Fetch {
    let target = target.clone();
    if let Some(value) = content_type.filter(|_| !asking.form.is_empty()) {
        asking.headers.insert(header::CONTENT_TYPE, value);
    }
    Arc::new(move |bounds| {
        let (target, outgoing) = (target.clone(), asking.outgoing(bounds));
        async move { send(&target, outgoing, limits).await.map_err(ApiError::from) }.boxed()
    })
}

/// A query as it goes to the datasource.
struct Asking {
    method: Method,
    base: url::Url,
    query_string: Option<String>,
    headers: HeaderMap,
    form: Bytes,
}

impl Asking {
    /// The request, with other bounds if there are some.
    fn outgoing(&self, bounds: Option<Bounds>) -> Outgoing {
        let (mut url, mut form) = (self.base.clone(), self.form.clone());
        match (&self.query_string, bounds) {
            (Some(query), Some(bounds)) => url.set_query(Some(&bounds.put_into(query))),
            (query, _) => url.set_query(query.as_deref()),
        }
        // A plan with bounds was made from a form that is text.
        if let (Some(bounds), Ok(text)) = (bounds, std::str::from_utf8(&form)) {
            form = bounds.put_into(text).into();
        }
        Outgoing {
            method: self.method.clone(),
            url,
            headers: self.headers.clone(),
            body: (!form.is_empty()).then(|| reqwest::Body::from(form)),
            // Queries only read, also as POST.
            repeatable: true,
            progress: Progress::now(),
        }
    }
}

/// Documents that changed are read again.
impl Listener for Proxy {
    fn changed(&self, changes: &[Change]) {
        self.targets.apply(changes);
    }

    fn lost(&self) {
        self.targets.clear();
    }
}

/// Whether the parameters are where the plan looks for them.
fn is_plannable(target: &Target, request: &Request<Body>) -> bool {
    let is_form = || {
        let kind =
            request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(FORM))
    };
    // Parameters in the base URL are not part of the plan.
    target.proxy.url.query().is_none()
        && match *request.method() {
            Method::GET => http_body::Body::is_end_stream(request.body()),
            Method::POST => is_form(),
            _ => false,
        }
}

/// How long a Prometheus query may take.
fn limits_of(policy: &Policy) -> Limits {
    Limits { head: policy.timeout, idle: policy.timeout, key: "query.timeout" }
}

fn with_forwarded(mut headers: HeaderMap, forwarded: Forwarded) -> HeaderMap {
    add_forwarded(&mut headers, forwarded);
    headers
}

/// The client's headers that may change an answer and that the datasource does not set itself, ordered by name.
fn deciding_headers(own: &HeaderMap, configured: &HeaderMap) -> Vec<(String, String)> {
    let mut deciding: Vec<_> = own
        .iter()
        .filter(|(name, _)| !is_neutral(name) && !configured.contains_key(*name))
        .map(|(name, value)| (name.to_string(), value.as_bytes().escape_ascii().to_string()))
        .collect();
    // Stable: values of one name keep their order.
    deciding.sort_by(|one, other| one.0.cmp(&other.0));
    deciding
}

/// What a shared request carries of its first asker: the deciding headers. The body is asked for as it is stored: plain.
fn shared_headers(own: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in own.iter().filter(|(name, _)| !is_neutral(name)) {
        headers.append(name, value.clone());
    }
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers
}

impl From<ProxyError> for ApiError {
    fn from(error: ProxyError) -> Self {
        match error {
            ProxyError::NotFound => Self::NotFound,
            ProxyError::ProjectMissing(_) | ProxyError::Path { .. } | ProxyError::NoProxy(_) | ProxyError::Body(_) => {
                Self::BadRequest(error.to_string())
            }
            ProxyError::EndpointNotAllowed { .. } | ProxyError::Denied { .. } => Self::Forbidden(error.to_string()),
            ProxyError::Unread(error) => error.into(),
            ProxyError::SqlProxy(_) => Self::NotImplemented(error.to_string()),
            ProxyError::Invalid { .. }
            | ProxyError::Token { .. }
            | ProxyError::Redirect { .. }
            | ProxyError::Unreachable { .. } => Self::BadGateway(error.to_string()),
            ProxyError::Timeout { .. } => Self::GatewayTimeout(error.to_string()),
            ProxyError::StoreUnavailable(detail) => Self::Unavailable(detail),
            ProxyError::Failed(detail) => Self::Internal(detail),
        }
    }
}
