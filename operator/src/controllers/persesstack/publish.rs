//! The report of a reconcile (I/O): the status, and events for people.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};

use super::context::Context;
use super::status::{self, condition};
use crate::api::v1alpha1::{PersesStack, PersesStackStatus};
use crate::apply::{STATUS_MANAGER, verb};
use crate::conditions::is_true;

/// Writes the status when it differs, then tells what is new.
pub(super) async fn publish(context: &Context, stack: &PersesStack, status: &PersesStackStatus) -> kube::Result<()> {
    if stack.status.as_ref() == Some(status) {
        return Ok(());
    }
    let (namespace, name) = (stack.namespace().unwrap_or_default(), stack.name_any());
    let api: Api<PersesStack> = Api::namespaced(context.client.clone(), &namespace);
    let body = serde_json::json!({
        "apiVersion": PersesStack::api_version(&()),
        "kind": PersesStack::kind(&()),
        // The UID fences: a stack of this name that was made since is not told about its predecessor.
        "metadata": {"name": name, "uid": stack.uid()},
        "status": status,
    });
    let params = PatchParams::apply(STATUS_MANAGER).force();
    let result = api.patch_status(&name, &params, &Patch::Apply(&body)).await;
    let word = if result.is_ok() { "changed" } else { "error" };
    context.metrics.wrote("PersesStack", verb::APPLY, word);
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
async fn tell(context: &Context, stack: &PersesStack, old: &[Condition], status: &PersesStackStatus) {
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
