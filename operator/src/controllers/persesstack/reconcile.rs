//! The story of one reconcile: observe -> validate -> size -> build -> apply -> status.
//!
//! Level-triggered: nothing is remembered of how far the last reconcile came; each step looks at the cluster and does what
//! is missing. Every path ends in the status, failures included.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::controller::Action;

use super::build::names::Names;
use super::build::{build, hosts};
use super::context::Context;
use super::enact::{Applied, apply};
use super::feasible::{self, Feasibility, judge};
use super::generated::own_certificate;
use super::inputs::sign_in_seconds;
use super::leave::unbind;
use super::observe::{Picture, observe, workloads};
use super::observed::Observed;
use super::publish::publish;
use super::rotation::look_again;
use super::status::{self, Planned, Report, condition};
use super::validate::{Invalid, Validated, validate};
use crate::api::v1alpha1::PersesStack;
use crate::apply::footprint::{footprint, present, runs};
use crate::apply::order::{Plan, plan};
use crate::apply::owner::StackId;
use crate::apply::{ApplyError, verb};
use crate::certificate::{self, Made};
use crate::conditions::is_true;
use crate::settings::{Entropy, Settings};
use crate::sizing::{Sizing, size};

/// A quiet stack is looked at this often, in case a watch missed something.
const RESYNC: Duration = Duration::from_mins(10);
/// A waiting stack is looked at this often; normally a watch wakes it.
const WAITING: Duration = Duration::from_mins(1);
/// A stack that waits for its turn to roll asks again after this time.
const TURN: Duration = Duration::from_secs(5);
/// A stack that falls asleep is looked at this often: nobody tells when the last pod of a part is gone.
const STOPPING: Duration = Duration::from_secs(2);

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
    let read_failed = |source| Error::Observe(ApplyError::new("PersesStack", name, verb::GET, source));
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
        (Ok(_), None) if stack.spec.suspend && !is_true(&status.conditions, condition::SUSPENDED) => {
            (Action::requeue(STOPPING), "waiting")
        }
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

/// Fresh random bytes. They are used only where a generated Secret does not exist, or has to be replaced.
fn entropy(stack: &PersesStack, observed: &Observed) -> Result<Entropy, Invalid> {
    let (pooler_certificate, pooler_renewal) = certificates(stack, observed).map_err(|error| Invalid {
        reason: "CertificateFailed",
        message: format!("spec.pooler.tls: a certificate cannot be made: {error}; it is tried again"),
        waiting_for: None,
        terminal: false,
    })?;
    Ok(Entropy {
        encryption_key: rand::random(),
        admin_password: rand::random(),
        redis_password: rand::random(),
        redis_peer_password: rand::random(),
        database_password: rand::random(),
        pooler_password: rand::random(),
        pooler_certificate,
        pooler_renewal,
    })
}

/// The pooler's certificate where there is none, and what its Secret holds from now on where something is due.
fn certificates(stack: &PersesStack, observed: &Observed) -> Result<(Made, Option<Made>), rcgen::Error> {
    if !own_certificate(&stack.spec) {
        return Ok((Made::default(), None));
    }
    let (names, now) = (Names::new(stack.name_any()), observed.rotation.now);
    let hosts = hosts(&names.pgbouncer(), &stack.namespace().unwrap_or_default());
    match observed.secrets.get(&names.pgbouncer_tls()) {
        None => Ok((certificate::make(&hosts, now)?, None)),
        Some(found) if found.ours => {
            let state = found.rotation.as_deref().and_then(certificate::State::of);
            Ok((Made::default(), certificate::renew(&found.data, state.as_ref(), &hosts, now)?))
        }
        Some(_) => Ok((Made::default(), None)),
    }
}
