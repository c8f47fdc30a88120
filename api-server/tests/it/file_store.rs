//! What is special about files: hand edits, crashes, folders of a real Perses.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use e2e::wait::wait_until;
use perses_api_server::config::FileExtension;
use perses_api_server::domain::document::Key;
use perses_api_server::domain::kind::Kind;
use perses_api_server::store::file::FileStore;
use perses_api_server::store::{Changes, ListQuery, Precondition, Store, StoreError};
use tempfile::TempDir;

use crate::backends::{create, dashboard, draft, open_files, project};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(folder: &TempDir) -> FileStore {
    open_files(folder.path().to_owned(), FileExtension::Yaml).unwrap()
}

/// The store notices edits within about a second.
async fn eventually(what: &str, look: impl AsyncFn() -> bool) {
    wait_until(what, Duration::from_secs(20), || async { Ok(look().await) }).await.unwrap();
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[tokio::test]
async fn everything_is_there_after_a_restart_in_either_form() {
    let folder = folder();
    let spec = r#"{"b":{"on":"no","list":[1,2.5,null]},"a":"multi\nline"}"#;
    let (key, before) = {
        let store = open_files(folder.path().to_owned(), FileExtension::Json).unwrap();
        create(&store, &project("p"), "{}").await;
        let key = dashboard("p", "d");
        create(&store, &key, spec).await;
        (key.clone(), store.update(draft(&key, spec), Precondition::None).await.unwrap())
    };
    let path = folder.path().join("dashboards/p/d.json");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    let store = open(&folder);
    assert_eq!(
        store.get(&key).await.unwrap().unwrap().to_body(),
        before.to_body(),
        "JSON is read though YAML is written"
    );
    let updated = store.update(draft(&key, spec), Precondition::Version(1)).await.unwrap();
    assert!(!path.exists() && path.with_extension("yaml").exists(), "written in the configured form, once");
    drop(store);
    let store = open(&folder);
    let read = store.get(&key).await.unwrap().unwrap();
    assert_eq!((read.version, read.created_at, read.updated_at), (2, updated.created_at, updated.updated_at));
    assert_eq!(read.spec.get(), spec, "the order of keys survives YAML");
}

#[tokio::test]
async fn a_folder_of_perses_just_works() {
    let folder = folder();
    let root = folder.path();
    write(
        &root.join("projects/demo.yaml"),
        "kind: Project\nmetadata:\n  name: demo\n  createdAt: 2024-11-05T10:00:00.123456789Z\n  updatedAt: 2024-11-05T10:00:00.123456789Z\n  version: 0\nspec: {}\n",
    );
    write(
        &root.join("dashboards/demo/a.json"),
        r#"{"kind":"Dashboard","metadata":{"name":"a","createdAt":"2024-11-05T10:00:00Z","updatedAt":"2024-11-06T10:00:00Z","version":5,"project":"demo"},"spec":{"duration":"1h"}}"#,
    );
    write(
        &root.join("users/admin.yaml"),
        "kind: User\nmetadata:\n  name: admin\nspec:\n  nativeProvider:\n    password: \"$2a$10$x\"\n",
    );
    write(&root.join("roles/demo/owner.yaml"), "kind: Role\nmetadata:\n  name: owner\n");
    let store = open(&folder);
    let dashboard = store.get(&dashboard("demo", "a")).await.unwrap().unwrap();
    assert_eq!((dashboard.version, dashboard.spec.get()), (5, r#"{"duration":"1h"}"#));
    let user = store.get(&Key::global(Kind::User, "admin")).await.unwrap().unwrap();
    assert_eq!(user.spec.get(), r#"{"nativeProvider":{"password":"$2a$10$x"}}"#);
    assert!(root.join("roles/demo/owner.yaml").exists(), "kinds that are not known are left alone");
}

#[tokio::test]
async fn edits_by_hand_are_seen_and_reported() {
    let folder = folder();
    let store = open(&folder);
    create(&store, &project("p"), "{}").await;
    let (edited, removed, added) = (dashboard("p", "edited"), dashboard("p", "removed"), dashboard("p", "added"));
    let before = create(&store, &edited, "{}").await.revision;
    create(&store, &removed, "{}").await;
    let mut cursor = store.tail_start().await.unwrap();
    let dashboards = folder.path().join("dashboards/p");
    write(&dashboards.join("edited.yaml"), "kind: Dashboard\nspec: {x: 1}\n");
    write(&dashboards.join("added.json"), r#"{"kind":"Dashboard","spec":{"y":2}}"#);
    fs::remove_file(dashboards.join("removed.yaml")).unwrap();
    eventually("the edits to be seen", async || {
        let spec = async |key| store.get(key).await.unwrap().map(|document| document.spec.get().to_owned());
        spec(&edited).await.as_deref() == Some(r#"{"x":1}"#)
            && spec(&added).await.as_deref() == Some(r#"{"y":2}"#)
            && spec(&removed).await.is_none()
    })
    .await;
    let Changes::Rows(rows) = store.tail(&mut cursor).await.unwrap() else { panic!("lost") };
    let mut keys: Vec<_> = rows.iter().map(|change| (change.key.name.as_str(), change.deleted)).collect();
    keys.sort_unstable();
    assert_eq!(keys, [("added", false), ("edited", false), ("removed", true)]);
    assert!(rows.iter().all(|change| change.revision > before), "caches take the edits for newer");
}

#[tokio::test]
async fn a_write_builds_on_the_edit_that_came_before_it() {
    let folder = folder();
    let store = open(&folder);
    create(&store, &project("p"), "{}").await;
    let key = dashboard("p", "d");
    create(&store, &key, "{}").await;
    // No time for a scan in between.
    write(&folder.path().join("dashboards/p/d.yaml"), "kind: Dashboard\nmetadata: {version: 41}\nspec: {}\n");
    assert_eq!(store.update(draft(&key, "{}"), Precondition::None).await.unwrap().version, 42);
    write(&folder.path().join("dashboards/p/e.yaml"), "kind: Dashboard\nspec: {}\n");
    let by_hand = store.create(draft(&dashboard("p", "e"), "{}")).await;
    assert!(matches!(by_hand, Err(StoreError::AlreadyExists)), "{by_hand:?}");
    fs::remove_file(folder.path().join("dashboards/p/e.yaml")).unwrap();
    assert!(matches!(store.delete(&dashboard("p", "e")).await, Err(StoreError::NotFound)));
}

#[tokio::test]
async fn a_file_that_makes_no_sense_is_skipped_and_never_touched() {
    let folder = folder();
    let dashboards = folder.path().join("dashboards/p");
    let bad = [
        ("broken.yaml", "kind: [Dashboard"),
        ("cut.json", r#"{"kind":"Dashboard","spe"#),
        ("other.yaml", "kind: Folder\nspec: {}\n"),
        ("named.yaml", "kind: Dashboard\nmetadata: {name: somebody}\nspec: {}\n"),
        ("moved.yaml", "kind: Dashboard\nmetadata: {project: q}\nspec: {}\n"),
        ("binary.json", "\u{0}\u{1}"),
        ("notes.txt", "remember the milk"),
        (".hidden.yaml", "kind: Dashboard\nspec: {}\n"),
        ("a b.yaml", "kind: Dashboard\nspec: {}\n"),
    ];
    write(&folder.path().join("projects/p.yaml"), "kind: Project\n");
    write(&dashboards.join("good.yaml"), "kind: Dashboard\nspec: {}\n");
    for (name, text) in bad {
        write(&dashboards.join(name), text);
    }
    let store = open(&folder);
    let query = ListQuery { kind: Kind::Dashboard, project: None, name_prefix: None, metadata_only: false };
    let listed = store.list(&query).await.unwrap();
    assert_eq!(listed.iter().map(|document| document.key.name.as_str()).collect::<Vec<_>>(), ["good"]);
    let taken = store.create(draft(&dashboard("p", "broken"), "{}")).await;
    assert!(matches!(taken, Err(StoreError::AlreadyExists)), "{taken:?}");

    // A document that breaks while the server runs goes on being served as it was.
    write(&dashboards.join("good.yaml"), "kind: {Dashboard");
    write(&dashboards.join("later.yaml"), "kind: Dashboard\nspec: {}\n");
    eventually("the scan", async || store.get(&dashboard("p", "later")).await.unwrap().is_some()).await;
    assert!(store.get(&dashboard("p", "good")).await.unwrap().is_some());

    store.delete(&project("p")).await.unwrap();
    for (name, text) in bad {
        assert_eq!(fs::read_to_string(dashboards.join(name)).unwrap(), text, "{name}");
    }
}

#[tokio::test]
async fn no_name_leads_out_of_the_folder() {
    let outer = folder();
    let inner = outer.path().join("a/b/db");
    let store = open_files(inner, FileExtension::Json).unwrap();
    create(&store, &project("p"), "{}").await;
    let before = tree(outer.path());
    for name in ["../x", "..", ".", "a/b", "/etc/passwd", "../../../../tmp/x", "", "a\0b", "..\\x", ".x"] {
        for key in [dashboard("p", name), dashboard(name, "x"), project(name)] {
            assert!(store.create(draft(&key, "{}")).await.is_err(), "{key:?}");
            assert!(store.update(draft(&key, "{}"), Precondition::None).await.is_err(), "{key:?}");
            assert!(store.delete(&key).await.is_err(), "{key:?}");
            assert!(store.get(&key).await.unwrap().is_none(), "{key:?}");
        }
    }
    assert_eq!(tree(outer.path()), before);
}

fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.display().to_string());
        if path.is_dir() {
            found.extend(tree(&path));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_second_server_on_the_folder_is_refused_with_what_to_do() {
    let folder = folder();
    let store = open(&folder);
    let error = open_files(folder.path().to_owned(), FileExtension::Yaml).unwrap_err().to_string();
    assert!(
        error.contains(&format!("process {}", std::process::id())) && error.contains("database.file.folder"),
        "{error}"
    );
    drop(store);
    open(&folder);
}

#[tokio::test]
async fn a_deletion_that_a_crash_cut_short_is_finished_at_the_next_start() {
    let folder = folder();
    let store = open(&folder);
    for name in ["p", "q"] {
        create(&store, &project(name), "{}").await;
        create(&store, &dashboard(name, "a"), "{}").await;
        create(&store, &dashboard(name, "b"), "{}").await;
    }
    drop(store);
    // The state after the mark and one removal; a write that was cut short left its temporary file.
    fs::write(folder.path().join(".perses-deleting-p"), "").unwrap();
    fs::remove_file(folder.path().join("dashboards/p/a.yaml")).unwrap();
    fs::write(folder.path().join("dashboards/q/.perses-tmp-1-1"), "kind: Dash").unwrap();
    let store = open(&folder);
    assert!(store.get(&project("p")).await.unwrap().is_none());
    assert!(store.get(&dashboard("p", "b")).await.unwrap().is_none());
    assert!(store.get(&dashboard("q", "b")).await.unwrap().is_some());
    let left = tree(folder.path()).join("\n");
    for gone in ["projects/p", "dashboards/p", "perses-tmp", "deleting"] {
        assert!(!left.contains(gone), "{gone}: {left}");
    }
}

#[tokio::test]
async fn a_folder_that_vanishes_is_not_taken_for_an_empty_one() {
    let outer = folder();
    let root = outer.path().join("db");
    let store = open_files(root.clone(), FileExtension::Yaml).unwrap();
    create(&store, &project("p"), "{}").await;
    fs::rename(&root, outer.path().join("elsewhere")).unwrap();
    eventually("the check to fail", async || store.check().await.is_err()).await;
    let mut cursor = store.tail_start().await.unwrap();
    fs::rename(outer.path().join("elsewhere"), &root).unwrap();
    eventually("the check to pass", async || store.check().await.is_ok()).await;
    assert!(store.get(&project("p")).await.unwrap().is_some());
    assert_eq!(store.tail(&mut cursor).await.unwrap(), Changes::Rows(Vec::new()));
}
