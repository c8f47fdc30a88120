//! PURE: what a PostgresCluster of Crunchy's operator says of itself, and whether that means ready.
//!
//! The operator (PGO) publishes no condition for the whole cluster, and writes `observedGeneration` even when a reconcile
//! failed: readiness is put together here from everything that it does publish.

use serde_json::Value;

use super::build::names::Names;
use super::observed::{Availability, Observed, SecretData, WorkloadState};
use super::validate::{Authority, Endpoint, Invalid, Login, Redacted, SecretRef};
use crate::apply::kind::Kind;

/// Database and user of the stack. No underscore: PGO refuses one in the names of users.
pub const USER: &str = "perses";
/// Name of the one instance set. Short: PGO takes at most 46 characters for cluster and set together, and 40 are for the
/// name of the stack.
pub const SET: &str = "pg";

/// What can be read of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterState {
    /// `metadata.generation`.
    pub generation: i64,
    /// `status.observedGeneration`.
    pub observed_generation: Option<i64>,
    /// Condition `Progressing` is False: paused or blocked, with reason and message.
    pub blocked: Option<String>,
    /// Instance sets of the status.
    pub sets: Vec<SetState>,
    /// `spec.instances[set].replicas` of our set.
    pub wanted_replicas: i32,
    /// `spec.shutdown`: all of its pods are taken away.
    pub shutdown: bool,
    /// `status.patroni.systemIdentifier`.
    pub system_identifier: String,
    /// `status.usersRevision`.
    pub users_revision: String,
    /// `status.databaseRevision`.
    pub database_revision: String,
    /// Crunchy's pooler, when `spec.proxy.pgBouncer` is there.
    pub proxy: Option<ProxyState>,
    /// Whether condition `PGBackRestRepoHostReady` is True, when `spec.backups.pgbackrest` is there.
    pub repo_host: Option<bool>,
    /// `spec.instances[set].dataVolumeClaimSpec.resources.requests.storage`.
    pub storage: Option<String>,
    /// Message of condition `PersistentVolumeResizeError`, when True.
    pub resize_error: Option<String>,
}

/// Crunchy's pooler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyState {
    /// Condition `ProxyAvailable` is True.
    pub available: bool,
    /// `status.proxy.pgBouncer.postgresRevision`.
    pub revision: String,
}

/// One instance set of the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetState {
    /// Name.
    pub name: String,
    /// Pods.
    pub replicas: i32,
    /// Ready pods.
    pub ready: i32,
    /// Pods of the latest template.
    pub updated: i32,
}

impl ClusterState {
    /// One instance that is all right; stands for a cluster where there is none to look at.
    pub fn well() -> Self {
        Self {
            observed_generation: Some(0),
            sets: vec![SetState { name: SET.to_owned(), replicas: 1, ready: 1, updated: 1 }],
            wanted_replicas: 1,
            system_identifier: "-".to_owned(),
            users_revision: "-".to_owned(),
            database_revision: "-".to_owned(),
            ..Self::default()
        }
    }

    /// Reads a PostgresCluster as the API server sent it. What is absent counts as not ready.
    pub fn of(cluster: &Value) -> Self {
        let (spec, status) = (&cluster["spec"], &cluster["status"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let number = |value: &Value| value.as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or_default();
        let condition = |type_: &str| items(&status["conditions"]).iter().find(|found| found["type"] == type_);
        let is = |type_: &str, value: &str| condition(type_).filter(|found| found["status"] == value);
        let message = |found: &Value| format!("{}: {}", text(&found["reason"]), text(&found["message"]));
        let ours = items(&spec["instances"]).iter().find(|set| set["name"] == SET).unwrap_or(&Value::Null);
        let set = |found: &Value| SetState {
            name: text(&found["name"]),
            replicas: number(&found["replicas"]),
            ready: number(&found["readyReplicas"]),
            updated: number(&found["updatedReplicas"]),
        };
        Self {
            generation: cluster["metadata"]["generation"].as_i64().unwrap_or_default(),
            observed_generation: status["observedGeneration"].as_i64(),
            blocked: is("Progressing", "False").map(message),
            sets: items(&status["instances"]).iter().map(set).collect(),
            wanted_replicas: number(&ours["replicas"]).max(1),
            shutdown: spec["shutdown"] == true,
            system_identifier: text(&status["patroni"]["systemIdentifier"]),
            users_revision: text(&status["usersRevision"]),
            database_revision: text(&status["databaseRevision"]),
            proxy: spec["proxy"]["pgBouncer"].is_object().then(|| ProxyState {
                available: is("ProxyAvailable", "True").is_some(),
                revision: text(&status["proxy"]["pgBouncer"]["postgresRevision"]),
            }),
            repo_host: spec["backups"]["pgbackrest"]
                .is_object()
                .then(|| is("PGBackRestRepoHostReady", "True").is_some()),
            storage: ours["dataVolumeClaimSpec"]["resources"]["requests"]["storage"].as_str().map(str::to_owned),
            resize_error: is("PersistentVolumeResizeError", "True").map(message),
        }
    }

    /// Its instances, counted as those of a workload. None is ready for anybody before the database and its user exist.
    pub fn instances(&self) -> WorkloadState {
        let sum = |count: fn(&SetState) -> i32| self.sets.iter().map(count).sum();
        let current = self.observed_generation == Some(self.generation);
        let made = [&self.system_identifier, &self.users_revision, &self.database_revision];
        let serves = current && made.iter().all(|word| !word.is_empty());
        WorkloadState {
            current,
            desired: if self.shutdown { 0 } else { self.wanted_replicas },
            total: sum(|set| set.replicas),
            updated: sum(|set| set.updated),
            ready: if serves { sum(|set| set.ready) } else { 0 },
            available: sum(|set| set.ready),
            ..WorkloadState::default()
        }
    }

    /// Why the cluster is not ready: a reason in CamelCase and the observation. `credentials` is the Secret
    /// `<cluster>-pguser-<user>`.
    ///
    /// # Errors
    /// The first line of the formula that does not hold (`docs/providers.md` has all of them).
    pub fn ready(&self, credentials: Option<&SecretData>) -> Result<(), (&'static str, String)> {
        let not = |reason, message: String| Err((reason, message));
        if let Some(blocked) = &self.blocked {
            return not("ClusterBlocked", format!("Crunchy's operator has stopped work on the cluster: {blocked}"));
        }
        if self.observed_generation != Some(self.generation) {
            return not(
                "ClusterNotObserved",
                "Crunchy's operator has not looked at the latest spec of the cluster: is it running, and does it watch \
                 this namespace?"
                    .to_owned(),
            );
        }
        if self.system_identifier.is_empty() {
            return not("ClusterBootstrapping", "the cluster has not been initialised yet".to_owned());
        }
        let Some(set) = self.sets.iter().find(|set| set.name == SET) else {
            return not("InstancesNotReady", "the cluster has no instances yet".to_owned());
        };
        let wanted = self.wanted_replicas;
        if set.ready != wanted || set.replicas != wanted || set.updated != wanted {
            return not(
                "InstancesNotReady",
                format!(
                    "{} of {wanted} instances are ready, {} are updated, {} exist",
                    set.ready, set.updated, set.replicas
                ),
            );
        }
        // Of an instance set that is no longer in the spec.
        if let Some(old) = self.sets.iter().find(|set| set.name != SET && set.replicas > 0) {
            return not("InstancesNotReady", format!("instances of the former set {} are still there", old.name));
        }
        if self.users_revision.is_empty() {
            return not("UsersNotCreated", "the cluster's users have not been created yet".to_owned());
        }
        if self.database_revision.is_empty() {
            return not("DatabaseNotCreated", "the database has not been created yet".to_owned());
        }
        if let Some(proxy) = &self.proxy {
            if !proxy.available {
                return not("ProxyNotAvailable", "Crunchy's PgBouncer does not answer yet".to_owned());
            }
            if proxy.revision.is_empty() {
                return not(
                    "ProxyNotInstalled",
                    "Crunchy's PgBouncer cannot ask the database for passwords yet".to_owned(),
                );
            }
            if credentials.and_then(|secret| secret.text("pgbouncer-uri")).is_none() {
                return not(
                    "ProxyNotPublished",
                    "the Secret of the database's user does not name Crunchy's PgBouncer yet".to_owned(),
                );
            }
        }
        if credentials.and_then(|secret| secret.text("password")).is_none() {
            return not("CredentialsNotPublished", "the Secret of the database's user has no password yet".to_owned());
        }
        if self.repo_host == Some(false) {
            return not("BackupsNotReady", "the host of the backup repository is not ready".to_owned());
        }
        Ok(())
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Where the cluster of this stack is and how to sign in, from the Secrets that PGO makes. `running`: API pods exist; then
/// a cluster that is not ready for a while holds nothing back.
///
/// # Errors
/// What is not there yet; never terminal.
pub(super) fn endpoint(
    names: &Names,
    namespace: &str,
    observed: &Observed,
    running: bool,
) -> Result<Endpoint, Invalid> {
    let cluster = names.database();
    let name = names.cluster_user();
    let waiting = |name: &str, key: Option<&str>, what: &str| Invalid {
        reason: "WaitingForCrunchy",
        message: format!(
            "waiting for Crunchy's operator to publish {what} of PostgresCluster {cluster} in Secret {name}"
        ),
        waiting_for: Some(SecretRef { name: name.to_owned(), key: key.map(str::to_owned) }),
        terminal: false,
    };
    let credentials = observed.secrets.get(&name).ok_or_else(|| waiting(&name, None, "the credentials"))?;
    let word = |key: &str| credentials.text(key).ok_or_else(|| waiting(&name, Some(key), "the credentials"));
    let login = Login { user: word("user")?.to_owned(), password: Redacted(word("password")?.to_owned()) };
    let certificate = names.cluster_certificate();
    let authority = observed.secrets.get(&certificate).and_then(|secret| secret.data.get("ca.crt"));
    let authority = authority.filter(|pem| !pem.is_empty());
    let pem =
        authority.ok_or_else(|| waiting(&certificate, Some("ca.crt"), "the certificate of the authority"))?.clone();
    let held = |reason, message| Err(Invalid { reason, message, waiting_for: None, terminal: false });
    match &observed.workloads.cluster {
        // Pods that start now would crash-loop: their next attempt comes later than the database. With one that is shut down
        // none starts.
        Some(state) if !running && !state.shutdown => {
            if let Err((reason, message)) = state.ready(Some(credentials)) {
                return held(reason, message);
            }
        }
        // Secrets of these names without a cluster of ours: they are somebody else's.
        None if observed.capabilities.of(Kind::PostgresCluster) == Availability::Present => {
            return held("ClusterNotCreated", format!("PostgresCluster {cluster} of this stack does not exist yet"));
        }
        _ => {}
    }
    let host = |service: &str| format!("{cluster}-{service}.{namespace}.svc");
    Ok(Endpoint {
        host: host("primary"),
        port: 5432,
        dbname: USER.to_owned(),
        login,
        sslmode: "verify-full",
        direct: (host("primary"), 5432),
        secret: name,
        secret_keys: ("user".to_owned(), "password".to_owned()),
        read: Some((host("replicas"), 5432)),
        ca: Some(Authority { secret: certificate, key: "ca.crt".to_owned(), pem }),
    })
}

/// What the installed CRD of PostgresCluster can express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrunchySchema {
    /// `spec.config.parameters` is there (PGO 5.8); else settings go to Patroni's dynamic configuration. The API server
    /// drops unknown fields without a word.
    pub parameters: bool,
    /// `spec.backups` may be left out (PGO 5.7).
    pub optional_backups: bool,
    /// `autoGrow` of volumes beside the claim (PGO 6.0).
    pub auto_grow: bool,
}

impl CrunchySchema {
    /// The newest CRD, for `render`.
    pub const NEWEST: Self = Self { parameters: true, optional_backups: true, auto_grow: true };

    /// From the OpenAPI v3 document of the group version that we write; `None` when the kind is not in it.
    pub fn of(document: &Value) -> Option<Self> {
        let schemas = document["components"]["schemas"].as_object()?;
        let is_ours = |schema: &&Value| {
            items(&schema["x-kubernetes-group-version-kind"])
                .iter()
                .any(|kind| kind["kind"] == "PostgresCluster" && kind["version"] == "v1beta1")
        };
        let spec = &schemas.values().find(is_ours)?["properties"]["spec"];
        let properties = &spec["properties"];
        let claim = &properties["instances"]["items"]["properties"]["dataVolumeClaimSpec"]["properties"];
        Some(Self {
            parameters: !properties["config"]["properties"]["parameters"].is_null(),
            optional_backups: !items(&spec["required"]).iter().any(|field| field == "backups"),
            auto_grow: !claim["autoGrow"].is_null(),
        })
    }
}

/// Why a setting of postgresql.conf cannot be given to a cluster of Crunchy's operator; `None` when it can. These are the
/// rules of `spec.config.parameters` in its CRD; Patroni's dynamic configuration would take and then override them.
pub fn refused_parameter(name: &str) -> Option<&'static str> {
    let always = "Crunchy's operator sets it itself";
    match name {
        "listen_addresses" | "port" | "ssl" | "wal_level" | "wal_log_hints" | "hot_standby" | "logging_collector"
        | "log_file_mode" | "cluster_name" | "data_directory" | "config_file" | "hba_file" | "ident_file"
        | "external_pid_file" => Some(always),
        "archive_mode" | "archive_command" | "restore_command" => {
            Some("backups own it: see spec.database.crunchy.backups")
        }
        "synchronous_standby_names" | "primary_conninfo" | "primary_slot_name" | "recovery_min_apply_delay" => {
            Some("Patroni owns replication")
        }
        "max_connections" => Some("use spec.database.crunchy.maxConnections: the pools are cut for it"),
        _ if name.starts_with("unix_socket_") || name.starts_with("recovery_target") => Some(always),
        _ if name.starts_with("ssl_") && name != "ssl_ecdh_curve" => Some(always),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
