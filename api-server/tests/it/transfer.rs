//! `import` and `export`: what moves people from one Perses to another, and back.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use e2e::services::{MariaDb, shared};
use perses_api_server::auth::crypto::SecretBox;
use perses_api_server::config::{self, Config, FileDatabase, FileExtension};
use perses_api_server::domain::document::{Document, Key};
use perses_api_server::domain::kind::Kind;
use perses_api_server::store::postgres::PostgresStore;
use perses_api_server::store::{Store, file};
use perses_api_server::transfer::{ExportOptions, ImportOptions, Report, Row, export, import};
use serde_json::{Value, json};

use crate::backends::{dashboard, draft, migrated, open_files, project};
use crate::http::KEY;
use crate::pod::Pod;

/// Encrypted by Perses itself (AES-256-CFB) with [`KEY`].
const SEALED: &str = "AAECAwQFBgcICQoLDA0ODzsosoHzvQREZ07oIKX53lPN3hU=";
const PLAIN: &[u8] = b"hunter2 from perses";
const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210";

/// A folder as Perses writes it, in both forms; one file makes no sense.
fn folder_of_perses(root: &Path) {
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let times = r#""createdAt":"2024-05-06T07:08:09.123456Z","updatedAt":"2025-01-02T03:04:05.5Z""#;
    write(
        "projects/p.json",
        &format!(r#"{{"kind":"Project","metadata":{{"name":"p",{times},"version":2}},"spec":{{}}}}"#),
    );
    write(
        "dashboards/p/d.yaml",
        "kind: Dashboard\nmetadata:\n    name: d\n    createdAt: 2024-05-06T07:08:09.123456789Z\n    \
         updatedAt: 2025-01-02T03:04:05Z\n    version: 41\n    project: p\n    tags:\n        - a\n        - b\nspec:\n    \
         duration: 1h\n    panels: {}\n    layouts: []\n",
    );
    write(
        "secrets/p/s.json",
        &format!(
            r#"{{"kind":"Secret","metadata":{{"name":"s",{times},"version":0,"project":"p"}},"spec":{{"basicAuth":{{"username":"u","password":"{SEALED}"}}}}}}"#
        ),
    );
    write(
        "globalsecrets/g.json",
        &format!(
            r#"{{"kind":"GlobalSecret","metadata":{{"name":"g",{times},"version":0}},"spec":{{"authorization":{{"type":"Bearer","credentials":"{SEALED}"}}}}}}"#
        ),
    );
    write(
        "users/ann.json",
        &format!(
            r#"{{"kind":"User","metadata":{{"name":"ann",{times},"version":1}},"spec":{{"nativeProvider":{{"password":"$2a$10$abc"}}}}}}"#
        ),
    );
    write("dashboards/p/odd.json", "{");
    write("dashboards/absent/x.json", r#"{"kind":"Dashboard","metadata":{"name":"x"},"spec":{"panels":{}}}"#);
}

fn with_key(database: config::Database, key: &str) -> Config {
    let mut config: Config = serde_json::from_value(json!({"security": {"encryption_key": key}})).unwrap();
    config.database = database;
    config
}

async fn postgres(key: &str) -> (Config, PostgresStore) {
    let database = migrated(shared::postgres().await.unwrap()).await;
    let store = PostgresStore::new(&database).unwrap();
    (with_key(config::Database { postgres: Some(database), ..config::Database::default() }, key), store)
}

fn files(folder: &Path, key: &str) -> Config {
    let file = FileDatabase { folder: folder.to_owned(), extension: FileExtension::Json, case_sensitive: false };
    with_key(config::Database { file: Some(file), ..config::Database::default() }, key)
}

fn row(created: usize, updated: usize, unchanged: usize, skipped: usize, failed: usize) -> Row {
    Row { created, updated, unchanged, skipped, failed }
}

/// All that a document says, for comparison; PostgreSQL keeps microseconds.
fn essence(document: &Document) -> (Key, u64, i64, i64, Vec<String>, Value) {
    let times = (document.created_at.as_microsecond(), document.updated_at.as_microsecond());
    let spec = serde_json::from_str(document.spec.get()).unwrap();
    (document.key.clone(), document.version, times.0, times.1, document.tags.clone(), spec)
}

fn essences(folder: &Path) -> Vec<(Key, u64, i64, i64, Vec<String>, Value)> {
    let (documents, _) = file::read_folder(folder).unwrap();
    documents.iter().filter(|document| document.key.project.as_deref() != Some("absent")).map(essence).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_perses_moves_to_postgresql_and_back() {
    let outer = tempfile::tempdir().unwrap();
    let (folder, key) = (outer.path().join("db"), outer.path().join("key"));
    folder_of_perses(&folder);
    fs::write(&key, KEY).unwrap();
    let (config, store) = postgres(OTHER_KEY).await;
    let from = ImportOptions {
        from: folder.display().to_string(),
        source_encryption_key_file: Some(key.clone()),
        ..ImportOptions::default()
    };

    let planned = import(&config, &ImportOptions { dry_run: true, ..from.clone() }).await.unwrap();
    assert_eq!(planned.total(), row(5, 0, 0, 0, 1), "{planned}");
    assert!(store.get(&project("p")).await.unwrap().is_none(), "a dry run writes nothing");
    let report = import(&config, &from).await.unwrap();
    assert_eq!(Report { dry_run: true, ..report.clone() }, planned, "it does what it said");
    let failed = report.failed.join("\n");
    for part in ["odd.json", "Dashboard absent/x: metadata.project \"absent\" doesn't exist"] {
        assert!(failed.contains(part), "{part}: {failed}");
    }
    let stored = store.get(&dashboard("p", "d")).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.tags.join(",")), (41, "a,b".to_owned()));
    assert_eq!(stored.created_at.to_string(), "2024-05-06T07:08:09.123456Z");
    let secret = store.get(&Key::in_project(Kind::Secret, "p", "s")).await.unwrap().unwrap();
    let secret: Value = serde_json::from_str(secret.spec.get()).unwrap();
    let sealed = secret["basicAuth"]["password"].as_str().unwrap();
    let (ours, theirs) = (SecretBox::new(OTHER_KEY.as_bytes()).unwrap(), SecretBox::new(KEY.as_bytes()).unwrap());
    assert_eq!(ours.decrypt(sealed).unwrap(), PLAIN, "encrypted anew, with the key of the server");
    assert_eq!(import(&config, &from).await.unwrap().total(), row(0, 0, 5, 0, 1), "nothing is left to do");

    // What was changed since is not lost by importing again, unless that is wanted.
    store
        .update(crate::backends::draft(&dashboard("p", "d"), "{}"), perses_api_server::store::Precondition::None)
        .await
        .unwrap();
    let again = import(&config, &from).await.unwrap();
    assert_eq!(
        (again.total(), again.skipped.as_slice()),
        (row(0, 0, 4, 1, 1), ["Dashboard p/d".to_owned()].as_slice())
    );
    let overwrite = ImportOptions { overwrite: true, ..from.clone() };
    assert_eq!(import(&config, &overwrite).await.unwrap().total(), row(0, 1, 4, 0, 1));

    // The way back: the same documents, secrets readable with the key of old.
    let back = outer.path().join("back");
    let to = ExportOptions { to: back.clone(), format: "yaml".to_owned(), target_encryption_key_file: Some(key) };
    assert_eq!(export(&config, &to).await.unwrap(), 5);
    let (mut before, mut after) = (essences(&folder), essences(&back));
    for side in [&mut before, &mut after] {
        for (.., spec) in side.iter_mut() {
            for pointer in ["/basicAuth/password", "/authorization/credentials"] {
                if let Some(sealed) = spec.pointer_mut(pointer) {
                    *sealed = json!(String::from_utf8(theirs.decrypt(sealed.as_str().unwrap()).unwrap()).unwrap());
                }
            }
        }
    }
    assert_eq!(after, before);
    assert!(back.join("dashboards/p/d.yaml").is_file() && back.join("users/ann.yaml").is_file());
    let refused = export(&config, &to).await.unwrap_err();
    assert!(refused.contains("holds documents already"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_exported_comes_back_the_same() {
    let outer = tempfile::tempdir().unwrap();
    let (first, second, third) = (outer.path().join("1"), outer.path().join("2"), outer.path().join("3"));
    folder_of_perses(&first);
    let from = |folder: &Path| ImportOptions { from: folder.display().to_string(), ..ImportOptions::default() };
    let to =
        |folder: &Path| ExportOptions { to: folder.to_owned(), format: "json".to_owned(), ..ExportOptions::default() };
    let (config, _) = postgres(KEY).await;
    import(&config, &from(&first)).await.unwrap();
    export(&config, &to(&second)).await.unwrap();
    // With one key all the way sealed values stay as they are.
    assert_eq!(essences(&second), essences(&first));
    let files = files(&third, KEY);
    let report = import(&files, &from(&second)).await.unwrap();
    assert!(report.failed.is_empty() && report.total() == row(5, 0, 0, 0, 0), "{report}");
    assert_eq!(essences(&third), essences(&first));
    assert_eq!(import(&files, &from(&second)).await.unwrap().total(), row(0, 0, 5, 0, 0));

    // Another key than the documents': said for each secret, and nothing unreadable is stored.
    let (config, store) = postgres(OTHER_KEY).await;
    let report = import(&config, &from(&second)).await.unwrap();
    assert_eq!(report.total(), row(3, 0, 0, 0, 2), "{report}");
    assert!(report.failed.iter().all(|line| line.contains("--source-encryption-key-file")), "{report}");
    assert!(store.get(&Key::global(Kind::GlobalSecret, "g")).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_tells_all_but_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (user, password) = (write("user", "admin"), write("password", "sesame\n"));
    let (user_file, password_file) = (user.clone(), password.clone());
    let source = Pod::start_with(move |config| {
        let security: Value = json!({
            "enable_auth": true, "encryption_key": KEY,
            "authentication": {
                "providers": {"enable_native": true},
                "initial_admin": {"username_file": user_file, "password_file": password_file},
            },
        });
        config.security = serde_json::from_value(security).unwrap();
    })
    .await;
    let login = json!({"login": "admin", "password": "sesame"});
    let url = format!("{}/api/auth/providers/native/login", source.url);
    let mut token = String::new();
    crate::replicas::eventually("the admin", async || {
        let reply = source.client.post(&url).json(&login).send().await.unwrap();
        reply.status().is_success()
    })
    .await;
    let reply: Value = source.client.post(&url).json(&login).send().await.unwrap().json().await.unwrap();
    token.push_str(reply["access_token"].as_str().unwrap());
    for (path, body) in [
        ("projects", json!({"kind": "Project", "metadata": {"name": "p"}, "spec": {}})),
        (
            "projects/p/dashboards",
            json!({"kind": "Dashboard", "metadata": {"name": "d", "tags": ["x"]}, "spec": {"panels": {}, "layouts": []}}),
        ),
        (
            "projects/p/secrets",
            json!({"kind": "Secret", "metadata": {"name": "s"}, "spec": {"basicAuth": {"username": "u", "password": "hunter2"}}}),
        ),
    ] {
        let url = format!("{}/api/v1/{path}", source.url);
        let reply = source.client.post(url).bearer_auth(&token).json(&body).send().await.unwrap();
        assert!(reply.status().is_success(), "{path}: {}", reply.text().await.unwrap());
    }

    let (config, store) = postgres(OTHER_KEY).await;
    let anonymous = ImportOptions { from: source.url.clone(), ..ImportOptions::default() };
    let error = import(&config, &anonymous).await.unwrap_err();
    assert!(error.contains("401") && error.contains("--token-file"), "{error}");
    let signed_in =
        ImportOptions { username: Some("admin".to_owned()), password_file: Some(password), ..anonymous.clone() };
    let report = import(&config, &signed_in).await.unwrap();
    assert!(report.failed.is_empty(), "{report}");
    let reenter = report.reenter.join("\n");
    for part in ["Secret p/s: spec.basicAuth.password", "User admin: spec.nativeProvider.password"] {
        assert!(reenter.contains(part), "{part}: {reenter}");
    }
    let stored = store.get(&dashboard("p", "d")).await.unwrap().unwrap();
    assert_eq!(stored.tags, ["x"]);
    let secret = store.get(&Key::in_project(Kind::Secret, "p", "s")).await.unwrap().unwrap();
    assert_eq!(serde_json::from_str::<Value>(secret.spec.get()).unwrap(), json!({"basicAuth": {"username": "u"}}));

    // A secret that was entered here is kept, also when its document is replaced.
    let sealed = SecretBox::new(OTHER_KEY.as_bytes()).unwrap().encrypt(b"entered").unwrap();
    let entered = json!({"basicAuth": {"username": "other", "password": sealed}}).to_string();
    let key = Key::in_project(Kind::Secret, "p", "s");
    store
        .put(Document { spec: serde_json::value::RawValue::from_string(entered).unwrap().into(), ..secret })
        .await
        .unwrap();
    let token_file = write("token", &token);
    let again = ImportOptions { token_file: Some(token_file), overwrite: true, ..anonymous };
    let report = import(&config, &again).await.unwrap();
    assert!(!report.reenter.join("\n").contains("Secret p/s"), "{report}");
    let secret: Value = serde_json::from_str(store.get(&key).await.unwrap().unwrap().spec.get()).unwrap();
    assert_eq!(secret["basicAuth"], json!({"username": "u", "password": sealed}));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_of_perses_moves_with_its_secrets() {
    let server = MariaDb::start().await.unwrap();
    let outer = tempfile::tempdir().unwrap();
    folder_of_perses(outer.path());
    let (documents, _) = file::read_folder(outer.path()).unwrap();
    // The tables of Perses v0.54; one kind is not there yet.
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::EphemeralDashboard) {
        let project = if kind.is_project_scoped() { "project VARCHAR(128), " } else { "" };
        let sql = format!(
            "CREATE TABLE `{}` (id VARCHAR(256) PRIMARY KEY, name VARCHAR(128), {project}doc JSON)",
            kind.as_str().to_lowercase()
        );
        server.sql("perses", &sql).await.unwrap();
    }
    let mut sql = "INSERT INTO dashboard VALUES ('p|bad', 'bad', 'p', '{\"metadata\": 7}');".to_owned();
    for document in documents.iter().filter(|document| document.key.project.as_deref() != Some("absent")) {
        let (key, project) = (&document.key, document.key.project.as_ref());
        let (id, column) = (key.path().replace('/', "|"), project.map(|project| format!("'{project}', ")));
        let (table, column) = (key.kind.as_str().to_lowercase(), column.unwrap_or_default());
        let body = String::from_utf8(document.to_body().to_vec()).unwrap();
        write!(sql, "INSERT INTO `{table}` VALUES ('{id}', '{}', {column}'{}');", key.name, body.trim()).unwrap();
    }
    server.sql("perses", &sql).await.unwrap();
    let (password, key) = (outer.path().join("password"), outer.path().join("key"));
    fs::write(&password, server.password()).unwrap();
    fs::write(&key, KEY).unwrap();
    let (config, store) = postgres(OTHER_KEY).await;
    let from = ImportOptions {
        from: server.url(),
        password_file: Some(password.clone()),
        source_encryption_key_file: Some(key),
        ..ImportOptions::default()
    };
    let report = import(&config, &from).await.unwrap();
    assert_eq!(report.total(), row(5, 0, 0, 0, 0), "{report}");
    assert!(report.failed.len() == 1 && report.failed[0].starts_with("table dashboard, p|bad: "), "{report}");
    assert_eq!(store.get(&dashboard("p", "d")).await.unwrap().unwrap().version, 41);
    let secret = store.get(&Key::global(Kind::GlobalSecret, "g")).await.unwrap().unwrap();
    let secret: Value = serde_json::from_str(secret.spec.get()).unwrap();
    let sealed = secret["authorization"]["credentials"].as_str().unwrap();
    assert_eq!(SecretBox::new(OTHER_KEY.as_bytes()).unwrap().decrypt(sealed).unwrap(), PLAIN);

    fs::write(&password, "hunter2").unwrap();
    let error = import(&config, &from).await.unwrap_err();
    assert!(error.contains("cannot connect to MySQL at 127.0.0.1") && !error.contains("hunter2"), "{error}");
    server.stop().await.unwrap();
    assert!(import(&config, &from).await.is_err());
}

#[tokio::test]
async fn the_command_line_reports_and_fails_when_something_failed() {
    let outer = tempfile::tempdir().unwrap();
    let (folder, target) = (outer.path().join("db"), outer.path().join("target"));
    folder_of_perses(&folder);
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_perses-api-server"))
            .args(args)
            .env("PERSES_DATABASE_FILE_FOLDER", &target)
            .env("PERSES_SECURITY_ENCRYPTION_KEY", KEY)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    let (done, out, err) = run(&["import", "--from", folder.to_str().unwrap()]);
    assert!(!done && err.contains("not everything could be imported"), "{out}{err}");
    assert!(out.contains("Dashboard                   1        0          0        0       1"), "{out}");
    fs::remove_file(folder.join("dashboards/p/odd.json")).unwrap();
    fs::remove_dir_all(folder.join("dashboards/absent")).unwrap();
    let (done, out, err) = run(&["import", "--from", folder.to_str().unwrap(), "--dry-run"]);
    assert!(done && out.starts_with("dry run: nothing was written\n"), "{out}{err}");
    let (done, out, _) = run(&["export", "--to", outer.path().join("out").to_str().unwrap()]);
    assert!(done && out.starts_with("5 documents were written"), "{out}");
    let store = open_files(target, FileExtension::Yaml).unwrap();
    assert_eq!(store.get(&dashboard("p", "d")).await.unwrap().unwrap().version, 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_certificate_of_its_own_authority() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(path("tls.crt"), made.cert.pem()).unwrap();
    fs::write(path("tls.key"), made.signing_key.serialize_pem()).unwrap();
    fs::write(path("other.crt"), rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap().cert.pem()).unwrap();
    fs::write(path("empty.crt"), "").unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let source = Pod::start_with(|config| {
        let (cert_file, key_file) = (path("tls.crt"), path("tls.key"));
        config.server.tls = Some(config::ServerTls { cert_file, key_file, ..config::ServerTls::default() });
    })
    .await;
    source.state().store.create(draft(&project("p"), "{}")).await.unwrap();
    let target = files(&path("db"), KEY);
    let from = |ca: Option<&str>| ImportOptions {
        from: source.url.clone(),
        ca_file: ca.map(path),
        ..ImportOptions::default()
    };
    for (ca, part) in [
        (None, "certificate"),
        (Some("other.crt"), "certificate"),
        (Some("empty.crt"), "has no certificate"),
        (Some("none.crt"), "--ca-file"),
    ] {
        let error = import(&target, &from(ca)).await.unwrap_err();
        assert!(error.contains(part), "{ca:?}: {error}");
    }
    let report = import(&target, &from(Some("tls.crt"))).await.unwrap();
    assert_eq!(report.rows[&Kind::Project], row(1, 0, 0, 0, 0));
}
