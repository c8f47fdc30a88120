//! One module per reconciled kind, and how the controller of any kind ends.

pub mod persesdev;
pub mod persesstack;

use std::hash::Hash;

use futures::future::select;
use futures::{FutureExt, Stream, StreamExt};
use kube::Resource;
use kube::runtime::controller::{Action, Error};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher;
use tokio_util::sync::CancellationToken;

use crate::leader::Chain;
use crate::metrics::Metrics;

/// What a controller gives for each reconcile.
type Outcome<K, E> = Result<(ObjectRef<K>, Action), Error<E, watcher::Error>>;

/// Follows a controller, which `stop` tells to end, until the reconciles that run then have ended. `store` is the
/// controller's.
async fn follow<K, E>(
    outcomes: impl Stream<Item = Outcome<K, E>>,
    store: Store<K>,
    stop: CancellationToken,
    metrics: &Metrics,
) where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
    E: std::error::Error + 'static,
{
    let running = outcomes.for_each(|outcome| {
        match outcome {
            Ok((object, action)) => tracing::debug!(%object, ?action, "reconciled"),
            // Deleted between the event and the reconcile; told by the error policy.
            Err(Error::ObjectNotFound(_) | Error::ReconcilerFailed(..)) => {}
            Err(error) => {
                metrics.watch_failed();
                tracing::warn!(error = %Chain(&error), "a watch failed and is started again");
            }
        }
        std::future::ready(())
    });
    // kube's graceful shutdown waits for the first list, which nobody reads any more: before it nothing runs that could end.
    let early = async {
        stop.cancelled().await;
        // An error: the reader of the list went away before it had come.
        if let Some(Ok(())) = store.wait_until_ready().now_or_never() {
            std::future::pending::<()>().await;
        }
    };
    select(std::pin::pin!(running), std::pin::pin!(early)).await;
}
