//! Prometheus exporters beside PgBouncer and Redis: one more container of the pod, which asks over loopback.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ResourceRequirements, SecretKeySelector, Service, ServicePort,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::{self, Timing};
use crate::api::v1alpha1::Exporter;
use crate::controllers::persesstack::validate::Validated;

/// Name of the port of pods and Services.
pub(super) const PORT: &str = "metrics";
/// Number of the port beside PgBouncer.
pub(super) const PGBOUNCER: i32 = 9127;
/// Number of the port beside Redis.
pub(super) const REDIS: i32 = 9121;

/// Whether exporters run.
pub(super) fn wanted(v: &Validated) -> bool {
    v.spec.monitoring.exporters == Exporter::Enabled
}

/// The exporter of a PgBouncer pod; its user is the pooler's one client, who may look at the console.
pub(super) fn pgbouncer(v: &Validated) -> Option<Container> {
    // On loopback; PgBouncer takes no client without TLS when it has a certificate.
    let sslmode = if v.pooler_certificate.is_some() { "require" } else { "disable" };
    let target = format!("host=127.0.0.1 port=6432 dbname=pgbouncer sslmode={sslmode}");
    let secret = v.names.pgbouncer_client();
    let env = vec![from_secret("PGUSER", &secret, "username"), from_secret("PGPASSWORD", &secret, "password")];
    let args = [format!("--web.listen-address=:{PGBOUNCER}"), format!("--pgBouncer.connectionString={target}")];
    wanted(v).then(|| container(&v.images.pgbouncer_exporter, PGBOUNCER, &args, env))
}

/// The exporter of a Redis pod. It reads INFO: the ACL user may do no more.
pub(super) fn redis(v: &Validated) -> Option<Container> {
    let secret = v.names.redis();
    let env = vec![from_secret("REDIS_USER", &secret, "username"), from_secret("REDIS_PASSWORD", &secret, "password")];
    let args = [
        format!("--web.listen-address=:{REDIS}"),
        "--redis.addr=redis://127.0.0.1:6379".to_owned(),
        "--config-command=-".to_owned(),
        "--exclude-latency-histogram-metrics".to_owned(),
    ];
    wanted(v).then(|| container(&v.images.redis_exporter, REDIS, &args, env))
}

/// The Service with a port for the exporter, when there is one.
pub(super) fn served(v: &Validated, mut service: Service, number: i32) -> Service {
    if wanted(v)
        && let Some(spec) = &mut service.spec
    {
        spec.ports.get_or_insert_default().push(ServicePort {
            name: Some(PORT.to_owned()),
            port: number,
            protocol: Some("TCP".to_owned()),
            target_port: Some(IntOrString::String(PORT.to_owned())),
            ..ServicePort::default()
        });
    }
    service
}

fn container(image: &str, port: i32, args: &[String], env: Vec<EnvVar>) -> Container {
    let list = |cpu: &str, memory: &str| {
        let quantity = |text: &str| Quantity(text.to_owned());
        BTreeMap::from([("cpu".to_owned(), quantity(cpu)), ("memory".to_owned(), quantity(memory))])
    };
    Container {
        name: "exporter".to_owned(),
        image: Some(image.to_owned()),
        args: Some(args.to_vec()),
        env: Some(env),
        ports: Some(vec![pod::port(PORT, port)]),
        resources: Some(ResourceRequirements {
            requests: Some(list("10m", "32Mi")),
            limits: Some(list("100m", "64Mi")),
            claims: None,
        }),
        // No readiness: a pod without metrics serves on.
        liveness_probe: Some(pod::tcp_probe(PORT, Timing { period: 10, timeout: 5, failures: 6 })),
        ..Container::default()
    }
}

fn from_secret(variable: &str, secret: &str, key: &str) -> EnvVar {
    EnvVar {
        name: variable.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector { name: secret.to_owned(), key: key.to_owned(), optional: None }),
            ..EnvVarSource::default()
        }),
    }
}
