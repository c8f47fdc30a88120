//! Autoscaler of the API server, with the behaviour of seed section 2.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget,
    PodsMetricSource, ResourceMetricSource,
};

use super::labels::Component;
use super::meta;
use crate::api::v1alpha1::PodMetric;
use crate::controllers::persesstack::observed::Availability;
use crate::controllers::persesstack::validate::Validated;
use crate::sizing::Sizing;

/// Memory utilisation that the autoscaler aims at, percent of the request.
const MEMORY_TARGET: i32 = 80;
/// CPU utilisation that the autoscaler aims at, percent of the request; the model counts with the same number.
const CPU_TARGET: i32 = 70;

/// The autoscaler. Metrics of the pods are in it when the cluster has an API for them; `None` while that is not known.
pub(super) fn build(v: &Validated, sizing: &Sizing) -> Option<HorizontalPodAutoscaler> {
    let autoscaling = &v.spec.api.autoscaling;
    let mut metrics = vec![utilisation("cpu", CPU_TARGET), utilisation("memory", MEMORY_TARGET)];
    if !autoscaling.pod_metrics.is_empty() {
        match v.capabilities.custom_metrics {
            Availability::Present => metrics.extend(autoscaling.pod_metrics.iter().map(pod_metric)),
            Availability::Absent => {}
            Availability::Unknown => return None,
        }
    }
    Some(HorizontalPodAutoscaler {
        metadata: meta::owned(v, v.names.api(), Component::Api),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name: v.names.api(),
            },
            min_replicas: Some(sizing.api.min_replicas.value),
            max_replicas: sizing.api.max_replicas.value,
            metrics: Some(metrics),
            behavior: Some(HorizontalPodAutoscalerBehavior {
                scale_up: Some(pods(autoscaling.scale_up_window_seconds, 2, 60)),
                scale_down: Some(pods(300, 1, 120)),
            }),
        }),
        status: None,
    })
}

fn pod_metric(metric: &PodMetric) -> MetricSpec {
    MetricSpec {
        type_: "Pods".to_owned(),
        pods: Some(PodsMetricSource {
            metric: MetricIdentifier { name: metric.name.clone(), selector: None },
            target: MetricTarget {
                type_: "AverageValue".to_owned(),
                average_value: Some(metric.average_value.clone().into()),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn utilisation(resource: &str, percent: i32) -> MetricSpec {
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: resource.to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(percent),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn pods(window_seconds: i32, count: i32, period_seconds: i32) -> HPAScalingRules {
    HPAScalingRules {
        stabilization_window_seconds: Some(window_seconds),
        policies: Some(vec![HPAScalingPolicy { type_: "Pods".to_owned(), value: count, period_seconds }]),
        ..HPAScalingRules::default()
    }
}
