//! The story of one resource: read -> choose the stacks -> hold -> bring each to its copy -> remove what is too much -> say so.
//!
//! Before the first copy is made the resource gets our finalizer and the name of the stack (annotation), in one write. So
//! whatever happens afterwards, it is known where copies may be, and the resource does not go before them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use kube::{Resource as _, ResourceExt};
use serde_json::json;

use super::condition::{self, Outcome, Report, finding};
use super::context::Context;
use super::credentials::{Holder, Problem, Reference, Values};
use super::document::{Document, Place};
use super::kind::Kind;
use super::select::{Choice, Stack, choose, surplus};
use super::server::Fault;
use super::source::{COPIES, FINALIZER, Source};
use super::sync::{Wanted, bring, clear};
use crate::conditions::{Finding, Status, find, merge};

/// Field manager of our condition.
pub(super) const MANAGER: &str = "persesstack-operator/sync";

/// The Kubernetes API did not do what was asked; stacks that fail are no error but a condition.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Error(&'static str, #[source] Box<kube::Error>);

impl Error {
    fn new(what: &'static str) -> impl Fn(kube::Error) -> Self {
        move |source| Self(what, Box::new(source))
    }
}

/// Reconciles one resource. The object from the watch only names it.
pub(super) async fn reconcile(kind: Kind, object: Arc<DynamicObject>, context: Arc<Context>) -> Result<Action, Error> {
    context.ready().await;
    let api = api(&context, kind, object.namespace().as_deref());
    let Some(object) = api.get_opt(&object.name_any()).await.map_err(Error::new("read the resource"))? else {
        return Ok(Action::await_change());
    };
    let action = run(kind, &object, &api, &context).await?;
    context.backoff.succeeded(&(kind, object.namespace(), object.name_any()));
    Ok(action)
}

/// The API of one resource.
pub(super) fn api(context: &Context, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(context.client.clone(), namespace, &kind.resource()),
        None => Api::all_with(context.client.clone(), &kind.resource()),
    }
}

async fn run(kind: Kind, object: &DynamicObject, api: &Api<DynamicObject>, context: &Context) -> Result<Action, Error> {
    let stacks = context.stacks();
    context.servers.keep(&stacks);
    let source = Source::read(kind, object);
    let shell = Source::shell(kind, object);
    if let Some(since) = shell.deleted {
        return if shell.held {
            let_go(&shell, since, object, api, &stacks, context).await
        } else {
            Ok(Action::await_change())
        };
    }
    let source = match source {
        Ok(source) => source,
        Err(what) => {
            let report = Report { stacks: vec![(String::new(), Outcome::Invalid(what))], ..Report::default() };
            // Not a word to a resource that has never been ours: nobody can say whether a stack is meant.
            if shell.held {
                publish(&shell, object, api, context, finding(&report)).await?;
            }
            return Ok(Action::requeue(context.pace.resync));
        }
    };
    match choose(&source, &stacks, &context.instances()) {
        Choice::Elsewhere(instance) => {
            let outcome = Outcome::OwnedByPersesOperator(instance);
            let report = Report { stacks: vec![(String::new(), outcome)], ..Report::default() };
            publish(&source, object, api, context, finding(&report)).await?;
            Ok(Action::requeue(context.pace.resync))
        }
        Choice::None if !source.held && source.copies.is_empty() => {
            publish(&source, object, api, context, None).await?;
            Ok(Action::await_change())
        }
        Choice::None => follow(&source, object, api, &[], &stacks, context).await,
        Choice::Stacks(selected) => follow(&source, object, api, &selected, &stacks, context).await,
    }
}

/// Brings the selected stacks to their copies, and the others that may have one to none.
async fn follow(
    source: &Source,
    object: &DynamicObject,
    api: &Api<DynamicObject>,
    selected: &[Stack],
    stacks: &[Stack],
    context: &Context,
) -> Result<Action, Error> {
    let mut wait = context.pace.resync;
    let mut report = Report::default();
    let mut copies: BTreeSet<String> = selected.iter().map(Stack::key).collect();
    // Before the first write to any server.
    let recorded: BTreeSet<_> = source.copies.union(&copies).cloned().collect();
    if !selected.is_empty() {
        hold(source, object, api, &recorded).await?;
    }

    match wanted(source, context).await? {
        Ok(wanted) => {
            let each = selected.iter().map(|stack| async {
                if !stack.ready {
                    return (stack.key(), Outcome::NotReady, None);
                }
                let server = context.servers.of(stack);
                let outcome = bring(&server, &wanted, &context.metrics).await;
                (stack.key(), outcome, server.pause())
            });
            for (key, outcome, pause) in join_all(each).await {
                wait = wait.min(pause.unwrap_or(context.pace.resync));
                report.stacks.push((key, outcome));
            }
        }
        // Copies of earlier stay as they are: what they point to may still work.
        Err(outcome) => report.stacks.extend(selected.iter().map(|stack| (stack.key(), outcome.clone()))),
    }

    let surplus = surplus(source, selected, stacks);
    for (key, result, pause) in clear_all(source, &surplus, context).await {
        if let Err(why) = result {
            wait = wait.min(pause.unwrap_or(context.pace.resync));
            copies.insert(key.clone());
            report.left.push((key, why));
        }
    }
    if copies.is_empty() {
        publish(source, object, api, context, None).await?;
        release(object, api).await?;
        return Ok(Action::await_change());
    }
    if copies != recorded {
        record(object, api, &copies, true).await?;
    }
    publish(source, object, api, context, finding(&report)).await?;
    Ok(Action::requeue(spread(wait)))
}

/// The resource is being deleted: its copies first. A stack that does not answer is waited for, not for ever.
async fn let_go(
    source: &Source,
    since: Timestamp,
    object: &DynamicObject,
    api: &Api<DynamicObject>,
    stacks: &[Stack],
    context: &Context,
) -> Result<Action, Error> {
    let surplus = surplus(source, &[], stacks);
    let mut report = Report { deleting: true, ..Report::default() };
    let mut wait = context.pace.resync;
    for (key, result, pause) in clear_all(source, &surplus, context).await {
        if let Err(why) = result {
            wait = wait.min(pause.unwrap_or(Duration::from_secs(10)));
            report.left.push((key, why));
        }
    }
    let age = Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default();
    if !report.left.is_empty() && age < context.pace.patience {
        publish(source, object, api, context, finding(&report)).await?;
        return Ok(Action::requeue(wait.min(context.pace.patience.saturating_sub(age)).max(Duration::from_secs(1))));
    }
    for (stack, why) in &report.left {
        tracing::warn!(name = source.name, stack, why, "deleted without its copy, which goes when the stack is swept");
    }
    release(object, api).await?;
    Ok(Action::await_change())
}

type Cleared = (String, Result<(), String>, Option<Duration>);

async fn clear_all(source: &Source, stacks: &[Stack], context: &Context) -> Vec<Cleared> {
    let places: Vec<Place> = std::iter::once(Place::of(source)).chain(Place::of_secret(source)).collect();
    let each = stacks.iter().map(|stack| {
        let places = &places;
        async move {
            if !stack.ready {
                return (stack.key(), Err("the stack is not Ready".to_owned()), None);
            }
            let server = context.servers.of(stack);
            let result = clear(&server, places, &context.metrics).await;
            let result = result.map_err(|fault| match fault {
                Fault::Unreachable(text) | Fault::SignIn(text) | Fault::Refused(text) => text,
                Fault::NotFound | Fault::Changed => "the server changed meanwhile".to_owned(),
            });
            (stack.key(), result, server.pause())
        }
    });
    join_all(each).await
}

/// What the resource should be in every server, or why that cannot be said.
async fn wanted(source: &Source, context: &Context) -> Result<Result<Wanted, Outcome>, Error> {
    let outcome = |problem| match problem {
        Problem::Missing(text) => Outcome::CredentialsMissing(text),
        Problem::Unsupported(text) => Outcome::Invalid(text),
    };
    let secret = match (&source.client, Place::of_secret(source)) {
        (_, None) => None,
        (None, Some(place)) => Some((place, None)),
        (Some(client), Some(place)) => {
            let references = match client.references(source.namespace.as_deref()) {
                Ok(references) => references,
                Err(problem) => return Ok(Err(outcome(problem))),
            };
            if client.is_needed() {
                let values = values(&references, context).await?;
                match client.secret(&values) {
                    Ok(spec) => Some((place, Some(spec))),
                    Err(problem) => return Ok(Err(outcome(problem))),
                }
            } else {
                Some((place, None))
            }
        }
    };
    Ok(Ok(Wanted { document: Document::of(source), secret }))
}

/// The data of the objects that exist.
async fn values(references: &[Reference], context: &Context) -> Result<Values, Error> {
    let mut values = Values::new();
    for reference in references {
        let (namespace, name) = (reference.namespace.as_str(), reference.name.as_str());
        let data = match reference.holder {
            Holder::Secret => {
                let api: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
                let found = api.get_opt(name).await.map_err(Error::new("read a Secret with credentials"))?;
                let data = found.map(|secret| secret.data.unwrap_or_default());
                data.map(|data| data.into_iter().map(|(key, value)| (key, value.0)).collect())
            }
            Holder::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
                let found = api.get_opt(name).await.map_err(Error::new("read a ConfigMap with credentials"))?;
                let data = found.map(|map| map.data.unwrap_or_default());
                data.map(|data| data.into_iter().map(|(key, value)| (key, value.into_bytes())).collect())
            }
        };
        if let Some(data) = data {
            values.insert(reference.clone(), data);
        }
    }
    Ok(values)
}

/// Makes sure that the finalizer and the record are there.
async fn hold(
    source: &Source,
    object: &DynamicObject,
    api: &Api<DynamicObject>,
    copies: &BTreeSet<String>,
) -> Result<(), Error> {
    if !source.held || source.copies != *copies {
        record(object, api, copies, true).await?;
    }
    Ok(())
}

/// The resource goes, or is none of ours any more.
async fn release(object: &DynamicObject, api: &Api<DynamicObject>) -> Result<(), Error> {
    record(object, api, &BTreeSet::new(), false).await.map(drop)
}

/// Writes finalizer and record together. The UID fences against a resource of the same name that was made since.
async fn record(
    object: &DynamicObject,
    api: &Api<DynamicObject>,
    copies: &BTreeSet<String>,
    held: bool,
) -> Result<Option<DynamicObject>, Error> {
    let name = object.name_any();
    let failed = Error::new("write finalizer and record of the resource");
    // Read again: a list of finalizers is replaced as a whole.
    let Some(live) = api.get_opt(&name).await.map_err(&failed)? else { return Ok(None) };
    let mut finalizers: Vec<_> = live.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
    if held {
        finalizers.push(FINALIZER.to_owned());
    }
    let text = copies.iter().cloned().collect::<Vec<_>>().join(",");
    let body = json!({"metadata": {
        "uid": object.uid(), "resourceVersion": live.resource_version(), "finalizers": finalizers,
        "annotations": {COPIES: if held { json!(text) } else { json!(null) }},
    }});
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(&body)).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Writes our condition when it differs, and tells people of a change.
async fn publish(
    source: &Source,
    object: &DynamicObject,
    api: &Api<DynamicObject>,
    context: &Context,
    finding: Option<Finding>,
) -> Result<(), Error> {
    if condition::is_current(&source.conditions, finding.as_ref(), source.generation) {
        return Ok(());
    }
    let conditions = merge(&source.conditions, finding.as_slice(), source.generation, Timestamp::now());
    let resource = source.kind.resource();
    let body = json!({
        "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": {"name": source.name, "uid": object.uid()},
        // A list-map: the conditions of others stay.
        "status": {"conditions": conditions},
    });
    let params = PatchParams::apply(MANAGER).force();
    match api.patch_status(&source.name, &params, &Patch::Apply(&body)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
        Err(error) => return Err(Error::new("write the condition of the resource")(error)),
    }
    let before = find(&source.conditions, condition::SYNCED);
    if let Some(finding) = finding
        && before.is_none_or(|before| before.reason != finding.reason)
    {
        tell(source, object, context, &finding).await;
    }
    Ok(())
}

async fn tell(source: &Source, object: &DynamicObject, context: &Context, finding: &Finding) {
    let event = Event {
        type_: if finding.status == Status::True { EventType::Normal } else { EventType::Warning },
        reason: finding.reason.to_owned(),
        // The API's limit is 1 kB.
        note: Some(finding.message.chars().take(250).collect()),
        action: "Sync".to_owned(),
        secondary: None,
    };
    let regarding = object.object_ref(&source.kind.resource());
    if let Err(error) = context.recorder.publish(&event, &regarding).await {
        tracing::warn!(%error, reason = event.reason, "cannot publish an event");
    }
}

/// Spread over 90 % to 110 %, so that hundreds of resources do not come back at the same instant.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(0.9 + 0.2 * rand::random::<f64>()).max(Duration::from_secs(1))
}
