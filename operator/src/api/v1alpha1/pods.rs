//! The pods of the API server: where they run, how they scale, how they serve.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quantity::Quantity;
use super::spec::LocalReference;

/// How strictly pods are spread over zones and nodes.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum Spread {
    /// Spread where there is room; pods start in any case.
    #[default]
    ScheduleAnyway,
    /// A pod that cannot be spread waits. Needs at least as many nodes as pods that run at the same time.
    DoNotSchedule,
}

/// How the number of pods follows the load.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Autoscaling {
    /// Seconds for which the load must stay high before pods are added. A burst that is shorter adds none.
    #[schemars(range(min = 0, max = 3600))]
    pub scale_up_window_seconds: i32,
    /// More metrics than CPU and memory: averages over the pods, from a custom metrics API (`custom.metrics.k8s.io`, such as
    /// prometheus-adapter). The number of pods is the greatest that any metric asks for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub pod_metrics: Vec<PodMetric>,
}

impl Default for Autoscaling {
    fn default() -> Self {
        Self { scale_up_window_seconds: 60, pod_metrics: Vec::new() }
    }
}

/// One metric of the pods.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodMetric {
    /// Name in the custom metrics API, for example `perses_http_request_per_second`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// What one pod should have on average.
    pub average_value: Quantity,
}

/// HTTPS between the router and the pods, and inside the cluster.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.secret) == (self.type == 'Secret')").message("set secret when type is Secret, and only then").field_path(".secret"))]
pub struct ServingTls {
    /// Where the certificate comes from.
    #[serde(rename = "type")]
    pub type_: ServingTlsType,
    /// Secret of type `kubernetes.io/tls` (`tls.crt`, `tls.key`). Its `ca.crt`, when it has one, is given to a Route and to
    /// Prometheus and trusted by the operator: the certificate must then be one for `<stack>-api.<namespace>.svc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<LocalReference>,
}

/// Where the certificate of the pods comes from.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum ServingTlsType {
    /// A Secret in the stack's namespace. The server reads it again when it changes.
    Secret,
    /// OpenShift's service CA makes and renews it.
    OpenShift,
}
