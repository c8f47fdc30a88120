//! Which access review a question of ours is: the mapping of Perses v0.54. Pure.

use k8s_openapi::api::authorization::v1::ResourceAttributes;

use crate::auth::authorize::Action;
use crate::domain::kind::Kind;

/// API group of the resources of perses-operator.
const GROUP: &str = "perses.dev";
/// The namespace of what belongs to no project.
pub(super) const EVERY_NAMESPACE: &str = "*";
/// The verb that stands for all.
const EVERY_VERB: &str = "*";

/// One question to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    namespace: String,
    name: String,
}

/// Kinds whose rights make a project visible.
pub(super) const OF_PROJECTS: [Kind; 3] = [Kind::Dashboard, Kind::Datasource, Kind::Secret];

impl Question {
    /// Whether somebody may act on documents of a kind in a namespace; no action is every one. Kinds without a resource in
    /// the cluster go with dashboards, global ones with the whole cluster.
    pub(super) fn new(action: Option<Action>, kind: Kind, namespace: &str) -> Self {
        let (group, resource) = match kind {
            Kind::Datasource => (GROUP, "persesdatasources"),
            Kind::GlobalDatasource => (GROUP, "persesglobaldatasources"),
            Kind::Secret | Kind::GlobalSecret => ("", "secrets"),
            _ => (GROUP, "persesdashboards"),
        };
        let verb = match action {
            None => EVERY_VERB,
            Some(Action::Read) => "get",
            Some(Action::Create) => "create",
            Some(Action::Update) => "patch",
            Some(Action::Delete) => "delete",
        };
        let global = !kind.is_project_scoped() && kind != Kind::Project;
        let namespace = if global { EVERY_NAMESPACE } else { namespace };
        Self { verb, group, resource, namespace: namespace.to_owned(), name: String::new() }
    }

    /// Whether somebody may do everything.
    pub(super) fn everything() -> Self {
        Self { verb: EVERY_VERB, group: "*", resource: "*", namespace: EVERY_NAMESPACE.to_owned(), name: String::new() }
    }

    /// Whether somebody may act as another user.
    pub(super) fn impersonate(user: &str) -> Self {
        let (resource, namespace, name) = match service_account(user) {
            Some((namespace, name)) => ("serviceaccounts", namespace, name),
            None => ("users", "", user),
        };
        Self { verb: "impersonate", group: "", resource, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What is asked within the namespace.
    pub(super) fn field(&self) -> String {
        format!("{}/{}/{}/{}", self.verb, self.group, self.resource, self.name)
    }

    pub(super) fn attributes(&self) -> ResourceAttributes {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        ResourceAttributes {
            verb: some(self.verb),
            group: some(self.group),
            resource: some(self.resource),
            namespace: some(&self.namespace),
            name: some(&self.name),
            ..ResourceAttributes::default()
        }
    }
}

/// Namespace and name of a service account's user name.
pub(super) fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(question: &Question) -> String {
        let Question { verb, group, resource, namespace, name } = question;
        format!("{verb} {group}/{resource} in {namespace} {name}").trim_end().to_owned()
    }

    #[test]
    fn kinds_and_actions_are_those_of_the_cluster() {
        for (action, kind, expected) in [
            (Some(Action::Read), Kind::Dashboard, "get perses.dev/persesdashboards in team"),
            (Some(Action::Update), Kind::Datasource, "patch perses.dev/persesdatasources in team"),
            (Some(Action::Create), Kind::Secret, "create /secrets in team"),
            (Some(Action::Delete), Kind::Folder, "delete perses.dev/persesdashboards in team"),
            (None, Kind::Variable, "* perses.dev/persesdashboards in team"),
            (Some(Action::Read), Kind::GlobalDatasource, "get perses.dev/persesglobaldatasources in *"),
            (Some(Action::Read), Kind::GlobalSecret, "get /secrets in *"),
            (Some(Action::Read), Kind::GlobalVariable, "get perses.dev/persesdashboards in *"),
            (Some(Action::Read), Kind::User, "get perses.dev/persesdashboards in *"),
        ] {
            assert_eq!(text(&Question::new(action, kind, "team")), expected);
        }
        assert_eq!(text(&Question::impersonate("ann")), "impersonate /users in  ann");
        let account = Question::impersonate("system:serviceaccount:team:robot");
        assert_eq!(text(&account), "impersonate /serviceaccounts in team robot");
    }
}
