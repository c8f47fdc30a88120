//! So many queries at the same time; a few more wait in a queue, first come first served.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// The gate of one datasource.
#[derive(Debug)]
pub(super) struct Gate {
    places: Arc<Semaphore>,
    waiting: AtomicU32,
}

/// Why a query does not get a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// So many wait already.
    Queue(u32),
    /// No place became free in time.
    Late,
}

impl Gate {
    pub(super) fn new(places: u32) -> Self {
        Self { places: Arc::new(Semaphore::new(places as usize)), waiting: AtomicU32::new(0) }
    }

    /// A place, which is given back when it is dropped.
    pub(super) async fn enter(&self, most_waiting: u32, until: Instant) -> Result<OwnedSemaphorePermit, Full> {
        if let Ok(place) = self.places.clone().try_acquire_owned() {
            return Ok(place);
        }
        let _waiting = Waiting::begin(&self.waiting, most_waiting)?;
        match timeout_at(until, self.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            // It is never closed.
            Ok(Err(_)) | Err(_) => Err(Full::Late),
        }
    }
}

/// A place in the queue.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicU32, most: u32) -> Result<Self, Full> {
        let more = |now: u32| (now < most).then(|| now + 1);
        match waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(_) => Ok(Self(waiting)),
            Err(now) => Err(Full::Queue(now)),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_finds_no_place_waits_in_order() {
        let (gate, late) = (Gate::new(2), Instant::now() + Duration::from_mins(10));
        let (one, other) = (gate.enter(2, late).await.unwrap(), gate.enter(2, late).await.unwrap());
        let (mut third, mut fourth) = (pin!(gate.enter(2, late)), pin!(gate.enter(2, late)));
        assert!(futures::poll!(&mut third).is_pending());
        assert!(futures::poll!(&mut fourth).is_pending());
        assert_eq!(gate.enter(2, late).await.unwrap_err(), Full::Queue(2));
        drop(one);
        assert!(futures::poll!(&mut fourth).is_pending());
        let place = third.await.unwrap();
        drop((place, other));
        drop(fourth.await.unwrap());
        assert_eq!((gate.places.available_permits(), gate.waiting.load(Ordering::Relaxed)), (2, 0));
    }

    #[tokio::test]
    async fn who_leaves_or_is_late_gives_the_place_back() {
        let (gate, late) = (Gate::new(1), Instant::now() + Duration::from_mins(10));
        let place = gate.enter(1, late).await.unwrap();
        assert_eq!(gate.enter(1, Instant::now()).await.unwrap_err(), Full::Late);
        {
            let mut left = pin!(gate.enter(1, late));
            assert!(futures::poll!(&mut left).is_pending());
        }
        let mut next = pin!(gate.enter(1, late));
        assert!(futures::poll!(&mut next).is_pending());
        drop(place);
        drop(next.await.unwrap());
        assert_eq!(gate.waiting.load(Ordering::Relaxed), 0);
    }
}
