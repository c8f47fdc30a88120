//! What people do with the cache: flush it, ask why an answer comes from where it does, look at its size.

use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Inner, QueryService, now_ms};
use crate::query::explain::{self, Explained, Known, Look};
use crate::query::floors::{Scope, Subject};
use crate::query::flush::Record;
use crate::query::plan::{About, Plan, Uncacheable};
use crate::query::stored::Stored;

/// What a flush dropped in this process; what lies in Redis and in other pods is refused from now on and not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Finished answers.
    pub answers: u64,
    /// Queries whose points were known.
    pub points: u64,
    /// Their bytes, about.
    pub bytes: u64,
    /// Whether all pods that share a Redis know of the flush, or will in a moment; else it holds in this process only, and
    /// in the others when Redis is back, if there is one.
    pub everywhere: bool,
}

impl QueryService {
    /// Drops what is cached of this, here and everywhere.
    pub async fn flush(&self, scopes: Vec<Scope>) -> Dropped {
        let now = now_ms();
        let record = Record::new(scopes, now);
        // In this order: what is kept meanwhile is below the floor.
        self.0.flushes.raise(&record, now);
        let dropped = self.0.sweep(&record.scopes);
        let everywhere = self.0.flushes.tell(record).await;
        // What is asked for in the millisecond of the flush counts as before it.
        while now_ms() == now {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Dropped { everywhere, ..dropped }
    }

    /// Listens to flushes of other pods until the token is cancelled.
    pub async fn follow_flushes(self, stop: CancellationToken) {
        let heard = |record: &Record| {
            let dropped = self.0.sweep(&record.scopes);
            let what = record.scopes.iter().map(Scope::describe).collect::<Vec<_>>().join("; ");
            tracing::info!(
                what,
                answers = dropped.answers,
                points = dropped.points,
                "another server flushed the query cache"
            );
        };
        self.0.flushes.follow(stop, heard).await;
    }

    /// Why an answer to a planned request would come from where it would; nothing is asked of the datasource.
    pub async fn explain(&self, plan: Result<&Plan, Uncacheable>) -> Explained {
        let plan = match plan {
            Ok(plan) => plan,
            Err(reason) => return Explained::uncacheable(reason),
        };
        let inner = &self.0;
        let now = now_ms();
        let l1 = match inner.finished.found(&plan.key) {
            Some(stored) => look(&stored, plan.floor.own, now),
            None => Look::missing("not there"),
        };
        let l2 = match &inner.redis {
            None => Look::missing("no Redis is configured"),
            Some(redis) if !redis.is_available() => Look::missing("Redis is away"),
            Some(redis) => {
                let found = redis.get_bytes(&plan.key.redis_name()).await;
                match found.and_then(|value| Stored::decode(&value, &plan.key.text, now)) {
                    Some(stored) => look(&stored, plan.floor.shared, now),
                    None => Look::missing("not there"),
                }
            }
        };
        let known = plan.points.as_ref().map(|points| Known {
            entry: inner.points.known(&points.key).filter(|entry| entry.is_newer_than(plan.floor.own)),
            fits: inner.points.fits(points, &plan.policy),
        });
        explain::explained(plan, known.as_ref(), l1, l2, now)
    }

    /// Sets the metrics of what is held now.
    pub fn measure(&self) {
        let inner = &self.0;
        inner.metrics.query_cache_held("l1", inner.finished.held());
        inner.metrics.query_cache_held("points", inner.points.held());
    }
}

fn look(stored: &Stored, floor: i64, now: i64) -> Look {
    if stored.stored_at_ms <= floor {
        return Look::missing("flushed");
    }
    match stored.remaining(now) {
        Some(left) => Look::found(stored.age(now), left, stored.body.len()),
        None => Look::missing("its time is over"),
    }
}

impl Inner {
    /// Drops what this process holds of some scopes.
    fn sweep(&self, scopes: &[Scope]) -> Dropped {
        let mut dropped = Dropped::default();
        let fits = |hash: &blake3::Hash, text: &str| {
            let Some(about) = About::read(text) else { return true };
            let names = about.names(|query| self.analyse(query));
            let subject = Subject { source: about.source, names: &names, keys: [Some(hash), None] };
            scopes.iter().any(|scope| scope.fits(&subject))
        };
        let finished = self.finished.sweep(fits);
        (dropped.answers, dropped.bytes) = (finished.entries, finished.bytes);
        for (hash, text, entry) in self.points.each() {
            if fits(&hash, &text) {
                self.points.forget(&hash);
                dropped.points += 1;
                dropped.bytes += u64::try_from(entry.weight()).unwrap_or(0);
            }
        }
        dropped
    }
}
