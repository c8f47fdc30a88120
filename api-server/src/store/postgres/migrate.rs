//! `migrate`: brings the schema up to date. Several may run at once; each migration is one transaction.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row};

use super::credentials::{Credentials, connect_options};
use super::error::{classify, code};
use super::schema::{self, Found, Misfit};
use super::{owner, search, statements};
use crate::config;
use crate::store::StoreError;

/// One file of `migrations/`.
#[derive(Debug)]
pub struct Migration {
    /// Number of the schema that it makes.
    pub version: i64,
    /// Name of the file without its ending; begins with the number.
    pub name: &'static str,
    /// The schema that a program must at least know to work with this one: how far back servers may be.
    pub needs: i64,
    /// Statements, run in one transaction.
    pub sql: &'static str,
}

const RELEASED: [Migration; 3] = [
    Migration {
        version: 1,
        name: "0001_documents",
        needs: 1,
        sql: include_str!("../../../migrations/0001_documents.sql"),
    },
    Migration { version: 2, name: "0002_leases", needs: 1, sql: include_str!("../../../migrations/0002_leases.sql") },
    Migration { version: 3, name: "0003_audit", needs: 1, sql: include_str!("../../../migrations/0003_audit.sql") },
];

static LATER: OnceLock<&'static [Migration]> = OnceLock::new();

/// Makes this process a later release: it knows these migrations too. For rehearsals of upgrades
/// (`examples/later_release.rs`); the first call counts.
pub fn rehearse(later: &'static [Migration]) {
    let _ = LATER.set(later);
}

/// Every migration that this program knows, in order.
fn known() -> impl Iterator<Item = &'static Migration> {
    RELEASED.iter().chain(LATER.get().copied().unwrap_or_default())
}

/// Newest schema that this program knows.
pub(super) fn latest() -> i64 {
    known().map(|migration| migration.version).max().unwrap_or_default()
}

/// How long `migrate` waits for a database that is not there yet.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);

/// Everything that makes `migrate` wait for another one.
pub(super) const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('perses.schema_version', 0))";

const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS perses.schema_version (
    version    bigint PRIMARY KEY,
    name       text NOT NULL,
    needs      bigint NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)";

/// What `migrate` did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Schema before.
    pub from: i64,
    /// Schema now.
    pub to: i64,
    /// Migrations applied by this run.
    pub applied: Vec<&'static str>,
    /// The role that owns the objects.
    pub owner: String,
    /// What a database administrator should do, if anything.
    pub advice: Option<String>,
    /// Why search has to scan the dashboards, if it has to.
    pub unindexed_search: Option<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.applied.is_empty() {
            write!(f, "schema {} is up to date; nothing was done", self.to)?;
        } else {
            write!(f, "schema {} (was {}): applied {}", self.to, self.from, self.applied.join(", "))?;
        }
        write!(f, "; objects belong to {:?}", self.owner)?;
        if let Some(reason) = &self.unindexed_search {
            write!(
                f,
                "\nsearch scans the dashboards, which is fine up to some ten thousand: {reason}. To change that, let an \
                 administrator run CREATE EXTENSION pg_trgm in this database; then run `migrate` again"
            )?;
        }
        self.advice.as_ref().map_or(Ok(()), |advice| write!(f, "\n{advice}"))
    }
}

/// Why `migrate` did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The schema is that of a later release, with which this program cannot work. It was left as it is.
    #[error("{0}")]
    TooNew(String),
    /// Anything else.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Brings the schema up to date, past any pooler when `direct` is set. Waits for a database that is just starting, and for
/// another `migrate`. Interrupted at any point it can be run again.
pub async fn migrate(config: &config::Postgres) -> Result<Report, MigrateError> {
    let credentials = Credentials::read(config)?;
    let options = connect_options(config, &credentials, config.direct.as_ref());
    let mut connection = connect(&options).await?;
    let outcome = run(&mut connection).await;
    // The work is done or undone; an error at the goodbye changes neither.
    let _ = connection.close().await;
    outcome
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let started = Instant::now();
    let mut reported = false;
    loop {
        let attempt = tokio::time::timeout(Duration::from_secs(5), options.connect()).await;
        let error = match attempt {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => classify(&error),
            Err(_) => StoreError::Unavailable("PostgreSQL did not answer within 5s".to_owned()),
        };
        if !matches!(error, StoreError::Unavailable(_)) || started.elapsed() >= CONNECT_PATIENCE {
            return Err(error);
        }
        if !std::mem::replace(&mut reported, true) {
            tracing::info!(host = options.get_host(), port = options.get_port(), %error, "waiting for the database");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn run(connection: &mut PgConnection) -> Result<Report, MigrateError> {
    let (owner, advice) = in_transaction(connection, async |connection| {
        let ownership = owner::prepare(connection).await?;
        execute(connection, VERSIONS).await?;
        Ok(ownership)
    })
    .await?;
    let before = schema::find(connection, false).await.map_err(|error| classify(&error))?;
    if let Err(Misfit::TooNew(text)) = schema::check(before) {
        return Err(MigrateError::TooNew(text));
    }
    let mut applied = Vec::new();
    for migration in known() {
        let done = in_transaction(connection, async |connection| {
            owner::become_owner(connection, &owner).await?;
            apply(connection, migration).await
        })
        .await?;
        applied.extend(done.then_some(migration.name));
    }
    let unindexed_search = index_search(connection, &owner).await?;
    let after: Found = schema::find(connection, false).await.map_err(|error| classify(&error))?;
    schema::check(after).map_err(|misfit| StoreError::Failed(misfit.into_text()))?;
    Ok(Report { from: before.version, to: after.version, applied, owner, advice, unindexed_search })
}

/// Makes the index of search where the extension is there or may be made; else why not. No reason to fail: search works
/// without it.
async fn index_search(connection: &mut PgConnection, owner: &str) -> Result<Option<String>, StoreError> {
    const SCHEMA: &str = "SELECT quote_ident(nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                          WHERE extname = 'pg_trgm'";
    let schema = async |connection: &mut PgConnection| {
        let row = sqlx::query(SCHEMA).persistent(false).fetch_optional(connection).await;
        let row = row.map_err(|error| classify(&error))?;
        row.map(|row| row.try_get::<String, _>(0)).transpose().map_err(|error| classify(&error))
    };
    let mut found = schema(connection).await?;
    if found.is_none() {
        let made = in_transaction(connection, async |connection| {
            execute(connection, "CREATE EXTENSION IF NOT EXISTS pg_trgm").await
        });
        if let Err(error) = made.await {
            return Ok(Some(error.to_string()));
        }
        found = schema(connection).await?;
    }
    let Some(schema) = found else { return Ok(Some("pg_trgm is not there".to_owned())) };
    let made = in_transaction(connection, async |connection| {
        owner::become_owner(connection, owner).await?;
        execute(connection, &search::INDEX.replace("{schema}", &schema)).await
    });
    Ok(made.await.err().map(|error| error.to_string()))
}

/// Runs a step in a transaction that holds the lock of migrations. Locks of sessions would not survive a pooler.
async fn in_transaction<T>(
    connection: &mut PgConnection,
    step: impl AsyncFnOnce(&mut PgConnection) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    execute(connection, "BEGIN").await?;
    let result = match execute(connection, LOCK).await {
        Ok(()) => step(connection).await,
        Err(error) => Err(error),
    };
    execute(connection, if result.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    result
}

/// Applies one migration, unless that was done before; then its text must be the same.
async fn apply(connection: &mut PgConnection, migration: &Migration) -> Result<bool, StoreError> {
    let checksum = blake3::hash(migration.sql.as_bytes()).to_hex().to_string();
    let known = sqlx::query("SELECT checksum FROM perses.schema_version WHERE version = $1")
        .persistent(false)
        .bind(migration.version)
        .fetch_optional(&mut *connection)
        .await
        .map_err(|error| classify(&error))?;
    if let Some(row) = known {
        let stored: String = row.try_get(0).map_err(|error| classify(&error))?;
        if stored != checksum {
            return Err(StoreError::Failed(format!(
                "migration {} was changed after it was applied: the database has checksum {stored}, this program {checksum}; \
                 use the program that made the schema, or a later release",
                migration.name
            )));
        }
        return Ok(false);
    }
    let all = statements::split(migration.sql);
    for (number, statement) in all.iter().enumerate() {
        let first_line = statement.lines().next().unwrap_or_default();
        tracing::info!(migration = migration.name, "statement {} of {}: {first_line}", number + 1, all.len());
        execute(connection, statement)
            .await
            .map_err(|error| StoreError::Failed(format!("migration {}, {first_line:?}: {error}", migration.name)))?;
    }
    sqlx::query("INSERT INTO perses.schema_version (version, name, needs, checksum) VALUES ($1, $2, $3, $4)")
        .persistent(false)
        .bind(migration.version)
        .bind(migration.name)
        .bind(migration.needs)
        .bind(checksum)
        .execute(connection)
        .await
        .map_err(|error| classify(&error))?;
    Ok(true)
}

/// Runs a statement without parameters.
pub(super) async fn execute(connection: &mut PgConnection, sql: &str) -> Result<(), StoreError> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.map(|_| ()).map_err(|error| {
        if code(&error) == "42501" {
            return StoreError::Failed(format!(
                "the user of database.postgres lacks a right ({error}): it needs CREATE on the database \
                 (`GRANT CREATE ON DATABASE ... TO ...`) and membership in the owner of the schema \"perses\""
            ));
        }
        classify(&error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_gaps_and_never_ask_for_what_is_not_there_yet() {
        for (index, migration) in RELEASED.iter().enumerate() {
            assert_eq!(migration.version, i64::try_from(index).unwrap() + 1);
            assert!(migration.name.starts_with(&format!("{:04}_", migration.version)));
            assert!(migration.needs <= migration.version);
        }
        assert!(RELEASED.is_sorted_by_key(|migration| migration.needs));
    }
}
