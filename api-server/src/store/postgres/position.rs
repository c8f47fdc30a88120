//! Places in the log of a PostgreSQL cluster: how far a replica has come, against what this process knows of the primary.
//!
//! The lag is not measured by the clocks of the servers. Theirs grows on a replica of an idle primary, which is up to date,
//! and stands still on one that is cut off. Here each look at the primary (every 500 ms, see `cache::tail`) notes where its
//! log ended; a replica is as old as the newest look whose end it has replayed.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

/// How far back looks are kept: a lag beyond this is known to be "at least so much".
const KEPT: Duration = Duration::from_mins(10);
/// Pages of the log, and the header that each begins with, in bytes.
const PAGE: i64 = 8192;
const PAGE_HEADER: i64 = 24;

/// The end of the primary's log, on which timeline (it changes with every fail-over), of which cluster. The place of
/// insertion, not of what is on disk: with `synchronous_commit = off` a change shows before it is there.
const LOOK: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint,
       ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint,
       (SELECT system_identifier FROM pg_control_system())";

/// In one message, so that it takes no round trip more and a pooler gives both to the same server.
const COMMIT: &str = "COMMIT; SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint,
       ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint";

/// Where a replica stands. Its timeline comes from the control file, which may be behind but is never ahead.
const STANDING: &str = "SELECT pg_is_in_recovery(), coalesce((pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint, 0),
       (SELECT greatest(c.timeline_id, r.min_recovery_end_timeline)::bigint
        FROM pg_control_checkpoint() c, pg_control_recovery() r),
       (SELECT system_identifier FROM pg_control_system())";

/// A place in the log; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) timeline: i64,
    /// Bytes from the beginning.
    pub(super) lsn: i64,
}

impl Position {
    /// Reads `lsn, timeline`.
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let (lsn, timeline): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        // At the start of a page the primary says where the next record will begin, a replica where the last one ended.
        let lsn = if lsn % PAGE == PAGE_HEADER { lsn - PAGE_HEADER } else { lsn };
        Ok(Self { timeline, lsn })
    }
}

/// The end of the primary's log at a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) position: Position,
    pub(super) cluster: i64,
}

/// Where a replica stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) in_recovery: bool,
    pub(super) position: Position,
    pub(super) cluster: i64,
}

/// Looks at the primary. To be asked after what it is to cover was read.
pub(super) async fn look(connection: &mut PgConnection, persistent: bool) -> Result<Look, sqlx::Error> {
    let row = sqlx::query(LOOK).persistent(persistent).fetch_one(connection).await?;
    Ok(Look { position: Position::read(&row)?, cluster: row.try_get(2)? })
}

/// Commits; where the commit is at the latest.
pub(super) async fn commit(connection: &mut PgConnection) -> Result<Position, sqlx::Error> {
    let rows = sqlx::raw_sql(COMMIT).fetch_all(connection).await?;
    Position::read(rows.first().ok_or(sqlx::Error::RowNotFound)?)
}

/// Looks where a replica stands. To be asked before what is to be read there, in the same transaction.
pub(super) async fn standing(connection: &mut PgConnection, persistent: bool) -> Result<Standing, sqlx::Error> {
    let row = sqlx::query(STANDING).persistent(persistent).fetch_one(connection).await?;
    let position = Position { lsn: row.try_get(1)?, timeline: row.try_get(2)? };
    Ok(Standing { in_recovery: row.try_get(0)?, position, cluster: row.try_get(3)? })
}

/// Why a replica is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the primary was not seen lately, so nothing can be compared with it")]
    Blind,
    #[error("it is no standby: it takes writes itself")]
    NoStandby,
    #[error("it belongs to another cluster")]
    OtherCluster,
    #[error("it does not follow the primary's timeline (yet)")]
    OtherTimeline,
    #[error("it has not replayed the last change that this server knows of")]
    Behind,
    #[error("it lags by {0:?} (database.postgres.max_replica_lag)")]
    Lagging(Duration),
}

/// What this process knows of the primary.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The last change that this process made or heard of.
    change: Option<Position>,
    /// Ends of the log, each with the last time that it was seen; on one timeline, rising.
    looks: VecDeque<(Instant, i64)>,
    timeline: i64,
    cluster: i64,
}

impl Known {
    /// This process has committed a change.
    pub(super) fn wrote(&self, position: Position) {
        let mut state = self.0.lock();
        // Before the first look nothing is known, and nothing is compared.
        state.change = state.change.map(|change| change.max(position));
    }

    /// The primary was looked at; `changed` when the look brought changes. What was known before counts no more when it is
    /// another cluster, another life of it or the first look.
    pub(super) fn looked(&self, look: Look, changed: bool, at: Instant) {
        let mut state = self.0.lock();
        let Position { timeline, lsn } = look.position;
        let first = state.change.is_none() || state.cluster != look.cluster || state.timeline != timeline;
        let rewound = state.looks.back().is_some_and(|(_, last)| *last > lsn);
        if first || rewound {
            state.looks.clear();
            (state.timeline, state.cluster) = (timeline, look.cluster);
            state.change = Some(look.position);
        } else if changed {
            state.change = state.change.max(Some(look.position));
        }
        match state.looks.back_mut() {
            Some((seen, last)) if *last == lsn => *seen = at,
            _ => state.looks.push_back((at, lsn)),
        }
        while state.looks.len() > 1 && state.looks.front().is_some_and(|(seen, _)| at.duration_since(*seen) > KEPT) {
            state.looks.pop_front();
        }
    }

    /// The tail of changes was lost: what is known is void until the next look.
    pub(super) fn lost(&self) {
        *self.0.lock() = State::default();
    }

    /// Whether a replica that stands so may be read now, and how far it lags.
    pub(super) fn judge(&self, standing: &Standing, longest: Duration, now: Instant) -> Result<Duration, Refusal> {
        let state = self.0.lock();
        let (Some(change), Some((newest, _))) = (state.change, state.looks.back()) else { return Err(Refusal::Blind) };
        if !standing.in_recovery {
            return Err(Refusal::NoStandby);
        }
        if standing.cluster != state.cluster {
            return Err(Refusal::OtherCluster);
        }
        if standing.position.timeline != state.timeline || change.timeline != state.timeline {
            return Err(Refusal::OtherTimeline);
        }
        // An old look says nothing about now, whatever the replica says.
        if now.duration_since(*newest) > longest {
            return Err(Refusal::Blind);
        }
        let replayed = state.looks.iter().rev().find(|(_, lsn)| *lsn <= standing.position.lsn);
        let lag = match replayed.or(state.looks.front()) {
            Some((seen, _)) => newest.duration_since(*seen),
            None => Duration::ZERO,
        };
        if lag > longest {
            return Err(Refusal::Lagging(lag));
        }
        if standing.position.lsn < change.lsn {
            return Err(Refusal::Behind);
        }
        Ok(lag)
    }

    /// How far a replica lags that has replayed up to `lsn`, by the looks alone.
    pub(super) fn lag(&self, lsn: i64) -> Duration {
        let state = self.0.lock();
        let replayed = state.looks.iter().rev().find(|(_, end)| *end <= lsn).or(state.looks.front());
        match (state.looks.back(), replayed) {
            (Some((newest, _)), Some((seen, _))) => newest.duration_since(*seen),
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(5);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn look(lsn: i64) -> Look {
        Look { position: Position { timeline: 1, lsn }, cluster: 7 }
    }

    fn at(lsn: i64) -> Standing {
        Standing { in_recovery: true, position: Position { timeline: 1, lsn }, cluster: 7 }
    }

    #[test]
    fn a_replica_of_an_idle_primary_is_up_to_date_however_long_it_hears_nothing() {
        let (known, start) = (Known::default(), Instant::now());
        assert_eq!(known.judge(&at(100), LONGEST, start), Err(Refusal::Blind), "nothing was seen yet");
        for second in 0..600 {
            known.looked(look(100), false, start + seconds(second));
        }
        assert_eq!(known.judge(&at(100), LONGEST, start + seconds(600)), Ok(Duration::ZERO));
        assert_eq!(known.judge(&at(100), LONGEST, start + seconds(605)), Err(Refusal::Blind), "the primary is away");
    }

    #[test]
    fn a_replica_that_is_cut_off_is_refused_at_the_next_change_and_else_when_its_lag_grows() {
        let (known, start) = (Known::default(), Instant::now());
        known.looked(look(100), true, start);
        // Somebody else's changes: other databases, vacuum.
        for second in 1..=5 {
            known.looked(look(100 + i64::try_from(second).unwrap()), false, start + seconds(second));
        }
        assert_eq!(known.judge(&at(100), LONGEST, start + seconds(5)), Ok(seconds(5)));
        known.looked(look(106), false, start + seconds(6));
        assert_eq!(known.judge(&at(100), LONGEST, start + seconds(6)), Err(Refusal::Lagging(seconds(6))));
        assert_eq!(known.judge(&at(105), LONGEST, start + seconds(6)), Ok(seconds(1)));
        // A change of ours: at once.
        known.looked(look(110), true, start + seconds(7));
        assert_eq!(known.judge(&at(109), LONGEST, start + seconds(7)), Err(Refusal::Behind));
        assert!(known.judge(&at(110), LONGEST, start + seconds(7)).is_ok());
        known.wrote(Position { timeline: 1, lsn: 120 });
        assert_eq!(known.judge(&at(119), LONGEST, start + seconds(7)), Err(Refusal::Behind), "one's own write");
        assert!(known.judge(&at(120), LONGEST, start + seconds(7)).is_ok());
    }

    #[test]
    fn only_a_standby_of_the_same_cluster_and_timeline_counts() {
        let (known, start) = (Known::default(), Instant::now());
        known.looked(look(100), true, start);
        let good = at(200);
        let cases = [
            (Standing { in_recovery: false, ..good }, Refusal::NoStandby),
            (Standing { cluster: 8, ..good }, Refusal::OtherCluster),
            (Standing { position: Position { timeline: 2, lsn: 200 }, ..good }, Refusal::OtherTimeline),
        ];
        for (standing, refusal) in cases {
            assert_eq!(known.judge(&standing, LONGEST, start), Err(refusal));
        }
        // After a fail-over the log may be shorter than it was: what the old primary had does not count.
        let promoted = Look { position: Position { timeline: 2, lsn: 90 }, cluster: 7 };
        known.looked(promoted, false, start + seconds(1));
        assert_eq!(known.judge(&good, LONGEST, start + seconds(1)), Err(Refusal::OtherTimeline), "an old replica");
        let follower = Standing { position: promoted.position, ..good };
        assert!(known.judge(&follower, LONGEST, start + seconds(1)).is_ok());
        // A write that saw the fail-over before the next look did.
        known.wrote(Position { timeline: 3, lsn: 95 });
        assert_eq!(known.judge(&follower, LONGEST, start + seconds(1)), Err(Refusal::OtherTimeline));
        known.lost();
        assert_eq!(known.judge(&follower, LONGEST, start + seconds(1)), Err(Refusal::Blind));
    }
}
