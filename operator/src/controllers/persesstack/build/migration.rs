//! Schema migration: one Job per image and database, named after both.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule,
};

use super::job::{self, Run};
use super::labels::Component;
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

    let run = Run {
        container: CONTAINER,
        arguments: &["migrate"],
        config: &name,
        volumes: Vec::new(),
        mounts: Vec::new(),
        // Only so the policy below sees how a container ended.
        restart_policy: "Never",
    };
    let template = job::template(v, endpoint, run);
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
