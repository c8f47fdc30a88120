//! The kinds of object that a stack is made of.

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, ResourceQuota, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{ApiResource, GroupVersionKind};

/// A kind that the operator creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// core/v1
    ServiceAccount,
    /// core/v1
    Secret,
    /// core/v1
    ConfigMap,
    /// core/v1
    Service,
    /// core/v1
    PersistentVolumeClaim,
    /// core/v1
    ResourceQuota,
    /// apps/v1
    Deployment,
    /// apps/v1
    StatefulSet,
    /// batch/v1
    Job,
    /// autoscaling/v2
    HorizontalPodAutoscaler,
    /// policy/v1
    PodDisruptionBudget,
    /// networking.k8s.io/v1
    NetworkPolicy,
    /// networking.k8s.io/v1
    Ingress,
    /// route.openshift.io/v1, optional
    Route,
    /// gateway.networking.k8s.io/v1, optional
    HttpRoute,
    /// postgres-operator.crunchydata.com/v1beta1, optional
    PostgresCluster,
    /// monitoring.coreos.com/v1, optional
    ServiceMonitor,
    /// monitoring.coreos.com/v1, optional
    PodMonitor,
    /// monitoring.coreos.com/v1, optional
    PrometheusRule,
}

impl Kind {
    /// Kinds that every cluster has.
    pub const BUILT_IN: [Self; 13] = [
        Self::ServiceAccount,
        Self::Secret,
        Self::ConfigMap,
        Self::Service,
        Self::PersistentVolumeClaim,
        Self::ResourceQuota,
        Self::Deployment,
        Self::StatefulSet,
        Self::Job,
        Self::HorizontalPodAutoscaler,
        Self::PodDisruptionBudget,
        Self::NetworkPolicy,
        Self::Ingress,
    ];

    /// Kinds whose API may be absent, may be out of order, and may come and go while the operator runs.
    pub const OPTIONAL: [Self; 6] = [
        Self::Route,
        Self::HttpRoute,
        Self::PostgresCluster,
        Self::ServiceMonitor,
        Self::PodMonitor,
        Self::PrometheusRule,
    ];

    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::BUILT_IN.into_iter().chain(Self::OPTIONAL)
    }

    /// The kind's name in the API; also its metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceAccount => "ServiceAccount",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::Service => "Service",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::ResourceQuota => "ResourceQuota",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::Job => "Job",
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Ingress => "Ingress",
            Self::Route => "Route",
            Self::HttpRoute => "HTTPRoute",
            Self::PostgresCluster => "PostgresCluster",
            Self::ServiceMonitor => "ServiceMonitor",
            Self::PodMonitor => "PodMonitor",
            Self::PrometheusRule => "PrometheusRule",
        }
    }

    /// Group, version and plural.
    pub fn resource(self) -> ApiResource {
        let optional = |group: &str, version: &str, plural: &str| {
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, self.name()), plural)
        };
        match self {
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::Secret => ApiResource::erase::<Secret>(&()),
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::PersistentVolumeClaim => ApiResource::erase::<PersistentVolumeClaim>(&()),
            Self::ResourceQuota => ApiResource::erase::<ResourceQuota>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
            Self::Job => ApiResource::erase::<Job>(&()),
            Self::HorizontalPodAutoscaler => ApiResource::erase::<HorizontalPodAutoscaler>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::Ingress => ApiResource::erase::<Ingress>(&()),
            Self::Route => optional("route.openshift.io", "v1", "routes"),
            Self::HttpRoute => optional("gateway.networking.k8s.io", "v1", "httproutes"),
            Self::PostgresCluster => optional("postgres-operator.crunchydata.com", "v1beta1", "postgresclusters"),
            Self::ServiceMonitor => optional("monitoring.coreos.com", "v1", "servicemonitors"),
            Self::PodMonitor => optional("monitoring.coreos.com", "v1", "podmonitors"),
            Self::PrometheusRule => optional("monitoring.coreos.com", "v1", "prometheusrules"),
        }
    }

    /// Whether its API may be absent.
    pub fn is_optional(self) -> bool {
        Self::OPTIONAL.contains(&self)
    }
}
