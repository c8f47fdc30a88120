//! Changes of the encryption key: what older keys made stays readable, running servers follow the files, and a command seals
//! everything anew.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header;
use e2e::services::shared;
use perses_api_server::commands::secrets::{ReEncryptOptions, Report, re_encrypt};
use perses_api_server::config::{self, Config};
use perses_api_server::domain::document::{Draft, Key, Origin};
use perses_api_server::domain::kind::Kind;
use perses_api_server::store::Store;
use perses_api_server::store::postgres::PostgresStore;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::backends;
use crate::http::{KEY, Reply, Server};
use crate::pod::until;

/// Encrypted by Perses itself (AES-256-CFB) with [`KEY`]: "hunter2 from perses".
const OF_PERSES: &str = "AAECAwQFBgcICQoLDA0ODzsosoHzvQREZ07oIKX53lPN3hU=";

/// A database, and the keys `old` and `new` in files.
struct World {
    folder: TempDir,
    database: config::Postgres,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = backends::migrated(shared::postgres().await.unwrap()).await;
        let world = Self { folder, database };
        std::fs::write(world.path("old"), [1; 32]).unwrap();
        std::fs::write(world.path("new"), [2; 32]).unwrap();
        std::fs::write(world.path("user"), "admin").unwrap();
        std::fs::write(world.path("password"), "secret").unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The new key, and the old one for reading.
    fn both(&self) -> Value {
        json!({"encryption_key_file": self.path("new"), "previous_encryption_key_files": [self.path("old")]})
    }

    fn config(&self, keys: &Value) -> Config {
        let mut config = json!({"security": {"enable_auth": true,
            "authentication": {"providers": {"enable_native": true}, "initial_admin": {
                "username_file": self.path("user"), "password_file": self.path("password")}}}});
        config["security"].as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let mut config: Config = serde_json::from_value(config).unwrap();
        config.database.postgres = Some(self.database.clone());
        config
    }

    async fn server(&self, keys: Value) -> Server {
        let store = Arc::new(PostgresStore::new(&self.database).unwrap());
        let server = Server::with(self.config(&keys), store).await;
        server.wait_for_admin().await;
        server
    }

    async fn re_encrypt(&self, keys: &Value, dry_run: bool) -> Report {
        re_encrypt(&self.config(keys), &ReEncryptOptions { dry_run }).await.unwrap()
    }
}

fn secret(name: &str) -> Value {
    json!({"kind": "GlobalSecret", "metadata": {"name": name},
        "spec": {"basicAuth": {"username": "u", "password": "sesame"}}})
}

async fn token(server: &Server) -> String {
    server.login("admin", "secret").await.ok()["access_token"].as_str().unwrap().to_owned()
}

async fn send(server: &Server, token: &str, method: &str, name: &str, body: Value) -> Reply {
    let path = format!("/api/v1/globalsecrets{name}");
    let request = server.builder(method, &path).header(header::AUTHORIZATION, format!("Bearer {token}"));
    let request = request.header(header::CONTENT_TYPE, "application/json");
    server.raw(request.body(Body::from(body.to_string())).unwrap()).await
}

/// The password of a secret, as it is in the store.
async fn sealed(server: &Server, name: &str) -> String {
    let document = server.state.resources.load(&Key::global(Kind::GlobalSecret, name)).await.unwrap();
    let spec: Value = serde_json::from_str(document.spec.get()).unwrap();
    spec["basicAuth"]["password"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn after_a_change_of_keys_everything_stays_readable() {
    let world = World::new().await;
    let old = world.server(json!({"encryption_key_file": world.path("old")})).await;
    let token = token(&old).await;
    send(&old, &token, "POST", "", secret("s")).await.ok();

    let rotated = world.server(world.both()).await;
    let of_old = sealed(&rotated, "s").await;
    assert_eq!(rotated.state.secrets.decrypt(&of_old).unwrap(), b"sesame");
    // The old token counts, and a write seals with the new key.
    send(&rotated, &token, "PUT", "/s", secret("s")).await.ok();
    let only_new = world.server(json!({"encryption_key_file": world.path("new")})).await;
    let of_new = sealed(&only_new, "s").await;
    assert_eq!(only_new.state.secrets.decrypt(&of_new).unwrap(), b"sesame");
    assert_ne!(only_new.state.secrets.decrypt(&of_old).ok().as_deref(), Some(&b"sesame"[..]));
    send(&only_new, &token, "GET", "/s", Value::Null).await.assert_error(401, "invalid or expired jwt");
}

#[tokio::test]
async fn running_servers_follow_the_key_files() {
    let world = World::new().await;
    let (current, previous) = (world.path("current"), world.path("previous"));
    std::fs::copy(world.path("old"), &current).unwrap();
    std::fs::copy(world.path("old"), &previous).unwrap();
    let keys = json!({"encryption_key_file": current, "previous_encryption_key_files": [previous]});
    let server = world.server(keys).await;
    let old_token = token(&server).await;
    send(&server, &old_token, "POST", "", secret("before")).await.ok();

    // A key that is none changes nothing.
    std::fs::write(&current, "short").unwrap();
    // First all know the new key, then it is used.
    std::fs::copy(world.path("new"), &previous).unwrap();
    std::fs::copy(world.path("old"), &current).unwrap();
    until("the new key to be known", || async {
        server.state.secrets.decrypt(&of(&[2; 32])).is_ok() && server.state.secrets.decrypt(&of(&[1; 32])).is_ok()
    })
    .await;
    std::fs::copy(world.path("old"), &previous).unwrap();
    std::fs::copy(world.path("new"), &current).unwrap();
    until("the new key to be used", || async { server.state.secrets.is_current(&of(&[2; 32])) }).await;

    send(&server, &old_token, "POST", "", secret("after")).await.ok();
    let only_new = perses_api_server::auth::crypto::SecretBox::new(&[2; 32]).unwrap();
    assert_eq!(only_new.decrypt(&sealed(&server, "after").await).unwrap(), b"sesame");
    assert_eq!(server.state.secrets.decrypt(&sealed(&server, "before").await).unwrap(), b"sesame");
    let new_token = token(&server).await;

    // Without the old key its tokens are worth nothing, at once, although they were seen before.
    std::fs::copy(world.path("new"), &previous).unwrap();
    until("the old key to be forgotten", || async {
        send(&server, &old_token, "GET", "/after", Value::Null).await.status.as_u16() == 401
    })
    .await;
    send(&server, &new_token, "GET", "/after", Value::Null).await.ok();
}

/// Something that this key encrypted.
fn of(key: &[u8; 32]) -> String {
    perses_api_server::auth::crypto::SecretBox::new(key).unwrap().encrypt(b"a value of some length").unwrap()
}

#[tokio::test]
async fn a_command_encrypts_everything_with_the_current_key() {
    let world = World::new().await;
    std::fs::write(world.path("old"), KEY).unwrap();
    let old = world.server(json!({"encryption_key_file": world.path("old")})).await;
    let bearer = token(&old).await;
    for name in ["a", "b"] {
        send(&old, &bearer, "POST", "", secret(name)).await.ok();
    }
    let store = PostgresStore::new(&world.database).unwrap();
    let put = async |name: &str, password: &str| {
        let spec = json!({"basicAuth": {"username": "u", "password": password}, "tlsConfig": {"ca": "not secret"}});
        let key = Key::global(Kind::GlobalSecret, name);
        let spec = serde_json::value::to_raw_value(&spec).unwrap();
        store.create(Draft { key, tags: vec!["t".to_owned()], spec, origin: Origin::Provisioned }).await.unwrap();
    };
    put("of-perses", OF_PERSES).await;
    put("foreign", &of(&[9; 32])).await;
    let server = world.server(world.both()).await;
    send(&server, &bearer, "POST", "", secret("new")).await.ok();

    let dry = world.re_encrypt(&world.both(), true).await;
    let changed = ["GlobalSecret a", "GlobalSecret b", "GlobalSecret of-perses"];
    assert_eq!(
        (dry.changed.as_slice(), dry.current, dry.failed.len()),
        (&changed.map(str::to_owned)[..], 1, 1),
        "{dry}"
    );
    assert!(dry.failed[0].starts_with("GlobalSecret foreign: spec.basicAuth.password: "), "{dry}");
    let before = store.get(&Key::global(Kind::GlobalSecret, "a")).await.unwrap().unwrap();
    assert_eq!(before.version, 0, "a dry run writes nothing");

    let done = world.re_encrypt(&world.both(), false).await;
    assert_eq!((done.changed, done.failed), (dry.changed, dry.failed));
    // Servers that run hear of it, and the old key is needed no more.
    let only_new = world.server(json!({"encryption_key_file": world.path("new")})).await;
    for (name, plain) in [("a", "sesame"), ("b", "sesame"), ("of-perses", "hunter2 from perses"), ("new", "sesame")] {
        for server in [&server, &only_new] {
            let found = sealed(server, name).await;
            assert!(server.state.secrets.is_current(&found), "{name}");
            assert_eq!(server.state.secrets.decrypt(&found).unwrap(), plain.as_bytes(), "{name}");
        }
    }
    let kept = store.get(&Key::global(Kind::GlobalSecret, "of-perses")).await.unwrap().unwrap();
    assert_eq!((kept.version, kept.tags.as_slice(), &kept.origin), (1, &["t".to_owned()][..], &Origin::Provisioned));
    assert!(kept.spec.get().contains("not secret"));
    // Again there is nothing to do.
    let again = world.re_encrypt(&world.both(), false).await;
    assert_eq!((again.changed.len(), again.current, again.failed.len()), (0, 4, 1));
}
