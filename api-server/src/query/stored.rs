//! A cached answer, its compressed form, and its form in Redis.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::OnceCell;

use crate::negotiate;

/// First byte of the form in Redis; another form gets another number.
const FORM: u8 = 1;
/// Clocks of pods may differ; more than this into the future is not believed.
const MAX_SKEW_MS: i64 = 60_000;

/// An answer as the datasource printed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// [`super::plan::QueryKey::text`]: compared on every hit in Redis.
    pub key: Arc<str>,
    /// When the request to the datasource began, in milliseconds since the epoch.
    pub stored_at_ms: i64,
    /// How long it may be served from then on.
    pub ttl: Duration,
    /// How long the datasource took for it; zero when another pod had it.
    pub took: Duration,
    /// How long it is kept after its time.
    pub grace: Duration,
    /// `Content-Type` of the datasource.
    pub content_type: HeaderValue,
    /// The body, byte for byte.
    pub body: Bytes,
    /// The body compressed, once somebody asked for it.
    pub gzip: Gzip,
}

/// The compressed form of a body; it says nothing that the body does not say.
#[derive(Debug, Clone, Default)]
pub struct Gzip(Arc<OnceCell<Option<Bytes>>>);

impl PartialEq for Gzip {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Gzip {}

impl Stored {
    /// The body compressed: made once, beside the requests, whoever asks first. `None` when that failed.
    pub async fn gzip(&self) -> Option<Bytes> {
        let compress = || async {
            let body = self.body.clone();
            let packed = tokio::task::spawn_blocking(move || negotiate::gzip(&body)).await;
            packed.ok()?.ok().map(Bytes::from)
        };
        self.gzip.0.get_or_init(compress).await.clone()
    }

    /// How old it is.
    pub fn age(&self, now_ms: i64) -> Duration {
        Duration::from_millis(u64::try_from(now_ms.saturating_sub(self.stored_at_ms)).unwrap_or(0))
    }

    /// How long it may still be served; `None` when its time is over.
    pub fn remaining(&self, now_ms: i64) -> Option<Duration> {
        self.ttl.checked_sub(self.age(now_ms)).filter(|left| !left.is_zero())
    }

    /// For how long its time has been over.
    pub fn is_over_for(&self, now_ms: i64) -> Duration {
        self.age(now_ms).saturating_sub(self.ttl)
    }

    /// How long it is still kept.
    pub fn kept(&self, now_ms: i64) -> Duration {
        (self.ttl + self.grace).saturating_sub(self.age(now_ms))
    }

    /// What it takes in memory, about, its compressed form included: JSON shrinks to less than a quarter.
    pub fn weight(&self) -> u32 {
        u32::try_from(self.body.len() + self.body.len() / 4 + self.key.len() + 256).unwrap_or(u32::MAX)
    }

    /// The form in Redis: form, stored-at, life (seconds), lengths of key and content type, these two, the body.
    pub fn encode(&self) -> Option<Bytes> {
        let content_type = self.content_type.as_bytes();
        let mut out = BytesMut::with_capacity(23 + self.key.len() + content_type.len() + self.body.len());
        out.put_u8(FORM);
        out.put_i64(self.stored_at_ms);
        out.put_u64(u64::try_from(self.ttl.as_millis()).ok()?);
        out.put_u32(u32::try_from(self.key.len()).ok()?);
        out.put_u16(u16::try_from(content_type.len()).ok()?);
        out.put_slice(self.key.as_bytes());
        out.put_slice(content_type);
        out.put_slice(&self.body);
        Some(out.freeze())
    }

    /// Reads what [`Self::encode`] wrote, without copying the body. `None` for another form, another key, one whose time is
    /// over, or bytes that are none of ours.
    pub fn decode(value: &Bytes, key: &str, now_ms: i64) -> Option<Self> {
        let (form, rest) = value.split_first()?;
        let (stored_at_ms, rest) = rest.split_first_chunk::<8>()?;
        let (ttl, rest) = rest.split_first_chunk::<8>()?;
        let (key_length, rest) = rest.split_first_chunk::<4>()?;
        let (type_length, rest) = rest.split_first_chunk::<2>()?;
        let (found, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*key_length)).ok()?)?;
        let (content_type, body) = rest.split_at_checked(usize::from(u16::from_be_bytes(*type_length)))?;
        let stored = Self {
            key: Arc::from(key),
            stored_at_ms: i64::from_be_bytes(*stored_at_ms),
            ttl: Duration::from_millis(u64::from_be_bytes(*ttl)),
            took: Duration::ZERO,
            grace: Duration::ZERO,
            content_type: HeaderValue::from_bytes(content_type).ok()?,
            body: value.slice_ref(body),
            gzip: Gzip::default(),
        };
        let usable = *form == FORM
            && found == key.as_bytes()
            && stored.stored_at_ms <= now_ms.saturating_add(MAX_SKEW_MS)
            && stored.remaining(now_ms).is_some();
        usable.then_some(stored)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored(key: &str, body: Vec<u8>) -> Stored {
        Stored {
            key: key.into(),
            stored_at_ms: 1_000_000,
            ttl: Duration::from_secs(30),
            took: Duration::ZERO,
            grace: Duration::ZERO,
            content_type: HeaderValue::from_static("application/json"),
            body: body.into(),
            gzip: Gzip::default(),
        }
    }

    #[test]
    fn only_its_own_key_and_time_count() {
        let value = stored("key", b"body".to_vec()).encode().unwrap();
        assert_eq!(Stored::decode(&value, "key", 1_000_000).unwrap().body, "body");
        assert_eq!(Stored::decode(&value, "yek", 1_000_000), None, "a collision of digests");
        assert!(Stored::decode(&value, "key", 1_029_999).is_some());
        assert_eq!(Stored::decode(&value, "key", 1_030_000), None, "its time is over");
        assert!(Stored::decode(&value, "key", 1_000_000 - MAX_SKEW_MS).is_some());
        assert_eq!(Stored::decode(&value, "key", 999_999 - MAX_SKEW_MS), None, "written in the future");
    }

    proptest! {
        #[test]
        fn survives_redis(key in ".{0,40}", body in prop::collection::vec(any::<u8>(), 0..200)) {
            let stored = stored(&key, body);
            prop_assert_eq!(Stored::decode(&stored.encode().unwrap(), &key, 1_000_000), Some(stored));
        }

        #[test]
        fn never_panics_on_foreign_bytes(value in prop::collection::vec(any::<u8>(), 0..64), cut in 0..40_usize) {
            let _ = Stored::decode(&Bytes::from(value), "key", 0);
            let whole = stored("key", b"body".to_vec()).encode().unwrap();
            prop_assert_eq!(Stored::decode(&whole.slice(..cut.min(whole.len() - 5)), "key", 1_000_000), None);
        }
    }
}
