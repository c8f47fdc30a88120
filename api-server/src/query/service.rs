//! The tiers in their order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::http::{HeaderValue, Response};
use jiff::Timestamp;
use moka::Expiry;
use moka::sync::Cache;
use parking_lot::Mutex;

use super::answer::{content_type, hit, plain, with_status};
use super::costs::Costs;
use super::fetch::{Fetch, Fetched, Gathered, OneReader, gather};
use super::flight::{Flights, Role};
use super::freshness::Freshness;
use super::lease::{Claim, Lease, claim};
use super::params::Params;
use super::plan::{BUCKET_MS, Endpoint, Input, Plan, QueryKey, Uncacheable, plan};
use super::points::{Draft, Forward, PointStore, Window};
use super::policy::{Policies, Policy};
use super::promql::{self, Analysis};
use super::range::entry::Printed;
use super::stored::{Gzip, Stored};
use crate::cache::Tier;
use crate::cache::redis::RedisTier;
use crate::config;
use crate::error::ApiError;
use crate::metrics::Metrics;

/// Bytes for remembered analyses of expressions.
const ANALYSES_MAX_BYTES: u64 = 4 << 20;
/// A flight whose work was lost (a panic) is tried again by its waiters this often.
const ATTEMPTS: usize = 2;
/// Queries that take less than this are asked for by each pod: agreeing with the others would take as long.
const CHEAP: Duration = Duration::from_millis(5);
/// Put together from points, an answer need not outlive the bucket in Redis: what comes then is put together again.
const BUCKET: Duration = Duration::from_millis(BUCKET_MS.cast_unsigned());

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
    points: PointStore,
    flights: Flights<FlightKey, Outcome>,
    costs: Costs,
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
            points: PointStore::new(l1_max_bytes / 2, max_cached, l2.clone()),
            l2,
            analyses,
            flights: Flights::default(),
            costs: Costs::default(),
            metrics,
        }))
    }

    /// What holds for a datasource; one without a project is global.
    pub fn policy(&self, project: Option<&str>, name: &str) -> Arc<Policy> {
        self.0.policies.load().of(project, name).clone()
    }

    /// Plans a request to a datasource (`source`: its digest; `headers`: those that may change an answer, by name).
    pub fn plan(
        &self,
        endpoint: Endpoint,
        source: &blake3::Hash,
        params: &Params,
        headers: &[(String, String)],
        policy: &Arc<Policy>,
    ) -> Result<Plan, Uncacheable> {
        let input = Input { endpoint, source, params, headers, now_ms: now_ms(), policy };
        plan(&input, |query| self.0.analyse(query))
    }

    /// Answers a planned request.
    pub async fn serve(&self, plan: Plan, freshness: Freshness, fetch: Fetch) -> Result<Response<Body>, ApiError> {
        let inner = &self.0;
        match freshness {
            Freshness::Cached => {
                if let Some(stored) = inner.look_in_memory(&plan.key) {
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
        let key = FlightKey { hash: plan.key.hash, timeout: plan.timeout.clone(), freshness };
        for _ in 0..ATTEMPTS {
            let (role, ticket) = inner.flights.join(&key, || {
                let (inner, plan, fetch) = (self.0.clone(), plan.clone(), fetch.clone());
                async move { inner.fly(&plan, freshness, &fetch).await }
            });
            if role == Role::Follower {
                inner.metrics.cache("query", "flight", "shared");
            }
            if let Ok(outcome) = ticket.wait().await {
                return self.respond(&plan, freshness, role, outcome, &fetch).await;
            }
        }
        Err(ApiError::Internal("the shared request to the datasource ended without a result".to_owned()))
    }

    /// Asks the datasource past the cache.
    pub async fn pass(&self, endpoint: Endpoint, fetch: &Fetch) -> Result<Response<Body>, ApiError> {
        let _in_flight = self.0.metrics.upstream_query(endpoint.as_str());
        Ok(with_status(fetch(None).await?, "perses; fwd=bypass"))
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
            Outcome::Whole(gathered) => {
                let mut response = Response::new(Body::from(gathered.body.clone()));
                *response.status_mut() = gathered.status;
                *response.headers_mut() = gathered.headers.clone();
                with_status(response, forwarded)
            }
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

    fn look_in_memory(&self, key: &QueryKey) -> Option<Arc<Stored>> {
        // The wall clock decides, not only the cache's own timer: a suspended process must not serve old answers.
        self.l1.get(&key.hash).filter(|stored| *stored.key == *key.text && stored.remaining(now_ms()).is_some())
    }

    /// The work of a flight.
    async fn fly(&self, plan: &Plan, freshness: Freshness, fetch: &Fetch) -> Outcome {
        if freshness == Freshness::Cached {
            // Another flight may have landed between our look and our start.
            if let Some(stored) = self.look_in_memory(&plan.key) {
                return Outcome::Found(stored, Tier::L1);
            }
            if let Some(stored) = self.look_in_redis(&plan.key).await {
                self.l1.insert(plan.key.hash, stored.clone());
                return Outcome::Found(stored, Tier::L2);
            }
        }
        let points = plan.points.as_ref().filter(|points| self.points.fits(points, &plan.policy));
        let draft = match points {
            Some(points) => Some(self.points.draft(plan, points, freshness, &self.metrics).await),
            None => None,
        };
        let is_known = draft.as_ref().is_some_and(Draft::is_complete);
        let lease = match self.claim(plan, freshness == Freshness::Cached && !is_known).await {
            Claim::Found(stored) => {
                self.metrics.cache("query", "lease", "shared");
                self.l1.insert(plan.key.hash, stored.clone());
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
        self.share(plan, &outcome, lease);
        outcome
    }

    /// Whether another pod asks for the same, and what came of it.
    async fn claim(&self, plan: &Plan, is_worth: bool) -> Claim<Arc<Stored>> {
        match &self.l2 {
            Some(redis) if is_worth && !self.costs.is_below(&plan.query(), CHEAP) => {
                let look = || self.look_in_redis(&plan.key);
                claim(redis, &plan.key.lease_name(), plan.policy.timeout, look).await
            }
            _ => Claim::Alone,
        }
    }

    /// Asks the datasource for what is not known.
    async fn ask(&self, plan: &Plan, draft: Option<Draft<'_>>, fetch: &Fetch) -> Outcome {
        if let Some(draft) = draft {
            match self.points.window(plan, draft, fetch, &self.metrics).await {
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
        let now = now_ms();
        let age = Duration::from_millis(u64::try_from(now.saturating_sub(printed.fetched_at)).unwrap_or(0));
        let stored = Arc::new(Stored {
            key: Arc::from(plan.key.text.as_str()),
            stored_at_ms: printed.fetched_at,
            // It ends when the first of its points does, and no later than the table says of the whole.
            ttl: (age + printed.remaining).min(age + plan.ttl),
            content_type: HeaderValue::from_static("application/json"),
            body: printed.body.into(),
            gzip: Gzip::default(),
        });
        self.keep(&plan.key, &stored);
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
                    gzip: Gzip::default(),
                });
                self.keep(&plan.key, &stored);
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

    async fn look_in_redis(&self, key: &QueryKey) -> Option<Arc<Stored>> {
        let redis = self.l2.as_ref()?;
        let found = redis.get_bytes(&key.redis_name()).await;
        let found = found.and_then(|value| Stored::decode(&value, &key.text, now_ms()));
        self.metrics.cache("query", "l2", if found.is_some() { "hit" } else { "miss" });
        found.map(Arc::new)
    }

    /// Puts an answer into memory; one that was asked for later is not replaced by an earlier one.
    fn keep(&self, key: &QueryKey, stored: &Arc<Stored>) {
        let newer = self.l1.get(&key.hash).is_some_and(|known| known.stored_at_ms > stored.stored_at_ms);
        if !newer && stored.remaining(now_ms()).is_some() {
            self.l1.insert(key.hash, stored.clone());
        }
    }

    /// Gives an answer to other pods, and tells those that wait for it.
    fn share(&self, plan: &Plan, outcome: &Outcome, lease: Option<Lease>) {
        let Some(redis) = self.l2.clone() else { return };
        let kept = match outcome {
            Outcome::Kept(stored, _) => Some(stored.clone()),
            _ => None,
        };
        let has_points = plan.points.as_ref().is_some_and(|points| self.points.fits(points, &plan.policy));
        let name = plan.key.redis_name();
        // Nobody waits for Redis, and the end of the flight must not end this.
        tokio::spawn(async move {
            let life = kept.as_ref().and_then(|stored| stored.remaining(now_ms()));
            let life = life.map(|life| if has_points { life.min(BUCKET) } else { life });
            let mut is_there = false;
            if let (Some(stored), Some(life)) = (kept, life)
                && let Some(value) = stored.encode()
            {
                is_there = redis.set_bytes(&name, &value, life).await;
                // Others wait for it.
                if !is_there && lease.is_some() && redis.is_available() {
                    is_there = redis.set_bytes(&name, &value, life).await;
                }
            }
            match lease {
                Some(lease) if is_there => lease.published().await,
                Some(lease) => lease.nothing().await,
                None => {}
            }
        });
    }
}

pub(super) fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}
