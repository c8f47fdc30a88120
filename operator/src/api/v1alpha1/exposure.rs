//! How the service is reached from outside the cluster.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the service is reached from outside the cluster.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type != 'None' || !has(self.host)").message("host cannot be set when type is None").field_path(".host"))]
pub struct Exposure {
    /// Kind of exposure.
    #[serde(default, rename = "type")]
    pub type_: ExposureType,
    /// Host name of the service, for example `perses.example.com`. A router chooses one when it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub host: Option<String>,
}

/// Kinds of exposure.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum ExposureType {
    /// A Route where the cluster has them, else nothing.
    #[default]
    Auto,
    /// A Route of OpenShift.
    Route,
    /// The service is reached inside the cluster only.
    None,
}
