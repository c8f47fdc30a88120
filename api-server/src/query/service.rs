//! The tiers in their order.

mod control;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::http::{HeaderValue, Response};
use jiff::Timestamp;
use moka::notification::RemovalCause;
use moka::sync::Cache;
use parking_lot::Mutex;

use super::answer::{content_type, from, hit, plain, with_status};
use super::costs::Costs;
use super::fetch::{Fetch, Fetched, Gathered, OneReader, gather};
use super::finished::Finished;
use super::flight::{Flights, Role, Ticket};
use super::floors::{Floor, Subject};
use super::flush::Flushes;
use super::freshness::Freshness;
use super::lease::{Claim, claim};
use super::params::Params;
use super::plan::{Endpoint, Input, Plan, Source, Uncacheable, label_in, plan};
use super::points::{Draft, Forward, PointStore, Window};
use super::policy::{Policies, Policy};
use super::promql::{self, Analysis};
use super::protect::{Asker, Guard, Protection, deadline};
use super::range::entry::Printed;
use super::stale::{Use, judge, warning, with_warning};
use super::stored::{Gzip, Stored};
use super::tenancy::{Limited, Matchers, Rewrites};
use crate::cache::Tier;
use crate::cache::redis::RedisTier;
use crate::config::{self, Tenancy};
use crate::error::ApiError;
use crate::metrics::Metrics;

/// Bytes for remembered analyses of expressions.
const ANALYSES_MAX_BYTES: u64 = 4 << 20;
/// A flight whose work was lost (a panic) is tried again by its waiters this often.
/// So is one whose leader had no right to ask (its rate).
const ATTEMPTS: usize = 4;
/// Queries that take less than this are asked for by each pod: agreeing with the others would take as long.
const CHEAP: Duration = Duration::from_millis(5);

/// What a flight brings home.
#[derive(Clone)]
enum Outcome {
    /// From the cache (found once more, or in Redis).
    Found(Arc<Stored>, Tier),
    /// Kept now: of the datasource, or put together from points, of which it gave some or none.
    Kept(Arc<Stored>, Forward),
    /// From the datasource, not kept.
    Whole(Arc<Gathered>),
    /// Too large to keep: the first who takes it has it, the others ask for themselves.
    Oversize(OneReader),
    /// What was known before, with a warning: the datasource cannot answer.
    Stale(Arc<Stored>),
    /// No answer.
    Failed(ApiError),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FlightKey {
    hash: blake3::Hash,
    timeout: Option<String>,
    freshness: Freshness,
    /// Who asks after a flush does not join who asked before.
    floor: Floor,
}

/// The cached query endpoints.
#[derive(Debug, Clone)]
pub struct QueryService(Arc<Inner>);

struct Inner {
    policies: ArcSwap<Policies>,
    max_cached: usize,
    finished: Finished,
    redis: Option<Arc<RedisTier>>,
    analyses: Cache<String, Arc<Analysis>>,
    rewrites: Rewrites,
    points: PointStore,
    flights: Flights<FlightKey, Outcome>,
    costs: Costs,
    protection: Arc<Protection>,
    flushes: Flushes,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryService")
            .field("policies", &self.policies.load())
            .field("redis", &self.redis.is_some())
            .finish_non_exhaustive()
    }
}

impl QueryService {
    /// `l1_max_bytes` bounds what is held in memory: one half for points, the other for finished answers.
    pub fn new(
        config: &config::Query,
        l1_max_bytes: u64,
        redis: Option<Arc<RedisTier>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let max_cached = usize::try_from(config.max_cached_bytes).unwrap_or(usize::MAX);
        let analyses = Cache::builder()
            .max_capacity(ANALYSES_MAX_BYTES)
            .weigher(|query: &String, analysis: &Arc<Analysis>| {
                u32::try_from(query.len() + analysis.text.len() + 200).unwrap_or(u32::MAX)
            })
            .build();
        Self(Arc::new(Inner {
            policies: ArcSwap::from_pointee(Policies::new(config)),
            max_cached,
            finished: Finished::new(l1_max_bytes / 2, redis.clone(), metrics.clone()),
            points: PointStore::new(l1_max_bytes / 2, max_cached, redis.clone(), &metrics),
            flushes: Flushes::new(config, redis.clone()),
            redis,
            analyses,
            rewrites: Rewrites::default(),
            flights: Flights::default(),
            costs: Costs::default(),
            protection: Arc::new(Protection::new(metrics.clone())),
            metrics,
        }))
    }

    /// What holds for a datasource; one without a project is global.
    pub fn policy(&self, project: Option<&str>, name: &str) -> Arc<Policy> {
        self.0.policies.load().of(project, name).clone()
    }

    /// Takes other settings of datasources from now on.
    pub fn set(&self, config: &config::Query) {
        self.0.policies.store(Arc::new(Policies::new(config)));
    }

    /// The protection from a request to a datasource (`source`: its digest).
    pub fn guard(&self, policy: &Policy, endpoint: Endpoint, asker: Option<Asker>, source: blake3::Hash) -> Guard {
        self.0.protection.guard(policy, endpoint, asker, source)
    }

    /// Whose data a datasource shows; `None`: all.
    pub fn tenancy(&self, project: Option<&str>, name: &str) -> Option<Arc<Tenancy>> {
        self.0.policies.load().tenancy(project, name).cloned()
    }

    /// An expression with these matchers in each selector; what is not understood is an error, in words for people.
    pub fn limit(&self, query: &str, within: &Matchers) -> Result<Arc<Limited>, String> {
        let limited = self.0.rewrites.limit(query, within)?;
        // It was read already; the limits of a stranger's text need not fit what became of it here.
        if !self.0.analyses.contains_key(limited.text()) {
            self.0.analyses.insert(limited.text().to_owned(), limited.analysis().clone());
        }
        Ok(limited)
    }

    /// Plans a request for a path below a datasource (`headers`: those that may change an answer, by name).
    pub fn plan(
        &self,
        (endpoint, path): (Endpoint, &str),
        source: Source<'_>,
        params: &Params,
        headers: &[(String, String)],
        policy: &Arc<Policy>,
    ) -> Result<Plan, Uncacheable> {
        let input = Input { endpoint, label: label_in(path), source, params, headers, now_ms: now_ms(), policy };
        let mut plan = plan(&input, |query| self.0.analyse(query))?;
        plan.floor = self.0.flushes.floor(|| Subject {
            source: &plan.source,
            names: &plan.names,
            keys: [Some(&plan.key.hash), plan.points.as_ref().map(|points| &points.key.hash)],
        });
        Ok(plan)
    }

    /// Answers a planned request.
    pub async fn serve(&self, plan: Plan, freshness: Freshness, fetch: Fetch) -> Result<Response<Body>, ApiError> {
        let (endpoint, class) = (plan.endpoint.as_str(), plan.class.as_str());
        let answer = self.answer(Arc::new(plan), freshness, fetch).await;
        self.0.metrics.query_answered(endpoint, class, answer.as_ref().map_or("error", from));
        answer
    }

    async fn answer(&self, plan: Arc<Plan>, freshness: Freshness, fetch: Fetch) -> Result<Response<Body>, ApiError> {
        let inner = &self.0;
        match freshness {
            Freshness::Cached => {
                if let Some(answer) = self.at_once(&plan, &fetch) {
                    return Ok(answer);
                }
                inner.metrics.cache("query", "l1", "miss");
            }
            Freshness::Refresh => inner.metrics.cache("query", "l1", "bypass"),
            Freshness::NoStore => {
                inner.metrics.cache("query", "l1", "bypass");
                return self.pass(plan.endpoint, &fetch).await;
            }
        }
        let mut refused = None;
        for _ in 0..ATTEMPTS {
            let (role, ticket) = self.join(&plan, freshness, Duration::ZERO, &fetch);
            if role == Role::Follower {
                inner.metrics.cache("query", "flight", "shared");
            }
            match ticket.wait().await {
                Ok(Outcome::Failed(error @ ApiError::TooManyQueries { .. })) if role == Role::Follower => {
                    refused = Some(error);
                }
                Ok(outcome) => return self.respond(&plan, freshness, role, outcome, &fetch).await,
                Err(_) => {}
            }
        }
        let lost = || ApiError::Internal("the shared request to the datasource ended without a result".to_owned());
        Err(refused.unwrap_or_else(lost))
    }

    /// Answers a request for which there is no plan.
    pub async fn bypass(&self, endpoint: Endpoint, fetch: &Fetch) -> Result<Response<Body>, ApiError> {
        let answer = self.pass(endpoint, fetch).await;
        let from = answer.as_ref().map_or("error", from);
        self.0.metrics.query_answered(endpoint.as_str(), "uncacheable", from);
        answer
    }

    /// What can be given without waiting; a fresh answer is asked for beside that when it is time.
    fn at_once(&self, plan: &Arc<Plan>, fetch: &Fetch) -> Option<Response<Body>> {
        let inner = &self.0;
        if let Some(stored) = inner.finished.known(plan) {
            // The wall clock decides, not only the cache's own timer: a suspended process must not serve old answers.
            let (word, ahead) = match judge(&stored, &plan.policy.stale, now_ms(), rand::random()) {
                Use::Fresh => ("hit", None),
                Use::Early { left } => ("hit", Some(left)),
                Use::Meanwhile => ("stale", Some(Duration::ZERO)),
                Use::Over => ("", None),
            };
            if let Some(ahead) = ahead {
                self.renew(plan, ahead, fetch);
            }
            if !word.is_empty() {
                inner.metrics.cache("query", "l1", word);
                return Some(hit(&stored, if word == "stale" { word } else { Tier::L1.as_str() }));
            }
        }
        let stored = inner.finished.in_trouble(plan)?;
        inner.metrics.cache("query", "trouble", "stale");
        Some(hit(&stored, "stale"))
    }

    /// Asks for a fresh answer that nobody waits for.
    fn renew(&self, plan: &Arc<Plan>, ahead: Duration, fetch: &Fetch) {
        if let (Role::Leader, ticket) = self.join(plan, Freshness::Cached, ahead, fetch) {
            tokio::spawn(ticket.wait());
        }
    }

    /// Joins the flight for a plan, or starts it; with points looked at as they will be after `ahead`.
    fn join(&self, plan: &Arc<Plan>, freshness: Freshness, ahead: Duration, fetch: &Fetch) -> (Role, Ticket<Outcome>) {
        // A timeout that is one ends the wait of its client only. Another is for the datasource to refuse.
        let timeout = plan.timeout.clone().filter(|text| deadline::parse(text).is_none());
        let key = FlightKey { hash: plan.key.hash, timeout, freshness, floor: plan.floor };
        self.0.flights.join(&key, || {
            let (inner, plan, fetch) = (self.0.clone(), plan.clone(), fetch.clone());
            async move { inner.fly(&plan, freshness, ahead, &fetch).await }
        })
    }

    /// Asks the datasource past the cache.
    async fn pass(&self, endpoint: Endpoint, fetch: &Fetch) -> Result<Response<Body>, ApiError> {
        Ok(with_status(self.uncached(endpoint, fetch).await?, "perses; fwd=bypass"))
    }

    /// As [`Self::pass`], without a word about the cache. What is small enough is read first: whether it is over a limit is
    /// known then, before the head goes out.
    pub async fn uncached(&self, endpoint: Endpoint, fetch: &Fetch) -> Result<Response<Body>, ApiError> {
        let _in_flight = self.0.metrics.upstream_query(endpoint.as_str());
        Ok(match gather(fetch(None).await?, self.0.max_cached).await? {
            Fetched::Whole(gathered) => gathered.response(),
            Fetched::Oversize(response) => response,
        })
    }

    async fn respond(
        &self,
        plan: &Plan,
        freshness: Freshness,
        role: Role,
        outcome: Outcome,
        fetch: &Fetch,
    ) -> Result<Response<Body>, ApiError> {
        let forwarded = match freshness {
            Freshness::Cached => "perses; fwd=miss",
            Freshness::Refresh | Freshness::NoStore => "perses; fwd=bypass",
        };
        let response = match outcome {
            Outcome::Found(stored, tier) => hit(&stored, tier.as_str()),
            Outcome::Kept(stored, Forward::Nothing) => hit(&stored, "points"),
            Outcome::Kept(stored, _) if role == Role::Follower && freshness == Freshness::Cached => {
                hit(&stored, "shared")
            }
            Outcome::Kept(stored, Forward::Part) if freshness == Freshness::Cached => {
                with_status(plain(&stored), "perses; fwd=partial; stored")
            }
            Outcome::Kept(stored, _) => with_status(plain(&stored), forwarded),
            Outcome::Whole(gathered) => with_status(Gathered::clone(&gathered).response(), forwarded),
            Outcome::Oversize(reader) => {
                let taken = reader.lock().take();
                match taken {
                    Some(response) => with_status(response, forwarded),
                    None => self.pass(plan.endpoint, fetch).await?,
                }
            }
            Outcome::Stale(stored) => hit(&stored, "stale"),
            Outcome::Failed(error) => return Err(error),
        };
        Ok(response)
    }
}

impl Inner {
    fn analyse(&self, query: &str) -> Arc<Analysis> {
        if let Some(known) = self.analyses.get(query) {
            return known;
        }
        let analysis = Arc::new(promql::analyse(query));
        self.analyses.insert(query.to_owned(), analysis.clone());
        analysis
    }

    /// The work of a flight.
    async fn fly(&self, plan: &Plan, freshness: Freshness, ahead: Duration, fetch: &Fetch) -> Outcome {
        let is_wanted_now = freshness == Freshness::Cached && ahead.is_zero();
        if is_wanted_now {
            // Another flight may have landed between our look and our start.
            if let Some(stored) = self.finished.in_memory(plan) {
                return Outcome::Found(stored, Tier::L1);
            }
            if let Some(stored) = self.finished.in_redis(plan).await {
                self.finished.insert(&plan.key, stored.clone());
                return Outcome::Found(stored, Tier::L2);
            }
        }
        let points = plan.points.as_ref().filter(|points| self.points.fits(points, &plan.policy));
        let draft = match points {
            Some(points) => Some(self.points.draft(plan, points, freshness, ahead, &self.metrics).await),
            None => None,
        };
        let is_known = draft.as_ref().is_some_and(Draft::is_complete);
        let lease = match self.claim(plan, is_wanted_now && !is_known).await {
            Claim::Found(stored) => {
                self.metrics.cache("query", "lease", "shared");
                self.finished.insert(&plan.key, stored.clone());
                return Outcome::Found(stored, Tier::L2);
            }
            Claim::Held(lease) => Some(lease),
            Claim::Alone => None,
        };
        let started = Instant::now();
        let outcome = self.ask(plan, draft, fetch).await;
        if !is_known && matches!(outcome, Outcome::Kept(..)) {
            self.costs.note(plan.query(), started.elapsed());
        }
        let kept = match &outcome {
            Outcome::Kept(stored, _) => Some(stored.clone()),
            _ => None,
        };
        let has_points = points.is_some_and(|points| self.points.fits(points, &plan.policy));
        self.finished.share(&plan.key, kept, has_points, lease);
        if freshness == Freshness::Cached { self.in_trouble(plan, outcome) } else { outcome }
    }

    /// What was known before, in place of an answer that the datasource cannot give.
    fn in_trouble(&self, plan: &Plan, outcome: Outcome) -> Outcome {
        let reason = match &outcome {
            Outcome::Failed(error) if error.status().is_server_error() => error.to_string(),
            Outcome::Whole(gathered) if gathered.status.is_server_error() => gathered.status.to_string(),
            _ => return outcome,
        };
        let now = now_ms();
        let says =
            |at: i64| warning(Duration::from_millis(u64::try_from(now.saturating_sub(at)).unwrap_or(0)), &reason);
        let printed = self.points.in_trouble(plan, now, says).map(|printed| (printed.body, printed.fetched_at));
        let known = printed.or_else(|| {
            let stored = self.finished.before(plan, now)?;
            Some((with_warning(&stored.body, says(stored.stored_at_ms))?, stored.stored_at_ms))
        });
        let Some((body, stored_at_ms)) = known else { return outcome };
        let stored = Arc::new(Stored {
            key: Arc::from(plan.key.text.as_str()),
            stored_at_ms,
            ttl: Duration::ZERO,
            took: Duration::ZERO,
            grace: Duration::ZERO,
            content_type: HeaderValue::from_static("application/json"),
            body: body.into(),
            gzip: Gzip::default(),
        });
        self.metrics.cache("query", "trouble", "stale");
        self.finished.trouble(&plan.key, stored.clone());
        Outcome::Stale(stored)
    }

    /// Whether another pod asks for the same, and what came of it.
    async fn claim(&self, plan: &Plan, is_worth: bool) -> Claim<Arc<Stored>> {
        match &self.redis {
            Some(redis) if is_worth && !self.costs.is_below(&plan.query(), CHEAP) => {
                let look = || self.finished.in_redis(plan);
                claim(redis, &plan.key.lease_name(), plan.policy.timeout, look).await
            }
            _ => Claim::Alone,
        }
    }

    /// Asks the datasource for what is not known.
    async fn ask(&self, plan: &Plan, draft: Option<Draft<'_>>, fetch: &Fetch) -> Outcome {
        let begun = Instant::now();
        if let Some(draft) = draft {
            match self.points.window(plan, draft, fetch, &self.metrics).await {
                Window::Printed(printed, forward) => return self.assembled(plan, printed, forward, begun.elapsed()),
                Window::Whole(fetched) => return self.sorted(plan, fetched, now_ms(), begun.elapsed()).await,
                Window::Failed(error) => return self.failed(error),
                Window::Again => {}
            }
        }
        let _in_flight = self.metrics.upstream_query(plan.endpoint.as_str());
        let started_ms = now_ms();
        let fetched = match fetch(None).await {
            Ok(response) => gather(response, self.max_cached).await,
            Err(error) => Err(error),
        };
        match fetched {
            Ok(fetched) => self.sorted(plan, fetched, started_ms, begun.elapsed()).await,
            Err(error) => self.failed(error),
        }
    }

    fn failed(&self, error: ApiError) -> Outcome {
        self.metrics.cache("query", "upstream", "error");
        Outcome::Failed(error)
    }

    /// Keeps an answer that was put together.
    fn assembled(&self, plan: &Plan, printed: Printed, forward: Forward, took: Duration) -> Outcome {
        let word = match forward {
            Forward::Nothing => "hit",
            Forward::Part => "partial",
            Forward::Whole => "miss",
        };
        self.metrics.cache("query", "points", word);
        if let Err(error) = self.protection.assembled(&plan.policy.limits, &printed.body) {
            return Outcome::Failed(error);
        }
        let now = now_ms();
        let age = Duration::from_millis(u64::try_from(now.saturating_sub(printed.fetched_at)).unwrap_or(0));
        let stored = Arc::new(Stored {
            key: Arc::from(plan.key.text.as_str()),
            stored_at_ms: printed.fetched_at,
            // It ends when the first of its points does, and no later than the table says of the whole.
            ttl: (age + printed.remaining).min(age + plan.ttl),
            took,
            // In trouble the points are there.
            grace: plan.policy.stale.while_revalidate.0,
            content_type: HeaderValue::from_static("application/json"),
            body: printed.body.into(),
            gzip: Gzip::default(),
        });
        self.finished.keep(&plan.key, &stored);
        Outcome::Kept(stored, forward)
    }

    /// Keeps the datasource's own answer, if it may be kept.
    async fn sorted(&self, plan: &Plan, fetched: Fetched, started_ms: i64, took: Duration) -> Outcome {
        match fetched {
            Fetched::Whole(gathered) if gathered.is_cacheable().await => {
                let stored = Arc::new(Stored {
                    key: Arc::from(plan.key.text.as_str()),
                    stored_at_ms: started_ms,
                    ttl: plan.ttl,
                    took,
                    grace: plan.policy.stale.while_revalidate.0.max(plan.policy.stale.if_error.0),
                    content_type: content_type(&gathered.headers),
                    body: gathered.body,
                    gzip: Gzip::default(),
                });
                self.finished.keep(&plan.key, &stored);
                self.finished.note(plan, &stored);
                self.metrics.cache("query", "upstream", "stored");
                Outcome::Kept(stored, Forward::Whole)
            }
            Fetched::Whole(gathered) => {
                self.metrics.cache("query", "upstream", "uncacheable");
                Outcome::Whole(Arc::new(gathered))
            }
            Fetched::Oversize(response) => {
                self.metrics.cache("query", "upstream", "oversize");
                Outcome::Oversize(Arc::new(Mutex::new(Some(response))))
            }
        }
    }
}

/// Counts what a tier drops for want of room.
pub(super) fn evicted<K, V>(
    tier: &'static str,
    metrics: &Arc<Metrics>,
) -> impl Fn(Arc<K>, V, RemovalCause) + Send + Sync + 'static {
    let metrics = metrics.clone();
    move |_, _, cause| {
        if cause == RemovalCause::Size {
            metrics.query_cache_evicted(tier);
        }
    }
}

pub(super) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}
