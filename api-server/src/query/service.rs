//! The tiers in their order.

mod control;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::http::{HeaderValue, Response};
use jiff::Timestamp;
use moka::Expiry;
use moka::notification::RemovalCause;
use moka::sync::Cache;
use parking_lot::Mutex;

use super::answer::{content_type, from, hit, plain, with_status};
use super::fetch::{Fetch, Fetched, Gathered, OneReader, gather};
use super::flight::{Flights, Role};
use super::floors::{Floor, Subject};
use super::flush::Flushes;
use super::freshness::Freshness;
use super::params::Params;
use super::plan::{Endpoint, Input, Plan, Source, Uncacheable, label_in, plan};
use super::points::{Forward, PointStore, Window};
use super::policy::{Policies, Policy};
use super::promql::{self, Analysis};
use super::protect::{Asker, Guard, Protection, deadline};
use super::range::entry::Printed;
use super::stored::Stored;
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

/// Entries live as long as their answer says.
struct Lives;

impl Expiry<blake3::Hash, Arc<Stored>> for Lives {
    fn expire_after_create(&self, _: &blake3::Hash, stored: &Arc<Stored>, _: Instant) -> Option<Duration> {
        Some(stored.remaining(now_ms()).unwrap_or_default())
    }

    fn expire_after_update(
        &self,
        key: &blake3::Hash,
        stored: &Arc<Stored>,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, stored, now)
    }
}

/// The cached query endpoints.
#[derive(Debug, Clone)]
pub struct QueryService(Arc<Inner>);

struct Inner {
    policies: ArcSwap<Policies>,
    max_cached: usize,
    l1: Cache<blake3::Hash, Arc<Stored>>,
    l2: Option<Arc<RedisTier>>,
    analyses: Cache<String, Arc<Analysis>>,
    rewrites: Rewrites,
    points: PointStore,
    flights: Flights<FlightKey, Outcome>,
    protection: Arc<Protection>,
    flushes: Flushes,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueryService")
            .field("policies", &self.policies.load())
            .field("l2", &self.l2.is_some())
            .finish_non_exhaustive()
    }
}

impl QueryService {
    /// `l1_max_bytes` bounds what is held in memory: one half for points, the other for finished answers.
    pub fn new(config: &config::Query, l1_max_bytes: u64, l2: Option<Arc<RedisTier>>, metrics: Arc<Metrics>) -> Self {
        let max_cached = usize::try_from(config.max_cached_bytes).unwrap_or(usize::MAX);
        let l1 = Cache::builder()
            .max_capacity(l1_max_bytes / 2)
            .weigher(|_, stored: &Arc<Stored>| stored.weight())
            .expire_after(Lives)
            .eviction_listener(evicted("l1", &metrics))
            .build();
        let analyses = Cache::builder()
            .max_capacity(ANALYSES_MAX_BYTES)
            .weigher(|query: &String, analysis: &Arc<Analysis>| {
                u32::try_from(query.len() + analysis.text.len() + 200).unwrap_or(u32::MAX)
            })
            .build();
        Self(Arc::new(Inner {
            policies: ArcSwap::from_pointee(Policies::new(config)),
            max_cached,
            l1,
            flushes: Flushes::new(config, l2.clone()),
            l2,
            analyses,
            rewrites: Rewrites::default(),
            points: PointStore::new(l1_max_bytes / 2, max_cached, &metrics),
            flights: Flights::default(),
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
        let answer = self.answer(plan, freshness, fetch).await;
        self.0.metrics.query_answered(endpoint, class, answer.as_ref().map_or("error", from));
        answer
    }

    async fn answer(&self, plan: Plan, freshness: Freshness, fetch: Fetch) -> Result<Response<Body>, ApiError> {
        let inner = &self.0;
        match freshness {
            Freshness::Cached => {
                if let Some(stored) = inner.look_in_memory(&plan) {
                    inner.metrics.cache("query", "l1", "hit");
                    return Ok(hit(&stored, Tier::L1.as_str()));
                }
                inner.metrics.cache("query", "l1", "miss");
            }
            Freshness::Refresh => inner.metrics.cache("query", "l1", "bypass"),
            Freshness::NoStore => {
                inner.metrics.cache("query", "l1", "bypass");
                return self.pass(plan.endpoint, &fetch).await;
            }
        }
        let plan = Arc::new(plan);
        // A timeout that is one ends the wait of its client only. Another is for the datasource to refuse.
        let timeout = plan.timeout.clone().filter(|text| deadline::parse(text).is_none());
        let key = FlightKey { hash: plan.key.hash, timeout, freshness, floor: plan.floor };
        let mut refused = None;
        for _ in 0..ATTEMPTS {
            let (role, ticket) = inner.flights.join(&key, || {
                let (inner, plan, fetch) = (self.0.clone(), plan.clone(), fetch.clone());
                async move { inner.fly(&plan, freshness, &fetch).await }
            });
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

    fn look_in_memory(&self, plan: &Plan) -> Option<Arc<Stored>> {
        let key = &plan.key;
        // The wall clock decides, not only the cache's own timer: a suspended process must not serve old answers.
        self.l1.get(&key.hash).filter(|stored| {
            *stored.key == *key.text && stored.stored_at_ms > plan.floor.own && stored.remaining(now_ms()).is_some()
        })
    }

    /// The work of a flight.
    async fn fly(&self, plan: &Plan, freshness: Freshness, fetch: &Fetch) -> Outcome {
        if freshness == Freshness::Cached {
            // Another flight may have landed between our look and our start.
            if let Some(stored) = self.look_in_memory(plan) {
                return Outcome::Found(stored, Tier::L1);
            }
            if let Some(stored) = self.look_in_redis(plan).await {
                self.l1.insert(plan.key.hash, stored.clone());
                return Outcome::Found(stored, Tier::L2);
            }
        }
        if let Some(points) = plan.points.as_ref().filter(|points| self.points.fits(points, &plan.policy)) {
            match self.points.window(plan, points, freshness, fetch, &self.metrics).await {
                Window::Printed(printed, forward) => return self.assembled(plan, printed, forward),
                Window::Whole(fetched) => return self.sorted(plan, fetched, now_ms()).await,
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
            Ok(fetched) => self.sorted(plan, fetched, started_ms).await,
            Err(error) => self.failed(error),
        }
    }

    fn failed(&self, error: ApiError) -> Outcome {
        self.metrics.cache("query", "upstream", "error");
        Outcome::Failed(error)
    }

    /// Keeps an answer that was put together.
    fn assembled(&self, plan: &Plan, printed: Printed, forward: Forward) -> Outcome {
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
            content_type: HeaderValue::from_static("application/json"),
            body: printed.body.into(),
        });
        self.keep(plan, &stored);
        Outcome::Kept(stored, forward)
    }

    /// Keeps the datasource's own answer, if it may be kept.
    async fn sorted(&self, plan: &Plan, fetched: Fetched, started_ms: i64) -> Outcome {
        match fetched {
            Fetched::Whole(gathered) if gathered.is_cacheable().await => {
                let stored = Arc::new(Stored {
                    key: Arc::from(plan.key.text.as_str()),
                    stored_at_ms: started_ms,
                    ttl: plan.ttl,
                    content_type: content_type(&gathered.headers),
                    body: gathered.body,
                });
                self.keep(plan, &stored);
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

    async fn look_in_redis(&self, plan: &Plan) -> Option<Arc<Stored>> {
        let (redis, key) = (self.l2.as_ref()?, &plan.key);
        let found = redis.get_bytes(&key.redis_name()).await;
        let found = found.and_then(|value| Stored::decode(&value, &key.text, now_ms()));
        let found = found.filter(|stored| stored.stored_at_ms > plan.floor.shared);
        self.metrics.cache("query", "l2", if found.is_some() { "hit" } else { "miss" });
        found.map(Arc::new)
    }

    /// Puts an answer into both tiers; an answer that was asked for later is not replaced by an earlier one.
    fn keep(&self, plan: &Plan, stored: &Arc<Stored>) {
        let key = &plan.key;
        let newer = self.l1.get(&key.hash).is_some_and(|known| known.stored_at_ms > stored.stored_at_ms);
        let Some(remaining) = stored.remaining(now_ms()).filter(|_| !newer) else { return };
        self.l1.insert(key.hash, stored.clone());
        if let Some(redis) = self.l2.clone() {
            let (name, stored) = (key.redis_name(), stored.clone());
            // Nobody waits for Redis, and the end of the flight must not end this.
            tokio::spawn(async move {
                if let Some(value) = stored.encode() {
                    redis.set_bytes(&name, &value, remaining).await;
                }
            });
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
