//! Projects: their default roles, their owner, and lists of what one may see.

use perses_api_server::domain::kind::Kind;
use serde_json::{Value, json};

use super::{dashboard, databases, server};

#[tokio::test(flavor = "multi_thread")]
async fn who_creates_a_project_owns_it_and_it_comes_with_roles() {
    for (name, database) in databases().await {
        println!("on {name}");
        let server = server(database.as_ref(), json!({})).await;
        let admin = server.caller("admin");
        admin.users(&["ada", "bob"]).await;
        admin.role(None, "founder", &["create"], &["Project"]).await;
        admin.bind(None, "founders", "founder", &["ada"]).await;
        let (ada, bob) = (server.caller("ada"), server.caller("bob"));
        bob.project("p").await.assert_error(403, "forbidden access: missing 'create' permission for 'Project' kind");
        ada.project("P").await.ok();

        let spec = |reply: Value| reply["spec"].clone();
        let role = async |name: &str| spec(ada.get(&format!("/api/v1/projects/p/roles/{name}")).await.ok());
        assert_eq!(role("owner").await, json!({"permissions": [{"actions": ["*"], "scopes": ["*"]}]}));
        assert_eq!(
            role("editor").await,
            json!({"permissions": [
                {"actions": ["*"], "scopes": ["Dashboard", "Datasource", "Folder", "Secret", "Variable"]},
                {"actions": ["read"], "scopes": ["Project", "Role", "RoleBinding"]},
            ]})
        );
        assert_eq!(role("viewer").await, json!({"permissions": [{"actions": ["read"], "scopes": ["*"]}]}));
        assert_eq!(
            spec(ada.get("/api/v1/projects/p/rolebindings/owner").await.ok()),
            json!({"role": "owner", "subjects": [{"kind": "User", "name": "ada"}]})
        );
        // At once, not when the tail has brought it.
        ada.send("POST", "/api/v1/dashboards", &dashboard("p", "d")).await.ok();
        ada.bind(Some("p"), "viewers", "viewer", &["bob"]).await;
        bob.get("/api/v1/projects/p/dashboards/d").await.ok();
        assert_eq!(bob.delete("/api/v1/projects/p").await.status.as_u16(), 403);
        assert_eq!(ada.delete("/api/v1/projects/p").await.status.as_u16(), 204);
        assert_eq!(ada.get("/api/v1/projects/p").await.status.as_u16(), 403, "the rights went with the project");
        assert!(bob.names("/api/v1/roles").await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_create_one_project_one_owns_it() {
    for (name, database) in databases().await {
        println!("on {name}");
        let server = server(database.as_ref(), json!({})).await;
        let admin = server.caller("admin");
        let people = ["a", "b", "c", "d"];
        admin.users(&people).await;
        admin.role(None, "founder", &["create"], &["Project"]).await;
        admin.bind(None, "founders", "founder", &people).await;
        let callers: Vec<_> = people.iter().map(|name| server.caller(name)).collect();
        let replies = futures::future::join_all(callers.iter().map(|caller| caller.project("p"))).await;
        let mut statuses: Vec<u16> = replies.iter().map(|reply| reply.status.as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409, 409, 409]);
        let winner = replies.iter().position(|reply| reply.status.as_u16() == 200).unwrap();
        let owner = admin.get("/api/v1/projects/p/rolebindings/owner").await.ok();
        assert_eq!(owner["spec"]["subjects"][0]["name"], people[winner]);
        assert_eq!(admin.names("/api/v1/projects/p/roles").await, ["p/editor", "p/owner", "p/viewer"]);
    }
}

#[tokio::test]
async fn what_a_crash_left_of_a_project_in_files_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let database = json!({"file": {"folder": folder.path(), "extension": "json"}});
    // The files of `p` as a crash before the last one leaves them; mallory was to own it.
    let left = json!({"kind": "RoleBinding", "metadata": {"name": "owner", "project": "p"},
        "spec": {"role": "owner", "subjects": [{"kind": "User", "name": "mallory"}]}});
    std::fs::create_dir_all(folder.path().join("rolebindings/p")).unwrap();
    std::fs::write(folder.path().join("rolebindings/p/owner.json"), left.to_string()).unwrap();
    let server = server(Some(&database), json!({})).await;
    let admin = server.caller("admin");
    admin.users(&["mallory"]).await;
    server.caller("mallory").get("/api/v1/projects/p/dashboards").await.assert_error_with(400, "doesn't exist");
    admin.project("p").await.ok();
    let owner = admin.get("/api/v1/projects/p/rolebindings/owner").await.ok();
    assert_eq!(owner["spec"]["subjects"], json!([{"kind": "User", "name": "admin"}]));
    assert_eq!(server.caller("mallory").status("/api/v1/projects/p/dashboards").await, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_what_may_be_read() {
    for (name, database) in databases().await {
        println!("on {name}");
        let server = server(database.as_ref(), json!({})).await;
        let admin = server.caller("admin");
        admin.users(&["ada", "bob", "eve"]).await;
        // Few projects are read one by one, many at once: `ada` has few, `bob` many.
        let projects: Vec<String> = (10..30).map(|at| format!("p{at}")).collect();
        for (at, project) in projects.iter().enumerate() {
            admin.project(project).await.ok();
            admin.send("POST", "/api/v1/dashboards", &dashboard(project, "d")).await.ok();
            let viewers: &[&str] = if at < 2 { &["ada", "bob"] } else { &["bob"] };
            if at < 18 {
                admin.bind(Some(project), "viewers", "viewer", viewers).await;
            }
        }
        let (ada, bob, eve) = (server.caller("ada"), server.caller("bob"), server.caller("eve"));
        assert_eq!(ada.names("/api/v1/projects").await, ["p10", "p11"]);
        assert_eq!(ada.names("/api/v1/projects?metadata_only=true&name=p11").await, ["p11"]);
        assert_eq!(ada.names("/api/v1/dashboards").await, ["p10/d", "p11/d"]);
        assert_eq!(ada.names("/api/v1/dashboards?metadata_only=true&name=d").await, ["p10/d", "p11/d"]);
        assert_eq!(ada.names("/api/v1/dashboards?project=p11").await, ["p11/d"]);
        assert_eq!(ada.status("/api/v1/dashboards?project=p12").await, 403);
        assert_eq!(ada.status("/api/v1/dashboards?project=none").await, 403);
        assert_eq!(ada.status("/api/v1/projects/p12/dashboards").await, 403);
        assert_eq!(bob.names("/api/v1/projects").await, projects[..18]);
        let shown: Vec<String> = projects[..18].iter().map(|project| format!("{project}/d")).collect();
        assert_eq!(bob.names("/api/v1/dashboards").await, shown);
        for kind in Kind::ALL {
            let path = format!("/api/v1/{}", kind.plural());
            if kind.is_project_scoped() || kind == Kind::Project {
                assert_eq!(eve.get(&path).await.body, "[]\n", "{kind}");
                let of_one = eve.status(&format!("{path}?project=p10")).await;
                assert_eq!(of_one, if kind == Kind::Project { 200 } else { 403 }, "{kind}");
            } else {
                eve.get(&path).await.assert_error(
                    403,
                    &format!("forbidden access: missing 'read' global permission for '{kind}' kind"),
                );
            }
        }
        assert_eq!(admin.names("/api/v1/projects").await, projects);
        eve.get("/api/v1/projects/none/dashboards")
            .await
            .assert_error(400, "bad request: metadata.project \"none\" doesn't exist");
    }
}
