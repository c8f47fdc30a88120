//! What every store must do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use perses_api_server::domain::document::{Document, Key};
use perses_api_server::domain::kind::Kind;
use perses_api_server::store::{Changes, Cursor, ListQuery, Precondition, SearchQuery, Store, StoreError};

use crate::backends::{self, create, dashboard, draft, project};
use crate::replicas::eventually;

/// Runs a test on every store and says on which one it fails.
async fn on_every_store<F: Future<Output = ()>>(test: impl Fn(Arc<dyn Store>) -> F) {
    for backend in backends::all().await {
        eprintln!("on {}", backend.name);
        backend.store.ready().await.unwrap();
        backend.store.check().await.unwrap();
        test(Arc::clone(&backend.store)).await;
    }
}

/// All changes since the cursor that are not known yet.
async fn drain(store: &dyn Store, cursor: &mut Cursor) -> Vec<(Key, i64, bool)> {
    match store.tail(cursor).await.unwrap() {
        Changes::Rows(rows) => rows.into_iter().map(|change| (change.key, change.revision, change.deleted)).collect(),
        Changes::Lost => panic!("the tail is lost"),
    }
}

fn list(kind: Kind) -> ListQuery {
    ListQuery { kind, project: None, name_prefix: None, metadata_only: false }
}

async fn names(store: &dyn Store, query: &ListQuery) -> Vec<String> {
    store.list(query).await.unwrap().iter().map(|document| document.key.path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_lives_from_create_to_delete() {
    on_every_store(|store| async move {
        create(&*store, &project("p"), "{}").await;
        let key = dashboard("p", "cpu");
        assert!(store.get(&key).await.unwrap().is_none());
        let spec = r#"{"z": 1.0,  "a": "é\u0000\n", "big": 12345678901234567890}"#;
        let mut first = draft(&key, spec);
        first.tags = vec!["b".to_owned(), "a\"'\\".to_owned()];
        let created = store.create(first).await.unwrap();
        assert_eq!((created.version, created.created_at), (0, created.updated_at));
        let read = store.get(&key).await.unwrap().unwrap();
        assert_eq!(read.spec.get(), spec, "the spec comes back as it was sent");
        assert_eq!(read.tags, ["b", "a\"'\\"]);
        assert_eq!(read.to_body(), created.to_body());
        assert_eq!(read.revision, created.revision);

        let updated = store.update(draft(&key, "{}"), Precondition::None).await.unwrap();
        assert_eq!((updated.version, updated.created_at), (1, created.created_at));
        assert!(updated.updated_at >= created.updated_at && updated.revision > created.revision);
        assert!(updated.tags.is_empty());
        assert_eq!(store.get(&key).await.unwrap().unwrap().to_body(), updated.to_body());

        let gone = store.delete(&key).await.unwrap();
        assert_eq!(gone.len(), 1);
        assert!(gone[0].deleted && gone[0].key == key && gone[0].revision > updated.revision);
        assert!(store.get(&key).await.unwrap().is_none());
        let again = create(&*store, &key, "{}").await;
        assert!(again.version == 0 && again.revision > gone[0].revision, "revisions rise across delete and create");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_by_name() {
    on_every_store(|store| async move {
        let key = dashboard("p", "d");
        let missing = store.create(draft(&key, "{}")).await.unwrap_err();
        assert!(matches!(&missing, StoreError::ProjectMissing(name) if name == "p"), "{missing:?}");
        create(&*store, &project("p"), "{}").await;
        assert!(matches!(store.create(draft(&project("p"), "{}")).await, Err(StoreError::AlreadyExists)));
        let update = |version| store.update(draft(&key, "{}"), version);
        assert!(matches!(update(Precondition::None).await, Err(StoreError::NotFound)));
        assert!(matches!(update(Precondition::Version(0)).await, Err(StoreError::NotFound)));
        assert!(matches!(store.delete(&key).await, Err(StoreError::NotFound)));
        assert!(matches!(store.delete(&project("q")).await, Err(StoreError::NotFound)));
        create(&*store, &key, "{}").await;
        assert!(matches!(store.create(draft(&key, "{}")).await, Err(StoreError::AlreadyExists)));
        assert_eq!(update(Precondition::Version(0)).await.unwrap().version, 1);
        let conflict = update(Precondition::Version(0)).await.unwrap_err();
        assert!(matches!(conflict, StoreError::VersionConflict { stored: 1, expected: 0 }), "{conflict:?}");
        assert!(matches!(update(Precondition::Version(u64::MAX)).await, Err(StoreError::VersionConflict { .. })));
        assert_eq!(store.get(&key).await.unwrap().unwrap().version, 1, "a refused update changes nothing");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_filter_by_project_and_prefix_in_order() {
    on_every_store(|store| async move {
        for name in ["b", "a", "a-b", "A"] {
            create(&*store, &project(name), r#"{"display":{"name":"x"}}"#).await;
        }
        for (scope, name) in
            [("b", "zz"), ("b", "cpu"), ("a", "cpu-2"), ("a", "cpu"), ("a-b", "cpu"), ("A", "CPU"), ("a", "c_")]
        {
            create(&*store, &dashboard(scope, name), r#"{"x":1}"#).await;
        }
        create(&*store, &Key::in_project(Kind::Folder, "a", "cpu"), "{}").await;
        create(&*store, &Key::global(Kind::GlobalVariable, "cpu"), "{}").await;
        assert_eq!(names(&*store, &list(Kind::Project)).await, ["A", "a", "a-b", "b"]);
        let all = ["A/CPU", "a/c_", "a/cpu", "a/cpu-2", "a-b/cpu", "b/cpu", "b/zz"];
        assert_eq!(names(&*store, &list(Kind::Dashboard)).await, all);
        let in_a = ListQuery { project: Some("a".to_owned()), ..list(Kind::Dashboard) };
        assert_eq!(names(&*store, &in_a).await, ["a/c_", "a/cpu", "a/cpu-2"]);
        let cpu = ListQuery { name_prefix: Some("cpu".to_owned()), ..list(Kind::Dashboard) };
        assert_eq!(names(&*store, &cpu).await, ["a/cpu", "a/cpu-2", "a-b/cpu", "b/cpu"]);
        let both = ListQuery { name_prefix: Some("cpu-".to_owned()), ..in_a };
        assert_eq!(names(&*store, &both).await, ["a/cpu-2"]);
        let wild = ListQuery { name_prefix: Some("c_%".to_owned()), ..list(Kind::Dashboard) };
        assert!(names(&*store, &wild).await.is_empty(), "a prefix is no pattern");
        let bare = ListQuery { metadata_only: true, ..both };
        assert_eq!(store.list(&bare).await.unwrap()[0].spec.get(), "{}");
        create(&*store, &dashboard("a", "titled"), r#"{"display":{"name":"A \"title\"","description":"d"},"z":1}"#)
            .await;
        let titled = ListQuery { name_prefix: Some("titled".to_owned()), metadata_only: true, ..list(Kind::Dashboard) };
        let spec: serde_json::Value = serde_json::from_str(store.list(&titled).await.unwrap()[0].spec.get()).unwrap();
        assert_eq!(spec, serde_json::json!({"display": {"name": "A \"title\""}}));
        assert!(names(&*store, &list(Kind::GlobalSecret)).await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_project_takes_everything_in_it() {
    on_every_store(|store| async move {
        for name in ["p", "pp"] {
            create(&*store, &project(name), "{}").await;
            for kind in Kind::ALL.into_iter().filter(|kind| kind.is_project_scoped()) {
                create(&*store, &Key::in_project(kind, name, "x"), "{}").await;
            }
        }
        create(&*store, &Key::global(Kind::GlobalDatasource, "p"), "{}").await;
        let mut cursor = store.tail_start().await.unwrap();
        drain(&*store, &mut cursor).await;
        let gone = store.delete(&project("p")).await.unwrap();
        let keys: BTreeSet<Key> = gone.iter().map(|change| change.key.clone()).collect();
        let mut wanted: BTreeSet<Key> = Kind::ALL
            .into_iter()
            .filter(|kind| kind.is_project_scoped())
            .map(|kind| Key::in_project(kind, "p", "x"))
            .collect();
        wanted.insert(project("p"));
        assert_eq!(keys, wanted);
        let noted: BTreeSet<Key> = drain(&*store, &mut cursor).await.into_iter().map(|(key, ..)| key).collect();
        assert_eq!(noted, wanted, "each has its row in the tail");
        for key in &wanted {
            assert!(store.get(key).await.unwrap().is_none(), "{key:?}");
        }
        assert!(store.get(&dashboard("pp", "x")).await.unwrap().is_some());
        assert!(store.get(&Key::global(Kind::GlobalDatasource, "p")).await.unwrap().is_some());
        create(&*store, &project("p"), "{}").await;
        assert!(names(&*store, &ListQuery { project: Some("p".to_owned()), ..list(Kind::Dashboard) }).await.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tail_has_every_write_once_it_is_done() {
    on_every_store(|store| async move {
        let mut cursor = store.tail_start().await.unwrap();
        drain(&*store, &mut cursor).await;
        let key = dashboard("p", "d");
        let first = create(&*store, &project("p"), "{}").await.revision;
        let second = create(&*store, &key, "{}").await.revision;
        let third = store.update(draft(&key, "{}"), Precondition::None).await.unwrap().revision;
        let rows = drain(&*store, &mut cursor).await;
        assert_eq!(rows, [(project("p"), first, false), (key.clone(), second, false), (key.clone(), third, false)]);
        assert!(store.update(draft(&key, "{}"), Precondition::Version(77)).await.is_err());
        assert!(store.create(draft(&key, "{}")).await.is_err());
        assert!(drain(&*store, &mut cursor).await.is_empty(), "what failed left nothing");
        let fourth = store.delete(&key).await.unwrap()[0].revision;
        assert_eq!(drain(&*store, &mut cursor).await, [(key, fourth, true)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_creates_at_once_exactly_one_wins() {
    on_every_store(|store| async move {
        create(&*store, &project("p"), "{}").await;
        for key in [dashboard("p", "d"), project("q")] {
            let attempts = join_all((0..16).map(|_| {
                let (store, draft) = (Arc::clone(&store), draft(&key, "{}"));
                tokio::spawn(async move { store.create(draft).await })
            }))
            .await;
            let results: Vec<_> = attempts.into_iter().map(Result::unwrap).collect();
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
            assert_eq!(results.iter().filter(|result| matches!(result, Err(StoreError::AlreadyExists))).count(), 15);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_update_is_lost_and_revisions_rise_with_versions() {
    on_every_store(|store| async move {
        create(&*store, &project("p"), "{}").await;
        let key = dashboard("p", "d");
        create(&*store, &key, "{}").await;
        let updates = join_all((0..24).map(|_| {
            let (store, draft) = (Arc::clone(&store), draft(&key, "{}"));
            tokio::spawn(async move { store.update(draft, Precondition::None).await.unwrap() })
        }))
        .await;
        let mut written: Vec<_> = updates.into_iter().map(Result::unwrap).map(|d| (d.version, d.revision)).collect();
        written.sort_unstable();
        assert_eq!(written.iter().map(|(version, _)| *version).collect::<Vec<_>>(), (1..=24).collect::<Vec<_>>());
        assert!(written.is_sorted_by_key(|(_, revision)| *revision), "{written:?}");
        // With a precondition all but one of those who saw the same version lose.
        let races = join_all((0..8).map(|_| {
            let (store, draft) = (Arc::clone(&store), draft(&key, "{}"));
            tokio::spawn(async move { store.update(draft, Precondition::Version(24)).await.is_ok() })
        }))
        .await;
        assert_eq!(races.into_iter().filter(|won| *won.as_ref().unwrap()).count(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_document_outlives_its_project() {
    on_every_store(|store| async move {
        for round in 0..12 {
            let name = format!("p{round}");
            create(&*store, &project(&name), "{}").await;
            let key = dashboard(&name, "d");
            let (creating, deleting) = (Arc::clone(&store), Arc::clone(&store));
            let draft = draft(&key, "{}");
            let (created, deleted) = tokio::join!(
                tokio::spawn(async move { creating.create(draft).await }),
                tokio::spawn(async move { deleting.delete(&project(&name)).await }),
            );
            deleted.unwrap().unwrap();
            match created.unwrap() {
                Ok(_) | Err(StoreError::ProjectMissing(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
            assert!(store.get(&key).await.unwrap().is_none());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_holds_for_one_state_of_one_document_only() {
    on_every_store(|store| async move {
        create(&*store, &project("p"), "{}").await;
        let key = dashboard("p", "d");
        let first = create(&*store, &key, "{}").await;
        let state =
            |document: &Document| Precondition::State { version: document.version, revision: document.revision };
        store.delete_if(&key, state(&first)).await.unwrap();
        let second = create(&*store, &key, "{}").await;
        assert_eq!(second.version, first.version, "versions begin anew");
        for stale in [state(&first), Precondition::Version(7)] {
            let update = store.update(draft(&key, "{}"), stale).await.unwrap_err();
            assert!(matches!(update, StoreError::VersionConflict { stored: 0, .. }), "{update:?}");
            let delete = store.delete_if(&key, stale).await.unwrap_err();
            assert!(matches!(delete, StoreError::VersionConflict { stored: 0, .. }), "{delete:?}");
        }
        let third = store.update(draft(&key, "{}"), state(&second)).await.unwrap();
        assert!(store.delete_if(&key, state(&second)).await.is_err());
        assert!(matches!(store.delete_if(&dashboard("p", "x"), state(&third)).await, Err(StoreError::NotFound)));
        // A project is only deleted as a whole, or not at all.
        let wrong = store.delete_if(&project("p"), Precondition::Version(7)).await.unwrap_err();
        assert!(matches!(wrong, StoreError::VersionConflict { stored: 0, expected: 7 }), "{wrong:?}");
        assert_eq!(store.get(&key).await.unwrap().unwrap().version, third.version);
        assert_eq!(store.delete_if(&key, state(&third)).await.unwrap().len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn search_finds_dashboards_by_parts_of_either_name() {
    on_every_store(|store| async move {
        for name in ["p", "q"] {
            create(&*store, &project(name), "{}").await;
        }
        let title = |title: &str| format!(r#"{{"display":{{"name":{}}}}}"#, serde_json::Value::from(title));
        for (project, name, spec) in [
            ("p", "node-cpu", title("Rechner: Übersicht")),
            ("q", "cpu", "{}".to_owned()),
            ("q", "odd", title("100%_of \\ everything")),
            ("q", "broken", r#"{"display":7}"#.to_owned()),
        ] {
            create(&*store, &dashboard(project, name), &spec).await;
        }
        create(&*store, &Key::in_project(Kind::Folder, "q", "cpu"), "{}").await;
        let find = async |text: &str, projects: Option<&[&str]>| {
            let projects = projects.map(|all| all.iter().map(|one| (*one).to_owned()).collect());
            let words = text.split(' ').map(str::to_lowercase).collect();
            let found = store.search(&SearchQuery { words, projects, limit: 10 }).await.unwrap();
            let mut names: Vec<String> = found.into_iter().map(|one| one.document.key.path()).collect();
            names.sort();
            names
        };
        assert_eq!(find("CPU", None).await, ["p/node-cpu", "q/cpu"]);
        assert_eq!(find("cpu", Some(&["q"])).await, ["q/cpu"]);
        assert!(find("cpu", Some(&[])).await.is_empty());
        assert_eq!(find("node ÜBER", None).await, ["p/node-cpu"], "one word in each name");
        assert!(find("node disk", None).await.is_empty());
        for literal in ["100%", "%_", "\\"] {
            assert_eq!(find(literal, None).await, ["q/odd"], "{literal} stands for itself");
        }
        let all = store.search(&SearchQuery { words: vec!["cpu".to_owned()], projects: None, limit: 1 }).await.unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].document.spec.get(), "{}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_has_one_holder_until_it_is_over_or_given_back() {
    on_every_store(|store| async move {
        let (long, short) = (Duration::from_mins(10), Duration::from_millis(50));
        let attempts = join_all((0..12).map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.lease("work", &format!("pod-{number}"), long).await.unwrap() })
        }))
        .await;
        let holders: Vec<usize> = (0..12).filter(|number| *attempts[*number].as_ref().unwrap()).collect();
        assert_eq!(holders.len(), 1, "{holders:?}");
        let holder = format!("pod-{}", holders[0]);
        assert!(store.lease("work", &holder, long).await.unwrap(), "its own");
        assert!(store.lease("other", "pod-x", long).await.unwrap());
        store.release("work", "pod-x").await.unwrap();
        assert!(!store.lease("work", "pod-x", long).await.unwrap(), "only the holder gives it back");
        store.release("work", &holder).await.unwrap();
        assert!(store.lease("work", "pod-x", short).await.unwrap());
        eventually("the lease to be over", async || store.lease("work", "pod-y", short).await.unwrap()).await;
    })
    .await;
}
