//! One at a time per key: who comes second finds what the first has brought.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// Turns that are taken or waited for.
#[derive(Debug)]
pub(super) struct Turns<K>(Mutex<HashMap<K, Weak<Turn<()>>>>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash> Turns<K> {
    /// Waits for its turn, first come first served; dropping the guard ends it.
    pub(super) async fn take(&self, key: K) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock();
            if let Some(turn) = turns.get(&key).and_then(Weak::upgrade) {
                turn
            } else {
                // Swept when the table would grow: so it is never more than twice as large as what is in use.
                if turns.len() == turns.capacity() {
                    turns.retain(|_, turn| turn.strong_count() > 0);
                }
                let turn = Arc::new(Turn::new(()));
                turns.insert(key, Arc::downgrade(&turn));
                turn
            }
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_wait_for_themselves_only() {
        let turns = Turns::default();
        let first = turns.take(1).await;
        let other = turns.take(2).await;
        assert!(futures::poll!(std::pin::pin!(turns.take(1))).is_pending());
        drop((first, other));
        drop(turns.take(1).await);
        for key in 0..1_000 {
            drop(turns.take(key).await);
        }
        assert!(turns.0.lock().len() < 20, "what nobody uses is forgotten");
    }
}
