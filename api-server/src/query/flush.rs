//! Flushes reach all pods through Redis: a stream of records that every pod reads a few times a second, from its beginning
//! when it starts. Answers from before a flush are refused wherever they come from ([`super::floors`]), so a slow writer
//! cannot bring one back.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::floors::{CLOCK_SKEW_MS, Floor, Floors, Scope, Subject};
use crate::cache::redis::{Outcome, RedisTier};
use crate::config;

/// The stream; the first part is the version of the form.
const STREAM: &str = "v1:query:flush";
/// Records that are kept, about; a pod that has read more than so many less knows only the later ones, which say enough: it
/// holds nothing that is older.
const RECORDS: usize = 10_000;
/// Records of one look.
const PAGE: usize = 500;
/// How often the stream is looked at: a flush holds everywhere within a second.
const INTERVAL: Duration = Duration::from_millis(300);
/// The same before the first look, which is over when Redis is connected to.
const FIRST_INTERVAL: Duration = Duration::from_millis(20);
/// Records that wait for Redis; of more, one for everything is left.
const MOST_PENDING: usize = 1_000;

/// What `XREAD` answers: of each stream its name, and the ids and fields of its entries.
type Page = Vec<(String, Vec<(String, Vec<Bytes>)>)>;

/// A flush.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// By which whoever wrote it knows it again.
    id: String,
    /// By the clock of whoever wrote it.
    at: i64,
    pub(super) scopes: Vec<Scope>,
}

impl Record {
    pub(super) fn new(scopes: Vec<Scope>, now: i64) -> Self {
        Self { id: format!("{:016x}", rand::random::<u64>()), at: now, scopes }
    }
}

/// What was flushed, here and elsewhere.
pub(super) struct Flushes {
    floors: ArcSwap<Floors>,
    /// The longest life of any answer: for so long floors count.
    longest: i64,
    redis: Option<Arc<RedisTier>>,
    /// What Redis does not know yet.
    pending: Mutex<VecDeque<Record>>,
    /// Records of this process that it will read.
    own: Mutex<HashSet<String>>,
    /// The last record that was read.
    read: tokio::sync::Mutex<String>,
    /// Whether the stream was read once: before that nothing in Redis can be trusted.
    knows: AtomicBool,
}

impl Flushes {
    pub(super) fn new(config: &config::Query, redis: Option<Arc<RedisTier>>) -> Self {
        let settings = config.datasources.iter();
        let ttls = settings.clone().filter_map(|one| one.ttl.as_ref()).chain([&config.ttl]);
        let lives = ttls
            .flat_map(|ttl| [ttl.realtime, ttl.recent, ttl.historical, ttl.metadata])
            .chain(settings.filter_map(|one| one.settled))
            .chain([config.settled]);
        let longest = lives.map(|life| i64::try_from(life.0.as_millis()).unwrap_or(i64::MAX)).max().unwrap_or(0);
        Self {
            floors: ArcSwap::default(),
            longest: longest.saturating_add(2 * CLOCK_SKEW_MS),
            redis,
            pending: Mutex::default(),
            own: Mutex::default(),
            read: tokio::sync::Mutex::new("0".to_owned()),
            knows: AtomicBool::new(false),
        }
    }

    /// The floor of an answer; most often nothing was flushed and nothing is asked.
    pub(super) fn floor<'a>(&self, subject: impl FnOnce() -> Subject<'a>) -> Floor {
        let floors = self.floors.load();
        let floor = if floors.is_empty() { Floor::default() } else { floors.of(&subject()) };
        if self.knows.load(Ordering::Acquire) { floor } else { Floor { shared: i64::MAX, ..floor } }
    }

    /// Makes a flush count in this process.
    pub(super) fn raise(&self, record: &Record, now: i64) {
        let floor = Floor::of(record.at, now);
        self.floors.rcu(|floors| floors.with(&record.scopes, floor, self.longest));
    }

    /// Tells the other pods, now or as soon as Redis is back; whether Redis has it. Nobody can be told without Redis.
    pub(super) async fn tell(&self, record: Record) -> bool {
        if self.redis.is_none() {
            return false;
        }
        self.own.lock().insert(record.id.clone());
        {
            let mut pending = self.pending.lock();
            if pending.len() >= MOST_PENDING {
                let at = record.at;
                pending.clear();
                pending.push_back(Record { scopes: vec![Scope::default()], ..Record::new(Vec::new(), at) });
            } else {
                pending.push_back(record);
            }
        }
        self.send().await
    }

    /// Sends what waits; whether all went.
    async fn send(&self) -> bool {
        let Some(redis) = &self.redis else { return false };
        loop {
            let Some(record) = self.pending.lock().front().cloned() else { return true };
            let Ok(text) = serde_json::to_string(&record) else { return false };
            let sent = redis.run("XADD", async |mut connection| {
                let mut command = redis::cmd("XADD");
                command.arg(STREAM).arg("MAXLEN").arg("~").arg(RECORDS).arg("*").arg("record").arg(text);
                command.query_async::<String>(&mut connection).await
            });
            if sent.await.answer().is_none() {
                return false;
            }
            // Sent twice does no harm: it is known by its id.
            self.pending.lock().retain(|waiting| waiting.id != record.id);
        }
    }

    /// What others flushed since the last look; `None` when Redis does not say.
    async fn hear(&self) -> Option<Vec<Record>> {
        let redis = self.redis.as_ref()?;
        let mut read = self.read.lock().await;
        let mut records = Vec::new();
        loop {
            let answer = redis.run("XREAD", async |mut connection| {
                let mut command = redis::cmd("XREAD");
                command.arg("COUNT").arg(PAGE).arg("STREAMS").arg(STREAM).arg(&*read);
                command.query_async::<Option<Page>>(&mut connection).await
            });
            let page = match answer.await {
                Outcome::Answer(page) => page.unwrap_or_default(),
                // What was read before is not read again.
                Outcome::Away | Outcome::Failed => return (!records.is_empty()).then_some(records),
            };
            let Some((_, page)) = page.into_iter().next() else { return Some(records) };
            let count = page.len();
            for (id, fields) in page {
                *read = id;
                // What is not understood was written by a later release: at least so much was flushed.
                let record = fields.get(1).and_then(|text| serde_json::from_slice::<Record>(text).ok());
                let record = record.unwrap_or_else(|| Record::new(vec![Scope::default()], super::service::now_ms()));
                if !self.own.lock().remove(&record.id) {
                    records.push(record);
                }
            }
            if count < PAGE {
                return Some(records);
            }
        }
    }

    /// Listens until the token is cancelled; `heard` is told of each flush after it counts.
    pub(super) async fn follow(&self, stop: CancellationToken, heard: impl Fn(&Record)) {
        if self.redis.is_none() {
            return;
        }
        loop {
            if !self.pending.lock().is_empty() {
                self.send().await;
            }
            let heard_of = self.hear().await;
            let knows = heard_of.is_some();
            for record in heard_of.unwrap_or_default() {
                let now = super::service::now_ms();
                // Of one from longer ago nothing can be left.
                if record.at.saturating_add(self.longest) > now {
                    self.raise(&record, now);
                    heard(&record);
                }
            }
            let knows = self.knows.fetch_or(knows, Ordering::AcqRel) || knows;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(if knows { INTERVAL } else { FIRST_INTERVAL }) => {}
            }
        }
    }
}

/// Writes a flush for all pods, from outside of them.
pub(crate) async fn tell(redis: Arc<RedisTier>, scopes: Vec<Scope>) -> bool {
    let flushes = Flushes::new(&config::Query::default(), Some(redis));
    flushes.tell(Record::new(scopes, super::service::now_ms())).await
}
