//! Answers of the cluster in Redis, for all pods (seed section 4.1: `authz:user:{id}:{ns}`). Redis away costs a review and
//! nothing else.
//!
//! One hash for a user and a namespace, one field for a question. A value says when the review was made, by the clock of the
//! pod that asked, so an answer never lives longer for passing through Redis.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use jiff::Timestamp;
use redis::Script;

use super::question::Question;
use crate::cache::redis::RedisTier;

/// The first part is the version of the format: another format gets other keys.
const PREFIX: &str = "v1:authz:user:";

/// Puts a field into a hash, whose life begins with its first field.
static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
          if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
          return 1",
    )
});

/// An answer of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) allowed: bool,
    pub(super) at: Timestamp,
}

impl Answer {
    fn to_text(self) -> String {
        format!("{}{}", u8::from(self.allowed), self.at.as_millisecond())
    }

    fn from_text(text: &str) -> Option<Self> {
        let (allowed, at) = text.split_at_checked(1)?;
        let allowed = match allowed {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        Some(Self { allowed, at: Timestamp::from_millisecond(at.parse().ok()?).ok()? })
    }

    /// What is left of a life that began with the review; nothing for one of the future, whose clock is not ours.
    pub(super) fn left_of(self, life: Duration, now: Timestamp) -> Duration {
        match Duration::try_from(now.duration_since(self.at)) {
            Ok(age) => life.saturating_sub(age),
            Err(_) => Duration::ZERO,
        }
    }
}

/// The family of keys.
#[derive(Debug)]
pub(super) struct SharedAnswers {
    redis: Arc<RedisTier>,
    life: Duration,
}

impl SharedAnswers {
    pub(super) const fn new(redis: Arc<RedisTier>, life: Duration) -> Self {
        Self { redis, life }
    }

    /// What some pod heard lately. `user` is all that an answer depends on.
    pub(super) async fn get(&self, user: &[u8; 32], question: &Question) -> Option<Answer> {
        let (key, field) = (key(user, question), question.field());
        let found = self.redis.run("HGET", async |mut connection| {
            redis::cmd("HGET").arg(&key).arg(&field).query_async::<Option<String>>(&mut connection).await
        });
        Answer::from_text(&found.await.answer()??)
    }

    /// For the other pods.
    pub(super) async fn put(&self, user: &[u8; 32], question: &Question, answer: Answer) {
        let life = u64::try_from(self.life.as_millis()).unwrap_or(u64::MAX);
        if life == 0 {
            return;
        }
        let mut call = PUT.key(key(user, question));
        call.arg(question.field()).arg(answer.to_text()).arg(life);
        self.redis.run("EVALSHA", async |mut connection| call.invoke_async::<()>(&mut connection).await).await;
    }
}

fn key(user: &[u8; 32], question: &Question) -> String {
    format!("{PREFIX}{}:{}", blake3::Hash::from_bytes(*user).to_hex(), question.namespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn an_answer_comes_back_and_noise_is_none() {
        for answer in [Answer { allowed: true, at: at(1_700_000_000_123) }, Answer { allowed: false, at: at(0) }] {
            assert_eq!(Answer::from_text(&answer.to_text()), Some(answer));
        }
        for noise in ["", "1", "2123", "true", "1x", "é1"] {
            assert_eq!(Answer::from_text(noise), None, "{noise}");
        }
    }

    #[test]
    fn the_way_through_redis_adds_nothing_to_a_life() {
        let (answer, life) = (Answer { allowed: true, at: at(10_000) }, Duration::from_secs(30));
        assert_eq!(answer.left_of(life, at(10_000)), life);
        assert_eq!(answer.left_of(life, at(25_000)), Duration::from_secs(15));
        assert_eq!(answer.left_of(life, at(50_000)), Duration::ZERO);
        assert_eq!(answer.left_of(life, at(9_000)), Duration::ZERO, "the other clock is ahead");
    }
}
