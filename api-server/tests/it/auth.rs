//! Native sign-in: tokens, cookies, users.

use axum::body::Body;
use axum::http::header;
use serde_json::{Value, json};

use crate::http::{KEY, Reply, Server};

const LOGIN: &str = "/api/auth/providers/native/login";
const REFRESH: &str = "/api/auth/refresh";
const WRONG: &str = "bad request: wrong login or password ";

/// `name=value` of the cookies that an answer sets.
fn cookies(reply: &Reply) -> Vec<String> {
    let lines = reply.headers.get_all(header::SET_COOKIE).iter();
    lines.map(|line| line.to_str().unwrap().split(';').next().unwrap().to_owned()).collect()
}

async fn with_cookies(server: &Server, method: &str, path: &str, cookies: &str) -> Reply {
    let request = server.builder(method, path).header(header::COOKIE, cookies);
    server.raw(request.body(Body::empty()).unwrap()).await
}

async fn with_bearer(server: &Server, method: &str, path: &str, token: &str) -> Reply {
    let request = server.builder(method, path).header(header::AUTHORIZATION, format!("Bearer {token}"));
    server.raw(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn login_answers_five_keys_and_three_cookies() {
    let server = Server::with_auth(json!({})).await;
    let reply = server.login("admin", "secret").await;
    let body = reply.json();
    let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["access_token", "expires_in", "expiry", "refresh_token", "token_type"]);
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 900);
    assert_eq!(body["expiry"], "0001-01-01T00:00:00Z");
    let access = body["access_token"].as_str().unwrap();
    let (head, signature) = access.rsplit_once('.').unwrap();
    let mut found = cookies(&reply);
    found.sort();
    assert_eq!(
        found,
        [
            format!("jwtPayload={head}"),
            format!("jwtRefreshToken={}", body["refresh_token"].as_str().unwrap()),
            format!("jwtSignature={signature}"),
        ]
    );
    for line in reply.headers.get_all(header::SET_COOKIE) {
        let line = line.to_str().unwrap();
        assert!(
            line.contains("; Path=/; ") && line.contains("; Max-Age=86400") && line.ends_with("; SameSite=Lax"),
            "{line}"
        );
        assert_eq!(line.contains("HttpOnly"), !line.starts_with("jwtPayload"), "{line}");
    }
}

#[tokio::test]
async fn wrong_or_missing_credentials_are_400() {
    let server = Server::with_auth(json!({})).await;
    server.login("admin", "wrong").await.assert_error(400, WRONG);
    server.login("nobody", "secret").await.assert_error(400, WRONG);
    server.login("../admin", "secret").await.assert_error(400, WRONG);
    server.login("admin", &"x".repeat(10_000)).await.assert_error(400, WRONG);
    server.login("", "secret").await.assert_error(400, "bad request: login cannot be empty");
    server.login("admin", "").await.assert_error(400, "bad request: password cannot be empty");
    server.text("POST", LOGIN, "application/json", "{").await.assert_error_with(400, "EOF");
    server.text("POST", LOGIN, "text/plain", "x").await.assert_error_with(400, "Unsupported Media Type");
    // The hash is no password.
    let text = std::fs::read_to_string(server.folder.path().join("db/users/admin.json")).unwrap();
    let stored: Value = serde_json::from_str(&text).unwrap();
    let hash = stored["spec"]["nativeProvider"]["password"].as_str().unwrap();
    assert!(hash.starts_with("$2"), "{hash}");
    server.login("admin", hash).await.assert_error(400, WRONG);
}

#[tokio::test]
async fn requests_need_a_token_and_cookies_win_over_the_header() {
    let server = Server::with_auth(json!({})).await;
    let guarded = [
        "/api/v1/projects",
        "/api/v1/user/whoami",
        "/api/v1/globalsecrets",
        "/api/v1/users",
        "/proxy/globaldatasources/x/api/v1/query",
    ];
    for path in guarded {
        server.get(path).await.assert_error(401, "missing or malformed jwt");
        with_bearer(&server, "GET", path, "a.b.c").await.assert_error(401, "invalid or expired jwt");
    }
    for (method, path) in
        [("POST", "/api/v1/projects"), ("PUT", "/api/v1/projects/p"), ("DELETE", "/api/v1/users/admin")]
    {
        server.text(method, path, "application/json", "{}").await.assert_error(401, "missing or malformed jwt");
    }
    let open = ["/api/config", "/api/v1/health", "/api/v1/plugins", "/livez", "/metrics"];
    for path in open {
        assert_eq!(server.get(path).await.status.as_u16(), 200, "{path}");
    }
    let validate = server.send("POST", "/api/validate/globalvariables", &json!({})).await;
    assert_eq!(validate.status.as_u16(), 400, "validation is open to everybody");

    let body = server.login("admin", "secret").await.ok();
    let token = body["access_token"].as_str().unwrap();
    let (head, signature) = token.rsplit_once('.').unwrap();
    let refresh = body["refresh_token"].as_str().unwrap();
    assert_eq!(with_bearer(&server, "GET", "/api/v1/projects", token).await.body, "[]\n");
    with_bearer(&server, "GET", "/api/v1/projects", refresh).await.assert_error(401, "invalid or expired jwt");
    let good = format!("jwtPayload={head}; jwtSignature={signature}");
    assert_eq!(with_cookies(&server, "GET", "/api/v1/projects", &good).await.body, "[]\n");
    with_cookies(&server, "GET", "/api/v1/projects", &format!("jwtPayload={head}"))
        .await
        .assert_error(401, "missing or malformed jwt");
    let request = server
        .builder("GET", "/api/v1/projects")
        .header(header::COOKIE, format!("jwtPayload={head}; jwtSignature=x"))
        .header(header::AUTHORIZATION, format!("Bearer {token}"));
    server.raw(request.body(Body::empty()).unwrap()).await.assert_error(401, "invalid or expired jwt");
    let other_scheme = server.builder("GET", "/api/v1/projects").header(header::AUTHORIZATION, "Basic YTpi");
    server.raw(other_scheme.body(Body::empty()).unwrap()).await.assert_error(401, "missing or malformed jwt");
}

#[tokio::test]
async fn another_site_cannot_write_with_the_browsers_cookies() {
    let server = Server::with_auth(json!({"security": {"cookie": {"same_site": "none", "secure": true}}})).await;
    let body = server.login("admin", "secret").await.ok();
    let (head, signature) = body["access_token"].as_str().unwrap().rsplit_once('.').unwrap();
    let send = |method: &str, site: &str, cookie: bool| {
        let mut request = server.builder(method, "/api/v1/projects").header("sec-fetch-site", site);
        request = if cookie {
            request.header(header::COOKIE, format!("jwtPayload={head}; jwtSignature={signature}"))
        } else {
            request.header(header::AUTHORIZATION, format!("Bearer {head}.{signature}"))
        };
        let request = request.header(header::CONTENT_TYPE, "application/json");
        let body = json!({"kind": "Project", "metadata": {"name": format!("p-{site}-{cookie}")}, "spec": {}});
        server.raw(request.body(Body::from(body.to_string())).unwrap())
    };
    send("POST", "cross-site", true)
        .await
        .assert_error(403, "forbidden access: the request was started by another site");
    send("POST", "same-origin", true).await.ok();
    send("POST", "cross-site", false).await.ok();
    send("GET", "cross-site", true).await.ok();
}

#[tokio::test]
async fn refresh_makes_a_new_access_token() {
    let server = Server::with_auth(json!({})).await;
    let body = server.login("admin", "secret").await.ok();
    let (access, refresh) = (body["access_token"].as_str().unwrap(), body["refresh_token"].as_str().unwrap());
    let by_body = server.send("POST", REFRESH, &json!({"refresh_token": refresh})).await;
    assert_eq!(cookies(&by_body).len(), 2, "only the access token is new");
    assert_eq!(by_body.json()["refresh_token"], refresh);
    let by_cookie = with_cookies(&server, "POST", REFRESH, &format!("jwtRefreshToken={refresh}")).await.ok();
    let token = by_cookie["access_token"].as_str().unwrap();
    assert_eq!(with_bearer(&server, "GET", "/api/v1/user/whoami", token).await.ok()["metadata"]["name"], "admin");

    server.send("POST", REFRESH, &json!({})).await.assert_error(400, "bad request: refreshToken cannot be empty");
    let invalid = "bad request: token signature is invalid: signature is invalid";
    server.send("POST", REFRESH, &json!({"refresh_token": access})).await.assert_error(400, invalid);
    server
        .send("POST", REFRESH, &json!({"refresh_token": "x"}))
        .await
        .assert_error(400, "bad request: token is malformed");
    with_cookies(&server, "POST", REFRESH, "jwtRefreshToken=a.b.c").await.assert_error_with(400, "bad request: token");
}

#[tokio::test]
async fn tokens_end_and_count_on_every_pod_with_the_key() {
    let short = json!({"security": {"authentication": {"access_token_ttl": "1s"}}});
    let one = Server::with_auth(short).await;
    let other = Server::with_auth(json!({})).await;
    let foreign = Server::with_auth(json!({"security": {"encryption_key": KEY.replace('0', "x")}})).await;
    let body = one.login("admin", "secret").await.ok();
    let token = body["access_token"].as_str().unwrap();
    assert_eq!(with_bearer(&other, "GET", "/api/v1/projects", token).await.status.as_u16(), 200);
    with_bearer(&foreign, "GET", "/api/v1/projects", token).await.assert_error(401, "invalid or expired jwt");
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let reply = with_bearer(&one, "GET", "/api/v1/projects", token).await;
        if reply.status.as_u16() == 401 {
            break reply.assert_error(401, "invalid or expired jwt");
        }
        assert!(tokio::time::Instant::now() < deadline, "the token does not end");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn logout_clears_the_cookies_and_leads_home() {
    for (prefix, home) in [("", "/"), ("/perses", "/perses")] {
        let server = Server::with_auth(json!({"api_prefix": prefix})).await;
        let reply = server.get(&format!("{prefix}/api/auth/logout")).await;
        assert_eq!(reply.status.as_u16(), 302);
        assert_eq!(reply.headers[header::LOCATION], home);
        let mut found = cookies(&reply);
        found.sort();
        assert_eq!(found, ["jwtPayload=", "jwtRefreshToken=", "jwtSignature="]);
        assert!(
            reply.headers.get_all(header::SET_COOKIE).iter().all(|line| line.to_str().unwrap().contains("Max-Age=0"))
        );
    }
}

#[tokio::test]
async fn whoami_and_permissions_are_about_oneself() {
    let server = Server::signed_in().await;
    let me = server.get("/api/v1/user/whoami").await.ok();
    assert_eq!((&me["kind"], &me["metadata"]["name"]), (&json!("User"), &json!("admin")));
    assert_eq!(me["spec"]["nativeProvider"]["password"], "<secret>");
    let all = json!({"*": [{"actions": ["*"], "scopes": ["*"]}]});
    assert_eq!(server.get("/api/v1/users/admin/permissions").await.ok(), all);
    server
        .get("/api/v1/users/eve/permissions")
        .await
        .assert_error(403, "forbidden access: you can only retrieve your permissions");

    let open = Server::open().await;
    let off = "unauthorized: authentication is required to retrieve user permissions";
    open.get("/api/v1/user/whoami").await.assert_error(401, off);
    open.get("/api/v1/users/admin/permissions").await.assert_error(401, off);
    assert_eq!(open.send("POST", LOGIN, &json!({})).await.status.as_u16(), 404, "no sign-in without enable_auth");
}

#[tokio::test]
async fn users_are_made_by_signed_in_users_and_change_their_password() {
    let server = Server::signed_in().await;
    let user = |password: &str| json!({"kind": "User", "metadata": {"name": "eve"}, "spec": {"firstName": "Eve", "nativeProvider": {"password": password}}});
    let closed = json!({"security": {"authentication": {"disable_sign_up": true}}});
    let anonymous = Server::with_auth(closed).await;
    anonymous.send("POST", "/api/v1/users", &user("first")).await.assert_error_with(403, "sign-up is closed");
    with_bearer(&anonymous, "POST", "/api/v1/users", "a.b.c").await.assert_error(401, "invalid or expired jwt");

    let created = server.send("POST", "/api/v1/users", &user("first")).await;
    assert!(!created.body.contains("first\"") && !created.body.contains("$2"), "{created:?}");
    assert_eq!(created.ok()["spec"]["nativeProvider"]["password"], "<secret>");
    server.send("POST", "/api/v1/users", &user("")).await.assert_error_with(400, "password cannot be empty");
    server.send("POST", "/api/v1/users", &user(&"x".repeat(73))).await.assert_error_with(400, "more than 72 bytes");
    server.login("eve", "first").await.ok();
    server.login("EVE", "first").await.ok();

    // An empty password, or the mask that a GET shows, keeps the old one.
    for kept in ["", "<secret>"] {
        server.send("PUT", "/api/v1/users/eve", &user(kept)).await.ok();
        server.login("eve", "first").await.ok();
    }
    let shown = server.get("/api/v1/users/eve").await.ok();
    server.send("PUT", "/api/v1/users/eve", &shown).await.ok();
    server.send("PUT", "/api/v1/users/eve", &user("second")).await.ok();
    server.login("eve", "first").await.assert_error(400, WRONG);
    server.login("eve", "second").await.ok();
    let list = server.get("/api/v1/users").await;
    assert!(!list.body.contains("$2") && list.body.matches("<secret>").count() == 2, "{list:?}");
    assert_eq!(server.delete("/api/v1/users/eve").await.status.as_u16(), 204);
    server.login("eve", "second").await.assert_error(400, WRONG);
}

#[tokio::test]
async fn secrets_are_stored_encrypted_shown_masked_and_kept_by_the_mask() {
    let server = Server::signed_in().await;
    let file = server.folder.path().join("db/globalsecrets/s.json");
    let stored = || -> Value { serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap() };
    let secret = |password: &str| json!({"kind": "GlobalSecret", "metadata": {"name": "s"}, "spec": {"basicAuth": {"username": "u", "password": password}}});
    let opened = || {
        let sealed = stored()["spec"]["basicAuth"]["password"].as_str().unwrap().to_owned();
        assert!(!sealed.contains("sesame"));
        String::from_utf8(server.state.secrets.decrypt(&sealed).unwrap()).unwrap()
    };
    let created = server.send("POST", "/api/v1/globalsecrets", &secret("sesame")).await;
    assert!(!created.body.contains("sesame"));
    assert_eq!(opened(), "sesame");
    let shown = server.get("/api/v1/globalsecrets/s").await.ok();
    assert_eq!(shown["spec"]["basicAuth"], json!({"username": "u", "password": "<secret>"}));
    server.send("PUT", "/api/v1/globalsecrets/s", &shown).await.ok();
    assert_eq!(opened(), "sesame");
    server.send("PUT", "/api/v1/globalsecrets/s", &secret("other")).await.ok();
    assert_eq!(opened(), "other");
    assert!(!server.get("/api/v1/globalsecrets").await.body.contains("other"));
    let mut fresh = secret("<secret>");
    fresh["metadata"]["name"] = json!("t");
    server.send("POST", "/api/v1/globalsecrets", &fresh).await.assert_error_with(400, "there is none");
}

#[tokio::test]
async fn the_first_user_is_made_once_and_never_changed() {
    let server = Server::signed_in().await;
    let body =
        json!({"kind": "User", "metadata": {"name": "admin"}, "spec": {"nativeProvider": {"password": "changed"}}});
    server.send("PUT", "/api/v1/users/admin", &body).await.ok();
    let folder = server.folder.path().join("db");
    let stop = |server: Server| {
        let mut server = server;
        std::mem::replace(&mut server.folder, tempfile::tempdir().unwrap())
    };
    let kept = stop(server);
    let database = json!({"file": {"folder": folder, "extension": "json"}});
    let again = retry_until_unlocked(database).await;
    again.login("admin", "secret").await.assert_error(400, WRONG);
    again.login("admin", "changed").await.ok();
    drop(kept);
}

/// The store's lock goes with the last task of the server before.
async fn retry_until_unlocked(database: Value) -> Server {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    let folder = database["file"]["folder"].clone();
    loop {
        let free = perses_api_server::store::file::FileStore::open(
            &serde_json::from_value(json!({"folder": folder})).unwrap(),
        )
        .is_ok();
        if free {
            return Server::with_auth(json!({"database": database})).await;
        }
        assert!(tokio::time::Instant::now() < deadline, "the folder stays locked");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}
