//! Request bodies that are read whole: within a limit, and so that the sender sees why not.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http_body::Body as _;

use crate::pace::TooSlow;

/// How much of a body over the limit is read and thrown away, so that a client that is still sending sees the answer
/// instead of a broken connection.
const DISCARD: u64 = 64 << 20;
/// How long that may take.
const DISCARD_TIME: Duration = Duration::from_secs(10);

/// Bytes of room that a body gets before anything of it has come.
const FIRST_ROOM: usize = 64 << 10;

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// Larger than so many bytes.
    #[error("the request body is larger than {0} bytes (server.max_body_bytes)")]
    TooLarge(u64),
    /// It did not keep the pace of the server.
    #[error("the request body came too slowly (server.body_timeout)")]
    TooSlow,
    /// It broke off.
    #[error("the request body could not be read to its end")]
    Broken,
}

/// Reads a whole body of at most `limit` bytes.
pub async fn read(body: Body, limit: u64) -> Result<Bytes, Unread> {
    let declared = body.size_hint().exact().unwrap_or(0);
    let mut body = body.into_data_stream();
    if declared > limit {
        discard(&mut body).await;
        return Err(Unread::TooLarge(limit));
    }
    // Only so much room on a mere promise.
    let mut read = BytesMut::with_capacity(usize::try_from(declared).unwrap_or(0).min(FIRST_ROOM));
    while let Some(chunk) = body.next().await {
        let chunk =
            chunk.map_err(|error| if TooSlow::is_cause_of(&error) { Unread::TooSlow } else { Unread::Broken })?;
        if (read.len() + chunk.len()) as u64 > limit {
            drop(read);
            discard(&mut body).await;
            return Err(Unread::TooLarge(limit));
        }
        read.extend_from_slice(&chunk);
    }
    Ok(read.freeze())
}

async fn discard(body: &mut BodyDataStream) {
    let all = async {
        let mut left = DISCARD;
        while let Some(Ok(chunk)) = body.next().await {
            left = left.saturating_sub(chunk.len() as u64);
            if left == 0 {
                break;
            }
        }
    };
    // Whether it was all or too much: the answer is the same.
    let _ = tokio::time::timeout(DISCARD_TIME, all).await;
}
