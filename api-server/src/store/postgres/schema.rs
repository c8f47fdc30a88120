//! Which schemas this program works with.

use sqlx::{PgConnection, Row};

use super::migrate::LATEST;

/// Oldest schema that this program works with.
const OLDEST: i64 = 2;

const FOUND: &str =
    "SELECT coalesce(max(version), 0)::bigint, coalesce(max(needs), 0)::bigint FROM perses.schema_version";

/// What the database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// The newest migration that was applied.
    pub(super) version: i64,
    /// The schema that a program must at least know.
    pub(super) needs: i64,
}

pub(super) async fn find(connection: &mut PgConnection, persistent: bool) -> Result<Found, sqlx::Error> {
    let row = sqlx::query(FOUND).persistent(persistent).fetch_one(connection).await?;
    Ok(Found { version: row.try_get(0)?, needs: row.try_get(1)? })
}

/// Whether a program that knows schemas `oldest` to `latest` works with what was found; the error says what to do.
fn check_range(found: Found, oldest: i64, latest: i64) -> Result<(), String> {
    if found.version < oldest {
        return Err(format!(
            "the database has schema {}, this server needs {oldest} or later: run `perses-api-server migrate`",
            found.version
        ));
    }
    if found.needs > latest {
        return Err(format!(
            "the database has schema {}, which needs a server that knows schema {}; this one knows up to {latest}: use a newer server",
            found.version, found.needs
        ));
    }
    Ok(())
}

/// Whether this program works with what was found.
pub(super) fn check(found: Found) -> Result<(), String> {
    check_range(found, OLDEST, LATEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_schemas_are_fine_while_they_only_add() {
        let found = |version, needs| Found { version, needs };
        assert_eq!(check_range(found(3, 2), 2, 3), Ok(()));
        assert_eq!(check_range(found(9, 3), 2, 3), Ok(()), "additive migrations of a newer server");
        assert!(check_range(found(9, 4), 2, 3).unwrap_err().contains("use a newer server"));
        assert!(check_range(found(1, 1), 2, 3).unwrap_err().contains("migrate"));
        assert!(check_range(found(0, 0), 1, 1).unwrap_err().contains("has schema 0"));
    }
}
