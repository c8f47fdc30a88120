//! The apply step of a reconcile (I/O): every object of the plan in its order, then what is no longer wanted.

use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use super::context::Context;
use super::job::{self, Verdict};
use super::observe::Picture;
use super::observed::ForeignObject;
use super::reconcile::Ready;
use super::suspension::Pods;
use crate::apply::ApplyError;
use crate::apply::kind::Kind;
use crate::apply::mounts::mounts;
use crate::apply::order::Plan;
use crate::apply::owner::StackId;
use crate::apply::prune::{leftovers, secrets_in_use};
use crate::apply::ssa::{Applier, Child, Outcome};

/// What the apply step met.
#[derive(Default)]
pub(super) struct Applied {
    /// Objects of others under our names.
    pub(super) foreign: Vec<ForeignObject>,
    /// Objects that are being deleted and are made again.
    pub(super) terminating: Vec<String>,
    /// The first request that failed.
    pub(super) failed: Option<ApplyError>,
    /// A Job has failed and is started again after this time.
    pub(super) retry_job: Option<Duration>,
    /// Pods are replaced later: other stacks are being replaced now.
    pub(super) waits_turn: bool,
}

/// Applies the plan, then deletes what is no longer wanted.
pub(super) async fn apply(
    context: &Context,
    id: &StackId,
    picture: &mut Picture,
    ready: &Ready,
    unasked: bool,
) -> Applied {
    let mut applied = Applied::default();
    let Picture { inventory, bindings, observed: _ } = picture;
    let (client, metrics) = (&context.client, &context.metrics);
    let mut applier = Applier { client, metrics, stack: id, inventory, bindings };
    if ready.plan.children().any(|child| applier.rolls(child)) {
        let (key, now) = ((id.namespace.clone(), id.name.clone()), Instant::now());
        if unasked {
            applied.waits_turn = !context.turns.take(&key, context.settings.max_rolling, now);
        } else {
            context.turns.grant(&key, now);
        }
    }
    if let Err(error) = everything(&mut applier, context, ready, &mut applied).await {
        // The first failure is told; it is the one that stopped us.
        applied.failed.get_or_insert(error);
    }
    applied
}

async fn everything(
    applier: &mut Applier<'_>,
    context: &Context,
    ready: &Ready,
    applied: &mut Applied,
) -> Result<(), ApplyError> {
    let (plan, running) = (&ready.plan, ready.validated.running);
    for child in &plan.generated {
        // The others embed its content: a failure or a lost race ends this reconcile, the next one reads the winner's.
        note(applier.apply(child).await?, &child.name, child.kind, applied);
    }
    for child in &plan.base {
        let held = child.kind == Kind::Job && (running.holds_migration || applied.waits_turn);
        if !held {
            attempt(applier, child, applied).await?;
        }
        // Nothing but its own end waits for the Job of a rotation.
        if child.kind == Kind::Job && plan.migration.as_ref() != Some(&child.name) {
            ended(applier, &child.name, applied).await?;
        }
    }
    for binding in &plan.bindings {
        bind(applier, binding, applied).await?;
    }
    // No pod starts where all are taken away, so none needs the schema.
    if running.api == Pods::Stop || migrated(applier, plan, applied).await? {
        for child in &plan.gated {
            // The Deployment comes first; where it could not come an autoscaler would only complain, or scale a stranger's.
            let scales_nothing = child.kind == Kind::HorizontalPodAutoscaler
                && applier.inventory.get(Kind::Deployment, &child.name).is_none();
            if !scales_nothing {
                attempt(applier, child, applied).await?;
            }
        }
    }
    // With something undone nothing is deleted: what looks unwanted may still be needed.
    if applied.failed.is_some() || applied.waits_turn || !applied.terminating.is_empty() || !plan.complete {
        return Ok(());
    }
    if !applier.bindings.forbidden {
        applier.prune_bindings(&plan.bindings).await?;
    }
    let wanted = plan.children().map(|child| (child.kind, child.name.clone())).collect();
    let none = std::collections::BTreeSet::new();
    let candidates = leftovers(applier.inventory, &wanted, &none, &plan.undecided, applier.stack).len();
    if candidates == 0 {
        return Ok(());
    }
    let in_use = secrets_in_use(&context.client, applier.stack, &wanted).await?;
    let unwanted = leftovers(applier.inventory, &wanted, &in_use, &plan.undecided, applier.stack);
    let unwanted: Vec<_> =
        unwanted.into_iter().map(|(kind, name, live)| (kind, name.to_owned(), live.clone())).collect();
    for (kind, name, live) in unwanted {
        tracing::info!(kind = kind.name(), name, "deleting what is no longer wanted");
        applier.delete(kind, &name, &live).await?;
    }
    Ok(())
}

/// Applies one object; one that the server refuses does not keep the others from being applied. Pods that would mount
/// somebody else's object wait until it is out of the way.
async fn attempt(applier: &mut Applier<'_>, child: &Child, applied: &mut Applied) -> Result<(), ApplyError> {
    let is_foreign = |(kind, name): &(Kind, &str)| {
        applied.foreign.iter().any(|foreign| foreign.kind == kind.name() && foreign.name == *name)
    };
    let not_yet = applied.waits_turn && applier.rolls(child);
    if not_yet || mounts(&child.value["spec"]["template"]["spec"]).iter().any(is_foreign) {
        return Ok(());
    }
    match applier.apply(child).await {
        Ok(outcome) => note(outcome, &child.name, child.kind, applied),
        Err(error) if error.is_refusal() => _ = applied.failed.get_or_insert(error),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Keeps one binding to a cluster role; one that the server refuses does not keep the rest from being applied.
async fn bind(applier: &mut Applier<'_>, binding: &Value, applied: &mut Applied) -> Result<(), ApplyError> {
    let name = binding["metadata"]["name"].as_str().unwrap_or_default();
    match applier.keep_binding(binding).await {
        Ok(outcome) => told(outcome, name, "ClusterRoleBinding", applied),
        Err(error) if error.is_refusal() => _ = applied.failed.get_or_insert(error),
        Err(error) => return Err(error),
    }
    Ok(())
}

fn note(outcome: Outcome, name: &str, kind: Kind, applied: &mut Applied) {
    told(outcome, name, kind.name(), applied);
}

fn told(outcome: Outcome, name: &str, kind: &str, applied: &mut Applied) {
    match outcome {
        Outcome::Unchanged => {}
        Outcome::Created => tracing::info!(kind, name, "created"),
        Outcome::Changed(difference) => tracing::info!(kind, name, %difference, "applied"),
        Outcome::Terminating => applied.terminating.push(format!("{kind} {name}")),
        Outcome::Foreign(foreign) => applied.foreign.push(foreign),
    }
}

/// Whether the schema for this image and database is there.
async fn migrated(applier: &mut Applier<'_>, plan: &Plan, applied: &mut Applied) -> Result<bool, ApplyError> {
    // Without one the Deployment is held back, and what is left needs no schema.
    let Some(name) = &plan.migration else { return Ok(true) };
    // Pods for this migration have been started before: its Job did complete, wherever it is now.
    if plan.deployed_for(name, applier.inventory) {
        return Ok(true);
    }
    ended(applier, name, applied).await
}

/// Whether a Job has done its work. One that failed is started again after a while.
async fn ended(applier: &mut Applier<'_>, name: &str, applied: &mut Applied) -> Result<bool, ApplyError> {
    match job::judge(applier.inventory, name, Timestamp::now()) {
        Verdict::Ready => return Ok(true),
        Verdict::Wait => {}
        Verdict::RetryIn(wait) => applied.retry_job = Some(wait),
        Verdict::Again => {
            if let Some(live) = applier.inventory.get(Kind::Job, name).cloned() {
                applier.delete(Kind::Job, name, &live).await?;
                applied.terminating.push(format!("Job {name}"));
            }
        }
    }
    Ok(false)
}
