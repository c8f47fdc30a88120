//! PgBouncer in transaction mode, between the API pods and the database.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{Container, Lifecycle, LifecycleHandler, Secret, SleepAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::Component;
use super::pod::{self, Pod, Timing};
use super::{Pooler, exporter, meta};
use crate::api::v1alpha1::Spread;
use crate::controllers::persesstack::provider::READ_ONLY;
use crate::controllers::persesstack::validate::{Endpoint, Validated};
use crate::controllers::persesstack::waits::Part;
use crate::sizing::PoolerSizing;

/// A statement waits at most this long for a connection, in seconds.
pub(super) const STATEMENT_WAIT_SECONDS: i64 = 30;

/// Where the pods find the authority of the database's certificate, and their own certificate.
const AUTHORITY: &str = "/etc/perses/database-ca";
const CERTIFICATE: &str = "/etc/perses/pgbouncer-tls";

/// How long a pod that must stop goes on serving, in seconds. PgBouncer (1.23 and later) stops listening on SIGTERM and
/// ends when its last client has gone; the kubelet ends it after the grace period, whoever is still there. So the clients
/// must leave by themselves in time: a connection of the API's pool lives no longer than what is left of the grace period
/// after the wait for the endpoints, the longest statement and a reserve.
pub(super) mod drain {
    /// Grace period of the pod.
    pub(crate) const GRACE_SECONDS: i64 = 90;
    /// New connections still come until every node has taken the pod out of the Service: it listens that long.
    pub(crate) const ENDPOINTS_SECONDS: i64 = 5;
    /// The server's limit for one statement.
    pub(crate) const STATEMENT_SECONDS: i64 = 10;
    /// For the answer's way, a pod that is slow to end, and timers that are late.
    const RESERVE_SECONDS: i64 = 15;
    /// Longest life of a connection in the API's pool.
    pub(crate) const CONNECTION_SECONDS: i64 = GRACE_SECONDS - ENDPOINTS_SECONDS - STATEMENT_SECONDS - RESERVE_SECONDS;
}

/// Configuration, Service, Deployment and disruption budget.
pub(super) fn build(v: &Validated, sizing: &PoolerSizing) -> Pooler {
    let name = v.names.pgbouncer();
    let held = v.waits.of(Part::Pooler).is_some();
    let needs = v.endpoint.as_ref().zip(v.generated.pooler_client(&v.names)).filter(|_| !held);
    let pods = needs.map(|(endpoint, client)| {
        let certificate = v.pooler_certificate.as_ref();
        let watcher = exporter::wanted(v).then_some(client.0);
        let (ini, users) = (ini(endpoint, sizing, certificate.is_some(), watcher), userlist(client));
        let mut parts = vec![ini.as_bytes(), users.as_bytes()];
        // Both are read at the start only.
        parts.extend(endpoint.ca.as_ref().map(|ca| ca.pem.as_slice()));
        parts.extend(certificate.map(|own| own.fingerprint.as_bytes()));
        let hash = meta::hash(parts);
        (config(v, ini, users), deployment(v, sizing, endpoint, hash))
    });
    let (config, deployment) = pods.unzip();
    let service = meta::service(v, name.clone(), Component::PgBouncer, "postgres", 5432);
    Pooler {
        config,
        service: exporter::served(v, service, exporter::PGBOUNCER),
        deployment,
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

/// `watcher` may look at the console.
fn ini(e: &Endpoint, sizing: &PoolerSizing, tls: bool, watcher: Option<&str>) -> String {
    let pool = sizing.default_pool_size.value;
    let reserve = sizing.reserve_pool_size.value;
    let login = sign_in(e);
    let replicas = e.read.as_ref().map_or_else(String::new, |(host, port)| {
        format!("{READ_ONLY} = host='{host}' port={port} dbname='{}' {login}\n", e.dbname)
    });
    let watcher = watcher.map_or_else(String::new, |user| format!("stats_users = {user}\n"));
    let authority = e.ca.as_ref().map_or_else(String::new, |_| format!("server_tls_ca_file = {AUTHORITY}/ca.crt\n"));
    let client = if tls {
        format!(
            "client_tls_sslmode = require\n\
             client_tls_cert_file = {CERTIFICATE}/tls.crt\n\
             client_tls_key_file = {CERTIFICATE}/tls.key\n"
        )
    } else {
        String::new()
    };
    format!(
        "[databases]\n\
         ; Any name: a quoted one is refused here, and only the one user of the list can sign in.\n\
         * = host='{host}' port={port} {login}\n\
         {replicas}\
         \n\
         [pgbouncer]\n\
         listen_addr = *\n\
         listen_port = 6432\n\
         unix_socket_dir =\n\
         auth_type = scram-sha-256\n\
         auth_file = /etc/perses/pgbouncer/userlist.txt\n\
         pool_mode = transaction\n\
         {watcher}max_prepared_statements = 200\n\
         max_client_conn = {clients}\n\
         default_pool_size = {pool}\n\
         reserve_pool_size = {reserve}\n\
         reserve_pool_timeout = 3\n\
         max_db_connections = {most}\n\
         server_tls_sslmode = {sslmode}\n\
         {authority}\
         {client}\
         server_connect_timeout = 5\n\
         server_login_retry = 1\n\
         query_wait_timeout = {STATEMENT_WAIT_SECONDS}\n\
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

/// The one client. Its password is the pooler's own, so that the API pods need not hear of a new one of the database. Plain:
/// a hash would do here, but what is generated has no second form.
fn userlist((user, password): (&str, &str)) -> String {
    let quote = |text: &str| text.replace('"', "\"\"");
    format!("\"{}\" \"{}\"\n", quote(user), quote(password))
}

/// Who signs in at the server, whoever the client is. Plain: SCRAM needs it.
fn sign_in(e: &Endpoint) -> String {
    let quote = |text: &str| text.replace('\'', "''");
    format!("user='{}' password='{}'", quote(&e.login.user), quote(&e.login.password.0))
}

fn deployment(v: &Validated, sizing: &PoolerSizing, endpoint: &Endpoint, hash: String) -> Deployment {
    let mut volumes = vec![pod::secret_volume("config", &v.names.pgbouncer(), &[]), pod::empty_dir("tmp", "16Mi")];
    let mut mounts = vec![pod::mount("config", "/etc/perses/pgbouncer", true), pod::mount("tmp", "/tmp", false)];
    if let Some(ca) = &endpoint.ca {
        volumes.push(pod::secret_volume("database-ca", &ca.secret, &[(&ca.key, "ca.crt")]));
        mounts.push(pod::mount("database-ca", AUTHORITY, true));
    }
    if let Some(own) = &v.pooler_certificate {
        let files = [("tls.crt", "tls.crt"), ("tls.key", "tls.key")];
        volumes.push(pod::secret_volume("tls", &own.secret, &files));
        mounts.push(pod::mount("tls", CERTIFICATE, true));
    }
    let container = Container {
        name: "pgbouncer".to_owned(),
        image: Some(v.images.pgbouncer.clone()),
        command: Some(pod::words(&["pgbouncer"])),
        args: Some(pod::words(&["/etc/perses/pgbouncer/pgbouncer.ini"])),
        ports: Some(vec![pod::port("postgres", 6432)]),
        resources: Some(pod::resources(&sizing.compute)),
        // The kubelet sleeps: the image need not have a shell.
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: drain::ENDPOINTS_SECONDS }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        readiness_probe: Some(pod::tcp_probe("postgres", Timing { period: 5, timeout: 2, failures: 2 })),
        liveness_probe: Some(pod::tcp_probe("postgres", Timing { period: 10, timeout: 5, failures: 3 })),
        volume_mounts: Some(mounts),
        ..Container::default()
    };
    Deployment {
        metadata: meta::owned(v, v.names.pgbouncer(), Component::PgBouncer),
        spec: Some(DeploymentSpec {
            replicas: Some(v.running.pooler.of(sizing.replicas.value)),
            revision_history_limit: Some(3),
            selector: meta::selector(v, Component::PgBouncer),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: meta::seen(
                pod::template(
                    v,
                    Pod {
                        component: Component::PgBouncer,
                        config_hash: Some(hash),
                        container,
                        sidecars: exporter::pgbouncer(v).into_iter().collect(),
                        volumes,
                        grace_seconds: drain::GRACE_SECONDS,
                        data_user: true,
                        service_account: None,
                        restart_policy: None,
                        spread: Some(Spread::ScheduleAnyway),
                        priority_class: None,
                    },
                ),
                v.seen().pooler,
            ),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}
