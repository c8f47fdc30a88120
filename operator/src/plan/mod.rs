//! `plan`: what applying a file would do to a cluster, asked by dry runs. It never writes: its client refuses to send
//! anything but reads and dry runs.
//!
//! The decision is the controller's own (`reconcile::decide`); each object is then sent as a server-side dry run, so that
//! defaults, admission and validation of this cluster have their say.

pub mod diff;
pub mod disruption;
pub mod report;

use std::collections::BTreeSet;

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use kube::{Client, ResourceExt};
use serde::Serialize;
use serde_json::Value;

use self::diff::FieldChange;
use self::disruption::{Action, Disruption};
use crate::api::v1alpha1::PersesStack;
use crate::apply::cluster;
use crate::apply::dry_run::Preview;
use crate::apply::footprint::footprint;
use crate::apply::kind::Kind;
use crate::apply::mounts::mounts;
use crate::apply::owner::StackId;
use crate::apply::prune::{leftovers, secrets_in_use};
use crate::apply::ssa::{Applier, Child};
use crate::apply::{ApplyError, order};
use crate::controllers::persesstack::build::build;
use crate::controllers::persesstack::build::labels::COMPONENT_KEY;
use crate::controllers::persesstack::build::names::Names;
use crate::controllers::persesstack::context::Context;
use crate::controllers::persesstack::observe::{Picture, observe};
use crate::controllers::persesstack::reconcile::{Ready, decide};
use crate::controllers::persesstack::validate::{Invalid, validate};
use crate::metrics::Metrics;
use crate::render::{self, RenderError};
use crate::settings::{Entropy, Settings};
use crate::sizing::price::{Cost, PriceTable, cost};
use crate::sizing::size;

/// Field manager of the dry runs of stacks themselves.
const PLAN_MANAGER: &str = "persesstack-operator/plan";

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file cannot be used.
    #[error(transparent)]
    File(Box<RenderError>),
    /// The API server refuses the stack.
    #[error("the API server refuses PersesStack {namespace}/{name}: {message}")]
    Refused {
        /// Namespace.
        namespace: String,
        /// Name.
        name: String,
        /// The server's words.
        message: String,
    },
    /// The operator could not carry it out.
    #[error("PersesStack {name}: {invalid}")]
    Invalid {
        /// Name.
        name: String,
        /// What is wrong.
        invalid: Box<Invalid>,
    },
    /// A read failed.
    #[error("the cluster could not be read: {}", .0.describe())]
    Read(ApplyError),
    /// The lookup of the stack failed.
    #[error("PersesStack {name} could not be read: {source}")]
    Stack {
        /// Name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
}

impl From<RenderError> for PlanError {
    fn from(error: RenderError) -> Self {
        Self::File(Box::new(error))
    }
}

/// What would happen to one stack.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StackPlan {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Fields of the stack's own spec that differ; all of them when there is no such stack yet.
    pub spec: Vec<FieldChange>,
    /// There is no such stack yet.
    pub new: bool,
    /// Objects that would be touched.
    pub objects: Vec<ObjectPlan>,
    /// The worst of the disruptions.
    pub disruption: Disruption,
    /// What is waited for.
    pub waits: Option<String>,
    /// What does not fit into the namespace or the cluster.
    pub infeasible: Vec<String>,
    /// Because of that nothing would be created.
    pub held: bool,
    /// What could not be compared.
    pub unknown: Vec<String>,
    /// Whether the connections of all layers fit.
    pub connection_budget: String,
    /// Costs of a month now; `None` when there is no such stack yet.
    pub cost_before: Option<Cost>,
    /// Costs of a month then.
    pub cost_after: Cost,
}

/// What would happen to one object.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectPlan {
    /// Kind.
    pub kind: &'static str,
    /// Name.
    pub name: String,
    /// What is done.
    pub action: Action,
    /// What people notice.
    pub disruption: Disruption,
    /// A word about it, or the server's reason.
    pub note: String,
    /// Fields that differ.
    pub changes: Vec<FieldChange>,
}

impl StackPlan {
    /// Whether applying the file would change anything.
    pub fn changes(&self) -> bool {
        self.new || !self.spec.is_empty() || !self.objects.is_empty()
    }
}

/// Plans every PersesStack of `text`. Secrets of the file stand for those of the cluster. A stack that names no namespace is
/// looked for in `namespace`. `client` should be one for dry runs only.
///
/// # Errors
/// The file cannot be used, or the API server does not answer or refuses a stack.
pub async fn plan(
    client: &Client,
    text: &str,
    settings: &Settings,
    namespace: &str,
    prices: &PriceTable,
) -> Result<Vec<StackPlan>, PlanError> {
    let file = render::read(text)?;
    let mut plans = Vec::new();
    for document in &file.stacks {
        let mut document = document.clone();
        let own = document["metadata"]["namespace"].as_str().unwrap_or(namespace).to_owned();
        document["metadata"]["namespace"] = own.into();
        plans.push(Box::pin(one(client, &document, &file, settings, prices)).await?);
    }
    Ok(plans)
}

async fn one(
    client: &Client,
    document: &Value,
    file: &render::File,
    settings: &Settings,
    prices: &PriceTable,
) -> Result<StackPlan, PlanError> {
    let name = document["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let refused = |problems| RenderError::Refused { name: name.clone(), problems };
    let mut stack = render::accept(document).map_err(refused)?;
    let namespace = stack.namespace().unwrap_or_default();
    let live = current(client, &stack, document).await?;
    stack.metadata.uid = live.as_ref().and_then(ResourceExt::uid);
    stack.status = live.as_ref().and_then(|live| live.status.clone());
    // They say whether it may have bindings to cluster roles.
    stack.metadata.finalizers = live.as_ref().and_then(|live| live.metadata.finalizers.clone());
    let id = StackId { namespace: namespace.clone(), name: name.clone(), uid: stack.uid().unwrap_or_default() };

    let context = Context::new(client.clone(), settings.clone(), Metrics::new(), "plan");
    let mut picture = observe(&context, &stack, &id).await.map_err(PlanError::Read)?;
    // Secrets of the file would be there first.
    picture.observed.secrets.extend(file.secrets.clone());
    picture.observed.config_maps.extend(file.config_maps.clone());
    // Fixed bytes: what is generated is neither shown nor kept.
    let entropy = Entropy::fixed();
    let invalid = |invalid| PlanError::Invalid { name: name.clone(), invalid: Box::new(invalid) };
    let ready = decide(&stack, &picture, settings, &entropy).map_err(invalid)?;
    let cost_before = live.as_ref().and_then(|live| bill(live, &picture, settings, prices));

    let objects = objects(client, &context.metrics, &id, &mut picture, &ready).await.map_err(PlanError::Read)?;
    let unreadable = picture.bindings.forbidden.then(|| "bindings to cluster roles: you may not read them".to_owned());
    let spec = |stack: &PersesStack| serde_json::to_value(&stack.spec).unwrap_or_default();
    let before = live.as_ref().map(spec).unwrap_or_default();
    Ok(StackPlan {
        spec: diff::values(&before, &spec(&stack)),
        new: live.is_none(),
        disruption: objects.iter().map(|object| object.disruption).max().unwrap_or(Disruption::None),
        objects,
        waits: ready.validated.waits.all().map(|(_, text)| text),
        infeasible: [
            ready.sizing.contradictions.clone(),
            ready.feasibility.problems.iter().map(|problem| problem.message.clone()).collect(),
        ]
        .concat(),
        held: ready.held,
        unknown: ready.feasibility.unknown.iter().cloned().chain(unreadable).collect(),
        connection_budget: ready.sizing.budget.message.clone(),
        cost_before,
        cost_after: cost(&footprint(&ready.plan), ready.sizing.demand.egress.value, stack.spec.users.into(), prices),
        namespace,
        name,
    })
}

/// The stack as it is, after the API server has accepted the new one in a dry run: rules about changes are the server's.
async fn current(client: &Client, stack: &PersesStack, document: &Value) -> Result<Option<PersesStack>, PlanError> {
    let (namespace, name) = (stack.namespace().unwrap_or_default(), stack.name_any());
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &namespace, &ApiResource::erase::<PersesStack>(&()));
    let params = PatchParams::apply(PLAN_MANAGER).force().dry_run();
    match api.patch(&name, &params, &Patch::Apply(document)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let message =
                format!("{}; does the namespace exist, and is the CRD installed (config/crd)?", status.message);
            return Err(PlanError::Refused { namespace, name, message });
        }
        Err(kube::Error::Api(status)) => {
            return Err(PlanError::Refused { namespace, name, message: status.message.clone() });
        }
        Err(source) => return Err(PlanError::Stack { name, source: Box::new(source) }),
    }
    let failed = |source| PlanError::Stack { name: name.clone(), source: Box::new(source) };
    let Some(live) = api.get_opt(&name).await.map_err(failed)? else { return Ok(None) };
    let live = serde_json::to_value(live).and_then(serde_json::from_value::<PersesStack>);
    live.map(Some).map_err(|source| failed(kube::Error::SerdeError(source)))
}

/// Costs of a stack as it is; `None` when its spec cannot be carried out.
fn bill(live: &PersesStack, picture: &Picture, settings: &Settings, prices: &PriceTable) -> Option<Cost> {
    let validated = validate(live, &picture.observed, settings, &Entropy::fixed()).ok()?;
    let sizing = size(&validated.inputs);
    let plan = order::plan(&build(&validated, &sizing).ok()?);
    Some(cost(&footprint(&plan), sizing.demand.egress.value, live.spec.users.into(), prices))
}

async fn objects(
    client: &Client,
    metrics: &Metrics,
    id: &StackId,
    picture: &mut Picture,
    ready: &Ready,
) -> Result<Vec<ObjectPlan>, ApplyError> {
    let Picture { inventory, bindings, .. } = picture;
    let applier = Applier { client, metrics, stack: id, inventory, bindings };
    let mut plans = Vec::new();
    if ready.held {
        return Ok(plans);
    }
    for child in ready.plan.children() {
        let preview = applier.preview(child).await?;
        let (kind, part) = (child.kind.name(), component(&child.value));
        let settings = if matches!(preview, Preview::Create(_)) { configuration(child, &applier) } else { Vec::new() };
        plans.extend(object(kind, &child.name, part, preview, settings));
    }
    for binding in &ready.plan.bindings {
        let name = binding["metadata"]["name"].as_str().unwrap_or_default();
        let preview = applier.preview_binding(binding).await?;
        plans.extend(object(cluster::KIND, name, component(binding), preview, Vec::new()));
    }
    if !ready.plan.complete {
        return Ok(plans);
    }
    let wanted = ready.plan.children().map(|child| (child.kind, child.name.clone())).collect();
    let candidates = leftovers(applier.inventory, &wanted, &BTreeSet::new(), &ready.plan.undecided, id);
    if !candidates.is_empty() {
        let in_use = secrets_in_use(client, id, &wanted).await?;
        for (kind, name, live) in leftovers(applier.inventory, &wanted, &in_use, &ready.plan.undecided, id) {
            plans.push(entry(kind.name(), name, component(live), Action::Delete, Vec::new(), None));
        }
    }
    for name in applier.bindings.unwanted(&ready.plan.bindings, id) {
        plans.push(entry(cluster::KIND, &name, "", Action::Delete, Vec::new(), None));
    }
    Ok(plans)
}

/// `settings`: what a new configuration changes.
fn object(
    kind: &'static str,
    name: &str,
    component: &str,
    preview: Preview,
    settings: Vec<FieldChange>,
) -> Option<ObjectPlan> {
    let line = |action, changes, note| Some(entry(kind, name, component, action, changes, note));
    match preview {
        Preview::Unchanged => None,
        Preview::Create(_) => line(Action::Create, settings, None),
        Preview::Change { before, after } => line(Action::Change, diff::objects(&before, &after), None),
        Preview::Recreate { before, after } => line(Action::Recreate, diff::objects(&before, &after), None),
        Preview::Terminating => line(Action::Recreate, Vec::new(), Some("it is being deleted".to_owned())),
        Preview::Foreign(foreign) => line(Action::Foreign, Vec::new(), Some(foreign.owner)),
        Preview::Refused(message) => line(Action::Refused, Vec::new(), Some(message)),
    }
}

fn entry(
    kind: &'static str,
    name: &str,
    component: &str,
    action: Action,
    changes: Vec<FieldChange>,
    note: Option<String>,
) -> ObjectPlan {
    let (disruption, word) = disruption::of(kind, component, action, &changes);
    let note = note.unwrap_or_else(|| word.to_owned());
    ObjectPlan { kind, name: name.to_owned(), action, disruption, note, changes }
}

fn component(object: &Value) -> &str {
    object["metadata"]["labels"][COMPONENT_KEY].as_str().unwrap_or_default()
}

/// Which keys of the server's configuration differ between a new configuration Secret and the one that the pods have:
/// each configuration is an object of its own, so this is why the pods roll. Values are masked: some keys are secret.
fn configuration(child: &Child, applier: &Applier<'_>) -> Vec<FieldChange> {
    let names = Names::new(applier.stack.name.clone());
    let prefix = names.api_config("");
    if child.kind != Kind::Secret || !child.name.starts_with(&prefix) {
        return Vec::new();
    }
    let live = applier.inventory.get(Kind::Deployment, &names.api());
    let mounted = live.map(|live| mounts(&live["spec"]["template"]["spec"])).unwrap_or_default();
    let old = mounted.iter().find(|(kind, name)| *kind == Kind::Secret && name.starts_with(&prefix));
    let old = old.and_then(|(kind, name)| applier.inventory.get(*kind, name));
    let Some((old, new)) = old.and_then(file).zip(file(&child.value)) else { return Vec::new() };
    let mut changes = diff::values(&old, &new);
    for change in &mut changes {
        change.path = format!("config.yaml: {}", change.path);
        diff::mask(change);
    }
    changes
}

fn file(secret: &Value) -> Option<Value> {
    use base64::Engine as _;
    let data = secret["data"]["config.yaml"].as_str()?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
    serde_saphyr::from_str(std::str::from_utf8(&bytes).ok()?).ok()
}
