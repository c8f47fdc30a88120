//! What an apply would do to one object, asked of the API server by dry runs (I/O). Nothing is written.

use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::Value;

use super::cluster::{self, foreign};
use super::compare::{difference, lists_with_strangers};
use super::owner::{Claim, claim, terminating};
use super::ssa::{Applier, Child, Lifecycle, hands_over_replicas, needed};
use super::{ApplyError, FIELD_MANAGER, verb};
use crate::controllers::persesstack::observed::ForeignObject;

/// What would happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Preview {
    /// It is as wanted.
    Unchanged,
    /// It would be created, as this.
    Create(Value),
    /// It would be changed.
    Change {
        /// As it is.
        before: Value,
        /// As it would be, with what admission and defaults make of it.
        after: Value,
    },
    /// It cannot be changed, so it would be deleted and made again.
    Recreate {
        /// As it is.
        before: Value,
        /// As it is wanted.
        after: Value,
    },
    /// It is being deleted and would be made again.
    Terminating,
    /// It belongs to somebody else and is left alone.
    Foreign(ForeignObject),
    /// The API server would refuse it; its words.
    Refused(String),
}

impl Applier<'_> {
    /// The counterpart of [`Applier::apply`] that changes nothing.
    ///
    /// # Errors
    /// The failed request, other than a refusal.
    pub async fn preview(&self, child: &Child) -> Result<Preview, ApplyError> {
        let live = match self.inventory.get(child.kind, &child.name) {
            Some(live) => Some(live.clone()),
            None => self.read(child.kind, &child.name).await?,
        };
        let Some(live) = live else {
            return refusal(self.preview_create(child).await.map(Preview::Create));
        };
        if let Claim::Foreign { owner } = claim(&live, self.stack) {
            let (kind, name) = (child.kind.name().to_owned(), child.name.clone());
            return Ok(Preview::Foreign(ForeignObject { kind, name, owner }));
        }
        if terminating(&live) {
            return Ok(Preview::Terminating);
        }
        if needed(child, &live).is_none() {
            return Ok(Preview::Unchanged);
        }
        let mut body = child.value.clone();
        body["metadata"]["uid"] = live["metadata"]["uid"].clone();
        if hands_over_replicas(child, &live) {
            // The apply itself is preceded by one that keeps the number.
            body["spec"]["replicas"] = live["spec"]["replicas"].clone();
        }
        let params = PatchParams::apply(FIELD_MANAGER).force().dry_run();
        let answer = self.api(child.kind).patch(&child.name, &params, &Patch::Apply(&body)).await;
        match answer.map_err(|source| ApplyError::new(child.kind.name(), &child.name, verb::APPLY, source)) {
            Ok(object) => Ok(Preview::Change { before: live, after: value(child, object)? }),
            Err(error) if error.code() == Some(422) && child.lifecycle == Lifecycle::Immutable => {
                Ok(Preview::Recreate { before: live, after: child.value.clone() })
            }
            Err(error) if error.code() == Some(422) && child.lifecycle == Lifecycle::Applied => {
                let lists = lists_with_strangers(&child.value, &live, FIELD_MANAGER);
                if lists.is_empty() {
                    return refusal(Err(error));
                }
                let mut after = live.clone();
                for (pointer, list) in lists {
                    if let Some(found) = after.pointer_mut(&pointer) {
                        *found = list.clone();
                    }
                }
                Ok(Preview::Change { before: live, after })
            }
            Err(error) => refusal(Err(error)),
        }
    }

    /// The counterpart of [`Applier::keep_binding`] that changes nothing.
    ///
    /// # Errors
    /// The failed request, other than a refusal.
    pub async fn preview_binding(&self, desired: &Value) -> Result<Preview, ApplyError> {
        let name = desired["metadata"]["name"].as_str().unwrap_or_default();
        let live = self.bindings.get(name);
        let (mut body, params) = (desired.clone(), PatchParams::apply(FIELD_MANAGER).dry_run());
        if let Some(live) = live {
            if let Some(foreign) = foreign(name, live, self.stack) {
                return Ok(Preview::Foreign(foreign));
            }
            if terminating(live) {
                return Ok(Preview::Terminating);
            }
            if difference(desired, live, FIELD_MANAGER).is_none() {
                return Ok(Preview::Unchanged);
            }
            body["metadata"]["uid"] = live["metadata"]["uid"].clone();
        }
        let params = if live.is_some() { params.force() } else { params };
        let answer = cluster::api(self.client).patch(name, &params, &Patch::Apply(&body)).await;
        let failed = |source| ApplyError::new(cluster::KIND, name, verb::APPLY, source);
        let after = answer
            .map_err(failed)
            .and_then(|object| serde_json::to_value(object).map_err(|source| failed(kube::Error::SerdeError(source))));
        refusal(after.map(|after| match live.cloned() {
            Some(before) => Preview::Change { before, after },
            None => Preview::Create(after),
        }))
    }

    async fn preview_create(&self, child: &Child) -> Result<Value, ApplyError> {
        let failed = |source| ApplyError::new(child.kind.name(), &child.name, verb::CREATE, source);
        let object = if child.lifecycle == Lifecycle::Generated {
            let params = PostParams { dry_run: true, field_manager: Some(FIELD_MANAGER.to_owned()) };
            let object = serde_json::from_value(child.value.clone());
            let object = object.map_err(|source| failed(kube::Error::SerdeError(source)))?;
            self.api(child.kind).create(&params, &object).await
        } else {
            let params = PatchParams::apply(FIELD_MANAGER).dry_run();
            self.api(child.kind).patch(&child.name, &params, &Patch::Apply(&child.value)).await
        };
        value(child, object.map_err(failed)?)
    }
}

fn value(child: &Child, object: DynamicObject) -> Result<Value, ApplyError> {
    serde_json::to_value(object)
        .map_err(|source| ApplyError::new(child.kind.name(), &child.name, verb::APPLY, kube::Error::SerdeError(source)))
}

/// A refusal is an answer.
fn refusal(result: Result<Preview, ApplyError>) -> Result<Preview, ApplyError> {
    match result {
        Err(error) if error.is_refusal() => Ok(Preview::Refused(error.describe())),
        other => other,
    }
}
