//! What the errors of PostgreSQL, PgBouncer and the network mean for a caller.

use sqlx::Error;

use crate::store::StoreError;

/// PostgreSQL's code of an error, or the empty text.
pub(super) fn code(error: &Error) -> String {
    match error {
        Error::Database(database) => database.code().map(std::borrow::Cow::into_owned).unwrap_or_default(),
        _ => String::new(),
    }
}

/// Whether signing in was refused: the credentials may have been rotated.
pub(super) fn is_refused_login(error: &Error) -> bool {
    // PgBouncer has one code, 08P01, for all its own errors.
    matches!(code(error).as_str(), "28P01" | "28000")
        || matches!(error, Error::Database(database) if code(error) == "08P01" && {
            let message = database.message();
            message.contains("authentication failed") || message.contains("no such user")
        })
}

/// Whether the connection is of no more use; other errors leave it as good as before.
pub(super) fn breaks_connection(error: &Error) -> bool {
    match error {
        Error::Database(_) => {
            let code = code(error);
            // 57014 is a cancelled statement, the session goes on.
            code.starts_with("08") || (code.starts_with("57P")) || code == "25006" || code == "25P02"
        }
        Error::RowNotFound | Error::ColumnNotFound(_) | Error::ColumnDecode { .. } | Error::Decode(_) => false,
        _ => true,
    }
}

/// Turns an error into the store's. The texts name no credentials: PostgreSQL's messages hold names of roles and objects.
pub(super) fn classify(error: &Error) -> StoreError {
    match error {
        Error::Io(_)
        | Error::Tls(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed
        | Error::Protocol(_) => StoreError::Unavailable(format!("PostgreSQL cannot be reached: {error}")),
        Error::Database(database) => {
            let (code, message) = (code(error), database.message());
            match code.as_str() {
                "42P01" | "3F000" => StoreError::Unavailable(format!(
                    "the database has no schema of this server ({message}): run `perses-api-server migrate`"
                )),
                "23505" => StoreError::AlreadyExists,
                // The only foreign key is the project's; the caller knows its name.
                "23503" => StoreError::ProjectMissing(String::new()),
                "25006" | "55000" => {
                    StoreError::Unavailable("PostgreSQL takes no writes now: it is a standby or read-only".to_owned())
                }
                "26000" | "42P05" => StoreError::Failed(format!(
                    "the pooler in front of PostgreSQL loses prepared statements ({message}): set max_prepared_statements \
                     of PgBouncer (1.21 or later), or database.postgres.statement_cache: 0"
                )),
                _ if is_refused_login(error) => StoreError::Unavailable(format!(
                    "PostgreSQL refused the sign-in ({message}): check database.postgres.user and password"
                )),
                // Connection and operator intervention (a shutdown, a cancelled statement), resources, no such database,
                // lock not available, deadlock and serialisation.
                _ if ["08", "57", "53", "3D", "55P03", "40"].iter().any(|class| code.starts_with(class)) => {
                    StoreError::Unavailable(format!("PostgreSQL: {message} ({code})"))
                }
                _ => StoreError::Failed(format!("PostgreSQL: {message} ({code})")),
            }
        }
        _ => StoreError::Failed(format!("PostgreSQL: {error}")),
    }
}
