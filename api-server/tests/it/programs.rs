//! Sign-in without a browser, by device codes and client credentials, and how many failures are taken.

use axum::body::Body;
use axum::http::header;
use serde_json::json;

use crate::browser::Browser;
use crate::http::{Reply, Server};
use crate::sign_in::{SECRET, assert_refused, settings, shared_provider};

async fn token(server: &Server, kind: &str, basic: Option<&str>, form: &[(&str, &str)]) -> Reply {
    let form: String = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let mut request = server.builder("POST", &format!("/api/auth/providers/{kind}/idp/token"));
    if let Some(pair) = basic {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        request = request.header(header::AUTHORIZATION, format!("Basic {encoded}"));
    }
    let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    server.raw(request.body(Body::from(form)).unwrap()).await
}

#[tokio::test]
async fn a_device_signs_in_with_a_code() {
    let server = Server::start(settings(shared_provider().await)).await;
    for (kind, name) in [("oidc", "ann"), ("oauth", "annb")] {
        let path = format!("/api/auth/providers/{kind}/idp/device/code");
        let answer = server.text("POST", &path, "application/x-www-form-urlencoded", "").await.ok();
        let code = answer["device_code"].as_str().unwrap();
        let form = [("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), ("device_code", code)];
        assert_refused(&token(&server, kind, None, &form).await, "authorization_pending", "");
        Browser::new().enter_code(answer["verification_uri_complete"].as_str().unwrap()).await;
        let session = token(&server, kind, None, &form).await;
        let keys: Vec<String> = session.json().as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["access_token", "expires_in", "expiry", "refresh_token", "token_type"]);
        let bearer = format!("Bearer {}", session.json()["access_token"].as_str().unwrap());
        let request = server.builder("GET", "/api/v1/user/whoami").header(header::AUTHORIZATION, bearer);
        assert_eq!(server.raw(request.body(Body::empty()).unwrap()).await.ok()["metadata"]["name"], name);
        assert_refused(&token(&server, kind, None, &form).await, "invalid_grant", "");
    }
    assert_refused(&token(&server, "oidc", None, &[("grant_type", "password")]).await, "unsupported_grant_type", "");
}

#[tokio::test]
async fn a_program_signs_in_with_credentials_of_its_own() {
    let mut config = settings(shared_provider().await);
    config["security"]["authentication"]["rate_limit"] = json!({"per_login": 3});
    let server = Server::start(config).await;
    let form = [("grant_type", "client_credentials")];
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let good = format!("robot:{}", encode(SECRET));
    let session = token(&server, "oidc", Some(&good), &form).await.ok();
    let bearer = format!("Bearer {}", session["access_token"].as_str().unwrap());
    let request = server.builder("GET", "/api/v1/user/whoami").header(header::AUTHORIZATION, bearer);
    assert_eq!(server.raw(request.body(Body::empty()).unwrap()).await.ok()["metadata"]["name"], "robot");
    assert_refused(&token(&server, "oidc", None, &form).await, "invalid_request", "Authorization header");
    let forged = server.builder("POST", "/api/auth/providers/oidc/idp/token").header("sec-fetch-site", "cross-site");
    server.raw(forged.body(Body::empty()).unwrap()).await.assert_error_with(403, "another site");
    // Guessing ends after so many tries, also for the right secret.
    for _ in 0..3 {
        assert_refused(&token(&server, "oidc", Some("robot:wrong"), &form).await, "invalid_client", "");
    }
    let limited = token(&server, "oidc", Some(&good), &form).await;
    limited.assert_error_with(429, "too many failed sign-ins");
    assert!(limited.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() <= 21);
}

#[tokio::test]
async fn failed_sign_ins_are_limited_by_login_and_by_address() {
    let more = json!({
        "security": {"authentication": {"rate_limit": {"per_login": 2, "per_address": 4}}},
        "server": {"trusted_proxies": ["127.0.0.1"]},
    });
    let server = Server::with_auth(more).await;
    let login = async |from: &str, login: &str, password: &str| {
        let body = json!({"login": login, "password": password}).to_string();
        let request = server.builder("POST", "/api/auth/providers/native/login").header("x-forwarded-for", from);
        let request = request.header(header::CONTENT_TYPE, "application/json");
        server.raw(request.body(Body::from(body)).unwrap()).await
    };
    for _ in 0..6 {
        login("192.0.2.1", "admin", "secret").await.ok();
    }
    for _ in 0..2 {
        login("192.0.2.2", "admin", "wrong").await.assert_error(400, "bad request: wrong login or password ");
    }
    let limited = login("192.0.2.1", "ADMIN", "secret").await;
    limited.assert_error_with(429, "too many failed sign-ins: try again in ");
    assert!((1..=31).contains(&limited.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap()));
    for name in ["b", "c"] {
        login("192.0.2.2", name, "wrong").await.assert_error(400, "bad request: wrong login or password ");
    }
    login("192.0.2.2", "d", "wrong").await.assert_error_with(429, "too many failed sign-ins");
    login("192.0.2.3", "d", "wrong").await.assert_error_with(400, "wrong login");
}
