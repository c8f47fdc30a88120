//! Dashboards and datasources as resources, against a real control plane with the real CRDs and real servers as the stacks.
//!
//! Only this controller runs: a stack is an object that says `Ready`, with the Secret of its administrator, and a process.

mod credentials;
mod deletion;
mod lifecycle;
mod syncing;
mod tls;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use e2e::crds;
use e2e::perses::Perses;
use e2e::services::ApiServer;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use persesstack_operator::api::v1alpha1::PersesStack;
use persesstack_operator::client::{ClientOptions, build};
use persesstack_operator::controllers::persesdev::kind::{self, GROUP, Kind};
use persesstack_operator::controllers::persesdev::{self, Pace, Sync, condition::SYNCED};
use persesstack_operator::metrics::Metrics;
use persesstack_operator::settings::Settings;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::RwLock;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cluster::{DEADLINE, Space, alone, within};

const PASSWORD: &str = "administrator-of-a-test";
/// A server that nobody runs.
const NOWHERE: &str = "http://127.0.0.1:9";
const PLURALS: [&str; 4] = ["perses", "persesdashboards", "persesdatasources", "persesglobaldatasources"];

/// Tests whose controllers see one namespace run side by side; one that sees the whole cluster runs alone: controllers of two
/// tests would write each other's conditions.
static CLUSTER: RwLock<()> = RwLock::const_new(());

/// Quick, for tests.
const PACE: Pace = Pace {
    discovery: Duration::from_millis(500),
    resync: Duration::from_mins(5),
    patience: Duration::from_mins(10),
    sweep: Duration::from_mins(10),
};

/// A namespace, the CRDs, and what runs for it.
struct Fixture {
    space: Space,
    addresses: Arc<Mutex<HashMap<String, String>>>,
    /// What the controller watches; `None` is everything.
    scope: Option<String>,
    _lock: Box<dyn std::any::Any + Send + std::marker::Sync>,
}

impl Fixture {
    /// For controllers that see one namespace. `None` where the CRDs are not.
    async fn new(purpose: &str) -> Option<Self> {
        let folder = crds::folder().unwrap()?;
        let lock = CLUSTER.read().await;
        let space = Space::new(purpose).await;
        install(&space, &folder).await;
        Some(Self { scope: Some(space.namespace.clone()), space, addresses: Arc::default(), _lock: Box::new(lock) })
    }

    /// For controllers that see the whole cluster.
    async fn wide(purpose: &str) -> Option<Self> {
        let folder = crds::folder().unwrap()?;
        let lock = CLUSTER.write().await;
        let space = Space::new(purpose).await;
        install(&space, &folder).await;
        Some(Self { scope: None, space, addresses: Arc::default(), _lock: Box::new(lock) })
    }

    /// In a cluster of its own, without the CRDs.
    async fn without_crds(purpose: &str) -> Self {
        let space = Space::on(alone(), purpose).await;
        Self { scope: None, space, addresses: Arc::default(), _lock: Box::new(()) }
    }

    /// A stack with these labels beside `test: <namespace>`, and its server.
    async fn stack(&self, name: &str) -> ApiServer {
        let server = ApiServer::start("admin", PASSWORD, &json!({})).await.unwrap();
        self.stack_at(name, &server.url()).await;
        server
    }

    /// A stack whose server answers at this address.
    async fn stack_at(&self, name: &str, address: &str) {
        self.stack_with(name, address, &json!({"users": 5})).await;
    }

    async fn stack_with(&self, name: &str, address: &str, spec: &Value) {
        let namespace = &self.space.namespace;
        self.addresses.lock().insert(format!("{namespace}/{name}"), address.to_owned());
        let secret = json!({"metadata": {"name": format!("{name}-admin")},
                            "stringData": {"username": "admin", "password": PASSWORD}});
        self.secrets().create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
        let stack = json!({"metadata": {"name": name, "labels": {"test": namespace, "stack": name}}, "spec": spec});
        let stack: PersesStack = serde_json::from_value(stack).unwrap();
        self.space.stacks().create(&PostParams::default(), &stack).await.unwrap();
        self.ready(name, true).await;
    }

    /// Says whether the pods of a stack answer.
    async fn ready(&self, name: &str, ready: bool) {
        let condition = json!({"type": "Ready", "status": if ready { "True" } else { "False" }, "reason": "Test", "message": "",
                               "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = Patch::Merge(json!({"status": {"conditions": [condition]}}));
        self.space.stacks().patch_status(name, &PatchParams::default(), &status).await.unwrap();
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.space.client.clone(), &self.space.namespace)
    }

    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        if kind.is_namespaced() {
            Api::namespaced_with(self.space.client.clone(), &self.space.namespace, &kind.resource())
        } else {
            Api::all_with(self.space.client.clone(), &kind.resource())
        }
    }

    fn instances(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.space.client.clone(), &self.space.namespace, &kind::instances())
    }

    /// Creates a resource that selects the stacks of this test, or those with more labels.
    async fn create(&self, kind: Kind, name: &str, config: &Value, labels: &Value) {
        let value = json!({"metadata": {"name": name},
                           "spec": {"config": config, "instanceSelector": self.selector(labels)}});
        self.create_whole(kind, value).await;
    }

    /// The selector of this test's stacks with these labels too.
    fn selector(&self, labels: &Value) -> Value {
        let mut all = json!({"test": self.space.namespace});
        for (key, value) in labels.as_object().into_iter().flatten() {
            all[key] = value.clone();
        }
        json!({"matchLabels": all})
    }

    async fn create_whole(&self, kind: Kind, value: Value) {
        let mut value = value;
        let resource = kind.resource();
        (value["apiVersion"], value["kind"]) = (json!(resource.api_version), json!(resource.kind));
        let object: DynamicObject = serde_json::from_value(value).unwrap();
        self.api(kind).create(&PostParams::default(), &object).await.unwrap();
    }

    async fn merge(&self, kind: Kind, name: &str, patch: Value) {
        self.api(kind).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    async fn delete(&self, kind: Kind, name: &str) {
        self.api(kind).delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until the resource is gone.
    async fn gone(&self, kind: Kind, name: &str) {
        within(&format!("{name} to go"), DEADLINE, async || {
            self.api(kind).get_opt(name).await.unwrap().is_none().then_some(())
        })
        .await;
    }

    /// Our condition on a resource.
    async fn condition(&self, kind: Kind, name: &str) -> Option<Value> {
        let object = self.api(kind).get_opt(name).await.unwrap()?;
        let conditions = object.data["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|condition| condition["type"] == SYNCED)
    }

    /// Waits for a reason that was given for the newest generation, and gives the message.
    async fn says(&self, kind: Kind, name: &str, reason: &str) -> String {
        let last = Mutex::new(Value::Null);
        let what = format!("{name}: {reason}");
        let wait = within(&what, DEADLINE, async || {
            let object = self.api(kind).get_opt(name).await.unwrap()?;
            let condition = self.condition(kind, name).await.unwrap_or_default();
            *last.lock() = condition.clone();
            let current = condition["observedGeneration"].as_i64() == object.metadata.generation;
            (condition["reason"] == reason && current).then(|| condition["message"].as_str().unwrap().to_owned())
        });
        tokio::select! {
            message = wait => message,
            () = tokio::time::sleep(DEADLINE.mul_f64(0.95)) => panic!("{name}: waited for {reason}, found {last:#?}"),
        }
    }

    /// Starts the controller, with empty memories.
    fn run(&self) -> Running {
        self.run_with(PACE, self.space.plane.config())
    }

    fn run_with(&self, pace: Pace, config: kube::Config) -> Running {
        let agent = format!("sync-of-{}", self.space.namespace);
        let options = ClientOptions { user_agent: agent.clone(), ..ClientOptions::default() };
        let known = self.addresses.clone();
        let (metrics, stop) = (Metrics::new(), CancellationToken::new());
        let sync = Sync {
            client: build(config, &options).unwrap(),
            settings: Settings {
                watch_namespace: self.scope.clone(),
                namespace: self.space.namespace.clone(),
                ..Settings::default()
            },
            metrics: metrics.clone(),
            identity: "test".to_owned(),
            addresses: Arc::new(move |stack| {
                known.lock().get(&stack.key()).cloned().unwrap_or_else(|| NOWHERE.to_owned())
            }),
            pace,
        };
        let task = tokio::spawn(persesdev::run(sync, stop.clone()));
        Running { metrics, agent, stop, task }
    }
}

/// A running controller; dropping it is a crash.
struct Running {
    metrics: Metrics,
    agent: String,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Ends it as SIGTERM does.
    async fn stop(mut self) {
        self.stop.cancel();
        tokio::time::timeout(DEADLINE, &mut self.task).await.expect("it ends when it is told to").unwrap();
    }

    /// Write requests to servers of stacks so far.
    fn writes(&self) -> Vec<String> {
        let text = self.metrics.text();
        text.lines().filter(|line| line.starts_with("persesstack_synced_writes_total")).map(str::to_owned).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn install(space: &Space, folder: &Path) {
    for plural in PLURALS {
        crds::install(&space.client, folder, plural, GROUP).await.unwrap();
    }
}

fn dashboard() -> Value {
    json!({"display": {"name": "CPU"}, "duration": "1h", "layouts": [], "panels": {
        "cpu": {"kind": "Panel", "spec": {"display": {"name": "CPU"},
            "plugin": {"kind": "TimeSeriesChart", "spec": {}},
            "queries": [{"kind": "TimeSeriesQuery", "spec": {"plugin": {
                "kind": "PrometheusTimeSeriesQuery", "spec": {"query": "rate(process_cpu_seconds_total[5m])"}}}}]}}}})
}

/// A datasource whose requests go to `url`, with this secret.
fn datasource(url: &str, secret: Option<&str>) -> Value {
    let mut proxy = json!({"kind": "HTTPProxy", "spec": {"url": url}});
    if let Some(secret) = secret {
        proxy["spec"]["secret"] = json!(secret);
    }
    json!({"default": false, "plugin": {"kind": "PrometheusDatasource", "spec": {"proxy": proxy}}})
}

/// A stored document; `None` when there is none.
async fn stored(server: &Perses, path: &str) -> Option<Value> {
    let answer = server.get(path).await.unwrap();
    // Perses answers 400 when the project does not exist.
    let absent = [StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST].contains(&answer.status);
    (!absent).then(|| answer.ok().unwrap().json().unwrap())
}

/// Waits until a document is stored, or is not.
async fn becomes(server: &Perses, path: &str, there: bool) {
    within(&format!("{path} there: {there}"), DEADLINE, async || {
        (stored(server, path).await.is_some() == there).then_some(())
    })
    .await;
}

fn version(document: Option<Value>) -> u64 {
    document.unwrap()["metadata"]["version"].as_u64().unwrap()
}
