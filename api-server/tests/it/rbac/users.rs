//! Users: who makes them, what they see of themselves, what is left of those who are gone.

use serde_json::{Value, json};

use super::{binding, server};
use crate::http::Server;

fn user(name: &str) -> Value {
    json!({"kind": "User", "metadata": {"name": name}, "spec": {"nativeProvider": {"password": "secret"}}})
}

#[tokio::test]
async fn whoever_signs_up_has_no_rights_and_cannot_take_those_of_a_name() {
    let server = Server::with_auth(json!({})).await;
    assert_eq!(server.get("/api/config").await.ok()["security"]["authentication"]["disable_sign_up"], false);
    let reply = server.send("POST", "/api/v1/users", &user("Eve")).await.ok();
    assert_eq!(reply["spec"]["nativeProvider"]["password"], "<secret>");
    server.login("eve", "secret").await.ok();
    let eve = server.caller("eve");
    assert_eq!(eve.get("/api/v1/user/whoami").await.ok()["metadata"]["name"], "eve");
    assert_eq!(eve.get("/api/v1/users/eve/permissions").await.ok(), json!({"*": null}));
    assert_eq!(eve.status("/api/v1/users").await, 403);
    assert_eq!(eve.get("/api/v1/projects").await.body, "[]\n");
    // Signed in or not, it is the same sign-up.
    eve.send("POST", "/api/v1/users", &user("eve2")).await.ok();

    let admin = server.caller("admin");
    admin.bind(None, "later", "admin", &["Boss"]).await;
    for name in ["boss", "BOSS", "admin"] {
        server.send("POST", "/api/v1/users", &user(name)).await.assert_error_with(403, "roles are already bound");
    }
    admin.send("POST", "/api/v1/users", &user("boss")).await.ok();
    let mut claimed = user("zoe");
    claimed["spec"]["oauthProviders"] = json!([{"issuer": "https://idp", "email": "zoe@x", "subject": "1"}]);
    server.send("POST", "/api/v1/users", &claimed).await.assert_error_with(403, "oauthProviders");
    let token = server.text("POST", "/api/v1/users", "text/plain", "{}").await;
    assert_eq!(token.status.as_u16(), 415);
}

#[tokio::test]
async fn closed_sign_up_is_for_those_who_may_create_users() {
    let server = server(None, json!({})).await;
    assert_eq!(server.get("/api/config").await.ok()["security"]["authentication"]["disable_sign_up"], true);
    server.send("POST", "/api/v1/users", &user("eve")).await.assert_error_with(403, "sign-up is closed");
    let admin = server.caller("admin");
    admin.send("POST", "/api/v1/users", &user("eve")).await.ok();
    let eve = server.caller("eve");
    let refused = "forbidden access: missing 'create' global permission for 'User' kind";
    eve.send("POST", "/api/v1/users", &user("eve2")).await.assert_error(403, refused);
    admin.role(None, "registrar", &["create"], &["User"]).await;
    admin.bind(None, "registrars", "registrar", &["eve"]).await;
    eve.send("POST", "/api/v1/users", &user("eve2")).await.ok();

    // Without roles everybody may everything, so nobody gets in by themselves.
    let more = json!({"security": {"authorization": {"provider": {"native": {"enable": false}}}}});
    let open = Server::with_auth(more).await;
    let config = open.get("/api/config").await.ok();
    assert_eq!(config["security"]["authorization"]["provider"]["native"]["enable"], false);
    assert_eq!(config["security"]["authentication"]["disable_sign_up"], true);
    open.send("POST", "/api/v1/users", &user("eve")).await.assert_error_with(403, "sign-up is closed");
    let anyone = open.caller("admin");
    anyone.send("POST", "/api/v1/users", &user("eve")).await.ok();
    open.caller("eve").project("p").await.ok();
    assert_eq!(anyone.get("/api/v1/roles").await.status.as_u16(), 404, "no routes of roles");
    let all = json!({"*": [{"actions": ["*"], "scopes": ["*"]}]});
    assert_eq!(anyone.get("/api/v1/users/admin/permissions").await.ok(), all);
}

#[tokio::test]
async fn permissions_are_shown_to_oneself_as_roles_write_them() {
    let more =
        json!({"security": {"authorization": {"guest_permissions": [{"actions": ["read"], "scopes": ["Folder"]}]}}});
    let server = server(None, more).await;
    let admin = server.caller("admin");
    admin.users(&["ada"]).await;
    admin.project("p").await.ok();
    admin.role(None, "reader", &["read"], &["GlobalDatasource"]).await;
    admin.bind(None, "readers", "reader", &["ada"]).await;
    admin.bind(Some("p"), "viewers", "viewer", &["ada"]).await;
    let ada = server.caller("ada");
    assert_eq!(
        ada.get("/api/v1/users/ADA/permissions").await.ok(),
        json!({
            "*": [{"actions": ["read"], "scopes": ["Folder"]}, {"actions": ["read"], "scopes": ["GlobalDatasource"]}],
            "p": [{"actions": ["read"], "scopes": ["*"]}],
        })
    );
    ada.get("/api/v1/users/admin/permissions")
        .await
        .assert_error(403, "forbidden access: you can only retrieve your permissions");
    let shown = &server.get("/api/config").await.ok()["security"]["authorization"]["provider"]["native"];
    assert_eq!(*shown, json!({"enable": true, "guest_permissions": [{"actions": ["read"], "scopes": ["Folder"]}]}));
}

#[tokio::test]
async fn a_binding_keeps_its_role_and_follows_its_subjects() {
    let server = server(None, json!({})).await;
    let admin = server.caller("admin");
    admin.users(&["ada", "bob"]).await;
    admin.project("p").await.ok();
    admin.role(None, "reader", &["read"], &["User"]).await;
    admin.bind(None, "g", "reader", &["ada"]).await;
    admin.bind(Some("p"), "b", "viewer", &["ada"]).await;
    for (project, name) in [(None, "g"), (Some("p"), "b")] {
        let (path, other) = binding(project, name, "other", &["ada"]);
        let path = format!("{path}/{name}");
        admin.send("PUT", &path, &other).await.assert_error(400, "bad request: spec.role can't be updated");
        let stored = admin.get(&path).await.ok();
        let (_, same) = binding(project, name, stored["spec"]["role"].as_str().unwrap(), &["bob"]);
        admin.send("PUT", &path, &same).await.ok();
    }
    let (ada, bob) = (server.caller("ada"), server.caller("bob"));
    for path in ["/api/v1/users", "/api/v1/projects/p/dashboards"] {
        assert_eq!((ada.status(path).await, bob.status(path).await), (403, 200), "{path}");
    }
    // A changed role counts at once, so does a user that is gone, whose token has not ended.
    let body = json!({"kind": "GlobalRole", "metadata": {"name": "reader"}, "spec": {"permissions": [{"actions": ["update"], "scopes": ["User"]}]}});
    admin.send("PUT", "/api/v1/globalroles/reader", &body).await.ok();
    assert_eq!(bob.status("/api/v1/users").await, 403);
    assert_eq!(admin.delete("/api/v1/users/bob").await.status.as_u16(), 204);
    assert_eq!(bob.status("/api/v1/projects/p/dashboards").await, 403);
    // Who comes back by the same name is bound again: by an administrator, as sign-up refuses such names.
    admin.users(&["bob"]).await;
    assert_eq!(bob.status("/api/v1/projects/p/dashboards").await, 200);
    assert_eq!(admin.delete("/api/v1/projects/p/roles/viewer").await.status.as_u16(), 204);
    assert_eq!(bob.status("/api/v1/projects/p/dashboards").await, 403);
}

#[tokio::test]
async fn groups_of_a_provider_are_mapped_to_roles() {
    let more = json!({"security": {"authorization": {"provider": {"native": {"role_mappings": [
        {"group": "sre", "role": "admin"}, {"group": "dev", "role": "viewer", "project": "p"}]}}}}});
    let server = server(None, more).await;
    let admin = server.caller("admin");
    admin.users(&["ada"]).await;
    admin.project("p").await.ok();
    assert_eq!(server.caller_in("ada", &["other"]).status("/api/v1/users").await, 403);
    let sre = server.caller_in("ada", &["sre"]);
    sre.project("q").await.ok();
    assert_eq!(sre.claims.groups, ["sre"]);
    let dev = server.caller_in("ada", &["dev"]);
    assert_eq!(dev.status("/api/v1/projects/p/dashboards").await, 200);
    assert_eq!(dev.names("/api/v1/projects").await, ["p", "q"], "a mapped role beside what is bound");
    assert_eq!(server.caller_in("nobody", &["sre"]).status("/api/v1/users").await, 403, "there is no such user");
}
