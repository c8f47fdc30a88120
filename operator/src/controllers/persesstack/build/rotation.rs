//! Jobs of rotations: what is stored under the old credential is brought to the new one.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{Volume, VolumeMount};
use serde_json::{Value, json};

use super::job::{self, Run};
use super::labels::Component;
use super::pod;
use super::{Migration, meta, server_config, sign_in};
use crate::controllers::persesstack::rotation::{JOB, KNOWN_PASSWORD, OTHER_PASSWORD, OTHER_USER, What};
use crate::controllers::persesstack::validate::{Endpoint, Invalid, Validated};

/// Where the Job of a database rotation finds the role and its passwords.
const LOGIN: &str = "/etc/perses/login";

/// A Job with its configuration for every rotation whose step needs one.
pub(super) fn build(v: &Validated, endpoint: &Endpoint) -> Result<Vec<Migration>, Invalid> {
    let steps = v.generated.rotations.iter();
    steps.filter_map(|(what, state)| Some(job(v, endpoint, *what, state.job(*what)?))).collect()
}

fn job(v: &Validated, endpoint: &Endpoint, what: What, step: String) -> Result<Migration, Invalid> {
    let Work { arguments, security, volumes, mounts } = work(v, endpoint, what);
    let mut config = server_config::direct(endpoint);
    if !security.is_null() {
        config["security"] = security;
    }
    let file = server_config::yaml(&config)?;
    let name = v.names.rotation(&meta::hash([step.as_bytes(), v.images.api_server.as_bytes(), file.as_bytes()]));
    let mut metadata = meta::owned(v, name.clone(), Component::Migration);
    let data = BTreeMap::from([("config.yaml".to_owned(), file.into_bytes())]);
    let config = meta::secret(metadata.clone(), data, true);
    metadata.annotations = Some(BTreeMap::from([(JOB.to_owned(), step)]));

    let run = Run { container: "rotate", arguments, config: &name, volumes, mounts, restart_policy: "OnFailure" };
    let template = job::template(v, endpoint, run);
    let spec = Some(JobSpec { backoff_limit: Some(20), template, ..JobSpec::default() });
    Ok(Migration { config, job: Job { metadata, spec, status: None } })
}

struct Work {
    arguments: &'static [&'static str],
    /// `security` of the configuration; null when nothing of it is needed.
    security: Value,
    volumes: Vec<Volume>,
    mounts: Vec<VolumeMount>,
}

fn work(v: &Validated, endpoint: &Endpoint, what: What) -> Work {
    let whole = |name: &str, secret: &str, folder: &str| {
        (vec![pod::secret_volume(name, secret, &[])], vec![pod::mount(name, folder, true)])
    };
    match what {
        What::Database => {
            let files = [(OTHER_USER, "user"), (OTHER_PASSWORD, "password"), (KNOWN_PASSWORD, "known-password")];
            Work {
                arguments: &[
                    "login",
                    "--user-file=/etc/perses/login/user",
                    "--password-file=/etc/perses/login/password",
                    "--known-password-file=/etc/perses/login/known-password",
                ],
                security: Value::Null,
                volumes: vec![pod::secret_volume("login", &endpoint.secret, &files)],
                mounts: vec![pod::mount("login", LOGIN, true)],
            }
        }
        What::Admin => {
            let (volumes, mounts) = whole("admin", &v.names.admin(), "/etc/perses/admin");
            let security = json!({ "authentication": { "initial_admin": sign_in::initial_admin(v) } });
            Work { arguments: &["users", "renew-admin-password"], security, volumes, mounts }
        }
        What::Keys | What::Redis => {
            let (volumes, mounts) = whole("keys", &v.names.keys(), "/etc/perses/keys");
            let mut security = json!({});
            server_config::keys(v, &mut security);
            Work { arguments: &["secrets", "re-encrypt"], security, volumes, mounts }
        }
    }
}
