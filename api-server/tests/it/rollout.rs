//! A release is rolled out: its migration runs under load while servers of the release before serve through prepared
//! statements; then both serve side by side, and the old one restarts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use e2e::services::shared;
use e2e::wait::wait_until;
use parking_lot::Mutex;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::backends::migrated;
use crate::http;
use crate::processes::Process;

/// Clients of one server: they write, read what they wrote, list and search. Lists and writes never come from a cache.
struct Clients {
    /// Where they send their requests; nowhere while their server is out of its Service.
    address: Arc<Mutex<Option<String>>>,
    /// Whether a request may be under way.
    busy: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Clients {
    fn start(address: &str, project: &str) -> Self {
        let address = Arc::new(Mutex::new(Some(address.to_owned())));
        let (busy, rounds) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (address, busy, rounds) = (Arc::clone(&address), Arc::clone(&busy), Arc::clone(&rounds));
            let (failures, stop, project) = (Arc::clone(&failures), stop.clone(), project.to_owned());
            async move {
                let client = http::client().timeout(Duration::from_secs(30)).build().unwrap();
                while !stop.is_cancelled() {
                    busy.store(true, Ordering::SeqCst);
                    let target = address.lock().clone();
                    if let Some(url) = target {
                        match round(&client, &url, &project, rounds.load(Ordering::SeqCst)).await {
                            Ok(()) => _ = rounds.fetch_add(1, Ordering::SeqCst),
                            Err(failure) => failures.lock().push(failure),
                        }
                    }
                    busy.store(false, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
        Self { address, busy, rounds, failures, stop, task }
    }

    /// Waits for so many more rounds.
    async fn go_on(&self, more: u64) {
        let before = self.rounds.load(Ordering::SeqCst);
        wait_until("the clients to go on", Duration::from_mins(1), || async {
            // A failure ends the wait: it is told at the end.
            Ok(self.rounds.load(Ordering::SeqCst) >= before + more || !self.failures.lock().is_empty())
        })
        .await
        .unwrap();
        assert_eq!(*self.failures.lock(), Vec::<String>::new());
    }

    /// The Service has no such server any more, or has it again.
    async fn send_to(&self, address: Option<&str>) {
        *self.address.lock() = address.map(str::to_owned);
        if address.is_none() {
            let idle = || async { Ok(!self.busy.load(Ordering::SeqCst)) };
            wait_until("the requests under way to end", Duration::from_secs(30), idle).await.unwrap();
        }
    }

    async fn finish(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        assert_eq!(*self.failures.lock(), Vec::<String>::new());
    }
}

fn dashboard(project: &str, title: &str) -> Value {
    json!({"kind": "Dashboard", "metadata": {"name": "d", "project": project},
           "spec": {"display": {"name": title}, "duration": "1h", "panels": {}, "layouts": []}})
}

async fn round(client: &Client, url: &str, project: &str, number: u64) -> Result<(), String> {
    let send = async |request: reqwest::RequestBuilder, what: &str| -> Result<Value, String> {
        let answer = request.send().await.map_err(|error| format!("{what}: {error}"))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| format!("{what}: {error}"))?;
        if !status.is_success() {
            return Err(format!("{what}: {status} {text}"));
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    };
    let title = format!("Title {number}");
    let (all, one) = (
        format!("{url}/api/v1/projects/{project}/dashboards"),
        format!("{url}/api/v1/projects/{project}/dashboards/d"),
    );
    let body = dashboard(project, &title);
    if number.is_multiple_of(10) {
        send(client.delete(&one), "delete").await?;
        send(client.post(&all).json(&body), "create").await?;
    } else {
        send(client.put(&one).json(&body), "update").await?;
    }
    let expect = |found: &Value, what: &str| {
        if *found == json!(title) { Ok(()) } else { Err(format!("{what}: {found} instead of {title:?}")) }
    };
    expect(&send(client.get(&one), "read").await?["spec"]["display"]["name"], "read")?;
    expect(&send(client.get(&all), "list").await?[0]["spec"]["display"]["name"], "list")?;
    let search = format!("{url}/api/v1/search/dashboards?query=title&project={project}");
    expect(&send(client.get(search), "search").await?[0]["displayName"], "search")
}

/// What a later release does to the schema: columns in every table that prepared statements read, an index, its version.
async fn migrate_further(connection: &mut PgConnection, version: u64) {
    connection.execute("BEGIN").await.unwrap();
    for table in ["resource", "change", "project", "lease", "audit"] {
        let sql = format!("ALTER TABLE perses.{table} ADD COLUMN of_{version} text NOT NULL DEFAULT 'x'");
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    let index = format!("CREATE INDEX of_{version} ON perses.resource (of_{version})");
    connection.execute(AssertSqlSafe(index)).await.unwrap();
    let row = format!(
        "INSERT INTO perses.schema_version (version, name, needs, checksum) VALUES ({version}, 'later_{version}', 2, 'x')"
    );
    connection.execute(AssertSqlSafe(row)).await.unwrap();
    connection.execute("COMMIT").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_with_more_columns_is_rolled_out_and_an_old_pod_restarts() {
    let server = shared::postgres().await.unwrap();
    let database = migrated(server).await;
    let pooler = shared::pgbouncer().await.unwrap().port();
    // One through the pooler, one directly: both keep prepared statements.
    let (pooled, direct) = tokio::join!(
        Process::start(server, &database, pooler, None),
        Process::start(server, &database, server.port(), None)
    );
    let mut running = Vec::new();
    for (process, project) in [(&pooled, "pooled"), (&direct, "direct"), (&pooled, "new")] {
        process.has_project(project).await;
        process.create(project, "d").await;
    }
    running.push(Clients::start(pooled.url(), "pooled"));
    running.push(Clients::start(direct.url(), "direct"));
    for clients in &running {
        clients.go_on(20).await;
    }

    let mut migration = PgConnection::connect(&server.url(&database.dbname)).await.unwrap();
    for version in 90..93 {
        migrate_further(&mut migration, version).await;
        for clients in &running {
            clients.go_on(10).await;
        }
    }
    // A pod of the new release joins them, and writes what only it knows of.
    let new = Process::start(server, &database, pooler, None).await;
    running.push(Clients::start(new.url(), "new"));
    let is_over = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let is_over = Arc::clone(&is_over);
        async move {
            while !is_over.load(Ordering::SeqCst) {
                migration.execute("UPDATE perses.project SET of_91 = of_91 || 'y' WHERE name = 'new'").await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    for clients in &running {
        clients.go_on(20).await;
    }

    // An old pod restarts, as it does when its node is drained: out of the Service, then SIGTERM, then a new process.
    let mut restarted = Vec::new();
    for (process, port, clients) in [(pooled, pooler, &running[0]), (direct, server.port(), &running[1])] {
        clients.send_to(None).await;
        process.terminate().await;
        let again = Process::start(server, &database, port, None).await;
        clients.send_to(Some(again.url())).await;
        clients.go_on(20).await;
        restarted.push(again);
    }
    is_over.store(true, Ordering::SeqCst);
    writer.await.unwrap();
    for clients in running {
        clients.finish().await;
    }
    for process in restarted.iter().chain([&new]) {
        let log = process.log();
        assert!(!log.contains("cached plan"), "{log}");
    }

    // A migration that an old program could not live with keeps it from coming back, and says why.
    let needs = "INSERT INTO perses.schema_version (version, name, needs, checksum) VALUES (99, 'later_99', 99, 'x')";
    server.sql(&database.dbname, needs).await.unwrap();
    let late = Process::spawn(server, &database, pooler, None);
    wait_until("the old program to say why it is not ready", Duration::from_secs(30), || async {
        let answer = late.client().get(format!("{}/readyz", late.url())).send().await?;
        Ok(answer.status() == StatusCode::SERVICE_UNAVAILABLE && answer.text().await?.contains("use a newer server"))
    })
    .await
    .unwrap();
    // So does its `migrate`, by a status of its own: the operator need not try again and again.
    let (status, text) = late.migrate().await;
    assert!(status == Some(3) && text.contains("use a newer server"), "{status:?} {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_told_to_stop_while_it_starts_does_so_in_good_order() {
    let server = shared::postgres().await.unwrap();
    let database = migrated(server).await;
    let process = Process::spawn(server, &database, server.port(), None);
    // The first thing that it says, before anything that takes time.
    wait_until("the first line of the log", Duration::from_secs(30), || async { Ok(process.log().contains('\n')) })
        .await
        .unwrap();
    process.terminate().await;
}
