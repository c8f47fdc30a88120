//! Which optional APIs the cluster has (I/O): asked by discovery, and kept current while the operator runs.
//!
//! Every group version is asked by itself (`/apis/<group>/<version>`), not read from the list of groups: only so does an
//! aggregated API whose server is away (503) differ from one that is not there (404), and an API server that has just
//! started says 503 until it knows all of its APIs.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::api::Api;
use kube::core::{ApiResource, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;

use super::frontends;
use super::observed::{Availability, Capabilities};
use crate::apply::kind::Kind;
use crate::apply::{ApplyError, verb};

/// Group that tells OpenShift from other clusters, and one of its versions.
const OPENSHIFT: (&str, &str) = ("security.openshift.io", "security.openshift.io/v1");

/// Versions of the API through which the autoscaler reads metrics of pods: any will do.
const CUSTOM_METRICS: [&str; 2] = ["custom.metrics.k8s.io/v1beta2", "custom.metrics.k8s.io/v1beta1"];

/// How long discovery of one group version may take.
const ANSWER: Duration = Duration::from_secs(5);

/// The optional APIs as last seen, shared by all reconciles.
#[derive(Debug, Default)]
pub struct CapabilityCache {
    known: watch::Sender<Capabilities>,
    answered: AtomicBool,
    asking: tokio::sync::Mutex<()>,
}

impl CapabilityCache {
    /// A full answer is asked for again after this time.
    pub const TTL: Duration = Duration::from_mins(1);
    /// An answer in which something did not answer is asked for again after this time.
    const UNCERTAIN_TTL: Duration = Duration::from_secs(10);
    /// A definition is served a moment after it was made: after an event the next look comes so soon, then ever later.
    const FIRST_LOOK: Duration = Duration::from_millis(250);

    /// The capabilities as last seen; only the first call asks. So an API that is slow to answer delays no stack.
    ///
    /// # Errors
    /// It cannot be told whether this is OpenShift: nothing may be built, since the user ids of all pods depend on it.
    pub async fn get(&self, client: &Client) -> Result<Capabilities, ApplyError> {
        if !self.answered.load(Ordering::Acquire) {
            let _one = self.asking.lock().await;
            if !self.answered.load(Ordering::Acquire) {
                self.ask(client).await;
            }
        }
        let capabilities = *self.known.borrow();
        if capabilities.openshift == Availability::Unknown {
            let answer = kube::core::Status::failure("discovery does not answer", "ServiceUnavailable").with_code(503);
            let source = kube::Error::Api(answer.boxed());
            return Err(ApplyError::new("APIGroup", OPENSHIFT.0, verb::GET, source));
        }
        Ok(capabilities)
    }

    /// Asks now; whether the answer is another one than before.
    pub async fn refresh(&self, client: &Client) -> bool {
        let before = *self.known.borrow();
        let _one = self.asking.lock().await;
        self.ask(client).await != before
    }

    /// Keeps the answer current until it is dropped: asks again after [`Self::TTL`], and as soon as the definition of an
    /// optional kind comes or goes, where definitions may be watched.
    pub async fn keep(&self, client: &Client) {
        let mut definitions = pin!(definitions(client.clone()).chain(stream::pending()));
        let mut pause = Self::TTL;
        loop {
            if self.refresh(client).await {
                pause = Self::FIRST_LOOK;
            }
            let longest = if certain(*self.known.borrow()) { Self::TTL } else { Self::UNCERTAIN_TTL };
            tokio::select! {
                () = tokio::time::sleep(pause.min(longest)) => pause = (pause * 2).min(Self::TTL),
                Some(()) = definitions.next() => pause = Self::FIRST_LOOK,
            }
        }
    }

    /// Every change from now on.
    pub fn changes(&self) -> impl Stream<Item = ()> + Send + use<> {
        stream::unfold(self.known.subscribe(), async |mut known| {
            known.changed().await.ok()?;
            Some(((), known))
        })
    }

    /// The answers from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<Capabilities> {
        self.known.subscribe()
    }

    async fn ask(&self, client: &Client) -> Capabilities {
        let found = discover(client).await;
        self.known.send_if_modified(|known| {
            let changed = *known != found;
            if changed {
                tracing::info!(?found, "optional APIs");
                *known = found;
            }
            changed
        });
        self.answered.store(true, Ordering::Release);
        found
    }
}

/// Whether everything answered.
fn certain(capabilities: Capabilities) -> bool {
    let known = |availability| availability != Availability::Unknown;
    known(capabilities.openshift)
        && known(capabilities.custom_metrics)
        && known(capabilities.gateways)
        && Kind::OPTIONAL.into_iter().all(|kind| known(capabilities.of(kind)))
}

async fn discover(client: &Client) -> Capabilities {
    let (optional, gateways) = (Kind::OPTIONAL.map(|kind| (kind, kind.resource())), frontends::gateway());
    let mut versions: BTreeSet<&str> = optional.iter().map(|(_, resource)| resource.api_version.as_str()).collect();
    versions.insert(&gateways.api_version);
    versions.insert(OPENSHIFT.1);
    versions.extend(CUSTOM_METRICS);
    let answers = versions.into_iter().map(async |version| {
        // One that hangs is one that does not answer.
        let answer = tokio::time::timeout(ANSWER, client.list_api_group_resources(version)).await;
        Some((version, answer.ok()?))
    });
    let (answers, groups) = tokio::join!(join_all(answers), client.list_api_groups());
    let answers: BTreeMap<&str, kube::Result<APIResourceList>> = answers.into_iter().flatten().collect();

    let mut found = Capabilities::default();
    let there = |resource: &ApiResource| {
        let served = |list: &APIResourceList| list.resources.iter().any(|served| served.name == resource.plural);
        let answer = answers.get(resource.api_version.as_str());
        answer.map_or(Availability::Unknown, |answer| availability(answer, served))
    };
    for (kind, resource) in &optional {
        found.set(*kind, there(resource));
    }
    found.gateways = there(&gateways);
    // A listed group is there, also while its server is away: the platform does not change for that.
    let listed = groups.is_ok_and(|groups| groups.groups.iter().any(|group| group.name == OPENSHIFT.0));
    let answer = answers.get(OPENSHIFT.1);
    found.openshift = match answer.map_or(Availability::Unknown, |answer| availability(answer, |_| true)) {
        _ if listed => Availability::Present,
        answer => answer,
    };
    let metrics = CUSTOM_METRICS
        .map(|version| answers.get(version).map_or(Availability::Unknown, |answer| availability(answer, |_| true)));
    found.custom_metrics = [Availability::Present, Availability::Unknown]
        .into_iter()
        .find(|availability| metrics.contains(availability))
        .unwrap_or(Availability::Absent);
    found
}

/// What an answer of discovery means.
fn availability(answer: &kube::Result<APIResourceList>, served: impl Fn(&APIResourceList) -> bool) -> Availability {
    match answer {
        Ok(list) if served(list) => Availability::Present,
        Ok(_) => Availability::Absent,
        Err(kube::Error::Api(status)) if status.code == 404 => Availability::Absent,
        Err(_) => Availability::Unknown,
    }
}

/// Something happened to the definition of an optional kind, or to that of Gateways.
fn definitions(client: Client) -> impl Stream<Item = ()> {
    let resources = Kind::OPTIONAL.into_iter().map(Kind::resource).chain([frontends::gateway()]);
    let names: Vec<_> = resources.map(|resource| format!("{}.{}", resource.plural, resource.group)).collect();
    cluster_events::<CustomResourceDefinition>(client, move |name| names.iter().any(|ours| ours == name))
}

/// An object of a cluster-wide kind with a name that `concerns` us has come, changed or gone. Ends where the kind may not
/// be watched (an operator of one namespace).
pub(super) fn cluster_events<K>(
    client: Client,
    concerns: impl Fn(&str) -> bool + Send + 'static,
) -> impl Stream<Item = ()> + Send + 'static
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + 'static,
{
    let api: Api<PartialObjectMeta<K>> = Api::all(client);
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let allowed = events.take_while(|event| std::future::ready(!matches!(event, Err(error) if forbidden(error))));
    allowed.filter_map(move |event| {
        let told = match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object)) => concerns(&object.name_any()),
            _ => false,
        };
        std::future::ready(told.then_some(()))
    })
}

fn forbidden(error: &watcher::Error) -> bool {
    let code = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.code,
        _ => 0,
    };
    code == 403
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn only_a_clear_answer_says_that_an_api_is_absent() {
        let list = APIResourceList::default();
        assert_eq!(availability(&Ok(list.clone()), |_| true), Availability::Present);
        assert_eq!(availability(&Ok(list), |_| false), Availability::Absent, "the group without the kind");
        let failed = |code| Err(kube::Error::Api(Status::failure("", "").with_code(code).boxed()));
        assert_eq!(availability(&failed(404), |_| true), Availability::Absent);
        for code in [403, 429, 500, 503] {
            assert_eq!(availability(&failed(code), |_| true), Availability::Unknown, "{code}");
        }
    }

    #[test]
    fn one_api_that_does_not_answer_makes_the_picture_uncertain() {
        let mut capabilities = Capabilities::with(&[Kind::Route]);
        assert!(certain(capabilities));
        capabilities.set(Kind::PodMonitor, Availability::Unknown);
        assert!(!certain(capabilities));
        assert_eq!(capabilities.of(Kind::Route), Availability::Present);
        assert_eq!(capabilities.of(Kind::HttpRoute), Availability::Absent);
        assert_eq!(capabilities.of(Kind::Secret), Availability::Present, "built in");
    }
}
