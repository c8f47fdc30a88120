//! Protection of datasources, and of this server, from queries: `query.limits`.
//!
//! ```text
//! request -> check (pure) -> cache -> [ rate of the user -> queue -> breaker -> datasource -> count while it streams ]
//! ```
//!
//! What is in brackets is around the request to the datasource itself, so answers of the cache pay nothing of it. Each process
//! counts for itself.

mod breaker;
mod check;
mod count;
pub mod deadline;
mod gate;
mod limit;
mod rate;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode, header};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use self::breaker::{Breaker, Rule, Trial};
use self::count::{Counted, Counts};
use self::gate::{Full, Gate};
pub use self::limit::{Breach, Exceeded, Limit};
use self::rate::{Quota, Rates};
use super::fetch::Fetch;
use super::params::{Bounds, Params};
use super::plan::Endpoint;
use super::policy::Policy;
use crate::config::{LimitMode, RequestLimits};
use crate::domain::lint::Facts;
use crate::error::ApiError;
use crate::handlers::warnings;
use crate::metrics::Metrics;

/// Bytes for remembered facts about expressions.
const FACTS_MAX_BYTES: u64 = 2 << 20;
/// Datasources that are remembered at most.
const SOURCES: u64 = 10_000;
/// A datasource that nobody asks for so long begins anew.
const IDLE: Duration = Duration::from_hours(1);

/// Who asks: a digest of the login, or of the client's address while nobody signs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Asker(blake3::Hash);

impl Asker {
    /// A user.
    pub fn user(login: &str) -> Self {
        Self(blake3::hash(format!("user {login}").as_bytes()))
    }

    /// Somebody.
    pub fn address(address: std::net::IpAddr) -> Self {
        Self(blake3::hash(format!("address {address}").as_bytes()))
    }
}

/// A user and a datasource.
type Use = (Asker, blake3::Hash);

/// What is known of all users and datasources.
pub struct Protection {
    metrics: Arc<Metrics>,
    facts: Cache<String, Arc<Result<Facts, String>>>,
    asked: Rates<Use>,
    total: Rates<Use>,
    /// By digest, and how many places there are.
    sources: Cache<(blake3::Hash, u32), Source>,
}

#[derive(Clone)]
struct Source {
    gate: Arc<Gate>,
    breaker: Breaker,
}

/// The protection from one request.
#[derive(Clone)]
pub struct Guard(Arc<Parts>);

struct Parts {
    protection: Arc<Protection>,
    limits: Arc<RequestLimits>,
    timeout: Duration,
    asker: Option<Asker>,
    source: blake3::Hash,
    /// What was over a limit and is served.
    told: Mutex<Vec<Breach>>,
}

impl Protection {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        let weigh = |query: &String, facts: &Arc<Result<Facts, String>>| {
            let named = facts.as_ref().as_ref().map_or(0, |facts| facts.unfiltered.len() * 80);
            u32::try_from(query.len() + named + 200).unwrap_or(u32::MAX)
        };
        Self {
            metrics,
            facts: Cache::builder().max_capacity(FACTS_MAX_BYTES).weigher(weigh).build(),
            asked: Rates::new(),
            total: Rates::new(),
            sources: Cache::builder().max_capacity(SOURCES).time_to_idle(IDLE).build(),
        }
    }

    /// The guard of a request; `source` is the digest of the datasource.
    pub(super) fn guard(
        self: &Arc<Self>,
        policy: &Policy,
        endpoint: Endpoint,
        asker: Option<Asker>,
        source: blake3::Hash,
    ) -> Guard {
        let limits = if matches!(endpoint, Endpoint::Instant | Endpoint::Range) {
            policy.limits.clone()
        } else {
            // Answers about series and names have neither series nor points to draw.
            Arc::new(RequestLimits { max_series: 0, max_points: 0, ..(*policy.limits).clone() })
        };
        Guard(Arc::new(Parts {
            protection: self.clone(),
            limits,
            timeout: policy.timeout,
            asker,
            source,
            told: Mutex::default(),
        }))
    }

    /// What an answer that was put together here has too much of; what the datasource sends is counted by the guard.
    pub(super) fn assembled(&self, limits: &RequestLimits, body: &[u8]) -> Result<(), ApiError> {
        if limits.mode != LimitMode::Enforce {
            return Ok(());
        }
        let Some(breach) = Counts::of(body).breaches(limits).next() else { return Ok(()) };
        self.metrics.query_limit(breach.limit.key(), limits.mode);
        Err(ApiError::AnswerOverLimit(breach.refusal(limits)))
    }

    /// The facts about an expression, remembered.
    fn facts(&self, query: &str, required: &[String]) -> Arc<Result<Facts, String>> {
        let look = |key: &str| self.facts.get(key);
        let key = if required.is_empty() { None } else { Some(format!("{}\0{query}", required.join("\0"))) };
        if let Some(known) = look(key.as_deref().unwrap_or(query)) {
            return known;
        }
        let facts = Arc::new(Facts::of(query, required));
        self.facts.insert(key.unwrap_or_else(|| query.to_owned()), facts.clone());
        facts
    }
}

impl Guard {
    /// Looks at a query before anything is done for it; `None`: its parameters cannot be read.
    pub fn check(&self, endpoint: Endpoint, params: Option<&Params>) -> Result<(), ApiError> {
        let Parts { protection, limits, .. } = &*self.0;
        if limits.mode == LimitMode::Off {
            return Ok(());
        }
        let quota = Quota { per_second: limits.user_total_rate, burst: limits.user_total_burst };
        self.take(&protection.total, quota, Limit::UserTotalRate)?;
        let Some(params) = params else {
            let text = "the query cannot be checked: send its parameters in the query string, or as a form by POST";
            return self
                .judge(Breach { limit: Limit::Unread, text: text.to_owned() })
                .map_err(ApiError::QueryOverLimit);
        };
        let facts = |query: &str| protection.facts(query, &limits.required_label_filters);
        for breach in check::check(limits, endpoint, params, facts) {
            self.judge(breach).map_err(ApiError::QueryOverLimit)?;
        }
        Ok(())
    }

    /// Puts itself around requests to the datasource. `send` is given the time that is left.
    pub fn around<S>(&self, send: S) -> Fetch
    where
        S: Fn(Option<Bounds>, Duration) -> BoxFuture<'static, Result<Response<Body>, ApiError>> + Send + Sync + 'static,
    {
        let (guard, send) = (self.clone(), Arc::new(send));
        Arc::new(move |bounds| {
            let (guard, send) = (guard.clone(), send.clone());
            async move { guard.ask(|left| send(bounds, left)).await }.boxed()
        })
    }

    /// Waits no longer than the client's own `timeout`; who waits for the same goes on waiting.
    pub async fn within<T>(
        &self,
        params: Option<&Params>,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let own = params.and_then(|params| params.single("timeout").ok().flatten()).and_then(deadline::parse);
        let Some(own) = own.filter(|own| *own < self.0.timeout) else { return work.await };
        tokio::time::timeout(own, work).await.unwrap_or_else(|_| {
            let (own, most) = (own.as_secs_f64(), self.0.timeout.as_secs());
            Err(ApiError::QueryTimeout(format!(
                "the query took longer than its timeout of {own} s: send a longer one, at most {most} s (query.timeout)"
            )))
        })
    }

    /// Tells the client what was over a limit, as far as it is known by now.
    pub fn tell(&self, headers: &mut HeaderMap) {
        let texts: Vec<String> = self.0.told.lock().iter().map(Breach::warning).collect();
        warnings::add_texts(headers, texts);
    }

    async fn ask(
        &self,
        send: impl FnOnce(Duration) -> BoxFuture<'static, Result<Response<Body>, ApiError>>,
    ) -> Result<Response<Body>, ApiError> {
        let Parts { protection, limits, timeout, .. } = &*self.0;
        if limits.mode == LimitMode::Off {
            return send(*timeout).await;
        }
        let deadline = Instant::now() + *timeout;
        let quota = Quota { per_second: limits.user_rate, burst: limits.user_burst };
        self.take(&protection.asked, quota, Limit::UserRate)?;
        let source = protection.sources.get_with((self.0.source, limits.max_concurrent), || Source {
            gate: Arc::new(Gate::new(limits.max_concurrent)),
            breaker: Breaker::new(),
        });
        let place = self.place(&source.gate, deadline).await?;
        let trial = self.trial(&source.breaker)?;
        let answer = send(deadline.saturating_duration_since(Instant::now())).await;
        if let (Some(trial), Some(has_failed)) = (trial, has_failed(&answer)) {
            trial.done(has_failed, std::time::Instant::now());
        }
        // It has computed: sending the answer costs the datasource little, however slowly a client reads.
        drop(place);
        self.counted(answer?)
    }

    fn take(&self, rates: &Rates<Use>, quota: Quota, limit: Limit) -> Result<(), ApiError> {
        let Some(asker) = self.0.asker else { return Ok(()) };
        let Err(wait) = rates.take((asker, self.0.source), quota, std::time::Instant::now()) else { return Ok(()) };
        let text =
            format!("too many queries of one user: at most {} a second, {} at once", quota.per_second, quota.burst);
        self.judge(Breach { limit, text }).map_err(|text| ApiError::TooManyQueries { text, wait: seconds(wait) })
    }

    async fn place(&self, gate: &Gate, deadline: Instant) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        let limits = &self.0.limits;
        if limits.max_concurrent == 0 {
            return Ok(None);
        }
        // Where nothing is refused nothing waits either.
        let queue = if limits.mode == LimitMode::Enforce { limits.max_queued } else { 0 };
        let full = match gate.enter(queue, deadline.min(Instant::now() + limits.max_queue_wait.0)).await {
            Ok(place) => return Ok(Some(place)),
            Err(full) => full,
        };
        let running = format!("the datasource computes {} queries, which is as many as may be", limits.max_concurrent);
        let text = match full {
            Full::Queue(0) => running,
            Full::Queue(waiting) => format!("{running}, and {waiting} wait"),
            Full::Late => format!("{running}, and none of them ended in time"),
        };
        let busy = |text| ApiError::DatasourceBusy {
            text,
            wait: seconds(limits.max_queue_wait.0.min(Duration::from_secs(5))),
        };
        self.judge(Breach { limit: Limit::Concurrent, text }).map(|()| None).map_err(busy)
    }

    fn trial(&self, breaker: &Breaker) -> Result<Option<Trial>, ApiError> {
        let limits = &self.0.limits;
        if limits.breaker_failures == 0 {
            return Ok(None);
        }
        let rule = Rule { failures: limits.breaker_failures, pause: limits.breaker_pause.0 };
        let (trial, allowed) = breaker.ask(rule, std::time::Instant::now());
        let Err(wait) = allowed else { return Ok(Some(trial)) };
        let text = format!("the datasource failed {} times in a row and is left alone", limits.breaker_failures);
        let away = |text| ApiError::DatasourceAway { text, wait: seconds(wait) };
        self.judge(Breach { limit: Limit::Breaker, text }).map(|()| Some(trial)).map_err(away)
    }

    /// The answer, counted as it is read.
    fn counted(&self, answer: Response<Body>) -> Result<Response<Body>, ApiError> {
        if answer.status() != StatusCode::OK {
            return Ok(answer);
        }
        let limits = &self.0.limits;
        let length = answer.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let declared = Counts { bytes: length.unwrap_or(0), ..Counts::default() };
        if limits.mode == LimitMode::Enforce
            && let Some(breach) = declared.breaches(limits).next()
        {
            self.judge(breach).map_err(ApiError::AnswerOverLimit)?;
        }
        let guard = self.clone();
        let judge = Arc::new(move |breach| guard.judge(breach).map_err(Exceeded));
        Ok(answer.map(|body| Body::new(Counted::new(body, limits.clone(), judge))))
    }

    /// Counts what is over a limit, and remembers it; an error is the text of the refusal.
    fn judge(&self, breach: Breach) -> Result<(), String> {
        let Parts { protection, limits, told, .. } = &*self.0;
        protection.metrics.query_limit(breach.limit.key(), limits.mode);
        if limits.mode == LimitMode::Enforce {
            return Err(breach.refusal(limits));
        }
        let mut told = told.lock();
        if !told.contains(&breach) {
            told.push(breach);
        }
        Ok(())
    }
}

/// Whether the datasource failed; `None` says nothing about it. JSON comes from a Prometheus that lives, whatever it says.
fn has_failed(answer: &Result<Response<Body>, ApiError>) -> Option<bool> {
    match answer {
        Ok(answer) => {
            let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let is_json = kind.is_some_and(|kind| kind.starts_with("application/json"));
            Some(answer.status().is_server_error() && !is_json)
        }
        Err(ApiError::BadGateway(_) | ApiError::GatewayTimeout(_)) => Some(true),
        Err(_) => None,
    }
}

/// For `Retry-After`.
fn seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}
