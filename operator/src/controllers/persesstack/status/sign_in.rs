//! What became of the ways to sign in that need something from outside the server.

use super::condition;
use crate::api::v1alpha1::AuthStatus;
use crate::conditions::{Finding, Status};
use crate::controllers::persesstack::validate::Validated;
use crate::controllers::persesstack::waits::Part;

/// Whether every way to sign in is handed to the server; `None` when nothing can be missing.
pub(super) fn finding(validated: &Validated) -> Option<Finding> {
    let type_ = condition::AUTH;
    let auth = &validated.spec.auth;
    let declared = auth.oidc.len() + auth.oauth.len() + usize::from(auth.openshift.is_some());
    if auth.kubernetes.is_some() {
        return Some(if validated.bindings_forbidden {
            Finding::new(type_, Status::Unknown, "BindingForbidden", forbidden(validated))
        } else {
            Finding::new(type_, true, "Configured", "tokens of the cluster are taken")
        });
    }
    (declared > 0).then(|| {
        let ready = format!("{} of {declared} providers are handed to the server", validated.sign_in.providers.len());
        match validated.waits.of(Part::Auth) {
            Some((reason, message)) => Finding::new(type_, false, reason, format!("{ready}; {message}")),
            None => Finding::new(type_, true, "Configured", ready),
        }
    })
}

/// What to do where the operator may not bind the account itself.
pub(super) fn forbidden(validated: &Validated) -> String {
    let (namespace, account) = (&validated.namespace, validated.names.api());
    let roles = crate::controllers::persesstack::build::account::cluster_roles(&validated.spec);
    let commands: Vec<_> = roles
        .iter()
        .map(|role| {
            let name = validated.names.cluster_binding(namespace, role);
            format!(
                "kubectl create clusterrolebinding {name} --clusterrole={role} --serviceaccount={namespace}:{account}"
            )
        })
        .collect();
    format!(
        "this operator may not see bindings to cluster roles, so it cannot tell whether the account has the rights that it \
         needs: have an administrator run {}",
        commands.join(" and ")
    )
}

/// What the pods are configured with, as soon as they run what is built now: the next reconcile takes nothing of it away.
pub(super) fn configured(validated: &Validated) -> Option<AuthStatus> {
    let (address, providers) = (validated.sign_in.address.clone(), validated.sign_in.configured.clone());
    address.is_some().then_some(AuthStatus { address, providers })
}
