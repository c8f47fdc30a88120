//! A body that has to keep coming: who sends a byte now and then holds a connection (and what waits behind it) for ever.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

type BoxError = Box<dyn Error + Send + Sync>;

/// The body did not keep the pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body came too slowly: less than {bytes} bytes within {seconds} s")]
pub struct TooSlow {
    /// How many bytes were due.
    bytes: u64,
    /// Within how many seconds.
    seconds: u64,
}

impl TooSlow {
    /// Whether an error of a body, or one of its causes, is this one.
    pub fn is_cause_of(error: &(dyn Error + 'static)) -> bool {
        let mut next = Some(error);
        while let Some(error) = next {
            if error.is::<Self>() {
                return true;
            }
            next = error.source();
        }
        false
    }
}

/// What is due: so many bytes in every span of waiting. Only the time counts in which the body was waited for: a reader that
/// takes its time slows nobody down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The span.
    pub within: Duration,
    /// Bytes that must come in it; the end of the body is as good.
    pub bytes: u64,
}

/// A body with a pace.
#[derive(Debug)]
pub struct Paced<B> {
    body: B,
    pace: Pace,
    /// Bytes that came in the current span.
    came: u64,
    /// What is left of the current span.
    left: Duration,
    /// Since when the body is waited for, and the alarm at the end of the span.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl<B> Paced<B> {
    /// Gives a body a pace.
    pub fn new(body: B, pace: Pace) -> Self {
        Self { body, pace, came: 0, left: pace.within, waiting: None }
    }

    fn received(&mut self, bytes: u64) {
        if let Some((since, _)) = self.waiting.take() {
            self.left = self.left.saturating_sub(since.elapsed());
        }
        self.came += bytes;
        if self.came >= self.pace.bytes {
            (self.came, self.left) = (0, self.pace.within);
        }
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            let bytes = match &frame {
                Some(Ok(frame)) => frame.data_ref().map_or(0, Buf::remaining),
                _ => 0,
            };
            this.received(bytes as u64);
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let left = this.left;
        let (_, alarm) = this.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(sleep_until(now + left)))
        });
        ready!(alarm.as_mut().poll(cx));
        Poll::Ready(Some(Err(TooSlow { bytes: this.pace.bytes, seconds: this.pace.within.as_secs() }.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::StreamExt as _;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    /// Pieces of `size` bytes, one every `every`.
    fn pieces(count: usize, size: usize, every: Duration) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let stream = futures::stream::iter(0..count).then(move |_| async move {
            tokio::time::sleep(every).await;
            Ok(Frame::data(Bytes::from(vec![b'x'; size])))
        });
        StreamBody::new(Box::pin(stream))
    }

    const fn pace(within: u64, bytes: u64) -> Pace {
        Pace { within: Duration::from_millis(within), bytes }
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[tokio::test]
    async fn who_sends_a_byte_now_and_then_is_cut() {
        let started = Instant::now();
        let error = Paced::new(pieces(1000, 1, ms(10)), pace(300, 100)).collect().await.unwrap_err();
        assert!(TooSlow::is_cause_of(&*error), "{error}");
        assert!(started.elapsed() >= ms(300), "{:?}", started.elapsed());
        let stalled = Paced::new(pieces(1, 10, Duration::from_mins(10)), pace(100, 1));
        assert!(TooSlow::is_cause_of(&*stalled.collect().await.unwrap_err()));
    }

    #[tokio::test]
    async fn who_keeps_the_pace_may_take_long() {
        let started = Instant::now();
        let body = Paced::new(pieces(50, 50, ms(50)), pace(2000, 100)).collect().await.unwrap();
        assert_eq!(body.to_bytes().len(), 2500);
        assert!(started.elapsed() > ms(2000), "longer than one span");
        // What is short ends before anything is due.
        let body = Paced::new(pieces(1, 1, ms(1)), pace(60_000, 100)).collect().await.unwrap();
        assert_eq!(body.to_bytes().len(), 1);
    }

    #[tokio::test]
    async fn a_reader_that_takes_its_time_costs_the_sender_nothing() {
        let mut body = Paced::new(pieces(4, 1, ms(1)), pace(1000, 100));
        for _ in 0..4 {
            assert!(body.frame().await.unwrap().is_ok());
            tokio::time::sleep(ms(400)).await;
        }
        assert!(body.frame().await.is_none());
    }
}
