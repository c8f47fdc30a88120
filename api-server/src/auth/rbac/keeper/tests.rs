use std::sync::atomic::Ordering;

use serde_json::value::RawValue;

use super::*;
use crate::auth::authorize::Action;
use crate::auth::token::Claims;
use crate::domain::document::{Draft, Origin};
use crate::store::Precondition;
use crate::store::gate::Gate;

struct World {
    gate: Arc<Gate>,
    rbac: Arc<Rbac>,
    _folder: tempfile::TempDir,
    _stop: tokio_util::sync::DropGuard,
}

impl World {
    /// With `ada`, who has the role `reader` by the binding `b`; nothing is loaded yet.
    async fn start() -> Self {
        let (gate, folder) = Gate::open();
        let rbac = Arc::new(Rbac::new(gate.clone(), Rules::default(), Arc::new(Metrics::new("1.0.0"))));
        let stop = CancellationToken::new();
        tokio::spawn(rbac.clone().run(stop.clone()));
        let world = Self { gate, rbac, _folder: folder, _stop: stop.drop_guard() };
        world.write(Kind::User, "ada", "{}").await;
        world.write(Kind::GlobalRole, "reader", r#"{"permissions":[{"actions":["read"],"scopes":["User"]}]}"#).await;
        world.bind("b", "ada").await;
        world
    }

    /// Writes a document; nobody is told.
    async fn write(&self, kind: Kind, name: &str, spec: &str) -> Change {
        let key = Key::global(kind, name);
        let spec = RawValue::from_string(spec.to_owned()).unwrap();
        let draft = Draft { key: key.clone(), tags: Vec::new(), spec, origin: Origin::Api };
        let written = match self.gate.inner.create(draft.clone()).await {
            Err(StoreError::AlreadyExists) => self.gate.inner.update(draft, Precondition::None).await,
            created => created,
        };
        Change { key, revision: written.unwrap().revision, deleted: false }
    }

    async fn bind(&self, name: &str, user: &str) -> Change {
        let spec = format!(r#"{{"role":"reader","subjects":[{{"kind":"User","name":"{user}"}}]}}"#);
        self.write(Kind::GlobalRoleBinding, name, &spec).await
    }

    fn allows(&self, user: &str) -> Result<bool, ApiError> {
        let principal = Principal::new(Arc::new(Claims::native(user)));
        self.rbac.ask(Some(&principal), |graph, who| graph.allows(&who.0, Action::Read, Kind::User, None))
    }

    async fn version(&self, at_least: u64) {
        let mut versions = self.rbac.versions();
        let waited = versions.wait_for(|version| *version >= at_least);
        tokio::time::timeout(Duration::from_secs(30), waited).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn nobody_passes_before_the_changes_are_followed() {
    let world = World::start().await;
    let change = world.bind("b", "ada").await;
    // A write of this process, before anybody follows the changes of others.
    world.rbac.changed(&[change]);
    tokio::task::yield_now().await;
    assert!(matches!(world.allows("ada"), Err(ApiError::Unavailable(_))));
    world.rbac.lost();
    world.rbac.settled().await;
    assert!(world.allows("ada").unwrap());
    assert!(matches!(world.rbac.ask(None, |_, _| true), Err(ApiError::MissingToken)));
}

#[tokio::test]
async fn changes_are_read_one_by_one_and_what_is_known_is_not_read_again() {
    let world = World::start().await;
    world.rbac.lost();
    world.rbac.settled().await;
    let lists = world.gate.lists.load(Ordering::SeqCst);
    world.write(Kind::User, "bob", "{}").await;
    let bob = Change { key: Key::global(Kind::User, "bob"), revision: 1, deleted: false };
    let bound = world.bind("c", "bob").await;
    world.rbac.changed(&[bob, bound.clone()]);
    world.rbac.settled().await;
    assert!(world.allows("bob").unwrap());
    let version = *world.rbac.versions().borrow();
    // The tail brings what was written here; and what does not decide about rights.
    world.rbac.changed(&[bound, Change { key: Key::global(Kind::Project, "p"), revision: 9, deleted: false }]);
    world.rbac.settled().await;
    assert_eq!(*world.rbac.versions().borrow(), version);
    assert_eq!(world.gate.lists.load(Ordering::SeqCst), lists, "nothing was loaded whole");
    world.rbac.lost();
    world.rbac.settled().await;
    assert!(world.gate.lists.load(Ordering::SeqCst) > lists);
}

#[tokio::test]
async fn a_store_that_is_away_keeps_no_right_that_is_known_to_be_gone_and_is_caught_up_with() {
    let world = World::start().await;
    world.write(Kind::User, "bob", "{}").await;
    world.rbac.lost();
    world.rbac.settled().await;
    let version = *world.rbac.versions().borrow();
    let bound = world.bind("c", "bob").await;
    let gone = world.gate.inner.delete(&Key::global(Kind::GlobalRoleBinding, "b")).await.unwrap();
    world.gate.away.store(true, Ordering::SeqCst);
    world.rbac.changed(&[bound]);
    world.rbac.changed(&gone);
    world.version(version + 1).await;
    assert!(!world.allows("ada").unwrap(), "that a binding is gone needs no read");
    assert!(!world.allows("bob").unwrap(), "that one is there does");
    world.gate.away.store(false, Ordering::SeqCst);
    world.version(version + 2).await;
    assert!(world.allows("bob").unwrap() && !world.allows("ada").unwrap());
}
