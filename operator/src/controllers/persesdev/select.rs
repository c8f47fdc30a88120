//! PURE: which stacks get a copy of a resource.

use std::collections::BTreeMap;

use kube::core::SelectorExt;

use super::source::Source;

/// A stack as far as the choice needs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stack {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Labels, which `instanceSelector` is compared with.
    pub labels: BTreeMap<String, String>,
    /// Whether its API pods answer (`Ready=True`).
    pub ready: bool,
    /// Who vouches for its API pods, when they serve TLS (`spec.api.tls`).
    pub tls: Option<Authority>,
    /// Whether its administrator can sign in with a password (`spec.auth`).
    pub native: bool,
}

/// Where the certificate is of who signed that of the API pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Authority {
    /// In this Secret, under `ca.crt`; the public authorities when it has none.
    Secret(String),
    /// OpenShift's service CA.
    OpenShift,
}

impl Stack {
    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A `Perses` instance of upstream's operator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    /// `namespace/name`.
    pub key: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// The choice for one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// No stack is selected: the resource is not our business, beyond copies of earlier.
    None,
    /// Upstream's operator syncs the resource into this instance (`namespace/name`): two owners would fight over it.
    Elsewhere(String),
    /// These stacks get a copy.
    Stacks(Vec<Stack>),
}

/// Chooses. A namespaced operator sees only the stacks and instances of its namespace.
pub fn choose(source: &Source, stacks: &[Stack], instances: &[Instance]) -> Choice {
    let selected: Vec<_> = stacks.iter().filter(|stack| source.selector.matches(&stack.labels)).cloned().collect();
    if selected.is_empty() {
        return Choice::None;
    }
    match instances.iter().filter(|instance| source.selector.matches(&instance.labels)).min() {
        Some(instance) => Choice::Elsewhere(instance.key.clone()),
        None => Choice::Stacks(selected),
    }
}

/// The stacks that may hold a copy and are not to have one. Those that are gone took their copies with them, or keep them
/// until a stack of this name is swept.
pub fn surplus(source: &Source, selected: &[Stack], stacks: &[Stack]) -> Vec<Stack> {
    let recorded = stacks.iter().filter(|stack| source.copies.contains(&stack.key()));
    recorded.filter(|stack| !selected.contains(stack)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use kube::core::Selector;
    use serde_json::Value;

    use super::super::kind::Kind;
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn stack(name: &str, pairs: &[(&str, &str)]) -> Stack {
        let (namespace, name) = ("obs".to_owned(), name.to_owned());
        Stack { namespace, uid: name.clone(), name, labels: labels(pairs), ready: true, tls: None, native: true }
    }

    fn source(selector: Selector, copies: &[&str]) -> Source {
        Source {
            kind: Kind::Dashboard,
            namespace: Some("shop".to_owned()),
            name: "cpu".to_owned(),
            generation: Some(1),
            tags: [].into(),
            selector,
            config: Value::Null,
            client: None,
            adopt: false,
            copies: copies.iter().map(|copy| (*copy).to_owned()).collect(),
            held: true,
            deleted: None,
            conditions: Vec::new(),
        }
    }

    #[test]
    fn the_selector_is_compared_with_the_labels_of_stacks() {
        let stacks = [stack("a", &[("env", "prod")]), stack("b", &[("env", "test")]), stack("c", &[])];
        let chosen = |selector: Selector| match choose(&source(selector, &[]), &stacks, &[]) {
            Choice::Stacks(stacks) => stacks.into_iter().map(|stack| stack.name).collect::<Vec<_>>().join(" "),
            other => format!("{other:?}"),
        };
        for (selector, expected) in [
            (Selector::default(), "a b c"),
            ([("env", "prod")].into_iter().collect(), "a"),
            (kube::core::Expression::Exists("env".to_owned()).into(), "a b"),
            (kube::core::Expression::DoesNotExist("env".to_owned()).into(), "c"),
            ([("env", "none")].into_iter().collect(), "None"),
        ] {
            assert_eq!(chosen(selector.clone()), expected, "{selector}");
        }
    }

    #[test]
    fn what_upstreams_operator_syncs_is_left_to_it() {
        let stacks = [stack("a", &[("env", "prod")])];
        let instances = [Instance { key: "obs/upstream".to_owned(), labels: labels(&[("env", "prod"), ("x", "y")]) }];
        let prod: Selector = [("env", "prod")].into_iter().collect();
        assert_eq!(choose(&source(prod, &[]), &stacks, &instances), Choice::Elsewhere("obs/upstream".to_owned()));
        let other: Selector = [("x", "y")].into_iter().collect();
        assert_eq!(choose(&source(other, &[]), &stacks, &instances), Choice::None, "not ours at all");
    }

    #[test]
    fn copies_that_are_not_selected_any_more_are_surplus() {
        let stacks = [stack("a", &[]), stack("b", &[]), stack("c", &[])];
        let source = source(Selector::default(), &["obs/a", "obs/b", "obs/gone"]);
        let found = surplus(&source, &stacks[..1], &stacks);
        assert_eq!(found.iter().map(|stack| stack.name.as_str()).collect::<Vec<_>>(), ["b"]);
    }
}
