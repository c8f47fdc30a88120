//! Schema migration: one Job per image and database, named after both.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{Container, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::api::PROGRAM;
use super::labels::Component;
use super::pod::{self, Pod};
use super::{Migration, meta, server_config};
use crate::controllers::persesstack::validate::{Endpoint, Invalid, Validated};

const CONTAINER: &str = "migrate";

/// Exit status of the server's `migrate` on the schema of a later release. Trying again is of no use then.
const TOO_NEW: i32 = 3;

/// Pods that may fail before the Job gives up, ten minutes in sum by the pauses of the Job's controller.
const ATTEMPTS: i32 = 6;

/// The Job and its configuration.
pub(super) fn build(v: &Validated, endpoint: &Endpoint) -> Result<Migration, Invalid> {
    let file = server_config::migrate(endpoint)?;
    let hash = meta::hash([v.images.api_server.as_bytes(), file.as_bytes(), endpoint.secret.as_bytes()]);
    let name = v.names.migration(&hash);
    let data = BTreeMap::from([("config.yaml".to_owned(), file.into_bytes())]);
    let config = meta::secret(meta::owned(v, name.clone(), Component::Migration), data, true);

    let (user_key, password_key) = &endpoint.secret_keys;
    let mut mounts = vec![
        pod::mount("config", "/etc/perses/config", true),
        pod::mount("database", "/etc/perses/database", true),
        pod::mount("tmp", "/tmp", false),
    ];
    let container = Container {
        name: CONTAINER.to_owned(),
        image: Some(v.images.api_server.clone()),
        command: Some(pod::words(&[PROGRAM])),
        args: Some(pod::words(&["migrate", "--config=/etc/perses/config/config.yaml"])),
        resources: Some(ResourceRequirements {
            requests: Some(amount("50m", "64Mi")),
            limits: Some(amount("1", "256Mi")),
            claims: None,
        }),
        ..Container::default()
    };
    let mut volumes = vec![
        pod::secret_volume("config", &name, &[]),
        pod::secret_volume("database", &endpoint.secret, &[(user_key, "user"), (password_key, "password")]),
        pod::empty_dir("tmp", "64Mi"),
    ];
    if let Some(ca) = &endpoint.ca {
        volumes.push(pod::secret_volume("database-ca", &ca.secret, &[(&ca.key, "ca.crt")]));
        mounts.push(pod::mount("database-ca", server_config::AUTHORITY, true));
    }
    let container = Container { volume_mounts: Some(mounts), ..container };
    let template = pod::template(
        v,
        Pod {
            component: Component::Migration,
            config_hash: None,
            container,
            sidecars: Vec::new(),
            volumes,
            grace_seconds: 30,
            data_user: false,
            service_account: Some(v.names.api()),
            // Only so the policy below sees how a container ended.
            restart_policy: Some("Never"),
            spread: None,
            priority_class: None,
        },
    );
    let job = Job {
        metadata: meta::owned(v, name, Component::Migration),
        // Kept when done: its presence says that this image's schema is there.
        spec: Some(JobSpec {
            backoff_limit: Some(ATTEMPTS),
            pod_failure_policy: Some(PodFailurePolicy {
                rules: vec![PodFailurePolicyRule {
                    action: "FailJob".to_owned(),
                    on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                        container_name: Some(CONTAINER.to_owned()),
                        operator: "In".to_owned(),
                        values: vec![TOO_NEW],
                    }),
                    on_pod_conditions: None,
                }],
            }),
            template,
            ..JobSpec::default()
        }),
        status: None,
    };
    Ok(Migration { config, job })
}

/// Amounts of CPU and memory.
pub(super) fn amount(cpu: &str, memory: &str) -> BTreeMap<String, Quantity> {
    [("cpu", cpu), ("memory", memory)].map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into()
}
