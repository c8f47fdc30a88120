//! A pooler that is replaced, as Kubernetes does it: new connections go to the next one, the old one gets SIGTERM and a time
//! to end. Nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use e2e::services::{PgBouncer, PoolSettings, Postgres, TcpProxy, shared};
use e2e::wait::wait_until;
use parking_lot::Mutex;
use perses_api_server::config::{self, ConfigDuration};
use perses_api_server::domain::document::Key;
use perses_api_server::store::postgres::{Ensured, Login, PostgresStore, ensure_login, migrate};
use perses_api_server::store::{Precondition, Store};
use tokio_util::sync::CancellationToken;

use crate::backends::{create, dashboard, draft, migrated, project};

const LIFETIME: ConfigDuration = ConfigDuration::from_secs(2);
const STATEMENT: ConfigDuration = ConfigDuration::from_secs(2);
/// What the old pooler is given: the life of a connection, its last statement, and a reserve for a busy machine.
const GRACE: Duration = Duration::from_secs(2 + 2 + 11);

/// Readers and writers of one document each, until they are told to stop.
struct Load {
    done: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(store: &Arc<dyn Store>, keys: &[Key]) -> Self {
        let (done, failures) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let stop = CancellationToken::new();
        let tasks = keys.iter().enumerate().map(|(number, key)| {
            let (store, key) = (Arc::clone(store), key.clone());
            let (done, failures, stop) = (Arc::clone(&done), Arc::clone(&failures), stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let result = match number % 3 {
                        0 => store.update(draft(&key, "{}"), Precondition::None).await.map(drop),
                        _ => store.get(&key).await.map(|found| assert!(found.is_some())),
                    };
                    match result {
                        Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
                        Err(error) => failures.lock().push(error.to_string()),
                    }
                    // Two in three connections are idle at times.
                    tokio::time::sleep(Duration::from_millis(3 * number as u64)).await;
                }
            })
        });
        Self { tasks: tasks.collect(), done, failures, stop }
    }

    /// Waits for so many more requests.
    async fn goes_on(&self, more: usize) {
        let before = self.done.load(Ordering::Relaxed);
        wait_until("the load to go on", Duration::from_secs(30), || async {
            Ok(self.done.load(Ordering::Relaxed) > before + more)
        })
        .await
        .unwrap();
    }

    async fn finish(self) -> Vec<String> {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
        let failures = self.failures.lock();
        failures.clone()
    }
}

/// Replaces a pooler by the next one while pods work through them; `meanwhile` happens before the change.
async fn replace_under_load(direct: &config::Postgres, old: PgBouncer, new: PgBouncer, meanwhile: impl AsyncFnOnce()) {
    let service = TcpProxy::to_port(old.port()).await.unwrap();
    let config = config::Postgres {
        port: service.port(),
        max_lifetime: LIFETIME,
        statement_timeout: STATEMENT,
        max_connections: 8,
        ..direct.clone()
    };
    let store: Arc<dyn Store> = Arc::new(PostgresStore::new(&config).unwrap());
    create(&*store, &project("p"), "{}").await;
    let mut keys = Vec::new();
    for number in 0..8 {
        let key = dashboard("p", &format!("d{number}"));
        create(&*store, &key, "{}").await;
        keys.push(key);
    }
    // A pod that does nothing keeps its connections too.
    let idle = PostgresStore::new(&config).unwrap();
    idle.get(&keys[0]).await.unwrap();
    let load = Load::start(&store, &keys);
    load.goes_on(100).await;

    meanwhile().await;
    // Out of the Service, then SIGTERM: it ends by itself, because its clients leave in time.
    service.redirect(new.port());
    old.drain(GRACE).await.unwrap();
    load.goes_on(100).await;
    idle.get(&keys[0]).await.unwrap();
    assert_eq!(load.finish().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_that_is_replaced_under_load_costs_no_request() {
    let server = shared::postgres().await.unwrap();
    let (old, new) =
        (PgBouncer::start(server, PoolSettings::default()), PgBouncer::start(server, PoolSettings::default()));
    let (old, new) = tokio::try_join!(old, new).unwrap();
    replace_under_load(&migrated(server).await, old, new, async || {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_of_the_database_concerns_the_poolers_alone() {
    let server = Postgres::start().await.unwrap();
    // As the operator writes it: clients sign in with a word of the pooler's, which signs in at the database.
    let with = async |password: &str| {
        let line = format!("* = host=127.0.0.1 port={} user='perses' password='{password}'", server.port());
        PgBouncer::start_for(&server, &line, PoolSettings::default()).await.unwrap()
    };
    let (old, new) = (with(server.password()).await, with("the next one").await);
    let rotate = async || {
        server.sql("postgres", "ALTER ROLE perses PASSWORD 'the next one'").await.unwrap();
    };
    replace_under_load(&migrated(&server).await, old, new, rotate).await;
}

/// The login roles of a database take turns, and each may do everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_login_role_takes_over_under_load_and_the_first_one_is_locked() {
    let server = Postgres::start().await.unwrap();
    // As the operator's start script makes it.
    server.sql("postgres", "ALTER ROLE perses CREATEROLE").await.unwrap();
    let direct = migrated(&server).await;
    let line = |user: &str, password: &str| {
        format!("* = host=127.0.0.1 port={} user='{user}' password='{password}'", server.port())
    };
    let words = ["one", "two", "three"].map(|word| format!("word {word}"));
    let login = |user: &str, password: &str, known: Option<&str>| Login {
        user: user.to_owned(),
        password: password.to_owned(),
        known: known.map(str::to_owned),
    };
    let as_user = |user: &str, password: &str| config::Postgres {
        user: Some(user.to_owned()),
        password: Some(password.into()),
        ..direct.clone()
    };
    let first = server.password().to_owned();

    let second = login("perses_b", &words[0], None);
    assert_eq!(ensure_login(&direct, &second).await.unwrap(), Ensured::Made);
    assert_eq!(ensure_login(&direct, &second).await.unwrap(), Ensured::Current);
    let poolers = [line("perses", &first), line("perses_b", &words[0])];
    let [a, b] = poolers.each_ref().map(|line| PgBouncer::start_for(&server, line, PoolSettings::default()));
    let (a, b) = tokio::try_join!(a, b).unwrap();
    replace_under_load(&direct, a, b, async || {}).await;

    // Nobody uses the first one any more: it locks itself with a word that nobody is told.
    let of_second = as_user("perses_b", &words[0]);
    let lock = login("perses", &words[1], Some(&first));
    assert_eq!(ensure_login(&of_second, &lock).await.unwrap(), Ensured::Changed);
    let refused = async |config: &config::Postgres| {
        let error = ensure_login(config, &login("nobody", "x", None)).await.unwrap_err();
        assert!(error.to_string().contains("refuses the configured user"), "{error}");
    };
    refused(&direct).await;
    assert!(!server.log_tail().contains(&words[1]), "no password is in a statement");

    // The second one may do everything: here the last migration, which makes a table.
    let undo = "DROP TABLE perses.audit; DELETE FROM perses.schema_version WHERE version = 3";
    server.sql(&direct.dbname, undo).await.unwrap();
    let report = migrate(&of_second).await.unwrap();
    assert_eq!((report.applied.as_slice(), report.advice), (&["0003_audit"][..], None));
    let owners = "SELECT string_agg(DISTINCT tableowner, ',') FROM pg_tables WHERE schemaname = 'perses'";
    assert_eq!(server.sql(&direct.dbname, owners).await.unwrap(), format!("{}_owner", direct.dbname));

    // Back again: the role that rested changes its own password, and the other one is locked.
    let back = login("perses", &words[2], Some(&words[1]));
    assert_eq!(ensure_login(&of_second, &back).await.unwrap(), Ensured::Changed);
    assert!(migrate(&as_user("perses", &words[2])).await.unwrap().applied.is_empty());
    let lock = login("perses_b", "resting", Some(&words[0]));
    assert_eq!(ensure_login(&as_user("perses", &words[2]), &lock).await.unwrap(), Ensured::Changed);
    refused(&of_second).await;
    // A role whose password is lost can be given one by whoever made it.
    let lost = login("perses_b", "found", Some("not this"));
    assert_eq!(ensure_login(&as_user("perses", &words[2]), &lost).await.unwrap(), Ensured::Given);
    // Who may not is told so, without a password.
    let error = ensure_login(&as_user("perses_b", "found"), &login("perses", "secret-word", None)).await.unwrap_err();
    assert!(!error.to_string().contains("secret-word") && !error.to_string().contains("SCRAM"), "{error}");
}
