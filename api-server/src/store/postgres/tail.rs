//! The tail of changes, read by transaction.
//!
//! Sequences and clocks order rows by when they were made, not by when they become visible. Transactions do not have that
//! gap: once a snapshot's xmin has passed a transaction, it is finished and its rows are visible or will never be. So a
//! look reads every row from the last look's xmin on, leaves out what it has seen, and remembers its own xmin. A long
//! transaction elsewhere holds xmin back and makes looks read more rows; it delays nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::write::change;
use crate::store::{Change, Changes, Cursor};

/// Rows younger than this are kept.
const RETENTION: &str = "1 hour";
/// A cursor whose last look is older than this is void. Less than the retention: a row's age counts from when it was
/// written, which is before it became visible by at most the statement timeout.
const LONGEST_PAUSE: Duration = Duration::from_mins(50);
/// Rows removed at once.
const PRUNE_BATCH: i64 = 2_000;

/// One row at least: the state of the server, with the rows of the tail beside it. `now` is the server's clock in
/// microseconds, the timeline changes with every fail-over.
const LOOK: &str = "WITH state AS (
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
           (extract(epoch FROM statement_timestamp()) * 1000000)::bigint AS now,
           ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint AS timeline
)
SELECT change.kind, change.project, change.name, change.revision, change.deleted, change.id, change.xid::text::bigint,
       state.xmin, state.now, state.timeline
FROM state LEFT JOIN perses.change ON change.xid >= $1::text::xid8
ORDER BY change.id";

/// Begins ten minutes back: so a new process knows the floors of all keys that caches may still hold old values of.
const START: &str = "SELECT least(
        pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
        (SELECT min(xid::text::bigint) FROM perses.change WHERE at > statement_timestamp() - interval '10 minutes')),
    (extract(epoch FROM statement_timestamp()) * 1000000)::bigint,
    ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint";

/// Several pods may do this at once: they skip each other's rows.
const PRUNE: &str = "DELETE FROM perses.change WHERE id IN (
    SELECT id FROM perses.change WHERE at < statement_timestamp() - $1::text::interval
    ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)";

pub(super) async fn start(connection: &mut PgConnection, persistent: bool) -> Result<Cursor, sqlx::Error> {
    let row = sqlx::query(START).persistent(persistent).fetch_one(connection).await?;
    Ok(Cursor { position: row.try_get(0)?, seen: BTreeSet::new(), looked_at: row.try_get(1)?, epoch: row.try_get(2)? })
}

/// Looks; returns what is new and the cursor of the next look.
pub(super) async fn look(
    connection: &mut PgConnection,
    cursor: &Cursor,
    persistent: bool,
) -> Result<(Changes, Cursor), sqlx::Error> {
    let rows = sqlx::query(LOOK).persistent(persistent).bind(cursor.position.to_string()).fetch_all(connection).await?;
    let Some(first) = rows.first() else { return Ok((Changes::Lost, cursor.clone())) };
    let (xmin, now, timeline): (i64, i64, i64) = (first.try_get(7)?, first.try_get(8)?, first.try_get(9)?);
    let mut next = Cursor { position: xmin, seen: BTreeSet::new(), looked_at: now, epoch: timeline };
    if is_void(cursor, &next) {
        return Ok((Changes::Lost, next));
    }
    let mut changes = Vec::new();
    for row in &rows {
        // Without any change there is one row, of the state alone.
        let Some(id) = row.try_get::<Option<i64>, _>(5)? else { continue };
        if row.try_get::<i64, _>(6)? >= xmin {
            next.seen.insert(id);
        }
        if !cursor.seen.contains(&id) {
            changes.extend(new_change(row)?);
        }
    }
    Ok((Changes::Rows(changes), next))
}

fn new_change(row: &PgRow) -> Result<Option<Change>, sqlx::Error> {
    change(row, row.try_get(4)?)
}

/// Whether what happened between two looks cannot be known: rows may have been removed meanwhile, another server took over
/// (it may lack transactions that were seen), or time went backwards (the database was restored).
fn is_void(before: &Cursor, now: &Cursor) -> bool {
    let pause = i64::try_from(LONGEST_PAUSE.as_micros()).unwrap_or(i64::MAX);
    now.looked_at - before.looked_at > pause || now.epoch != before.epoch || now.position < before.position
}

/// Removes a batch of old rows; how many went.
pub(super) async fn prune(connection: &mut PgConnection, persistent: bool) -> Result<u64, sqlx::Error> {
    let prune = sqlx::query(PRUNE).persistent(persistent).bind(RETENTION).bind(PRUNE_BATCH);
    prune.execute(connection).await.map(|done| done.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_void_after_a_long_pause_a_fail_over_or_a_restore() {
        let at = |position, minutes: i64, epoch| Cursor {
            position,
            seen: BTreeSet::new(),
            looked_at: minutes * 60_000_000,
            epoch,
        };
        let before = at(100, 0, 1);
        assert!(!is_void(&before, &at(100, 49, 1)));
        assert!(is_void(&before, &at(100, 51, 1)), "rows may have been removed");
        assert!(is_void(&before, &at(200, 1, 2)), "another timeline");
        assert!(is_void(&before, &at(99, 1, 1)), "transactions that were seen are gone");
    }
}
