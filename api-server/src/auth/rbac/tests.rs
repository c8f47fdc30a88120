use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;
use serde_json::value::RawValue;

use super::*;
use crate::auth::authorize::{Action, Permission, Reach};
use crate::auth::token::Claims;
use crate::config::RoleMapping;
use crate::domain::document::{Document, Key, Origin};
use crate::domain::kind::Kind;

fn document(key: Key, revision: i64, spec: &serde_json::Value) -> Document {
    Document {
        key,
        created_at: jiff::Timestamp::UNIX_EPOCH,
        updated_at: jiff::Timestamp::UNIX_EPOCH,
        version: 0,
        tags: Vec::new(),
        spec: RawValue::from_string(spec.to_string()).unwrap().into(),
        origin: Origin::Api,
        revision,
    }
}

fn user(name: &str) -> Document {
    document(Key::global(Kind::User, name), 1, &json!({}))
}

fn key(kind: Kind, project: Option<&str>, name: &str) -> Key {
    Key { kind, project: project.map(str::to_owned), name: name.to_owned() }
}

fn role(project: Option<&str>, name: &str, actions: &[&str], scopes: &[&str]) -> Document {
    let kind = if project.is_some() { Kind::Role } else { Kind::GlobalRole };
    document(key(kind, project, name), 1, &json!({"permissions": [{"actions": actions, "scopes": scopes}]}))
}

fn binding(project: Option<&str>, name: &str, role: &str, users: &[&str]) -> Document {
    let kind = if project.is_some() { Kind::RoleBinding } else { Kind::GlobalRoleBinding };
    let subjects: Vec<_> = users.iter().map(|user| json!({"kind": "User", "name": user})).collect();
    document(key(kind, project, name), 1, &json!({"role": role, "subjects": subjects}))
}

fn graph(documents: &[Document], rules: &Rules) -> Graph {
    let mut facts = Facts::default();
    for document in documents {
        facts.put(document);
    }
    Graph::build(&facts, rules)
}

fn who(name: &str) -> Claims {
    Claims::native(name)
}

fn reach(projects: &[&str]) -> Reach {
    Reach::Projects(projects.iter().map(|project| (*project).to_owned()).collect())
}

#[test]
fn roles_count_where_they_are_bound_and_global_ones_everywhere() {
    let graph = graph(
        &[
            user("ada"),
            user("bob"),
            role(Some("p"), "editor", &["*"], &["*"]),
            role(None, "reader", &["read"], &["Dashboard", "GlobalDatasource"]),
            binding(Some("p"), "b", "editor", &["ada", "ghost"]),
            binding(None, "g", "reader", &["bob"]),
            // Of another project, and of none: there are no such roles there.
            binding(Some("q"), "b", "editor", &["bob"]),
            binding(None, "h", "editor", &["bob"]),
        ],
        &Rules::default(),
    );
    let ada = who("ada");
    assert!(graph.allows(&ada, Action::Update, Kind::Dashboard, Some("p")));
    assert!(graph.allows(&ada, Action::Delete, Kind::Project, Some("p")), "an owner may delete the project");
    assert!(!graph.allows(&ada, Action::Create, Kind::Project, None), "to create one is a global right");
    assert!(!graph.allows(&ada, Action::Read, Kind::Dashboard, Some("q")));
    assert!(!graph.allows(&ada, Action::Read, Kind::GlobalDatasource, None), "* of a project is not global");
    assert_eq!(graph.readable(&ada, Kind::Dashboard), reach(&["p"]));
    let bob = who("bob");
    assert!(graph.allows(&bob, Action::Read, Kind::Dashboard, Some("anything")));
    assert!(graph.allows(&bob, Action::Read, Kind::GlobalDatasource, None));
    assert!(!graph.allows(&bob, Action::Update, Kind::Dashboard, Some("q")));
    assert_eq!(graph.readable(&bob, Kind::Dashboard), Reach::Everywhere);
    assert_eq!(graph.readable(&bob, Kind::Folder), reach(&[]));
    assert!(!graph.allows(&who("ghost"), Action::Read, Kind::Dashboard, Some("p")), "there is no such user");
    assert!(graph.names("ghost") && !graph.names("nobody"));
    assert!(!graph.is_administrator(&ada) && !graph.is_administrator(&bob));
}

#[test]
fn guests_may_what_the_configuration_says_everywhere() {
    let guest = vec![Permission { actions: vec!["read".into()], scopes: vec!["Dashboard".into(), "User".into()] }];
    let graph = graph(&[user("ada")], &Rules { guest, ..Rules::default() });
    for name in ["ada", "deleted"] {
        assert!(graph.allows(&who(name), Action::Read, Kind::Dashboard, Some("p")));
        assert!(graph.allows(&who(name), Action::Read, Kind::User, None));
        assert!(!graph.allows(&who(name), Action::Read, Kind::Folder, Some("p")));
        assert_eq!(graph.readable(&who(name), Kind::Dashboard), Reach::Everywhere);
    }
}

#[test]
fn permissions_are_those_of_the_documents_and_the_star_is_always_there() {
    let documents = [
        user("ada"),
        role(Some("p"), "owner", &["*"], &["*"]),
        role(None, "reader", &["read"], &["User"]),
        binding(Some("p"), "owner", "owner", &["ada"]),
        binding(None, "g", "reader", &["ada"]),
    ];
    let shown = |graph: &Graph, name: &str| serde_json::to_value(graph.permissions(&who(name))).unwrap();
    let plain = graph(&documents, &Rules::default());
    let own = json!({"*": [{"actions": ["read"], "scopes": ["User"]}], "p": [{"actions": ["*"], "scopes": ["*"]}]});
    assert_eq!(shown(&plain, "ada"), own);
    assert_eq!(shown(&plain, "bob"), json!({"*": null}));
    let guest = vec![Permission { actions: vec!["read".into()], scopes: vec!["Folder".into()] }];
    let guests = graph(&documents, &Rules { guest, ..Rules::default() });
    assert_eq!(shown(&guests, "bob"), json!({"*": [{"actions": ["read"], "scopes": ["Folder"]}]}));
    assert_eq!(shown(&guests, "ada")["*"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_mapping_gives_its_role_to_users_whose_token_says_so() {
    let mappings = vec![
        RoleMapping { group: Some("sre".into()), role: "admin".into(), ..RoleMapping::default() },
        RoleMapping {
            group: Some("dev".into()),
            role: "Viewer".into(),
            project: Some("P".into()),
            ..RoleMapping::default()
        },
        RoleMapping {
            claim: Some("team".into()),
            value: Some("core".into()),
            role: "absent".into(),
            ..RoleMapping::default()
        },
    ];
    let graph = graph(
        &[user("ada"), role(None, "admin", &["*"], &["*"]), role(Some("p"), "viewer", &["read"], &["*"])],
        &Rules { mappings, ..Rules::default() },
    );
    let with = |name: &str, groups: &[&str]| Claims {
        groups: groups.iter().map(|group| (*group).into()).collect(),
        ..who(name)
    };
    let sre = with("ada", &["other", "sre"]);
    assert!(graph.is_administrator(&sre) && graph.allows(&sre, Action::Create, Kind::Project, None));
    let dev = with("ada", &["dev", &claim_entry("team", "core")]);
    assert!(graph.allows(&dev, Action::Read, Kind::Secret, Some("p")));
    assert!(!graph.allows(&dev, Action::Read, Kind::Secret, Some("q")));
    assert_eq!(graph.readable(&dev, Kind::Dashboard), reach(&["p"]));
    assert!(graph.permissions(&dev).contains_key("p"));
    assert!(!graph.is_administrator(&with("ada", &[])));
    assert!(
        !graph.is_administrator(&with("deleted", &["sre"])),
        "a user that is gone has no rights, whatever the token says"
    );
}

#[test]
fn letter_case_of_a_binding_counts_only_where_that_of_names_does() {
    let documents = [user("ada"), role(None, "reader", &["read"], &["*"]), binding(None, "g", "Reader", &["Ada"])];
    let allows = |case_sensitive| {
        let graph = graph(&documents, &Rules { case_sensitive, ..Rules::default() });
        graph.allows(&who("ada"), Action::Read, Kind::User, None)
    };
    assert!(allows(false) && !allows(true));
}

#[test]
fn a_spec_that_cannot_be_understood_gives_nothing_and_takes_what_there_was() {
    let mut facts = Facts::default();
    for document in [user("ada"), role(None, "r", &["*"], &["*"]), binding(None, "g", "r", &["ada"])] {
        facts.put(&document);
    }
    let allows =
        |facts: &Facts| Graph::build(facts, &Rules::default()).allows(&who("ada"), Action::Read, Kind::User, None);
    assert!(allows(&facts));
    let broken = document(key(Kind::GlobalRole, None, "r"), 2, &json!({"permissions": 7}));
    facts.put(&broken);
    assert!(!allows(&facts));
    facts.put(&role(None, "r", &["*"], &["*"]));
    assert!(allows(&facts));
    assert!(!facts.remove(&broken.key, 0), "older than what is known");
    assert!(facts.remove(&broken.key, 1) && !allows(&facts));
}

/// A small world, as documents.
#[derive(Debug, Clone)]
struct World {
    users: BTreeSet<usize>,
    /// (project, role) -> actions and scopes; project 0 is none.
    roles: BTreeMap<(usize, usize), (Vec<usize>, Vec<usize>)>,
    /// (project, binding) -> role and users.
    bindings: BTreeMap<(usize, usize), (usize, BTreeSet<usize>)>,
    guest: (Vec<usize>, Vec<usize>),
}

const ACTIONS: [&str; 5] = ["read", "create", "update", "delete", "*"];
const SCOPES: [&str; 5] = ["Dashboard", "Project", "User", "Secret", "*"];
const PROJECTS: [Option<&str>; 3] = [None, Some("p"), Some("q")];

fn words(words: &[&str], at: &[usize]) -> Vec<String> {
    at.iter().map(|at| words[*at].to_owned()).collect()
}

fn worlds() -> impl Strategy<Value = World> {
    let permission = || (prop::collection::vec(0..5_usize, 0..3), prop::collection::vec(0..5_usize, 0..3));
    (
        prop::collection::btree_set(0..4_usize, 0..4),
        prop::collection::btree_map((0..3_usize, 0..3_usize), permission(), 0..6),
        prop::collection::btree_map(
            (0..3_usize, 0..3_usize),
            (0..3_usize, prop::collection::btree_set(0..4_usize, 1..4)),
            0..6,
        ),
        permission(),
    )
        .prop_map(|(users, roles, bindings, guest)| World { users, roles, bindings, guest })
}

impl World {
    fn documents(&self) -> Vec<Document> {
        let users = self.users.iter().map(|at| user(&format!("u{at}")));
        let roles = self.roles.iter().map(|((project, name), (actions, scopes))| {
            let (actions, scopes) = (words(&ACTIONS, actions), words(&SCOPES, scopes));
            let kind = if *project == 0 { Kind::GlobalRole } else { Kind::Role };
            let spec = json!({"permissions": [{"actions": actions, "scopes": scopes}]});
            document(key(kind, PROJECTS[*project], &format!("r{name}")), 1, &spec)
        });
        let bindings = self.bindings.iter().map(|((project, name), (role, users))| {
            let users: Vec<String> = users.iter().map(|at| format!("u{at}")).collect();
            let users: Vec<&str> = users.iter().map(String::as_str).collect();
            binding(PROJECTS[*project], &format!("b{name}"), &format!("r{role}"), &users)
        });
        users.chain(roles).chain(bindings).collect()
    }

    fn rules(&self) -> Rules {
        let guest = Permission { actions: words(&ACTIONS, &self.guest.0), scopes: words(&SCOPES, &self.guest.1) };
        Rules { guest: vec![guest], ..Rules::default() }
    }

    /// The rule of Perses, word by word: guests, then global roles, then roles of the project.
    fn allows(&self, user: usize, action: &str, scope: &str, project: usize) -> bool {
        let matches = |(actions, scopes): &(Vec<usize>, Vec<usize>)| {
            actions.iter().any(|at| [action, "*"].contains(&ACTIONS[*at]))
                && scopes.iter().any(|at| [scope, "*"].contains(&SCOPES[*at]))
        };
        let bound = |place: usize| {
            self.bindings.iter().any(|((at, _), (role, users))| {
                *at == place && users.contains(&user) && self.roles.get(&(place, *role)).is_some_and(&matches)
            })
        };
        matches(&self.guest) || (self.users.contains(&user) && (bound(0) || bound(project)))
    }
}

proptest! {
    #[test]
    fn the_graph_answers_as_the_rule_says(world in worlds()) {
        let graph = graph(&world.documents(), &world.rules());
        for user in 0..4 {
            let claims = who(&format!("u{user}"));
            for kind in [Kind::Dashboard, Kind::Project, Kind::User, Kind::Secret, Kind::Folder] {
                for (at, project) in PROJECTS.iter().enumerate() {
                    for action in Action::ALL {
                        let wanted = world.allows(user, action.as_str(), kind.as_str(), at);
                        prop_assert_eq!(graph.allows(&claims, action, kind, *project), wanted, "u{} {} {}", user, action, kind);
                    }
                    let readable = graph.readable(&claims, kind);
                    if let Some(project) = project {
                        prop_assert_eq!(readable.contains(project), graph.allows(&claims, Action::Read, kind, Some(project)));
                    }
                }
            }
        }
    }

    #[test]
    fn facts_that_come_one_by_one_in_any_order_are_those_of_now(before in worlds(), after in worlds(), order in any::<u64>()) {
        let mut facts = Facts::default();
        for document in &before.documents() {
            facts.put(document);
        }
        let mut wanted: Vec<Document> = after.documents();
        for document in &mut wanted {
            document.revision = 5;
        }
        let kept: BTreeSet<Key> = wanted.iter().map(|document| document.key.clone()).collect();
        let gone = before.documents().into_iter().map(|document| document.key).filter(|key| !kept.contains(key));
        // A step is a document that is put, or a key and the revision of its end. What is late and old, between what is new,
        // changes nothing.
        let mut steps: Vec<Result<&Document, (Key, i64)>> = Vec::new();
        for document in &wanted {
            steps.extend([Ok(document), Err((document.key.clone(), 0))]);
        }
        steps.extend(gone.map(|key| Err((key, 4))));
        let length = steps.len().max(1);
        for at in 0..steps.len() {
            let other = usize::try_from(order.rotate_left(u32::try_from(at % 64).unwrap()) % length as u64).unwrap();
            steps.swap(at, other);
        }
        for step in steps {
            match step {
                Ok(document) => facts.put(document),
                Err((key, revision)) => _ = facts.remove(&key, revision),
            }
        }
        let (built, fresh) = (Graph::build(&facts, &after.rules()), graph(&wanted, &after.rules()));
        for user in 0..4 {
            let claims = who(&format!("u{user}"));
            prop_assert_eq!(built.permissions(&claims), fresh.permissions(&claims));
            for kind in Kind::ALL {
                prop_assert_eq!(built.readable(&claims, kind), fresh.readable(&claims, kind));
            }
        }
    }
}

/// Not a limit, a guard against a quadratic step: 10,000 users and bindings take some milliseconds.
#[test]
fn ten_thousand_users_and_bindings_are_built_at_once() {
    let mut facts = Facts::default();
    for at in 0..10_000 {
        let (name, project) = (format!("user-{at}"), format!("project-{}", at % 500));
        facts.put(&user(&name));
        facts.put(&binding(Some(&project), &format!("binding-{at}"), "viewer", &[&name]));
    }
    for at in 0..500 {
        facts.put(&role(Some(&format!("project-{at}")), "viewer", &["read"], &["*"]));
    }
    let started = std::time::Instant::now();
    let graph = Graph::build(&facts, &Rules::default());
    let took = started.elapsed();
    println!("built in {took:?}");
    assert_eq!(graph.readable(&who("user-777"), Kind::Dashboard), reach(&["project-277"]));
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
    let claims = who("user-777");
    let started = std::time::Instant::now();
    let allowed = (0..100_000).filter(|_| {
        std::hint::black_box(&graph).allows(
            std::hint::black_box(&claims),
            Action::Read,
            Kind::Dashboard,
            Some("project-277"),
        )
    });
    assert_eq!(allowed.count(), 100_000);
    println!("a check takes {:?}", started.elapsed() / 100_000);
}
