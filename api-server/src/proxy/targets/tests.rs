use std::sync::atomic::Ordering;

use serde_json::value::RawValue;

use super::*;
use crate::domain::document::{Draft, Origin};
use crate::store::Precondition;
use crate::store::gate::Gate;

struct World {
    store: Arc<Gate>,
    targets: Arc<Targets>,
    _folder: tempfile::TempDir,
}

fn world(max_age: Duration) -> World {
    let (store, folder) = Gate::open();
    let secrets = Arc::new(SecretBox::new(&[7; 32]).unwrap());
    let mut targets = Targets::new(store.clone(), secrets, Vec::new(), DenyList::default());
    targets.max_age = max_age;
    World { store, targets: Arc::new(targets), _folder: folder }
}

fn reference() -> DatasourceRef {
    DatasourceRef::Global { name: "prom".to_owned() }
}

impl World {
    /// Writes a document without telling the targets.
    async fn write(&self, key: Key, spec: serde_json::Value) -> Change {
        self.write_as(Origin::Api, key, spec).await
    }

    async fn write_as(&self, origin: Origin, key: Key, spec: serde_json::Value) -> Change {
        let spec = RawValue::from_string(spec.to_string()).unwrap();
        let draft = Draft { key, tags: Vec::new(), spec, origin };
        let document = match self.store.create(draft.clone()).await {
            Err(StoreError::AlreadyExists) => self.store.update(draft, Precondition::None).await.unwrap(),
            created => created.unwrap(),
        };
        Change { key: document.key, revision: document.revision, deleted: false }
    }

    async fn point_to(&self, host: &str) -> Change {
        let proxy = serde_json::json!({"kind": "HTTPProxy", "spec": {"url": format!("http://{host}"), "secret": "s"}});
        let spec = serde_json::json!({"plugin": {"kind": "PrometheusDatasource", "spec": {"proxy": proxy}}});
        self.write(Key::global(Kind::GlobalDatasource, "prom"), spec).await
    }

    async fn sign_in_as(&self, user: &str) -> Change {
        let spec = serde_json::json!({"basicAuth": {"username": user}});
        self.write(Key::global(Kind::GlobalSecret, "s"), spec).await
    }

    async fn host(&self) -> Result<String, ProxyError> {
        let target = self.targets.get(&reference()).await?;
        Ok(target.route.url.host_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn what_was_read_before_a_change_is_not_used_after_it() {
    let world = world(MAX_AGE);
    world.point_to("old").await;
    world.sign_in_as("me").await;
    // A request has read the document and stands still.
    world.store.pass.forget_permits(Gate::MANY);
    let targets = world.targets.clone();
    let slow = tokio::spawn(async move { targets.get(&reference()).await });
    world.store.stopped.acquire().await.unwrap().forget();
    let change = world.point_to("new").await;
    world.targets.apply(&[change]);
    world.store.pass.add_permits(Gate::MANY);
    assert_eq!(slow.await.unwrap().unwrap().route.url.host_str(), Some("old"), "it came before the change");
    assert_eq!(world.host().await.unwrap(), "new");

    // The same for the secret, while it is loading and after.
    let change = world.point_to("new").await;
    world.targets.apply(&[change]);
    world.store.pass.forget_permits(Gate::MANY);
    let targets = world.targets.clone();
    let slow = tokio::spawn(async move { targets.get(&reference()).await });
    world.store.stopped.acquire().await.unwrap().forget();
    let change = world.sign_in_as("you").await;
    world.targets.apply(&[change]);
    world.store.pass.add_permits(Gate::MANY);
    slow.await.unwrap().unwrap();
    let first = world.targets.get(&reference()).await.unwrap();
    assert_eq!(first.proxy.headers[header::AUTHORIZATION], "Basic eW91Og==");
    let change = world.sign_in_as("they").await;
    world.targets.apply(&[change]);
    let second = world.targets.get(&reference()).await.unwrap();
    assert_eq!(second.proxy.headers[header::AUTHORIZATION], "Basic dGhleTo=");
    assert_ne!(first.fingerprint, second.fingerprint, "answers of other credentials are other answers");
}

#[tokio::test]
async fn concerns_nobody_else() {
    let world = world(MAX_AGE);
    world.point_to("host").await;
    world.sign_in_as("me").await;
    let before = world.targets.get(&reference()).await.unwrap();
    for key in [
        Key::global(Kind::GlobalDatasource, "other"),
        Key::global(Kind::GlobalSecret, "other"),
        Key::in_project(Kind::Secret, "prom", "s"),
        Key::global(Kind::Project, "prom"),
    ] {
        world.targets.apply(&[Change { key, revision: 99, deleted: false }]);
    }
    assert!(Arc::ptr_eq(&before, &world.targets.get(&reference()).await.unwrap()));
    world.targets.clear();
    assert!(!Arc::ptr_eq(&before, &world.targets.get(&reference()).await.unwrap()));
}

#[tokio::test]
async fn goes_on_without_the_store() {
    let world = world(Duration::ZERO);
    world.store.away.store(true, Ordering::SeqCst);
    assert!(matches!(world.host().await, Err(ProxyError::StoreUnavailable(_))), "what is not known stays unknown");
    world.store.away.store(false, Ordering::SeqCst);
    world.point_to("host").await;
    world.sign_in_as("me").await;
    assert_eq!(world.host().await.unwrap(), "host");
    world.store.away.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert_eq!(world.host().await.unwrap(), "host", "a known target is used on");
    }
}

#[tokio::test]
async fn what_does_not_exist_leaves_nothing_behind() {
    let world = world(MAX_AGE);
    for at in 0..100 {
        let reference = DatasourceRef::Project { project: "p".to_owned(), name: format!("none-{at}") };
        assert_eq!(world.targets.get(&reference).await.unwrap_err(), ProxyError::NotFound);
    }
    assert!(world.targets.slots.lock().is_empty());
    // It is there as soon as it exists, announced or not.
    assert_eq!(world.host().await, Err(ProxyError::NotFound));
    world.point_to("host").await;
    world.sign_in_as("me").await;
    assert_eq!(world.host().await.unwrap(), "host");
}

#[tokio::test]
async fn credentials_in_files_may_rotate() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let mut world = world(MAX_AGE);
    Arc::get_mut(&mut world.targets).unwrap().max_age_with_files = Duration::ZERO;
    world.point_to("host").await;
    let spec = serde_json::json!({"authorization": {"credentialsFile": file}});
    world.write_as(Origin::Provisioned, Key::global(Kind::GlobalSecret, "s"), spec.clone()).await;
    let mut prints = Vec::new();
    for token in ["one", "two"] {
        std::fs::write(&file, token).unwrap();
        let target = world.targets.get(&reference()).await.unwrap();
        assert_eq!(target.proxy.headers[header::AUTHORIZATION], format!("Bearer {token}"));
        prints.push(target.fingerprint);
    }
    assert_ne!(prints[0], prints[1], "answers of other credentials are other answers");
    // Also while the store is away.
    world.store.away.store(true, Ordering::SeqCst);
    std::fs::write(&file, "three").unwrap();
    let target = world.targets.get(&reference()).await.unwrap();
    assert_eq!(target.proxy.headers[header::AUTHORIZATION], "Bearer three");
    world.store.away.store(false, Ordering::SeqCst);
    world.targets.clear();
    // The same secret from a client of the API.
    world.write(Key::global(Kind::GlobalSecret, "s"), spec).await;
    let error = world.targets.get(&reference()).await.unwrap_err().to_string();
    assert!(error.contains("datasource.secret_file_folders"), "{error}");
}
