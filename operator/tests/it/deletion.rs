//! A stack is deleted in whatever state it is: nothing is left but the data that is retained, no finalizer hangs, and a stack
//! that is made again takes the data up.

use std::collections::BTreeMap;

use e2e::cluster::ControlPlane;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::conditions::is_true;
use serde_json::{Value, json};

use crate::cluster::pgo::{Pgo, cluster};
use crate::cluster::{DEADLINE, Fate, Operator, STACK, Space, World, control_plane, equipped, generated, within};

/// Stacks that are deleted at the same time.
const PARALLEL: usize = 4;
const EARLIER: &str = "example.com/api:1";
const LATER: &str = "example.com/api:2";

/// In which state a stack is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Invalid,
    Infeasible,
    DatabaseNotReady,
    Migrating,
    MigrationFailed,
    SchemaTooNew,
    Rotating,
    Suspended,
    Waking,
    NothingRetained,
    ProviderRefused,
}

/// With a binding outside its namespace, so that it has a finalizer.
fn spec() -> Value {
    json!({"users": 10, "auth": {"kubernetes": {}}, "database": {"type": "Standalone"}, "exposure": {"type": "None"}})
}

/// What plays around the operator.
struct Cast {
    _world: World,
    _pgo: Option<Pgo>,
}

impl State {
    fn plane(self) -> Option<&'static ControlPlane> {
        if self == Self::ProviderRefused { equipped() } else { Some(control_plane()) }
    }

    /// What a stack is made with that works.
    fn spec(self) -> Value {
        let mut spec = spec();
        match self {
            Self::ProviderRefused => spec["database"] = json!({"type": "Crunchy"}),
            Self::NothingRetained => spec["database"]["deletionPolicy"] = json!("Delete"),
            Self::SchemaTooNew => spec["images"] = json!({"apiServer": LATER}),
            _ => {}
        }
        spec
    }

    /// Makes a stack, and brings it there.
    async fn reach(self, space: &Space) -> Cast {
        let world = World::judging(space, move |component, image| match (self, component) {
            (Self::DatabaseNotReady, "database") | (Self::Migrating, "migration") => Fate::Hangs,
            (Self::MigrationFailed, "migration") => Fate::Fails(3),
            (Self::SchemaTooNew, "migration") if image == EARLIER => Fate::Fails(3),
            _ => Fate::Works,
        });
        let pgo = (self == Self::ProviderRefused).then(|| Pgo::start(space));
        let cast = |world| Cast { _world: world, _pgo: pgo };
        match self {
            Self::Invalid => {
                space.create(&json!({"users": 500, "auth": {"kubernetes": {}}})).await;
                space.condition("Stalled", "True", "DatabaseNotChosen").await;
            }
            Self::Infeasible => {
                let quotas: Api<ResourceQuota> = Api::namespaced(space.client.clone(), &space.namespace);
                let quota = json!({"metadata": {"name": "team"}, "spec": {"hard": {"requests.memory": "1Gi"}}});
                quotas.create(&PostParams::default(), &serde_json::from_value(quota).unwrap()).await.unwrap();
                space.create(&self.spec()).await;
                space.condition("Feasible", "False", "QuotaTooSmall").await;
            }
            Self::DatabaseNotReady => {
                space.create(&self.spec()).await;
                let pods: Api<Pod> = Api::namespaced(space.client.clone(), &space.namespace);
                let database = ListParams::default().labels("app.kubernetes.io/component=database");
                within("the database's pod", DEADLINE, async || pods.list(&database).await.unwrap().items.pop()).await;
                space.condition("DatabaseReady", "False", "PodsNotReady").await;
            }
            Self::Migrating => {
                space.create(&self.spec()).await;
                space.condition("DatabaseReady", "False", "Migrating").await;
            }
            Self::MigrationFailed => {
                space.create(&self.spec()).await;
                space.condition("Stalled", "True", "SchemaTooNew").await;
            }
            Self::SchemaTooNew => {
                space.create(&self.spec()).await;
                space.settled().await;
                space.change(&json!({"images": {"apiServer": EARLIER}})).await;
                space.condition("Stalled", "True", "SchemaTooNew").await;
            }
            Self::Rotating => {
                space.create(&self.spec()).await;
                space.settled().await;
                // From now on its Job does not end.
                drop(world);
                let stuck = World::judging(space, |component, _| match component {
                    "migration" => Fate::Hangs,
                    _ => Fate::Works,
                });
                let ask = json!({"persesstack.io/rotate-database": "1", "persesstack.io/rotate-keys": "1"});
                let ask = Patch::Merge(json!({"metadata": {"annotations": ask}}));
                space.stacks().patch(STACK, &PatchParams::default(), &ask).await.unwrap();
                let message = space.condition("CredentialsRotated", "False", "RotationStarted").await;
                assert!(message.contains("database"), "{message}");
                within("its Job", DEADLINE, async || {
                    let jobs = space.api(Kind::Job).list(&ListParams::default()).await.unwrap();
                    (jobs.items.len() >= 2).then_some(())
                })
                .await;
                return cast(stuck);
            }
            Self::Suspended | Self::Waking => {
                space.create(&self.spec()).await;
                space.settled().await;
                space.change(&json!({"suspend": true})).await;
                space.condition("Suspended", "True", "Suspended").await;
                if self == Self::Waking {
                    drop(world);
                    let asleep = World::judging(space, |_, _| Fate::Hangs);
                    space.change(&json!({"suspend": false})).await;
                    space.condition("Suspended", "False", "Waking").await;
                    return cast(asleep);
                }
            }
            Self::NothingRetained => {
                space.create(&self.spec()).await;
                space.settled().await;
            }
            Self::ProviderRefused => {
                space.create(&self.spec()).await;
                space.settled().await;
                space.change(&json!({"database": {"type": "Standalone"}})).await;
                space.condition("Stalled", "True", "DatabaseHoldsData").await;
            }
        }
        cast(world)
    }

    /// What may be left, by kind and name.
    fn retained(self) -> &'static [&'static str] {
        match self {
            Self::Invalid | Self::Infeasible | Self::NothingRetained => &[],
            Self::ProviderRefused => &[
                "PostgresCluster perses-db",
                "Secret perses-admin",
                "Secret perses-keys",
                "Secret perses-pgbouncer-client",
                "Secret perses-redis",
            ],
            _ => &[
                "PersistentVolumeClaim perses-db",
                "Secret perses-admin",
                "Secret perses-db",
                "Secret perses-keys",
                "Secret perses-pgbouncer-client",
                "Secret perses-redis",
            ],
        }
    }
}

/// UIDs of the objects with the stack's labels, by kind and name.
async fn left(space: &Space) -> BTreeMap<String, Value> {
    let ours = |object: &Value| object["metadata"]["labels"]["app.kubernetes.io/instance"] == STACK;
    let objects = space.objects().await.into_iter().filter(ours);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    objects
        .map(|object| {
            let id = format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
            (id, object["metadata"]["uid"].clone())
        })
        .collect()
}

async fn is_deleted_and_made_again(state: State) {
    let Some(plane) = state.plane() else { return };
    let space = Space::on(plane, "leaves").await;
    let operator = Operator::start(&space);
    let cast = state.reach(&space).await;
    let before = generated(&space).await;
    let conditions = space.stacks().get(STACK).await.unwrap().status.unwrap().conditions;
    assert!(is_true(&conditions, "Ready") || state != State::SchemaTooNew, "{conditions:#?}");

    space.delete().await;
    let kept = left(&space).await;
    assert_eq!(kept.keys().collect::<Vec<_>>(), state.retained().iter().collect::<Vec<_>>(), "{state:?}");
    let pods: Api<Pod> = Api::namespaced(space.client.clone(), &space.namespace);
    let stacks = ListParams::default().labels(&format!("app.kubernetes.io/instance={STACK}"));
    within(&format!("{state:?}: the pods to go"), DEADLINE, async || {
        pods.list(&stacks).await.unwrap().items.is_empty().then_some(())
    })
    .await;
    let bindings: Api<ClusterRoleBinding> = Api::all(space.client.clone());
    let ours = ListParams::default().labels(&format!("persesstack.io/namespace={}", space.namespace));
    assert!(bindings.list(&ours).await.unwrap().items.is_empty(), "{state:?}: a binding is left");

    // What was in the way is no longer there.
    drop(cast);
    let _world = World::start(&space);
    let _pgo = (state == State::ProviderRefused).then(|| Pgo::start(&space));
    if state == State::Infeasible {
        let quotas: Api<ResourceQuota> = Api::namespaced(space.client.clone(), &space.namespace);
        quotas.delete("team", &DeleteParams::default()).await.unwrap();
    }
    space.create(&state.spec()).await;
    space.settled().await;
    let again = left(&space).await;
    for (id, uid) in &kept {
        assert_eq!(again.get(id), Some(uid), "{state:?}: {id} was made anew");
    }
    // A rotation goes on where it was: then the values are other ones, and none was lost.
    if state.retained().len() > 1 && state != State::Rotating {
        assert_eq!(generated(&space).await, before, "{state:?}");
    }
    if state == State::ProviderRefused {
        assert!(cluster(&space).await["metadata"]["ownerReferences"].is_null());
    }
    drop(operator);
    space.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_can_be_deleted_in_every_state() {
    let states = [
        State::Invalid,
        State::Infeasible,
        State::DatabaseNotReady,
        State::Migrating,
        State::MigrationFailed,
        State::SchemaTooNew,
        State::Rotating,
        State::Suspended,
        State::Waking,
        State::NothingRetained,
        State::ProviderRefused,
    ];
    let all = futures::stream::iter(states).map(|state| Box::pin(is_deleted_and_made_again(state)));
    all.buffer_unordered(PARALLEL).for_each(async |()| {}).await;
}
