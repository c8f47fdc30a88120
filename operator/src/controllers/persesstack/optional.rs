//! Watches on the optional kinds: each runs while its API is there, so that APIs come and go without a restart.

use futures::{Stream, StreamExt, stream};
use kube::Resource;
use kube::api::{Api, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;

use super::context::Context;
use super::observed::{Availability, Capabilities};
use super::{Stack, Watch, ours, owners};
use crate::apply::kind::Kind;
use crate::metrics::Metrics;

/// The stacks whose objects of optional kinds have changed.
pub(super) fn events(context: &Context, watch: &Watch) -> impl Stream<Item = ObjectRef<Stack>> + Send + use<> {
    let streams = Kind::OPTIONAL.map(|kind| {
        let api = watch.optional(kind);
        while_present(kind, api, context.capabilities.subscribe(), context.metrics.clone()).boxed()
    });
    stream::select_all(streams)
}

/// Watches one kind whenever its API is there, from when it comes until it is certain that it went.
fn while_present(
    kind: Kind,
    api: Api<PartialObjectMeta<DynamicObject>>,
    known: watch::Receiver<Capabilities>,
    metrics: Metrics,
) -> impl Stream<Item = ObjectRef<Stack>> + Send {
    let runs = stream::unfold(known, move |mut known| {
        let (api, metrics) = (api.clone(), metrics.clone());
        async move {
            known.wait_for(|found| found.of(kind) == Availability::Present).await.ok()?;
            tracing::debug!(kind = kind.name(), "watched");
            let mut until = known.clone();
            let gone = async move {
                let _ = until.wait_for(|found| found.of(kind) == Availability::Absent).await;
                tracing::debug!(kind = kind.name(), "no longer watched");
            };
            let touched = watcher(api, ours()).default_backoff().touched_objects();
            let woken = touched.flat_map(move |object| {
                let stacks = match object {
                    Ok(object) => owners(object.meta()),
                    Err(error) => {
                        metrics.watch_failed();
                        tracing::debug!(kind = kind.name(), %error, "a watch failed and is started again");
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
