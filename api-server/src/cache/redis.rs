//! The connection to Redis: bounded in time, repaired in the background, never an error to the caller.
//!
//! While Redis is away every call returns at once; a task tries to connect again, so no request pays for a probe.

mod client;
mod connection;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures::StreamExt;
use redis::RedisError;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::Instrument as _;

pub use self::client::RedisConfigError;
use self::client::Source;
pub(crate) use self::connection::Connection;
use crate::config;
use crate::telemetry::traces;

/// A command that takes longer counts as failed.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(200);
/// Connecting and signing in, in the background.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Commands in a row that take too long until the connection is given up.
const MOST_TIMEOUTS: u32 = 3;
/// How often an idle connection is tried.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Pauses between attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Where writers say that it is worth looking into the changes tail (seed section 4.3).
const HINT_CHANNEL: &str = "dashboard:invalidate";

/// What came of a command.
#[derive(Debug)]
pub enum Outcome<T> {
    /// Redis answered.
    Answer(T),
    /// Redis is known to be away; nothing was sent.
    Away,
    /// Redis did not answer in time, or refused; whether the command was carried out is not known.
    Failed,
}

impl<T> Outcome<T> {
    /// The answer, if there is one.
    pub fn answer(self) -> Option<T> {
        match self {
            Self::Answer(answer) => Some(answer),
            Self::Away | Self::Failed => None,
        }
    }
}

/// A handle on Redis; cheap to clone.
#[derive(Debug, Clone)]
pub struct RedisTier {
    link: Arc<Link>,
}

struct Link {
    address: String,
    source: Source,
    connection: ArcSwapOption<Connection>,
    timeouts: AtomicU32,
    /// Wakes the task that connects.
    lost: Notify,
    /// Somebody wrote.
    hint: Notify,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

impl RedisTier {
    /// Starts the tasks that connect and listen; they end with the last handle. Does not wait for Redis.
    ///
    /// Must be called within a Tokio runtime.
    pub fn new(config: &config::Redis) -> Result<Self, RedisConfigError> {
        let source = Source::new(config)?;
        let link = Arc::new(Link {
            address: source.address(),
            source,
            connection: ArcSwapOption::empty(),
            timeouts: AtomicU32::new(0),
            lost: Notify::new(),
            hint: Notify::new(),
        });
        tokio::spawn(keep_connected(Arc::downgrade(&link)));
        tokio::spawn(listen(Arc::downgrade(&link)));
        Ok(Self { link })
    }

    /// Whether Redis answered lately.
    pub fn is_available(&self) -> bool {
        self.link.connection.load().is_some()
    }

    /// The value of a key; `None` when there is none or Redis is away.
    pub async fn get_bytes(&self, key: &str) -> Option<Bytes> {
        self.get(key).await.answer().flatten()
    }

    /// The values of keys of one slot, in their order; `None` when Redis is away.
    pub async fn get_many(&self, keys: &[String]) -> Option<Vec<Option<Bytes>>> {
        self.run("MGET", async |mut connection| redis::cmd("MGET").arg(keys).query_async(&mut connection).await)
            .await
            .answer()
    }

    /// Sets a key for a time; `false` when Redis did not take it.
    pub async fn set_bytes(&self, key: &str, bytes: &[u8], ttl: Duration) -> bool {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
        self.run("SET", async |mut connection| {
            redis::cmd("SET").arg(key).arg(bytes).arg("PX").arg(millis).query_async::<()>(&mut connection).await
        })
        .await
        .answer()
        .is_some()
    }

    /// The value of a key, telling absence from silence.
    pub(super) async fn get(&self, key: &str) -> Outcome<Option<Bytes>> {
        self.run("GET", async |mut connection| {
            redis::cmd("GET").arg(key).query_async::<Option<Bytes>>(&mut connection).await
        })
        .await
    }

    /// Tells other pods to look into the changes tail now.
    pub(super) async fn publish_hint(&self) {
        self.run("PUBLISH", async |mut connection| {
            redis::cmd("PUBLISH").arg(HINT_CHANNEL).arg("1").query_async::<()>(&mut connection).await
        })
        .await;
    }

    /// Waits until some pod wrote (or this process began to listen again). Only a hint: it may never come.
    pub(super) async fn hinted(&self) {
        self.link.hint.notified().await;
    }

    /// Runs a command within the time allowed; its name is for traces.
    pub(crate) async fn run<T>(
        &self,
        name: &'static str,
        command: impl AsyncFnOnce(Connection) -> Result<T, RedisError>,
    ) -> Outcome<T> {
        let Some(connection) = self.link.connection.load_full() else { return Outcome::Away };
        let span = traces::redis(name);
        let answer = timeout(COMMAND_TIMEOUT, command(Connection::clone(&connection))).instrument(span.clone()).await;
        if !matches!(answer, Ok(Ok(_))) {
            traces::failed(&span);
        }
        match answer {
            Ok(Ok(answer)) => {
                self.link.timeouts.store(0, Ordering::Relaxed);
                Outcome::Answer(answer)
            }
            Ok(Err(error)) => {
                if connection.is_lost(&error) {
                    self.link.give_up(&connection, &error.to_string());
                } else {
                    tracing::debug!(%error, "Redis refused a command");
                }
                Outcome::Failed
            }
            Err(_) => {
                if self.link.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_TIMEOUTS {
                    self.link.give_up(&connection, "it does not answer in time");
                }
                Outcome::Failed
            }
        }
    }
}

impl Link {
    fn give_up(&self, connection: &Arc<Connection>, reason: &str) {
        let before = self.connection.compare_and_swap(connection, None);
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, connection)) {
            tracing::warn!(address = %self.address, %reason, "Redis is away: documents and answers come from their sources");
            self.lost.notify_one();
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        let connect = async {
            let mut connection = self.source.connection(CONNECT_TIMEOUT).await?;
            connection.ping().await.map(|()| connection).map_err(|error| error.to_string())
        };
        timeout(CONNECT_TIMEOUT, connect).await.unwrap_or_else(|_| Err("it does not answer in time".to_owned()))
    }
}

/// Connects, tries the connection now and then, connects again when it is lost.
async fn keep_connected(weak: Weak<Link>) {
    let mut pause = BACKOFF.0;
    let mut reported = false;
    loop {
        let Some(link) = weak.upgrade() else { return };
        if let Some(connection) = link.connection.load_full() {
            let mut pinged = Connection::clone(&connection);
            match timeout(PING_INTERVAL, pinged.ping()).await {
                Ok(Ok(())) => link.timeouts.store(0, Ordering::Relaxed),
                Ok(Err(error)) => link.give_up(&connection, &error.to_string()),
                Err(_) => link.give_up(&connection, "it does not answer in time"),
            }
            if link.connection.load().is_some() {
                // A loss between the check and the wait is not missed: `notify_one` leaves a permit.
                let _ = timeout(PING_INTERVAL, link.lost.notified()).await;
            }
            continue;
        }
        match link.connect().await {
            Ok(connection) => {
                link.timeouts.store(0, Ordering::Relaxed);
                link.connection.store(Some(Arc::new(connection)));
                tracing::info!(address = %link.address, "connected to Redis");
                (pause, reported) = (BACKOFF.0, false);
            }
            Err(reason) => {
                if !reported {
                    tracing::warn!(address = %link.address, %reason, "cannot connect to Redis; trying on, doing without it");
                    reported = true;
                }
                drop(link);
                tokio::time::sleep(pause.mul_f64(0.75 + rand::random::<f64>() / 2.0)).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
    }
}

/// Passes hints on. A subscription that was made anew counts as a hint, since some may have been missed.
async fn listen(weak: Weak<Link>) {
    let mut pause = BACKOFF.0;
    loop {
        let Some(link) = weak.upgrade() else { return };
        let beside = link.connection.load_full();
        let client = timeout(CONNECT_TIMEOUT, link.source.client()).await;
        drop(link);
        if let Ok(Ok(client)) = client
            && let Ok(Ok(mut subscription)) = timeout(CONNECT_TIMEOUT, client.get_async_pubsub()).await
            && let Ok(Ok(())) = timeout(CONNECT_TIMEOUT, subscription.subscribe(HINT_CHANNEL)).await
        {
            pause = BACKOFF.0;
            let mut messages = subscription.on_message();
            let mut heard = true;
            loop {
                let Some(link) = weak.upgrade() else { return };
                if heard {
                    link.hint.notify_one();
                }
                // Where the commands go: a machine that is gone does not say so to those who only listen.
                let moved = link.connection.load().as_ref().map(Arc::as_ptr) != beside.as_ref().map(Arc::as_ptr);
                drop(link);
                if moved {
                    break;
                }
                // The time limit is there to notice that the last handle is gone.
                heard = match timeout(PING_INTERVAL, messages.next()).await {
                    Ok(Some(_)) => true,
                    Ok(None) => break,
                    Err(_) => false,
                };
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}
