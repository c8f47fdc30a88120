//! A steady mix of reads and writes while everything below the servers breaks, one part after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use e2e::services::{PgBouncer, PoolSettings, Postgres, Redis, TcpProxy, shared};
use futures::future::join_all;
use perses_api_server::config::{self, ConfigDuration, Replica};
use perses_api_server::domain::document::Key;
use perses_api_server::domain::kind::Kind;
use perses_api_server::metrics::Metrics;
use perses_api_server::store::postgres::PostgresStore;
use perses_api_server::store::{Change, ListQuery, Precondition, Store, StoreError};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::backends::{create, dashboard, draft, migrated, project};
use crate::replicas::{Pod, eventually};

/// What users may expect now.
#[derive(Debug, Default)]
struct Weather {
    /// Nothing can serve (or could a moment ago): errors are fine, wrong answers are not.
    may_fail: AtomicBool,
    /// Nobody writes.
    calm: AtomicBool,
    done: CancellationToken,
}

/// Someone who edits a dashboard of their own, reads it back and lists it, through one pod.
#[derive(Debug)]
struct User {
    key: Key,
    /// The last version that a write was answered with.
    acknowledged: AtomicU64,
    attempts: AtomicU64,
    /// Rounds without any error since the last error.
    good: AtomicU64,
}

impl User {
    async fn work(&self, pod: &Pod, weather: &Weather) {
        while !weather.done.is_cancelled() {
            // What counts is how it was when the request was sent.
            let may_fail = weather.may_fail.load(Ordering::SeqCst);
            let result = self.round(pod, weather.calm.load(Ordering::SeqCst)).await;
            match result {
                Ok(()) => drop(self.good.fetch_add(1, Ordering::SeqCst)),
                Err(StoreError::Unavailable(reason)) => {
                    let may_fail = may_fail || weather.may_fail.load(Ordering::SeqCst);
                    assert!(may_fail, "{:?}: {reason}", self.key);
                    self.good.store(0, Ordering::SeqCst);
                }
                Err(error) => panic!("{:?}: {error:?}", self.key),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn round(&self, pod: &Pod, calm: bool) -> Result<(), StoreError> {
        if !calm {
            let attempt = self.attempts.fetch_add(1, Ordering::SeqCst);
            let spec = format!("{{\"attempt\":{attempt}}}");
            let document = pod.store.update(draft(&self.key, &spec), Precondition::None).await?;
            let before = self.acknowledged.swap(document.version, Ordering::SeqCst);
            assert!(document.version > before, "{:?}: an acknowledged write is lost", self.key);
            let change = Change { key: self.key.clone(), revision: document.revision, deleted: false };
            pod.cache.invalidate(&[change]).await;
        }
        let acknowledged = self.acknowledged.load(Ordering::SeqCst);
        let (read, tier) = pod.read(&self.key).await?;
        let version = read.unwrap_or_else(|| panic!("{:?} is gone", self.key)).version;
        assert!(version >= acknowledged, "{:?}: read {version} from {tier:?}, wrote {acknowledged}", self.key);
        let query = ListQuery {
            kind: Kind::Dashboard,
            project: self.key.project.clone(),
            name_prefix: Some(self.key.name.clone()),
            metadata_only: false,
        };
        let listed = pod.store.list(&query).await?;
        let found = listed.iter().find(|document| document.key == self.key).map(|document| document.version);
        assert!(found >= Some(acknowledged), "{:?}: listed {found:?}, wrote {acknowledged}", self.key);
        Ok(())
    }
}

/// Reads what others write: it never goes back.
async fn watch(pod: &Pod, key: &Key, weather: &Weather) {
    let mut last = 0;
    while !weather.done.is_cancelled() {
        if let Ok((Some(read), tier)) = pod.read(key).await {
            assert!(read.version >= last, "{key:?}: {} after {last}, from {tier:?}", read.version);
            last = read.version;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn replica_reads(metrics: &Metrics) -> u64 {
    let text = metrics.encode().unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(r#"perses_db_reads_total{target="replica"} "#));
    line.map_or(0, |number| number.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_sees_a_wrong_answer_and_nothing_acknowledged_is_lost() {
    let primary = Postgres::start().await.unwrap();
    let database = migrated(&primary).await;
    let stream = TcpProxy::to_port(primary.port()).await.unwrap();
    let replica = primary.replica_through(stream.port()).await.unwrap();
    // The address of "the primary", which moves; the pooler is in front of it.
    let address = TcpProxy::to_port(primary.port()).await.unwrap();
    let pooler = PgBouncer::start_at(&primary, address.port(), PoolSettings::default()).await.unwrap();
    let redis = Redis::start().await.unwrap();
    let config = config::Postgres {
        port: pooler.port(),
        replica: Some(Replica { host: "127.0.0.1".to_owned(), port: replica.port(), dbname: None }),
        max_replica_lag: ConfigDuration(Duration::from_secs(1)),
        ..database
    };
    let mut pods = Vec::new();
    for _ in 0..2 {
        let store = Arc::new(PostgresStore::new(&config).unwrap());
        let metrics = Arc::new(Metrics::new("1.0.0"));
        store.attach_metrics(Arc::clone(&metrics));
        pods.push((Arc::new(Pod::on(store, Some(&redis.address())).await), metrics));
    }
    create(&*pods[0].0.store, &project("p"), "{}").await;
    let weather = Arc::new(Weather::default());
    let (mut users, mut tasks) = (Vec::new(), Vec::new());
    for number in 0..6 {
        let key = dashboard("p", &format!("of-user-{number}"));
        create(&*pods[0].0.store, &key, "{}").await;
        let user = Arc::new(User {
            key: key.clone(),
            acknowledged: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            good: AtomicU64::new(0),
        });
        let (pod, other) = (Arc::clone(&pods[number % 2].0), Arc::clone(&pods[(number + 1) % 2].0));
        let (working, seen) = (Arc::clone(&user), Arc::clone(&weather));
        tasks.push(tokio::spawn(async move { working.work(&pod, &seen).await }));
        let seen = Arc::clone(&weather);
        tasks.push(tokio::spawn(async move { watch(&other, &key, &seen).await }));
        users.push(user);
    }
    // Everybody has had some rounds without an error since now.
    let works = async |what: &str| {
        for user in &users {
            user.good.store(0, Ordering::SeqCst);
        }
        eventually(what, async || users.iter().all(|user| user.good.load(Ordering::SeqCst) >= 5)).await;
    };
    let replica_is_used = async |what: &str| {
        let before: Vec<u64> = pods.iter().map(|(_, metrics)| replica_reads(metrics)).collect();
        let used = async || pods.iter().zip(&before).all(|((_, metrics), before)| replica_reads(metrics) > before + 3);
        eventually(what, used).await;
    };
    works("everything").await;
    replica_is_used("the replica").await;

    // The replica is held back, then cut off: nobody notices.
    replica.pause_replay().await.unwrap();
    works("a replica that is paused").await;
    replica.resume_replay().await.unwrap();
    replica_is_used("the replica after its pause").await;
    stream.cut().await;
    works("a replica that is cut off").await;
    stream.heal().await;
    replica_is_used("the replica after the cut").await;

    // Nobody writes, for a multiple of the longest lag: the replica stays in use.
    weather.calm.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        works("an idle primary").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        replica_is_used("the replica of an idle primary").await;
    }
    weather.calm.store(false, Ordering::SeqCst);

    redis.stop().await.unwrap();
    works("no Redis").await;
    redis.start_again().await.unwrap();
    works("a new Redis").await;

    let outage = async |what: &str, breaking: &mut (dyn Future<Output = ()> + Unpin)| {
        weather.may_fail.store(true, Ordering::SeqCst);
        breaking.await;
        works(what).await;
        weather.may_fail.store(false, Ordering::SeqCst);
        works(what).await;
    };
    outage(
        "the primary after a restart",
        &mut Box::pin(async {
            primary.stop().await.unwrap();
            primary.start_again().await.unwrap();
        }),
    )
    .await;
    replica_is_used("the replica after the restart").await;
    outage(
        "the pooler after a restart",
        &mut Box::pin(async {
            pooler.stop().await.unwrap();
            pooler.start_again().await.unwrap();
        }),
    )
    .await;
    // A switch-over: the old primary hands over what it has, the replica takes its place, the address moves.
    outage(
        "the new primary",
        &mut Box::pin(async {
            primary.stop().await.unwrap();
            replica.promote().await.unwrap();
            address.redirect(replica.port());
            address.cut().await;
            address.heal().await;
        }),
    )
    .await;

    weather.done.cancel();
    for task in tasks {
        task.await.unwrap();
    }
    for user in &users {
        let stored = pods[0].0.store.get(&user.key).await.unwrap().unwrap();
        let (acknowledged, attempts) = (user.acknowledged.load(Ordering::SeqCst), user.attempts.load(Ordering::SeqCst));
        assert!(stored.version >= acknowledged && stored.version <= attempts, "{stored:?} {acknowledged} {attempts}");
    }
}

/// A newer release adds columns while programs of this one run, with statements that the server has planned before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn additions_to_the_schema_disturb_nobody() {
    let server = shared::postgres().await.unwrap();
    let direct = migrated(server).await;
    let pooled = config::Postgres { port: shared::pgbouncer().await.unwrap().port(), ..direct.clone() };
    let done = CancellationToken::new();
    let mut workers = Vec::new();
    for (number, config) in [&direct, &pooled, &pooled, &direct].into_iter().enumerate() {
        let store = PostgresStore::new(config).unwrap();
        let name = format!("p{number}");
        create(&store, &project(&name), "{}").await;
        let done = done.clone();
        workers.push(tokio::spawn(async move {
            let mut rounds = 0_u64;
            let mut cursor = store.tail_start().await.unwrap();
            let query = ListQuery {
                kind: Kind::Dashboard,
                project: Some(name.clone()),
                name_prefix: None,
                metadata_only: false,
            };
            while !done.is_cancelled() {
                let key = dashboard(&name, "d");
                create(&store, &key, r#"{"display":{"name":"x"}}"#).await;
                store.update(draft(&key, "{}"), Precondition::None).await.unwrap();
                assert_eq!(store.get(&key).await.unwrap().unwrap().version, 1);
                assert_eq!(store.list(&query).await.unwrap().len(), 1);
                store.tail(&mut cursor).await.unwrap();
                store.delete(&key).await.unwrap();
                rounds += 1;
            }
            rounds
        }));
    }
    let mut migration = PgConnection::connect(&server.url(&direct.dbname)).await.unwrap();
    for number in 0..5 {
        for table in ["resource", "change", "project"] {
            let sql = format!("ALTER TABLE perses.{table} ADD COLUMN later_{number} text NOT NULL DEFAULT 'x'");
            migration.execute(AssertSqlSafe(sql)).await.unwrap();
        }
        let sql = format!("CREATE INDEX later_{number} ON perses.resource (later_{number})");
        migration.execute(AssertSqlSafe(sql)).await.unwrap();
        migration.execute("SELECT pg_sleep(0.2)").await.unwrap();
    }
    let newer = "INSERT INTO perses.schema_version (version, name, needs, checksum) VALUES (90, 'later', 2, 'x')";
    migration.execute(newer).await.unwrap();
    done.cancel();
    let rounds = join_all(workers).await;
    assert!(rounds.into_iter().all(|rounds| rounds.unwrap() > 5));
    // A pod of this release that starts again finds a schema that it works with.
    let store = PostgresStore::new(&pooled).unwrap();
    store.ready().await.unwrap();
    create(&store, &dashboard("p0", "after"), "{}").await;
}
