//! Lists from a streaming replica: used while it shows everything, never when it does not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::services::{PgBouncer, PoolSettings, Postgres, TcpProxy, shared};
use perses_api_server::cache::DocumentCache;
use perses_api_server::cache::tail::Follower;
use perses_api_server::config::{self, ConfigDuration, Replica};
use perses_api_server::domain::kind::Kind;
use perses_api_server::metrics::Metrics;
use perses_api_server::store::postgres::PostgresStore;
use perses_api_server::store::{ListQuery, Precondition, Store};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::backends::{create, dashboard, draft, migrated, project};
use crate::replicas::eventually;

/// A pod that follows the tail and reads lists from the replica.
struct Reader {
    store: Arc<PostgresStore>,
    metrics: Arc<Metrics>,
    _stop: DropGuard,
}

impl Reader {
    async fn start(config: &config::Postgres) -> Self {
        let store = Arc::new(PostgresStore::new(config).unwrap());
        let metrics = Arc::new(Metrics::new("1.0.0"));
        store.attach_metrics(Arc::clone(&metrics));
        let cache = Arc::new(DocumentCache::new(1 << 20, Duration::from_mins(5), None, Arc::clone(&metrics)));
        let follower = Arc::new(Follower::new(Arc::clone(&store) as Arc<dyn Store>, cache));
        let stop = CancellationToken::new();
        let (running, token) = (Arc::clone(&follower), stop.clone());
        tokio::spawn(async move { running.run(token).await });
        eventually("the pod to be ready", async || follower.readiness().is_ok()).await;
        Self { store, metrics, _stop: stop.drop_guard() }
    }

    fn reads(&self, target: &str) -> u64 {
        self.number(&format!("perses_db_reads_total{{target=\"{target}\"}}")).map_or(0, |text| text.parse().unwrap())
    }

    fn number(&self, line: &str) -> Option<String> {
        let text = self.metrics.encode().unwrap();
        text.lines().find_map(|found| Some(found.strip_prefix(line)?.strip_prefix(' ')?.to_owned()))
    }

    async fn names(&self) -> Vec<String> {
        let query = ListQuery { kind: Kind::Dashboard, project: None, name_prefix: None, metadata_only: true };
        self.store.list(&query).await.unwrap().into_iter().map(|document| document.key.name).collect()
    }

    /// Whether one list was read from the replica.
    async fn uses_replica(&self) -> bool {
        let before = self.reads("replica");
        self.names().await;
        self.reads("replica") > before
    }

    async fn must_use_replica(&self) {
        eventually("lists to come from the replica", async || self.uses_replica().await).await;
    }

    /// Watches for a while; the looks at the tail of what was written just before may still be under way in the beginning.
    async fn goes_on_using_replica(&self, time: Duration) {
        let (started, settled) = (Instant::now(), Duration::from_millis(1500));
        while started.elapsed() < time {
            let used = self.uses_replica().await;
            assert!(used || started.elapsed() < settled, "after {:?}", started.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Writes a dashboard and lists it at once.
    async fn sees_its_own(&self, name: &str) {
        create(&*self.store, &dashboard("p", name), "{}").await;
        let names = self.names().await;
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_is_read_exactly_while_it_shows_everything() {
    let primary = Postgres::start().await.unwrap();
    let stream = TcpProxy::to_port(primary.port()).await.unwrap();
    let replica = primary.replica_through(stream.port()).await.unwrap();
    let network = TcpProxy::to_port(replica.port()).await.unwrap();
    let config = config::Postgres {
        replica: Some(Replica { host: "127.0.0.1".to_owned(), port: network.port(), dbname: None }),
        max_replica_lag: ConfigDuration(Duration::from_secs(2)),
        ..migrated(&primary).await
    };
    let reader = Reader::start(&config).await;
    create(&*reader.store, &project("p"), "{}").await;
    reader.must_use_replica().await;

    // One's own writes show at once, wherever the list is read.
    for number in 0..30 {
        reader.sees_its_own(&format!("own-{number}")).await;
    }
    let own = dashboard("p", "own-0");
    reader.store.update(draft(&own, "{}"), Precondition::None).await.unwrap();
    reader.store.delete(&own).await.unwrap();
    assert!(!reader.names().await.contains(&"own-0".to_owned()));
    reader.must_use_replica().await;

    // Points are read from the primary.
    let before = reader.reads("replica");
    reader.store.get(&project("p")).await.unwrap().unwrap();
    assert_eq!(reader.reads("replica"), before);

    // An idle primary: however long nothing happens, the replica stays in use. Twice the limit of the lag.
    reader.goes_on_using_replica(Duration::from_secs(5)).await;
    let line = format!("perses_db_replica_lag_seconds{{replica=\"127.0.0.1:{}\"}}", network.port());
    let lag: f64 = reader.number(&line).unwrap().parse().unwrap();
    assert!(lag < 1.0, "{lag}");

    // Held back, it is passed over at once, and used again when it has caught up.
    replica.pause_replay().await.unwrap();
    reader.sees_its_own("while-paused").await;
    assert!(!reader.uses_replica().await);
    replica.resume_replay().await.unwrap();
    reader.must_use_replica().await;

    // Cut off from the primary its own clock of lag stands still. Changes of ours pass it over at once, others' by time.
    reader.goes_on_using_replica(Duration::from_secs(2)).await;
    stream.cut().await;
    assert!(reader.uses_replica().await, "there is nothing that it does not show");
    let noise = "CREATE TABLE noise AS SELECT n FROM generate_series(1, 1000) n";
    primary.sql("postgres", noise).await.unwrap();
    eventually("the replica to be too old", async || !reader.uses_replica().await).await;
    let lag: f64 = reader.number(&line).unwrap().parse().unwrap();
    assert!(lag > 1.0, "{lag}");
    reader.sees_its_own("while-cut-off").await;
    stream.heal().await;
    reader.must_use_replica().await;
    reader.sees_its_own("healed").await;

    // A replica that hangs costs a wait, once; one that is gone costs nothing.
    network.stall().await;
    let started = Instant::now();
    reader.sees_its_own("while-hanging").await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    eventually("the replica to be passed over", async || !reader.uses_replica().await).await;
    let started = Instant::now();
    for _ in 0..20 {
        reader.names().await;
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    network.heal().await;
    network.cut().await;
    reader.sees_its_own("while-gone").await;
    network.heal().await;
    reader.must_use_replica().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_writes_is_not_read_as_a_replica() {
    let server = shared::postgres().await.unwrap();
    let good = migrated(server).await;
    let itself = Some(Replica { host: good.host.clone(), port: good.port, dbname: None });
    let reader = Reader::start(&config::Postgres { replica: itself, ..good }).await;
    // Its looks at the "replica" are seen in the pool's metrics.
    let line = r#"perses_db_pool_connections{pool="replica",state="active"}"#;
    eventually("a look at the replica", async || reader.number(line).is_some()).await;
    assert!(!reader.uses_replica().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_pooler_gives_both_under_two_names() {
    let primary = Postgres::start().await.unwrap();
    let replica = primary.replica().await.unwrap();
    let direct = migrated(&primary).await;
    let databases = format!(
        "* = host=127.0.0.1 port={}\nperses_ro = host=127.0.0.1 port={} dbname='{}'",
        primary.port(),
        replica.port(),
        direct.dbname
    );
    let pooler = PgBouncer::start_for(&primary, &databases, PoolSettings::default()).await.unwrap();
    let (host, port) = ("127.0.0.1".to_owned(), pooler.port());
    let read_only = Replica { host: host.clone(), port, dbname: Some("perses_ro".to_owned()) };
    let reader = Reader::start(&config::Postgres { host, port, replica: Some(read_only), ..direct }).await;
    create(&*reader.store, &project("p"), "{}").await;
    reader.must_use_replica().await;
    reader.sees_its_own("through-the-pooler").await;
    let pools = pooler.console("SHOW POOLS").await.unwrap();
    assert!(pools.contains("perses_ro|perses"), "{pools}");
}
