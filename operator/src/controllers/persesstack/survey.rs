//! Reads what the namespace and the cluster have for a stack (I/O). A read that fails is a fact that is unknown.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{LimitRange, Node, ResourceQuota};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, ListParams};
use kube::{Client, Resource, ResourceExt};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use super::feasible::{ClassFact, Fact, Facts, QuotaFact, RangeFact};
use crate::sizing::footprint::Amount;
use crate::sizing::{Bytes, Cpu};

/// Taints that come and go with a node's health: such a node takes pods again.
const PASSING_TAINTS: &str = "node.kubernetes.io/";

/// Nodes and storage classes, asked at most every [`ClusterFacts::TTL`]: they are the same for all stacks.
#[derive(Debug, Default)]
pub struct ClusterFacts(Mutex<Option<(Instant, Classes, Nodes)>>);

type Classes = Fact<Vec<ClassFact>>;
type Nodes = Fact<Vec<Amount>>;

impl ClusterFacts {
    /// How long an answer counts.
    pub const TTL: Duration = Duration::from_mins(1);

    async fn get(&self, client: &Client) -> (Classes, Nodes) {
        let known = self.0.lock().clone();
        if let Some((since, classes, nodes)) = known
            && since.elapsed() < Self::TTL
        {
            return (classes, nodes);
        }
        let (classes, nodes) = tokio::join!(
            list::<StorageClass>(Api::all(client.clone()), "storage classes"),
            list::<Node>(Api::all(client.clone()), "nodes")
        );
        let classes = map(classes, |class| Some(class_fact(&class)));
        let nodes = map(nodes, |node| node_fact(&node));
        *self.0.lock() = Some((Instant::now(), classes.clone(), nodes.clone()));
        (classes, nodes)
    }
}

/// Everything about one namespace and its cluster.
pub async fn facts(client: &Client, cluster: &ClusterFacts, namespace: &str) -> Facts {
    let (quotas, limit_ranges, (storage_classes, nodes)) = tokio::join!(
        list(namespaced::<ResourceQuota>(client, namespace), "quotas"),
        list(namespaced::<LimitRange>(client, namespace), "limit ranges"),
        cluster.get(client)
    );
    let limit_ranges = match limit_ranges {
        Fact::Known(ranges) => Fact::Known(ranges.iter().flat_map(range_facts).collect()),
        Fact::Unknown(why) => Fact::Unknown(why),
    };
    Facts { quotas: map(quotas, |quota| quota_fact(&quota)), limit_ranges, storage_classes, nodes }
}

fn namespaced<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), namespace)
}

async fn list<K>(api: Api<K>, what: &str) -> Fact<Vec<K>>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    match api.list(&ListParams::default()).await {
        Ok(list) => Fact::Known(list.items),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            Fact::Unknown("the operator may not list them".to_owned())
        }
        Err(error) => {
            tracing::debug!(%error, what, "cannot be listed; it is not judged");
            Fact::Unknown("they could not be listed".to_owned())
        }
    }
}

fn map<A, B>(fact: Fact<Vec<A>>, take: impl Fn(A) -> Option<B>) -> Fact<Vec<B>> {
    match fact {
        Fact::Known(items) => Fact::Known(items.into_iter().filter_map(take).collect()),
        Fact::Unknown(why) => Fact::Unknown(why),
    }
}

fn texts(list: Option<&BTreeMap<String, Quantity>>) -> BTreeMap<String, String> {
    list.into_iter().flatten().map(|(name, quantity)| (name.clone(), quantity.0.clone())).collect()
}

/// `None` for a quota that counts only some pods or volumes: which ones cannot be told from here.
fn quota_fact(quota: &ResourceQuota) -> Option<QuotaFact> {
    let spec = quota.spec.as_ref()?;
    let scoped = spec.scope_selector.is_some() || spec.scopes.as_ref().is_some_and(|scopes| !scopes.is_empty());
    if scoped {
        return None;
    }
    let status = quota.status.as_ref();
    let hard = status.and_then(|status| status.hard.as_ref()).or(spec.hard.as_ref());
    Some(QuotaFact {
        name: quota.name_any(),
        hard: texts(hard),
        used: texts(status.and_then(|status| status.used.as_ref())),
    })
}

fn range_facts(range: &LimitRange) -> Vec<RangeFact> {
    let items = range.spec.iter().flat_map(|spec| &spec.limits);
    let fact = |item: &k8s_openapi::api::core::v1::LimitRangeItem| RangeFact {
        name: range.name_any(),
        type_: item.type_.clone(),
        min: texts(item.min.as_ref()),
        max: texts(item.max.as_ref()),
    };
    items.map(fact).collect()
}

fn class_fact(class: &StorageClass) -> ClassFact {
    let keys = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    let default = keys.iter().any(|key| class.annotations().get(*key).is_some_and(|value| value == "true"));
    ClassFact { name: class.name_any(), default, expandable: class.allow_volume_expansion == Some(true) }
}

/// What a node offers; `None` when it takes no pods of ours.
fn node_fact(node: &Node) -> Option<Amount> {
    let spec = node.spec.clone().unwrap_or_default();
    let refuses = |taint: &k8s_openapi::api::core::v1::Taint| {
        taint.effect != "PreferNoSchedule" && !taint.key.starts_with(PASSING_TAINTS)
    };
    if spec.unschedulable == Some(true) || spec.taints.iter().flatten().any(refuses) {
        return None;
    }
    let allocatable = node.status.as_ref()?.allocatable.as_ref()?;
    let amount = |name: &str| allocatable.get(name).map(|quantity| quantity.0.as_str());
    Some(Amount { cpu: Cpu::parse(amount("cpu")?).ok()?, memory: Bytes::parse(amount("memory")?).ok()? })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(spec: &Value) -> Option<Amount> {
        let allocatable = json!({"cpu": "3920m", "memory": "7Gi"});
        node_fact(&serde_json::from_value(json!({"spec": spec, "status": {"allocatable": allocatable}})).unwrap())
    }

    #[test]
    fn nodes_that_take_no_pods_are_left_out() {
        assert_eq!(node(&json!({})), Some(Amount { cpu: Cpu(3920), memory: Bytes::parse("7Gi").unwrap() }));
        assert_eq!(node(&json!({"unschedulable": true})), None);
        let tainted = |key: &str, effect: &str| node(&json!({"taints": [{"key": key, "effect": effect}]}));
        assert_eq!(tainted("node-role.kubernetes.io/control-plane", "NoSchedule"), None);
        assert!(tainted("node.kubernetes.io/not-ready", "NoExecute").is_some(), "it comes back");
        assert!(tainted("gpu", "PreferNoSchedule").is_some());
    }

    #[test]
    fn scoped_quotas_are_not_judged() {
        let quota = |spec: &Value| {
            quota_fact(&serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": spec})).unwrap())
        };
        let hard = json!({"pods": "3"});
        assert_eq!(quota(&json!({"hard": hard})).unwrap().hard["pods"], "3");
        assert_eq!(quota(&json!({"hard": hard, "scopes": ["BestEffort"]})), None);
    }
}
