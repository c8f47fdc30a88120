//! Pods that start at the same moment on an empty PostgreSQL: the first user and what is provisioned is made once, by
//! whoever comes first, and nobody fails.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use e2e::services::{Postgres, USER, shared};
use perses_api_server::config::{self, InitialAdmin};
use perses_api_server::service::admin;
use perses_api_server::service::provisioning::{Provisioner, Report};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::backends::migrated;
use crate::http::{KEY, Server};

const PODS: usize = 4;
/// Chance decides who comes first.
const ROUNDS: usize = 5;

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

/// Pods with sign-in on one new database.
async fn pods(server: &Postgres) -> (String, Vec<Server>) {
    let database = migrated(server).await.dbname;
    let mut pods = Vec::new();
    for _ in 0..PODS {
        let postgres = json!({"host": server.host(), "port": server.port(), "dbname": database, "user": USER,
                              "password": server.password(), "max_connections": 4});
        let config = json!({
            "security": {"enable_auth": true, "encryption_key": KEY,
                         "authentication": {"providers": {"enable_native": true}}},
            "database": {"postgres": postgres}});
        pods.push(Server::start(config).await);
    }
    (database, pods)
}

/// Runs the same on all pods, from the same moment on.
async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    pods: &[Server],
    run: impl Fn(&Server) -> F,
) -> Vec<T> {
    let barrier = Arc::new(Barrier::new(pods.len()));
    let mut tasks = JoinSet::new();
    for pod in pods {
        let (barrier, run) = (Arc::clone(&barrier), run(pod));
        tasks.spawn(async move {
            barrier.wait().await;
            run.await
        });
    }
    tasks.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_first_user_is_made_by_one_pod() {
    let server = shared::postgres().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "user", "admin\n");
    write(folder.path(), "password", "secret\n");
    let config = InitialAdmin {
        username_file: folder.path().join("user"),
        password_file: folder.path().join("password"),
        also_password_files: Vec::new(),
    };
    for _ in 0..ROUNDS {
        let (database, pods) = pods(server).await;
        let made = at_once(&pods, |pod| {
            let (resources, config) = (Arc::clone(&pod.state.resources), config.clone());
            async move { admin::ensure(&resources, &config, false).await }
        })
        .await;
        let made: Vec<bool> = made.into_iter().map(|made| made.expect("nobody fails")).collect();
        assert_eq!(made.iter().filter(|made| **made).count(), 1, "{made:?}");
        let stored =
            server.sql(&database, "SELECT count(*), max(version) FROM perses.resource WHERE kind = 'User'").await;
        assert_eq!(stored.unwrap().split_whitespace().collect::<String>(), "1|0");
        for pod in &pods {
            pod.login("admin", "secret").await.ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_provisioned_is_made_by_one_pod_each() {
    let server = shared::postgres().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let named = |kind: &str, metadata: Value, spec: Value| json!({"kind": kind, "metadata": metadata, "spec": spec});
    let plugin = json!({"kind": "PrometheusDatasource", "spec": {"proxy": {"kind": "HTTPProxy", "spec": {
        "url": "http://prometheus:9090", "secret": "prometheus"}}}});
    let mut documents = vec![
        named("GlobalSecret", json!({"name": "prometheus"}), json!({"basicAuth": {"username": "u", "password": "p"}})),
        named("GlobalDatasource", json!({"name": "prometheus"}), json!({"default": true, "plugin": plugin})),
        named("Project", json!({"name": "p"}), json!({})),
    ];
    for number in 0..10 {
        let spec = json!({"duration": "1h", "panels": {}, "layouts": []});
        documents.push(named("Dashboard", json!({"name": format!("d{number}"), "project": "p"}), spec));
    }
    let count = documents.len();
    write(folder.path(), "all.json", &Value::Array(documents).to_string());
    let config: config::Provisioning = serde_json::from_value(json!({"folders": [folder.path()]})).unwrap();
    for _ in 0..ROUNDS {
        let (database, pods) = pods(server).await;
        let reports = at_once(&pods, |pod| {
            let provisioner = Provisioner::new(pod.state.resources.clone(), pod.state.metrics.clone(), &config);
            async move { provisioner.round().await }
        })
        .await;
        let sum = |field: fn(&Report) -> usize| reports.iter().map(field).sum::<usize>();
        for report in &reports {
            assert!(report.errors.is_empty() && !report.unavailable && report.updated == 0, "{report:?}");
        }
        assert_eq!(sum(|report| report.created), count, "{reports:?}");
        assert_eq!(sum(|report| report.unchanged), count * (PODS - 1), "{reports:?}");
        let stored = server.sql(&database, "SELECT count(*), max(version) FROM perses.resource").await;
        assert_eq!(stored.unwrap().split_whitespace().collect::<String>(), format!("{count}|0"));
    }
}
