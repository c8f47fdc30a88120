//! A real control plane for all tests of this binary, with a namespace for each test.
//!
//! etcd, kube-apiserver and kube-controller-manager are the real ones. No kubelet runs: [`World`] plays it by marking pods
//! as running or succeeded, and the real controllers do the rest.

mod operator;
pub(crate) mod pgo;
pub(crate) mod rights;
mod snapshot;
mod world;

use std::fmt::Debug;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use e2e::cluster::ControlPlane;
use e2e::wait::wait_for;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::IngressClass;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, CustomResourceExt};
use persesstack_operator::api::v1alpha1::PersesStack;
use persesstack_operator::apply::kind::Kind;
use persesstack_operator::conditions::{find, is_true};
use serde_json::{Value, json};

pub(crate) use operator::Operator;
pub(crate) use snapshot::{generated, normalised, versions as snapshot_versions};
pub(crate) use world::{Fate, World};

/// For everything that happens by itself: generous, the machine may compile something.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);
/// A repair is soon. The promise is 5 s; the stories on the node hold the operator to it, where nothing else runs.
pub(crate) const REPAIR: Duration = Duration::from_secs(20);
/// Name of the stack in every test.
pub(crate) const STACK: &str = "perses";

/// The control plane with the CRD. It lives as long as the process; its guard removes it afterwards.
pub(crate) fn control_plane() -> &'static ControlPlane {
    static SHARED: OnceLock<ControlPlane> = OnceLock::new();
    SHARED.get_or_init(|| start(Vec::new()))
}

/// A control plane that has every optional kind too, from the definitions of the other projects; `None`, and said, where
/// those are not on this machine.
pub(crate) fn equipped() -> Option<&'static ControlPlane> {
    static SHARED: OnceLock<ControlPlane> = OnceLock::new();
    e2e::crds::folder().unwrap()?;
    Some(SHARED.get_or_init(|| start(Kind::OPTIONAL.to_vec())))
}

/// A control plane for one test that changes what all tests of a cluster would see.
pub(crate) fn alone() -> &'static ControlPlane {
    Box::leak(Box::new(start(Vec::new())))
}

fn start(kinds: Vec<Kind>) -> ControlPlane {
    // A runtime of its own: those of the tests end with them.
    let started = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let control_plane = runtime.block_on(async {
            let control_plane = ControlPlane::start().await.unwrap();
            let client = control_plane.client().unwrap();
            install_crd(&client).await;
            install_storage_class(&client).await;
            rights::install(&control_plane, &client).await;
            // HTTPRoutes come with Gateways.
            if kinds.contains(&Kind::HttpRoute) {
                let folder = e2e::crds::folder().unwrap().unwrap();
                e2e::crds::install(&client, &folder, "gateways", "gateway.networking.k8s.io").await.unwrap();
            }
            for kind in kinds {
                install_kind(&client, kind).await;
            }
            control_plane
        });
        // Its background tasks go on.
        std::mem::forget(runtime);
        control_plane
    });
    started.join().unwrap()
}

/// Installs the definition of an optional kind.
pub(crate) async fn install_kind(client: &Client, kind: Kind) {
    let (folder, resource) = (e2e::crds::folder().unwrap().unwrap(), kind.resource());
    e2e::crds::install(client, &folder, &resource.plural, &resource.group).await.unwrap();
}

/// Removes the definition of an optional kind, and with it all of its objects.
pub(crate) async fn remove_kind(client: &Client, kind: Kind) {
    let resource = kind.resource();
    e2e::crds::remove(client, &resource.plural, &resource.group).await.unwrap();
}

async fn install_crd(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = PersesStack::crd();
    let name = crd.metadata.name.clone().unwrap();
    crds.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&crd)).await.unwrap();
    let stacks: Api<PersesStack> = Api::all(client.clone());
    wait_for("the CRD to be served", DEADLINE, || async { Ok(stacks.list(&ListParams::default()).await.ok()) })
        .await
        .unwrap();
}

/// Makes an IngressClass, which is of the whole cluster, of a controller that does not exist.
pub(crate) async fn ingress_class(space: &Space, name: &str) {
    let class = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name},
                       "spec": {"controller": "example.com/none"}});
    let classes: Api<IngressClass> = Api::all(space.client.clone());
    classes.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&class)).await.unwrap();
}

/// Without a default class a claim would have no volume to hope for.
async fn install_storage_class(client: &Client) {
    let classes: Api<StorageClass> = Api::all(client.clone());
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "example.com/none", "metadata":
        {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "allowVolumeExpansion": true});
    classes.patch("standard", &PatchParams::apply("test").force(), &Patch::Apply(&class)).await.unwrap();
}

/// A test that fails shows what the operator said; `RUST_LOG` chooses what.
fn logged() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| "persesstack_operator=debug,kube_runtime=info,kube_client=info".into());
    // Only the first of a process is taken.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_test_writer().try_init();
}

/// A namespace of its own for one test.
#[derive(Clone)]
pub(crate) struct Space {
    /// A client that is not the operator's.
    pub(crate) client: Client,
    /// The namespace.
    pub(crate) namespace: String,
    /// The cluster that it is in.
    pub(crate) plane: &'static ControlPlane,
}

impl Space {
    /// Makes a namespace in the cluster that most tests share; it has no optional kind.
    pub(crate) async fn new(purpose: &str) -> Self {
        Self::on(control_plane(), purpose).await
    }

    /// Makes a namespace.
    pub(crate) async fn on(plane: &'static ControlPlane, purpose: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        logged();
        let namespace = format!("{purpose}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let client = plane.client().unwrap();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let object = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        namespaces.create(&PostParams::default(), &object).await.unwrap();
        Self { client, namespace, plane }
    }

    pub(crate) fn stacks(&self) -> Api<PersesStack> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.resource())
    }

    /// Creates a stack with this spec.
    pub(crate) async fn create(&self, spec: &Value) -> PersesStack {
        let stack = serde_json::from_value(json!({"metadata": {"name": STACK}, "spec": spec})).unwrap();
        self.stacks().create(&PostParams::default(), &stack).await.unwrap()
    }

    /// Merges into the spec.
    pub(crate) async fn change(&self, spec: &Value) -> PersesStack {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.stacks().patch(STACK, &PatchParams::default(), &patch).await.unwrap()
    }

    /// Deletes the stack and waits until it and everything that it owns is gone.
    pub(crate) async fn delete(&self) {
        self.stacks().delete(STACK, &DeleteParams::background()).await.unwrap();
        wait_for("the garbage collector", DEADLINE, || async {
            // The cheap question first.
            if self.stacks().get_opt(STACK).await?.is_some() {
                return Ok(None);
            }
            let owned = self.objects().await.into_iter().any(|object| object["metadata"]["ownerReferences"].is_array());
            Ok((!owned).then_some(()))
        })
        .await
        .unwrap();
    }

    /// Deletes the stack without waiting, so that no controller works on it any more. The namespace stays: taking it down
    /// costs the API server more than everything else in a test.
    pub(crate) async fn remove(&self) {
        let _ = self.stacks().delete(STACK, &DeleteParams::background()).await;
    }

    /// Every object of the kinds that the operator makes, but those that every namespace has.
    pub(crate) async fn objects(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for kind in Kind::all() {
            let list = self.api(kind).list(&ListParams::default()).await;
            if kind.is_optional() && matches!(&list, Err(kube::Error::Api(status)) if status.code == 404) {
                continue;
            }
            for object in list.unwrap() {
                let mut value = serde_json::to_value(object).unwrap();
                let name = value["metadata"]["name"].as_str().unwrap_or_default();
                if name == "default" || name == "kube-root-ca.crt" {
                    continue;
                }
                value["kind"] = json!(kind.name());
                all.push(value);
            }
        }
        all
    }

    /// Reads one object; `None` when there is none.
    pub(crate) async fn get(&self, kind: Kind, name: &str) -> Option<Value> {
        self.api(kind).get_opt(name).await.unwrap().map(|object| serde_json::to_value(object).unwrap())
    }

    /// Waits until `check` accepts the stack.
    pub(crate) async fn until(&self, what: &str, check: impl Fn(&PersesStack) -> bool) -> PersesStack {
        let result = wait_for(what, DEADLINE, || async {
            let stack = self.stacks().get(STACK).await?;
            Ok(check(&stack).then_some(stack))
        })
        .await;
        match result {
            Ok(stack) => stack,
            Err(error) => {
                let stack = self.stacks().get_opt(STACK).await.unwrap();
                let conditions = stack.and_then(|stack| stack.status).map(|status| status.conditions);
                panic!("{error:#}\nconditions: {conditions:#?}");
            }
        }
    }

    /// Waits for `Ready=True` and `Reconciling=False` of the newest generation.
    pub(crate) async fn settled(&self) -> PersesStack {
        self.until("the stack to be ready and settled", |stack| {
            let Some(status) = &stack.status else { return false };
            let current = status.observed_generation == stack.metadata.generation;
            let settled = find(&status.conditions, "Reconciling").is_some_and(|found| found.status == "False");
            current && settled && is_true(&status.conditions, "Ready")
        })
        .await
    }

    /// Waits until a condition has this status and reason, and gives its message.
    pub(crate) async fn condition(&self, type_: &str, status: &str, reason: &str) -> String {
        let is = |stack: &PersesStack| {
            let conditions = stack.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            let found = find(conditions, type_)?;
            (found.status == status && found.reason == reason).then(|| found.message.clone())
        };
        let stack = self.until(&format!("{type_}={status} ({reason})"), |stack| is(stack).is_some()).await;
        is(&stack).unwrap()
    }
}

/// Waits at most `deadline` until `check` gives something.
pub(crate) async fn within<T: Debug>(what: &str, deadline: Duration, check: impl AsyncFn() -> Option<T>) -> T {
    wait_for(what, deadline, || async { Ok(check().await) }).await.unwrap()
}
