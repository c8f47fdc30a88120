//! The whole router in this process, on a file store in a folder of its own.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::response::Parts;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use perses_api_server::config::Config;
use perses_api_server::state::{self, AppState};
use perses_api_server::store::Store;
use perses_api_server::{router, server};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// 32 bytes.
pub const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A client for loopback, whatever proxy the machine has.
pub fn client() -> reqwest::ClientBuilder {
    // A second installation is refused and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

/// A server; its background tasks end with it.
pub struct Server {
    pub state: AppState,
    pub folder: TempDir,
    router: Router,
    stop: CancellationToken,
    token: Option<String>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts an error of upstream's shape: the status and exactly `{"message": ...}`.
    #[track_caller]
    pub fn assert_error(&self, status: u16, message: &str) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.json(), json!({"message": message}), "{self:?}");
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
    }

    /// Asserts an error whose message holds a text.
    #[track_caller]
    pub fn assert_error_with(&self, status: u16, part: &str) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        let body = self.json();
        let message = body["message"].as_str().unwrap_or_default();
        assert!(message.contains(part), "{part:?} is not in {message:?}");
        assert_eq!(body.as_object().map(serde_json::Map::len), Some(1), "{self:?}");
    }

    /// Asserts the status and returns the body.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        self.json()
    }
}

impl Server {
    /// With this configuration; `database` is a new folder unless it is given.
    #[allow(clippy::unused_async, reason = "spawns tasks: only to be called inside a runtime")]
    pub async fn start(config: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config;
        if config.get("database").is_none() {
            config["database"] = json!({"file": {"folder": folder.path().join("db"), "extension": "json"}});
        }
        let config: Config = serde_json::from_value(config).unwrap();
        Self::run(AppState::build(config, None).unwrap(), folder)
    }

    /// Without sign-in, on a store of the caller's.
    #[allow(clippy::unused_async, reason = "spawns tasks: only to be called inside a runtime")]
    pub async fn on(store: Arc<dyn Store>) -> Self {
        let config: Config = serde_json::from_value(json!({"ephemeral_dashboard": {"enable": true}})).unwrap();
        let state = AppState::with_store(config, None, store).unwrap();
        Self::run(state, tempfile::tempdir().unwrap())
    }

    /// With this configuration, on a store of the caller's.
    #[allow(clippy::unused_async, reason = "spawns tasks: only to be called inside a runtime")]
    pub async fn with(config: Config, store: Arc<dyn Store>) -> Self {
        Self::run(AppState::with_store(config, None, store).unwrap(), tempfile::tempdir().unwrap())
    }

    fn run(state: AppState, folder: TempDir) -> Self {
        let stop = CancellationToken::new();
        drop(state::spawn_background(&state, &stop));
        Self { router: router::build(&state), state, folder, stop, token: None }
    }

    /// Without sign-in.
    pub async fn open() -> Self {
        Self::start(json!({"ephemeral_dashboard": {"enable": true}})).await
    }

    /// With sign-in on and the user `admin` / `secret`, whose token goes with every request.
    pub async fn signed_in() -> Self {
        let mut server = Self::with_auth(json!({})).await;
        let reply = server.login("admin", "secret").await.ok();
        server.token = Some(reply["access_token"].as_str().unwrap().to_owned());
        server
    }

    /// With sign-in on and the user `admin` / `secret`; requests carry nothing.
    pub async fn with_auth(more: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("user"), "admin\n").unwrap();
        std::fs::write(folder.path().join("password"), "secret\n").unwrap();
        let mut config = json!({"security": {
            "enable_auth": true,
            "encryption_key": KEY,
            "authentication": {
                "providers": {"enable_native": true},
                "initial_admin": {
                    "username_file": folder.path().join("user"),
                    "password_file": folder.path().join("password"),
                },
            },
        }});
        merge(&mut config, &more);
        let server = Self::start(config).await;
        server.wait_for_admin().await;
        server
    }

    /// Waits until the first user is in the store, and rights are known.
    pub async fn wait_for_admin(&self) {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        while self.state.metrics.initial_admin_exists.get() != 1 || self.state.authorizer.readiness().is_err() {
            assert!(tokio::time::Instant::now() < deadline, "the first user was not created");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    pub async fn login(&self, login: &str, password: &str) -> Reply {
        self.send("POST", "/api/auth/providers/native/login", &json!({"login": login, "password": password})).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.raw(self.builder("GET", path).body(Body::empty()).unwrap()).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.raw(self.builder("DELETE", path).body(Body::empty()).unwrap()).await
    }

    pub async fn send(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.text(method, path, "application/json", body.to_string()).await
    }

    pub async fn text(&self, method: &str, path: &str, kind: &str, body: impl Into<Body>) -> Reply {
        let mut builder = self.builder(method, path);
        if !kind.is_empty() {
            builder = builder.header(header::CONTENT_TYPE, kind);
        }
        self.raw(builder.body(body.into()).unwrap()).await
    }

    /// A request with the server's token, if it has one.
    pub fn builder(&self, method: &str, path: &str) -> axum::http::request::Builder {
        let builder = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(path);
        match &self.token {
            Some(token) => builder.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => builder,
        }
    }

    /// The answer as it is on the wire.
    pub async fn bytes(&self, mut request: Request<Body>) -> (Parts, Bytes) {
        request.extensions_mut().insert(server::Peer(([127, 0, 0, 1], 1).into()));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts, axum::body::to_bytes(body, usize::MAX).await.unwrap())
    }

    pub async fn raw(&self, request: Request<Body>) -> Reply {
        let (parts, body) = self.bytes(request).await;
        Reply { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// Creates a project.
    pub async fn project(&self, name: &str) {
        let body = json!({"kind": "Project", "metadata": {"name": name}, "spec": {}});
        self.send("POST", "/api/v1/projects", &body).await.ok();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}
