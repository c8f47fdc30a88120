//! Sign-in at a real OpenID provider, which also stands in for plain OAuth: on one pod, across pods, with percli.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use e2e::services::{IdentityProvider, shared};
use perses_api_server::store::postgres::PostgresStore;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::backends;
use crate::browser::Browser;
use crate::http::{KEY, Reply, Server};

/// Where the browser believes that we are.
const SITE: &str = "perses.example";
pub const SECRET: &str = "client secret with % and +";

/// A provider for the tests that leave it alone.
pub async fn shared_provider() -> &'static IdentityProvider {
    static PROVIDER: OnceCell<IdentityProvider> = OnceCell::const_new();
    PROVIDER.get_or_init(provider).await
}

pub async fn provider() -> IdentityProvider {
    let device = "urn:ietf:params:oauth:grant-type:device_code";
    let callback = |kind: &str| format!("https://{SITE}/api/auth/providers/{kind}/idp/callback");
    let clients = json!([
        {"client_id": "perses", "client_secret": SECRET, "redirect_uris": [callback("oidc"), callback("oauth")],
            "post_logout_redirect_uris": [format!("https://{SITE}/")],
            "grant_types": ["authorization_code", device], "response_types": ["code"]},
        {"client_id": "robot", "client_secret": SECRET, "redirect_uris": [], "response_types": [],
            "grant_types": ["client_credentials"]},
    ]);
    let accounts = json!({
        "id-of-ann": {"email": "Ann@a.example", "given_name": "Ann", "family_name": "Bee", "preferred_username": "annb",
            "groups": ["sre", "staff"]},
        "id-of-bob": {"email": "bob@a.example", "groups": ["staff"]},
        "id-of-other-ann": {"email": "ann@b.example"},
        "id-of-the-admin": {"email": "admin@a.example"},
        "id-of-odd": {"email": "a+b@a.example"},
    });
    IdentityProvider::start(clients, accounts).await.unwrap()
}

/// The configuration of a server with that provider, under both kinds.
pub fn settings(provider: &IdentityProvider) -> Value {
    let issuer = provider.issuer();
    let client = json!({"slug_id": "idp", "name": "The provider", "client_id": "perses", "client_secret": SECRET,
        "scopes": ["openid", "email", "profile", "groups"]});
    let with = |more: Value| {
        let mut client = client.clone();
        client.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        client
    };
    json!({"security": {
        "enable_auth": true, "encryption_key": KEY,
        "authentication": {"providers": {
            "oidc": [with(json!({"issuer": issuer, "logout": {"enabled": true}, "client_credentials": {"scopes": []}}))],
            "oauth": [with(json!({"auth_url": format!("{issuer}/auth"), "token_url": format!("{issuer}/token"),
                "user_infos_url": format!("{issuer}/me"), "device_auth_url": format!("{issuer}/device/auth"),
                "custom_login_property": "preferred_username"}))],
        }},
        "authorization": {"provider": {"native": {"role_mappings": [{"group": "sre", "role": "boss"}]}}},
    }})
}

/// A request as it comes through an ingress with TLS.
async fn send(server: &Server, browser: &Browser, method: &str, path: &str) -> Reply {
    let request = server
        .builder(method, path)
        .header(header::HOST, "pod-1:8080")
        .header("x-forwarded-host", SITE)
        .header("x-forwarded-proto", "https")
        .header(header::COOKIE, browser.cookies(SITE));
    server.raw(request.body(Body::empty()).unwrap()).await
}

fn location(reply: &Reply) -> Url {
    assert_eq!(reply.status.as_u16(), 302, "{reply:?}");
    let location = reply.headers[header::LOCATION].to_str().unwrap();
    Url::parse(&format!("https://{SITE}/")).unwrap().join(location).unwrap()
}

fn param(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

fn path_and_query(url: &Url) -> String {
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}

/// Begins at our login, signs in at the provider, and returns the address that the browser is sent back to.
async fn until_callback(server: &Server, browser: &mut Browser, kind: &str, account: &str, wanted: &str) -> Url {
    let reply = send(server, browser, "GET", &format!("/api/auth/providers/{kind}/idp/login?rd={wanted}")).await;
    let mut url = location(&reply);
    browser.keep(SITE, &reply.headers);
    url.query_pairs_mut().append_pair("login_hint", account);
    let back = browser.visit(url.as_str()).await.unwrap();
    assert_eq!(back.host_str(), Some(SITE), "{back}");
    back
}

/// A whole sign-in; the answer to the callback.
async fn sign_in(server: &Server, browser: &mut Browser, kind: &str, account: &str) -> Reply {
    let back = until_callback(server, browser, kind, account, "/projects/p?tab=1").await;
    let reply = send(server, browser, "GET", &path_and_query(&back)).await;
    browser.keep(SITE, &reply.headers);
    reply
}

async fn whoami(server: &Server, browser: &Browser) -> Value {
    send(server, browser, "GET", "/api/v1/user/whoami").await.ok()
}

#[track_caller]
pub fn assert_refused(reply: &Reply, code: &str, part: &str) {
    assert_eq!(reply.status.as_u16(), 400, "{reply:?}");
    let body = reply.json();
    assert_eq!(body["error"], code, "{reply:?}");
    assert!(body["error_description"].as_str().unwrap().contains(part), "{part:?} is not in {reply:?}");
    assert_eq!(body.as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn a_login_begun_on_one_pod_is_finished_on_another() {
    let provider = shared_provider().await;
    let database = backends::migrated(shared::postgres().await.unwrap()).await;
    let pod = async || {
        let config = serde_json::from_value(settings(provider)).unwrap();
        let store = Arc::new(PostgresStore::new(&database).unwrap());
        Server::with(config, store).await
    };
    let (one, two) = (pod().await, pod().await);
    let mut browser = Browser::new();
    let back = until_callback(&one, &mut browser, "oidc", "id-of-ann", "/projects/p%3Ftab=1").await;
    assert_eq!(browser.cookies(SITE).matches("persesLogin").count(), 1);
    let reply = send(&two, &browser, "GET", &path_and_query(&back)).await;
    assert_eq!(path_and_query(&location(&reply)), "/projects/p?tab=1");
    browser.keep(SITE, &reply.headers);
    assert!(!browser.cookies(SITE).contains("persesLogin"), "the login is over");
    for line in reply.headers.get_all(header::SET_COOKIE) {
        let line = line.to_str().unwrap();
        assert!(line.len() < 4096 && line.contains("; HttpOnly") != line.starts_with("jwtPayload="), "{line}");
    }

    // The e-mail address's local part in lower case, as names are.
    let me = whoami(&one, &browser).await;
    assert_eq!(me["metadata"]["name"], "ann");
    assert_eq!((&me["spec"]["firstName"], &me["spec"]["lastName"]), (&json!("Ann"), &json!("Bee")));
    let origin = json!([{"issuer": provider.issuer(), "email": "Ann@a.example", "subject": "id-of-ann"}]);
    assert_eq!(me["spec"]["oauthProviders"], origin);
    assert_eq!(me["metadata"]["version"], 0);
    // The next sign-in changes nothing about the user.
    sign_in(&one, &mut browser, "oidc", "id-of-ann").await;
    assert_eq!(whoami(&two, &browser).await["metadata"]["version"], 0);

    // A refresh keeps who it is, and where from.
    let refreshed = send(&two, &browser, "POST", "/api/auth/refresh").await;
    browser.keep(SITE, &refreshed.headers);
    assert_eq!(whoami(&one, &browser).await["metadata"]["name"], "ann");

    // Signing out leads to the provider, which knows where to come back to.
    let reply = send(&two, &browser, "GET", "/api/auth/logout").await;
    browser.keep(SITE, &reply.headers);
    assert_eq!(browser.cookies(SITE), "");
    let url = location(&reply);
    assert_eq!(url.path(), "/session/end");
    assert_eq!(param(&url, "post_logout_redirect_uri").unwrap(), format!("https://{SITE}/"));
    let page = browser.visit(url.as_str()).await.unwrap_err();
    assert!(page.contains("sign-out"), "{page}");
    let home = location(&send(&two, &browser, "GET", "/api/auth/logout").await);
    assert_eq!(home.as_str(), format!("https://{SITE}/"), "nobody is signed in: home");
}

#[tokio::test]
async fn the_request_to_the_provider_is_bound_to_the_browser() {
    let provider = shared_provider().await;
    let server = Server::start(settings(provider)).await;
    let browser = Browser::new();
    let reply = send(&server, &browser, "GET", "/api/auth/providers/oidc/idp/login").await;
    let url = location(&reply);
    assert!(url.as_str().starts_with(&format!("{}/auth?", provider.issuer())));
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", "perses"),
        ("redirect_uri", "https://perses.example/api/auth/providers/oidc/idp/callback"),
        ("scope", "openid email profile groups"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(param(&url, name).as_deref(), Some(value));
    }
    for name in ["state", "nonce", "code_challenge"] {
        assert!(param(&url, name).is_some_and(|value| value.len() == 43), "{name}");
    }
    let cookie = reply.headers[header::SET_COOKIE].to_str().unwrap();
    let tail = "; Path=/api/auth/providers/oidc/idp/callback; Max-Age=600; HttpOnly; Secure; SameSite=Lax";
    assert!(cookie.starts_with("persesLogin") && cookie.ends_with(tail), "{cookie}");
    let none = send(&server, &browser, "GET", "/api/auth/providers/oidc/other/login").await;
    none.assert_error(404, "Not Found");
}

#[tokio::test]
async fn what_does_not_belong_together_is_refused() {
    let provider = shared_provider().await;
    let server = Server::start(settings(provider)).await;
    let mut browser = Browser::new();
    let callback = "/api/auth/providers/oidc/idp/callback";

    // The state of a login that was begun elsewhere (login CSRF), or of none.
    let mut mallory = Browser::new();
    let stolen = until_callback(&server, &mut mallory, "oidc", "id-of-bob", "/").await;
    for path in [path_and_query(&stolen), callback.to_owned(), format!("{callback}?state=x&code=y")] {
        assert_refused(&send(&server, &browser, "GET", &path).await, "invalid_request", "not begun in this browser");
    }
    // The code of another login, in a login of one's own.
    let back = until_callback(&server, &mut browser, "oidc", "id-of-ann", "/").await;
    let (code, state) = (param(&stolen, "code").unwrap(), param(&back, "state").unwrap());
    let injected = send(&server, &browser, "GET", &format!("{callback}?code={code}&state={state}")).await;
    assert_refused(&injected, "invalid_grant", "");
    // An answer of another provider.
    let mixed = send(&server, &browser, "GET", &format!("{callback}?code={code}&state={state}&iss=https://evil")).await;
    assert_refused(&mixed, "invalid_request", "another provider");
    // The good one, and the same again: the browser still has the cookie.
    let before = browser.cookies(SITE);
    let good = path_and_query(&back);
    assert_eq!(location(&send(&server, &browser, "GET", &good).await).path(), "/");
    assert_eq!(browser.cookies(SITE), before);
    assert_refused(&send(&server, &browser, "GET", &good).await, "invalid_grant", "");
    // The user says no.
    let refused = sign_in(&server, &mut Browser::new(), "oidc", "nobody").await;
    assert_refused(&refused, "access_denied", "the user said no");
    // Other sites are no place to go to.
    let mut browser = Browser::new();
    let back = until_callback(&server, &mut browser, "oidc", "id-of-ann", "//evil.example/x").await;
    let target = location(&send(&server, &browser, "GET", &path_and_query(&back)).await);
    assert_eq!(target.as_str(), format!("https://{SITE}/"));
}

#[tokio::test]
async fn a_name_that_somebody_else_has_is_refused() {
    let mut more = settings(shared_provider().await);
    more["security"]["authentication"]["providers"]["enable_native"] = json!(true);
    let server = Server::with_auth(more).await;
    let mut browser = Browser::new();
    let native = sign_in(&server, &mut Browser::new(), "oidc", "id-of-the-admin").await;
    assert_refused(&native, "invalid_request", "already registered with the native provider");
    assert_eq!(location(&sign_in(&server, &mut browser, "oidc", "id-of-ann").await).path(), "/projects/p");
    let mut browser = Browser::new();
    let other = sign_in(&server, &mut browser, "oidc", "id-of-other-ann").await;
    assert_refused(&other, "invalid_request", "different oauth provider context");
    let mut browser = Browser::new();
    let odd = sign_in(&server, &mut browser, "oidc", "id-of-odd").await;
    assert_refused(&odd, "invalid_request", "\"a+b\" cannot be a user name");
    assert!(!browser.cookies(SITE).contains("jwt"));
    // And a user from there has no password that could be right.
    server.login("ann", "").await.assert_error(400, "bad request: password cannot be empty");
    server.login("ann", "x").await.assert_error(400, "bad request: wrong login or password ");
}

#[tokio::test]
async fn groups_bring_roles() {
    let mut more = settings(shared_provider().await);
    more["security"]["authentication"]["providers"]["enable_native"] = json!(true);
    let server = Server::with_auth(more).await;
    let token = server.login("admin", "secret").await.ok()["access_token"].as_str().unwrap().to_owned();
    let role = json!({"kind": "GlobalRole", "metadata": {"name": "boss"},
        "spec": {"permissions": [{"actions": ["create"], "scopes": ["Project"]}]}});
    let request =
        server.builder("POST", "/api/v1/globalroles").header(header::AUTHORIZATION, format!("Bearer {token}"));
    let request = request.header(header::CONTENT_TYPE, "application/json");
    server.raw(request.body(Body::from(role.to_string())).unwrap()).await.ok();
    let create = async |browser: &Browser, name: &str| {
        let body = json!({"kind": "Project", "metadata": {"name": name}, "spec": {}});
        let request = server.builder("POST", "/api/v1/projects").header(header::COOKIE, browser.cookies(SITE));
        let request = request.header(header::CONTENT_TYPE, "application/json");
        server.raw(request.body(Body::from(body.to_string())).unwrap()).await
    };
    for kind in ["oidc", "oauth"] {
        let (mut ann, mut bob) = (Browser::new(), Browser::new());
        sign_in(&server, &mut ann, kind, "id-of-ann").await;
        create(&ann, &format!("of-ann-{kind}")).await.ok();
        // Bob has no login at the OAuth provider other than that of the e-mail address, which is taken by OIDC.
        if kind == "oidc" {
            sign_in(&server, &mut bob, kind, "id-of-bob").await;
            create(&bob, "of-bob").await.assert_error_with(403, "missing 'create'");
        }
    }
}

#[tokio::test]
async fn oauth_takes_who_the_user_is_from_the_endpoint() {
    let server = Server::start(settings(shared_provider().await)).await;
    let mut browser = Browser::new();
    assert_eq!(location(&sign_in(&server, &mut browser, "oauth", "id-of-ann").await).path(), "/projects/p");
    let me = whoami(&server, &browser).await;
    assert_eq!(me["metadata"]["name"], "annb", "the configured property");
    let origin = json!([{"issuer": "127.0.0.1", "email": "Ann@a.example", "subject": "annb"}]);
    assert_eq!(me["spec"]["oauthProviders"], origin);
    let home = location(&send(&server, &browser, "GET", "/api/auth/logout").await);
    assert_eq!(home.as_str(), format!("https://{SITE}/"), "OAuth knows no sign-out");
}

#[tokio::test]
async fn a_provider_that_is_away_or_changes_its_keys() {
    let mut provider = provider().await;
    provider.stop().await.unwrap();
    let server = Server::start(settings(&provider)).await;
    let mut browser = Browser::new();
    let away = send(&server, &browser, "GET", "/api/auth/providers/oidc/idp/login").await;
    away.assert_error_with(502, "the sign-in provider \"idp\" does not answer as it should");
    provider.restart().await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while send(&server, &browser, "GET", "/api/auth/providers/oidc/idp/login").await.status.as_u16() != 302 {
        assert!(tokio::time::Instant::now() < deadline, "a failure is remembered for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(location(&sign_in(&server, &mut browser, "oidc", "id-of-ann").await).path(), "/projects/p");
    provider.restart().await.unwrap();
    // New keys are looked for every few seconds at most.
    loop {
        let mut browser = Browser::new();
        let reply = sign_in(&server, &mut browser, "oidc", "id-of-ann").await;
        if reply.status.as_u16() == 302 {
            break;
        }
        assert_refused(&reply, "invalid_request", "a key that the provider does not publish");
        assert!(tokio::time::Instant::now() < deadline, "the new keys are never found");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
