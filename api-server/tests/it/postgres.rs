//! What is special about PostgreSQL: migrations, rights, credentials, outages, the tail under concurrent commits.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::services::{Postgres, TcpProxy, USER, shared};
use e2e::wait::{wait_for, wait_until};
use futures::future::join_all;
use perses_api_server::config;
use perses_api_server::metrics::Metrics;
use perses_api_server::store::postgres::{MigrateError, PostgresStore, migrate};
use perses_api_server::store::{Changes, Cursor, Precondition, Store, StoreError};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::backends::{create, dashboard, draft, empty_database, migrated, project};

fn store(config: &config::Postgres) -> PostgresStore {
    PostgresStore::new(config).unwrap()
}

fn is_unavailable<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}

async fn rows(store: &PostgresStore, cursor: &mut Cursor) -> Vec<String> {
    match store.tail(cursor).await.unwrap() {
        Changes::Rows(rows) => rows.into_iter().map(|change| change.key.name).collect(),
        Changes::Lost => panic!("the tail is lost"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_can_run_again_and_several_times_at_once() {
    let server = shared::postgres().await.unwrap();
    let config = empty_database(server).await;
    let unready = store(&config).ready().await.unwrap_err().to_string();
    assert!(unready.contains("perses-api-server migrate"), "{unready}");
    let reports = join_all((0..4).map(|_| migrate(&config))).await;
    let mut applied: Vec<_> = reports.into_iter().flat_map(|report| report.unwrap().applied).collect();
    applied.sort_unstable();
    assert_eq!(applied, ["0001_documents", "0002_leases", "0003_audit"], "once, by whoever came first");
    let again = migrate(&config).await.unwrap();
    assert!(again.applied.is_empty() && again.from == 3 && again.to == 3, "{again}");
    store(&config).ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_knows_which_schemas_it_works_with() {
    let server = shared::postgres().await.unwrap();
    let config = migrated(server).await;
    let add = |version: i64, needs: i64| {
        format!(
            "INSERT INTO perses.schema_version (version, name, needs, checksum) VALUES ({version}, 'later', {needs}, 'x')"
        )
    };
    server.sql(&config.dbname, &add(98, 1)).await.unwrap();
    store(&config).ready().await.expect("newer, but only additions");
    migrate(&config).await.expect("nothing to do");
    server.sql(&config.dbname, "UPDATE perses.schema_version SET checksum = 'other' WHERE version = 1").await.unwrap();
    let error = migrate(&config).await.unwrap_err().to_string();
    assert!(error.contains("0001_documents was changed after it was applied"), "{error}");
    server.sql(&config.dbname, &add(99, 99)).await.unwrap();
    let error = store(&config).ready().await.unwrap_err().to_string();
    assert!(error.contains("schema 99") && error.contains("newer server"), "{error}");
    let error = migrate(&config).await.unwrap_err();
    assert!(matches!(&error, MigrateError::TooNew(text) if text.contains("restore a backup")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_belong_to_a_role_that_cannot_sign_in_so_credentials_can_be_replaced() {
    let server = shared::postgres().await.unwrap();
    let config = empty_database(server).await;
    let database = &config.dbname;
    // An ordinary owner of the database may not make roles: it works, and says what is missing.
    let report = migrate(&config).await.unwrap();
    assert_eq!(report.owner, USER);
    let advice = report.advice.unwrap();
    let wanted = format!("CREATE ROLE \"{database}_owner\" NOLOGIN; GRANT \"{database}_owner\" TO \"{USER}\"");
    assert!(advice.contains(&wanted), "{advice}");
    create(&store(&config), &project("p"), "{}").await;

    // An administrator does what was asked for; the next run hands everything over.
    server.sql("postgres", &wanted).await.unwrap();
    let report = migrate(&config).await.unwrap();
    assert_eq!((report.owner, report.advice), (format!("{database}_owner"), None));
    let owners = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relnamespace = 'perses'::regnamespace";
    assert_eq!(server.sql(database, owners).await.unwrap(), format!("{database}_owner"));

    // A new login role that is a member does everything, without any right of its own.
    let newcomer = format!("{database}_second");
    let sql = format!("CREATE ROLE {newcomer} LOGIN PASSWORD 'secret-2'; GRANT \"{database}_owner\" TO {newcomer}");
    server.sql("postgres", &sql).await.unwrap();
    let second = config::Postgres { user: Some(newcomer), password: Some("secret-2".into()), ..config.clone() };
    let other = store(&second);
    create(&other, &dashboard("p", "d"), "{}").await;
    assert_eq!(other.delete(&project("p")).await.unwrap().len(), 2);
    assert!(migrate(&second).await.unwrap().applied.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_make_roles_makes_the_owner_itself() {
    let server = shared::postgres().await.unwrap();
    let mut config = empty_database(server).await;
    let (database, maker) = (config.dbname.clone(), format!("{}_maker", config.dbname));
    let sql =
        format!("CREATE ROLE {maker} LOGIN CREATEROLE PASSWORD 'x'; GRANT CREATE ON DATABASE {database} TO {maker}");
    server.sql("postgres", &sql).await.unwrap();
    (config.user, config.password) = (Some(maker), Some("x".into()));
    let report = migrate(&config).await.unwrap();
    assert_eq!((report.owner, report.advice), (format!("{database}_owner"), None));
    create(&store(&config), &project("p"), "{}").await;
    let can_login = format!("SELECT rolcanlogin FROM pg_roles WHERE rolname = '{database}_owner'");
    assert_eq!(server.sql("postgres", &can_login).await.unwrap(), "f");

    let stranger = format!("{database}_stranger");
    server.sql("postgres", &format!("CREATE ROLE {stranger} LOGIN PASSWORD 'x'")).await.unwrap();
    config.user = Some(stranger);
    let error = migrate(&config).await.unwrap_err().to_string();
    assert!(error.contains("GRANT"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_name_what_is_wrong_but_no_password() {
    let server = shared::postgres().await.unwrap();
    let good = migrated(server).await;
    let cases = [
        config::Postgres { password: Some("hunter2-wrong".into()), ..good.clone() },
        config::Postgres { password: Some("hunter2-wrong".into()), port: 1, ..good.clone() },
        config::Postgres { password: Some("hunter2-wrong".into()), dbname: "nowhere".to_owned(), ..good.clone() },
        config::Postgres {
            password: Some("hunter2-wrong".into()),
            host: "no.such.host.invalid".to_owned(),
            ..good.clone()
        },
        config::Postgres { password_file: Some("/nonexistent/password".into()), ..good.clone() },
    ];
    for config in cases {
        let config = config::Postgres { acquire_timeout: config::ConfigDuration(Duration::from_millis(300)), ..config };
        let error = store(&config).get(&project("p")).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
        assert!(!format!("{:?}", store(&config)).contains("hunter2"), "the debug text of the store");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rotated_password_is_taken_from_its_file_without_a_failed_request() {
    let server = Postgres::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, format!("{}\n", server.password())).unwrap();
    let config =
        config::Postgres { password: None, password_file: Some(file.clone()), ..migrated_at(&server, &file).await };
    let store = Arc::new(store(&config));
    let key = project("p");
    create(&*store, &key, "{}").await;
    let done = CancellationToken::new();
    let requests = (0..6).map(|_| {
        let (store, key, done) = (Arc::clone(&store), key.clone(), done.clone());
        tokio::spawn(async move {
            let mut count = 0_u64;
            while !done.is_cancelled() {
                store.get(&key).await.unwrap().unwrap();
                store.update(draft(&key, "{}"), Precondition::None).await.unwrap();
                count += 1;
            }
            count
        })
    });
    let requests: Vec<_> = requests.collect();
    // Once the file is changed first, once the database, with all idle connections ended in between.
    let end = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{USER}' AND state = 'idle'"
    );
    for (password, file_first) in [("second", true), ("third", false)] {
        let change = format!("ALTER ROLE {USER} PASSWORD '{password}'");
        if file_first {
            fs::write(&file, password).unwrap();
        }
        server.sql("postgres", &change).await.unwrap();
        server.sql("postgres", "SELECT pg_sleep(0.3)").await.unwrap();
        if !file_first {
            fs::write(&file, format!("{password}\n")).unwrap();
        }
        let signed_in = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{USER}' AND backend_start > now() - interval '2 seconds'"
        );
        wait_until("new connections", Duration::from_secs(20), || async {
            Ok(server.sql("postgres", &signed_in).await? != "0")
        })
        .await
        .unwrap();
    }
    done.cancel();
    for request in requests {
        assert!(request.await.unwrap() > 10);
    }
    // With nothing to fall back to, a new process signs in with what the file holds.
    server.sql("postgres", &end).await.unwrap();
    wait_until("the store to sign in again", Duration::from_secs(20), || async {
        Ok(store.get(&key).await?.is_some())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_who_it_says_or_nothing_is_sent() {
    let name = |name: &str| rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let authority = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        (pem, rcgen::Issuer::new(params, key))
    };
    let ((ours, issuer), (others, _)) = (authority("ours"), authority("others"));
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = name("localhost").signed_by(&key, &issuer).unwrap();
    let server = Postgres::start_with_tls(&certificate.pem(), &key.serialize_pem()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (good, wrong) = (folder.path().join("ca.pem"), folder.path().join("other.pem"));
    fs::write(&good, ours).unwrap();
    fs::write(&wrong, others).unwrap();
    let database = empty_database(&server).await;
    let with = |host: &str, sslmode, ca: &std::path::Path| config::Postgres {
        host: host.to_owned(),
        sslmode,
        ca_file: Some(ca.to_owned()),
        ..database.clone()
    };
    let full = with("localhost", config::SslMode::VerifyFull, &good);
    migrate(&full).await.unwrap();
    create(&store(&full), &project("p"), "{}").await;
    let encrypted =
        "SELECT count(*) > 0 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND usename = 'perses'";
    let open = store(&full);
    open.get(&project("p")).await.unwrap();
    assert_eq!(server.sql("postgres", encrypted).await.unwrap(), "t");
    // The certificate is for another name: enough for verify-ca, not for verify-full.
    store(&with("127.0.0.1", config::SslMode::VerifyCa, &good)).check().await.unwrap();
    for config in
        [with("127.0.0.1", config::SslMode::VerifyFull, &good), with("localhost", config::SslMode::VerifyFull, &wrong)]
    {
        let error = store(&config).check().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)) && error.to_string().contains("ertificate"), "{error}");
    }
}

async fn migrated_at(server: &Postgres, file: &std::path::Path) -> config::Postgres {
    let config =
        config::Postgres { password: None, password_file: Some(file.to_owned()), ..empty_database(server).await };
    migrate(&config).await.unwrap();
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_or_frozen_database_never_hangs_a_request_and_heals() {
    let server = Postgres::start().await.unwrap();
    let config = migrated(&server).await;
    let store = store(&config);
    let key = project("p");
    create(&store, &key, "{}").await;
    store.ready().await.unwrap();
    let measure = async |what: &str, limit: Duration| {
        let started = Instant::now();
        let (read, written) = tokio::join!(store.get(&key), store.update(draft(&key, "{}"), Precondition::None));
        assert!(is_unavailable(&read) && is_unavailable(&written), "{what}: {read:?} {written:?}");
        assert!(started.elapsed() < limit, "{what}: {:?}", started.elapsed());
        store.ready().await.expect("what was ready stays ready");
    };
    let heals = async || {
        wait_until("the store to heal", Duration::from_secs(30), || async { Ok(store.get(&key).await?.is_some()) })
            .await
            .unwrap();
        store.update(draft(&key, "{}"), Precondition::None).await.unwrap();
    };
    server.kill().await.unwrap();
    measure("killed", Duration::from_secs(8)).await;
    let started = Instant::now();
    let quick = join_all((0..50).map(|_| store.get(&key))).await;
    assert!(quick.iter().all(is_unavailable));
    assert!(started.elapsed() < Duration::from_secs(5), "known to be away: {:?}", started.elapsed());
    server.start_again().await.unwrap();
    heals().await;
    server.pause().await.unwrap();
    measure("frozen", Duration::from_secs(15)).await;
    server.resume().await.unwrap();
    heals().await;
    server.stop().await.unwrap();
    server.start_again().await.unwrap();
    // Every pooled connection is dead now; a read notices and tries another.
    assert!(store.get(&key).await.unwrap().is_some());
}

/// Rows become visible in another order than they got their numbers, and a transaction elsewhere stays open throughout.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_tail_misses_nothing_when_transactions_commit_out_of_order() {
    const WRITERS: usize = 8;
    const WRITES: usize = 60;
    let server = shared::postgres().await.unwrap();
    let config = migrated(server).await;
    let url = server.url(&config.dbname);
    let store = store(&config);
    let mut cursor = store.tail_start().await.unwrap();
    let mut bystander = PgConnection::connect(&url).await.unwrap();
    bystander.execute("CREATE TABLE bystander (x int); BEGIN; INSERT INTO bystander VALUES (1)").await.unwrap();

    let writers = (0..WRITERS).map(|writer| {
        let url = url.clone();
        tokio::spawn(async move {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            for number in 0..WRITES {
                // The row gets its number at once, its transaction ends after a while that differs; every tenth is undone.
                let pause = (writer * 7 + number * 13) % 23;
                let end = if number % 10 == 9 { "ROLLBACK" } else { "COMMIT" };
                let sql = format!(
                    "BEGIN; INSERT INTO perses.change (kind, name, revision, deleted) \
                     VALUES ('Project', 'w{writer}-{number}', nextval('perses.revision'), false); \
                     SELECT pg_sleep({pause}::float / 1000); {end}"
                );
                connection.execute(AssertSqlSafe(sql)).await.unwrap();
            }
        })
    });
    let writing = tokio::spawn(join_all(writers.collect::<Vec<_>>()));
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    loop {
        let finished = writing.is_finished();
        for name in rows(&store, &mut cursor).await {
            *seen.entry(name).or_default() += 1;
        }
        if finished {
            break;
        }
    }
    writing.await.unwrap().into_iter().for_each(|writer| writer.unwrap());
    let expected = (0..WRITERS).flat_map(|w| (0..WRITES).filter(|n| n % 10 != 9).map(move |n| format!("w{w}-{n}")));
    let missing: Vec<_> = expected.filter(|name| !seen.contains_key(name)).collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
    assert!(
        seen.values().all(|times| *times == 1) && seen.len() == WRITERS * WRITES * 9 / 10,
        "each once, none that was undone"
    );
    bystander.execute("COMMIT").await.unwrap();
    rows(&store, &mut cursor).await;
    assert!(rows(&store, &mut cursor).await.is_empty() && cursor.seen.is_empty(), "nothing is carried along for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_reader_learns_of_the_last_minutes_and_a_late_one_that_it_lost_the_tail() {
    let server = shared::postgres().await.unwrap();
    let config = migrated(server).await;
    let store = store(&config);
    create(&store, &project("recent"), "{}").await;
    let mut fresh = store.tail_start().await.unwrap();
    assert_eq!(rows(&store, &mut fresh).await, ["recent"]);
    let mut late = Cursor { looked_at: fresh.looked_at - 3_600_000_000, ..fresh.clone() };
    assert_eq!(store.tail(&mut late).await.unwrap(), Changes::Lost);
    let mut other_life = Cursor { epoch: fresh.epoch - 1, ..fresh.clone() };
    assert_eq!(store.tail(&mut other_life).await.unwrap(), Changes::Lost, "after a fail-over");
    let mut future = Cursor { position: fresh.position + 1_000_000, ..fresh.clone() };
    assert_eq!(store.tail(&mut future).await.unwrap(), Changes::Lost, "after a restore");

    let old = "UPDATE perses.change SET at = at - interval '2 hours'; \
               INSERT INTO perses.change (kind, name, revision, deleted, at) SELECT 'Project', 'old', n, false, \
               now() - interval '61 minutes' FROM generate_series(1, 5000) n";
    server.sql(&config.dbname, old).await.unwrap();
    create(&store, &project("kept"), "{}").await;
    assert_eq!(store.prune().await.unwrap(), 5001, "in batches, until nothing old is left");
    assert_eq!(server.sql(&config.dbname, "SELECT name FROM perses.change").await.unwrap(), "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_in_mid_write_leaves_all_or_nothing() {
    let server = shared::postgres().await.unwrap();
    let direct = migrated(server).await;
    let proxy = TcpProxy::to_port(server.port()).await.unwrap();
    let store = store(&config::Postgres { port: proxy.port(), ..direct.clone() });
    create(&store, &project("p"), "{}").await;
    let mut cursor = store.tail_start().await.unwrap();
    rows(&store, &mut cursor).await;
    let mut undone = 0;
    for round in 0..20 {
        proxy.delay(Duration::from_millis(2)).await;
        let key = dashboard("p", &format!("d{round}"));
        let writing = store.create(draft(&key, "{}"));
        let cutting = async {
            tokio::time::sleep(Duration::from_millis(round * 6)).await;
            proxy.cut().await;
        };
        let (written, ()) = tokio::join!(writing, cutting);
        proxy.heal().await;
        // A COMMIT that got through is done before anybody looks.
        let busy = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND state <> 'idle' AND pid <> pg_backend_pid()",
            direct.dbname
        );
        wait_until("the server to be done", Duration::from_secs(20), || async {
            Ok(server.sql(&direct.dbname, &busy).await? == "0")
        })
        .await
        .unwrap();
        let stored =
            wait_for("an answer", Duration::from_secs(20), || async { Ok(Some(store.get(&key).await?.is_some())) })
                .await
                .unwrap();
        assert!(stored || written.is_err(), "a write that was confirmed is there");
        undone += usize::from(!stored);
        let noted = rows(&store, &mut cursor).await;
        assert_eq!(noted.len(), usize::from(stored), "the tail says the same as the table: {noted:?}");
    }
    assert!(undone > 0 && undone < 20, "the cuts hit different moments: {undone} of 20 undone");
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_and_connections_are_counted() {
    let server = shared::postgres().await.unwrap();
    let store = store(&config::Postgres { max_connections: 7, ..migrated(server).await });
    let metrics = Arc::new(Metrics::new("1.0.0"));
    store.attach_metrics(Arc::clone(&metrics));
    create(&store, &project("p"), "{}").await;
    store.get(&project("p")).await.unwrap();
    store.get(&project("q")).await.unwrap();
    let text = metrics.encode().unwrap();
    for line in [
        r#"perses_db_query_duration_seconds_count{operation="create"} 1"#,
        r#"perses_db_query_duration_seconds_count{operation="get"} 2"#,
        r#"perses_db_pool_connections_max{pool="main"} 7"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.contains(r#"perses_db_pool_connections{pool="main",state="idle"}"#), "{text}");
}
