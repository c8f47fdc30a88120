//! `render`: what the operator would apply, without a cluster. Generated values and passwords are masked.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::v1alpha1::{AuthStatus, DatabaseType, ExposureType, PersesStack};
use crate::apply::footprint::footprint;
use crate::apply::kind::Kind;
use crate::apply::order::plan;
use crate::controllers::persesstack::build::names::Names;
use crate::controllers::persesstack::build::{self, Resources};
use crate::controllers::persesstack::crunchy::{self, ClusterState, CrunchySchema};
use crate::controllers::persesstack::observed::{Availability, Capabilities, Observed, SecretData};
use crate::controllers::persesstack::sign_in::OauthServer;
use crate::controllers::persesstack::validate::{self, Invalid, ResolvedAuth, Validated};
use crate::crd;
use crate::settings::{Entropy, Settings};
use crate::sizing::footprint::Footprint;
use crate::sizing::{self, Sizing};

/// Stands for a value that is not shown.
const MASK: &str = "<masked>";

/// Why a file cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// Not YAML.
    #[error("the file is not YAML: {0}")]
    Yaml(String),
    /// No PersesStack in it.
    #[error("the file holds no PersesStack: add one with apiVersion persesstack.io/v1alpha1")]
    NoStack,
    /// The API server would refuse it.
    #[error("the API server would refuse PersesStack {name}:\n  {}", problems.join("\n  "))]
    Refused {
        /// Name of the stack.
        name: String,
        /// What is wrong, a line each.
        problems: Vec<String>,
    },
    /// The operator could not build it.
    #[error("PersesStack {name}: {}{}", invalid.message, if invalid.waiting_for.is_some() { " (without a cluster: in this file)" } else { "" })]
    Invalid {
        /// Name of the stack.
        name: String,
        /// What is wrong.
        invalid: Invalid,
    },
    /// An object does not serialize.
    #[error("an object cannot be written: {0}")]
    Write(String),
}

/// A stack, resolved and sized.
pub struct Rendered {
    /// Every choice made.
    pub validated: Validated,
    /// Every number.
    pub sizing: Sizing,
    /// Every object.
    pub resources: Resources,
    /// What they ask of a cluster.
    pub footprint: Footprint,
}

/// The documents of a file that count.
pub struct File {
    /// PersesStacks.
    pub stacks: Vec<Value>,
    /// Secrets that stand for those of the cluster, by name.
    pub secrets: BTreeMap<String, SecretData>,
    /// ConfigMaps likewise.
    pub config_maps: BTreeMap<String, BTreeMap<String, String>>,
}

/// Takes a file apart.
///
/// # Errors
/// It is not YAML, or holds no PersesStack.
pub fn read(text: &str) -> Result<File, RenderError> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| RenderError::Yaml(error.to_string()))?;
    let (stacks, others): (Vec<_>, Vec<_>) = documents.into_iter().partition(|d| d["kind"] == "PersesStack");
    if stacks.is_empty() {
        return Err(RenderError::NoStack);
    }
    let secrets = others.iter().filter(|d| d["kind"] == "Secret").map(given_secret).collect::<Result<_, _>>()?;
    let config_maps = others.iter().filter(|d| d["kind"] == "ConfigMap").map(given_config_map);
    Ok(File { stacks, secrets, config_maps: config_maps.collect::<Result<_, _>>()? })
}

/// Resolves and builds every PersesStack of `text` for a cluster with these optional APIs. Secrets and ConfigMaps in the same
/// file stand for those of the cluster. The host of the spec counts as admitted, and an OpenShift has its OAuth server at a
/// made-up address.
pub fn render(text: &str, settings: &Settings, capabilities: Capabilities) -> Result<Vec<Rendered>, RenderError> {
    let file = read(text)?;
    let (secrets, config_maps) = (file.secrets, file.config_maps);
    let mut observed = Observed { secrets, config_maps, capabilities, ..Observed::default() };
    if capabilities.openshift == Availability::Present {
        let endpoint = |path: &str| format!("https://oauth-openshift.apps.cluster.example/oauth/{path}");
        observed.oauth_server = Some(OauthServer { authorization: endpoint("authorize"), token: endpoint("token") });
    }
    file.stacks.iter().map(|document| one(document, &observed, settings)).collect()
}

fn one(document: &Value, observed: &Observed, settings: &Settings) -> Result<Rendered, RenderError> {
    let name = document["metadata"]["name"].as_str().unwrap_or("(without a name)").to_owned();
    let mut stack = accept(document).map_err(|problems| RenderError::Refused { name: name.clone(), problems })?;
    let invalid = |invalid| RenderError::Invalid { name: name.clone(), invalid };
    if let Some(host) = &stack.spec.exposure.host {
        let plain = stack.spec.exposure.type_ == ExposureType::Ingress && stack.spec.exposure.tls.is_none();
        let address = Some(format!("{}://{host}", if plain { "http" } else { "https" }));
        stack.status.get_or_insert_default().auth = Some(AuthStatus { address, ..AuthStatus::default() });
    }
    let observed = with_stand_ins(&stack, &Names::new(name.clone()), observed);
    let validated = validate::validate(&stack, &observed, settings, &Entropy::fixed()).map_err(invalid)?;
    // Half of a stack is no use in a file.
    if let Some(missing) = validated.waits.first() {
        return Err(invalid(missing.clone()));
    }
    let sizing = sizing::size(&validated.inputs);
    let resources = build::build(&validated, &sizing).map_err(invalid)?;
    let footprint = footprint(&plan(&resources));
    Ok(Rendered { validated, sizing, resources, footprint })
}

/// What Crunchy's operator would answer, where the file does not say it.
fn with_stand_ins(stack: &PersesStack, names: &Names, observed: &Observed) -> Observed {
    let mut observed = observed.clone();
    if stack.spec.database.type_ == DatabaseType::Crunchy {
        // Asked for by name: then it is there.
        observed.capabilities.set(Kind::PostgresCluster, Availability::Present);
    }
    if observed.capabilities.of(Kind::PostgresCluster) == Availability::Present {
        observed.crunchy_schema = Some(CrunchySchema::NEWEST);
        observed.workloads.cluster = Some(ClusterState::well());
    }
    let answers = [
        (names.cluster_user(), vec![("user", crunchy::USER), ("password", "(made by Crunchy's operator)")]),
        (names.cluster_certificate(), vec![("ca.crt", "(made by Crunchy's operator)")]),
    ];
    for (name, pairs) in answers {
        let data = pairs.into_iter().map(|(key, value)| (key.to_owned(), value.as_bytes().to_vec())).collect();
        observed.secrets.entry(name).or_insert(SecretData { data, ..SecretData::default() });
    }
    observed
}

/// The typed object, when schema and CEL rules hold.
pub fn accept(document: &Value) -> Result<PersesStack, Vec<String>> {
    let mut problems = crd::check(document);
    if !problems.is_empty() {
        return Err(problems);
    }
    let stack: PersesStack = serde_json::from_value(document.clone()).map_err(|error| vec![error.to_string()])?;
    if let Err(errors) = stack.validate_cel() {
        problems.push(errors.to_string());
        return Err(problems);
    }
    Ok(stack)
}

fn given_config_map(document: &Value) -> Result<(String, BTreeMap<String, String>), RenderError> {
    let config_map: ConfigMap =
        serde_json::from_value(document.clone()).map_err(|error| RenderError::Yaml(format!("ConfigMap: {error}")))?;
    Ok((config_map.metadata.name.unwrap_or_default(), config_map.data.unwrap_or_default()))
}

fn given_secret(document: &Value) -> Result<(String, SecretData), RenderError> {
    let secret: Secret =
        serde_json::from_value(document.clone()).map_err(|error| RenderError::Yaml(format!("Secret: {error}")))?;
    let mut data: BTreeMap<_, _> = secret.data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.0)).collect();
    data.extend(secret.string_data.unwrap_or_default().into_iter().map(|(k, v)| (k, v.into_bytes())));
    Ok((secret.metadata.name.unwrap_or_default(), SecretData { data, ..SecretData::default() }))
}

/// Every object in the order of apply, as JSON with `apiVersion` and `kind`; passwords and keys are masked.
pub fn objects(rendered: &Rendered) -> Result<Vec<Value>, RenderError> {
    let Resources {
        retained,
        database,
        cluster,
        cache,
        pooler,
        migration,
        rotation,
        exposure,
        monitoring,
        api,
        limits,
    } = &rendered.resources;
    let mut out = Vec::new();
    for secret in &retained.secrets {
        push(&mut out, secret)?;
    }
    if let Some(claim) = &retained.claim {
        push(&mut out, claim)?;
    }
    let build::Limits { server, quota, network_policies } = limits;
    push(&mut out, server)?;
    push_some(&mut out, quota.as_ref())?;
    for policy in network_policies {
        push(&mut out, policy)?;
    }
    if let Some(build::Database { config, service, stateful_set }) = database {
        push(&mut out, config)?;
        push(&mut out, service)?;
        push_some(&mut out, stateful_set.as_ref())?;
    }
    push_some(&mut out, cluster.as_ref().and_then(|cluster| cluster.object.as_ref()))?;
    if let Some(build::Cache { config, services, deployment, stateful_set, pdb }) = cache {
        push_some(&mut out, config.as_ref())?;
        for service in services {
            push(&mut out, service)?;
        }
        push_some(&mut out, deployment.as_ref())?;
        push_some(&mut out, stateful_set.as_ref())?;
        push_some(&mut out, pdb.as_ref())?;
    }
    if let Some(build::Pooler { config, service, deployment, pdb }) = pooler {
        push_some(&mut out, config.as_ref())?;
        push(&mut out, service)?;
        push_some(&mut out, deployment.as_ref())?;
        push(&mut out, pdb)?;
    }
    for build::Migration { config, job } in migration.iter().chain(rotation) {
        push(&mut out, config)?;
        push(&mut out, job)?;
    }
    let build::Api {
        config,
        provisioning,
        service_account,
        bindings,
        service_authority,
        service,
        deployment,
        hpa,
        pdb,
    } = api;
    push(&mut out, service_account)?;
    push_some(&mut out, service_authority.as_ref())?;
    for binding in bindings {
        push(&mut out, binding)?;
    }
    push_some(&mut out, config.as_ref())?;
    push(&mut out, provisioning)?;
    push(&mut out, service)?;
    push_some(&mut out, deployment.as_ref())?;
    push_some(&mut out, hpa.as_ref())?;
    push(&mut out, pdb)?;
    if let Some(build::Exposure { route, http_route, ingress }) = exposure {
        push_some(&mut out, route.as_ref())?;
        push_some(&mut out, http_route.as_ref())?;
        push_some(&mut out, ingress.as_ref())?;
    }
    let build::Monitoring { service_monitors, pod_monitor, rules } = monitoring;
    for monitor in service_monitors.iter().flatten() {
        push(&mut out, monitor)?;
    }
    push_some(&mut out, pod_monitor.as_ref().and_then(Option::as_ref))?;
    push_some(&mut out, rules.as_ref().and_then(Option::as_ref))?;

    let secrets = confidential(&rendered.validated);
    for object in &mut out {
        if object["kind"] == "Secret" {
            readable(object);
            // Only Secrets can hold them; elsewhere a password that is a common word must not hide other text.
            mask(object, &secrets);
            masked_as_text(object);
        }
    }
    Ok(out)
}

fn push<T: Serialize>(out: &mut Vec<Value>, object: &T) -> Result<(), RenderError> {
    out.push(serde_json::to_value(object).map_err(|error| RenderError::Write(error.to_string()))?);
    Ok(())
}

fn push_some<T: Serialize>(out: &mut Vec<Value>, object: Option<&T>) -> Result<(), RenderError> {
    object.map_or(Ok(()), |object| push(out, object))
}

/// All objects as one YAML stream.
pub fn yaml(rendered: &Rendered) -> Result<String, RenderError> {
    let mut text = String::new();
    for object in objects(rendered)? {
        text += "---\n";
        text += &serde_saphyr::to_string(&object).map_err(|error| RenderError::Write(error.to_string()))?;
    }
    Ok(text)
}

/// Text of Secrets as text, so that a person can read and compare it.
fn readable(secret: &mut Value) {
    let Some(Value::Object(data)) = secret.get("data").cloned() else { return };
    let mut text = serde_json::Map::new();
    let mut binary = serde_json::Map::new();
    for (key, value) in data {
        let bytes = value.as_str().and_then(|v| BASE64.decode(v).ok()).unwrap_or_default();
        match String::from_utf8(bytes) {
            Ok(plain) => text.insert(key, json!(plain)),
            Err(_) => binary.insert(key, value),
        };
    }
    if let Value::Object(fields) = secret {
        fields.remove("data");
        if !text.is_empty() {
            fields.insert("stringData".to_owned(), Value::Object(text));
        }
        if !binary.is_empty() {
            fields.insert("data".to_owned(), Value::Object(binary));
        }
    }
}

/// Values that are never shown: generated ones and those of referenced Secrets.
fn confidential(v: &Validated) -> Vec<String> {
    let mut values: Vec<_> = v.endpoint.iter().map(|endpoint| endpoint.login.password.0.clone()).collect();
    for (secret, keys) in &v.generated.secrets {
        for (key, value) in keys {
            match (key.as_str(), std::str::from_utf8(value)) {
                ("password" | "other-password" | "tls.key", Ok(text)) => values.push(text.to_owned()),
                (_, Err(_)) => values.push(BASE64.encode(value)),
                _ if *secret == v.names.keys() => values.push(BASE64.encode(value)),
                _ => {}
            }
        }
    }
    for datasource in &v.datasources {
        match &datasource.auth {
            Some(ResolvedAuth::Basic(login)) => values.push(login.password.0.clone()),
            Some(ResolvedAuth::Bearer(token)) => values.push(token.0.clone()),
            Some(ResolvedAuth::ServiceAccount) | None => {}
        }
        values.extend(datasource.tls.iter().filter_map(|tls| Some(tls.client.as_ref()?.1.0.clone())));
    }
    // As they stand between quotes in a configuration file.
    let quoted: Vec<_> = values.iter().flat_map(|v| [v.replace('\'', "''"), v.replace('"', "\"\"")]).collect();
    values.extend(quoted);
    values.retain(|value| !value.is_empty());
    // Some stand in JSON inside a text: there quotes and line breaks are escaped.
    let escaped = values.iter().map(|value| Value::from(value.as_str()).to_string().trim_matches('"').to_owned());
    let escaped: Vec<_> = escaped.filter(|escaped| !escaped.is_empty()).collect();
    values.extend(escaped);
    // The longest first, so that a value inside another leaves no rest.
    values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    values
}

/// A masked value is no base64: it stands with the text, so that the object stays valid.
fn masked_as_text(secret: &mut Value) {
    let Some(Value::Object(data)) = secret.get_mut("data") else { return };
    let masked: Vec<_> = data.iter().filter(|(_, v)| *v == MASK).map(|(key, _)| key.clone()).collect();
    data.retain(|key, _| !masked.contains(key));
    let empty = data.is_empty();
    if let Value::Object(fields) = secret {
        if empty {
            fields.remove("data");
        }
        if !masked.is_empty() {
            let text = fields.entry("stringData").or_insert_with(|| json!({}));
            for key in masked {
                text[key] = json!(MASK);
            }
        }
    }
}

fn mask(value: &mut Value, secrets: &[String]) {
    match value {
        Value::String(text) => {
            for secret in secrets {
                if text.contains(secret.as_str()) {
                    *text = text.replace(secret.as_str(), MASK);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask(item, secrets)),
        Value::Object(fields) => fields.values_mut().for_each(|field| mask(field, secrets)),
        _ => {}
    }
}
