//! The API pods' account in the cluster: its token in the pods, where something needs one, and its rights beyond the
//! namespace.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector,
    ProjectedVolumeSource, ServiceAccountTokenProjection, Volume, VolumeProjection,
};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::labels::{Component, NAMESPACE_KEY, labels};
use super::meta;
use crate::api::v1alpha1::{PersesStackSpec, ServingTlsType};
use crate::controllers::persesstack::datasources;
use crate::controllers::persesstack::validate::Validated;

/// Where programs look for the account of their pod.
pub(super) const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The token. The kubelet renews it; the server reads it again.
pub(super) const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Authorities of the cluster's API server; on OpenShift also of its routers.
pub(super) const AUTHORITY: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// Folder of the authority of OpenShift's services.
pub(super) const SERVICE_FOLDER: &str = "/etc/perses/service-ca";
/// Key of the ConfigMap under which OpenShift writes it.
pub const SERVICE_AUTHORITY_KEY: &str = "service-ca.crt";
/// Authority of OpenShift's services.
pub(super) const SERVICE_AUTHORITY: &str = "/etc/perses/service-ca/service-ca.crt";

/// May ask the API server who a token belongs to and what a user may do. Both reviews are cluster-wide: no role in a
/// namespace can give them.
const AUTH_DELEGATOR: &str = "system:auth-delegator";
/// May read the platform's metrics. Its thanos-querier asks for a right on all namespaces.
const MONITORING_VIEW: &str = "cluster-monitoring-view";
/// Every cluster role that stacks may be bound to.
pub const CLUSTER_ROLES: [&str; 2] = [AUTH_DELEGATOR, MONITORING_VIEW];

/// The cluster roles that the spec needs.
pub fn cluster_roles(spec: &PersesStackSpec) -> Vec<&'static str> {
    let delegator = spec.auth.kubernetes.is_some().then_some(AUTH_DELEGATOR);
    let view = datasources::uses_openshift(spec).then_some(MONITORING_VIEW);
    delegator.into_iter().chain(view).collect()
}

/// The bindings of the account to cluster roles. No owner reference can lead from them to a stack in a namespace: labels and
/// a finalizer of the stack stand in.
pub(super) fn bindings(v: &Validated) -> Vec<ClusterRoleBinding> {
    let binding = |role: &str| {
        let mut labels = labels(v.names.stack(), Component::Api);
        labels.insert(NAMESPACE_KEY.to_owned(), v.namespace.clone());
        ClusterRoleBinding {
            metadata: ObjectMeta {
                name: Some(v.names.cluster_binding(&v.namespace, role)),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".to_owned(),
                kind: "ClusterRole".to_owned(),
                name: role.to_owned(),
            },
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".to_owned(),
                name: v.names.api(),
                namespace: Some(v.namespace.clone()),
                api_group: None,
            }]),
        }
    };
    if v.bindings_forbidden {
        return Vec::new();
    }
    cluster_roles(&v.spec).into_iter().map(binding).collect()
}

/// The volume `account`, as the kubelet makes it for pods that ask for it; `None` when nothing needs the account.
pub(super) fn volume(v: &Validated) -> Option<Volume> {
    let needed =
        v.spec.auth.kubernetes.is_some() || v.spec.auth.openshift.is_some() || datasources::uses_openshift(&v.spec);
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            path: "token".to_owned(),
            // An hour and a bit, as in the kubelet's own: audit does not take it for a token of old.
            expiration_seconds: Some(3607),
            audience: None,
        }),
        ..VolumeProjection::default()
    };
    let authority = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: "kube-root-ca.crt".to_owned(),
            items: Some(vec![KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), mode: None }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let namespace = VolumeProjection {
        downward_api: Some(DownwardAPIProjection {
            items: Some(vec![DownwardAPIVolumeFile {
                path: "namespace".to_owned(),
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.namespace".to_owned(),
                }),
                ..DownwardAPIVolumeFile::default()
            }]),
        }),
        ..VolumeProjection::default()
    };
    needed.then(|| Volume {
        name: "account".to_owned(),
        projected: Some(ProjectedVolumeSource { sources: Some(vec![token, authority, namespace]), default_mode: None }),
        ..Volume::default()
    })
}

/// The ConfigMap into which OpenShift writes the authority of its services: for the pods where a datasource is one, and for
/// Prometheus and the operator where the pods are. `None` when nothing needs it.
pub(super) fn service_authority(v: &Validated) -> Option<ConfigMap> {
    let serves = v.spec.api.tls.as_ref().is_some_and(|tls| tls.type_ == ServingTlsType::OpenShift);
    (serves || datasources::uses_openshift(&v.spec)).then(|| {
        let mut metadata = meta::owned(v, v.names.service_ca(), Component::Api);
        let annotation = ("service.beta.openshift.io/inject-cabundle".to_owned(), "true".to_owned());
        metadata.annotations = Some(BTreeMap::from([annotation]));
        // Without data: that is OpenShift's.
        ConfigMap { metadata, ..ConfigMap::default() }
    })
}
