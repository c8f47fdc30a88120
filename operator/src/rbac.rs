//! What the operator may do: one table, from which the roles in `config/rbac` are generated.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::controllers::persesstack::build::account::CLUSTER_ROLES;

/// Name of the roles.
pub const NAME: &str = "persesstack-operator";

/// One line of the table.
struct Grant {
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    why: &'static str,
}

/// Watched and kept as built.
const KEEP: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
/// Watched only.
const SEE: &[&str] = &["get", "list", "watch"];

/// In every watched namespace.
const GRANTS: &[Grant] = &[
    Grant { group: "persesstack.io", resources: &["persesstacks"], verbs: SEE, why: "the wish" },
    Grant { group: "persesstack.io", resources: &["persesstacks/status"], verbs: &["patch"], why: "the report" },
    Grant {
        group: "persesstack.io",
        resources: &["persesstacks"],
        verbs: &["patch"],
        why: "the finalizer of stacks with bindings to cluster roles",
    },
    Grant {
        group: "persesstack.io",
        resources: &["persesstacks/finalizers"],
        verbs: &["update"],
        why: "owner references with blockOwnerDeletion, where the admission plugin checks them",
    },
    Grant {
        group: "",
        resources: &["configmaps", "persistentvolumeclaims", "secrets", "serviceaccounts", "services"],
        verbs: KEEP,
        why: "children",
    },
    Grant { group: "", resources: &["pods"], verbs: SEE, why: "why a workload is not ready" },
    Grant { group: "apps", resources: &["deployments", "statefulsets"], verbs: KEEP, why: "children" },
    Grant { group: "apps", resources: &["replicasets"], verbs: SEE, why: "which configuration Secrets are in use" },
    Grant { group: "autoscaling", resources: &["horizontalpodautoscalers"], verbs: KEEP, why: "children" },
    Grant { group: "batch", resources: &["jobs"], verbs: KEEP, why: "children" },
    Grant { group: "", resources: &["resourcequotas"], verbs: KEEP, why: "children, and what is left" },
    Grant { group: "networking.k8s.io", resources: &["ingresses", "networkpolicies"], verbs: KEEP, why: "children" },
    Grant { group: "route.openshift.io", resources: &["routes"], verbs: KEEP, why: "children, where the API is" },
    Grant {
        group: "route.openshift.io",
        resources: &["routes/custom-host"],
        verbs: &["create", "update"],
        why: "host and certificate of a Route",
    },
    Grant {
        group: "gateway.networking.k8s.io",
        resources: &["httproutes"],
        verbs: KEEP,
        why: "children, where the API is",
    },
    Grant {
        group: "gateway.networking.k8s.io",
        resources: &["gateways"],
        verbs: SEE,
        why: "addresses of an HTTPRoute",
    },
    Grant {
        group: "networking.k8s.io",
        resources: &["ingressclasses"],
        verbs: SEE,
        why: "whether an Ingress would be served",
    },
    Grant {
        group: "postgres-operator.crunchydata.com",
        resources: &["postgresclusters"],
        verbs: KEEP,
        why: "children, where the API is",
    },
    Grant {
        group: "monitoring.coreos.com",
        resources: &["servicemonitors", "podmonitors", "prometheusrules"],
        verbs: KEEP,
        why: "children, where the API is",
    },
    Grant {
        group: "apiextensions.k8s.io",
        resources: &["customresourcedefinitions"],
        verbs: SEE,
        why: "optional APIs that come and go, and what their versions can do",
    },
    Grant { group: "policy", resources: &["poddisruptionbudgets"], verbs: KEEP, why: "children" },
    Grant { group: "", resources: &["limitranges"], verbs: &["list"], why: "what a pod of the namespace may ask for" },
    Grant { group: "", resources: &["nodes"], verbs: &["list"], why: "whether the largest pod fits one" },
    Grant {
        group: "storage.k8s.io",
        resources: &["storageclasses"],
        verbs: &["list"],
        why: "whether volumes can be made and can grow",
    },
    Grant {
        group: "perses.dev",
        resources: &["persesdashboards", "persesdatasources", "persesglobaldatasources"],
        verbs: &["get", "list", "watch", "patch"],
        why: "dashboards and datasources that are synced into stacks; patched are finalizer and annotation",
    },
    Grant {
        group: "perses.dev",
        resources: &["persesdashboards/status", "persesdatasources/status", "persesglobaldatasources/status"],
        verbs: &["patch"],
        why: "our condition on them",
    },
    Grant { group: "perses.dev", resources: &["perses"], verbs: SEE, why: "what perses-operator syncs is left to it" },
    Grant { group: "events.k8s.io", resources: &["events"], verbs: &["create", "patch"], why: "what happened" },
];

/// Cluster-wide: what the API pods' accounts need outside their namespaces. Binding without having the rights oneself is
/// allowed for exactly these roles.
fn cluster_rules() -> Vec<PolicyRule> {
    let words = |list: &[&str]| Some(list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    let bindings = PolicyRule {
        api_groups: words(&[RBAC]),
        resources: words(&["clusterrolebindings"]),
        verbs: words(KEEP).unwrap_or_default(),
        ..PolicyRule::default()
    };
    let bind = PolicyRule {
        api_groups: words(&[RBAC]),
        resources: words(&["clusterroles"]),
        resource_names: words(&CLUSTER_ROLES),
        verbs: vec!["bind".to_owned()],
        ..PolicyRule::default()
    };
    let metadata = PolicyRule {
        non_resource_urls: words(&["/.well-known/oauth-authorization-server"]),
        verbs: vec!["get".to_owned()],
        ..PolicyRule::default()
    };
    vec![bindings, bind, metadata]
}

const RBAC: &str = "rbac.authorization.k8s.io";

/// Why there are [`cluster_rules`].
const CLUSTER_REASONS: [(&str, &str); 3] = [
    ("rbac.authorization.k8s.io clusterrolebindings", "rights of the API pods' accounts outside their namespaces"),
    ("rbac.authorization.k8s.io clusterroles", "to bind system:auth-delegator and cluster-monitoring-view, no other"),
    ("/.well-known/oauth-authorization-server", "where OpenShift's OAuth server is"),
];

/// In the operator's own namespace.
const OWN_NAMESPACE: &[Grant] = &[Grant {
    group: "coordination.k8s.io",
    resources: &["leases"],
    verbs: &["get", "create", "update"],
    why: "one of several replicas acts",
}];

fn rules(grants: &[Grant]) -> Vec<PolicyRule> {
    let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    grants
        .iter()
        .map(|grant| PolicyRule {
            api_groups: Some(vec![grant.group.to_owned()]),
            resources: Some(words(grant.resources)),
            verbs: words(grant.verbs),
            ..PolicyRule::default()
        })
        .collect()
}

/// Role for every watched namespace.
pub fn cluster_role() -> ClusterRole {
    ClusterRole {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
        rules: Some([rules(GRANTS), cluster_rules()].concat()),
        aggregation_rule: None,
    }
}

/// Role for the operator's own namespace.
pub fn role() -> Role {
    Role {
        metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
        rules: Some(rules(OWN_NAMESPACE)),
    }
}

/// Both roles as YAML, with the reason of every rule.
pub fn yaml() -> Result<String, serde_saphyr::ser::Error> {
    use std::fmt::Write as _;
    let mut text = "# Generated by `persesstack-operator rbac`; do not edit.\n#\n".to_owned();
    for grant in GRANTS.iter().chain(OWN_NAMESPACE) {
        let group = if grant.group.is_empty() { "core" } else { grant.group };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# {group} {}: {}", grant.resources.join(", "), grant.why);
    }
    for (what, why) in CLUSTER_REASONS {
        let _ = writeln!(text, "# {what}: {why}");
    }
    text += &serde_saphyr::to_string(&cluster_role())?;
    text += "---\n";
    text += &serde_saphyr::to_string(&role())?;
    Ok(text)
}
