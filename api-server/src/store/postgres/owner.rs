//! Who owns the objects: a role that cannot sign in, so that login roles can come and go.

use sqlx::{PgConnection, Row};

use super::error::classify;
use super::migrate::execute;
use crate::store::StoreError;

/// Oldest PostgreSQL that is supported, as `server_version_num`.
const OLDEST_SERVER: i32 = 150_000;

/// What the server and the current role are.
#[derive(Debug)]
struct Facts {
    version: i32,
    database: String,
    user: String,
    may_create_roles: bool,
    owner_exists: bool,
}

/// Makes the schema `perses` and sees to it that the owner role has it, as far as this login role may. Returns the owner,
/// and what an administrator should do when it is only the login role. The caller holds the lock of migrations.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(String, Option<String>), StoreError> {
    let facts = facts(connection).await?;
    if facts.version < OLDEST_SERVER {
        return Err(StoreError::Failed(format!(
            "PostgreSQL 15 or later is needed, this is {}",
            f64::from(facts.version) / 10_000.0
        )));
    }
    let wanted = format!("{}_owner", facts.database);
    if !facts.owner_exists && facts.may_create_roles {
        execute(connection, &format!("CREATE ROLE {} NOLOGIN", quote(&wanted))).await?;
        execute(connection, &format!("GRANT {} TO {}", quote(&wanted), quote(&facts.user))).await?;
    }
    // Membership is not enough from PostgreSQL 16 on.
    let right = if facts.version >= 160_000 { "SET" } else { "MEMBER" };
    let usable = (facts.owner_exists || facts.may_create_roles) && has_role(connection, &wanted, right).await?;
    let (owner, advice) = if usable {
        (wanted, None)
    } else {
        let advice = format!(
            "the objects belong to the login role {user}, so its credentials cannot be replaced by those of another role. \
             To change that, let an administrator run: {create}GRANT {owner} TO {user}; then run `migrate` again",
            user = quote(&facts.user),
            owner = quote(&wanted),
            create =
                if facts.owner_exists { String::new() } else { format!("CREATE ROLE {} NOLOGIN; ", quote(&wanted)) },
        );
        (facts.user.clone(), Some(advice))
    };
    match schema_owner(connection).await? {
        None => execute(connection, &format!("CREATE SCHEMA perses AUTHORIZATION {}", quote(&owner))).await?,
        Some(present) if present == owner => {}
        // A role that this one is a member of, made by hand: it is as good.
        Some(present) if advice.is_some() => {
            if !has_role(connection, &present, right).await? {
                return Err(StoreError::Failed(format!(
                    "the schema \"perses\" belongs to {present:?}, which {:?} is no member of: let an administrator run \
                     GRANT {} TO {}",
                    facts.user,
                    quote(&present),
                    quote(&facts.user)
                )));
            }
            become_owner(connection, &present).await?;
            return Ok((present, None));
        }
        Some(_) => hand_over(connection, &owner).await?,
    }
    become_owner(connection, &owner).await?;
    Ok((owner, advice))
}

/// Acts as the owner until the transaction ends, so that what is created belongs to it.
pub(super) async fn become_owner(connection: &mut PgConnection, owner: &str) -> Result<(), StoreError> {
    execute(connection, &format!("SET LOCAL ROLE {}", quote(owner))).await
}

/// Gives the schema and all in it to another role. What belongs to a table (indexes, identity sequences) goes with it.
async fn hand_over(connection: &mut PgConnection, owner: &str) -> Result<(), StoreError> {
    tracing::info!(owner, "handing the schema over to its owner role");
    execute(connection, &format!("ALTER SCHEMA perses OWNER TO {}", quote(owner))).await?;
    let rows = sqlx::query(
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'perses'::regnamespace
         AND c.relkind IN ('r', 'p', 'S', 'v', 'm') AND NOT EXISTS (
             SELECT FROM pg_depend d
             WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
         )",
    )
    .persistent(false)
    .fetch_all(&mut *connection)
    .await
    .map_err(|error| classify(&error))?;
    for row in rows {
        let relation: String = row.try_get(0).map_err(|error| classify(&error))?;
        execute(connection, &format!("ALTER TABLE {relation} OWNER TO {}", quote(owner))).await?;
    }
    Ok(())
}

async fn facts(connection: &mut PgConnection) -> Result<Facts, StoreError> {
    let query = sqlx::query(
        "SELECT current_setting('server_version_num')::int, current_database()::text, current_user::text,
                (SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user),
                EXISTS (SELECT FROM pg_roles WHERE rolname = current_database() || '_owner')",
    );
    let read = async {
        let row = query.persistent(false).fetch_one(connection).await?;
        Ok::<_, sqlx::Error>(Facts {
            version: row.try_get(0)?,
            database: row.try_get(1)?,
            user: row.try_get(2)?,
            may_create_roles: row.try_get(3)?,
            owner_exists: row.try_get(4)?,
        })
    };
    read.await.map_err(|error| classify(&error))
}

async fn has_role(connection: &mut PgConnection, role: &str, right: &str) -> Result<bool, StoreError> {
    let query =
        sqlx::query("SELECT pg_has_role(current_user, $1::name, $2::text)").persistent(false).bind(role).bind(right);
    let row = query.fetch_one(connection).await.map_err(|error| classify(&error))?;
    row.try_get(0).map_err(|error| classify(&error))
}

async fn schema_owner(connection: &mut PgConnection) -> Result<Option<String>, StoreError> {
    let query = sqlx::query("SELECT pg_get_userbyid(nspowner)::text FROM pg_namespace WHERE nspname = 'perses'");
    let row = query.persistent(false).fetch_optional(connection).await.map_err(|error| classify(&error))?;
    row.map(|row| row.try_get(0)).transpose().map_err(|error| classify(&error))
}

/// A name as an identifier of SQL.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
