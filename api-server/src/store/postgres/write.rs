//! Writes: each in one transaction, with its rows in the tail of changes.
//!
//! Order of locks: the key (advisory), then rows. The revision is drawn when both are held, so it rises for each key in the
//! order in which writes of that key become visible, also across delete and create.

use serde::Deserialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::read::{scope, timestamp};
use crate::domain::document::{Document, Draft, Key};
use crate::domain::kind::Kind;
use crate::store::{Change, Precondition};

const INSERT_PROJECT: &str = "INSERT INTO perses.project (name) VALUES ($1)";

const INSERT: &str = "WITH written AS (
    INSERT INTO perses.resource
        (kind, project, name, spec, tags, display_name, plugin_kind, origin, version, revision, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, nextval('perses.revision'), statement_timestamp(), statement_timestamp())
    RETURNING kind, project, name, version, revision, created_at, updated_at
), noted AS (
    INSERT INTO perses.change (kind, project, name, revision, deleted)
    SELECT kind, project, name, revision, false FROM written
)
SELECT version, revision, (extract(epoch FROM created_at) * 1000000)::bigint,
       (extract(epoch FROM updated_at) * 1000000)::bigint FROM written";

const UPDATE: &str = "WITH written AS (
    UPDATE perses.resource
    SET spec = $4, tags = $5, display_name = $6, plugin_kind = $7, origin = $8, version = version + 1,
        revision = nextval('perses.revision'), updated_at = statement_timestamp()
    WHERE kind = $1 AND scope = $2 AND name = $3 AND ($9::bigint IS NULL OR version = $9)
      AND ($10::bigint IS NULL OR revision = $10)
    RETURNING kind, project, name, version, revision, created_at, updated_at
), noted AS (
    INSERT INTO perses.change (kind, project, name, revision, deleted)
    SELECT kind, project, name, revision, false FROM written
)
SELECT version, revision, (extract(epoch FROM created_at) * 1000000)::bigint,
       (extract(epoch FROM updated_at) * 1000000)::bigint FROM written";

/// As it was elsewhere. The project's own row comes with its document.
const PUT: &str = "WITH written AS (
    INSERT INTO perses.resource
        (kind, project, name, spec, tags, display_name, plugin_kind, origin, version, revision, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, nextval('perses.revision'),
            'epoch'::timestamptz + $10 * interval '1 microsecond', 'epoch'::timestamptz + $11 * interval '1 microsecond')
    ON CONFLICT (kind, scope, name) DO UPDATE SET
        spec = excluded.spec, tags = excluded.tags, display_name = excluded.display_name,
        plugin_kind = excluded.plugin_kind, origin = excluded.origin, version = excluded.version,
        revision = excluded.revision, created_at = excluded.created_at, updated_at = excluded.updated_at
    RETURNING kind, project, name, revision
)
INSERT INTO perses.change (kind, project, name, revision, deleted)
SELECT kind, project, name, revision, false FROM written";

const PUT_PROJECT: &str = "INSERT INTO perses.project (name) VALUES ($1) ON CONFLICT DO NOTHING";

const VERSION: &str = "SELECT version FROM perses.resource WHERE kind = $1 AND scope = $2 AND name = $3";

const DELETE: &str = "WITH gone AS (
    DELETE FROM perses.resource WHERE kind = $1 AND scope = $2 AND name = $3
      AND ($4::bigint IS NULL OR version = $4) AND ($5::bigint IS NULL OR revision = $5)
    RETURNING kind, project, name, nextval('perses.revision') AS revision
), noted AS (
    INSERT INTO perses.change (kind, project, name, revision, deleted)
    SELECT kind, project, name, revision, true FROM gone
)
SELECT kind, project, name, revision FROM gone";

/// Keeps new documents out of the project: their foreign keys wait for this lock, then find no project.
const LOCK_PROJECT: &str = "SELECT name FROM perses.project WHERE name = $1 FOR UPDATE";

const DELETE_CHILDREN: &str = "WITH gone AS (
    DELETE FROM perses.resource WHERE project = $1
    RETURNING kind, project, name, nextval('perses.revision') AS revision
), noted AS (
    INSERT INTO perses.change (kind, project, name, revision, deleted)
    SELECT kind, project, name, revision, true FROM gone
)
SELECT kind, project, name, revision FROM gone";

const DELETE_PROJECT: &str = "DELETE FROM perses.project WHERE name = $1";

/// What became of a write under a condition.
#[derive(Debug)]
pub(super) enum Outcome<T> {
    Done(T),
    NotFound,
    /// The stored `metadata.version` is this one.
    Conflict(u64),
}

/// Writes of documents. Their transaction holds the locks of their keys ([`lock_number`]). Statements are kept on the
/// connection by name, or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer {
    pub(super) persistent: bool,
}

impl Writer {
    pub(super) async fn create(self, connection: &mut PgConnection, draft: Draft) -> Result<Document, sqlx::Error> {
        if draft.key.kind == Kind::Project {
            let project = sqlx::query(INSERT_PROJECT).persistent(self.persistent).bind(&draft.key.name);
            project.execute(&mut *connection).await?;
        }
        let columns = Columns::of(draft.spec.get());
        let row = sqlx::query(INSERT)
            .persistent(self.persistent)
            .bind(draft.key.kind.as_str())
            .bind(&draft.key.project)
            .bind(&draft.key.name)
            .bind(draft.spec.get())
            .bind(&draft.tags)
            .bind(columns.display_name)
            .bind(columns.plugin_kind)
            .bind(draft.origin.as_str())
            .fetch_one(connection)
            .await?;
        written(draft, &row)
    }

    pub(super) async fn put(self, connection: &mut PgConnection, document: Document) -> Result<(), sqlx::Error> {
        let Document { key, created_at, updated_at, version, tags, spec, origin, .. } = document;
        if key.kind == Kind::Project {
            let project = sqlx::query(PUT_PROJECT).persistent(self.persistent).bind(&key.name);
            project.execute(&mut *connection).await?;
        }
        let columns = Columns::of(spec.get());
        sqlx::query(PUT)
            .persistent(self.persistent)
            .bind(key.kind.as_str())
            .bind(&key.project)
            .bind(&key.name)
            .bind(spec.get())
            .bind(&tags)
            .bind(columns.display_name)
            .bind(columns.plugin_kind)
            .bind(origin.as_str())
            .bind(i64::try_from(version).unwrap_or(i64::MAX))
            .bind(created_at.as_microsecond())
            .bind(updated_at.as_microsecond())
            .execute(connection)
            .await
            .map(|_| ())
    }

    pub(super) async fn update(
        self,
        connection: &mut PgConnection,
        draft: Draft,
        precondition: Precondition,
    ) -> Result<Outcome<Document>, sqlx::Error> {
        let (version, revision) = condition(precondition);
        let columns = Columns::of(draft.spec.get());
        let row = sqlx::query(UPDATE)
            .persistent(self.persistent)
            .bind(draft.key.kind.as_str())
            .bind(scope(&draft.key))
            .bind(&draft.key.name)
            .bind(draft.spec.get())
            .bind(&draft.tags)
            .bind(columns.display_name)
            .bind(columns.plugin_kind)
            .bind(draft.origin.as_str())
            .bind(version)
            .bind(revision)
            .fetch_optional(&mut *connection)
            .await?;
        if let Some(row) = row {
            return written(draft, &row).map(Outcome::Done);
        }
        self.refused(connection, &draft.key).await
    }

    /// Deletes a document, a project with everything in it; what went, children first.
    pub(super) async fn delete(
        self,
        connection: &mut PgConnection,
        key: &Key,
        precondition: Precondition,
    ) -> Result<Outcome<Vec<Change>>, sqlx::Error> {
        let is_project = key.kind == Kind::Project;
        if is_project {
            let lock = sqlx::query(LOCK_PROJECT).persistent(self.persistent).bind(&key.name);
            if lock.fetch_optional(&mut *connection).await?.is_none() {
                return Ok(Outcome::NotFound);
            }
        }
        let (version, revision) = condition(precondition);
        let document = sqlx::query(DELETE)
            .persistent(self.persistent)
            .bind(key.kind.as_str())
            .bind(scope(key))
            .bind(&key.name)
            .bind(version)
            .bind(revision)
            .fetch_optional(&mut *connection)
            .await?;
        let Some(document) = document else { return self.refused(connection, key).await };
        let mut changes = Vec::new();
        if is_project {
            let children = sqlx::query(DELETE_CHILDREN).persistent(self.persistent).bind(&key.name);
            let rows = children.fetch_all(&mut *connection).await?;
            changes.extend(rows.iter().filter_map(|row| change(row, true).transpose()).collect::<Result<Vec<_>, _>>()?);
            let project = sqlx::query(DELETE_PROJECT).persistent(self.persistent).bind(&key.name);
            project.execute(connection).await?;
        }
        changes.extend(change(&document, true)?);
        Ok(Outcome::Done(changes))
    }

    /// Why a write under a condition found no row. The key is locked, so it is as it was.
    async fn refused<T>(self, connection: &mut PgConnection, key: &Key) -> Result<Outcome<T>, sqlx::Error> {
        let stored = sqlx::query(VERSION)
            .persistent(self.persistent)
            .bind(key.kind.as_str())
            .bind(scope(key))
            .bind(&key.name)
            .fetch_optional(connection)
            .await?;
        stored.map_or(Ok(Outcome::NotFound), |row| Ok(Outcome::Conflict(row.try_get::<i64, _>(0)?.unsigned_abs())))
    }
}

/// The columns that a condition asks for. A version that the column cannot hold is one that it does not hold.
fn condition(precondition: Precondition) -> (Option<i64>, Option<i64>) {
    let (version, revision) = precondition.parts();
    (version.map(|version| i64::try_from(version).unwrap_or(-1)), revision)
}

/// Reads `kind, project, name, revision`; kinds that this program does not know are left out.
pub(super) fn change(row: &PgRow, deleted: bool) -> Result<Option<Change>, sqlx::Error> {
    let Some(kind) = Kind::parse(row.try_get(0)?) else { return Ok(None) };
    let key = Key { kind, project: row.try_get(1)?, name: row.try_get(2)? };
    Ok(Some(Change { key, revision: row.try_get(3)?, deleted }))
}

/// The number of a key's advisory lock. Two keys with one number only wait for each other.
pub(super) fn lock_number(key: &Key) -> i64 {
    let hash = blake3::hash(format!("{}/{}", key.kind, key.path()).as_bytes());
    let (first, _) = hash.as_bytes().split_at(8);
    i64::from_be_bytes(first.try_into().unwrap_or_default())
}

fn written(draft: Draft, row: &PgRow) -> Result<Document, sqlx::Error> {
    let Draft { key, tags, spec, origin } = draft;
    let version: i64 = row.try_get(0)?;
    Ok(Document {
        key,
        tags,
        spec: spec.into(),
        origin,
        version: version.unsigned_abs(),
        revision: row.try_get(1)?,
        created_at: timestamp(row.try_get(2)?)?,
        updated_at: timestamp(row.try_get(3)?)?,
    })
}

/// What of a spec stands in columns of its own, for lists and search.
#[derive(Debug, Default)]
struct Columns {
    display_name: Option<String>,
    plugin_kind: Option<String>,
}

impl Columns {
    /// A spec of another shape has none.
    fn of(spec: &str) -> Self {
        #[derive(Deserialize)]
        struct Spec {
            display: Option<Display>,
            plugin: Option<Plugin>,
        }
        #[derive(Deserialize)]
        struct Display {
            name: Option<String>,
        }
        #[derive(Deserialize)]
        struct Plugin {
            kind: Option<String>,
        }
        serde_json::from_str::<Spec>(spec).map_or_else(
            |_| Self::default(),
            |spec| Self {
                display_name: spec.display.and_then(|display| display.name),
                plugin_kind: spec.plugin.and_then(|plugin| plugin.kind),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_from_the_spec_and_strange_specs_have_none() {
        let columns = |spec: &str| {
            let spec = serde_json::value::RawValue::from_string(spec.to_owned()).unwrap();
            let columns = Columns::of(spec.get());
            (columns.display_name, columns.plugin_kind)
        };
        assert_eq!(
            columns(r#"{"display":{"name":"A","description":"x"},"plugin":{"kind":"K","spec":{}},"default":true}"#),
            (Some("A".to_owned()), Some("K".to_owned()))
        );
        assert_eq!(columns(r#"{"display":null}"#), (None, None));
        assert_eq!(columns(r#"{"display":7}"#), (None, None));
        assert_eq!(columns("[]"), (None, None));
    }

    #[test]
    fn locks_of_different_keys_differ() {
        let a = lock_number(&Key::in_project(Kind::Dashboard, "p", "a"));
        assert_eq!(a, lock_number(&Key::in_project(Kind::Dashboard, "p", "a")));
        assert_ne!(a, lock_number(&Key::in_project(Kind::Folder, "p", "a")));
        assert_ne!(a, lock_number(&Key::in_project(Kind::Dashboard, "a", "p")));
    }
}
