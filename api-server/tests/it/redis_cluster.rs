//! The shared cache in a Redis Cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::services::RedisCluster;
use perses_api_server::cache::{DocumentCache, Encoded, Tier, redis::RedisTier};
use perses_api_server::config;
use perses_api_server::domain::document::Key;
use perses_api_server::metrics::Metrics;
use perses_api_server::store::Change;

use crate::backends::dashboard;
use crate::replicas::eventually;

/// Enough for every primary to get some.
const DOCUMENTS: usize = 60;

fn tier(cluster: &RedisCluster) -> Arc<RedisTier> {
    // Some servers are enough: they name the others.
    let addrs = cluster.addresses().into_iter().take(2).collect();
    let cluster = Some(config::RedisCluster { addrs });
    Arc::new(RedisTier::new(&config::Redis { cluster, ..config::Redis::default() }).unwrap())
}

fn cache(tier: &Arc<RedisTier>) -> DocumentCache {
    let metrics = Arc::new(Metrics::new("1.0.0"));
    DocumentCache::new(1 << 20, Duration::from_mins(5), Some(Arc::clone(tier)), metrics)
}

fn documents() -> Vec<Key> {
    (0..DOCUMENTS).map(|number| dashboard("p", &format!("d{number}"))).collect()
}

fn entry(revision: i64) -> Encoded {
    Encoded::new(format!("{{{revision}}}\n"), 0, revision)
}

/// Fills until all are shared: a command that takes too long on a busy machine is given up.
async fn fill(cache: &DocumentCache, tier: &Arc<RedisTier>, revision: i64) {
    eventually("every document to be shared", async || {
        for key in documents() {
            assert!(cache.fill(&key, entry(revision), Instant::now()).await);
        }
        found(tier, revision).await == DOCUMENTS
    })
    .await;
}

/// How many documents a cache with an empty memory finds.
async fn found(tier: &Arc<RedisTier>, revision: i64) -> usize {
    let fresh = cache(tier);
    let mut count = 0;
    for key in documents() {
        count += usize::from(fresh.get(&key).await == Some((entry(revision), Tier::L2)));
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_lie_on_all_servers_and_are_invalidated_on_all() {
    let cluster = RedisCluster::start().await.unwrap();
    let tier = tier(&cluster);
    eventually("the cluster", async || tier.is_available()).await;
    let writer = cache(&tier);
    fill(&writer, &tier, 1).await;
    eventually("each primary to have some, and so its replica", async || {
        let mut holders = 0;
        for server in 0..cluster.addresses().len() {
            holders += usize::from(cluster.cli(server, &["DBSIZE"]).await.unwrap() != "0");
        }
        holders == cluster.addresses().len()
    })
    .await;

    let changes: Vec<_> = documents().into_iter().map(|key| Change { key, revision: 2, deleted: false }).collect();
    eventually("tombstones", async || {
        writer.invalidate(&changes).await;
        found(&tier, 1).await == 0
    })
    .await;
    fill(&writer, &tier, 2).await;
    let life = Duration::from_mins(5);
    eventually("another family", async || tier.set_bytes("v1:query:result:x", b"kept", life).await).await;
    eventually("the whole family to go", async || {
        writer.start_over().await;
        found(&tier, 2).await == 0
    })
    .await;
    assert_eq!(tier.get_bytes("v1:query:result:x").await.as_deref(), Some(&b"kept"[..]), "and nothing else");

    // Whoever writes publishes at any server, and the servers pass it on to the one where this process listens.
    eventually("a subscription", async || {
        let mut listeners = 0;
        for server in 0..cluster.addresses().len() {
            let answer = cluster.cli(server, &["PUBSUB", "NUMSUB", "dashboard:invalidate"]).await.unwrap();
            listeners += answer.lines().nth(1).and_then(|count| count.parse::<u32>().ok()).unwrap_or(0);
        }
        listeners == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_slot_and_a_lost_primary_are_followed() {
    let cluster = RedisCluster::start().await.unwrap();
    let tier = tier(&cluster);
    let life = Duration::from_mins(5);
    eventually("the cluster", async || tier.set_bytes("k", b"1", life).await).await;
    let names = ["a:{q}:1", "a:{q}:2", "a:{q}:3"].map(str::to_owned);
    assert!(tier.set_bytes(&names[2], b"3", life).await);
    assert_eq!(tier.get_many(&names).await.unwrap(), [None, None, Some(bytes::Bytes::from_static(b"3"))]);
    let before = cluster.holder("k").await.unwrap();
    cluster.move_slot("k").await.unwrap();
    eventually("the first answer to lead on", async || tier.get_bytes("k").await.as_deref() == Some(&b"1"[..])).await;
    eventually("the moved slot", async || tier.set_bytes("k", b"2", life).await).await;
    let holder = cluster.holder("k").await.unwrap();
    assert_ne!(holder, before);
    assert_eq!(cluster.cli(holder, &["GET", "k"]).await.unwrap(), "2");

    let writer = cache(&tier);
    fill(&writer, &tier, 1).await;
    cluster.kill(holder).await.unwrap();
    // Nobody waits long while a primary is away, and nothing is wrong.
    let (started, fresh) = (Instant::now(), cache(&tier));
    for key in documents() {
        let found = fresh.get(&key).await;
        assert!(found.is_none() || found == Some((entry(1), Tier::L2)), "{found:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    eventually("the replica to take over", async || tier.set_bytes("k", b"3", life).await).await;
    let successor = cluster.holder("k").await.unwrap();
    assert_ne!(successor, holder);
    assert_eq!(cluster.cli(successor, &["GET", "k"]).await.unwrap(), "3");
    fill(&writer, &tier, 2).await;
}
