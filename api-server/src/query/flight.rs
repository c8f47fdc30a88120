//! Single-flight: concurrent requests for one key wait for one piece of work.
//!
//! Invariants: the work runs in a task of its own, so no waiter's end can break it for the others; when the last waiter has
//! gone the task is aborted (and with it the request to the datasource); a task that panics wakes its waiters; a flight that
//! has landed is not joined any more. Results are shared with those who waited, nobody else: the cache is elsewhere.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::Instrument as _;

/// The work ended without a result (it panicked, or the runtime is stopping).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the shared request ended without a result")]
pub struct Lost;

/// Who a caller is in a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Started the work.
    Leader,
    /// Waits for work that was under way.
    Follower,
}

/// All flights of one kind.
#[derive(Debug)]
pub struct Flights<K: Eq + Hash, V> {
    table: Arc<Mutex<Table<K, V>>>,
}

#[derive(Debug)]
struct Table<K, V> {
    next_id: u64,
    flights: HashMap<K, (u64, Weak<Flight<V>>)>,
}

#[derive(Debug)]
struct Flight<V> {
    result: watch::Receiver<Option<V>>,
    task: AbortHandle,
}

impl<V> Drop for Flight<V> {
    /// Nobody waits any more. (After landing there is nothing left to abort.)
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A place in a flight; dropping it leaves.
#[derive(Debug)]
pub struct Ticket<V> {
    flight: Arc<Flight<V>>,
}

impl<K: Eq + Hash, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self { table: Arc::new(Mutex::new(Table { next_id: 0, flights: HashMap::new() })) }
    }
}

impl<K, V> Flights<K, V>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Joins the flight of a key, or starts one with `work`.
    pub fn join<F>(&self, key: &K, work: impl FnOnce() -> F) -> (Role, Ticket<V>)
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut table = self.table.lock();
        if let Some(flight) = table.flights.get(key).and_then(|(_, flight)| flight.upgrade()) {
            return (Role::Follower, Ticket { flight });
        }
        table.next_id += 1;
        let id = table.next_id;
        let (sender, result) = watch::channel(None);
        let landing = Landing { table: self.table.clone(), key: key.clone(), id };
        // Its spans belong to the request that began it.
        let work = work().in_current_span();
        // The task cannot land before this function has put it into the table: landing takes the lock.
        let task = tokio::spawn(async move {
            // Dropped on every way out, a panic and an abort included.
            let landing = landing;
            let value = work.await;
            drop(landing);
            // Fails only when nobody waits.
            let _ = sender.send(Some(value));
        });
        let flight = Arc::new(Flight { result, task: task.abort_handle() });
        table.flights.insert(key.clone(), (id, Arc::downgrade(&flight)));
        (Role::Leader, Ticket { flight })
    }

    /// Flights under way.
    pub fn len(&self) -> usize {
        self.table.lock().flights.len()
    }

    /// Whether nothing is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Takes the flight out of the table when its work ends.
struct Landing<K: Eq + Hash, V> {
    table: Arc<Mutex<Table<K, V>>>,
    key: K,
    id: u64,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        // A newer flight of the key may have taken the place of one that was left by all.
        if table.flights.get(&self.key).is_some_and(|(id, _)| *id == self.id) {
            table.flights.remove(&self.key);
        }
    }
}

impl<V: Clone> Ticket<V> {
    /// Waits for the result.
    pub async fn wait(self) -> Result<V, Lost> {
        let mut result = self.flight.result.clone();
        let value = result.wait_for(Option::is_some).await.map_err(|_| Lost)?;
        value.clone().ok_or(Lost)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::{Notify, oneshot};

    use super::*;

    type Names = Flights<&'static str, usize>;

    async fn until(condition: impl Fn() -> bool) {
        tokio::time::timeout(Duration::from_secs(10), async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the condition was not met in time");
    }

    #[tokio::test]
    async fn one_piece_of_work_for_all_who_wait() {
        let (flights, runs, go) = (Names::default(), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let mut tickets = Vec::new();
        for at in 0..50 {
            let (runs, go) = (runs.clone(), go.clone());
            let (role, ticket) = flights.join(&"key", || async move {
                go.notified().await;
                runs.fetch_add(1, Ordering::SeqCst)
            });
            assert_eq!(role, if at == 0 { Role::Leader } else { Role::Follower });
            tickets.push(tokio::spawn(ticket.wait()));
        }
        assert_eq!(flights.len(), 1);
        go.notify_one();
        for ticket in tickets {
            assert_eq!(ticket.await.unwrap(), Ok(0));
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert!(flights.is_empty());
        let (role, ticket) = flights.join(&"key", || async { 7 });
        assert_eq!((role, ticket.wait().await), (Role::Leader, Ok(7)), "a flight that landed is not joined");
    }

    #[tokio::test]
    async fn the_leader_may_leave_and_the_last_one_ends_the_work() {
        let flights = Names::default();
        let (started, mut aborted) = oneshot::channel::<()>();
        let (_, leader) = flights.join(&"key", || async move {
            let _held = started;
            std::future::pending().await
        });
        let (_, follower) = flights.join(&"key", || async { 1 });
        let leader = tokio::spawn(leader.wait());
        leader.abort();
        let _ = leader.await;
        assert!(
            aborted.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty),
            "a follower still waits"
        );
        drop(follower);
        assert!(tokio::time::timeout(Duration::from_secs(10), aborted).await.expect("the work goes on").is_err());
        until(|| flights.is_empty()).await;
        let (role, ticket) = flights.join(&"key", || async { 2 });
        assert_eq!((role, ticket.wait().await), (Role::Leader, Ok(2)));
    }

    #[tokio::test]
    async fn a_panic_wakes_all() {
        let (flights, go) = (Names::default(), Arc::new(Notify::new()));
        let gate = go.clone();
        let (_, leader) = flights.join(&"key", || async move {
            gate.notified().await;
            panic!("expected in this test")
        });
        let (_, follower) = flights.join(&"key", || async { 1 });
        let waiting = tokio::spawn(async move { tokio::join!(leader.wait(), follower.wait()) });
        go.notify_one();
        assert_eq!(waiting.await.unwrap(), (Err(Lost), Err(Lost)));
        until(|| flights.is_empty()).await;
    }

    /// Joins, leaves and landings in every order: nobody hangs, and what is left behind is nothing.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn storm() {
        let flights = Arc::new(Names::default());
        let mut tasks = Vec::new();
        for at in 0..2000_usize {
            let flights = flights.clone();
            tasks.push(tokio::spawn(async move {
                let key = ["a", "b", "c"][at % 3];
                let (_, ticket) = flights.join(&key, || async move {
                    for _ in 0..at % 7 {
                        tokio::task::yield_now().await;
                    }
                    at
                });
                if at % 5 == 0 {
                    drop(ticket);
                } else {
                    ticket.wait().await.unwrap();
                }
            }));
        }
        let all = futures::future::try_join_all(tasks);
        tokio::time::timeout(Duration::from_secs(30), all).await.expect("somebody hangs").unwrap();
        until(|| flights.is_empty()).await;
    }
}
