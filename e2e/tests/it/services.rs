//! The backing services themselves: that they are what the tests of the programs take them for.

#![expect(clippy::unwrap_used, reason = "clippy does not see that helpers of tests are tests")]

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use e2e::{
    services::{PgBouncer, PoolSettings, Postgres, Prometheus, Redis, RedisSettings, TcpProxy, shared},
    wait::wait_until,
};
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn postgres_runs_as_ordinary_user_with_a_database_for_each_test() {
    let postgres = shared::postgres().await.unwrap();
    let (one, two) = (postgres.create_database().await.unwrap(), postgres.create_database().await.unwrap());
    assert_ne!(one.name, two.name);

    let mut connection = PgConnection::connect(&one.url).await.unwrap();
    sqlx::query("CREATE TABLE here (id int)").execute(&mut connection).await.unwrap();
    let version: i32 = sqlx::query("SELECT current_setting('server_version_num')::int")
        .fetch_one(&mut connection)
        .await
        .unwrap()
        .get(0);
    assert_eq!(version / 10_000, 17);
    assert_eq!(postgres.sql(&one.name, "SELECT count(*) FROM here").await.unwrap(), "0");
    assert!(postgres.sql(&two.name, "SELECT count(*) FROM here").await.is_err());
    let superusers = "SELECT rolsuper FROM pg_roles WHERE rolname = 'perses'";
    assert_eq!(postgres.sql("postgres", superusers).await.unwrap(), "f");

    // A copy of a database brings its content.
    connection.close().await.unwrap();
    let copy = postgres.create_database_from(&one.name).await.unwrap();
    assert_eq!(postgres.sql(&copy.name, "SELECT count(*) FROM here").await.unwrap(), "0");
}

#[tokio::test]
async fn postgres_keeps_its_data_through_stop_and_kill_and_hangs_while_paused() {
    let postgres = Postgres::start().await.unwrap();
    let database = postgres.create_database().await.unwrap();
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    for statement in ["CREATE TABLE kept (id int)", "INSERT INTO kept VALUES (1)"] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }

    postgres.stop().await.unwrap();
    assert!(PgConnection::connect(&database.url).await.is_err());
    postgres.start_again().await.unwrap();
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    sqlx::query("INSERT INTO kept VALUES (2)").execute(&mut connection).await.unwrap();

    postgres.kill().await.unwrap();
    assert!(sqlx::query("SELECT 1").execute(&mut connection).await.is_err());
    postgres.start_again().await.unwrap();
    assert_eq!(postgres.sql(&database.name, "SELECT count(*) FROM kept").await.unwrap(), "2");

    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    postgres.pause().await.unwrap();
    let query = sqlx::query("SELECT 1").execute(&mut connection);
    tokio::pin!(query);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut query).await.is_err());
    postgres.resume().await.unwrap();
    tokio::time::timeout(DEADLINE, query).await.unwrap().unwrap();
}

#[tokio::test]
async fn replica_replays_and_refuses_writes() {
    let postgres = Postgres::start().await.unwrap();
    let replica = postgres.replica().await.unwrap();
    let database = postgres.create_database().await.unwrap();
    postgres.sql(&database.name, "CREATE TABLE t (id int); INSERT INTO t VALUES (7)").await.unwrap();
    postgres.wait_for_replay(&replica).await.unwrap();
    assert_eq!(replica.sql(&database.name, "SELECT id, pg_is_in_recovery() FROM t").await.unwrap(), "7|t");
    let refusal = replica.sql(&database.name, "INSERT INTO t VALUES (8)").await.unwrap_err();
    assert!(format!("{refusal:#}").contains("read-only transaction"), "{refusal:#}");

    // A standby that is held back does not show new rows: lag can be made.
    replica.sql("postgres", "SELECT pg_wal_replay_pause()").await.unwrap();
    postgres.sql(&database.name, "INSERT INTO t VALUES (9)").await.unwrap();
    assert_eq!(replica.sql(&database.name, "SELECT count(*) FROM t").await.unwrap(), "1");
    replica.sql("postgres", "SELECT pg_wal_replay_resume()").await.unwrap();
    postgres.wait_for_replay(&replica).await.unwrap();
    assert_eq!(replica.sql(&database.name, "SELECT count(*) FROM t").await.unwrap(), "2");
}

#[tokio::test]
async fn pgbouncer_gives_each_transaction_any_server_connection() {
    let postgres = shared::postgres().await.unwrap();
    let database = postgres.create_database().await.unwrap();
    let pooler =
        PgBouncer::start(postgres, PoolSettings { default_pool_size: 3, ..PoolSettings::default() }).await.unwrap();
    let mut client = PgConnection::connect(&pooler.url(&database.name)).await.unwrap();
    let mut other = PgConnection::connect(&pooler.url(&database.name)).await.unwrap();
    let backend = "SELECT pg_backend_pid() WHERE $1";

    // sqlx prepares this statement once: it must exist on each server connection.
    let mut first = client.begin().await.unwrap();
    let before: i32 = sqlx::query(backend).bind(true).fetch_one(&mut *first).await.unwrap().get(0);
    first.commit().await.unwrap();
    // The other client takes that connection, so the next transaction has to get a different one.
    let mut holder = other.begin().await.unwrap();
    let held: i32 = sqlx::query(backend).bind(true).fetch_one(&mut *holder).await.unwrap().get(0);
    let mut second = client.begin().await.unwrap();
    let after: i32 = sqlx::query(backend).bind(true).fetch_one(&mut *second).await.unwrap().get(0);
    assert_eq!(held, before);
    assert_ne!(after, before);
    second.rollback().await.unwrap();
    holder.rollback().await.unwrap();

    let settings = pooler.console("SHOW CONFIG").await.unwrap();
    for wanted in ["pool_mode|transaction|", "max_prepared_statements|200|", "default_pool_size|3|"] {
        assert!(settings.lines().any(|line| line.starts_with(wanted)), "{wanted} in {settings}");
    }
    pooler.stop().await.unwrap();
    assert!(PgConnection::connect(&pooler.url(&database.name)).await.is_err());
    pooler.start_again().await.unwrap();
    PgConnection::connect(&pooler.url(&database.name)).await.unwrap();
}

#[tokio::test]
async fn redis_checks_passwords_limits_memory_and_forgets_when_stopped() {
    let settings =
        RedisSettings { user: Some("perses".to_owned()), max_memory: Some(16 << 20), ..RedisSettings::default() };
    let redis = Redis::start_with(settings).await.unwrap();
    assert_eq!(redis.cli(&["SET", "key", "value"]).await.unwrap(), "OK");
    assert_eq!(redis.cli(&["GET", "key"]).await.unwrap(), "value");
    assert_eq!(redis.cli(&["CONFIG", "GET", "maxmemory"]).await.unwrap(), "maxmemory\n16777216");
    assert!(redis.cli(&["NOTACOMMAND"]).await.is_err());

    for (login, expected) in [("AUTH perses wrong\r\n", "-WRONGPASS"), ("GET key\r\n", "-NOAUTH")] {
        let mut stream = TcpStream::connect(redis.address()).await.unwrap();
        stream.write_all(format!("{login}QUIT\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(expected), "{login:?}: {answer:?}");
    }

    redis.stop().await.unwrap();
    assert!(TcpStream::connect(redis.address()).await.is_err());
    redis.start_again().await.unwrap();
    assert_eq!(redis.cli(&["GET", "key"]).await.unwrap(), "");

    redis.pause().await.unwrap();
    let mut stream = TcpStream::connect(redis.address()).await.unwrap();
    stream.write_all(b"PING\r\n").await.unwrap();
    let mut byte = [0];
    let read = stream.read(&mut byte);
    tokio::pin!(read);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut read).await.is_err());
    redis.resume().await.unwrap();
    assert_eq!(tokio::time::timeout(DEADLINE, read).await.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn prometheus_answers_about_loaded_samples_and_counts_queries() {
    let mut samples = "# TYPE loaded gauge\n".to_owned();
    for minute in 0..120 {
        _ = writeln!(samples, "loaded{{shard=\"a\"}} {minute} {}", 1_700_000_000 + minute * 60);
    }
    samples += "# EOF\n";
    let prometheus = Prometheus::start_with(&[], Some(&samples)).await.unwrap();
    assert_eq!(prometheus.query_total().await.unwrap(), 0);

    let range = [("query", "loaded"), ("start", "1700000000"), ("end", "1700000180"), ("step", "60")];
    let answer = prometheus.api("query_range", &range).await.unwrap();
    let values = &answer["result"][0]["values"];
    assert_eq!(
        *values,
        serde_json::json!([[1_700_000_000, "0"], [1_700_000_060, "1"], [1_700_000_120, "2"], [1_700_000_180, "3"]])
    );
    assert_eq!(prometheus.query_total().await.unwrap(), 1);

    wait_until("the first scrape of itself", DEADLINE, || async {
        let answer = prometheus.api("query", &[("query", "up{job=\"prometheus\"}")]).await?;
        Ok(answer["result"][0]["value"][1] == "1")
    })
    .await
    .unwrap();
    assert!(prometheus.query_total().await.unwrap() >= 2);
}

#[tokio::test]
async fn proxy_delays_stalls_cuts_and_heals() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = TcpProxy::start(target.local_addr().unwrap()).await.unwrap();
    let echo = tokio::spawn(async move {
        while let Ok((mut stream, _)) = target.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    let connect = || TcpStream::connect(("127.0.0.1", proxy.port()));
    let mut stream = connect().await.unwrap();
    assert_eq!(echo_byte(&mut stream).await.unwrap(), 1);

    proxy.delay(Duration::from_millis(100)).await;
    let started = Instant::now();
    echo_byte(&mut stream).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());

    proxy.stall().await;
    assert!(tokio::time::timeout(Duration::from_millis(200), echo_byte(&mut stream)).await.is_err());
    proxy.heal().await;
    let mut late = [0];
    tokio::time::timeout(DEADLINE, stream.read_exact(&mut late)).await.unwrap().unwrap();

    proxy.cut().await;
    assert_eq!(echo_byte(&mut stream).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(connect().await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    proxy.heal().await;
    assert_eq!(echo_byte(&mut connect().await.unwrap()).await.unwrap(), 1);
    echo.abort();
}

#[tokio::test]
async fn proxy_holds_an_answer_back_and_follows_its_target() {
    let (first, second) = (echo_server("1").await, echo_server("2").await);
    let proxy = TcpProxy::to_port(first).await.unwrap();
    let connect = || TcpStream::connect(("127.0.0.1", proxy.port()));
    let (mut one, mut other) = (connect().await.unwrap(), connect().await.unwrap());
    assert_eq!(ask(&mut one, "a").await, "1a");
    let mut held = proxy.hold_answer_to("hold");
    assert_eq!(ask(&mut one, "b").await, "1b", "another request");
    one.write_all(b"please hold this").await.unwrap();
    held.arrived().await.unwrap();
    let mut byte = [0; 64];
    assert!(tokio::time::timeout(Duration::from_millis(100), one.read(&mut byte)).await.is_err());
    assert_eq!(ask(&mut other, "hold").await, "1hold", "one answer only");
    drop(held);
    let read = tokio::time::timeout(DEADLINE, one.read(&mut byte)).await.unwrap().unwrap();
    assert_eq!(&byte[..read], b"1please hold this");

    proxy.redirect(second);
    assert_eq!(ask(&mut one, "c").await, "1c", "an open connection stays");
    assert_eq!(ask(&mut connect().await.unwrap(), "d").await, "2d");
}

/// Answers each piece of data with itself behind `name`; gives its port.
async fn echo_server(name: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 64];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    let answer = [name.as_bytes(), &buffer[..read]].concat();
                    stream.write_all(&answer).await.unwrap();
                }
            });
        }
    });
    port
}

async fn ask(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut buffer = [0; 64];
    let read = tokio::time::timeout(DEADLINE, stream.read(&mut buffer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

async fn echo_byte(stream: &mut TcpStream) -> std::io::Result<usize> {
    stream.write_all(b"x").await?;
    let mut byte = [0];
    match stream.read(&mut byte).await {
        Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        other => other,
    }
}

/// Not a test of its own: the victim of the next one, which runs this binary again and kills it.
#[tokio::test]
async fn victim() {
    if std::env::var_os("E2E_SERVICES_VICTIM").is_none() {
        return;
    }
    let redis = Redis::start().await.unwrap();
    let postgres = Postgres::start().await.unwrap();
    println!("\nports {} {}", redis.port(), postgres.port());
    std::future::pending::<()>().await;
}

#[test]
fn a_killed_test_leaves_no_process_and_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["services::victim", "--exact", "--nocapture"])
        .env("E2E_SERVICES_VICTIM", "1")
        .env("TMPDIR", folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ports = lines.find_map(|line| Some(line.ok()?.strip_prefix("ports ")?.to_owned())).unwrap();
    assert!(processes_with(folder.path()) >= 2);
    let data: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(data.len(), 2, "{data:?}");

    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + DEADLINE;
    let clean = || {
        let closed = ports.split(' ').all(|port| std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err());
        let empty = std::fs::read_dir(folder.path()).unwrap().next().is_none();
        closed && empty && processes_with(folder.path()) == 0
    };
    while !clean() {
        assert!(Instant::now() < deadline, "left: {:?}", std::fs::read_dir(folder.path()).unwrap().collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How many processes have this folder in their command line: the supervisors do.
fn processes_with(folder: &Path) -> usize {
    let folder = folder.to_string_lossy();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(folder.as_ref())).count()
}
