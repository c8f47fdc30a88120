//! Waiting for a condition with a deadline, instead of for a time.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// First pause between two looks; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Asks `look` again and again until it answers `Ok(Some(value))`, at most for `deadline`.
///
/// An `Err` means "not yet" as well: its text is part of the error that ends the wait. `what` completes the sentence
/// "waiting for ...".
pub async fn wait_for<T, F, Fut>(what: &str, deadline: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut last = None;
    loop {
        // A look that hangs must not outlive the deadline.
        let left = deadline.saturating_sub(started.elapsed()).max(FIRST_PAUSE);
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = last.or_else(|| Some(anyhow::anyhow!("the last look did not answer"))),
        }
        if started.elapsed() >= deadline {
            let seconds = deadline.as_secs_f32();
            let Some(error) = last else { bail!("waiting for {what}: not so after {seconds} s") };
            return Err(error).with_context(|| format!("waiting for {what}: not so after {seconds} s; last answer"));
        }
        tokio::time::sleep(pause.min(deadline.saturating_sub(started.elapsed()))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// [`wait_for`] with a look that says yes or no.
pub async fn wait_until<F, Fut>(what: &str, deadline: Duration, mut look: F) -> Result<()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool>>,
{
    wait_for(what, deadline, || {
        let answer = look();
        async move { Ok(answer.await?.then_some(())) }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_the_value_as_soon_as_it_is_there() {
        let mut looks = 0;
        let value = wait_for("three looks", Duration::from_secs(60), || {
            looks += 1;
            let found = (looks == 3).then_some(looks);
            async move { Ok(found) }
        })
        .await
        .unwrap();
        assert_eq!(value, 3);
    }

    #[tokio::test]
    async fn ends_with_the_last_error() {
        let error =
            wait_until("a file", Duration::from_millis(50), || async { bail!("no such file") }).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "waiting for a file: not so after 0.05 s; last answer: no such file");
    }

    #[tokio::test]
    async fn a_look_that_hangs_ends_with_the_deadline() {
        let error = wait_until("an answer", Duration::from_millis(50), std::future::pending).await.unwrap_err();
        assert!(format!("{error:#}").contains("did not answer"), "{error:#}");
    }
}
