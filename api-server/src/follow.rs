//! Files that are read again while the server runs.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often files are read. Kubernetes itself takes up to a minute to change a mounted Secret or ConfigMap.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Reads now and regularly until told to stop, and gives each content that differs from the one before to `take`. Contents are
/// compared and not times: Kubernetes swaps whole folders through a symbolic link.
pub(crate) async fn changes<T, R>(read: R, mut take: impl FnMut(&T), stop: CancellationToken)
where
    T: PartialEq + Send + 'static,
    R: Fn() -> T + Clone + Send + 'static,
{
    let mut seen = None;
    loop {
        // Files may be on a network.
        if let Ok(found) = tokio::task::spawn_blocking(read.clone()).await
            && seen.as_ref() != Some(&found)
        {
            take(&found);
            seen = Some(found);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}
