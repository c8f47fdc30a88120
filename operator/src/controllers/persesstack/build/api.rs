//! The API server: configuration, Deployment, Service, autoscaler, disruption budget, service account.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{Container, Secret, Service, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::Component;
use super::meta;
use super::pod::{self, Pod, Timing};
use super::{Api, Migration, account, hpa, limits_file, pod_template, provisioning, server_config, sign_in, target};
use crate::api::v1alpha1::ServingTlsType;
use crate::controllers::persesstack::datasources;
use crate::controllers::persesstack::suspension::Pods;
use crate::controllers::persesstack::validate::{Endpoint, Invalid, Validated};
use crate::controllers::persesstack::waits::Part;
use crate::sizing::Sizing;

/// How a pod leaves: it is taken out of the Service at once, but a router or a node hears of that later. OpenShift's router
/// reloads at most every 5 s; so the server goes on accepting for longer than that, then ends what is in flight.
pub(super) mod drain {
    /// How long a pod that must stop accepts requests, in seconds.
    pub(crate) const DELAY_SECONDS: i64 = 10;
    /// How long what is in flight may take after that: the longest query (`query.timeout`) and a reserve.
    pub(crate) const TIMEOUT_SECONDS: i64 = 65;
    /// Grace period of the pod.
    pub(crate) const GRACE_SECONDS: i64 = DELAY_SECONDS + TIMEOUT_SECONDS + 15;
}

/// Path of the program in its image.
pub(super) const PROGRAM: &str = "/usr/bin/perses-api-server";

/// Everything of the API server; the pods and their configuration only when nothing that they need is waited for.
pub(super) fn build(v: &Validated, sizing: &Sizing, migration: Option<&Migration>) -> Result<Api, Invalid> {
    let name = v.names.api();
    let held = v.waits.of(Part::Api).is_some();
    let needs = v.endpoint.as_ref().zip(migration).filter(|_| !held);
    let pods = needs.map(|(endpoint, migration)| {
        let config = config(v, sizing, endpoint)?;
        let deployment = deployment(v, sizing, endpoint, &config, migration)?;
        Ok::<_, Invalid>((config, deployment))
    });
    let (config, deployment) = pods.transpose()?.unzip();
    Ok(Api {
        provisioning: provisioning::secret(v)?,
        service_account: ServiceAccount {
            metadata: ObjectMeta {
                annotations: sign_in::annotations(v),
                ..meta::owned(v, name.clone(), Component::Api)
            },
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        bindings: account::bindings(v),
        service_authority: account::service_authority(v),
        service: service(v),
        deployment,
        hpa: hpa::build(v, sizing),
        pdb: meta::pdb(v, name, Component::Api),
        config,
    })
}

/// Immutable and named after its content: a pod never sees half of a change, and a roll-back finds the old one.
fn config(v: &Validated, sizing: &Sizing, endpoint: &Endpoint) -> Result<Secret, Invalid> {
    let file = server_config::serve(v, sizing, endpoint)?;
    let name = v.names.api_config(&meta::hash([file.as_bytes()]));
    let data = BTreeMap::from([("config.yaml".to_owned(), file.into_bytes())]);
    Ok(meta::secret(meta::owned(v, name, Component::Api), data, true))
}

/// The Service; where OpenShift makes the certificate, it is asked to by an annotation.
fn service(v: &Validated) -> Service {
    let mut service = meta::service(v, v.names.api(), Component::Api, "http", 8080);
    let Some(tls) = &v.spec.api.tls else { return service };
    if tls.type_ == ServingTlsType::OpenShift {
        let annotation = ("service.beta.openshift.io/serving-cert-secret-name".to_owned(), v.names.api_tls());
        service.metadata.annotations = Some(BTreeMap::from([annotation]));
    }
    for port in service.spec.iter_mut().flat_map(|spec| spec.ports.iter_mut().flatten()) {
        // Proxies that speak HTTP to pods otherwise.
        port.app_protocol = Some("https".to_owned());
    }
    service
}

fn deployment(
    v: &Validated,
    sizing: &Sizing,
    endpoint: &Endpoint,
    config: &Secret,
    migration: &Migration,
) -> Result<Deployment, Invalid> {
    let (credentials, user_key, password_key) = target::credentials(v, endpoint);
    let mut volumes = vec![
        pod::secret_volume("config", config.metadata.name.as_deref().unwrap_or_default(), &[]),
        pod::secret_volume("keys", &v.names.keys(), &[]),
        pod::secret_volume("admin", &v.names.admin(), &[]),
        pod::secret_volume("database", &credentials, &[(user_key, "user"), (password_key, "password")]),
        pod::secret_volume("provisioning", &v.names.provisioning(), &[]),
        pod::config_map_volume("limits", &v.names.limits()),
        pod::empty_dir("tmp", "64Mi"),
    ];
    let mut mounts = vec![
        pod::mount("config", "/etc/perses/config", true),
        pod::mount("keys", "/etc/perses/keys", true),
        pod::mount("admin", "/etc/perses/admin", true),
        pod::mount("database", "/etc/perses/database", true),
        pod::mount("provisioning", "/etc/perses/provisioning", true),
        pod::mount("limits", limits_file::FOLDER, true),
        pod::mount("tmp", "/tmp", false),
    ];
    if v.spec.cache.type_.is_own() {
        volumes.push(pod::secret_volume("redis", &v.names.redis(), &[("password", "password")]));
        mounts.push(pod::mount("redis", server_config::REDIS, true));
    }
    if let Some((secret, key)) = target::api(v, sizing, endpoint).ca {
        volumes.push(pod::secret_volume("database-ca", &secret, &[(&key, "ca.crt")]));
        mounts.push(pod::mount("database-ca", server_config::AUTHORITY, true));
    }
    if let Some(login) = &v.redis_login {
        let passwords = [
            ("redis", server_config::REDIS, &login.server),
            ("redis-sentinel", server_config::SENTINEL, &login.sentinel),
        ];
        for (name, path, credentials) in passwords {
            if let Some(credentials) = credentials {
                let files = [(credentials.password_key.as_str(), "password")];
                volumes.push(pod::secret_volume(name, &credentials.secret, &files));
                mounts.push(pod::mount(name, path, true));
            }
        }
        if let Some(ca) = &login.ca {
            volumes.push(pod::secret_volume("redis-ca", &ca.secret, &[(&ca.key, "ca.crt")]));
            mounts.push(pod::mount("redis-ca", server_config::REDIS_AUTHORITY, true));
        }
    }
    if let Some(volume) = sign_in::volume(v) {
        mounts.push(pod::mount(&volume.name, sign_in::FOLDER, true));
        volumes.push(volume);
    }
    if let Some(volume) = account::volume(v) {
        mounts.push(pod::mount(&volume.name, account::FOLDER, true));
        volumes.push(volume);
    }
    if datasources::uses_openshift(&v.spec) {
        volumes.push(pod::config_map_volume("service-ca", &v.names.service_ca()));
        mounts.push(pod::mount("service-ca", account::SERVICE_FOLDER, true));
    }
    if let Some(tls) = &v.serving_tls {
        volumes.push(pod::secret_volume("tls", &tls.secret, &[("tls.crt", "tls.crt"), ("tls.key", "tls.key")]));
        mounts.push(pod::mount("tls", "/etc/perses/tls", true));
    }
    let tls = v.serving_tls.is_some();
    let container = Container {
        name: pod_template::API.to_owned(),
        image: Some(v.images.api_server.clone()),
        command: Some(pod::words(&[PROGRAM])),
        args: Some(pod::words(&["serve", "--config=/etc/perses/config/config.yaml", "--web.listen-address=:8080"])),
        ports: Some(vec![pod::port("http", 8080)]),
        resources: Some(pod::resources(&sizing.api.compute)),
        // Five minutes for a database that is just coming up.
        startup_probe: Some(pod::http_probe("/readyz", tls, Timing { period: 2, timeout: 2, failures: 150 })),
        readiness_probe: Some(pod::http_probe("/readyz", tls, Timing { period: 5, timeout: 2, failures: 2 })),
        liveness_probe: Some(pod::http_probe("/livez", tls, Timing { period: 10, timeout: 5, failures: 3 })),
        volume_mounts: Some(mounts),
        ..Container::default()
    };
    let mut metadata = meta::owned(v, v.names.api(), Component::Api);
    let job = migration.job.metadata.name.clone().unwrap_or_default();
    metadata.annotations = Some(match v.running.api {
        Pods::Run => BTreeMap::from([(meta::MIGRATION.to_owned(), job)]),
        // Without its migration: when it wakes it waits for the schema of the image that it has by then.
        Pods::Stop => BTreeMap::from([(meta::SUSPENDED.to_owned(), "true".to_owned())]),
    });
    // The autoscaler owns the number as soon as the Deployment exists, except for the way into sleep and out of it.
    let ours = !v.api_exists || v.running.wakes_api || v.running.api == Pods::Stop;
    let template = pod::template(
        v,
        Pod {
            component: Component::Api,
            config_hash: None,
            container,
            sidecars: Vec::new(),
            volumes,
            grace_seconds: drain::GRACE_SECONDS,
            data_user: false,
            service_account: Some(v.names.api()),
            restart_policy: None,
            spread: Some(v.spec.api.spread),
            priority_class: v.spec.api.priority_class_name.clone(),
        },
    );
    let template = match &v.spec.api.pod_template {
        Some(own) => pod_template::merge(template, own)?,
        None => template,
    };
    let template = meta::seen(template, v.seen().api);
    Ok(Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: ours.then(|| v.running.api.of(sizing.api.min_replicas.value)),
            revision_history_limit: Some(3),
            progress_deadline_seconds: Some(600),
            selector: meta::selector(v, Component::Api),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template,
            ..DeploymentSpec::default()
        }),
        status: None,
    })
}
