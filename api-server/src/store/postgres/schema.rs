//! Which schemas this program works with.

use sqlx::{PgConnection, Row};

use super::migrate;

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

/// Why a program does not work with what was found. The text says what to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// Migrations are missing.
    TooOld(String),
    /// A later release has changed what this program needs.
    TooNew(String),
}

impl Misfit {
    pub(super) fn into_text(self) -> String {
        match self {
            Self::TooOld(text) | Self::TooNew(text) => text,
        }
    }
}

/// Whether a program that knows schemas `oldest` to `latest` works with what was found.
fn check_range(found: Found, oldest: i64, latest: i64) -> Result<(), Misfit> {
    if found.version < oldest {
        return Err(Misfit::TooOld(format!(
            "the database has schema {}, this server needs {oldest} or later: run `perses-api-server migrate`",
            found.version
        )));
    }
    if found.needs > latest {
        return Err(Misfit::TooNew(format!(
            "the database has schema {}, which needs a server that knows schema {}; this one knows up to {latest}: use a \
             newer server, or restore a backup from before that schema",
            found.version, found.needs
        )));
    }
    Ok(())
}

/// Whether this program works with what was found.
pub(super) fn check(found: Found) -> Result<(), Misfit> {
    check_range(found, OLDEST, migrate::latest())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_schemas_are_fine_while_they_only_add() {
        let found = |version, needs| Found { version, needs };
        assert_eq!(check_range(found(3, 2), 2, 3), Ok(()));
        assert_eq!(check_range(found(9, 3), 2, 3), Ok(()), "additive migrations of a newer server");
        let too_new = check_range(found(9, 4), 2, 3).unwrap_err();
        assert!(matches!(&too_new, Misfit::TooNew(text) if text.contains("use a newer server")), "{too_new:?}");
        let too_old = check_range(found(1, 1), 2, 3).unwrap_err();
        assert!(matches!(&too_old, Misfit::TooOld(text) if text.contains("migrate")), "{too_old:?}");
        assert!(check_range(found(0, 0), 1, 1).unwrap_err().into_text().contains("has schema 0"));
    }
}
