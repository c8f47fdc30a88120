//! One server process in miniature: the real router on a real port, with files as its store.

use std::time::{Duration, Instant};

use perses_api_server::config::{Config, FileDatabase};
use perses_api_server::server;
use perses_api_server::state::AppState;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct Pod {
    pub url: String,
    pub client: Client,
    state: AppState,
    stop: Option<oneshot::Sender<()>>,
    _folder: TempDir,
}

impl Pod {
    /// Starts with the defaults.
    pub async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// Starts with a changed configuration.
    pub async fn start_with(configure: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.database.file = Some(FileDatabase { folder: folder.path().join("db"), ..FileDatabase::default() });
        configure(&mut config);
        let tls = config.server.tls.as_ref().map(|tls| server::Tls::open(tls).unwrap());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = AppState::build(config, None).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = state.clone();
        tokio::spawn(async move {
            // Dropping the sender stops as well.
            server::run_over(listener, tls, running, async {
                let _ = stopped.await;
            })
            .await;
        });
        let client = crate::http::client().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { url, client, state, stop: Some(stop), _folder: folder }
    }

    /// Tells it to stop, as SIGTERM does; it drains then.
    pub fn stop(&mut self) {
        self.stop.take();
    }

    pub const fn state(&self) -> &AppState {
        &self.state
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    pub async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap()
    }

    pub async fn post_form(&self, path: &str, form: &[(&str, &str)]) -> Response {
        self.client.post(format!("{}{path}", self.url)).form(form).send().await.unwrap()
    }

    /// Creates or replaces a document; `collection` is a path below `/api/v1`.
    pub async fn apply(&self, collection: &str, kind: &str, name: &str, spec: &Value) {
        let mut body = json!({"kind": kind, "metadata": {"name": name}, "spec": spec});
        if let Some(rest) = collection.strip_prefix("projects/") {
            body["metadata"]["project"] = json!(rest.split('/').next().unwrap());
        }
        let collection = format!("{}/api/v1/{collection}", self.url);
        let mut response = self.client.post(&collection).json(&body).send().await.unwrap();
        if response.status() == StatusCode::CONFLICT {
            response = self.client.put(format!("{collection}/{name}")).json(&body).send().await.unwrap();
        }
        let status = response.status();
        assert_eq!(status, StatusCode::OK, "{collection}/{name}: {}", response.text().await.unwrap());
    }

    /// A global Prometheus datasource named `prom`; `proxy` is merged into the spec of its HTTPProxy.
    pub async fn datasource(&self, url: &str, proxy: Value) {
        self.apply("globaldatasources", "GlobalDatasource", "prom", &prometheus(url, proxy)).await;
    }

    /// The value of a metric; 0 when it does not exist yet.
    pub async fn metric(&self, line: &str) -> f64 {
        let text = self.get("/metrics").await.text().await.unwrap();
        let found = text.lines().find_map(|found| found.strip_prefix(line).and_then(|rest| rest.strip_prefix(' ')));
        found.map_or(0.0, |value| value.parse().unwrap())
    }
}

/// The spec of a Prometheus datasource.
pub fn prometheus(url: &str, proxy: Value) -> Value {
    let mut spec = json!({"url": url});
    if let Value::Object(more) = proxy {
        spec.as_object_mut().unwrap().extend(more);
    }
    json!({"default": false, "plugin": {"kind": "PrometheusDatasource", "spec": {"proxy": {"kind": "HTTPProxy", "spec": spec}}}})
}

/// Waits for a condition, at most a minute.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
