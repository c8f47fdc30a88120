//! PURE: what is said of the database, and of the pooler that comes with it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Planned, condition, held, pods};
use crate::api::v1alpha1::DatabaseType;
use crate::conditions::{Finding, Status, find};
use crate::controllers::persesstack::crunchy::ProxyState;
use crate::controllers::persesstack::observed::{JobState, Workloads};
use crate::controllers::persesstack::waits::Part;

/// The schema is one with which the wished image cannot work.
pub(super) const TOO_NEW: &str = "SchemaTooNew";

/// Whether the database answers and has the schema of this image.
pub(super) fn finding(
    planned: &Planned<'_>,
    workloads: &Workloads,
    old: &[Condition],
    generation: Option<i64>,
) -> Finding {
    let type_ = condition::DATABASE;
    let waits = &planned.validated.waits;
    match planned.validated.database_type {
        DatabaseType::Standalone => {
            let server = pods(type_, workloads.database.as_ref(), 1, "PostgreSQL");
            if server.status != Status::True {
                return held(waits, Part::Database, server);
            }
        }
        DatabaseType::Crunchy => {
            let Some(cluster) = &workloads.cluster else {
                let waiting = Finding::new(type_, false, "NotCreated", "the PostgresCluster has not been created yet");
                return held(waits, Part::Database, waiting);
            };
            if let Err((reason, message)) = cluster.ready(planned.validated.cluster_credentials.as_ref()) {
                return Finding::new(type_, false, reason, message);
            }
            if let Some(error) = &cluster.resize_error {
                let message = format!("Crunchy's operator cannot resize a volume: {error}");
                return Finding::new(type_, false, "ResizeFailed", message);
            }
        }
        DatabaseType::External | DatabaseType::Auto => {}
    }
    let Some(migration) = planned.migration else {
        let waiting = Finding::new(type_, false, "NotCreated", "the migration has not been created yet");
        return held(waits, Part::Migration, waiting);
    };
    match workloads.migrations.get(migration) {
        Some(JobState { complete: true, .. }) => {
            let message = "the database answers and has this image's schema";
            Finding::new(type_, true, "SchemaReady", format!("{message}{}", remark(planned)))
        }
        Some(JobState { too_new: true, .. }) => too_new(planned),
        Some(JobState { failed: Some(message), .. }) => Finding::new(
            type_,
            false,
            "MigrationFailed",
            format!("Job {migration} failed: {message}; look at its pod's log. It is tried again"),
        ),
        // The same question again: the answer is not known yet.
        _ if find(old, type_)
            .is_some_and(|before| before.reason == TOO_NEW && before.observed_generation == generation) =>
        {
            too_new(planned)
        }
        // During an upgrade the old schema serves on.
        _ if find(old, type_).is_some_and(|before| before.status == "True") && workloads.api.is_some() => {
            Finding::new(type_, true, "Migrating", format!("Job {migration} brings the schema up to date"))
        }
        _ => Finding::new(type_, false, "Migrating", format!("Job {migration} makes the schema")),
    }
}

fn too_new(planned: &Planned<'_>) -> Finding {
    let image = &planned.validated.images.api_server;
    let message = format!(
        "a later release has changed the schema so that {image} cannot work with it: it is not rolled out, and what runs goes \
         on. Set spec.images.apiServer back to the later release, or restore a backup from before it; the log of the migration's \
         pod names the schemas. It is tried again"
    );
    Finding::new(condition::DATABASE, false, TOO_NEW, message)
}

/// What people should know of a store that is ready.
fn remark(planned: &Planned<'_>) -> &'static str {
    match (planned.validated.database_type, planned.validated.cluster) {
        (DatabaseType::Standalone, _) => {
            "; one PostgreSQL pod without backups is for development: it is away during every restart of its node, and lost \
             with its volume"
        }
        (DatabaseType::Crunchy, Some(plan)) if !plan.schema.parameters => {
            "; its settings go through Patroni's dynamic configuration, since this version of Crunchy's operator has no \
             spec.config.parameters; it sets wal_level and hot_standby itself"
        }
        (DatabaseType::Crunchy, _) => "; wal_level and hot_standby are set by Crunchy's operator itself",
        _ => "",
    }
}

/// Whether Crunchy's own pooler answers.
pub(super) fn crunchy_pooler(workloads: &Workloads) -> Finding {
    let type_ = condition::POOLER;
    let answers = |proxy: &ProxyState| proxy.available && !proxy.revision.is_empty();
    match &workloads.cluster {
        Some(cluster) if cluster.proxy.as_ref().is_some_and(answers) => {
            Finding::new(type_, true, "ProxyAvailable", "Crunchy's PgBouncer answers")
        }
        Some(_) => Finding::new(type_, false, "ProxyNotAvailable", "Crunchy's PgBouncer does not answer yet"),
        None => Finding::new(type_, false, "NotCreated", "the PostgresCluster has not been created yet"),
    }
}
