//! Autoscaler of the API server, with the behaviour of seed section 2.

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget, ResourceMetricSource,
};

use super::labels::Component;
use super::meta;
use crate::controllers::persesstack::validate::Validated;
use crate::sizing::Sizing;

/// Memory utilisation that the autoscaler aims at, percent of the request.
const MEMORY_TARGET: i32 = 80;
/// CPU utilisation that the autoscaler aims at, percent of the request; the model counts with the same number.
const CPU_TARGET: i32 = 70;

/// The autoscaler.
pub(super) fn build(v: &Validated, sizing: &Sizing) -> HorizontalPodAutoscaler {
    HorizontalPodAutoscaler {
        metadata: meta::owned(v, v.names.api(), Component::Api),
        spec: Some(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name: v.names.api(),
            },
            min_replicas: Some(sizing.api.min_replicas.value),
            max_replicas: sizing.api.max_replicas.value,
            metrics: Some(vec![utilisation("cpu", CPU_TARGET), utilisation("memory", MEMORY_TARGET)]),
            behavior: Some(HorizontalPodAutoscalerBehavior {
                scale_up: Some(pods(60, 2, 60)),
                scale_down: Some(pods(300, 1, 120)),
            }),
        }),
        status: None,
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
