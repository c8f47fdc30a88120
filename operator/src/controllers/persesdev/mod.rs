//! The controller of `perses.dev/v1alpha2`: dashboards and datasources as resources, synced into the stacks that their
//! `instanceSelector` matches. perses-operator is not needed for that, and is not fought with.
//!
//! ```text
//! watch -> read (pure) -> choose the stacks (pure) -> record -> bring each to its copy (HTTP) -> condition
//! ```
//!
//! Read [`reconcile`] first. The CRDs are not ours: the controller starts when they appear and stops when they vanish.

pub mod condition;
mod context;
pub mod credentials;
pub mod document;
pub mod kind;
mod reconcile;
pub mod select;
pub mod server;
pub mod source;
mod sweep;
mod sync;
mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, select};
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, PartialObjectMeta};
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::context::{Context, WatchedInstance, WatchedStack};
use self::credentials::{Holder, Reference};
use self::kind::{GROUP, Kind, VERSION, instances};
use self::server::{Addresses, Servers};
use self::source::Source;
use self::sweep::Known;
use crate::backoff::Backoff;
use crate::controllers::persesstack::build::labels::MANAGED_BY;
use crate::leader::Chain;
use crate::metrics::Metrics;
use crate::settings::Settings;

/// Resources of one kind that are reconciled at the same time.
const CONCURRENCY: u16 = 4;
/// A burst of events wakes a resource once.
const DEBOUNCE: Duration = Duration::from_millis(200);

/// How often what is looked at, and how long is waited.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How often it is asked which of the CRDs are there.
    pub discovery: Duration,
    /// How often a quiet resource is compared with its copies: that long an edit in the user interface stays.
    pub resync: Duration,
    /// How long a deletion waits for a stack that does not answer. Its copy then goes when the stack is swept.
    pub patience: Duration,
    /// How often a stack is swept, beside when it becomes ready.
    pub sweep: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            discovery: Duration::from_secs(10),
            resync: Duration::from_mins(5),
            patience: Duration::from_mins(10),
            sweep: Duration::from_mins(10),
        }
    }
}

/// What the controller needs.
#[derive(Clone)]
pub struct Sync {
    /// Connection.
    pub client: Client,
    /// Settings of the operator.
    pub settings: Settings,
    /// Counters.
    pub metrics: Metrics,
    /// Name of this process, for events.
    pub identity: String,
    /// Where the servers of stacks answer.
    pub addresses: Addresses,
    /// How often what is looked at.
    pub pace: Pace,
}

/// Runs until `stop` is cancelled, then lets running reconciles end. Dropping the future ends them at once.
pub async fn run(sync: Sync, stop: CancellationToken) {
    let mut found: BTreeSet<String> = BTreeSet::new();
    loop {
        // A discovery that fails says nothing: what runs goes on.
        match stop.run_until_cancelled(served(&sync.client)).await {
            Some(served) => found = served.unwrap_or(found),
            None => return,
        }
        let kinds: Vec<Kind> = Kind::ALL
            .into_iter()
            .filter(|kind| found.contains(kind.plural()))
            .filter(|kind| kind.is_namespaced() || sync.settings.watch_namespace.is_none())
            .collect();
        if !kinds.is_empty() {
            tracing::info!(?kinds, "resources of perses.dev are synced into stacks");
        }
        let term = stop.child_token();
        let changed = async {
            until_other(&sync.client, &found, sync.pace.discovery).await;
            // The reconciles that run end in order before the next set starts.
            term.cancel();
        };
        let has_instances = found.contains(&instances().plural);
        let work = term_of(&sync, &kinds, has_instances, term.clone());
        match select(std::pin::pin!(work), std::pin::pin!(changed)).await {
            futures::future::Either::Left(_) => {}
            futures::future::Either::Right(((), work)) => work.await,
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// The plurals of our group that the API server serves; `None` when it cannot be known now.
async fn served(client: &Client) -> Option<BTreeSet<String>> {
    match client.list_api_group_resources(&format!("{GROUP}/{VERSION}")).await {
        Ok(list) => Some(list.resources.into_iter().map(|resource| resource.name).collect()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Some(BTreeSet::new()),
        Err(error) => {
            tracing::debug!(error = %Chain(&error), "cannot ask for the resources of perses.dev");
            None
        }
    }
}

/// Returns when other kinds are served than `before`.
async fn until_other(client: &Client, before: &BTreeSet<String>, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        if served(client).await.is_some_and(|served| served != *before) {
            return;
        }
    }
}

/// The watches and reconciles of one set of kinds, until `stop` is cancelled.
async fn term_of(sync: &Sync, kinds: &[Kind], has_instances: bool, stop: CancellationToken) {
    if kinds.is_empty() {
        stop.cancelled().await;
        return;
    }
    let (stacks, stack_writer) = reflector::store::<WatchedStack>();
    let instance_writer = has_instances.then(|| reflector::store::Writer::<WatchedInstance>::new(instances()));
    let servers = match Servers::new(sync.client.clone(), sync.addresses.clone()) {
        Ok(servers) => servers,
        Err(error) => {
            tracing::error!(error = %Chain(&error), "cannot build the HTTP client: perses.dev is not synced");
            stop.cancelled().await;
            return;
        }
    };
    let reporter = Reporter { controller: MANAGED_BY.to_owned(), instance: Some(sync.identity.clone()) };
    let (first_lists, listed) = watch::channel(false);
    let context = Arc::new(Context {
        client: sync.client.clone(),
        metrics: sync.metrics.clone(),
        recorder: Recorder::new(sync.client.clone(), reporter),
        servers,
        backoff: Backoff::default(),
        stacks,
        instances: instance_writer.as_ref().map(reflector::store::Writer::as_reader),
        pace: sync.pace,
        listed,
    });
    // Rises when a stack or an instance changes in a way that may change what is synced where.
    let (news, heard) = watch::channel(0_u64);

    let namespace = sync.settings.watch_namespace.as_deref();
    let (metrics, any) = (&context.metrics, watcher::Config::default);
    let stacks = watcher(core_api(&sync.client, namespace), any()).default_backoff();
    let stacks = watched(reflector::reflector(stack_writer, stacks), || context.stacks(), metrics, &news);
    let instances = async {
        if let Some(writer) = instance_writer {
            let instances = watcher(dynamic_api(&sync.client, namespace, &instances()), any()).default_backoff();
            watched(reflector::reflector(writer, instances), || context.instances(), metrics, &news).await;
        }
    };
    let mut known = Vec::new();
    let mut controllers = Vec::new();
    for kind in kinds {
        let controller = controller(sync, *kind, heard.clone(), &stop);
        known.push(Known { kind: *kind, store: controller.store() });
        controllers.push(drive(*kind, controller, context.clone(), stop.clone()));
    }
    let sweeps = sweeps(&context, &known, namespace, heard);
    // What feeds and sweeps never ends by itself; the controllers end when they are told to.
    let background =
        std::pin::pin!(async { tokio::join!(stacks, instances, sweeps, context.tell_when_listed(first_lists)) });
    select(background, std::pin::pin!(join_all(controllers))).await;
}

fn dynamic_api<K>(client: &Client, namespace: Option<&str>, resource: &ApiResource) -> Api<K>
where
    K: kube::Resource<DynamicType = ApiResource, Scope = kube::core::DynamicResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

/// Follows a watch, and tells when what matters here of all that it holds has changed: most changes of a status do not.
async fn watched<K, T: PartialEq>(
    events: impl Stream<Item = Result<watcher::Event<K>, watcher::Error>>,
    matters: impl Fn() -> Vec<T>,
    metrics: &Metrics,
    news: &watch::Sender<u64>,
) {
    let mut before = Vec::new();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        if let Err(error) = event {
            metrics.watch_failed();
            tracing::warn!(error = %Chain(&error), "a watch failed and is started again");
        }
        let now = matters();
        if now != before {
            before = now;
            news.send_modify(|count| *count += 1);
        }
    }
}

/// The controller of one kind: woken by its resources, by what matters of stacks, and by the Secrets and ConfigMaps that
/// hold credentials.
fn controller(
    sync: &Sync,
    kind: Kind,
    heard: watch::Receiver<u64>,
    stop: &CancellationToken,
) -> Controller<DynamicObject> {
    let namespace = sync.settings.watch_namespace.as_deref();
    let resource = kind.resource();
    let api: Api<DynamicObject> = dynamic_api(&sync.client, namespace, &resource);
    let news = stream::unfold(heard, |mut heard| async {
        heard.changed().await.ok()?;
        Some(((), heard))
    });
    let controller = Controller::new_with(api, watcher::Config::default(), resource)
        .with_config(Config::default().debounce(DEBOUNCE).concurrency(CONCURRENCY))
        .reconcile_all_on(news)
        .graceful_shutdown_on(stop.clone().cancelled_owned());
    if kind.secret().is_none() {
        return controller;
    }
    let client = &sync.client;
    let secrets = core_api::<PartialObjectMeta<Secret>>(client, namespace);
    let maps = core_api::<PartialObjectMeta<ConfigMap>>(client, namespace);
    let (store, other) = (controller.store(), controller.store());
    controller
        .watches(secrets, watcher::Config::default(), move |object| {
            mentioning(kind, &store, Holder::Secret, object.namespace(), object.name_any())
        })
        .watches(maps, watcher::Config::default(), move |object| {
            mentioning(kind, &other, Holder::ConfigMap, object.namespace(), object.name_any())
        })
}

/// Of a kind that is known when this is compiled.
fn core_api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The datasources that take values from an object.
fn mentioning(
    kind: Kind,
    store: &Store<DynamicObject>,
    holder: Holder,
    namespace: Option<String>,
    name: String,
) -> Vec<ObjectRef<DynamicObject>> {
    let wanted = Reference { holder, namespace: namespace.unwrap_or_default(), name };
    let resource = kind.resource();
    let mentions = |object: &DynamicObject| {
        let client = Source::read(kind, object).ok().and_then(|source| source.client);
        client.is_some_and(|client| client.mentioned().contains(&wanted))
    };
    let objects = store.state();
    let found = objects.iter().filter(|object| mentions(object));
    found.map(|object| ObjectRef::from_obj_with(&**object, resource.clone())).collect()
}

/// Runs a controller to its end.
async fn drive(kind: Kind, controller: Controller<DynamicObject>, context: Arc<Context>, stop: CancellationToken) {
    let store = controller.store();
    let step = move |object, context| reconcile::reconcile(kind, object, context);
    let error_policy = move |object: Arc<DynamicObject>, error: &reconcile::Error, context: Arc<Context>| {
        let wait = context.backoff.failed((kind, object.namespace(), object.name_any()), rand::random());
        tracing::warn!(kind = kind.name(), namespace = object.namespace(), name = object.name_any(),
                       error = %Chain(error), ?wait, "sync failed");
        Action::requeue(wait)
    };
    let outcomes = controller.run(step, error_policy, context.clone());
    super::follow(outcomes, store, stop, &context.metrics).await;
}

/// Sweeps every stack when it becomes ready, and from time to time.
async fn sweeps(context: &Context, known: &[Known], project: Option<&str>, mut heard: watch::Receiver<u64>) {
    context.ready().await;
    for Known { store, .. } in known {
        // Before the first list every copy would look like an orphan.
        let _ = store.wait_until_ready().await;
    }
    let mut swept: BTreeMap<String, tokio::time::Instant> = BTreeMap::new();
    loop {
        let stacks: Vec<_> = context.stacks().into_iter().filter(|stack| stack.ready).collect();
        swept.retain(|uid, _| stacks.iter().any(|stack| stack.uid == *uid));
        let mut next = context.pace.sweep;
        for stack in &stacks {
            let age = swept.get(&stack.uid).map(tokio::time::Instant::elapsed);
            if age.is_some_and(|age| age < context.pace.sweep) {
                continue;
            }
            match sweep::sweep(context, stack, known, project).await {
                Ok(_) => _ = swept.insert(stack.uid.clone(), tokio::time::Instant::now()),
                Err(fault) => {
                    tracing::debug!(stack = stack.key(), ?fault, "not swept");
                    next =
                        context.servers.of(stack).pause().unwrap_or(context.pace.discovery).max(Duration::from_secs(1));
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(next) => {}
            changed = heard.changed() => if changed.is_err() { return },
        }
    }
}
