//! The story of one reconcile: observe -> validate -> size -> build -> apply -> status.
//!
//! Level-triggered: nothing is remembered of how far the last reconcile came; each step looks at the cluster and does what
//! is missing. Every path ends in the status, failures included.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use serde_json::Value;

use super::build::names::Names;
use super::build::{build, hosts};
use super::context::Context;
use super::feasible::{self, Feasibility, judge};
use super::inputs::sign_in_seconds;
use super::leave::unbind;
use super::observe::{Picture, job_state, observe, workloads};
use super::observed::{ForeignObject, Observed};
use super::rotation::look_again;
use super::status::{self, Planned, Report, condition};
use super::suspension::Pods;
use super::validate::{Invalid, Validated, validate};
use crate::api::v1alpha1::{PersesStack, PersesStackStatus};
use crate::apply::cluster::Binder;
use crate::apply::footprint::{footprint, present, runs};
use crate::apply::kind::Kind;
use crate::apply::mounts::mounts;
use crate::apply::order::{Plan, plan};
use crate::apply::owner::StackId;
use crate::apply::prune::{leftovers, secrets_in_use};
use crate::apply::ssa::{Applier, Child, Outcome};
use crate::apply::{ApplyError, STATUS_MANAGER};
use crate::certificate;
use crate::conditions::is_true;
use crate::settings::{Entropy, Settings};
use crate::sizing::{Sizing, size};

/// A quiet stack is looked at this often, in case a watch missed something.
const RESYNC: Duration = Duration::from_mins(10);
/// A waiting stack is looked at this often; normally a watch wakes it.
const WAITING: Duration = Duration::from_mins(1);
/// A stack that waits for its turn to roll asks again after this time.
const TURN: Duration = Duration::from_secs(5);
/// A failed Job is started again after this time.
const JOB_RETRY: Duration = Duration::from_mins(1);

/// Failures of a reconcile. The status says the same where it could be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster could not be read.
    #[error("look at the cluster")]
    Observe(#[source] ApplyError),
    /// A write failed.
    #[error("bring the stack to its desired state")]
    Apply(#[source] ApplyError),
    /// The status could not be written.
    #[error("write the status")]
    Status(#[source] Box<kube::Error>),
}

impl Error {
    /// A bounded word for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Observe(_) => "observe",
            Self::Apply(_) => "apply",
            Self::Status(_) => "status",
        }
    }
}

/// A spec that can be carried out, as far as nothing is waited for.
pub struct Ready {
    /// Every reference resolved or waited for.
    pub validated: Validated,
    /// Every number.
    pub sizing: Sizing,
    /// Every object, in order.
    pub plan: Plan,
    /// Whether it fits into its namespace and cluster.
    pub feasibility: Feasibility,
    /// Nothing of it runs and it could not come up: nothing is created.
    pub held: bool,
}

/// What the apply step met.
#[derive(Default)]
struct Applied {
    foreign: Vec<ForeignObject>,
    terminating: Vec<String>,
    failed: Option<ApplyError>,
    retry_job: Option<Duration>,
    waits_turn: bool,
}

/// Reconciles one stack. The object from the watch only names it: the state is read from the API server.
pub async fn reconcile(object: Arc<DeserializeGuard<PersesStack>>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let result = Box::pin(run(&context, &namespace, &name)).await;
    let word = result.as_ref().map_or_else(Error::category, |(_, word)| word);
    context.metrics.reconciled(word, started.elapsed());
    let (action, _) = result?;
    context.backoff.succeeded(&(namespace, name));
    Ok(action)
}

async fn run(context: &Context, namespace: &str, name: &str) -> Result<(Action, &'static str), Error> {
    let stacks: Api<DeserializeGuard<PersesStack>> = Api::namespaced(context.client.clone(), namespace);
    let read_failed = |source| Error::Observe(ApplyError::new("PersesStack", name, crate::apply::verb::GET, source));
    let stack = match stacks.get_opt(name).await.map_err(read_failed)?.map(|guard| guard.0.map_err(Box::new)) {
        Some(Ok(stack)) if stack.metadata.deletion_timestamp.is_none() => stack,
        Some(Ok(stack)) => return leave(context, &stack, namespace, name).await,
        Some(Err(invalid)) => {
            tracing::error!(namespace, name, error = %invalid.error, "this object does not fit the CRD of this operator");
            return Ok((Action::await_change(), "undecodable"));
        }
        _ => {
            context.forget(namespace, name);
            return Ok((Action::await_change(), "gone"));
        }
    };
    let id = StackId { namespace: namespace.to_owned(), name: name.to_owned(), uid: stack.uid().unwrap_or_default() };

    let mut picture = observe(context, &stack, &id).await.map_err(Error::Observe)?;
    let decided =
        entropy(&stack, &picture.observed).and_then(|entropy| decide(&stack, &picture, &context.settings, &entropy));
    let mut applied = match &decided {
        Ok(ready) if ready.held => Applied::default(),
        Ok(ready) => {
            // A spec that is in place already: what makes pods roll is a newer operator or a changed Secret.
            let unasked =
                stack.status.as_ref().is_some_and(|status| status.observed_generation == stack.metadata.generation);
            apply(context, &id, &mut picture, ready, unasked).await
        }
        Err(_) => Applied::default(),
    };
    let foreign_secrets = picture.observed.foreign.iter().filter(|found| !applied.foreign.contains(found));
    let foreign_secrets: Vec<_> = foreign_secrets.cloned().collect();
    applied.foreign.extend(foreign_secrets);

    let exposed_by = decided.as_ref().ok().and_then(|ready| ready.validated.exposure.as_ref()?.kind());
    let after = workloads(&picture.inventory, &Names::new(name), exposed_by, &picture.observed.listeners);
    let report = Report {
        plan: decided.as_ref().map(|ready| Planned {
            validated: &ready.validated,
            sizing: &ready.sizing,
            migration: ready.plan.migration.as_deref(),
            feasibility: &ready.feasibility,
            held: ready.held,
        }),
        workloads: &after,
        foreign: &applied.foreign,
        failed: applied.failed.as_ref().map(ApplyError::describe),
        terminating: &applied.terminating,
        waits_turn: applied.waits_turn,
    };
    let status = status::compute(&stack, &report, Timestamp::now());
    publish(context, &stack, &status).await.map_err(|error| Error::Status(Box::new(error)))?;
    let hpa = after.hpa.as_ref().map_or((0, 0), |hpa| (hpa.current, hpa.desired));
    let is_ready = is_true(&status.conditions, condition::READY);
    if decided.is_ok() && applied.failed.is_none() && !is_true(&status.conditions, condition::RECONCILING) {
        context.turns.done(&(namespace.to_owned(), name.to_owned()));
    }
    context.metrics.stack(namespace, name, stack.spec.users, is_ready, hpa.0, hpa.1);

    if let Some(error) = applied.failed {
        return Err(Error::Apply(error));
    }
    Ok(match (&decided, applied.retry_job) {
        (Err(invalid), _) if !invalid.terminal => (Action::requeue(WAITING), "waiting"),
        (Err(_), _) => (Action::requeue(RESYNC), "invalid"),
        (Ok(ready), _) if ready.held => (Action::requeue(WAITING), "infeasible"),
        (Ok(_), Some(wait)) => (Action::requeue(wait), "job-failed"),
        (Ok(_), None) if applied.waits_turn => (Action::requeue(TURN), "waiting"),
        (Ok(ready), None) if ready.validated.waits.first().is_some() => (Action::requeue(WAITING), "waiting"),
        (Ok(ready), None) => {
            let (rotations, live) = (&ready.validated.generated.rotations, sign_in_seconds(&stack.spec));
            let again = look_again(rotations, live, picture.observed.rotation.now).map(Duration::from_secs);
            (Action::requeue(again.map_or(RESYNC, |again| again.min(RESYNC))), "ok")
        }
    })
}

/// Lets go of a stack that is being deleted.
async fn leave(
    context: &Context,
    stack: &PersesStack,
    namespace: &str,
    name: &str,
) -> Result<(Action, &'static str), Error> {
    let id = StackId { namespace: namespace.to_owned(), name: name.to_owned(), uid: stack.uid().unwrap_or_default() };
    if let Err(error) = unbind(context, stack, &id).await {
        let status = status::leaving(stack, &error.describe(), Timestamp::now());
        publish(context, stack, &status).await.map_err(|error| Error::Status(Box::new(error)))?;
        return Err(Error::Apply(error));
    }
    context.forget(namespace, name);
    Ok((Action::await_change(), "gone"))
}

/// The pure steps.
///
/// # Errors
/// A spec that cannot be carried out.
pub fn decide(
    stack: &PersesStack,
    picture: &Picture,
    settings: &Settings,
    entropy: &Entropy,
) -> Result<Ready, Invalid> {
    let validated = validate(stack, &picture.observed, settings, entropy)?;
    let sizing = size(&validated.inputs);
    let plan = plan(&build(&validated, &sizing)?);
    let present = present(&picture.inventory, validated.names.quota());
    let feasibility = judge(&footprint(&plan), &present, &picture.observed.facts);
    let ignored = stack.annotations().get(feasible::ANNOTATION).is_some_and(|value| value == "Ignore");
    let held = feasibility.blocks() && !ignored && !runs(&picture.inventory);
    Ok(Ready { validated, sizing, plan, feasibility, held })
}

/// Fresh random bytes. They are used only where a generated Secret does not exist.
fn entropy(stack: &PersesStack, observed: &Observed) -> Result<Entropy, Invalid> {
    let own = stack.spec.pooler.tls.as_ref().is_some_and(|tls| tls.secret_ref.is_none());
    let name = Names::new(stack.name_any());
    let missing = own && !observed.secrets.contains_key(&name.pgbouncer_tls());
    let names = || hosts(&name.pgbouncer(), &stack.namespace().unwrap_or_default());
    let pooler_certificate = missing.then(|| certificate::make(&names())).transpose();
    Ok(Entropy {
        encryption_key: rand::random(),
        admin_password: rand::random(),
        redis_password: rand::random(),
        database_password: rand::random(),
        pooler_password: rand::random(),
        pooler_certificate: pooler_certificate
            .map_err(|error| Invalid {
                reason: "CertificateFailed",
                message: format!("spec.pooler.tls: a certificate cannot be made: {error}; it is tried again"),
                waiting_for: None,
                terminal: false,
            })?
            .unwrap_or_default(),
    })
}

/// Applies the plan, then deletes what is no longer wanted.
async fn apply(context: &Context, id: &StackId, picture: &mut Picture, ready: &Ready, unasked: bool) -> Applied {
    let mut applied = Applied::default();
    let Picture { inventory, bindings, observed: _ } = picture;
    let (client, metrics) = (&context.client, &context.metrics);
    let mut binder = Binder { client, metrics, stack: id, bindings };
    let mut applier = Applier { client, metrics, stack: id, inventory };
    if ready.plan.children().any(|child| applier.rolls(child)) {
        let (key, now) = ((id.namespace.clone(), id.name.clone()), Instant::now());
        if unasked {
            applied.waits_turn = !context.turns.take(&key, context.settings.max_rolling, now);
        } else {
            context.turns.grant(&key, now);
        }
    }
    if let Err(error) = everything(&mut applier, &mut binder, context, ready, &mut applied).await {
        // The first failure is told; it is the one that stopped us.
        applied.failed.get_or_insert(error);
    }
    applied
}

async fn everything(
    applier: &mut Applier<'_>,
    binder: &mut Binder<'_>,
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
        if child.kind == Kind::Job
            && plan.migration.as_ref() != Some(&child.name)
            && let Some(job) = applier.inventory.typed(Kind::Job, &child.name)
        {
            retry_failed(applier, &child.name, &job, applied).await?;
        }
    }
    for binding in &plan.bindings {
        bind(binder, binding, applied).await?;
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
    if !binder.bindings.forbidden {
        binder.prune(&plan.bindings).await?;
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
async fn bind(binder: &mut Binder<'_>, binding: &Value, applied: &mut Applied) -> Result<(), ApplyError> {
    let name = binding["metadata"]["name"].as_str().unwrap_or_default();
    match binder.keep(binding).await {
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

/// Whether the schema for this image and database is there. A migration that failed is started again after a while.
async fn migrated(applier: &mut Applier<'_>, plan: &Plan, applied: &mut Applied) -> Result<bool, ApplyError> {
    // Without one the Deployment is held back, and what is left needs no schema.
    let Some(migration) = &plan.migration else { return Ok(true) };
    // Pods for this migration have been started before: its Job did complete, wherever it is now.
    if plan.deployed_for(migration, applier.inventory) {
        return Ok(true);
    }
    let Some(job) = applier.inventory.typed::<Job>(Kind::Job, migration) else {
        return Ok(false);
    };
    if job_state(&job).complete {
        return Ok(true);
    }
    retry_failed(applier, migration, &job, applied).await?;
    Ok(false)
}

/// A Job that failed is started again after a while.
async fn retry_failed(
    applier: &mut Applier<'_>,
    name: &str,
    job: &Job,
    applied: &mut Applied,
) -> Result<(), ApplyError> {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    let failed = conditions.into_iter().flatten().find(|found| found.type_ == "Failed" && found.status == "True");
    let Some(failed) = failed else { return Ok(()) };
    let since = failed.last_transition_time.as_ref().map_or_else(Timestamp::now, |time| time.0);
    let age = Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default();
    if let Some(wait) = JOB_RETRY.checked_sub(age) {
        applied.retry_job = Some(wait.max(Duration::from_secs(1)));
    } else if let Some(live) = applier.inventory.get(Kind::Job, name).cloned() {
        applier.delete(Kind::Job, name, &live).await?;
        applied.terminating.push(format!("Job {name}"));
    }
    Ok(())
}

/// Writes the status when it differs, then tells what is new.
async fn publish(context: &Context, stack: &PersesStack, status: &PersesStackStatus) -> kube::Result<()> {
    if stack.status.as_ref() == Some(status) {
        return Ok(());
    }
    let (namespace, name) = (stack.namespace().unwrap_or_default(), stack.name_any());
    let api: Api<PersesStack> = Api::namespaced(context.client.clone(), &namespace);
    let body = serde_json::json!({
        "apiVersion": <PersesStack as kube::Resource>::api_version(&()),
        "kind": <PersesStack as kube::Resource>::kind(&()),
        // The UID fences: a stack of this name that was made since is not told about its predecessor.
        "metadata": {"name": name, "uid": stack.uid()},
        "status": status,
    });
    let params = PatchParams::apply(STATUS_MANAGER).force();
    let result = api.patch_status(&name, &params, &Patch::Apply(&body)).await;
    let word = if result.is_ok() { "changed" } else { "error" };
    context.metrics.wrote("PersesStack", crate::apply::verb::APPLY, word);
    match result {
        Ok(_) => {}
        // Gone, or another one by now.
        Err(kube::Error::Api(answer)) if answer.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    }
    let old = stack.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let created = stack.metadata.creation_timestamp.as_ref().map(|time| time.0);
    if let (true, false, Some(created)) =
        (is_true(&status.conditions, condition::READY), is_true(old, condition::READY), created)
        && context.first_ready(&stack.uid().unwrap_or_default())
    {
        context.metrics.became_ready(Duration::try_from(Timestamp::now().duration_since(created)).unwrap_or_default());
    }
    tell(context, stack, old, status).await;
    Ok(())
}

/// Events for people. One that cannot be written is logged: it changes nothing.
async fn tell(
    context: &Context,
    stack: &PersesStack,
    old: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    status: &PersesStackStatus,
) {
    use kube::Resource as _;
    let regarding = stack.object_ref(&());
    for (condition, good) in status::news(old, &status.conditions) {
        let mut note = format!("{}={}: {}", condition.type_, condition.status, condition.message);
        // The API's limit is 1 kB.
        if note.len() > 1000 {
            note = note.chars().take(300).collect::<String>() + " ...";
        }
        let event = Event {
            type_: if good { EventType::Normal } else { EventType::Warning },
            reason: condition.reason.clone(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = context.recorder.publish(&event, &regarding).await {
            tracing::warn!(%error, reason = event.reason, "cannot publish an event");
        }
    }
}
