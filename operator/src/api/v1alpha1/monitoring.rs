//! How Prometheus watches the stack itself.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::crunchy::Exporter;

/// How Prometheus watches the stack itself, by resources of the Prometheus operator.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Monitoring {
    /// A ServiceMonitor that scrapes the API pods. Unless it is Disabled, a dashboard about the stack is provisioned too when
    /// one of the datasources is the default.
    #[serde(default)]
    pub service_monitor: Switch,
    /// A PrometheusRule with the alerts and service level objectives.
    #[serde(default)]
    pub rules: Switch,
    /// Exporters beside PgBouncer and Redis, as far as the stack runs them itself, each with a ServiceMonitor of its own where
    /// the API pods have one. Turning them on or off replaces the pods.
    #[serde(default = "disabled")]
    pub exporters: Exporter,
    /// More labels of all objects, for a Prometheus that selects by labels, for example `release: kube-prometheus`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = Rule::new("self.size() <= 16").message("at most 16 labels"))]
    #[x_kube(validation = Rule::new("self.all(key, !key.startsWith('app.kubernetes.io/'))").message("labels of app.kubernetes.io/ belong to the operator"))]
    pub labels: BTreeMap<String, String>,
}

impl Default for Monitoring {
    fn default() -> Self {
        Self {
            service_monitor: Switch::default(),
            rules: Switch::default(),
            exporters: disabled(),
            labels: BTreeMap::new(),
        }
    }
}

fn disabled() -> Exporter {
    Exporter::Disabled
}

/// Whether something is made.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum Switch {
    /// Where the cluster has the API for it.
    #[default]
    Auto,
    /// Always; a cluster without the API is told in a condition.
    Enabled,
    /// Never.
    Disabled,
}
