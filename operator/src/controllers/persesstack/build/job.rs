//! What Jobs of the server's program have in common: a migration's, and those of rotations.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodTemplateSpec, ResourceRequirements, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::api::PROGRAM;
use super::labels::Component;
use super::pod::{self, Pod};
use super::server_config;
use crate::controllers::persesstack::validate::{Endpoint, Validated};

/// One run of the program.
pub(super) struct Run<'a> {
    /// Name of the container.
    pub container: &'static str,
    /// Command and flags, without the one that names the configuration.
    pub arguments: &'static [&'static str],
    /// Secret with `config.yaml`.
    pub config: &'a str,
    /// What it mounts beside that, and beside how to sign in to the database.
    pub volumes: Vec<Volume>,
    pub mounts: Vec<VolumeMount>,
    /// What the kubelet does when it fails.
    pub restart_policy: &'static str,
}

/// The pods of the Job.
pub(super) fn template(v: &Validated, endpoint: &Endpoint, run: Run<'_>) -> PodTemplateSpec {
    let Run { container, arguments, config, mut volumes, mut mounts, restart_policy } = run;
    let (user_key, password_key) = &endpoint.secret_keys;
    volumes.extend([
        pod::secret_volume("config", config, &[]),
        pod::secret_volume("database", &endpoint.secret, &[(user_key, "user"), (password_key, "password")]),
        pod::empty_dir("tmp", "64Mi"),
    ]);
    mounts.extend([
        pod::mount("config", "/etc/perses/config", true),
        pod::mount("database", "/etc/perses/database", true),
        pod::mount("tmp", "/tmp", false),
    ]);
    if let Some(ca) = &endpoint.ca {
        volumes.push(pod::secret_volume("database-ca", &ca.secret, &[(&ca.key, "ca.crt")]));
        mounts.push(pod::mount("database-ca", server_config::AUTHORITY, true));
    }
    let mut words = pod::words(arguments);
    words.push("--config=/etc/perses/config/config.yaml".to_owned());
    let container = Container {
        name: container.to_owned(),
        image: Some(v.images.api_server.clone()),
        command: Some(pod::words(&[PROGRAM])),
        args: Some(words),
        resources: Some(ResourceRequirements {
            requests: Some(amount("50m", "64Mi")),
            limits: Some(amount("1", "256Mi")),
            claims: None,
        }),
        volume_mounts: Some(mounts),
        ..Container::default()
    };
    let pod = Pod {
        component: Component::Migration,
        config_hash: None,
        container,
        sidecars: Vec::new(),
        volumes,
        grace_seconds: 30,
        data_user: false,
        service_account: Some(v.names.api()),
        restart_policy: Some(restart_policy),
        spread: None,
        priority_class: None,
    };
    pod::template(v, pod)
}

/// Amounts of CPU and memory.
fn amount(cpu: &str, memory: &str) -> BTreeMap<String, Quantity> {
    [("cpu", cpu), ("memory", memory)].map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into()
}
