//! Labels of a stack's objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Value of `app.kubernetes.io/managed-by`; watches select on it.
pub const MANAGED_BY: &str = "persesstack-operator";
/// Label key that watches select on.
pub const MANAGED_BY_KEY: &str = "app.kubernetes.io/managed-by";
/// Label key of the stack's name.
pub const INSTANCE_KEY: &str = "app.kubernetes.io/instance";
/// Label key of the stack's name on objects that another operator makes for it.
pub const STACK_KEY: &str = "persesstack.io/stack";
/// Label key of the part of the stack.
pub const COMPONENT_KEY: &str = "app.kubernetes.io/component";

/// Label key of the stack's namespace, on objects that are in none.
pub const NAMESPACE_KEY: &str = "persesstack.io/namespace";

/// Every label key that the operator sets.
pub const KEYS: [&str; 5] =
    ["app.kubernetes.io/name", INSTANCE_KEY, COMPONENT_KEY, "app.kubernetes.io/part-of", MANAGED_BY_KEY];

/// Part of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// API server.
    Api,
    /// Shared cache.
    Redis,
    /// Standalone database.
    Database,
    /// Connection pooler.
    PgBouncer,
    /// Schema migration.
    Migration,
}

impl Component {
    /// Label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Redis => "redis",
            Self::Database => "database",
            Self::PgBouncer => "pgbouncer",
            Self::Migration => "migration",
        }
    }
}

/// Labels that select the pods of `component`; immutable in Deployments, so never more than these.
pub fn selector(stack: &str, component: Component) -> BTreeMap<String, String> {
    [("app.kubernetes.io/name", "perses"), (INSTANCE_KEY, stack), (COMPONENT_KEY, component.as_str())]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Labels of every object of `component`.
pub fn labels(stack: &str, component: Component) -> BTreeMap<String, String> {
    let mut labels = selector(stack, component);
    labels.insert("app.kubernetes.io/part-of".to_owned(), "perses-stack".to_owned());
    labels.insert(MANAGED_BY_KEY.to_owned(), MANAGED_BY.to_owned());
    labels
}

/// Selects the pods that Crunchy's operator makes for a PostgresCluster.
pub fn cluster_selector(cluster: &str) -> LabelSelector {
    let labels = [("postgres-operator.crunchydata.com/cluster".to_owned(), cluster.to_owned())];
    LabelSelector { match_labels: Some(labels.into()), match_expressions: None }
}
