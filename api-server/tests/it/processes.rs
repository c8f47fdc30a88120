//! Several server processes on one database, with a proxy that stops an answer of PostgreSQL at the worst moment.

use std::time::{Duration, Instant};

use e2e::services::{Port, Postgres, Redis, TcpProxy, USER, shared};
use perses_api_server::config;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::backends::migrated;
use crate::http;
use crate::replicas::{SLACK, STALE_LIMIT, eventually};

/// COMMIT as PostgreSQL's simple query: type, length, text.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

/// A running program.
pub struct Process {
    child: Child,
    url: String,
    client: Client,
    folder: TempDir,
    _port: Port,
}

impl Process {
    /// Starts a server without sign-in and waits until it is ready. It reaches PostgreSQL at this port.
    pub async fn start(server: &Postgres, database: &config::Postgres, port: u16, redis: Option<&str>) -> Self {
        let process = Self::spawn(server, database, port, redis);
        eventually("the server to be ready", async || {
            let answer = process.client.get(format!("{}/readyz", process.url)).send().await;
            answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
        })
        .await;
        process
    }

    /// As [`Self::start`], without the wait.
    pub fn spawn(server: &Postgres, database: &config::Postgres, port: u16, redis: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = json!({"database": {"postgres": {
            "host": "127.0.0.1", "port": port, "dbname": database.dbname, "user": USER, "password": server.password()}},
            // Its records are committed, too: what is held back here must be the commit of a document.
            "audit": {"enable": false}});
        if let Some(redis) = redis {
            config["cache"] = json!({"redis": {"addr": redis}});
        }
        // JSON is YAML.
        std::fs::write(folder.path().join("config.yaml"), config.to_string()).unwrap();
        let port = Port::reserve().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_perses-api-server"))
            .arg("serve")
            .arg(format!("--config={}", folder.path().join("config.yaml").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let url = format!("http://127.0.0.1:{}", port.number());
        let client = http::client().timeout(Duration::from_secs(30)).build().unwrap();
        Self { child, url, client, folder, _port: port }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Runs `migrate` with the configuration of this process; its status, and what it complains about.
    pub async fn migrate(&self) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_perses-api-server"))
            .arg("migrate")
            .arg(format!("--config={}", self.folder.path().join("config.yaml").display()))
            .output()
            .await
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// SIGKILL.
    async fn kill(&mut self) {
        self.child.start_kill().unwrap();
        self.child.wait().await.unwrap();
    }

    /// SIGTERM; the process ends by itself and well.
    pub async fn terminate(mut self) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").arg(&id).status().await.unwrap().success());
        assert!(self.child.wait().await.unwrap().success(), "{}", self.log());
    }

    fn dashboards(&self, project: &str) -> String {
        format!("{}/api/v1/projects/{project}/dashboards", self.url)
    }

    pub async fn create(&self, project: &str, name: &str) {
        let answer = self.client.post(self.dashboards(project)).json(&body(project, name)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap());
    }

    /// Changes a dashboard; gives its new version.
    async fn change(&self, project: &str, name: &str) -> reqwest::Result<u64> {
        let url = format!("{}/{name}", self.dashboards(project));
        let answer = self.client.put(url).json(&body(project, name)).send().await?.error_for_status()?;
        Ok(version(&answer.json().await?))
    }

    async fn version(&self, project: &str, name: &str) -> u64 {
        let url = format!("{}/{name}", self.dashboards(project));
        let answer = self.client.get(url).send().await.unwrap().error_for_status().unwrap();
        version(&answer.json().await.unwrap())
    }

    pub async fn has_project(&self, project: &str) {
        let body = json!({"kind": "Project", "metadata": {"name": project}, "spec": {}});
        let answer = self.client.post(format!("{}/api/v1/projects", self.url)).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap());
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

fn body(project: &str, name: &str) -> Value {
    json!({"kind": "Dashboard", "metadata": {"name": name, "project": project},
           "spec": {"duration": "1h", "panels": {}, "layouts": []}})
}

fn version(document: &Value) -> u64 {
    document["metadata"]["version"].as_u64().unwrap()
}

/// Asserts that a process shows a version within the limit, counted from `since`.
async fn shows(process: &Process, project: &str, name: &str, expected: u64, since: Instant) {
    loop {
        let found = process.version(project, name).await;
        if found == expected {
            return;
        }
        assert!(
            since.elapsed() < STALE_LIMIT + SLACK,
            "version {found} after {:?}:\n{}",
            since.elapsed(),
            process.log()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_after_its_commit_has_told_everybody() {
    let server = shared::postgres().await.unwrap();
    let redis = Redis::start().await.unwrap();
    let address = redis.address();
    // The last with Redis stopped.
    for (round, redis_stops) in [(None, false), (Some(address.as_str()), false), (Some(address.as_str()), true)] {
        let database = migrated(server).await;
        let proxy = TcpProxy::to_port(server.port()).await.unwrap();
        let (first, second) = tokio::join!(
            Process::start(server, &database, proxy.port(), round),
            Process::start(server, &database, server.port(), round)
        );
        let (mut first, project) = (first, shared::unique("killed"));
        first.has_project(&project).await;
        first.create(&project, "d").await;
        for process in [&first, &second] {
            // The second time from its own cache.
            assert_eq!(process.version(&project, "d").await, 0);
            assert_eq!(process.version(&project, "d").await, 0);
        }
        if redis_stops {
            redis.stop().await.unwrap();
        }

        let mut commit = proxy.hold_answer_to(COMMIT);
        let killed = {
            let write = first.change(&project, "d");
            tokio::pin!(write);
            tokio::select! {
                answer = &mut write => panic!("the write was answered before its commit: {answer:?}"),
                arrived = commit.arrived() => arrived.unwrap(),
            }
            // PostgreSQL has committed and nobody knows.
            Instant::now()
        };
        first.kill().await;
        shows(&second, &project, "d", 1, killed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_reads_slowly_never_puts_an_old_document_back() {
    let server = shared::postgres().await.unwrap();
    let redis = Redis::start().await.unwrap();
    let address = redis.address();
    for tier in [None, Some(address.as_str())] {
        let database = migrated(server).await;
        let proxy = TcpProxy::to_port(server.port()).await.unwrap();
        let (slow, other) = tokio::join!(
            Process::start(server, &database, proxy.port(), tier),
            Process::start(server, &database, server.port(), tier)
        );
        let project = shared::unique("slow");
        other.has_project(&project).await;
        // The name stands in the statement's parameters and nowhere else.
        let name = shared::unique("held");
        other.create(&project, "marker").await;
        assert_eq!(slow.version(&project, "marker").await, 0);
        other.create(&project, &name).await;
        let before = other.change(&project, &name).await.unwrap();
        // The writer has put it there; now no tier that the reader sees has it.
        redis.cli(&["DEL", &format!("v1:dashboard:config:{project}:{name}")]).await.unwrap();

        let mut select = proxy.hold_answer_to(name.as_bytes());
        let reading = slow.version(&project, &name);
        tokio::pin!(reading);
        tokio::select! {
            version = &mut reading => panic!("version {version} was read from a cache"),
            arrived = select.arrived() => arrived.unwrap(),
        }
        let after = other.change(&project, &name).await.unwrap();
        let marker = other.change(&project, "marker").await.unwrap();
        // Once it shows the later write it has heard of the earlier one.
        shows(&slow, &project, "marker", marker, Instant::now()).await;
        drop(select);
        assert_eq!(reading.await, before, "it had read the old document");
        for _ in 0..20 {
            assert_eq!(slow.version(&project, &name).await, after);
            assert_eq!(other.version(&project, &name).await, after);
        }
    }
}
