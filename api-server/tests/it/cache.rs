//! The document cache when Redis or PostgreSQL is away, comes back, or comes back as it was before.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use e2e::services::{Postgres, Redis, RedisSettings, Sentinel, TcpProxy, shared};
use perses_api_server::cache::tail::Notice;
use perses_api_server::cache::{DocumentCache, Encoded, Tier, redis::RedisTier};
use perses_api_server::config;
use perses_api_server::domain::document::Key;
use perses_api_server::domain::kind::Kind;
use perses_api_server::metrics::Metrics;
use perses_api_server::store::{Change, Precondition, Store, StoreError};

use crate::backends::{create, dashboard, draft, project};
use crate::replicas::{Held, Pod, eventually, shared_redis, shows, with_dashboard};

#[tokio::test(flavor = "multi_thread")]
async fn the_second_pod_finds_in_redis_what_the_first_one_read() {
    let (config, key) = with_dashboard(shared::postgres().await.unwrap()).await;
    let redis = shared_redis().await;
    let (a, b) = (Pod::start(&config, Some(&redis)).await, Pod::start(&config, Some(&redis)).await);
    let (from_store, tier) = a.read(&key).await.unwrap();
    assert_eq!(tier, None);
    assert_eq!(a.read(&key).await.unwrap(), (from_store.clone(), Some(Tier::L1)));
    assert_eq!(b.read(&key).await.unwrap(), (from_store.clone(), Some(Tier::L2)), "the very same bytes");
    assert_eq!(b.read(&key).await.unwrap(), (from_store, Some(Tier::L1)));
    let ttl: u64 = shared::redis()
        .await
        .unwrap()
        .cli(&["TTL", &format!("v1:dashboard:config:{}:d", key.project.clone().unwrap())])
        .await
        .unwrap()
        .parse()
        .unwrap();
    assert!((240..=300).contains(&ttl), "{ttl}");
    // What is not a dashboard stays out of Redis, what holds secrets out of every cache.
    let owner = project(key.project.as_deref().unwrap());
    a.read(&owner).await.unwrap();
    assert_eq!(a.read(&owner).await.unwrap().1, Some(Tier::L1));
    assert_eq!(b.read(&owner).await.unwrap().1, None);
    let secret = Key::global(Kind::GlobalSecret, "s");
    create(&*a.store, &secret, r#"{"basicAuth":{"username":"u","password":"p"}}"#).await;
    a.read(&secret).await.unwrap();
    assert_eq!(a.read(&secret).await.unwrap().1, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_with_old_values_fools_nobody() {
    let (config, key) = with_dashboard(shared::postgres().await.unwrap()).await;
    let redis = Redis::start().await.unwrap();
    let address = redis.address();
    let (a, b) = (Pod::start(&config, Some(&address)).await, Pod::start(&config, Some(&address)).await);
    a.version(&key).await;
    let name = format!("v1:dashboard:config:{}:d", key.project.clone().unwrap());
    let plain = RedisTier::new(&config::Redis { addr: address.clone(), ..config::Redis::default() }).unwrap();
    eventually("Redis", async || plain.is_available()).await;
    let old = plain.get_bytes(&name).await.expect("a dashboard that was read is in Redis");
    let written = b.write(&key).await;
    shows(&a, &key, written.version, Instant::now()).await;

    // As after a restore from a snapshot: emptied, then with the old value.
    redis.cli(&["FLUSHALL"]).await.unwrap();
    assert!(plain.set_bytes(&name, &old, Duration::from_mins(5)).await);
    let fresh = Pod::start(&config, Some(&address)).await;
    for pod in [&a, &b] {
        pod.cache.clear_memory();
    }
    for pod in [&a, &b, &fresh] {
        assert_eq!(pod.version(&key).await, Some(written.version));
    }
    assert_eq!(plain.get_bytes(&name).await.map(|value| value == old), Some(false), "the new one took its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalidations_that_redis_missed_are_made_up_for() {
    let (config, key) = with_dashboard(shared::postgres().await.unwrap()).await;
    let redis = Redis::start().await.unwrap();
    let (proxy_a, proxy_b) =
        (TcpProxy::to_port(redis.port()).await.unwrap(), TcpProxy::to_port(redis.port()).await.unwrap());
    let address = |proxy: &TcpProxy| format!("127.0.0.1:{}", proxy.port());
    let (a, b) =
        (Pod::start(&config, Some(&address(&proxy_a))).await, Pod::start(&config, Some(&address(&proxy_b))).await);
    a.version(&key).await;
    b.version(&key).await;
    // Redis keeps its old value and nobody can reach it while the document changes.
    proxy_a.cut().await;
    proxy_b.cut().await;
    let written = a.write(&key).await;
    let since = Instant::now();
    assert_eq!(a.version(&key).await, Some(written.version));
    shows(&b, &key, written.version, since).await;
    let name = format!("v1:dashboard:config:{}:d", key.project.clone().unwrap());
    let old = redis.cli(&["GET", &name]).await.unwrap();
    assert!(old.contains(r#""version":0"#), "{old}");
    proxy_a.heal().await;
    proxy_b.heal().await;
    eventually("the old value to go", async || !redis.cli(&["GET", &name]).await.unwrap().contains(r#""version":0"#))
        .await;
    eventually("Redis to be used again", async || {
        a.cache.clear_memory();
        a.version(&key).await;
        b.cache.clear_memory();
        b.read(&key).await.unwrap().1 == Some(Tier::L2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_reads_are_slower_but_never_wrong_and_never_fail() {
    let (config, key) = with_dashboard(shared::postgres().await.unwrap()).await;
    let redis = Redis::start().await.unwrap();
    let pod = Pod::start(&config, Some(&redis.address())).await;
    let mut version = pod.version(&key).await.unwrap();
    let mut check = async |what: &str| {
        let mut took = Vec::new();
        for _ in 0..60 {
            let started = Instant::now();
            version = pod.write(&key).await.version;
            pod.cache.clear_memory();
            assert_eq!(pod.version(&key).await, Some(version), "{what}");
            took.push(started.elapsed());
        }
        took.sort_unstable();
        assert!(took[56] < Duration::from_millis(500), "{what}: {:?}", &took[50..]);
        assert!(took[59] < Duration::from_secs(2), "{what}: {:?}", took[59]);
    };
    check("Redis works").await;
    redis.kill().await.unwrap();
    check("Redis is dead").await;
    redis.start_again().await.unwrap();
    let used = async || {
        pod.version(&key).await;
        pod.cache.get(&key).await;
        redis.cli(&["DBSIZE"]).await.unwrap() != "0"
    };
    eventually("Redis to be used again", async || {
        pod.cache.clear_memory();
        used().await
    })
    .await;
    redis.pause().await.unwrap();
    check("Redis is frozen").await;
    redis.resume().await.unwrap();
    check("Redis is back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_cached_documents_are_served_and_all_heals() {
    let server = Postgres::start().await.unwrap();
    let (config, key) = with_dashboard(&server).await;
    let redis = shared_redis().await;
    let (a, b) = (Pod::start(&config, Some(&redis)).await, Pod::start(&config, Some(&redis)).await);
    a.version(&key).await;
    server.kill().await.unwrap();
    assert_eq!(a.read(&key).await.unwrap().1, Some(Tier::L1), "from memory without the database");
    assert_eq!(b.read(&key).await.unwrap().1, Some(Tier::L2), "from Redis without the database");
    let other = dashboard("nobody", "knows");
    assert!(matches!(a.read(&other).await, Err(StoreError::Unavailable(_))));
    let refused = a.store.update(draft(&key, "{}"), Precondition::None).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    eventually("the follower to notice", async || !a.follower.is_healthy()).await;
    a.follower.readiness().expect("an outage of the database does not make a pod unready");
    assert_eq!(a.version(&key).await, Some(0));
    server.start_again().await.unwrap();
    eventually("the follower to go on", async || a.follower.is_healthy() && b.follower.is_healthy()).await;
    let written = a.write(&key).await;
    shows(&b, &key, written.version, Instant::now()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_lost_the_tail_starts_over() {
    let server = shared::postgres().await.unwrap();
    let (config, key) = with_dashboard(server).await;
    let store = Held::new(&config, &dashboard("nobody", "waits"));
    let pod = Pod::on(Arc::clone(&store) as Arc<dyn Store>, Some(&shared_redis().await)).await;
    assert_eq!(pod.version(&key).await, Some(0));
    let mut notices = pod.follower.subscribe();
    // As after a restore to an earlier state: the document is another one, its revision lower, and no row tells of it.
    let restore = "UPDATE perses.resource SET spec = '{\"restored\":true}', revision = 0 WHERE name = 'd'; \
                   TRUNCATE perses.change";
    server.sql(&config.dbname, restore).await.unwrap();
    store.lose_tail.store(true, Ordering::SeqCst);
    while !matches!(notices.recv().await.unwrap(), Notice::Reset) {}
    let (entry, tier) = pod.read(&key).await.unwrap();
    assert!(std::str::from_utf8(&entry.unwrap().body).unwrap().contains("restored"), "neither tier kept the old one");
    assert_eq!(tier, None);
    // A lower revision is no reason to refuse it now; the follower may empty the memory once more as it starts over.
    eventually("the document to be cached", async || pod.read(&key).await.unwrap().1 == Some(Tier::L1)).await;
}

/// The user has the rights that the operator gives it; its password comes from a file and is rotated.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_used_with_few_rights_and_a_password_that_changes() {
    let redis = Redis::start().await.unwrap();
    let set_password = async |password: &str| {
        let password = format!(">{password}");
        let user =
            ["ACL", "SETUSER", "perses", "reset", "on", &password, "~*", "&*", "+@all", "-@admin", "-@dangerous"];
        redis.cli(&user).await.unwrap();
    };
    set_password("first").await;
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "first\n").unwrap();
    let config = config::Redis {
        addr: redis.address(),
        username: Some("perses".to_owned()),
        password_file: Some(password_file.clone()),
        ..config::Redis::default()
    };
    let tier = Arc::new(RedisTier::new(&config).unwrap());
    eventually("Redis", async || tier.is_available()).await;
    let cache = || {
        let metrics = Arc::new(Metrics::new("1.0.0"));
        DocumentCache::new(1 << 20, Duration::from_mins(5), Some(Arc::clone(&tier)), metrics)
    };
    let (writer, reader) = (cache(), cache());
    let key = dashboard("p", "d");
    let entry = |revision: i64| Encoded::new(format!("{{{revision}}}\n"), 0, revision);
    assert!(writer.fill(&key, entry(1), Instant::now()).await);
    assert_eq!(reader.get(&key).await, Some((entry(1), Tier::L2)));
    writer.invalidate(&[Change { key: key.clone(), revision: 2, deleted: false }]).await;
    assert_eq!(cache().get(&key).await, None, "a tombstone");
    assert!(writer.fill(&key, entry(2), Instant::now()).await);
    assert_eq!(cache().get(&key).await, Some((entry(2), Tier::L2)));
    tier.set_bytes("v1:query:result:x", b"kept", Duration::from_mins(1)).await;
    writer.start_over().await;
    assert_eq!(cache().get(&key).await, None, "the whole family went");
    assert_eq!(tier.get_bytes("v1:query:result:x").await.as_deref(), Some(&b"kept"[..]), "and nothing else");

    set_password("second").await;
    std::fs::write(&password_file, "second\n").unwrap();
    redis.cli(&["CLIENT", "KILL", "USER", "perses"]).await.unwrap();
    eventually("the new password to be used", async || tier.set_bytes("rotated", b"yes", Duration::from_mins(1)).await)
        .await;
    assert_eq!(redis.cli(&["GET", "rotated"]).await.unwrap(), "yes");
    assert!(!format!("{tier:?}").contains("second"));
}

/// A certificate for `name` and its key, and the authority that signed it; all PEM.
fn certificate(name: &str) -> (String, String, String) {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = params.self_signed(&authority).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, authority);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (certificate.pem(), key.serialize_pem(), root)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_reached_over_tls_and_only_when_its_certificate_is_right() {
    let (certificate, key, authority) = certificate("localhost");
    let tls = Some((certificate, key));
    let settings = RedisSettings { user: Some("perses".to_owned()), tls, ..RedisSettings::default() };
    let redis = Redis::start_with(settings).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (ca_file, password_file) = (folder.path().join("ca.crt"), folder.path().join("password"));
    let (user, password) = redis.credentials().unwrap();
    std::fs::write(&ca_file, authority).unwrap();
    std::fs::write(&password_file, password).unwrap();
    let port = redis.tls_port().unwrap();
    let at = |host: &str| config::Redis {
        addr: format!("{host}:{port}"),
        username: Some(user.to_owned()),
        password_file: Some(password_file.clone()),
        tls: Some(config::RedisTls { ca_file: Some(ca_file.clone()) }),
        ..config::Redis::default()
    };
    let tier = RedisTier::new(&at("localhost")).unwrap();
    // The certificate is for another name.
    let stranger = RedisTier::new(&at("127.0.0.1")).unwrap();
    eventually("Redis", async || tier.set_bytes("k", b"v", Duration::from_mins(1)).await).await;
    assert_eq!(redis.cli(&["GET", "k"]).await.unwrap(), "v");
    assert!(!stranger.is_available(), "it had as long as the other one");

    // An authority that is exchanged is read at the next connection.
    std::fs::write(&ca_file, self::certificate("localhost").2).unwrap();
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await.unwrap();
    eventually("the wrong authority to be noticed", async || !tier.is_available()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_lead_to_the_primary_and_to_the_next_one() {
    let primary = Redis::start().await.unwrap();
    let settings = RedisSettings { replica_of: Some(primary.port()), ..RedisSettings::default() };
    let replica = Redis::start_with(settings).await.unwrap();
    let sentinel = Sentinel::start("perses", primary.port()).await.unwrap();
    sentinel.knows_a_replica("perses").await.unwrap();
    let sentinels = config::RedisSentinel {
        // One that is away does not matter.
        addrs: vec!["127.0.0.1:1".to_owned(), sentinel.address()],
        master_name: "perses".to_owned(),
        ..config::RedisSentinel::default()
    };
    let tier = RedisTier::new(&config::Redis { sentinel: Some(sentinels), ..config::Redis::default() }).unwrap();
    eventually("the primary", async || tier.set_bytes("k", b"1", Duration::from_mins(1)).await).await;
    assert_eq!(primary.cli(&["GET", "k"]).await.unwrap(), "1");
    primary.kill().await.unwrap();
    eventually("the next primary", async || tier.set_bytes("k", b"2", Duration::from_mins(1)).await).await;
    assert_eq!(replica.cli(&["GET", "k"]).await.unwrap(), "2");
}
