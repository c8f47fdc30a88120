//! Passwords: bcrypt, cost 10, as Perses v0.54. Hashing takes tens of milliseconds of CPU, so it runs beside the request
//! threads, few at a time.

use tokio::sync::Semaphore;

/// Cost of new hashes (Perses v0.54, Go's default).
const COST: u32 = 10;
/// Longest password in bytes: bcrypt ignores what is beyond, so longer ones are refused.
pub const MAX_BYTES: usize = 72;
/// A hash of nothing in particular: compared with when a user does not exist, so that the answer takes as long.
const NOBODY: &str = "$2a$10$m1lTkxb39FKWfL0quRDi/eEc4nEuhL8C6cU/slrRfzUZARr/Ydp6K";

/// Why a password was not hashed or compared. Never holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too long for bcrypt.
    #[error("password cannot have more than {MAX_BYTES} bytes")]
    TooLong,
    /// A NUL byte, which bcrypt cannot take.
    #[error("password cannot contain a NUL byte")]
    Nul,
    /// The work could not be done.
    #[error("the password could not be hashed")]
    Failed,
}

/// Hashes and compares passwords, a bounded number at once.
#[derive(Debug)]
pub struct Passwords {
    permits: Semaphore,
}

impl Default for Passwords {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // Half of the cores: a storm of sign-ins leaves room for everybody else.
        Self { permits: Semaphore::new(cores.div_ceil(2)) }
    }
}

impl Passwords {
    /// The bcrypt hash of a new password.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        if password.len() > MAX_BYTES {
            return Err(PasswordError::TooLong);
        }
        if password.contains('\0') {
            return Err(PasswordError::Nul);
        }
        self.run(move || bcrypt::hash(password, COST).map_err(|_| PasswordError::Failed)).await?
    }

    /// Whether the password is the hashed one. Without a hash (no such user) it takes as long and is false.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, PasswordError> {
        self.run(move || {
            let known = hash.is_some();
            let hash = hash.as_deref().unwrap_or(NOBODY);
            // An unreadable hash is a user who cannot sign in, not an error of the request.
            known & bcrypt::verify(password, hash).unwrap_or(false)
        })
        .await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let _permit = self.permits.acquire().await.map_err(|_| PasswordError::Failed)?;
        tokio::task::spawn_blocking(work).await.map_err(|_| PasswordError::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn verifies_what_it_hashed_and_what_go_hashed() {
        let passwords = Passwords::default();
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$2b$10$"), "{hash}");
        assert!(passwords.verify("correct horse".to_owned(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("wrong".to_owned(), Some(hash)).await.unwrap());
        // Made by golang.org/x/crypto/bcrypt with the default cost.
        let go = "$2a$10$nOwuO16QXJzwx67uo5LwIOvTj8Vakskhb0XbS3IOmUzRKWcb0Y9Gm".to_owned();
        assert!(passwords.verify("perses".to_owned(), Some(go)).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_and_unreadable_hashes_never_match() {
        let passwords = Passwords::default();
        assert!(bcrypt::verify("x", NOBODY).is_ok(), "the stand-in must be a whole hash, or it would be quick");
        for hash in [None, Some(String::new()), Some("not a hash".to_owned())] {
            assert!(!passwords.verify(String::new(), hash).await.unwrap());
        }
        assert_eq!(passwords.hash("x".repeat(73)).await, Err(PasswordError::TooLong));
        assert_eq!(passwords.hash("a\0b".to_owned()).await, Err(PasswordError::Nul));
    }
}
