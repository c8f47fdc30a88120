//! A stack that is being deleted (I/O): nothing may be made again, and what is outside its namespace is removed. The garbage
//! collector does the rest.

use super::build::account::CLUSTER_ROLES;
use super::build::names::Names;
use super::context::Context;
use crate::api::v1alpha1::PersesStack;
use crate::apply::ApplyError;
use crate::apply::cluster::{Bindings, holds_bindings};
use crate::apply::inventory::Inventory;
use crate::apply::owner::StackId;
use crate::apply::ssa::Applier;

/// Removes the bindings of the stack's account to cluster roles, then the finalizer that stands for them.
///
/// # Errors
/// A request failed; the stack stays until it succeeds.
pub(super) async fn unbind(context: &Context, stack: &PersesStack, id: &StackId) -> Result<(), ApplyError> {
    if !holds_bindings(stack) {
        return Ok(());
    }
    let names = Names::new(id.name.clone());
    let named = CLUSTER_ROLES.iter().map(|role| names.cluster_binding(&id.namespace, role)).collect();
    let mut bindings = Bindings::read(&context.client, stack, named).await?;
    if bindings.forbidden {
        return Err(bindings.refused());
    }
    let (client, metrics, inventory) = (&context.client, &context.metrics, &mut Inventory::default());
    Applier { client, metrics, stack: id, inventory, bindings: &mut bindings }.prune_bindings(&[]).await
}
