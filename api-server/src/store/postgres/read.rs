//! Reads: points and lists. One statement each.

use jiff::Timestamp;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::domain::document::{Document, Key, Origin, Spec};
use crate::domain::kind::Kind;
use crate::store::ListQuery;

/// Columns of a document without its spec, in the order that [`document`] reads.
pub(super) const DOCUMENT_COLUMNS: &str = "kind, project, name, '{}'::text, tags, origin, version, revision, \
     (extract(epoch FROM created_at) * 1000000)::bigint, (extract(epoch FROM updated_at) * 1000000)::bigint";

/// Columns of a document in the order that [`document`] reads; times as microseconds since the epoch, which is what
/// PostgreSQL keeps.
macro_rules! select_documents {
    ($spec:literal, $rest:literal) => {
        concat!(
            "SELECT kind, project, name, ",
            $spec,
            ", tags, origin, version, revision, \
             (extract(epoch FROM created_at) * 1000000)::bigint, (extract(epoch FROM updated_at) * 1000000)::bigint \
             FROM perses.resource WHERE ",
            $rest
        )
    };
}

const GET: &str = select_documents!("spec", "kind = $1 AND scope = $2 AND name = $3");

// Names are ASCII and compare by byte: what starts with a prefix lies between it and the prefix followed by DEL.
const LIST: &str = select_documents!(
    "CASE WHEN NOT $2 THEN spec WHEN display_name IS NULL THEN '{}' \
     ELSE json_build_object('display', json_build_object('name', display_name))::text END",
    "kind = $1 AND name >= $3 AND name < $3 || chr(127) ORDER BY scope, name"
);

const LIST_PROJECT: &str = select_documents!(
    "CASE WHEN NOT $2 THEN spec WHEN display_name IS NULL THEN '{}' \
     ELSE json_build_object('display', json_build_object('name', display_name))::text END",
    "kind = $1 AND name >= $3 AND name < $3 || chr(127) AND scope = $4 ORDER BY name"
);

/// The column `scope` of a key.
pub(super) fn scope(key: &Key) -> &str {
    key.project.as_deref().unwrap_or_default()
}

pub(super) async fn get(
    connection: &mut PgConnection,
    key: &Key,
    persistent: bool,
) -> Result<Option<Document>, sqlx::Error> {
    let row = sqlx::query(GET)
        .persistent(persistent)
        .bind(key.kind.as_str())
        .bind(scope(key))
        .bind(&key.name)
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(document).transpose()
}

pub(super) async fn list(
    connection: &mut PgConnection,
    query: &ListQuery,
    persistent: bool,
) -> Result<Vec<Document>, sqlx::Error> {
    let rows = sqlx::query(if query.project.is_some() { LIST_PROJECT } else { LIST })
        .persistent(persistent)
        .bind(query.kind.as_str())
        .bind(query.metadata_only)
        .bind(query.name_prefix.as_deref().unwrap_or_default());
    let rows = match &query.project {
        Some(project) => rows.bind(project),
        None => rows,
    };
    rows.fetch_all(connection).await?.iter().map(document).collect()
}

/// Reads a row that begins with the columns of a document.
pub(super) fn document(row: &PgRow) -> Result<Document, sqlx::Error> {
    let kind: &str = row.try_get(0)?;
    let spec: String = row.try_get(3)?;
    let (version, revision): (i64, i64) = (row.try_get(6)?, row.try_get(7)?);
    Ok(Document {
        key: Key {
            kind: Kind::parse(kind).ok_or_else(|| sqlx::Error::Decode(format!("unknown kind {kind:?}").into()))?,
            project: row.try_get(1)?,
            name: row.try_get(2)?,
        },
        spec: Spec::stored(spec),
        tags: row.try_get(4)?,
        origin: Origin::parse(row.try_get(5)?),
        version: version.unsigned_abs(),
        revision,
        created_at: timestamp(row.try_get(8)?)?,
        updated_at: timestamp(row.try_get(9)?)?,
    })
}

/// Microseconds since the epoch as a time.
pub(super) fn timestamp(micros: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_microsecond(micros).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
