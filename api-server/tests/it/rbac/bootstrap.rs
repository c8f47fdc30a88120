//! The first user: a full administrator, whatever was there before.

use serde_json::{Value, json};

use super::server;

const EVERYTHING: &str = r#"{"*":[{"actions":["*"],"scopes":["*"]}]}"#;

/// A folder with documents of these kinds and names, as a server before left them.
fn folder(documents: &[Value]) -> (tempfile::TempDir, Value) {
    let folder = tempfile::tempdir().unwrap();
    for document in documents {
        let plural = format!("{}s", document["kind"].as_str().unwrap().to_lowercase());
        std::fs::create_dir_all(folder.path().join(&plural)).unwrap();
        let file = format!("{plural}/{}.json", document["metadata"]["name"].as_str().unwrap());
        std::fs::write(folder.path().join(file), document.to_string()).unwrap();
    }
    let database = json!({"file": {"folder": folder.path(), "extension": "json"}});
    (folder, database)
}

fn admin() -> Value {
    json!({"kind": "User", "metadata": {"name": "admin"}, "spec": {"nativeProvider": {"password": "$2a$10$x"}}})
}

fn binding(name: &str, role: &str, user: &str) -> Value {
    json!({"kind": "GlobalRoleBinding", "metadata": {"name": name}, "spec": {"role": role, "subjects": [{"kind": "User", "name": user}]}})
}

#[tokio::test]
async fn the_first_user_is_administrator_of_a_new_server_and_of_one_from_before_there_were_roles() {
    for documents in [vec![], vec![admin()]] {
        let (_folder, database) = folder(&documents);
        let server = server(Some(&database), json!({})).await;
        let admin = server.caller("admin");
        assert_eq!(admin.get("/api/v1/users/admin/permissions").await.body.trim(), EVERYTHING);
        assert_eq!(admin.names("/api/v1/globalroles").await, ["admin"]);
        let binding = admin.get("/api/v1/globalrolebindings/admin").await.ok();
        assert_eq!(binding["spec"], json!({"role": "admin", "subjects": [{"kind": "User", "name": "admin"}]}));
    }
}

#[tokio::test]
async fn what_users_changed_later_wins() {
    // Somebody gave the first user less, or nothing, on purpose: other bindings show that.
    let reader = json!({"kind": "GlobalRole", "metadata": {"name": "reader"}, "spec": {"permissions": [{"actions": ["read"], "scopes": ["*"]}]}});
    for (bindings, permissions) in [
        (binding("readers", "reader", "admin"), json!({"*": [{"actions": ["read"], "scopes": ["*"]}]})),
        (binding("admin", "reader", "ada"), json!({"*": null})),
    ] {
        let (_folder, database) = folder(&[admin(), reader.clone(), bindings]);
        let server = server(Some(&database), json!({})).await;
        assert_eq!(server.caller("admin").get("/api/v1/users/admin/permissions").await.ok(), permissions);
    }
    // A first user that was deleted is made again, and bound again unless that binding was changed.
    let (_folder, database) = folder(&[reader.clone(), binding("readers", "reader", "ada")]);
    let again = server(Some(&database), json!({})).await;
    assert_eq!(again.caller("admin").get("/api/v1/users/admin/permissions").await.body.trim(), EVERYTHING);
    let (_folder, database) = folder(&[reader, binding("admin", "reader", "ada")]);
    let changed = server(Some(&database), json!({})).await;
    assert_eq!(changed.caller("admin").get("/api/v1/users/admin/permissions").await.ok(), json!({"*": null}));
}
