//! Leases: one row each, by the clock of the database. Locks of sessions would not survive a pooler in transaction mode.

use std::time::Duration;

use sqlx::PgConnection;

/// Takes a lease that is free, over or one's own.
const TAKE: &str = "INSERT INTO perses.lease AS held (name, holder, until)
    VALUES ($1, $2, statement_timestamp() + $3 * interval '1 millisecond')
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
    WHERE held.holder = excluded.holder OR held.until <= statement_timestamp()";

const GIVE_BACK: &str = "DELETE FROM perses.lease WHERE name = $1 AND holder = $2";

/// Whether the lease is now held.
pub(super) async fn take(
    connection: &mut PgConnection,
    name: &str,
    holder: &str,
    ttl: Duration,
    persistent: bool,
) -> Result<bool, sqlx::Error> {
    let millis = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    let take = sqlx::query(TAKE).persistent(persistent).bind(name).bind(holder).bind(millis);
    take.execute(connection).await.map(|done| done.rows_affected() > 0)
}

pub(super) async fn give_back(
    connection: &mut PgConnection,
    name: &str,
    holder: &str,
    persistent: bool,
) -> Result<(), sqlx::Error> {
    let give_back = sqlx::query(GIVE_BACK).persistent(persistent).bind(name).bind(holder);
    give_back.execute(connection).await.map(|_| ())
}
