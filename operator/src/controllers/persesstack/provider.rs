//! PURE: which store a stack has, and what must be said twice before data is left behind or backups end.

use super::build::names::Names;
use super::crunchy::{CrunchySchema, refused_parameter};
use super::observed::Observed;
use super::validate::Invalid;
use crate::api::v1alpha1::{BackupType, DatabaseType, PersesStack, PersesStackSpec, PoolerType};
use crate::apply::kind::Kind;
use crate::sizing::Bytes;

/// Annotation of a PersesStack that allows another store under it; its value is the new `spec.database.type`.
pub const CONFIRM_DATABASE_CHANGE: &str = "persesstack.io/confirm-database-change";
/// Annotation of a PersesStack that allows to end its backups; its value is the name of the PostgresCluster.
pub const CONFIRM_BACKUP_REMOVAL: &str = "persesstack.io/confirm-backup-removal";

/// Name under which a pooler gives the replicas' copy of the database.
pub const READ_ONLY: &str = "perses_ro";

/// Users up to which `Auto` runs one PostgreSQL pod.
pub const AUTO_STANDALONE_USERS: i32 = 50;

/// A cluster of Crunchy's operator that can be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterPlan {
    /// What its CRD can express.
    pub schema: CrunchySchema,
    /// The end of its backups is confirmed.
    pub backups_end: bool,
}

/// The store, never `Auto`.
///
/// # Errors
/// No store can be chosen, or another one has the data and the change is not confirmed.
pub(super) fn database_type(stack: &PersesStack, observed: &Observed, names: &Names) -> Result<DatabaseType, Invalid> {
    let spec = &stack.spec;
    // The status knows which one is in use when several have been; retained objects know it of a stack that is made again.
    let in_use = stack.status.as_ref().and_then(|status| status.database.as_ref()).map(|database| database.type_);
    let present = in_use.or(observed.database).filter(|found| *found != DatabaseType::Auto);
    let chosen = match (spec.database.type_, present) {
        // What somebody else runs has left nothing here to go on with.
        (DatabaseType::Auto, Some(found)) if found != DatabaseType::External => found,
        (DatabaseType::Auto, _) => automatic(spec, observed)?,
        (DatabaseType::External, _) if spec.database.external.is_none() => {
            return Err(Invalid::terminal(
                "DatabaseIncomplete",
                "spec.database.type is External: set spec.database.external",
            ));
        }
        (chosen, _) => chosen,
    };
    match present {
        Some(present) if present != chosen && confirmed(stack, CONFIRM_DATABASE_CHANGE) != Some(chosen.as_str()) => {
            Err(Invalid::terminal("DatabaseHoldsData", left_behind(names, present, chosen)))
        }
        _ => Ok(chosen),
    }
}

fn automatic(spec: &PersesStackSpec, observed: &Observed) -> Result<DatabaseType, Invalid> {
    // The choice is for good: it is not made on half an answer.
    if observed.capabilities.has(Kind::PostgresCluster)? {
        return Ok(DatabaseType::Crunchy);
    }
    if spec.users <= AUTO_STANDALONE_USERS {
        return Ok(DatabaseType::Standalone);
    }
    Err(Invalid::terminal(
        "DatabaseNotChosen",
        format!(
            "spec.database.type is Auto and {} users are more than the {AUTO_STANDALONE_USERS} for which one PostgreSQL pod is \
             chosen by itself: install Crunchy's operator (PGO), or set spec.database.type to External with the credentials of \
             a highly available server, or to Standalone to accept one pod",
            spec.users
        ),
    ))
}

fn left_behind(names: &Names, present: DatabaseType, chosen: DatabaseType) -> String {
    let place = match present {
        DatabaseType::Standalone => format!("volume claim {}", names.database()),
        DatabaseType::Crunchy => format!("PostgresCluster {}", names.database()),
        DatabaseType::External | DatabaseType::Auto => "an external database".to_owned(),
    };
    format!(
        "spec.database.type asks for {chosen}, but this stack's data is in {place}: set the type to {present}; or export the \
         dashboards and annotate the stack with {CONFIRM_DATABASE_CHANGE}={chosen} to begin with an empty store (with \
         deletionPolicy Retain the old one stays)",
        chosen = chosen.as_str(),
        present = present.as_str(),
    )
}

fn confirmed<'a>(stack: &'a PersesStack, annotation: &str) -> Option<&'a str> {
    stack.metadata.annotations.as_ref()?.get(annotation).map(String::as_str)
}

/// Checks what the spec wants of a cluster against what is installed and what exists.
///
/// # Errors
/// What only another spec, a confirmation or another version of Crunchy's operator cures; and, not terminal, that the API
/// server does not say what the CRD can express.
pub(super) fn cluster(stack: &PersesStack, observed: &Observed, names: &Names) -> Result<ClusterPlan, Invalid> {
    let wanted = stack.spec.database.crunchy.clone().unwrap_or_default();
    for name in wanted.parameters.keys() {
        if let Some(why) = refused_parameter(name) {
            return Err(Invalid::terminal(
                "ParameterRefused",
                format!("spec.database.crunchy.parameters.{name} cannot be set: {why}"),
            ));
        }
    }
    if let (Some(size), Some(most)) = (&wanted.storage.size, &wanted.storage.max_size)
        && let (Ok(size), Ok(most)) = (Bytes::parse(&size.0), Bytes::parse(&most.0))
        && most < size
    {
        return Err(Invalid::terminal(
            "StorageInvalid",
            format!("spec.database.crunchy.storage.maxSize {most} is less than size {size}: raise it"),
        ));
    }
    if !observed.capabilities.has(Kind::PostgresCluster)? {
        return Err(Invalid::terminal(
            "CrunchyMissing",
            "spec.database.type is Crunchy and the API server does not serve PostgresCluster \
             (postgres-operator.crunchydata.com/v1beta1): install Crunchy's operator (PGO 5.1 or newer); the stack goes on by \
             itself then",
        ));
    }
    let schema = observed.crunchy_schema.ok_or_else(|| Invalid::unavailable(Kind::PostgresCluster))?;
    let cluster = names.database();
    let without = wanted.backups.type_ == BackupType::None;
    if without && !schema.optional_backups {
        return Err(Invalid::terminal(
            "BackupsRequired",
            "spec.database.crunchy.backups.type is None, which the installed version of Crunchy's operator refuses: set it to \
             Volume or S3, or install PGO 5.7 or newer",
        ));
    }
    let ending = without && observed.workloads.cluster.as_ref().is_some_and(|found| found.repo_host.is_some());
    let backups_end = confirmed(stack, CONFIRM_BACKUP_REMOVAL) == Some(&cluster);
    if ending && !backups_end {
        return Err(Invalid::terminal(
            "BackupsEnd",
            format!(
                "spec.database.crunchy.backups.type None ends the backups of PostgresCluster {cluster} and deletes those that \
                 exist: set the type back; or annotate the stack with {CONFIRM_BACKUP_REMOVAL}={cluster}"
            ),
        ));
    }
    Ok(ClusterPlan { schema, backups_end: without && backups_end })
}

/// Refuses poolers that do not fit the store.
pub(super) fn pooler(spec: &PersesStackSpec, database_type: DatabaseType) -> Result<(), Invalid> {
    if spec.pooler.type_ == PoolerType::Crunchy && database_type != DatabaseType::Crunchy {
        return Err(Invalid::terminal(
            "PoolerInvalid",
            format!(
                "spec.pooler.type is Crunchy and the database is of type {}: set the pooler to PgBouncer or None",
                database_type.as_str()
            ),
        ));
    }
    Ok(())
}
