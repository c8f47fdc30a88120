//! PURE: from what was found and done to the status that people and programs read.
//!
//! `Ready` says that enough API pods answer; `Reconciling` and `Stalled` say whether the operator still works on the spec
//! or cannot go on (kstatus). One condition per subsystem says which part is to blame. A cache that is away is
//! `CacheReady=False` and nothing more.

mod database;
mod exposure;
mod fit;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use super::feasible::Feasibility;
use super::monitoring;
use super::observed::{ForeignObject, WorkloadState, Workloads};
use super::validate::{Invalid, Validated};
use super::waits::{Part, Waits};
use crate::api::v1alpha1::{
    ApiStatus, CacheType, DatabaseStatus, DatabaseType, DerivationStatus, EndpointsStatus, ExposureStatus, PersesStack,
    PersesStackStatus, PoolerType, SecretsStatus, SizingStatus,
};
use crate::conditions::{Finding, Status, find, is_true, merge};
use crate::sizing::{BudgetState, Sizing};

/// Condition types.
pub mod condition {
    /// Enough API pods answer.
    pub const READY: &str = "Ready";
    /// The operator still works on the spec.
    pub const RECONCILING: &str = "Reconciling";
    /// The operator cannot go on without help.
    pub const STALLED: &str = "Stalled";
    /// The database answers and has the schema.
    pub const DATABASE: &str = "DatabaseReady";
    /// The pooler answers.
    pub const POOLER: &str = "PoolerReady";
    /// The shared cache answers.
    pub const CACHE: &str = "CacheReady";
    /// The API pods answer.
    pub const API: &str = "ApiReady";
    /// The credentials of all declared datasources are there; present only when datasources are declared.
    pub const DATASOURCES: &str = "DatasourcesReady";
    /// Every declared way to sign in is handed to the server; present only when something can be missing for one.
    pub const AUTH: &str = "AuthReady";
    /// The service is reached from outside; present only when something exposes it, or should.
    pub const EXPOSURE: &str = "ExposureReady";
    /// What Prometheus needs to watch the stack is in place; present only when something is, or should be.
    pub const MONITORING: &str = "MonitoringReady";
    /// The connections of all layers fit into each other.
    pub const BUDGET: &str = "ConnectionBudget";
    /// No pod runs because the spec says so; present only while the stack falls asleep, sleeps and wakes.
    pub const SUSPENDED: &str = "Suspended";
    /// Every rotation that was asked for is done; present only when one was ever asked for.
    pub const ROTATED: &str = "CredentialsRotated";
    /// The spec can be carried out.
    pub const FEASIBLE: &str = "Feasible";
    /// An object of somebody else is in the way; present only then.
    pub const CONFLICT: &str = "NameConflict";
}

/// What a reconcile found and did.
#[derive(Debug)]
pub struct Report<'a> {
    /// The plan, or why there is none.
    pub plan: Result<Planned<'a>, &'a Invalid>,
    /// Readiness of what runs, after the apply.
    pub workloads: &'a Workloads,
    /// Objects of others under our names.
    pub foreign: &'a [ForeignObject],
    /// A request that failed.
    pub failed: Option<String>,
    /// Objects that are being deleted and will be made again.
    pub terminating: &'a [String],
    /// Pods are replaced later, because other stacks are being replaced now.
    pub waits_turn: bool,
}

/// A spec that can be carried out.
#[derive(Clone, Copy, Debug)]
pub struct Planned<'a> {
    /// Every reference resolved or waited for.
    pub validated: &'a Validated,
    /// Every number.
    pub sizing: &'a Sizing,
    /// Name of the migration Job; `None` while the database's credentials are waited for.
    pub migration: Option<&'a str>,
    /// Whether it fits into its namespace and cluster.
    pub feasibility: &'a Feasibility,
    /// It does not, nothing of it runs, and nothing was created.
    pub held: bool,
}

/// The new status of `stack`.
pub fn compute(stack: &PersesStack, report: &Report<'_>, now: Timestamp) -> PersesStackStatus {
    let old = stack.status.clone().unwrap_or_default();
    let generation = stack.metadata.generation;
    let findings = findings(stack, report, &old.conditions);
    let conditions = merge(&old.conditions, &findings, generation, now);
    let is_ready = is_true(&conditions, condition::READY);
    let observed_generation = generation;
    match &report.plan {
        // What the last good spec made still runs: its numbers and addresses stay.
        Err(_) => PersesStackStatus { observed_generation, conditions, api: api_status(report.workloads), ..old },
        Ok(planned) => {
            let (names, validated) = (&planned.validated.names, planned.validated);
            let host = |name: String| format!("{name}.{}.svc", validated.namespace);
            PersesStackStatus {
                observed_generation,
                conditions,
                url: exposure::url(validated, report.workloads.exposure.as_ref(), old.url, &host),
                api: api_status(report.workloads),
                auth: sign_in::configured(validated),
                database: Some(DatabaseStatus { type_: validated.database_type }),
                endpoints: Some(endpoints(validated, old.endpoints, &host)),
                exposure: match &validated.exposure {
                    Some(chosen) => Some(ExposureStatus { type_: chosen.type_() }),
                    None => old.exposure,
                },
                secrets: Some(SecretsStatus { admin: Some(names.admin()), keys: Some(names.keys()) }),
                suspension: sleep::times(old.suspension, stack.spec.suspend, is_ready, now),
                sizing: Some(sizing_status(planned.sizing)),
            }
        }
    }
}

/// The status of a stack that is being deleted and cannot go yet: only what is known of that changes.
pub fn leaving(stack: &PersesStack, why: &str, now: Timestamp) -> PersesStackStatus {
    let old = stack.status.clone().unwrap_or_default();
    let message =
        format!("being deleted; what is outside the namespace could not be removed: {why}; it is tried again");
    let finding = Finding::new(condition::RECONCILING, true, "RequestFailed", message);
    let mut conditions = merge(&old.conditions, &[finding], stack.metadata.generation, now);
    conditions.extend(old.conditions.iter().filter(|found| found.type_ != condition::RECONCILING).cloned());
    PersesStackStatus { conditions, ..old }
}

fn endpoints(validated: &Validated, old: Option<EndpointsStatus>, host: &impl Fn(String) -> String) -> EndpointsStatus {
    let names = &validated.names;
    let pooler = match validated.spec.pooler.type_ {
        PoolerType::PgBouncer => Some(names.pgbouncer()),
        PoolerType::Crunchy => Some(format!("{}-pgbouncer", names.database())),
        PoolerType::None => None,
    };
    let cache = match validated.spec.cache.type_ {
        CacheType::Standalone => Some(6379),
        // Of the sentinels: who leads changes.
        CacheType::Sentinel => Some(26379),
        CacheType::External | CacheType::None => None,
    };
    let database = match (validated.database_type, &validated.endpoint) {
        (DatabaseType::Standalone, _) => Some(format!("{}:5432", host(names.database()))),
        (DatabaseType::Crunchy, _) => Some(format!("{}:5432", host(format!("{}-primary", names.database())))),
        (_, Some(endpoint)) => Some(format!("{}:{}", endpoint.host, endpoint.port)),
        // Its Secret is away; what runs still uses the address.
        (_, None) => old.and_then(|old| old.database),
    };
    EndpointsStatus {
        api: Some(format!("{}:8080", host(names.api()))),
        pooler: pooler.map(|name| format!("{}:5432", host(name))),
        database,
        cache: cache.map(|port| format!("{}:{port}", host(names.redis()))),
    }
}

fn api_status(workloads: &Workloads) -> Option<ApiStatus> {
    let api = workloads.api.as_ref()?;
    let summary = format!("{}/{}", api.ready, api.desired);
    Some(ApiStatus { replicas: api.desired, ready: api.ready, summary })
}

fn sizing_status(sizing: &Sizing) -> SizingStatus {
    let number = |found: crate::sizing::Derivation| {
        let inputs: BTreeMap<_, _> = found.inputs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let status = DerivationStatus {
            value: found.value,
            formula: found.formula.to_owned(),
            inputs,
            limiting_factor: found.limiting_factor,
            overrides: found.overrides,
        };
        (found.field.to_owned(), status)
    };
    SizingStatus { model: sizing.model, numbers: sizing.derivations().into_iter().map(number).collect() }
}

fn findings(stack: &PersesStack, report: &Report<'_>, old: &[Condition]) -> Vec<Finding> {
    let mut parts = Vec::new();
    match &report.plan {
        Ok(planned) => {
            let waits = &planned.validated.waits;
            parts.push(database::finding(planned, report.workloads, old, stack.metadata.generation));
            if planned.validated.spec.pooler.type_ == PoolerType::Crunchy {
                parts.push(held(waits, Part::Pooler, database::crunchy_pooler(report.workloads)));
            } else if planned.sizing.pooler.is_some() {
                let pods = pods(condition::POOLER, report.workloads.pgbouncer.as_ref(), 1, "PgBouncer");
                parts.push(held(waits, Part::Pooler, pods));
            }
            if planned.sizing.redis.is_some() {
                let pods = pods(condition::CACHE, report.workloads.redis.as_ref(), 1, "Redis");
                parts.push(held(waits, Part::Cache, pods));
            }
            parts.push(held(waits, Part::Api, api(planned, report.workloads)));
            parts.extend(datasources(planned.validated));
            parts.extend(sign_in::finding(planned.validated));
            parts.extend(exposure::finding(planned.validated, report.workloads.exposure.as_ref()));
            parts.extend(monitoring::finding(planned.validated, &report.workloads.monitoring));
            let rotation = planned.validated.rotation.as_ref();
            parts.extend(
                rotation.map(|(reason, text)| {
                    Finding::new(condition::ROTATED, *reason == "RotationCompleted", reason, text)
                }),
            );
            parts.push(budget(planned.sizing));
            parts.push(fit::feasible(planned.sizing, planned.feasibility));
            let waking = sleep::wakes(stack);
            sleep::mark(&mut parts, planned.validated, report.workloads, waking);
        }
        Err(invalid) => {
            // Only what can be said without a plan.
            if let Some(api) = &report.workloads.api {
                parts.push(pods(condition::API, Some(api), 1, "API"));
            }
            parts.push(Finding::new(condition::FEASIBLE, false, invalid.reason, &invalid.message));
        }
    }
    if !report.foreign.is_empty() {
        parts.push(Finding::new(condition::CONFLICT, true, "ForeignObject", conflict(report.foreign)));
    }
    let mut all = vec![ready(report, &parts), reconciling(stack, report, &parts), stalled(report, &parts)];
    all.append(&mut parts);
    all
}

fn conflict(foreign: &[ForeignObject]) -> String {
    let list: Vec<String> =
        foreign.iter().map(|found| format!("{} {} ({})", found.kind, found.name, found.owner)).collect();
    format!(
        "in the way and left alone: {}; delete or rename them, or create the stack under another name",
        list.join(", ")
    )
}

/// A part that is held back says for what it waits, unless what was made of it before still works.
fn held(waits: &Waits, part: Part, finding: Finding) -> Finding {
    match waits.of(part) {
        Some((reason, message)) if finding.status != Status::True => {
            Finding::new(finding.type_, false, reason, message)
        }
        _ => finding,
    }
}

fn datasources(validated: &Validated) -> Option<Finding> {
    let type_ = condition::DATASOURCES;
    let declared = validated.spec.datasources.len();
    (declared > 0).then(|| match validated.waits.of(Part::Datasource) {
        Some((reason, message)) => Finding::new(
            type_,
            false,
            reason,
            format!("{} of {declared} datasources are handed to the server; {message}", validated.datasources.len()),
        ),
        None if validated.bindings_forbidden && super::datasources::uses_openshift(&validated.spec) => {
            Finding::new(type_, Status::Unknown, "BindingForbidden", sign_in::forbidden(validated))
        }
        None => Finding::new(type_, true, "Resolved", format!("all {declared} datasources are handed to the server")),
    })
}

fn api(planned: &Planned<'_>, workloads: &Workloads) -> Finding {
    match &workloads.api {
        None => Finding::new(condition::API, false, "WaitingForSchema", "the API pods start when the schema is there"),
        Some(api) => {
            let wanted = planned.sizing.api.min_replicas.value.min(api.desired).max(1);
            pods(condition::API, Some(api), wanted, "API")
        }
    }
}

fn pods(type_: &'static str, workload: Option<&WorkloadState>, wanted: i32, what: &str) -> Finding {
    let Some(workload) = workload else {
        return Finding::new(type_, false, "NotCreated", format!("{what} has not been created yet"));
    };
    let count = format!("{} of {} {what} pods are ready", workload.ready, workload.desired);
    if workload.ready >= wanted {
        Finding::new(type_, true, "PodsReady", count)
    } else {
        let message = workload.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
        Finding::new(type_, false, "PodsNotReady", count + &message)
    }
}

fn budget(sizing: &Sizing) -> Finding {
    let (status, reason) = match sizing.budget.state {
        BudgetState::Holds => (Status::True, "Holds"),
        BudgetState::Violated => (Status::False, "Violated"),
        BudgetState::Unknown => (Status::Unknown, "MaxConnectionsUnknown"),
    };
    Finding::new(condition::BUDGET, status, reason, &sizing.budget.message)
}

fn ready(report: &Report<'_>, parts: &[Finding]) -> Finding {
    let type_ = condition::READY;
    let api = parts.iter().find(|part| part.type_ == condition::API);
    if let Some(conflict) = parts.iter().find(|part| part.type_ == condition::CONFLICT) {
        return Finding::new(type_, false, "NameConflict", &conflict.message);
    }
    if let Some(found) = fit::infeasible(report, parts) {
        return Finding::new(type_, false, found.reason, &found.message);
    }
    match (&report.plan, api) {
        (_, Some(api)) if api.status == Status::True => Finding::new(type_, true, "PodsReady", &api.message),
        (Err(invalid), _) => Finding::new(type_, false, invalid.reason, &invalid.message),
        // The first part that is to blame, in the order in which they depend on each other.
        (Ok(_), Some(api)) => {
            let blamed = parts.iter().find(|part| part.type_ == condition::DATABASE && part.status == Status::False);
            let blamed = if api.reason == "WaitingForSchema" { blamed.unwrap_or(api) } else { api };
            Finding::new(type_, false, blamed.reason, &blamed.message)
        }
        (Ok(_), None) => Finding::new(type_, false, "NotCreated", "the API has not been created yet"),
    }
}

fn reconciling(stack: &PersesStack, report: &Report<'_>, parts: &[Finding]) -> Finding {
    let type_ = condition::RECONCILING;
    if let Some(failed) = &report.failed {
        return Finding::new(type_, true, "RequestFailed", format!("{failed}; it is tried again"));
    }
    if let Some(found) = fit::infeasible(report, parts) {
        return Finding::new(type_, false, found.reason, "nothing is created until it fits");
    }
    match &report.plan {
        Err(invalid) if !invalid.terminal => return Finding::new(type_, true, invalid.reason, &invalid.message),
        Err(_) => return Finding::new(type_, false, "Stalled", "waits for a changed spec"),
        Ok(planned) => {
            if let Some((reason, message)) = planned.validated.waits.all() {
                return Finding::new(type_, true, reason, message);
            }
        }
    }
    if too_new(parts).is_some() {
        return Finding::new(type_, false, "Stalled", "waits for a changed spec, or for another schema");
    }
    if report.waits_turn {
        let message = "the operator has a newer template for the pods, and other stacks are being replaced now: this one \
                       goes on as it is until it is its turn";
        return Finding::new(type_, true, "WaitingForTurn", message);
    }
    if let Some(part) = parts.iter().find(|part| part.type_ == condition::SUSPENDED) {
        return Finding::new(type_, part.status == Status::False, part.reason, &part.message);
    }
    if !report.terminating.is_empty() {
        let message = format!("being deleted, made again afterwards: {}", report.terminating.join(", "));
        return Finding::new(type_, true, "Terminating", message);
    }
    if let Some(part) = parts.iter().find(|part| {
        [condition::DATABASE, condition::API].contains(&part.type_)
            && (part.status == Status::False || part.reason == "Migrating")
    }) {
        return Finding::new(type_, true, part.reason, &part.message);
    }
    // A cluster that is not settled is `DatabaseReady=False`, which is told above.
    let Workloads { api, redis, database, cluster: _, pgbouncer, migrations: _, hpa: _, exposure: _, monitoring: _ } =
        report.workloads;
    let all = [("API", api), ("PostgreSQL", database), ("PgBouncer", pgbouncer), ("Redis", redis)];
    if let Some((what, state)) = all.iter().find(|(_, state)| state.as_ref().is_some_and(|state| !state.settled())) {
        let counts = state.as_ref().map(|state| {
            format!("{} of {} pods are updated, {} ready", state.updated.min(state.desired), state.desired, state.ready)
        });
        return Finding::new(type_, true, "RollingOut", format!("{what}: {}", counts.unwrap_or_default()));
    }
    let generation = stack.metadata.generation.unwrap_or_default();
    Finding::new(type_, false, "Settled", format!("generation {generation} of the spec is in place"))
}

/// The wished image cannot work with the schema.
fn too_new(parts: &[Finding]) -> Option<&Finding> {
    parts.iter().find(|part| part.type_ == condition::DATABASE && part.reason == database::TOO_NEW)
}

fn stalled(report: &Report<'_>, parts: &[Finding]) -> Finding {
    let type_ = condition::STALLED;
    if let Err(invalid) = &report.plan
        && invalid.terminal
    {
        return Finding::new(type_, true, invalid.reason, &invalid.message);
    }
    if let Some(found) = fit::infeasible(report, parts) {
        return Finding::new(type_, true, found.reason, &found.message);
    }
    if !report.foreign.is_empty() {
        return Finding::new(type_, true, "NameConflict", conflict(report.foreign));
    }
    if let Some(part) = too_new(parts) {
        return Finding::new(type_, true, part.reason, &part.message);
    }
    if let Some(message) = report.workloads.api.as_ref().and_then(|api| api.message.as_ref()) {
        return Finding::new(type_, true, "RolloutStuck", message);
    }
    Finding::new(type_, false, "Proceeding", "nothing is in the way")
}

/// Conditions whose changes become events.
pub const TOLD: [&str; 11] = [
    condition::READY,
    condition::STALLED,
    condition::CONFLICT,
    condition::DATABASE,
    condition::CACHE,
    condition::DATASOURCES,
    condition::AUTH,
    condition::EXPOSURE,
    condition::MONITORING,
    condition::ROTATED,
    condition::SUSPENDED,
];

/// What people should be told of once, when it begins: changes of the conditions that matter. PURE.
pub fn news<'a>(old: &[Condition], new: &'a [Condition]) -> Vec<(&'a Condition, bool)> {
    let good_when_true = |type_: &str| ![condition::STALLED, condition::CONFLICT].contains(&type_);
    // Asked for, whatever it is.
    let wished = |condition: &Condition| {
        ["Suspended", "Suspending", "Waking", "RotationStarted", "RotationWaits"].contains(&condition.reason.as_str())
    };
    new.iter()
        .filter(|condition| TOLD.contains(&condition.type_.as_str()))
        .filter_map(|condition| {
            let before = find(old, &condition.type_);
            let good = wished(condition) || (condition.status == "True") == good_when_true(&condition.type_);
            let same =
                before.is_some_and(|before| before.status == condition.status && before.reason == condition.reason);
            // The first "nothing is wrong" is no news.
            let first = before.is_none() && good && condition.type_ != self::condition::READY;
            let first = first && condition.reason != "RotationStarted";
            (!same && !first).then_some((condition, good))
        })
        .collect()
}

mod sign_in;
mod sleep;
#[cfg(test)]
mod tests;
