//! Range queries put together from points: what is missing or may have changed is asked for, the rest is known.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use futures::future::join_all;
use moka::sync::Cache;
use tokio::sync::OwnedMutexGuard;

use super::fetch::{Fetch, Fetched, Gathered, gather, says_all_is_there};
use super::freshness::Freshness;
use super::params::Bounds;
use super::plan::{Plan, Points, QueryKey};
use super::policy::Policy;
use super::range::blob;
use super::range::chunk::Chunk;
use super::range::entry::{Entry, Printed, Rules};
use super::range::grid::Span;
use super::range::samples::{Answer, Unfit};
use super::range::sharing;
use super::service::{evicted, now_ms};
use super::turns::Turns;
use crate::cache::redis::RedisTier;
use crate::error::ApiError;
use crate::metrics::{Held, Metrics};

/// Above this many bytes an answer is taken apart on a thread for blocking work.
const READ_ASIDE: usize = 256 << 10;

/// A query whose answers could not be put together is tried again after this time.
const UNFIT: Duration = Duration::from_mins(5);
/// Points that nobody asks for are dropped after this time.
const IDLE: Duration = Duration::from_hours(1);

/// The points of one query, under its whole key.
#[derive(Clone)]
struct Known {
    key: Arc<str>,
    entry: Arc<Entry>,
    /// What of it is in Redis.
    shared: Arc<sharing::Known>,
}

/// What is known of range queries.
pub(super) struct PointStore {
    entries: Cache<blake3::Hash, Known>,
    /// Queries whose answers could not be put together lately: they are kept whole.
    unfit: Cache<blake3::Hash, ()>,
    turns: Turns<blake3::Hash>,
    redis: Option<Arc<RedisTier>>,
    max_bytes: usize,
}

/// A window on its way: what is known of it, and what is not.
pub(super) struct Draft<'a> {
    points: &'a Points,
    /// Windows of one query follow each other.
    _turn: OwnedMutexGuard<()>,
    rules: Rules,
    entry: Arc<Entry>,
    shared: Arc<sharing::Known>,
    is_refresh: bool,
    is_changed: bool,
    /// Points are looked at as they will be after so many milliseconds.
    ahead: i64,
    missing: Vec<Span>,
}

/// How much of an answer was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forward {
    /// All.
    Nothing,
    /// The datasource was asked for a part.
    Part,
    /// The datasource was asked for all.
    Whole,
}

/// What came of a window.
pub(super) enum Window {
    /// The answer.
    Printed(Printed, Forward),
    /// The datasource's own answer for the window.
    Whole(Fetched),
    /// No answer.
    Failed(ApiError),
    /// The window must be asked for whole.
    Again,
}

/// What the datasource gave instead of points.
enum Strange {
    Failed(ApiError),
    Oversize(Response<Body>),
    Answer(Gathered, Unfit),
}

impl PointStore {
    /// `capacity` bounds the bytes of all points, `max_bytes` those of one answer and of one query's points.
    pub(super) fn new(capacity: u64, max_bytes: usize, redis: Option<Arc<RedisTier>>, metrics: &Arc<Metrics>) -> Self {
        let entries = Cache::builder()
            .max_capacity(capacity)
            .weigher(|_, known: &Known| u32::try_from(known.key.len() + known.entry.weight() + 200).unwrap_or(u32::MAX))
            .time_to_idle(IDLE)
            .eviction_listener(evicted("points", metrics))
            .build();
        Self {
            entries,
            unfit: Cache::builder().max_capacity(10_000).time_to_live(UNFIT).build(),
            turns: Turns::default(),
            redis,
            max_bytes,
        }
    }

    /// All that is known, by the texts of keys; and what it weighs.
    pub(super) fn each(&self) -> impl Iterator<Item = (blake3::Hash, Arc<str>, Arc<Entry>)> {
        self.entries.iter().map(|(hash, known)| (*hash, known.key, known.entry))
    }

    /// What is known under a key.
    pub(super) fn known(&self, key: &QueryKey) -> Option<Arc<Entry>> {
        self.entries.get(&key.hash).filter(|known| *known.key == *key.text).map(|known| known.entry)
    }

    /// How much is known.
    pub(super) fn held(&self) -> Held {
        self.entries.run_pending_tasks();
        Held { entries: self.entries.entry_count(), bytes: self.entries.weighted_size() }
    }

    /// Forgets a query.
    pub(super) fn forget(&self, hash: &blake3::Hash) {
        self.entries.invalidate(hash);
    }

    /// Whether answers of these points may be put together: they have a life, and could be so far.
    pub(super) fn fits(&self, points: &Points, policy: &Policy) -> bool {
        let lives = [policy.settled, policy.ttl.realtime.0];
        lives.iter().all(|life| !life.is_zero()) && !self.unfit.contains_key(&points.key.hash)
    }

    /// What is known of a window, here and in Redis.
    pub(super) async fn draft<'a>(
        &self,
        plan: &Plan,
        points: &'a Points,
        freshness: Freshness,
        ahead: Duration,
        metrics: &Metrics,
    ) -> Draft<'a> {
        let turn = self.turns.take(points.key.hash).await;
        let found = self.entries.get(&points.key.hash).filter(|known| *known.key == *points.key.text);
        let found = found.filter(|known| known.entry.is_newer_than(plan.floor.own));
        let (entry, shared) = found.map(|known| (known.entry, known.shared)).unwrap_or_default();
        let is_refresh = freshness == Freshness::Refresh;
        let rules = rules(points, &plan.policy);
        let ahead = i64::try_from(ahead.as_millis()).unwrap_or(0);
        let mut draft = Draft {
            points,
            _turn: turn,
            rules,
            entry,
            shared,
            is_refresh,
            is_changed: false,
            ahead,
            missing: Vec::new(),
        };
        draft.look(now_ms());
        if let Some(redis) = self.redis.as_ref().filter(|_| !is_refresh) {
            let wanted = draft.entry.wanted(&draft.missing, &draft.rules, now_ms());
            let mut others = look_in_redis(redis, points, &wanted).await;
            others.retain(|chunk| chunk.is_newer_than(plan.floor.shared));
            if !wanted.is_empty() {
                metrics.cache("query", "l2_points", if others.is_empty() { "miss" } else { "hit" });
            }
            draft.absorb(others, now_ms());
        }
        draft
    }

    /// Answers a window, asking for what is missing.
    pub(super) async fn window(&self, plan: &Plan, mut draft: Draft<'_>, fetch: &Fetch, metrics: &Metrics) -> Window {
        let now = now_ms();
        draft.look(now);
        let Draft { points, rules, mut entry, mut shared, is_changed, missing, .. } = draft;
        if is_changed {
            self.insert(points, entry.clone(), shared.clone());
        }
        let forward = match missing.as_slice() {
            [] => Forward::Nothing,
            [span] if *span == points.span => Forward::Whole,
            _ => Forward::Part,
        };
        let asked = missing.iter().map(|span| {
            let bounds = Bounds { start: rules.grid.time(span.first), end: rules.grid.time(span.last) };
            let in_flight = metrics.upstream_query(plan.endpoint.as_str());
            async move {
                let _in_flight = in_flight;
                match fetch(Some(bounds)).await {
                    Ok(response) => gather(response, self.max_bytes).await,
                    Err(error) => Err(error),
                }
            }
        });
        for (span, fetched) in missing.iter().zip(join_all(asked).await) {
            entry = match self.learned(entry, *span, fetched, rules, now).await {
                Ok(entry) => entry,
                Err(strange) => return self.strange(strange, points, forward),
            };
        }
        // What may be used a moment only, as an answer that took long, is as new as it can be.
        let Some(printed) = entry.print(points.span, &rules, now) else { return Window::Again };
        if forward != Forward::Nothing {
            if entry.weight() > self.max_bytes {
                entry = Arc::new(entry.only(points.span));
            }
            if let Some(redis) = &self.redis {
                let news = entry.news(&missing, Arc::make_mut(&mut shared), &rules, now);
                share(redis, points, news, rules);
            }
            self.insert(points, entry, shared);
        }
        Window::Printed(printed, forward)
    }

    /// What is known of a window, if it is worth showing, when the datasource cannot answer.
    pub(super) fn in_trouble(&self, plan: &Plan, now: i64, warning: impl FnOnce(i64) -> String) -> Option<Printed> {
        let points = plan.points.as_ref()?;
        let entry = self.known(&points.key).filter(|entry| entry.is_newer_than(plan.floor.own))?;
        let allowance = plan.policy.stale.if_error.0;
        entry.print_known(points.span, &rules(points, &plan.policy), allowance, now, warning)
    }

    fn insert(&self, points: &Points, entry: Arc<Entry>, shared: Arc<sharing::Known>) {
        self.entries.insert(points.key.hash, Known { key: Arc::from(points.key.text.as_str()), entry, shared });
    }

    /// What an answer that is no points is for the window.
    fn strange(&self, strange: Strange, points: &Points, forward: Forward) -> Window {
        match strange {
            Strange::Failed(error) => Window::Failed(error),
            // Refusals and errors are answers of their own; what is said about a part is no answer for the whole.
            Strange::Answer(gathered, _) if forward == Forward::Whole || gathered.status != StatusCode::OK => {
                if gathered.status == StatusCode::OK {
                    self.unfit.insert(points.key.hash, ());
                }
                Window::Whole(Fetched::Whole(gathered))
            }
            Strange::Oversize(response) if forward == Forward::Whole => Window::Whole(Fetched::Oversize(response)),
            Strange::Answer(_, why) => {
                tracing::debug!(%why, "points of a query do not fit together: it is asked for whole");
                self.unfit.insert(points.key.hash, ());
                Window::Again
            }
            Strange::Oversize(_) => {
                // Read once, as a whole, from now on.
                self.unfit.insert(points.key.hash, ());
                Window::Again
            }
        }
    }

    /// The entry with an answer; anything but points ends the window.
    async fn learned(
        &self,
        entry: Arc<Entry>,
        span: Span,
        fetched: Result<Fetched, ApiError>,
        rules: Rules,
        fetched_at: i64,
    ) -> Result<Arc<Entry>, Strange> {
        let gathered = match fetched.map_err(Strange::Failed)? {
            Fetched::Whole(gathered) => gathered,
            Fetched::Oversize(response) => return Err(Strange::Oversize(response)),
        };
        if gathered.status != StatusCode::OK || !gathered.headers_allow() {
            return Err(Strange::Answer(gathered, Unfit::Shape));
        }
        let body = gathered.body.clone();
        let read = move || -> Result<Entry, Unfit> {
            let answer = Answer::read(&body, rules.grid, span)?;
            // A warning that a part may be missing.
            if !says_all_is_there(&answer.notes.warnings) {
                return Err(Unfit::Shape);
            }
            Ok(entry.with(span, &answer, &rules, fetched_at))
        };
        let read = if gathered.body.len() > READ_ASIDE {
            tokio::task::spawn_blocking(read).await.unwrap_or(Err(Unfit::Shape))
        } else {
            read()
        };
        read.map(Arc::new).map_err(|why| Strange::Answer(gathered, why))
    }
}

impl Draft<'_> {
    /// Whether nothing must be asked for.
    pub(super) const fn is_complete(&self) -> bool {
        self.missing.is_empty()
    }

    fn look(&mut self, now: i64) {
        let now = now.saturating_add(self.ahead);
        self.missing = if self.is_refresh {
            vec![self.points.span]
        } else {
            self.entry.missing(self.points.span, &self.rules, now)
        };
    }

    fn absorb(&mut self, others: Vec<Chunk>, now: i64) {
        if others.is_empty() {
            return;
        }
        let shared = Arc::make_mut(&mut self.shared);
        for chunk in &others {
            shared.insert(chunk.number(), chunk.slots(|_| true));
        }
        self.entry = Arc::new(self.entry.absorb(others, &self.rules, now));
        self.is_changed = true;
        self.look(now);
    }
}

/// The seed's key family under a version; the braces put all chunks of a query into one slot of a cluster.
fn redis_name(points: &Points, number: i64) -> String {
    format!("v2:query:chunk:{{{}}}:{number}", points.key.hash.to_hex())
}

async fn look_in_redis(redis: &RedisTier, points: &Points, wanted: &[i64]) -> Vec<Chunk> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = wanted.iter().map(|number| redis_name(points, *number)).collect();
    let found = redis.get_many(&names).await.unwrap_or_default();
    let bytes: usize = found.iter().flatten().map(bytes::Bytes::len).sum();
    let (key, wanted) = (points.key.text.clone(), wanted.to_vec());
    let read = move || -> Vec<Chunk> {
        let values = wanted.iter().zip(&found).filter_map(|(number, value)| Some((*number, value.as_ref()?)));
        values.filter_map(|(number, value)| blob::decode(value, &key, number)).collect()
    };
    if bytes > READ_ASIDE { tokio::task::spawn_blocking(read).await.unwrap_or_default() } else { read() }
}

/// Gives points to other pods. Nobody waits for it.
fn share(redis: &Arc<RedisTier>, points: &Points, news: Vec<Chunk>, rules: Rules) {
    if news.is_empty() || !redis.is_available() {
        return;
    }
    let (redis, points) = (redis.clone(), points.clone());
    tokio::spawn(async move {
        for chunk in news {
            let (name, key) = (redis_name(&points, chunk.number()), points.key.text.clone());
            let Some(life) = chunk.remaining(&rules, now_ms()) else { continue };
            let packed = tokio::task::spawn_blocking(move || blob::encode(&key, &chunk)).await;
            if let Ok(Some(value)) = packed
                && !redis.set_bytes(&name, &value, life).await
            {
                return;
            }
        }
    });
}

/// When the points of a query may be used.
pub(super) fn rules(points: &Points, policy: &Policy) -> Rules {
    Rules {
        grid: points.grid,
        reach: points.reach,
        freshness: i64::try_from(policy.freshness.as_millis()).unwrap_or(i64::MAX),
        volatile: policy.ttl.realtime.0,
        settled: policy.settled,
    }
}
