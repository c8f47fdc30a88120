//! Login roles that take turns: one is in use while the other one gets a new password.

use std::fmt;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};
use sqlx::{ConnectOptions, Connection, PgConnection, Row};

use super::credentials::{Credentials, connect_options};
use super::error::{classify, is_refused_login};
use super::migrate::{LOCK, execute};
use super::owner::quote;
use crate::config;
use crate::store::StoreError;

/// How long a database is waited for that is not there yet.
const PATIENCE: Duration = Duration::from_secs(30);

/// A role and the password that it is to have. `Debug` shows the role only.
pub struct Login {
    /// Name of the role.
    pub user: String,
    /// The password that it is to have.
    pub password: String,
    /// The one that it has had until now.
    pub known: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// The role signed in with the password already.
    Current,
    /// The role changed its own password.
    Changed,
    /// The configured user gave a role that was there the password.
    Given,
    /// The configured user made the role, as a member of the owner of the schema.
    Made,
}

impl fmt::Display for Ensured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Current => "the role has the password already",
            Self::Changed => "the role has changed its password",
            Self::Given => "the role was given the password",
            Self::Made => "the role was made, as a member of the owner of the schema",
        })
    }
}

/// Sees to it that the role signs in with the password. It changes its own where it can sign in with the known one, which
/// needs no right; else the configured user gives it to the role, or makes the role. It may be interrupted and run again.
///
/// # Errors
/// The database is away for long, or refuses. No text holds a password.
pub async fn ensure_login(config: &config::Postgres, login: &Login) -> Result<Ensured, StoreError> {
    let own = |password: &String| Credentials::of(&login.user, password);
    if sign_in(config, &own(&login.password)).await?.is_some() {
        return Ok(Ensured::Current);
    }
    let verifier = verifier(&login.password, rand::random());
    let (role, change) = (quote(&login.user), format!("ALTER ROLE {} PASSWORD '{verifier}'", quote(&login.user)));
    if let Some(known) = &login.known
        && let Some(mut connection) = sign_in(config, &own(known)).await?
    {
        execute(&mut connection, &change).await?;
        return Ok(Ensured::Changed);
    }
    let mut connection = sign_in(config, &Credentials::read(config)?).await?.ok_or_else(|| {
        StoreError::Failed(
            "the database refuses the configured user: are user_file and password_file right?".to_owned(),
        )
    })?;
    execute(&mut connection, "BEGIN").await?;
    execute(&mut connection, LOCK).await?;
    let done = if exists(&mut connection, &login.user).await? {
        execute(&mut connection, &change).await?;
        Ensured::Given
    } else {
        execute(&mut connection, &format!("CREATE ROLE {role} LOGIN PASSWORD '{verifier}'")).await?;
        let owner = schema_owner(&mut connection).await?;
        execute(&mut connection, &format!("GRANT {} TO {role}", quote(&owner))).await?;
        Ensured::Made
    };
    execute(&mut connection, "COMMIT").await?;
    Ok(done)
}

/// A connection; `None` when these credentials are refused. A database that is just starting is waited for.
async fn sign_in(config: &config::Postgres, credentials: &Credentials) -> Result<Option<PgConnection>, StoreError> {
    let options = connect_options(config, credentials, config.direct.as_ref());
    let started = Instant::now();
    loop {
        let error = match tokio::time::timeout(Duration::from_secs(5), options.connect()).await {
            Ok(Ok(mut connection)) => {
                // A server that is about to stop answers the sign-in and nothing more.
                connection.ping().await.map_err(|error| classify(&error))?;
                return Ok(Some(connection));
            }
            Ok(Err(error)) if is_refused_login(&error) => return Ok(None),
            Ok(Err(error)) => classify(&error),
            Err(_) => StoreError::Unavailable("PostgreSQL did not answer within 5s".to_owned()),
        };
        if !matches!(error, StoreError::Unavailable(_)) || started.elapsed() >= PATIENCE {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn exists(connection: &mut PgConnection, role: &str) -> Result<bool, StoreError> {
    let query = sqlx::query("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)").persistent(false).bind(role);
    let row = query.fetch_one(connection).await.map_err(|error| classify(&error))?;
    row.try_get(0).map_err(|error| classify(&error))
}

/// The role that owns the schema: whoever is a member of it may do everything there, migrations included.
async fn schema_owner(connection: &mut PgConnection) -> Result<String, StoreError> {
    let query = sqlx::query("SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = 'perses'");
    let row = query.persistent(false).fetch_optional(connection).await.map_err(|error| classify(&error))?;
    let row = row.ok_or_else(|| StoreError::Unavailable("there is no schema yet: run `migrate` first".to_owned()))?;
    row.try_get(0).map_err(|error| classify(&error))
}

/// What PostgreSQL stores of a password (SCRAM-SHA-256, RFC 5803): made here, so that neither the password nor anything to
/// sign in with is in a statement, which the server may log.
fn verifier(password: &str, salt: [u8; 16]) -> String {
    const ROUNDS: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");
    let mut salted = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salt, password.as_bytes(), &mut salted);
    let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
    let stored = digest::digest(&digest::SHA256, hmac::sign(&salted, b"Client Key").as_ref());
    let server = hmac::sign(&salted, b"Server Key");
    let text = |bytes: &[u8]| STANDARD.encode(bytes);
    format!("SCRAM-SHA-256$4096:{}${}:{}", text(&salt), text(stored.as_ref()), text(server.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_is_that_of_postgresql() {
        // Keys of RFC 7677: user "user", password "pencil".
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        let made = verifier("pencil", salt);
        assert_eq!(
            made,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
    }
}
