//! The audit log in its table.

use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::read::timestamp;
use crate::domain::audit::{Query, Record, Verb};
use crate::domain::kind::Kind;

/// Records removed at once.
const PRUNE_BATCH: i64 = 2_000;

/// Times as microseconds since the epoch. Records that are there already were written by an attempt whose answer was lost.
const APPEND: &str = "INSERT INTO perses.audit
    (at, id, username, verb, kind, project, name, version, status, client, forwarded_for, user_agent, request_id)
SELECT timestamptz 'epoch' + at * interval '1 microsecond', id, username, verb, kind, project, name, version, status,
       client, forwarded_for, user_agent, request_id
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[],
            $9::integer[], $10::text[], $11::text[], $12::text[], $13::text[])
     AS new (at, id, username, verb, kind, project, name, version, status, client, forwarded_for, user_agent, request_id)
ON CONFLICT DO NOTHING";

const SEARCH: &str = "SELECT (extract(epoch FROM at) * 1000000)::bigint, id, username, verb, kind, project, name, version,
       status, client, forwarded_for, user_agent, request_id
FROM perses.audit
WHERE ($1::text IS NULL OR username = $1)
  AND ($2::text IS NULL OR kind = $2)
  AND ($3::text IS NULL OR project = $3)
  AND ($4::text IS NULL OR name = $4)
  AND at >= coalesce(timestamptz 'epoch' + $5::bigint * interval '1 microsecond', '-infinity')
  AND at < coalesce(timestamptz 'epoch' + $6::bigint * interval '1 microsecond', 'infinity')
  AND (at, id) < (coalesce(timestamptz 'epoch' + $7::bigint * interval '1 microsecond', 'infinity'), coalesce($8::bigint, 0))
ORDER BY at DESC, id DESC LIMIT $9";

/// Several pods may do this at once: they skip each other's rows.
const PRUNE: &str = "DELETE FROM perses.audit WHERE (at, id) IN (
    SELECT at, id FROM perses.audit WHERE at < timestamptz 'epoch' + $1::bigint * interval '1 microsecond'
    ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)";

pub(super) async fn append(
    connection: &mut PgConnection,
    records: &[Record],
    persistent: bool,
) -> Result<(), sqlx::Error> {
    fn texts(records: &[Record], field: impl Fn(&Record) -> Option<&str>) -> Vec<Option<String>> {
        records.iter().map(|record| field(record).map(str::to_owned)).collect()
    }
    let times: Vec<i64> = records.iter().map(|record| record.time.as_microsecond()).collect();
    let ids: Vec<i64> = records.iter().map(|record| record.id).collect();
    let versions: Vec<Option<i64>> =
        records.iter().map(|record| record.version.and_then(|version| i64::try_from(version).ok())).collect();
    let statuses: Vec<i32> = records.iter().map(|record| i32::from(record.status)).collect();
    sqlx::query(APPEND)
        .persistent(persistent)
        .bind(times)
        .bind(ids)
        .bind(texts(records, |record| record.user.as_deref()))
        .bind(texts(records, |record| Some(record.verb.as_str())))
        .bind(texts(records, |record| record.kind.map(Kind::as_str)))
        .bind(texts(records, |record| record.project.as_deref()))
        .bind(texts(records, |record| record.name.as_deref()))
        .bind(versions)
        .bind(statuses)
        .bind(texts(records, |record| record.client.as_deref()))
        .bind(texts(records, |record| record.forwarded_for.as_deref()))
        .bind(texts(records, |record| record.user_agent.as_deref()))
        .bind(texts(records, |record| record.request_id.as_deref()))
        .execute(connection)
        .await
        .map(|_| ())
}

pub(super) async fn search(
    connection: &mut PgConnection,
    query: &Query,
    persistent: bool,
) -> Result<Vec<Record>, sqlx::Error> {
    let micros = |time: Option<Timestamp>| time.map(Timestamp::as_microsecond);
    let rows = sqlx::query(SEARCH)
        .persistent(persistent)
        .bind(&query.user)
        .bind(query.kind.map(Kind::as_str))
        .bind(&query.project)
        .bind(&query.name)
        .bind(micros(query.from))
        .bind(micros(query.to))
        .bind(query.before.map(|cursor| cursor.micros))
        .bind(query.before.map(|cursor| cursor.id))
        .bind(i64::try_from(query.limit).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    rows.iter().map(record).collect()
}

fn record(row: &PgRow) -> Result<Record, sqlx::Error> {
    Ok(Record {
        time: timestamp(row.try_get(0)?)?,
        id: row.try_get(1)?,
        user: row.try_get(2)?,
        verb: Verb::parse(row.try_get(3)?),
        kind: row.try_get::<Option<&str>, _>(4)?.and_then(Kind::parse),
        project: row.try_get(5)?,
        name: row.try_get(6)?,
        version: row.try_get::<Option<i64>, _>(7)?.map(i64::unsigned_abs),
        status: u16::try_from(row.try_get::<i32, _>(8)?).unwrap_or_default(),
        client: row.try_get(9)?,
        forwarded_for: row.try_get(10)?,
        user_agent: row.try_get(11)?,
        request_id: row.try_get(12)?,
    })
}

/// Removes a batch of records from before a time; how many went.
pub(super) async fn prune(
    connection: &mut PgConnection,
    before: Timestamp,
    persistent: bool,
) -> Result<u64, sqlx::Error> {
    let prune = sqlx::query(PRUNE).persistent(persistent).bind(before.as_microsecond()).bind(PRUNE_BATCH);
    prune.execute(connection).await.map(|done| done.rows_affected())
}
