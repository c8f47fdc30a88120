//! PURE: from spec, cluster and settings to what can be built and what waits, or why nothing can be built.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::build::names::Names;
use super::exposure::{self, Exposed};
use super::observed::{Availability, Capabilities, Observed, SecretData};
use super::provider::ClusterPlan;
use super::references::{self, RedisLogin, external_endpoint, pooler_certificate, redis_login};
use super::sign_in::{self, SignIn, WayIn};
use super::suspension::{Running, running};
use super::waits::{Part, Waits};
use super::{crunchy, datasources, generated, inputs, monitoring, provider, rotation};
use crate::api::v1alpha1::{
    CacheType, DatabaseType, Datasource, ExposureType, PersesStack, PersesStackSpec, PoolerType,
};
use crate::apply::kind::Kind;
use crate::certificate;
use crate::settings::{DefaultImages, Entropy, Settings};
use crate::sizing::Inputs;

/// A Secret (and key) that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRef {
    /// Name, in the stack's namespace.
    pub name: String,
    /// The key that is missing; `None` when the Secret itself is.
    pub key: Option<String>,
}

/// Why something cannot be built: nothing at all when only a changed spec helps, else what needs it. `message` says what was asked, what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Invalid {
    /// CamelCase reason for the condition.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Set when it goes on by itself as soon as this Secret is there.
    pub waiting_for: Option<SecretRef>,
    /// Only a changed spec helps: `Stalled=True`.
    pub terminal: bool,
}

/// A password or token; `Debug` redacts it.
#[derive(Clone, PartialEq, Eq)]
pub struct Redacted(pub String);

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redacted")
    }
}

/// User name and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// User name.
    pub user: String,
    /// Password.
    pub password: Redacted,
}

/// Where the database is and how to sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host of the server, or of a pooler that somebody else runs.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Database name.
    pub dbname: String,
    /// Credentials.
    pub login: Login,
    /// libpq's sslmode.
    pub sslmode: &'static str,
    /// Host and port for migrations: the primary itself.
    pub direct: (String, u16),
    /// Secret that holds the credentials.
    pub secret: String,
    /// Its keys of user and password.
    pub secret_keys: (String, String),
    /// Host and port of streaming replicas.
    pub read: Option<(String, u16)>,
    /// Who signed the server's certificate.
    pub ca: Option<Authority>,
}

/// Certificates that a peer's certificate is checked against: a key of a Secret, which pods mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Secret.
    pub secret: String,
    /// Key.
    pub key: String,
    /// The certificates, PEM; no secret.
    pub pem: Vec<u8>,
}

/// The certificate with which the pooler meets the API pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolerCertificate {
    /// Secret with `tls.crt`, `tls.key` and `ca.crt`.
    pub secret: String,
    /// Stands for the content: pods start anew when it changes.
    pub fingerprint: String,
}

/// Values of the generated Secrets: those that exist, else new ones from entropy. One that is waited for is not here.
#[derive(Clone, PartialEq, Eq)]
pub struct Generated {
    /// Data of every generated Secret by name.
    pub secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// How far their rotations are.
    pub rotations: rotation::States,
    /// How old the pooler's certificate is; `None` when the operator makes none, or does not know.
    pub certificate: Option<certificate::State>,
}

impl fmt::Debug for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.secrets.keys()).finish()
    }
}

/// A datasource with its credentials resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedDatasource {
    /// As declared.
    pub spec: Datasource,
    /// Its base URL.
    pub url: String,
    /// Resolved credentials.
    pub auth: Option<ResolvedAuth>,
    /// Resolved certificates.
    pub tls: Option<ResolvedTls>,
}

/// Credentials of a datasource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolvedAuth {
    /// User name and password.
    Basic(Login),
    /// Bearer token.
    Bearer(Redacted),
    /// The token of the API pods' account.
    ServiceAccount,
}

/// TLS towards a datasource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedTls {
    /// Authority (PEM).
    pub ca: Option<String>,
    /// Certificate and private key (PEM) that the server shows.
    pub client: Option<(String, Redacted)>,
    /// Name that the certificate must have.
    pub server_name: Option<String>,
    /// Any certificate is taken.
    pub insecure: bool,
}

/// Certificate of the API pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServingCertificate {
    /// Secret with `tls.crt` and `tls.key`.
    pub secret: String,
    /// Certificate (PEM) of the authority that signed it, where the Secret has it.
    pub ca: Option<String>,
}

/// A stack that can be built: every choice made, every reference resolved or waited for.
#[derive(Clone, Debug)]
pub struct Validated {
    /// Names of its objects.
    pub names: Names,
    /// Namespace.
    pub namespace: String,
    /// Owner reference for stateless children; `None` when the stack has no uid yet (`render`).
    pub owner: Option<OwnerReference>,
    /// The spec.
    pub spec: PersesStackSpec,
    /// The images to use.
    pub images: DefaultImages,
    /// The store: never `Auto`.
    pub database_type: DatabaseType,
    /// Where it is; `None` while its credentials are waited for.
    pub endpoint: Option<Endpoint>,
    /// The cluster of Crunchy's operator; `None` with another store, and while its API cannot be asked.
    pub cluster: Option<ClusterPlan>,
    /// The Secret with which Crunchy's operator answers; the readiness of the cluster depends on it.
    pub cluster_credentials: Option<SecretData>,
    /// What the pooler shows its clients; `None` without TLS, and while its Secret is waited for.
    pub pooler_certificate: Option<PoolerCertificate>,
    /// How to sign in to an external Redis; `None` with another cache, and while its Secrets are waited for.
    pub redis_login: Option<RedisLogin>,
    /// Values of the generated Secrets.
    pub generated: Generated,
    /// Datasources with credentials, without those whose credentials are waited for.
    pub datasources: Vec<ResolvedDatasource>,
    /// Names of the other ones: what the server has of them stays.
    pub held_datasources: Vec<String>,
    /// What the server was given last.
    pub provisioned: SecretData,
    /// Ways to sign in, without the providers that are waited for.
    pub sign_in: SignIn,
    /// The operator may not read the bindings to cluster roles that are needed: they are not built.
    pub bindings_forbidden: bool,
    /// What exposes the service; `None` while that cannot be told.
    pub exposure: Option<Exposed>,
    /// What the API pods are configured for: the same, and what it was before while it cannot be told. Never `Auto`.
    pub configured_exposure: ExposureType,
    /// Certificate of the API pods; `None` when they serve plain HTTP, and while it is waited for.
    pub serving_tls: Option<ServingCertificate>,
    /// What is made for Prometheus.
    pub monitoring: monitoring::Choice,
    /// What is waited for, and what it holds back.
    pub waits: Waits,
    /// User ids are assigned by the platform.
    pub openshift: bool,
    /// Optional APIs: an object of a kind that is not there must not be built.
    pub capabilities: Capabilities,
    /// Namespace of the operator, which calls the API; empty when unknown.
    pub operator_namespace: String,
    /// Whether the API Deployment exists: then `spec.replicas` is not ours.
    pub api_exists: bool,
    /// Which parts run.
    pub running: Running,
    /// What is said of rotations: a reason and a text; `None` where none was ever asked for.
    pub rotation: Option<(&'static str, String)>,
    /// Inputs of the capacity model.
    pub inputs: Inputs,
}

impl Validated {
    /// What templates of pods say of the generated Secrets.
    pub fn seen(&self) -> rotation::Seen {
        rotation::Seen::at(&self.generated.rotations, self.spec.pooler.type_ == PoolerType::PgBouncer)
    }
}

impl Invalid {
    /// Only a changed spec helps.
    pub(super) fn terminal(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), waiting_for: None, terminal: true }
    }

    /// Goes on by itself when the Secret (or its key) is there.
    pub(super) fn waiting(name: &str, key: Option<&str>, purpose: &str) -> Self {
        let message = match key {
            None => format!("waiting for Secret {name} ({purpose}): create it in the stack's namespace"),
            Some(key) => format!("waiting for key {key} in Secret {name} ({purpose}): it is absent or empty"),
        };
        Self {
            reason: "SecretNotFound",
            message,
            waiting_for: Some(SecretRef { name: name.to_owned(), key: key.map(str::to_owned) }),
            terminal: false,
        }
    }

    /// Goes on by itself when the API of an optional kind answers again.
    pub(super) fn unavailable(kind: Kind) -> Self {
        let resource = kind.resource();
        let (api, plural) = (&resource.api_version, &resource.plural);
        Self {
            reason: "ApiUnavailable",
            message: format!(
                "{api} does not answer or may not be read, so {plural} are left as they are: look at \"kubectl get \
                 apiservices\", and at the operator's role"
            ),
            waiting_for: None,
            terminal: false,
        }
    }
}

/// Resolves every reference of `stack` and makes every choice. What is missing is noted in [`Validated::waits`].
///
/// # Errors
/// A spec that cannot be carried out; or, not terminal, a choice for good that must not be made yet.
pub fn validate(
    stack: &PersesStack,
    observed: &Observed,
    settings: &Settings,
    entropy: &Entropy,
) -> Result<Validated, Invalid> {
    let spec = stack.spec.clone();
    let names = Names::new(stack.metadata.name.clone().unwrap_or_default());
    if let Some(config) = &spec.api.config {
        refuse_owned_keys(config)?;
    }
    let namespace = stack.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let database_type = provider::database_type(stack, observed, &names)?;
    provider::pooler(&spec, database_type)?;
    let inputs = inputs::inputs(&spec, database_type, observed)?;
    let mut waits = Waits::default();
    let cluster = match database_type {
        DatabaseType::Crunchy => waits.hold(provider::cluster(stack, observed, &names), Part::WITH_CLUSTER)?,
        _ => None,
    };
    let generated = generated::resolve(stack, database_type, &names, observed, entropy, &mut waits)?;
    let endpoint = match (database_type, &spec.database.external) {
        (DatabaseType::External, Some(external)) => {
            waits.hold(external_endpoint(external, observed), Part::WITH_EXTERNAL)?
        }
        (DatabaseType::Crunchy, _) => {
            let running = observed.api_replicas.is_some();
            waits.hold(crunchy::endpoint(&names, &namespace, observed, running), Part::WITH_EXTERNAL)?
        }
        _ if generated.secrets.contains_key(&names.database()) => {
            waits.hold(generated.database_endpoint(&names), Part::WITH_DATABASE)?
        }
        _ => None,
    };
    let pooler_certificate = match &spec.pooler.tls {
        Some(tls) => {
            let given = tls.secret_ref.as_ref().map(|secret| &secret.name);
            let found = match given {
                Some(name) => pooler_certificate(name, observed.secrets.get(name)).map(Some),
                // When it is waited for, the generated Secrets have said so.
                None => Ok(generated.pooler_certificate(&names)),
            };
            waits.hold(found, Part::WITH_POOLER)?.flatten()
        }
        None => None,
    };
    let redis_login = match (&spec.cache.external, spec.cache.type_) {
        (Some(external), CacheType::External) => waits.hold(redis_login(external, observed), Part::WITH_KEYS)?,
        _ => None,
    };
    let (mut datasources, mut held_datasources) = (Vec::new(), Vec::new());
    for datasource in &spec.datasources {
        match waits.hold(datasources::resolve(datasource, observed), Part::WITH_DATASOURCE)? {
            Some(resolved) => datasources.push(resolved),
            None => held_datasources.push(datasource.name.clone()),
        }
    }
    let classes = observed.ingress_classes.as_deref();
    let chosen = exposure::choose(&spec.exposure, observed.capabilities, classes);
    let exposure = waits.hold(chosen, Part::WITH_EXPOSURE)?;
    let before = stack.status.as_ref().and_then(|status| Some(status.exposure.as_ref()?.type_));
    let configured_exposure = exposure::configured(&spec.exposure, exposure.as_ref(), before);
    let serving_tls = references::serving_tls(spec.api.tls.as_ref(), &names, observed);
    let serving_tls = waits.hold(serving_tls, Part::WITH_TLS)?;
    waits.hold(pod_metrics(&spec, observed.capabilities), Part::WITH_POD_METRICS)?;
    let mut made = |switch, field, kind| {
        waits.hold(monitoring::made(switch, field, kind, observed.capabilities), Part::WITH_MONITORING)
    };
    let monitoring = monitoring::Choice {
        service_monitor: made(spec.monitoring.service_monitor, "spec.monitoring.serviceMonitor", Kind::ServiceMonitor)?,
        pod_monitor: if monitoring::has_exporter(&spec, database_type) {
            made(spec.monitoring.service_monitor, "spec.monitoring.serviceMonitor", Kind::PodMonitor)?
        } else {
            Some(false)
        },
        rules: made(spec.monitoring.rules, "spec.monitoring.rules", Kind::PrometheusRule)?,
    };
    let before = stack.status.as_ref().and_then(|status| status.auth.as_ref());
    let way_in = match exposure.as_ref().map(Exposed::kind) {
        None => WayIn::Unknown,
        Some(None) => WayIn::Nothing,
        Some(Some(kind)) => WayIn::Kind(kind),
    };
    let sign_in = sign_in::resolve(&spec, observed, way_in, before, &mut waits)?;
    let rotation = rotation::summary(stack, database_type, &generated.rotations, observed);

    Ok(Validated {
        namespace,
        owner: owner(stack),
        images: images(&spec, settings),
        database_type,
        endpoint,
        cluster,
        cluster_credentials: observed.secrets.get(&names.cluster_user()).cloned(),
        pooler_certificate,
        redis_login,
        generated,
        datasources,
        held_datasources,
        provisioned: observed.provisioned.clone(),
        sign_in,
        bindings_forbidden: observed.bindings_forbidden,
        exposure,
        configured_exposure,
        serving_tls: serving_tls.flatten(),
        monitoring,
        waits,
        openshift: observed.capabilities.openshift == Availability::Present,
        capabilities: observed.capabilities,
        operator_namespace: settings.namespace.clone(),
        api_exists: observed.api_replicas.is_some(),
        running: running(spec.suspend, &observed.workloads),
        rotation,
        inputs,
        names,
        spec,
    })
}

/// Whether the autoscaler can follow the metrics that the spec asks for.
fn pod_metrics(spec: &PersesStackSpec, capabilities: Capabilities) -> Result<(), Invalid> {
    let (reason, what) = match capabilities.custom_metrics {
        _ if spec.api.autoscaling.pod_metrics.is_empty() => return Ok(()),
        Availability::Present => return Ok(()),
        Availability::Absent => {
            ("ApiAbsent", "is not there: install an adapter, such as prometheus-adapter. CPU and memory are followed")
        }
        Availability::Unknown => ("ApiUnavailable", "does not answer. The autoscaler is left as it is"),
    };
    let message = format!("spec.api.autoscaling.podMetrics needs custom.metrics.k8s.io, which {what}");
    Err(Invalid { reason, message, waiting_for: None, terminal: false })
}

fn owner(stack: &PersesStack) -> Option<OwnerReference> {
    use kube::Resource;
    Some(OwnerReference {
        api_version: PersesStack::api_version(&()).into_owned(),
        kind: PersesStack::kind(&()).into_owned(),
        name: stack.metadata.name.clone()?,
        uid: stack.metadata.uid.clone()?,
        controller: Some(true),
        block_owner_deletion: Some(true),
    })
}

fn images(spec: &PersesStackSpec, settings: &Settings) -> DefaultImages {
    let or = |own: &Option<String>, default: &String| own.clone().unwrap_or_else(|| default.clone());
    DefaultImages {
        api_server: or(&spec.images.api_server, &settings.images.api_server),
        redis: or(&spec.images.redis, &settings.images.redis),
        pgbouncer: or(&spec.images.pgbouncer, &settings.images.pgbouncer),
        postgres: or(&spec.images.postgres, &settings.images.postgres),
        pgbouncer_exporter: or(&spec.images.pgbouncer_exporter, &settings.images.pgbouncer_exporter),
        redis_exporter: or(&spec.images.redis_exporter, &settings.images.redis_exporter),
    }
}

/// Keys of the server's configuration that the operator owns, and what to use instead.
const OWNED_KEYS: [(&[&str], &str); 10] = [
    (&["limits_file"], "spec.limits"),
    (&["database"], "spec.database"),
    (&["provisioning"], "spec.datasources"),
    (&["security", "encryption_key"], "the generated Secret <stack>-keys"),
    (&["security", "encryption_key_file"], "the generated Secret <stack>-keys"),
    (&["security", "previous_encryption_key_files"], "the annotation persesstack.io/rotate-keys"),
    (&["security", "authentication", "initial_admin"], "the generated Secret <stack>-admin"),
    (&["cache", "redis"], "spec.cache"),
    (&["server", "drain_delay"], "the operator's value, which fits the pod's grace period"),
    (&["server", "drain_timeout"], "the operator's value, which fits the pod's grace period"),
];

fn refuse_owned_keys(config: &serde_json::Map<String, serde_json::Value>) -> Result<(), Invalid> {
    for (path, instead) in OWNED_KEYS {
        let mut value = path.first().and_then(|first| config.get(*first));
        for key in path.iter().skip(1) {
            value = value.and_then(|v| v.get(*key));
        }
        if value.is_some() {
            let path = path.join(".");
            return Err(Invalid::terminal(
                "ConfigKeyOwned",
                format!("spec.api.config.{path} is set by the operator: remove it and use {instead}"),
            ));
        }
    }
    Ok(())
}
