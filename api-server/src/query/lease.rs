//! One piece of work for all pods: who holds the lease does it, the others wait for what it publishes.
//!
//! ```text
//! claim -> held: work, publish, say so        (the process died: the lease runs out, somebody else claims it)
//!       -> somebody holds it: look again and again -> published: found
//!                                                  -> given up: claim again, or work alone
//! ```
//!
//! Invariants: best effort: without Redis, or when it is slow, everybody works alone at once; nobody waits for longer than its
//! patience; a lease is never ended by one who does not hold it any more; a holder that drops its lease frees it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::Script;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use crate::cache::redis::{Outcome, RedisTier};

/// How long a holder may be silent; after that it counts as dead.
const LIFE: Duration = Duration::from_secs(2);
/// How often it says that it is alive.
const RENEWAL: Duration = Duration::from_millis(500);
/// For how long the end of the work is told to those who wait.
const TOLD: Duration = Duration::from_secs(1);
/// A claim that Redis does not answer is made this often.
const ATTEMPTS: usize = 2;
/// Pauses between looks, the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(40));

/// The work is done, and there is something to be found.
const PUBLISHED: &str = "published";
/// The work is done, and there is nothing that could be shared.
const NOTHING: &str = "nothing";

/// Takes the lease if it is free; who has it then.
static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local held = redis.call('GET', KEYS[1]) \
         if held then return held end \
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
         return ARGV[1]",
    )
});

/// Only for the holder: lives on.
static RENEW: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
         return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
    )
});

/// Only for the holder: says how it ended, or frees the lease.
static END: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
         if ARGV[2] == '' then return redis.call('DEL', KEYS[1]) end \
         redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) \
         return 1",
    )
});

/// What came of a claim.
#[derive(Debug)]
pub enum Claim<T> {
    /// The work is the caller's; it says how it ended.
    Held(Lease),
    /// Somebody else did the work.
    Found(T),
    /// The work is the caller's, and nobody hears of it.
    Alone,
}

/// Claims the lease of this name, which is a whole key in Redis, or waits until `look` finds what its holder publishes.
pub async fn claim<T, F>(
    redis: &Arc<RedisTier>,
    name: &str,
    patience: Duration,
    look: impl Fn() -> F + Send,
) -> Claim<T>
where
    F: Future<Output = Option<T>> + Send,
{
    let token = format!("{:032x}", rand::random::<u128>());
    let deadline = Instant::now() + patience;
    let mut pause = PAUSES.0;
    loop {
        let Some(holder) = take(redis, name, &token).await else { return Claim::Alone };
        if holder == token {
            let lease = Lease::new(redis.clone(), name.to_owned(), token);
            // The one before may have published and gone since the caller looked.
            return look().await.map_or(Claim::Held(lease), Claim::Found);
        }
        match holder.as_str() {
            PUBLISHED => return look().await.map_or(Claim::Alone, Claim::Found),
            NOTHING => return Claim::Alone,
            _ => {}
        }
        if Instant::now() + pause >= deadline {
            return Claim::Alone;
        }
        sleep(pause.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
        pause = (pause * 3 / 2).min(PAUSES.1);
    }
}

/// Who has the lease then; `None` when Redis does not say so, asked twice.
async fn take(redis: &RedisTier, name: &str, token: &str) -> Option<String> {
    let mut claim = CLAIM.prepare_invoke();
    claim.key(name).arg(token).arg(millis(LIFE));
    for _ in 0..ATTEMPTS {
        match redis.run("EVALSHA", async |mut connection| claim.invoke_async(&mut connection).await).await {
            Outcome::Answer(holder) => return Some(holder),
            Outcome::Away => break,
            // A moment of much work here or there looks the same.
            Outcome::Failed => {}
        }
    }
    None
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A lease that is held. Dropping it frees it: somebody who waits does the work then.
#[derive(Debug)]
pub struct Lease {
    redis: Arc<RedisTier>,
    name: String,
    token: String,
    renewal: AbortHandle,
    is_ended: bool,
}

impl Lease {
    fn new(redis: Arc<RedisTier>, name: String, token: String) -> Self {
        let renewal = tokio::spawn(renew(redis.clone(), name.clone(), token.clone())).abort_handle();
        Self { redis, name, token, renewal, is_ended: false }
    }

    /// What was worked for can be found.
    pub async fn published(self) {
        self.end(PUBLISHED).await;
    }

    /// The work came to nothing that could be shared: who waits works alone.
    pub async fn nothing(self) {
        self.end(NOTHING).await;
    }

    async fn end(mut self, state: &'static str) {
        self.is_ended = true;
        end(&self.redis, &self.name, &self.token, state).await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
        if self.is_ended {
            return;
        }
        // Without a runtime the process ends, and the lease runs out.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (redis, name, token) = (self.redis.clone(), self.name.clone(), self.token.clone());
            runtime.spawn(async move { end(&redis, &name, &token, "").await });
        }
    }
}

async fn end(redis: &RedisTier, name: &str, token: &str, state: &str) {
    let mut script = END.prepare_invoke();
    script.key(name).arg(token).arg(state).arg(millis(TOLD));
    redis.run("EVALSHA", async |mut connection| script.invoke_async::<i64>(&mut connection).await).await;
}

/// Keeps a lease until it is lost.
async fn renew(redis: Arc<RedisTier>, name: String, token: String) {
    loop {
        sleep(RENEWAL).await;
        let mut script = RENEW.prepare_invoke();
        script.key(&name).arg(&token).arg(millis(LIFE));
        let held = redis.run("EVALSHA", async |mut connection| script.invoke_async::<i64>(&mut connection).await).await;
        if held.answer() == Some(0) {
            return;
        }
    }
}
