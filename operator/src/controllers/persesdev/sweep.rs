//! Copies whose resource is gone: they stay behind when a resource was deleted while its stack was away for long, or when
//! somebody took its finalizer off. A sweep lists the marked documents of a stack and removes those that no resource stands
//! for.

use std::collections::BTreeSet;

use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::core::SelectorExt;
use kube::runtime::reflector::Store;
use serde_json::Value;

use super::context::Context;
use super::document::{Place, is_marked};
use super::kind::Kind;
use super::select::Stack;
use super::server::Fault;
use super::source::Source;
use super::sync::remove;

/// The resources of one kind as a watch keeps them.
#[derive(Clone)]
pub(super) struct Known {
    /// Kind.
    pub(super) kind: Kind,
    /// Resources.
    pub(super) store: Store<DynamicObject>,
}

/// Removes what nobody stands for from one stack.
///
/// `project` limits a namespaced operator to its own project.
pub(super) async fn sweep(
    context: &Context,
    stack: &Stack,
    known: &[Known],
    project: Option<&str>,
) -> Result<usize, Fault> {
    let server = context.servers.of(stack);
    let mut removed = 0;
    for Known { kind, store } in known {
        for document in std::iter::once(kind.document()).chain(kind.secret()) {
            // The documents first: a resource that is younger than this list has no document in it.
            let stored = server.list(document.plural()).await?;
            let marked: Vec<_> = stored.iter().filter_map(|stored| marked(document, stored)).collect();
            if marked.is_empty() {
                continue;
            }
            let resources = store.state();
            let wanted: BTreeSet<_> =
                resources.iter().filter(|object| stands_for(*kind, object, stack)).map(|object| key(object)).collect();
            for place in orphans(&marked, &wanted, project) {
                remove(&server, place, &context.metrics).await?;
                tracing::info!(stack = stack.key(), document = place.describe(), "removed a copy without a resource");
                removed += 1;
            }
        }
    }
    Ok(removed)
}

fn key(object: &DynamicObject) -> (Option<String>, String) {
    (object.namespace(), object.name_any())
}

/// Whether a resource may have a copy in this stack: it selects it, or says so itself. What cannot be read counts.
fn stands_for(kind: Kind, object: &DynamicObject, stack: &Stack) -> bool {
    Source::read(kind, object)
        .map_or(true, |source| source.copies.contains(&stack.key()) || source.selector.matches(&stack.labels))
}

/// The place of a stored document that carries its mark.
fn marked(kind: super::kind::DocumentKind, stored: &Value) -> Option<Place> {
    let text = |field: &str| stored["metadata"][field].as_str().map(str::to_owned);
    let place = Place { kind, project: text("project"), name: text("name")? };
    is_marked(&place, stored).then_some(place)
}

/// The marked places that no resource stands for. PURE.
fn orphans<'a>(
    marked: &'a [Place],
    wanted: &BTreeSet<(Option<String>, String)>,
    project: Option<&str>,
) -> Vec<&'a Place> {
    marked
        .iter()
        .filter(|place| project.is_none() || place.project.as_deref() == project)
        .filter(|place| !wanted.contains(&(place.project.clone(), place.source_name().to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::kind::DocumentKind;
    use super::*;

    fn place(kind: DocumentKind, project: &str, name: &str) -> Place {
        Place { kind, project: Some(project.to_owned()), name: name.to_owned() }
    }

    #[test]
    fn only_marked_documents_without_a_resource_are_orphans() {
        let kept = place(DocumentKind::Secret, "shop", "prom-secret");
        let gone = place(DocumentKind::Secret, "shop", "old-secret");
        let elsewhere = place(DocumentKind::Secret, "other", "old-secret");
        let wanted = [(Some("shop".to_owned()), "prom".to_owned())].into();
        let all = [kept, gone.clone(), elsewhere.clone()];
        assert_eq!(orphans(&all, &wanted, None), [&gone, &elsewhere]);
        assert_eq!(orphans(&all, &wanted, Some("shop")), [&gone], "a namespaced operator knows one project");

        let stored = |tags: Value| json!({"metadata": {"name": "old-secret", "project": "shop", "tags": tags}});
        assert_eq!(marked(DocumentKind::Secret, &stored(json!([gone.mark()]))), Some(gone));
        assert_eq!(marked(DocumentKind::Secret, &stored(json!(["mine"]))), None);
    }

    #[test]
    fn a_resource_stands_for_its_copy_while_it_selects_or_records_the_stack() {
        let stack = Stack {
            namespace: "obs".to_owned(),
            name: "perses".to_owned(),
            uid: "1".to_owned(),
            labels: [("env".to_owned(), "prod".to_owned())].into(),
            ready: true,
            tls: None,
            native: true,
        };
        let object = |selector: Value, annotations: Value| -> DynamicObject {
            serde_json::from_value(json!({"metadata": {"name": "a", "annotations": annotations},
                                          "spec": {"config": {}, "instanceSelector": selector}}))
            .unwrap()
        };
        let stands = |selector, annotations| stands_for(Kind::Dashboard, &object(selector, annotations), &stack);
        assert!(stands(json!({"matchLabels": {"env": "prod"}}), json!({})));
        assert!(!stands(json!({"matchLabels": {"env": "test"}}), json!({})));
        assert!(stands(json!({"matchLabels": {"env": "test"}}), json!({"persesstack.io/copies": "obs/perses"})));
        assert!(stands(json!({"matchExpressions": [{"key": "a", "operator": "??"}]}), json!({})), "unreadable");
    }
}
