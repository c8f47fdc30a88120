//! The observe step (I/O): reads everything that the pure steps need, and decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use serde_json::Value;

use super::admission;
use super::build::SUSPENDED;
use super::build::account::{CLUSTER_ROLES, cluster_roles};
use super::build::labels::Component;
use super::build::names::Names;
use super::context::Context;
use super::crunchy::ClusterState;
use super::monitoring;
use super::observed::{
    Availability, Capabilities, ForeignObject, HpaState, JobState, Listener, Observed, SecretData, WorkloadState,
    Workloads,
};
use super::rotation::{self, Evidence, State, Step};
use super::survey;
use super::{datasources, frontends, platform, sign_in};
use crate::api::v1alpha1::{DatabaseType, LocalReference, PersesStack, PersesStackSpec, ServingTlsType};
use crate::apply::cluster::{Bindings, holds_bindings};
use crate::apply::inventory::{Inventory, component, live_pods};
use crate::apply::kind::Kind;
use crate::apply::owner::{Claim, StackId, claim};
use crate::apply::{ApplyError, verb};

/// What exists, as objects and as the summary for the pure steps.
#[derive(Debug)]
pub struct Picture {
    /// Objects with the stack's labels.
    pub inventory: Inventory,
    /// Summary.
    pub observed: Observed,
    /// Bindings to cluster roles.
    pub bindings: Bindings,
}

/// Reads the picture of one stack. Any failed read fails the whole: half a picture looks like deleted objects.
pub async fn observe(context: &Context, stack: &PersesStack, id: &StackId) -> Result<Picture, ApplyError> {
    let names = Names::new(id.name.clone());
    let mut referenced = referenced_secrets(stack);
    if stack.spec.api.tls.as_ref().is_some_and(|tls| tls.type_ == ServingTlsType::OpenShift) {
        referenced.insert(names.api_tls());
    }
    let config_maps = referenced_config_maps(stack);
    let generated = [
        names.keys(),
        names.admin(),
        names.redis(),
        names.redis_peers(),
        names.database(),
        names.pgbouncer_client(),
        names.pgbouncer_tls(),
    ];
    // Before the reads: a Secret that appears between the read and the registration would go unnoticed.
    context.references.set(id, referenced.iter().chain(&generated).cloned().collect());
    context.config_maps.set(id, config_maps.clone());
    let (read, facts) =
        tokio::join!(inventory(context, id), survey::facts(&context.client, &context.cluster, &id.namespace));
    let (mut inventory, capabilities) = read?;
    let mut observed = Observed { capabilities, facts, ..Observed::default() };
    for name in generated.iter().chain(&referenced) {
        if let Some((secret, owner)) = secret(context, id, &inventory, name).await? {
            if let (Claim::Foreign { owner }, true) = (owner, generated.contains(name)) {
                observed.foreign.push(ForeignObject { kind: "Secret".to_owned(), name: name.clone(), owner });
            }
            observed.secrets.insert(name.clone(), secret);
        }
    }
    let rotating = observed.secrets.values().filter_map(State::of).any(|state| state.step != Step::Done);
    let pods = if stack.spec.suspend || rotating {
        live_pods(&context.client, &id.namespace, &id.name).await?
    } else {
        Vec::new()
    };
    if stack.spec.suspend {
        inventory.count_pods(&pods);
    }
    for name in config_maps {
        if let Some(data) = config_map(context, id, &name).await? {
            observed.config_maps.insert(name, data);
        }
    }
    observed.provisioned.data = provisioned(&inventory, &names);
    observed.oauth_server = platform::oauth_server(&context.client, &stack.spec).await;
    let bindings = bindings(context, stack, id, &names).await?;
    observed.bindings_forbidden = bindings.forbidden;
    // A generated Secret that somebody deleted while we run comes back with the same content.
    context.vault.restore(id, &generated, &mut observed.secrets);

    let api = inventory.typed::<Deployment>(Kind::Deployment, &names.api());
    observed.api_replicas = api.and_then(|api| api.spec?.replicas);
    observed.ingress_classes = frontends::ingress_classes(context, &stack.spec.exposure).await?;
    observed.listeners = frontends::listeners(context, &stack.spec.exposure, capabilities, id).await?;
    observed.workloads = workloads(&inventory, &names, None, &observed.listeners);
    observed.rotation = if rotating {
        evidence(&names, &inventory, &pods, &observed.workloads)
    } else {
        Evidence { now: Timestamp::now(), ..Evidence::default() }
    };
    found_data(&mut observed, stack, &inventory, &names);
    if capabilities.of(Kind::PostgresCluster) == Availability::Present
        && matches!(stack.spec.database.type_, DatabaseType::Crunchy | DatabaseType::Auto)
    {
        observed.crunchy_schema = context.crunchy_schema.get(&context.client).await;
    }
    let complete = |(name, job): (&String, &JobState)| job.complete.then(|| name.clone());
    observed.completed_migrations = observed.workloads.migrations.iter().filter_map(complete).collect();
    Ok(Picture { inventory, observed, bindings })
}

/// What the cluster shows of rotations.
fn evidence(names: &Names, inventory: &Inventory, pods: &[Value], workloads: &Workloads) -> Evidence {
    let mut evidence = Evidence { now: Timestamp::now(), ..Evidence::default() };
    let seen = |name: &str, state: Option<&WorkloadState>, of: Component| {
        let live = [Kind::Deployment, Kind::StatefulSet].into_iter().find_map(|kind| inventory.get(kind, name));
        let live = live.filter(|_| state.is_some_and(WorkloadState::settled))?;
        let says = |metadata: &Value| metadata["annotations"][rotation::SEEN].as_str().unwrap_or_default().to_owned();
        let template = says(&live["spec"]["template"]["metadata"]);
        // One that is being stopped goes on for a while, with what it had.
        let mut of_it = pods.iter().filter(|pod| component(pod) == Some(of.as_str()));
        of_it.all(|pod| says(&pod["metadata"]) == template).then_some(template)
    };
    evidence.api = seen(&names.api(), workloads.api.as_ref(), Component::Api);
    evidence.redis = seen(&names.redis(), workloads.redis.as_ref(), Component::Redis);
    evidence.pooler = seen(&names.pgbouncer(), workloads.pgbouncer.as_ref(), Component::PgBouncer);
    let step = |(name, live): (&str, &Value)| {
        let step = live["metadata"]["annotations"][rotation::JOB].as_str()?;
        Some((step.to_owned(), workloads.migrations.get(name)?.clone()))
    };
    evidence.jobs = inventory.of_kind(Kind::Job).filter_map(step).collect();
    evidence
}

/// Which store has this stack's data, and how large its volume is. PURE.
fn found_data(observed: &mut Observed, stack: &PersesStack, inventory: &Inventory, names: &Names) {
    let volume = inventory.typed::<PersistentVolumeClaim>(Kind::PersistentVolumeClaim, &names.database());
    let cluster = observed.workloads.cluster.as_ref();
    let in_use = stack.status.as_ref().and_then(|status| status.database.as_ref()).map(|database| database.type_);
    observed.database = match in_use {
        // Several may be left; the status says which one the pods use.
        Some(DatabaseType::Standalone) if volume.is_some() => Some(DatabaseType::Standalone),
        _ if cluster.is_some() => Some(DatabaseType::Crunchy),
        _ => volume.as_ref().map(|_| DatabaseType::Standalone),
    };
    observed.database_claim_size = match observed.database {
        Some(DatabaseType::Crunchy) => cluster.and_then(|cluster| cluster.storage.clone()),
        _ => volume.and_then(|volume| Some(volume.spec?.resources?.requests?.get("storage")?.0.clone())),
    };
}

/// What exists, of every kind whose API is there.
async fn inventory(context: &Context, id: &StackId) -> Result<(Inventory, Capabilities), ApplyError> {
    let read = async || {
        let mut capabilities = context.capabilities.get(&context.client).await?;
        let inventory = Inventory::read(&context.client, &id.namespace, &id.name, &mut capabilities).await?;
        Ok::<_, ApplyError>((inventory, capabilities))
    };
    match read().await {
        // An optional API may have gone, or out of order, since it was asked for.
        Err(error) if context.capabilities.refresh(&context.client).await => {
            tracing::debug!(%error, "the optional APIs have changed");
            read().await
        }
        result => result,
    }
}

/// One Secret from the inventory, else by its name; with whose it is.
async fn secret(
    context: &Context,
    id: &StackId,
    inventory: &Inventory,
    name: &str,
) -> Result<Option<(SecretData, Claim)>, ApplyError> {
    let value = if let Some(value) = inventory.get(Kind::Secret, name) {
        Some(value.clone())
    } else {
        let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &id.namespace);
        let failed = |source| ApplyError::new("Secret", name, verb::GET, source);
        let secret = secrets.get_opt(name).await.map_err(failed)?;
        let value = secret.map(serde_json::to_value).transpose();
        value.map_err(|source| failed(kube::Error::SerdeError(source)))?
    };
    let Some(value) = value else { return Ok(None) };
    let owner = claim(&value, id);
    let secret: Secret = serde_json::from_value(value)
        .map_err(|source| ApplyError::new("Secret", name, verb::GET, kube::Error::SerdeError(source)))?;
    let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    let ours = !matches!(owner, Claim::Foreign { .. });
    let rotation = secret.metadata.annotations.and_then(|mut annotations| annotations.remove(rotation::STATE));
    Ok(Some((SecretData { data, ours, rotation }, owner)))
}

/// Names of the Secrets that people wrote into the spec, and of those that Crunchy's operator makes. PURE.
pub fn referenced_secrets(stack: &PersesStack) -> BTreeSet<String> {
    let PersesStackSpec { api, database, pooler, cache, .. } = &stack.spec;
    let mut names: Vec<&LocalReference> = Vec::new();
    names.extend(api.tls.iter().filter_map(|tls| tls.secret.as_ref()));
    if let Some(external) = &database.external {
        names.push(&external.secret_ref);
        names.extend(external.ca.iter().map(|ca| &ca.secret_ref));
    }
    names.extend(pooler.tls.iter().filter_map(|tls| tls.secret_ref.as_ref()));
    if let Some(redis) = &cache.external {
        let sentinel = redis.sentinel.iter().filter_map(|sentinel| sentinel.auth.as_ref());
        names.extend(redis.auth.iter().chain(sentinel).map(|auth| &auth.secret_ref));
        names.extend(redis.tls.iter().filter_map(|tls| tls.ca.as_ref()).map(|ca| &ca.secret_ref));
    }
    let mut names: BTreeSet<String> = names.into_iter().map(|reference| reference.name.clone()).collect();
    if matches!(database.type_, DatabaseType::Crunchy | DatabaseType::Auto) {
        let own = Names::new(stack.metadata.name.clone().unwrap_or_default());
        names.extend([own.cluster_user(), own.cluster_certificate()]);
    }
    names.extend(datasources::secrets(&stack.spec));
    names.extend(sign_in::secrets(&stack.spec));
    names
}

/// Names of the ConfigMaps that people wrote into the spec. PURE.
fn referenced_config_maps(stack: &PersesStack) -> BTreeSet<String> {
    datasources::config_maps(&stack.spec).into_iter().chain(sign_in::config_maps(&stack.spec)).collect()
}

/// Data of one ConfigMap; `None` when there is none.
async fn config_map(
    context: &Context,
    id: &StackId,
    name: &str,
) -> Result<Option<BTreeMap<String, String>>, ApplyError> {
    let config_maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), &id.namespace);
    let found = config_maps.get_opt(name).await;
    let found = found.map_err(|source| ApplyError::new("ConfigMap", name, verb::GET, source))?;
    Ok(found.map(|config_map| config_map.data.unwrap_or_default()))
}

/// What the server was given last.
fn provisioned(inventory: &Inventory, names: &Names) -> BTreeMap<String, Vec<u8>> {
    let secret = inventory.typed::<Secret>(Kind::Secret, &names.provisioning());
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    data.into_iter().map(|(key, value)| (key, value.0)).collect()
}

/// Bindings to cluster roles. They are looked for only where there can be some.
async fn bindings(context: &Context, stack: &PersesStack, id: &StackId, names: &Names) -> Result<Bindings, ApplyError> {
    let roles = if holds_bindings(stack) { CLUSTER_ROLES.to_vec() } else { cluster_roles(&stack.spec) };
    let named = roles.into_iter().map(|role| names.cluster_binding(&id.namespace, role)).collect();
    Bindings::read(&context.client, stack, named).await
}

/// Readiness of what runs. `wanted` is the kind that is to expose the service, `listeners` those of its Gateway. PURE.
pub fn workloads(inventory: &Inventory, names: &Names, wanted: Option<Kind>, listeners: &[Listener]) -> Workloads {
    let counted = |state: WorkloadState, component| {
        let total = state.total.max(inventory.pods(component));
        WorkloadState { total, ..state }
    };
    let deployment = |name: &str, component| {
        let found = inventory.typed(Kind::Deployment, name)?;
        Some(counted(deployment_state(&found), component))
    };
    let stateful_set = |name: &str, component| {
        let found = inventory.typed(Kind::StatefulSet, name)?;
        Some(counted(stateful_set_state(&found), component))
    };
    Workloads {
        api: deployment(&names.api(), Component::Api),
        redis: deployment(&names.redis(), Component::Redis).or_else(|| stateful_set(&names.redis(), Component::Redis)),
        pgbouncer: deployment(&names.pgbouncer(), Component::PgBouncer),
        cluster: inventory.get(Kind::PostgresCluster, &names.database()).map(ClusterState::of),
        database: stateful_set(&names.database(), Component::Database),
        migrations: jobs(inventory),
        exposure: admission::state(inventory, names, wanted, listeners),
        monitoring: monitoring::present(inventory, names),
        hpa: inventory.typed(Kind::HorizontalPodAutoscaler, &names.api()).map(|found| hpa_state(&found)),
    }
}

fn deployment_state(deployment: &Deployment) -> WorkloadState {
    let spec = deployment.spec.as_ref();
    let status = deployment.status.clone().unwrap_or_default();
    let stuck = status.conditions.iter().flatten().find(|condition| {
        (condition.type_ == "Progressing" || condition.type_ == "ReplicaFailure")
            && (condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
                || (condition.type_ == "ReplicaFailure" && condition.status == "True"))
    });
    WorkloadState {
        current: status.observed_generation >= deployment.metadata.generation,
        desired: spec.and_then(|spec| spec.replicas).unwrap_or(1),
        total: status.replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        ready: status.ready_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
        message: stuck.and_then(|condition| condition.message.clone()),
        suspended: deployment.metadata.annotations.iter().flatten().any(|(key, _)| key == SUSPENDED),
    }
}

fn stateful_set_state(set: &StatefulSet) -> WorkloadState {
    let status = set.status.clone().unwrap_or_default();
    // The controller empties neither revision when there is nothing to update: equal means that all pods are current.
    let settled = status.update_revision.is_some() && status.update_revision == status.current_revision;
    let desired = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    WorkloadState {
        current: status.observed_generation >= set.metadata.generation,
        desired,
        total: status.replicas,
        updated: if settled { desired } else { status.updated_replicas.unwrap_or(0) },
        ready: status.ready_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
        message: None,
        suspended: false,
    }
}

fn jobs(inventory: &Inventory) -> BTreeMap<String, JobState> {
    let state = |(name, _): (&str, _)| Some((name.to_owned(), job_state(&inventory.typed(Kind::Job, name)?)));
    inventory.of_kind(Kind::Job).filter_map(state).collect()
}

/// How a Job is. PURE.
fn job_state(job: &Job) -> JobState {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is = |type_: &str| conditions.iter().find(|found| found.type_ == type_ && found.status == "True");
    let failed = is("Failed");
    // The policy of a migration's Job knows one exit status (`build::migration`).
    let too_new = failed.is_some_and(|found| found.reason.as_deref() == Some("PodFailurePolicy"));
    let failed = failed.map(|found| found.message.clone().unwrap_or_else(|| "the Job failed".to_owned()));
    JobState { complete: is("Complete").is_some(), failed, too_new }
}

fn hpa_state(hpa: &HorizontalPodAutoscaler) -> HpaState {
    let Some(status) = &hpa.status else { return HpaState::default() };
    let inactive = |found: &&k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition| {
        found.type_ == "ScalingActive" && found.status == "False"
    };
    HpaState {
        current: status.current_replicas.unwrap_or(0),
        desired: status.desired_replicas,
        message: status.conditions.iter().flatten().find(inactive).and_then(|found| found.message.clone()),
    }
}
