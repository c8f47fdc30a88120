//! Who may talk to whom: one NetworkPolicy for each part of the stack.
//!
//! Ports are those of pods: a policy is applied after a Service's address has become a pod's. Only connections that are
//! opened count; answers come back by themselves. Probes of the kubelet pass every policy.

use std::collections::BTreeMap;

use hyper::Uri;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::labels::{self, Component};
use super::{exporter, meta, redis};
use crate::api::v1alpha1::{CacheType, DatabaseType, NetworkPolicyMode, PoolerType, RedisMode};
use crate::controllers::persesstack::datasources;
use crate::controllers::persesstack::validate::Validated;

/// Label of namespaces whose pods may call the API: set it to `allowed` on the namespace of a router or of Prometheus.
pub const ACCESS_KEY: &str = "persesstack.io/access";
/// Labels that OpenShift puts on the namespaces of its routers, of routers on the host's network, and of its monitoring.
const OPENSHIFT: [(&str, &str); 3] = [
    ("network.openshift.io/policy-group", "ingress"),
    ("policy-group.network.openshift.io/host-network", ""),
    ("network.openshift.io/policy-group", "monitoring"),
];
/// Where Kubernetes says the name of a namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// DNS: the usual port, and that of OpenShift's DNS pods.
const DNS: [i32; 2] = [53, 5353];
const API: i32 = 8080;
const POSTGRES: i32 = 5432;
const PGBOUNCER: i32 = 6432;
/// The exporter beside each instance of a PostgresCluster.
const EXPORTER: i32 = 9187;
/// Identity providers, and the Kubernetes API as pods reach it.
const SIGN_IN: [i32; 2] = [443, 6443];

/// The policies that the spec asks for.
pub(super) fn build(v: &Validated) -> Vec<NetworkPolicy> {
    let all = match v.spec.network_policy {
        NetworkPolicyMode::Disabled => return Vec::new(),
        NetworkPolicyMode::DataStores => false,
        NetworkPolicyMode::All => true,
    };
    let database = v.database_type == DatabaseType::Standalone;
    let pooler = v.spec.pooler.type_ == PoolerType::PgBouncer;
    let mut policies = Vec::new();
    if database {
        // The API pods too where a pooler is: while one is being put between, the old pods still go straight.
        let from = [Component::Api, Component::PgBouncer, Component::Migration];
        policies.push(policy(
            v,
            v.names.database(),
            Component::Database,
            ingress(v, &from, POSTGRES),
            all.then(Vec::new),
        ));
    }
    if v.database_type == DatabaseType::Crunchy {
        policies.push(cluster(v));
    }
    if let Some(ports) = redis_ports(v) {
        let sentinels = ports.len() > 1;
        let from = if sentinels { vec![Component::Api, Component::Redis] } else { vec![Component::Api] };
        let mut rules: Vec<_> = ports.iter().flat_map(|port| ingress(v, &from, *port)).collect();
        rules.extend(to_exporter(v, exporter::REDIS));
        let peers = || ports.iter().filter(|_| sentinels).map(|port| to_part(v, Component::Redis, *port)).collect();
        policies.push(policy(v, v.names.redis(), Component::Redis, rules, all.then(peers)));
    }
    if pooler {
        let mut rules = ingress(v, &[Component::Api], PGBOUNCER);
        rules.extend(to_exporter(v, exporter::PGBOUNCER));
        let egress = all.then(|| to_database(v, false));
        policies.push(policy(v, v.names.pgbouncer(), Component::PgBouncer, rules, egress));
    }
    if all {
        policies.push(policy(v, v.names.api(), Component::Api, vec![from_outside(v)], Some(from_api(v))));
        policies.push(policy(v, v.names.migrations(), Component::Migration, Vec::new(), Some(to_database(v, true))));
    }
    policies
}

/// The pods of the PostgresCluster, which talk with each other; the stack asks PostgreSQL or Crunchy's pooler, and monitoring
/// the exporter. Patroni needs the Kubernetes API and backups their store: whom they call stays open.
fn cluster(v: &Validated) -> NetworkPolicy {
    let pods = labels::cluster_selector(&v.names.database());
    let inside = NetworkPolicyPeer { pod_selector: Some(pods.clone()), ..NetworkPolicyPeer::default() };
    let mut rules = ingress(v, &[Component::Api, Component::PgBouncer, Component::Migration], POSTGRES);
    rules.push(NetworkPolicyIngressRule { from: Some(vec![inside]), ports: None });
    rules.push(from_monitoring(EXPORTER));
    NetworkPolicy {
        metadata: meta::owned(v, v.names.database(), Component::Database),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(pods),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(rules),
            egress: None,
        }),
    }
}

/// The way of Prometheus to the exporter of a pod, when there is one.
fn to_exporter(v: &Validated, port: i32) -> Option<NetworkPolicyIngressRule> {
    exporter::wanted(v).then(|| from_monitoring(port))
}

fn from_monitoring(port: i32) -> NetworkPolicyIngressRule {
    let monitoring = vec![namespace(OPENSHIFT[2].0, OPENSHIFT[2].1), namespace(ACCESS_KEY, "allowed")];
    NetworkPolicyIngressRule { from: Some(monitoring), ports: Some(vec![tcp(port)]) }
}

/// A policy over one part. Without `egress` it may call whom it likes.
fn policy(
    v: &Validated,
    name: String,
    component: Component,
    ingress: Vec<NetworkPolicyIngressRule>,
    egress: Option<Vec<NetworkPolicyEgressRule>>,
) -> NetworkPolicy {
    let mut types = vec!["Ingress".to_owned()];
    if egress.is_some() {
        types.push("Egress".to_owned());
    }
    let dns = NetworkPolicyEgressRule { to: None, ports: Some(DNS.iter().flat_map(|dns| both(*dns)).collect()) };
    NetworkPolicy {
        metadata: meta::owned(v, name, component),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(meta::selector(v, component)),
            policy_types: Some(types),
            ingress: (!ingress.is_empty()).then_some(ingress),
            egress: egress.map(|rules| [vec![dns], rules].concat()),
        }),
    }
}

fn ingress(v: &Validated, from: &[Component], port: i32) -> Vec<NetworkPolicyIngressRule> {
    let from = from.iter().map(|component| part(v, *component)).collect();
    vec![NetworkPolicyIngressRule { from: Some(from), ports: Some(vec![tcp(port)]) }]
}

/// Ports of the stack's own Redis, and of its sentinels.
fn redis_ports(v: &Validated) -> Option<Vec<i32>> {
    match v.spec.cache.type_ {
        CacheType::Standalone => Some(vec![redis::PORT]),
        CacheType::Sentinel => Some(vec![redis::PORT, redis::SENTINEL_PORT]),
        CacheType::External | CacheType::None => None,
    }
}

/// Who may call the API: the namespace itself, routers, monitoring, and the operator.
fn from_outside(v: &Validated) -> NetworkPolicyIngressRule {
    let own = NetworkPolicyPeer { pod_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() };
    let mut from = vec![own];
    from.extend(OPENSHIFT.iter().map(|(key, value)| namespace(key, value)));
    from.push(namespace(ACCESS_KEY, "allowed"));
    if !v.operator_namespace.is_empty() {
        from.push(namespace(NAMESPACE_NAME, &v.operator_namespace));
    }
    NetworkPolicyIngressRule { from: Some(from), ports: Some(vec![tcp(API)]) }
}

/// Whom the API pods may call.
fn from_api(v: &Validated) -> Vec<NetworkPolicyEgressRule> {
    let cache = redis_ports(v).unwrap_or_default();
    let mut rules: Vec<_> = cache.into_iter().map(|port| to_part(v, Component::Redis, port)).collect();
    if v.spec.pooler.type_ == PoolerType::PgBouncer {
        rules.push(to_part(v, Component::PgBouncer, PGBOUNCER));
    }
    rules.extend(to_external_cache(v));
    rules.extend(to_database(v, false));
    for datasource in &v.spec.datasources {
        let Ok(url) = datasources::url(datasource).unwrap_or_default().parse::<Uri>() else { continue };
        let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("https") { 443 } else { 80 });
        rules.extend(to_host(url.host().unwrap_or_default(), port.into()));
    }
    if signs_in_elsewhere(v) {
        rules.push(NetworkPolicyEgressRule { to: None, ports: Some(SIGN_IN.map(tcp).to_vec()) });
    }
    let mut distinct: Vec<NetworkPolicyEgressRule> = Vec::new();
    for rule in rules {
        if !distinct.contains(&rule) {
            distinct.push(rule);
        }
    }
    distinct
}

/// The way to a Redis that somebody else runs.
fn to_external_cache(v: &Validated) -> Vec<NetworkPolicyEgressRule> {
    let external = v.spec.cache.external.as_ref().filter(|_| v.spec.cache.type_ == CacheType::External);
    let Some(external) = external else { return Vec::new() };
    let named = external.addresses.iter().filter_map(|address| address.rsplit_once(':'));
    let mut rules: Vec<_> = named.flat_map(|(host, port)| to_host(host, port.parse().unwrap_or(redis::PORT))).collect();
    if external.mode == RedisMode::Sentinel {
        // Sentinels name the server by an address that nobody knows before.
        rules.push(NetworkPolicyEgressRule { to: None, ports: Some(vec![tcp(redis::PORT)]) });
    }
    rules
}

/// Whether people sign in at a provider, or with a token that the cluster reviews.
fn signs_in_elsewhere(v: &Validated) -> bool {
    let auth = &v.spec.auth;
    if !auth.oidc.is_empty() || !auth.oauth.is_empty() || auth.openshift.is_some() || auth.kubernetes.is_some() {
        return true;
    }
    let config = v.spec.api.config.as_ref();
    let providers = config.and_then(|config| config.get("security")?.get("authentication")?.get("providers"));
    providers.and_then(|found| found.as_object()).is_some_and(|found| found.keys().any(|key| key != "enable_native"))
}

/// The way to the database; for migrations past every pooler.
fn to_database(v: &Validated, direct: bool) -> Vec<NetworkPolicyEgressRule> {
    match (&v.endpoint, v.database_type) {
        (_, DatabaseType::Standalone) => {
            let to = Some(vec![part(v, Component::Database)]);
            vec![NetworkPolicyEgressRule { to, ports: Some(vec![tcp(POSTGRES)]) }]
        }
        (Some(endpoint), _) => {
            let (host, port) = if direct { &endpoint.direct } else { &(endpoint.host.clone(), endpoint.port) };
            to_host(host, i32::from(*port))
        }
        // Its address is waited for, and so is everything that would connect.
        (None, _) => Vec::new(),
    }
}

/// The way to a host of a URL. A Service's port need not be that of its pods: inside the cluster the namespace decides.
fn to_host(host: &str, port: i32) -> Vec<NetworkPolicyEgressRule> {
    let host = host.trim_matches(['[', ']']).trim_end_matches('.');
    let anywhere = || NetworkPolicyEgressRule { to: None, ports: Some(vec![tcp(port)]) };
    let inside = |peer| NetworkPolicyEgressRule { to: Some(vec![peer]), ports: None };
    if let Ok(address) = host.parse::<std::net::IpAddr>() {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let block = IPBlock { cidr: format!("{address}/{bits}"), except: None };
        let peer = NetworkPolicyPeer { ip_block: Some(block), ..NetworkPolicyPeer::default() };
        return vec![NetworkPolicyEgressRule { to: Some(vec![peer]), ports: Some(vec![tcp(port)]) }];
    }
    match host.split('.').collect::<Vec<_>>().as_slice() {
        [_] => {
            let own = LabelSelector::default();
            vec![inside(NetworkPolicyPeer { pod_selector: Some(own), ..NetworkPolicyPeer::default() })]
        }
        [_, of, "svc", ..] => vec![inside(namespace(NAMESPACE_NAME, of))],
        // `service.namespace`, or a host of two labels outside: it may be either.
        [_, of] => vec![inside(namespace(NAMESPACE_NAME, of)), anywhere()],
        _ => vec![anywhere()],
    }
}

fn to_part(v: &Validated, component: Component, port: i32) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: Some(vec![part(v, component)]), ports: Some(vec![tcp(port)]) }
}

fn part(v: &Validated, component: Component) -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(meta::selector(v, component)), ..NetworkPolicyPeer::default() }
}

fn namespace(key: &str, value: &str) -> NetworkPolicyPeer {
    let labels = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let selector = LabelSelector { match_labels: Some(labels), match_expressions: None };
    NetworkPolicyPeer { namespace_selector: Some(selector), ..NetworkPolicyPeer::default() }
}

fn tcp(port: i32) -> NetworkPolicyPort {
    protocol("TCP", port)
}

fn both(port: i32) -> [NetworkPolicyPort; 2] {
    ["UDP", "TCP"].map(|name| protocol(name, port))
}

fn protocol(name: &str, port: i32) -> NetworkPolicyPort {
    NetworkPolicyPort { protocol: Some(name.to_owned()), port: Some(IntOrString::Int(port)), end_port: None }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ways(host: &str) -> Value {
        serde_json::to_value(to_host(host, 9090)).unwrap()
    }

    #[test]
    fn the_way_to_a_host_is_as_narrow_as_its_name_allows() {
        let port = json!([{"protocol": "TCP", "port": 9090}]);
        let monitoring = json!({"to": [{"namespaceSelector": {"matchLabels": {(NAMESPACE_NAME): "monitoring"}}}]});
        assert_eq!(ways("prometheus"), json!([{"to": [{"podSelector": {}}]}]));
        assert_eq!(ways("prometheus.monitoring.svc"), json!([monitoring]));
        assert_eq!(ways("prometheus.monitoring.svc.cluster.local."), json!([monitoring]));
        assert_eq!(ways("prometheus.monitoring"), json!([monitoring, {"ports": port}]));
        assert_eq!(ways("metrics.example.com"), json!([{"ports": port}]));
        assert_eq!(ways("10.0.0.7"), json!([{"to": [{"ipBlock": {"cidr": "10.0.0.7/32"}}], "ports": port}]));
        assert_eq!(ways("[fd00::7]"), json!([{"to": [{"ipBlock": {"cidr": "fd00::7/128"}}], "ports": port}]));
    }
}
