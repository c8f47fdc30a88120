//! A proxied request from its path to its answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

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
use super::tenancy::{self, Projects};
use super::unsaved::{self, Unsaved};
use crate::auth::authorize::Reach;
use crate::auth::crypto::SecretBox;
use crate::cache::Listener;
use crate::config::{Config, LimitMode, Tenancy};
use crate::domain::document::Key;
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::intake;
use crate::query::params::{Bounds, NO_CACHE, Params, without};
use crate::query::plan::{Endpoint, Source, Uncacheable};
use crate::query::policy::Policy;
use crate::query::protect::deadline;
use crate::query::tenancy::Scope;
use crate::query::{Freshness, QueryService, encoded};
use crate::store::{Change, Store};

pub(super) const FORM: &str = "application/x-www-form-urlencoded";
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
    projects: Projects,
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
    /// The datasource that it is for.
    pub const fn reference(&self) -> &DatasourceRef {
        &self.reference
    }

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
            projects: Projects::new(store.clone()),
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

    /// What serves Prometheus queries.
    pub const fn queries(&self) -> &QueryService {
        &self.query
    }

    /// Reads what a request asks for whose path starts with `/proxy/`.
    pub async fn read(&self, request: Request<Body>, forwarded: Forwarded) -> Result<Asked, ApiError> {
        match locate(request.uri().path(), |name| self.fold(name))? {
            Located::Saved(reference, path) => Ok(Asked { reference, path, request, forwarded, unsaved: None }),
            Located::Unsaved(place, path) => self.read_unsaved(place, path, request, forwarded).await,
        }
    }

    /// A name in the letter case of the store.
    pub(super) fn fold(&self, name: &str) -> String {
        if self.case_sensitive { name.to_owned() } else { name.to_lowercase() }
    }

    pub(super) const fn query_service(&self) -> &QueryService {
        &self.query
    }

    /// The target of a saved datasource.
    pub(super) async fn target(&self, reference: &DatasourceRef, method: &Method) -> Result<Arc<Target>, ApiError> {
        match self.targets.get(reference).await {
            Err(ProxyError::NotFound) => Err(self.not_found(reference, method).await?.into()),
            found => Ok(found?),
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

    /// The rule that limits what is seen of a datasource, if there is one.
    pub fn tenancy(&self, reference: &DatasourceRef) -> Option<Arc<Tenancy>> {
        self.query.tenancy(reference.project(), reference.name())
    }

    /// What a rule lets somebody see who may use datasources of these projects and is in these groups.
    pub async fn scope(&self, rule: Arc<Tenancy>, reach: &Reach, groups: &[String]) -> Result<Scope, ApiError> {
        let matchers = self.projects.matchers(&rule, reach, groups).await?;
        Ok(Scope::Within(rule, Arc::new(matchers)))
    }

    /// Answers a request, within what its caller may see ([`Self::scope`]).
    pub async fn serve(&self, asked: Asked, scope: Scope) -> Result<Response<Body>, ApiError> {
        let Asked { reference, path, mut request, forwarded, unsaved } = asked;
        let is_saved = unsaved.is_none();
        let target = match unsaved {
            Some((spec, proxy)) => self.targets.of_unsaved(&reference, spec, proxy).await?,
            None => self.target(&reference, request.method()).await?,
        };
        if !target.proxy.allows(request.method(), &path) {
            let (method, path) = (request.method().to_string(), path.decoded().to_owned());
            return Err(ProxyError::EndpointNotAllowed { datasource: target.name.clone(), method, path }.into());
        }
        // Who sends a datasource along names it as well: only what holds for every name holds for that one.
        let policy = self.query.policy(reference.project(), if is_saved { reference.name() } else { "" });
        match &scope {
            Scope::Within(rule, within) => {
                let both = (&**rule, &**within);
                request = tenancy::limited(request, &path, &target, both, &self.query, self.max_body_bytes).await?;
            }
            Scope::Free => {}
            Scope::Unlimited if self.tenancy(&reference).is_none() => {}
            Scope::Unlimited => return Err(ApiError::Internal("nobody asked whose data may be seen".to_owned())),
        }
        let endpoint = Endpoint::from_path(path.decoded()).filter(|_| target.proxy.is_prometheus);
        let mut response = match endpoint {
            Some(endpoint) => {
                let is_cached = is_saved && policy.cache && is_plannable(&target, endpoint, &request);
                let question = Question { target: &target, policy: &policy, endpoint, path: &path, is_cached };
                self.query(question, request, forwarded).await?
            }
            None => self.forward(&target, &path, request, forwarded, self.other_limits).await?,
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
        question: Question<'_>,
        request: Request<Body>,
        forwarded: Forwarded,
    ) -> Result<Response<Body>, ApiError> {
        let Question { target, policy, endpoint, path, is_cached } = question;
        let is_form = is_form(&request);
        let (parts, body) = request.into_parts();
        let form = self.read_body(body).await?;
        let is_readable = match parts.method {
            Method::GET => form.is_empty(),
            Method::POST => form.is_empty() || is_form,
            _ => false,
        };
        let mut params = if is_readable { Params::parse(parts.uri.query(), Some(&form)) } else { None };
        let no_cache = params.as_mut().and_then(Params::take_no_cache);
        let guard = self.query.guard(policy, endpoint, parts.extensions.get().copied(), target.fingerprint);
        guard.check(endpoint, params.as_ref())?;
        let own = end_to_end(&parts.headers);
        let deciding = deciding_headers(&own, &target.proxy.headers);
        let plan = is_cached.then(|| {
            let params = params.as_ref().ok_or(Uncacheable::Params)?;
            let source = Source { digest: &target.fingerprint, reference: &target.reference };
            self.query.plan((endpoint, path.decoded()), source, params, &deciding, policy)
        });
        // An answer that several share is asked for in the name of none: only headers that are part of the key go along.
        let headers = if matches!(plan, Some(Ok(_))) {
            shared_headers(&own)
        } else {
            let mut headers = with_forwarded(own, forwarded);
            if policy.limits.mode != LimitMode::Off {
                // What is counted must be plain.
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            headers
        };
        let mut asking = Asking {
            method: parts.method.clone(),
            base: path.below(&target.route.url, None),
            query_string: parts.uri.query().unwrap_or_default().to_owned(),
            headers,
            form,
            is_readable: params.is_some(),
            // The others know no timeout.
            is_evaluated: matches!(endpoint, Endpoint::Instant | Endpoint::Range),
        };
        if no_cache.is_some() {
            asking.leave_out(NO_CACHE);
        }
        if let Some(kind) = parts.headers.get(header::CONTENT_TYPE).filter(|_| !asking.form.is_empty()) {
            asking.headers.insert(header::CONTENT_TYPE, kind.clone());
        }
        let (target, idle) = (target.clone(), policy.timeout);
        let fetch = guard.around(move |bounds, left| {
            let (target, outgoing) = (target.clone(), asking.outgoing(bounds, left));
            let limits = Limits { head: left, idle, key: "query.timeout" };
            async move { send(&target, outgoing, limits).await.map_err(ApiError::from) }.boxed()
        });
        let answer = async {
            match plan {
                Some(Ok(plan)) => {
                    let freshness = Freshness::of(&parts.headers).or_refresh(no_cache == Some(true));
                    Ok(encoded(self.query.serve(plan, freshness, fetch).await?, &parts.headers).await)
                }
                Some(Err(reason)) => {
                    tracing::trace!(%reason, "a query is passed through");
                    self.query.bypass(endpoint, &fetch).await
                }
                None => self.query.uncached(endpoint, &fetch).await,
            }
        };
        let mut response = guard.within(params.as_ref(), answer).await?;
        guard.tell(response.headers_mut());
        Ok(response)
    }

    async fn read_body(&self, body: Body) -> Result<Bytes, ProxyError> {
        Ok(intake::read(body, self.max_body_bytes).await?)
    }
}

/// A Prometheus query, but for the request itself.
struct Question<'a> {
    target: &'a Arc<Target>,
    policy: &'a Arc<Policy>,
    endpoint: Endpoint,
    path: &'a SubPath,
    is_cached: bool,
}

/// A query as it goes to the datasource.
struct Asking {
    method: Method,
    /// Maybe with parameters of the datasource.
    base: url::Url,
    query_string: String,
    headers: HeaderMap,
    form: Bytes,
    /// Whether the parameters were read; else they go on as they came.
    is_readable: bool,
    /// Whether the datasource takes a `timeout` for it.
    is_evaluated: bool,
}

impl Asking {
    /// Leaves a parameter out.
    fn leave_out(&mut self, name: &str) {
        self.query_string = without(&self.query_string, name);
        // What was read is text.
        if let (true, Ok(text)) = (self.is_readable, std::str::from_utf8(&self.form)) {
            self.form = without(text, name).into();
        }
    }

    /// The request with the time that is left, and with other bounds if there are some.
    fn outgoing(&self, bounds: Option<Bounds>, left: Duration) -> Outgoing {
        let (mut query_string, mut form) = (Cow::Borrowed(self.query_string.as_str()), self.form.clone());
        // What was read is text.
        if let (true, Ok(text)) = (self.is_readable, std::str::from_utf8(&self.form)) {
            let (own, text) = (bounded(bounds, &self.query_string), bounded(bounds, text));
            let (own, text) = if self.is_evaluated {
                let (own, text) = deadline::put(&own, &text, deadline::told(left));
                (own.into_owned(), text.into_owned())
            } else {
                (own.into_owned(), text.into_owned())
            };
            (query_string, form) = (own.into(), text.into());
        }
        let mut url = self.base.clone();
        let all: Vec<&str> =
            [self.base.query(), Some(&*query_string)].into_iter().flatten().filter(|part| !part.is_empty()).collect();
        url.set_query((!all.is_empty()).then(|| all.join("&")).as_deref());
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

fn bounded(bounds: Option<Bounds>, parameters: &str) -> Cow<'_, str> {
    bounds.map_or(Cow::Borrowed(parameters), |bounds| Cow::Owned(bounds.put_into(parameters)))
}

/// Documents that changed are read again.
impl Listener for Proxy {
    fn changed(&self, changes: &[Change]) {
        self.targets.apply(changes);
        self.projects.apply(changes);
    }

    fn lost(&self) {
        self.targets.clear();
        self.projects.clear();
    }
}

/// Whether the parameters are where the plan looks for them.
fn is_plannable(target: &Target, endpoint: Endpoint, request: &Request<Body>) -> bool {
    // Parameters in the base URL are not part of the plan.
    target.proxy.url.query().is_none()
        && match *request.method() {
            Method::GET => http_body::Body::is_end_stream(request.body()),
            Method::POST => endpoint.takes_forms() && is_form(request),
            _ => false,
        }
}

/// Whether the body says that it is a form.
fn is_form(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(FORM))
}

fn with_forwarded(mut headers: HeaderMap, forwarded: Forwarded) -> HeaderMap {
    add_forwarded(&mut headers, forwarded);
    headers
}

/// The client's headers that may change an answer and that the datasource does not set itself, ordered by name.
pub(super) fn deciding_headers(own: &HeaderMap, configured: &HeaderMap) -> Vec<(String, String)> {
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
