//! Credentials that are being replaced: whoever has the old or the new one is let in, as long as both are to count.

use std::path::PathBuf;
use std::sync::Arc;

use e2e::services::{Redis, RedisSettings, shared};
use perses_api_server::cache::redis::RedisTier;
use perses_api_server::config::{self, Config};
use perses_api_server::domain::document::Key;
use perses_api_server::domain::kind::Kind;
use perses_api_server::service::admin::{Renewed, renew};
use perses_api_server::store::Store;
use perses_api_server::store::postgres::PostgresStore;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::backends;
use crate::http::Server;
use crate::pod::until;

/// The files of one Secret, as pods mount it.
struct Files(TempDir);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let new = Self(tempfile::tempdir().unwrap());
        new.write(files);
        new
    }

    fn write(&self, files: &[(&str, &str)]) {
        for (name, text) in files {
            std::fs::write(self.path(name), text).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

async fn lets_in(server: &Server, password: &str) -> bool {
    server.login("admin", password).await.status.is_success()
}

#[tokio::test]
async fn both_passwords_of_the_first_user_count_until_the_change_is_done() {
    let files = Files::new(&[("username", "admin\n"), ("password", "old"), ("next", "new"), ("previous", "old")]);
    let admin = json!({"username_file": files.path("username"), "password_file": files.path("password"),
        "also_password_files": [files.path("next"), files.path("previous")]});
    let security = json!({"security": {"authentication": {"initial_admin": admin}}});
    let server = Server::with_auth(security).await;
    let config = server.state.config.security.authentication.initial_admin.clone().unwrap();
    let renewed = async || renew(&*server.state.store, &config, false).await.unwrap();
    for password in ["old", "new"] {
        assert!(lets_in(&server, password).await, "{password}");
    }
    assert!(!lets_in(&server, "other").await);
    assert_eq!(renewed().await, Renewed::Current);

    // It is issued; who has read the old one is let in still, before and after the Job.
    files.write(&[("password", "new")]);
    for outcome in [Renewed::Changed, Renewed::Current] {
        for password in ["old", "new"] {
            assert!(lets_in(&server, password).await, "{password} before {outcome:?}");
        }
        assert_eq!(renewed().await, outcome);
    }
    for password in ["old", "new"] {
        assert!(lets_in(&server, password).await, "{password}");
    }
    files.write(&[("previous", "new")]);
    assert!(lets_in(&server, "new").await && !lets_in(&server, "old").await, "the old one has ended");

    // What the user has chosen is the only one that counts, and is not taken away.
    files.write(&[("next", "third"), ("previous", "new")]);
    let token = server.login("admin", "new").await.ok()["access_token"].as_str().unwrap().to_owned();
    let own = json!({"kind": "User", "metadata": {"name": "admin"}, "spec": {"nativeProvider": {"password": "own"}}});
    let request = server.builder("PUT", "/api/v1/users/admin").header("authorization", format!("Bearer {token}"));
    let request = request.header("content-type", "application/json").body(own.to_string().into()).unwrap();
    server.raw(request).await.ok();
    files.write(&[("password", "third")]);
    assert_eq!(renewed().await, Renewed::Own);
    for (password, counts) in [("own", true), ("new", false), ("third", false)] {
        assert_eq!(lets_in(&server, password).await, counts, "{password}");
    }
    // The files are the first user's alone.
    assert_eq!(server.login("somebody", "third").await.status.as_u16(), 400);
}

/// Pods with the keys of two successive steps of a rotation: each reads what the other writes and signs.
#[tokio::test]
async fn pods_that_are_a_step_apart_understand_each_other() {
    let database = backends::migrated(shared::postgres().await.unwrap()).await;
    let (old, new) = ("o".repeat(32), "n".repeat(32));
    let user = Files::new(&[("username", "admin"), ("password", "secret")]);
    // What is written with, and what may be read with beside it.
    let steps = [(&old, None), (&old, Some((&new, &old))), (&new, Some((&new, &old)))];
    let mut pods: Vec<(Files, Server, String)> = Vec::new();
    for (number, (current, beside)) in steps.into_iter().enumerate() {
        let files = Files::new(&[("encryption-key", current)]);
        let mut security = json!({"enable_auth": true, "encryption_key_file": files.path("encryption-key"),
            "authentication": {"providers": {"enable_native": true}, "initial_admin": {
                "username_file": user.path("username"), "password_file": user.path("password")}}});
        if let Some((next, previous)) = beside {
            files.write(&[("next-encryption-key", next), ("previous-encryption-key", previous)]);
            let paths = [files.path("next-encryption-key"), files.path("previous-encryption-key")];
            security["previous_encryption_key_files"] = json!(paths);
        }
        let mut config: Config = serde_json::from_value(json!({"security": security})).unwrap();
        config.database.postgres = Some(database.clone());
        let store: Arc<dyn Store> = Arc::new(PostgresStore::new(&database).unwrap());
        let server = Server::with(config, store).await;
        server.wait_for_admin().await;
        let reply = server.login("admin", "secret").await.ok();
        let token = reply["access_token"].as_str().unwrap().to_owned();
        let secret = json!({"kind": "GlobalSecret", "metadata": {"name": format!("s{number}")},
            "spec": {"basicAuth": {"username": "u", "password": "sesame"}}});
        let request =
            server.builder("POST", "/api/v1/globalsecrets").header("authorization", format!("Bearer {token}"));
        let request = request.header("content-type", "application/json").body(secret.to_string().into()).unwrap();
        server.raw(request).await.ok();
        pods.push((files, server, token));
    }
    for (one, other) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
        let (reader, token) = (&pods[one].1, &pods[other].2);
        let request =
            reader.builder("GET", "/api/v1/globalsecrets/s0").header("authorization", format!("Bearer {token}"));
        reader.raw(request.body("".into()).unwrap()).await.ok();
        let key = Key::global(Kind::GlobalSecret, &*format!("s{other}"));
        let stored = reader.state.store.get(&key).await.unwrap().unwrap();
        let spec: Value = serde_json::from_str(stored.spec.get()).unwrap();
        let sealed = spec["basicAuth"]["password"].as_str().unwrap();
        assert_eq!(reader.state.secrets.decrypt(sealed).unwrap(), b"sesame", "{one} reads what {other} wrote");
    }
    // Any mixture of the files of two steps, read in any order, has both keys.
    let of =
        |key: &str| perses_api_server::auth::crypto::SecretBox::new(key.as_bytes()).unwrap().encrypt(b"x").unwrap();
    let (files, server, _) = &pods[1];
    files.write(&[("encryption-key", new.as_str())]);
    until("the new key to be written with", || async { server.state.secrets.is_current(&of(&new)) }).await;
    assert!(server.state.secrets.decrypt(&of(&old)).is_ok());
    // Done: no file goes away, but all hold the one key.
    files.write(&[("previous-encryption-key", new.as_str())]);
    until("the old key to be forgotten", || async { server.state.secrets.decrypt(&of(&old)).is_err() }).await;
    assert!(server.state.secrets.is_current(&of(&new)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_reached_through_every_step() {
    let redis = Redis::start_with(RedisSettings { user: Some("root".to_owned()), ..RedisSettings::default() });
    let redis = redis.await.unwrap();
    let rights = ["~*", "&*", "+@all", "-@admin", "-@dangerous", "+info", "+flushdb"];
    // As Redis has it after a start with the list of that step: connections are made anew.
    let accept = async |passwords: &[&str]| {
        let passwords: Vec<_> = passwords.iter().map(|password| format!(">{password}")).collect();
        let passwords = passwords.iter().map(String::as_str);
        let words = ["ACL", "SETUSER", "perses", "reset", "on"].into_iter().chain(passwords).chain(rights);
        redis.cli(&words.collect::<Vec<_>>()).await.unwrap();
        redis.cli(&["CLIENT", "KILL", "USER", "perses"]).await.unwrap();
    };
    let file = Files::new(&[("password", "old")]);
    let config = config::Redis {
        addr: redis.address(),
        username: Some("perses".to_owned()),
        password_file: Some(file.path("password")),
        ..config::Redis::default()
    };
    accept(&["old"]).await;
    let tier = RedisTier::new(&config).unwrap();
    let works = async |what: &str| {
        until(what, || async {
            tier.set_bytes("k", what.as_bytes(), std::time::Duration::from_secs(60)).await
                && tier.get_bytes("k").await.as_deref() == Some(what.as_bytes())
        })
        .await;
    };
    works("the old one").await;
    accept(&["new", "old"]).await;
    works("the old one beside the new one").await;
    file.write(&[("password", "new")]);
    accept(&["new", "old"]).await;
    works("the new one beside the old one").await;
    accept(&["new"]).await;
    works("the new one").await;
    file.write(&[("password", "old")]);
    redis.cli(&["CLIENT", "KILL", "USER", "perses"]).await.unwrap();
    until("the old one to be refused", || async { !tier.is_available() }).await;
}
