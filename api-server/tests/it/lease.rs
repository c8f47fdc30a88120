//! Leases: one piece of work for all pods.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use e2e::services::{Redis, TcpProxy};
use perses_api_server::cache::redis::RedisTier;
use perses_api_server::config;
use perses_api_server::query::lease::{Claim, Lease, claim};

use crate::pod::until;

const PATIENCE: Duration = Duration::from_secs(50);

async fn connect(address: String) -> Arc<RedisTier> {
    let tier = RedisTier::new(&config::Redis { addr: address, ..config::Redis::default() }).unwrap();
    until("Redis is connected", || async { tier.is_available() }).await;
    Arc::new(tier)
}

/// What is published, if it is.
#[derive(Default, Clone)]
struct Board(Arc<AtomicBool>);

impl Board {
    async fn claim(&self, redis: &Arc<RedisTier>, name: &str) -> Claim<&'static str> {
        claim(redis, name, PATIENCE, || async { self.0.load(Ordering::SeqCst).then_some("done") }).await
    }

    async fn held(&self, redis: &Arc<RedisTier>, name: &str) -> Lease {
        match self.claim(redis, name).await {
            Claim::Held(lease) => lease,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn who_waits_finds_what_the_holder_publishes() {
    let redis = Redis::start().await.unwrap();
    let (one, other) = tokio::join!(connect(redis.address()), connect(redis.address()));
    let board = Board::default();
    let lease = board.held(&one, "lease").await;
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let (board, other) = (board.clone(), other.clone());
            tokio::spawn(async move { matches!(board.claim(&other, "lease").await, Claim::Found("done")) })
        })
        .collect();
    // Longer than a lease lives without its holder.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "the holder is alive");
    board.0.store(true, Ordering::SeqCst);
    lease.published().await;
    for waiting in waiting {
        assert!(waiting.await.unwrap());
    }
    // Another name is another lease; one that was published a moment ago is found.
    Board::default().held(&other, "another").await.nothing().await;
    assert!(matches!(board.claim(&other, "lease").await, Claim::Found(_)));
}

#[tokio::test]
async fn a_holder_that_fails_gives_way_at_once() {
    let redis = Redis::start().await.unwrap();
    let (one, other) = tokio::join!(connect(redis.address()), connect(redis.address()));
    let board = Board::default();
    // What it has cannot be shared: the others work alone.
    board.held(&one, "a").await.nothing().await;
    assert!(matches!(board.claim(&other, "a").await, Claim::Alone));
    // It is left by all who wanted its work: another one holds the lease, and the first one's end does not end that.
    let first = board.held(&one, "b").await;
    let second = tokio::spawn({
        let (board, other) = (board.clone(), other.clone());
        async move { board.held(&other, "b").await }
    });
    drop(first);
    let second = second.await.unwrap();
    let third = tokio::spawn({
        let (board, one) = (board.clone(), one.clone());
        async move { matches!(board.claim(&one, "b").await, Claim::Alone) }
    });
    second.nothing().await;
    assert!(third.await.unwrap());
}

/// A holder without Redis is as good as dead: the lease goes on to another, and is not ended by the first.
#[tokio::test]
async fn a_holder_that_is_silent_is_replaced() {
    let redis = Redis::start().await.unwrap();
    let line = TcpProxy::to_port(redis.port()).await.unwrap();
    let (one, other) = tokio::join!(connect(format!("127.0.0.1:{}", line.port())), connect(redis.address()));
    let board = Board::default();
    let first = board.held(&one, "lease").await;
    line.stall().await;
    let begun = Instant::now();
    let second = board.held(&other, "lease").await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    line.heal().await;
    until("the first one reaches Redis", || async { one.is_available() }).await;
    first.published().await;
    let held = redis.cli(&["get", "lease"]).await.unwrap();
    assert!(!held.contains("published"), "{held}");
    second.nothing().await;
    assert!(redis.cli(&["get", "lease"]).await.unwrap().contains("nothing"));
}

#[tokio::test]
async fn without_redis_everybody_works_alone() {
    let redis = Redis::start().await.unwrap();
    let (one, other) = tokio::join!(connect(redis.address()), connect(redis.address()));
    let board = Board::default();
    let lease = board.held(&one, "lease").await;
    let waiting = tokio::spawn({
        let (board, other) = (board.clone(), other.clone());
        async move { matches!(board.claim(&other, "lease").await, Claim::Alone) }
    });
    redis.kill().await.unwrap();
    assert!(waiting.await.unwrap());
    lease.published().await;
    assert!(matches!(board.claim(&one, "lease").await, Claim::Alone));
}
