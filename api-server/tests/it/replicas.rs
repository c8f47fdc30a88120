//! Several pods on one database and one Redis: what one writes, all show.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use e2e::services::{Postgres, Redis, shared};
use e2e::wait::wait_until;
use perses_api_server::cache::tail::{Follower, Notice};
use perses_api_server::cache::{DocumentCache, Encoded, Tier, redis::RedisTier};
use perses_api_server::config;
use perses_api_server::domain::document::{Document, Draft, Key};
use perses_api_server::metrics::Metrics;
use perses_api_server::store::postgres::PostgresStore;
use perses_api_server::store::{
    Change, Changes, Cursor, ListQuery, Precondition, SearchQuery, Store, StoreError, Titled,
};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::backends::{create, dashboard, draft, migrated, project};

/// The bound of the design: no pod shows an old document for longer.
pub const STALE_LIMIT: Duration = Duration::from_secs(1);
/// Timers and scheduling of a busy machine are not what is measured.
pub const SLACK: Duration = Duration::from_secs(2);

/// Store, cache and follower of one pod; the follower ends with it.
pub struct Pod {
    pub store: Arc<dyn Store>,
    pub cache: Arc<DocumentCache>,
    pub follower: Arc<Follower>,
    metrics: Arc<Metrics>,
    _stop: DropGuard,
}

impl Pod {
    pub async fn start(database: &config::Postgres, redis: Option<&str>) -> Self {
        Self::on(Arc::new(PostgresStore::new(database).unwrap()), redis).await
    }

    pub async fn on(store: Arc<dyn Store>, redis: Option<&str>) -> Self {
        let redis = redis.map(|addr| {
            let config = config::Redis { addr: addr.to_owned(), ..config::Redis::default() };
            Arc::new(RedisTier::new(&config).unwrap())
        });
        let metrics = Arc::new(Metrics::new("1.0.0"));
        let cache = Arc::new(DocumentCache::new(64 << 20, Duration::from_mins(5), redis.clone(), Arc::clone(&metrics)));
        let follower = Arc::new(Follower::new(Arc::clone(&store), Arc::clone(&cache)));
        let stop = CancellationToken::new();
        let (running, token) = (Arc::clone(&follower), stop.clone());
        tokio::spawn(async move { running.run(token).await });
        eventually("the pod to be ready", async || follower.readiness().is_ok()).await;
        if let Some(redis) = redis {
            eventually("Redis", async || redis.is_available()).await;
        }
        Self { store, cache, follower, metrics, _stop: stop.drop_guard() }
    }

    /// A GET: caches, else the store, whose answer fills the caches.
    pub async fn read(&self, key: &Key) -> Result<(Option<Encoded>, Option<Tier>), StoreError> {
        if let Some((entry, tier)) = self.cache.get(key).await {
            return Ok((Some(entry), Some(tier)));
        }
        let started = Instant::now();
        let Some(document) = self.store.get(key).await? else { return Ok((None, None)) };
        let entry = encode(&document);
        self.cache.fill(key, entry.clone(), started).await;
        Ok((Some(entry), None))
    }

    pub async fn version(&self, key: &Key) -> Option<u64> {
        self.read(key).await.unwrap().0.map(|entry| entry.version)
    }

    /// A PUT, whole: commit, invalidation, hint.
    pub async fn write(&self, key: &Key) -> Document {
        let document = self.commit(key).await;
        let change = Change { key: key.clone(), revision: document.revision, deleted: false };
        self.cache.invalidate(&[change]).await;
        document
    }

    /// A PUT by a pod that dies right after the commit: nobody is told.
    async fn commit(&self, key: &Key) -> Document {
        self.store.update(draft(key, "{}"), Precondition::None).await.unwrap()
    }

    fn metric(&self, line: &str) -> u64 {
        let text = self.metrics.encode().unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
        found.map_or(0, |value| value.parse().unwrap())
    }
}

fn encode(document: &Document) -> Encoded {
    Encoded::new(document.to_body(), document.version, document.revision)
}

pub async fn eventually(what: &str, look: impl AsyncFn() -> bool) {
    wait_until(what, Duration::from_secs(30), || async { Ok(look().await) }).await.unwrap();
}

/// Asserts that a pod shows a version within the limit of staleness, counted from `since`, and goes on showing it.
pub async fn shows(pod: &Pod, key: &Key, version: u64, since: Instant) {
    let limit = STALE_LIMIT + SLACK;
    while pod.version(key).await != Some(version) {
        assert!(since.elapsed() < limit, "version {:?} after {:?}", pod.version(key).await, since.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a follower has applied a write and told of it.
async fn hears_of(notices: &mut broadcast::Receiver<Notice>, revision: i64) {
    loop {
        let Notice::Changed(changes) = notices.recv().await.unwrap() else { panic!("the tail was lost") };
        if changes.iter().any(|change| change.revision == revision) {
            return;
        }
    }
}

/// A database with a dashboard at version 0.
pub async fn with_dashboard(server: &Postgres) -> (config::Postgres, Key) {
    let config = migrated(server).await;
    let store = PostgresStore::new(&config).unwrap();
    // Redis is shared with other tests, so the names are unique.
    let name = shared::unique("replicas");
    create(&store, &project(&name), "{}").await;
    let key = dashboard(&name, "d");
    create(&store, &key, r#"{"v":0}"#).await;
    (config, key)
}

pub async fn shared_redis() -> String {
    shared::redis().await.unwrap().address()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_shows_at_once_where_it_was_made_and_soon_everywhere() {
    let (config, key) = with_dashboard(shared::postgres().await.unwrap()).await;
    for redis in [None, Some(shared_redis().await)] {
        let (a, b) = (Pod::start(&config, redis.as_deref()).await, Pod::start(&config, redis.as_deref()).await);
        let mut notices = b.follower.subscribe();
        for _ in 0..5 {
            assert_eq!(a.version(&key).await, b.version(&key).await);
            let written = a.write(&key).await;
            let since = Instant::now();
            assert_eq!(a.version(&key).await, Some(written.version), "one's own write");
            shows(&b, &key, written.version, since).await;
            hears_of(&mut notices, written.revision).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_shows_everywhere_children_included() {
    let (config, key) = with_dashboard(shared::postgres().await.unwrap()).await;
    let redis = shared_redis().await;
    let (a, b) = (Pod::start(&config, Some(&redis)).await, Pod::start(&config, Some(&redis)).await);
    let owner = project(key.project.as_deref().unwrap());
    for pod in [&a, &b] {
        pod.read(&key).await.unwrap();
        pod.read(&owner).await.unwrap();
    }
    let changes = a.store.delete(&owner).await.unwrap();
    a.cache.invalidate(&changes).await;
    let since = Instant::now();
    assert_eq!((a.version(&key).await, a.version(&owner).await), (None, None));
    eventually("the deletion to show", async || b.version(&key).await.is_none() && b.version(&owner).await.is_none())
        .await;
    assert!(since.elapsed() < STALE_LIMIT + SLACK, "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_the_commit_shows_within_a_second_with_and_without_redis() {
    let (config, key) = with_dashboard(shared::postgres().await.unwrap()).await;
    let redis = Redis::start().await.unwrap();
    let address = redis.address();
    for address in [None, Some(address.as_str())] {
        let (a, b) = (Pod::start(&config, address).await, Pod::start(&config, address).await);
        a.version(&key).await;
        b.version(&key).await;
        let written = a.commit(&key).await;
        let since = Instant::now();
        shows(&b, &key, written.version, since).await;
        shows(&a, &key, written.version, since).await;
    }
    let (a, b) = (Pod::start(&config, Some(&address)).await, Pod::start(&config, Some(&address)).await);
    a.version(&key).await;
    b.version(&key).await;
    redis.stop().await.unwrap();
    let written = a.commit(&key).await;
    shows(&b, &key, written.version, Instant::now()).await;
}

/// A store whose reads can be held between the answer of the database and the caller, and that can lose its tail.
#[derive(Debug)]
pub struct Held {
    inner: PostgresStore,
    /// Reads of this key wait for a permit after they have read.
    key: Key,
    gate: Semaphore,
    arrived: Semaphore,
    /// The next look at the tail finds that it does not reach back far enough.
    pub lose_tail: AtomicBool,
}

impl Held {
    pub fn new(config: &config::Postgres, key: &Key) -> Arc<Self> {
        let inner = PostgresStore::new(config).unwrap();
        let (gate, arrived) = (Semaphore::new(0), Semaphore::new(0));
        Arc::new(Self { inner, key: key.clone(), gate, arrived, lose_tail: AtomicBool::new(false) })
    }
}

#[async_trait]
impl Store for Held {
    async fn get(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        let document = self.inner.get(key).await;
        if *key == self.key {
            self.arrived.add_permits(1);
            self.gate.acquire().await.unwrap().forget();
        }
        document
    }
    async fn list(&self, query: &ListQuery) -> Result<Vec<Document>, StoreError> {
        self.inner.list(query).await
    }
    async fn create(&self, draft: Draft) -> Result<Document, StoreError> {
        self.inner.create(draft).await
    }
    async fn update(&self, draft: Draft, precondition: Precondition) -> Result<Document, StoreError> {
        self.inner.update(draft, precondition).await
    }
    async fn put(&self, document: Document) -> Result<(), StoreError> {
        self.inner.put(document).await
    }
    async fn search(&self, query: &SearchQuery) -> Result<Vec<Titled>, StoreError> {
        self.inner.search(query).await
    }
    async fn delete_if(&self, key: &Key, precondition: Precondition) -> Result<Vec<Change>, StoreError> {
        self.inner.delete_if(key, precondition).await
    }
    async fn lease(&self, name: &str, holder: &str, ttl: Duration) -> Result<bool, StoreError> {
        self.inner.lease(name, holder, ttl).await
    }
    async fn release(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        self.inner.release(name, holder).await
    }
    async fn tail_start(&self) -> Result<Cursor, StoreError> {
        self.inner.tail_start().await
    }
    async fn tail(&self, cursor: &mut Cursor) -> Result<Changes, StoreError> {
        if self.lose_tail.swap(false, Ordering::SeqCst) {
            return Ok(Changes::Lost);
        }
        self.inner.tail(cursor).await
    }
    async fn ready(&self) -> Result<(), StoreError> {
        self.inner.ready().await
    }
    async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_never_puts_an_old_document_back() {
    let (config, key) = with_dashboard(shared::postgres().await.unwrap()).await;
    let redis = shared_redis().await;
    // The reader is overtaken by the other pod's commit; once its own tail has told it, once before.
    for told in [true, false] {
        for address in [None, Some(redis.as_str())] {
            let held = Held::new(&config, &key);
            let a = Arc::new(Pod::on(Arc::clone(&held) as Arc<dyn Store>, address).await);
            let b = Pod::start(&config, address).await;
            let mut notices = a.follower.subscribe();
            // A write before makes sure that no tier has the document.
            let before = b.write(&key).await;
            let (reader, read_key) = (Arc::clone(&a), key.clone());
            let reading = tokio::spawn(async move { reader.read(&read_key).await.unwrap() });
            held.arrived.acquire().await.unwrap().forget();
            let written = b.write(&key).await;
            let since = Instant::now();
            if told {
                hears_of(&mut notices, written.revision).await;
            }
            held.gate.add_permits(100);
            let (slow, _) = reading.await.unwrap();
            assert_eq!(slow.unwrap().version, before.version, "the reader itself has read the old document");
            if told {
                assert_eq!(b.version(&key).await, Some(written.version));
                assert_eq!(a.version(&key).await, Some(written.version));
                assert_eq!(a.metric(r#"perses_cache_requests_total{cache="dashboard",tier="l1",result="refused"}"#), 1);
            } else {
                shows(&b, &key, written.version, since).await;
                shows(&a, &key, written.version, since).await;
            }
            let fresh = Pod::start(&config, address).await;
            assert_eq!(fresh.version(&key).await, Some(written.version), "nor does a pod that finds it in Redis");
        }
    }
}

/// Writers and readers on three pods: nobody is ever more than the limit behind, and nobody goes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_no_pod_is_stale_for_long() {
    let (config, key) = with_dashboard(shared::postgres().await.unwrap()).await;
    let redis = shared_redis().await;
    let committed = Arc::new(parking_lot::Mutex::new(vec![(0_u64, Instant::now())]));
    let done = CancellationToken::new();
    let mut readers = Vec::new();
    for address in [None, Some(redis.as_str()), Some(redis.as_str())] {
        let pod = Pod::start(&config, address).await;
        let (committed, done, key) = (Arc::clone(&committed), done.clone(), key.clone());
        readers.push(tokio::spawn(async move {
            let mut reads = 0_u64;
            while !done.is_cancelled() {
                let asked = Instant::now();
                let version = pod.version(&key).await.unwrap();
                let overtaken = committed.lock().iter().find(|(newer, _)| *newer > version).map(|(_, at)| *at);
                if let Some(at) = overtaken {
                    let behind = asked.saturating_duration_since(at);
                    assert!(behind < STALE_LIMIT + SLACK, "{behind:?} behind");
                }
                reads += 1;
                tokio::task::yield_now().await;
            }
            reads
        }));
    }
    let writer = Pod::start(&config, Some(&redis)).await;
    for number in 0..150 {
        // Every third write is by a pod that dies before it tells anybody.
        let document = if number % 3 == 0 { writer.commit(&key).await } else { writer.write(&key).await };
        committed.lock().push((document.version, Instant::now()));
        tokio::time::sleep(Duration::from_millis(number % 20)).await;
    }
    done.cancel();
    for reader in readers {
        assert!(reader.await.unwrap() > 100);
    }
}
