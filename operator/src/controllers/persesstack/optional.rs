//! Watches on the optional kinds, and on Gateways: each runs while its API is there, so that APIs come and go without a restart.

use futures::{Stream, StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{Api, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;

use super::context::Context;
use super::observed::{Availability, Capabilities};
use super::{Stack, Watch, frontends, ours, owners};
use crate::apply::kind::Kind;
use crate::metrics::Metrics;

/// The stacks whose objects of optional kinds have changed, and those behind a Gateway that has. `stacks` are all.
pub(super) fn events(
    context: &Context,
    watch: &Watch,
    stacks: Store<Stack>,
) -> impl Stream<Item = ObjectRef<Stack>> + Send + use<> {
    let (capabilities, metrics) = (&context.capabilities, &context.metrics);
    let mut streams = Vec::new();
    for kind in Kind::OPTIONAL {
        let what = Watched { kind: kind.name(), api: watch.optional(&kind.resource()), config: ours() };
        let there = move |found: &Capabilities| found.of(kind);
        streams.push(while_present(what, there, capabilities.subscribe(), metrics.clone(), owners).boxed());
    }
    let api = watch.optional(&frontends::gateway());
    let what = Watched { kind: "Gateway", api, config: watcher::Config::default() };
    let there = |found: &Capabilities| found.gateways;
    let behind = move |gateway: &ObjectMeta| frontends::behind(gateway, &stacks);
    streams.push(while_present(what, there, capabilities.subscribe(), metrics.clone(), behind).boxed());
    stream::select_all(streams)
}

/// What is watched.
#[derive(Clone)]
struct Watched {
    kind: &'static str,
    api: Api<PartialObjectMeta<DynamicObject>>,
    config: watcher::Config,
}

/// Watches objects whenever their API is `there`, from when it comes until it is certain that it went. `wakes`: the stacks
/// that an object concerns.
fn while_present(
    what: Watched,
    there: impl Fn(&Capabilities) -> Availability + Copy + Send + Sync + 'static,
    known: watch::Receiver<Capabilities>,
    metrics: Metrics,
    wakes: impl Fn(&ObjectMeta) -> Vec<ObjectRef<Stack>> + Clone + Send + 'static,
) -> impl Stream<Item = ObjectRef<Stack>> + Send {
    let runs = stream::unfold(known, move |mut known| {
        let (Watched { kind, api, config }, metrics, wakes) = (what.clone(), metrics.clone(), wakes.clone());
        async move {
            known.wait_for(|found| there(found) == Availability::Present).await.ok()?;
            tracing::debug!(kind, "watched");
            let mut until = known.clone();
            let gone = async move {
                let _ = until.wait_for(|found| there(found) == Availability::Absent).await;
                tracing::debug!(kind, "no longer watched");
            };
            let touched = watcher(api, config).default_backoff().touched_objects();
            let woken = touched.flat_map(move |object| {
                let stacks = match object {
                    Ok(object) => wakes(object.meta()),
                    Err(error) => {
                        metrics.watch_failed();
                        tracing::debug!(kind, %error, "a watch failed and is started again");
                        Vec::new()
                    }
                };
                stream::iter(stacks)
            });
            Some((woken.take_until(Box::pin(gone)), known))
        }
    });
    runs.flatten()
}
