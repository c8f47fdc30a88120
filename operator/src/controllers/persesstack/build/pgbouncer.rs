//! PgBouncer in transaction mode, between the API pods and the database.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{Container, Secret};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::Component;
use super::pod::{self, Pod, Timing};
use super::{Pooler, meta};
use crate::controllers::persesstack::validate::Validated;
use crate::sizing::PoolerSizing;

/// Configuration, Service, Deployment and disruption budget.
pub(super) fn build(v: &Validated, sizing: &PoolerSizing) -> Pooler {
    let name = v.names.pgbouncer();
    let ini = ini(v, sizing);
    let users = userlist(v);
    let hash = meta::hash([ini.as_bytes(), users.as_bytes()]);
    Pooler {
        config: config(v, ini, users),
        service: meta::service(v, name.clone(), Component::PgBouncer, "postgres", 5432),
        deployment: deployment(v, sizing, hash),
        pdb: meta::pdb(v, name, Component::PgBouncer),
    }
}

fn config(v: &Validated, ini: String, users: String) -> Secret {
    let data = BTreeMap::from([
        ("pgbouncer.ini".to_owned(), ini.into_bytes()),
        ("userlist.txt".to_owned(), users.into_bytes()),
    ]);
    meta::secret(meta::owned(v, v.names.pgbouncer(), Component::PgBouncer), data, false)
}

fn ini(v: &Validated, sizing: &PoolerSizing) -> String {
    let e = &v.endpoint;
    let pool = sizing.default_pool_size.value;
    let reserve = sizing.reserve_pool_size.value;
    format!(
        "[databases]\n\
         ; Any name: a quoted one is refused here, and only the one user of the list can sign in.\n\
         * = host='{host}' port={port}\n\
         \n\
         [pgbouncer]\n\
         listen_addr = *\n\
         listen_port = 6432\n\
         unix_socket_dir =\n\
         auth_type = scram-sha-256\n\
         auth_file = /etc/perses/pgbouncer/userlist.txt\n\
         pool_mode = transaction\n\
         max_prepared_statements = 200\n\
         max_client_conn = {clients}\n\
         default_pool_size = {pool}\n\
         reserve_pool_size = {reserve}\n\
         reserve_pool_timeout = 3\n\
         max_db_connections = {most}\n\
         server_tls_sslmode = {sslmode}\n\
         server_connect_timeout = 5\n\
         server_login_retry = 1\n\
         query_wait_timeout = 30\n\
         server_idle_timeout = 300\n\
         dns_max_ttl = 5\n\
         tcp_keepalive = 1\n\
         tcp_keepidle = 60\n\
         ignore_startup_parameters = extra_float_digits,options\n\
         log_connections = 0\n\
         log_disconnections = 0\n\
         stats_period = 600\n",
        host = e.host,
        port = e.port,
        clients = sizing.max_client_conn.value,
        most = pool + reserve,
        sslmode = e.sslmode,
    )
}

/// Plain passwords: SCRAM needs them for both sides, the clients' sign-in and its own at the server.
fn userlist(v: &Validated) -> String {
    let quote = |text: &str| text.replace('"', "\"\"");
    format!("\"{}\" \"{}\"\n", quote(&v.endpoint.login.user), quote(&v.endpoint.login.password.0))
}

fn deployment(v: &Validated, sizing: &PoolerSizing, hash: String) -> Deployment {
    let container = Container {
        name: "pgbouncer".to_owned(),
        image: Some(v.images.pgbouncer.clone()),
        command: Some(pod::words(&["pgbouncer"])),
        args: Some(pod::words(&["/etc/perses/pgbouncer/pgbouncer.ini"])),
        ports: Some(vec![pod::port("postgres", 6432)]),
        resources: Some(pod::resources(&sizing.compute)),
        readiness_probe: Some(pod::tcp_probe("postgres", Timing { period: 5, timeout: 2, failures: 2 })),
        liveness_probe: Some(pod::tcp_probe("postgres", Timing { period: 10, timeout: 5, failures: 3 })),
        volume_mounts: Some(vec![
            pod::mount("config", "/etc/perses/pgbouncer", true),
            pod::mount("tmp", "/tmp", false),
        ]),
        ..Container::default()
    };
    Deployment {
        metadata: meta::owned(v, v.names.pgbouncer(), Component::PgBouncer),
        spec: Some(DeploymentSpec {
            replicas: Some(sizing.replicas.value),
            revision_history_limit: Some(3),
            selector: meta::selector(v, Component::PgBouncer),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: pod::template(
                v,
                Pod {
                    component: Component::PgBouncer,
                    config_hash: Some(hash),
                    container,
                    volumes: vec![
                        pod::secret_volume("config", &v.names.pgbouncer(), &[]),
                        pod::empty_dir("tmp", "16Mi"),
                    ],
                    // PgBouncer >= 1.23 serves its clients to the end after SIGTERM and takes no new ones.
                    grace_seconds: 60,
                    data_user: true,
                    service_account: None,
                    restart_policy: None,
                    spread: true,
                },
            ),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}
