//! `cache flush`: tells all pods through Redis what cached answers are of no use any more.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::redis::RedisTier;
use crate::config::Config;
use crate::domain::document::Key;
use crate::error::ApiError;
use crate::query;
use crate::query::floors::Scope;
use crate::service::flush::Flush;
use crate::state;

/// How long Redis is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// Writes the flush; says in words what was flushed.
///
/// # Errors
/// There is no Redis, it cannot be reached, or what is to be flushed makes no sense; in words.
pub async fn flush(config: &Config, flush: &Flush) -> Result<String, String> {
    let redis = config.cache.redis.as_ref();
    let redis = redis.ok_or("cache flush needs cache.redis in the configuration: without Redis each server has answers of its own, and POST /api/v1/cache/flush drops those of one")?;
    let case_sensitive = state::case_sensitive(config);
    let fold = |name: &str| if case_sensitive { name.to_owned() } else { name.to_lowercase() };
    let read = async |key: Key| state::open_store(config)?.get(&key).await;
    let words =
        |error: ApiError| error.detail().map_or_else(|| error.to_string(), |detail| format!("{error}: {detail}"));
    let scopes = flush.scopes(read, fold).await.map_err(words)?;
    let redis = Arc::new(RedisTier::new(redis).map_err(|error| error.to_string())?);
    let connected = async {
        while !redis.is_available() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, connected).await.map_err(|_| "Redis cannot be reached".to_owned())?;
    if !query::tell_flush(redis, scopes.clone()).await {
        return Err("Redis did not take it; try again".to_owned());
    }
    let what: Vec<_> = scopes.iter().map(Scope::describe).collect();
    Ok(format!("flushed: {}; servers follow within a second", what.join("; ")))
}
