//! Every kind, every verb, for everybody.

use perses_api_server::domain::kind::Kind;
use serde_json::{Value, json};

use super::{Caller, databases, server};
use crate::resources::sample;

const EDITED: [Kind; 5] = [Kind::Dashboard, Kind::Datasource, Kind::Folder, Kind::Secret, Kind::Variable];
const VERBS: [&str; 4] = ["read", "create", "update", "delete"];

/// What the default roles of a project say (Perses v0.54), in words of its own.
fn may(who: &str, verb: &str, kind: Kind) -> bool {
    let in_project = kind.is_project_scoped() || (kind == Kind::Project && verb != "create");
    match who {
        "admin" => true,
        "owner" => in_project,
        "editor" => {
            EDITED.contains(&kind) || (verb == "read" && [Kind::Project, Kind::Role, Kind::RoleBinding].contains(&kind))
        }
        "viewer" => in_project && verb == "read",
        "guest" => verb == "read" && [Kind::Dashboard, Kind::GlobalDatasource].contains(&kind),
        "nobody" => false,
        _ => unreachable!("{who}"),
    }
}

fn collection(kind: Kind) -> String {
    let scope = if kind.is_project_scoped() { "projects/home/" } else { "" };
    format!("/api/v1/{scope}{}", kind.plural())
}

fn document(kind: Kind, name: &str) -> Value {
    let mut spec = sample(kind);
    if matches!(kind, Kind::Datasource | Kind::GlobalDatasource) {
        spec["default"] = json!(false);
    }
    let mut metadata = json!({"name": name});
    if kind.is_project_scoped() {
        metadata["project"] = json!("home");
    }
    json!({"kind": kind.as_str(), "metadata": metadata, "spec": spec})
}

/// Tries every verb on every kind; the document `thing` of each kind is there.
async fn try_all(who: &str, caller: &Caller<'_>, admin: &Caller<'_>) {
    for kind in Kind::ALL {
        let all = collection(kind);
        let own = format!("of-{who}");
        for verb in VERBS {
            let one = format!("{all}/thing");
            let (reply, good) = match verb {
                "read" => {
                    // A list of projects shows those that may be read.
                    if kind != Kind::Project {
                        let expected = if may(who, verb, kind) { 200 } else { 403 };
                        assert_eq!(caller.status(&all).await, expected, "{who} lists {kind}");
                    }
                    (caller.get(&one).await, 200)
                }
                "create" => (caller.send("POST", &all, &document(kind, &own)).await, 200),
                "update" => (caller.send("PUT", &one, &document(kind, "thing")).await, 200),
                _ => {
                    let gone = format!("{all}/gone");
                    let made = admin.send("POST", &all, &document(kind, "gone")).await;
                    assert_eq!(made.status.as_u16(), 200, "{kind} {made:?}");
                    let reply = caller.delete(&gone).await;
                    admin.delete(&gone).await;
                    (reply, 204)
                }
            };
            // Of the project `gone` nobody but the administrator is a member.
            let allowed = may(who, verb, kind) && (kind != Kind::Project || verb != "delete" || who == "admin");
            let expected = if allowed { good } else { 403 };
            assert_eq!(reply.status.as_u16(), expected, "{who} {verb} {kind}: {reply:?}");
            if !allowed {
                let message = reply.json()["message"].as_str().unwrap().to_owned();
                let in_project =
                    |project: &str| format!("missing '{verb}' permission in '{project}' project for '{kind}' kind");
                let missing = match kind {
                    Kind::Project if verb == "delete" => in_project("gone"),
                    Kind::Project if verb == "create" => "missing 'create' permission for 'Project' kind".to_owned(),
                    Kind::Project => in_project("thing"),
                    kind if kind.is_project_scoped() => in_project("home"),
                    _ => format!("missing '{verb}' global permission for '{kind}' kind"),
                };
                assert_eq!(message, format!("forbidden access: {missing}"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_what_their_role_says_and_nothing_else() {
    let guests = json!({"security": {"authorization": {"provider": {"native": {
        "guest_permissions": [{"actions": ["read"], "scopes": ["Dashboard", "GlobalDatasource"]}]}}}}});
    for (name, database) in databases().await {
        println!("on {name}");
        // The guest is somebody without a role on a server where guests have rights.
        for (more, people) in
            [(json!({}), ["admin", "owner", "editor", "viewer", "nobody"].as_slice()), (guests.clone(), &["guest"])]
        {
            // A new database for each, so that each has its own first user.
            let database = if database.is_some() { Some(super::postgres().await) } else { None };
            let server = server(database.as_ref(), more).await;
            let admin = server.caller("admin");
            for project in ["home", "thing"] {
                admin.project(project).await.ok();
            }
            for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Project) {
                admin.send("POST", &collection(kind), &document(kind, "thing")).await.ok();
            }
            for who in people {
                if *who != "admin" {
                    admin.users(&[who]).await;
                }
                if ["owner", "editor", "viewer"].contains(who) {
                    for project in ["home", "thing"] {
                        admin.bind(Some(project), &format!("b-{who}"), who, &[who]).await;
                    }
                }
                try_all(who, &server.caller(who), &admin).await;
            }
            let metrics = server.get("/metrics").await.body;
            let denied = "perses_authorization_denied_total{action=\"delete\",kind=\"User\"}";
            assert!(metrics.lines().any(|line| line.starts_with(denied)), "{metrics}");
        }
    }
}
