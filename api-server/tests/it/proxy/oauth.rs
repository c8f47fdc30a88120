//! Access tokens by client credentials: how they are asked for, shared, renewed, and what is said when there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::response::Response;
use parking_lot::Mutex;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::message;
use crate::pod::{Pod, until};
use crate::upstream::{Upstream, json as json_answer};

const DATASOURCE: &str = "/proxy/globaldatasources/prom";

/// A token endpoint that gives out `t-1`, `t-2`, ..., each for `expires_in` seconds, and a datasource that takes those that
/// are not in `refused`.
struct World {
    endpoint: Upstream,
    datasource: Upstream,
    refused: Arc<Mutex<Vec<String>>>,
    pod: Pod,
}

async fn world(expires_in: u64) -> World {
    let given = Arc::new(Mutex::new(0));
    let endpoint = Upstream::start(move |_| {
        let given = given.clone();
        Box::pin(async move {
            // Long enough for all to meet.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut number = given.lock();
            *number += 1;
            json_answer(json!({"access_token": format!("t-{number}"), "expires_in": expires_in}).to_string())
        })
    })
    .await;
    let refused: Arc<Mutex<Vec<String>>> = Arc::default();
    let list = refused.clone();
    let datasource = Upstream::start(move |seen| {
        let token = seen.header("authorization").unwrap_or_default().to_owned();
        let is_refused = list.lock().iter().any(|refused| *refused == "*" || token == format!("Bearer {refused}"));
        Box::pin(async move {
            let mut answer = json_answer(super::SUCCESS);
            if is_refused {
                *answer.status_mut() = StatusCode::UNAUTHORIZED;
            }
            answer
        })
    })
    .await;
    let pod = Pod::start().await;
    pod.datasource(&datasource.url(), json!({"secret": "idp"})).await;
    let world = World { endpoint, datasource, refused, pod };
    world.sign_in_with(json!({})).await;
    world
}

impl World {
    async fn sign_in_with(&self, more: Value) {
        let mut oauth = json!({"clientID": "me & co", "clientSecret": "p:w", "tokenURL": format!("{}/token?x=1", self.endpoint.url())});
        oauth.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.pod.apply("globalsecrets", "GlobalSecret", "idp", &json!({"oauth": oauth})).await;
    }

    async fn ask(&self, path: &str) -> StatusCode {
        self.pod.get(&format!("{DATASOURCE}{path}")).await.status()
    }

    fn last_token(&self) -> String {
        self.datasource.last().header("authorization").unwrap().to_owned()
    }
}

#[tokio::test]
async fn one_token_serves_all() {
    let world = world(3600).await;
    world.sign_in_with(json!({"scopes": ["a", "b"], "endpointParams": {"audience": ["x", "y z"]}})).await;
    let paths: Vec<String> = (0..20).map(|at| format!("/{at}")).collect();
    let statuses = futures::future::join_all(paths.iter().map(|path| world.ask(path))).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
    assert_eq!(world.ask("/api/v1/query?query=up&time=1").await, StatusCode::OK);
    let tokens: Vec<_> =
        world.datasource.seen().iter().map(|seen| seen.header("authorization").unwrap().to_owned()).collect();
    assert!(tokens.len() == 21 && tokens.iter().all(|token| token == "Bearer t-1"), "{tokens:?}");
    assert_eq!(world.endpoint.seen().len(), 1);
    let asked = world.endpoint.last();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("POST", "/token?x=1"));
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
    // "me+%26+co:p%3Aw"
    assert_eq!(asked.header("authorization"), Some("Basic bWUrJTI2K2NvOnAlM0F3"));
    assert_eq!(asked.body, "grant_type=client_credentials&scope=a+b&audience=x&audience=y+z");

    // Written anew without a change it is the same client; with another password it is another.
    world.sign_in_with(json!({"scopes": ["a", "b"], "endpointParams": {"audience": ["x", "y z"]}})).await;
    assert_eq!((world.ask("/x").await, world.last_token().as_str()), (StatusCode::OK, "Bearer t-1"));
    world.sign_in_with(json!({"clientSecret": "other"})).await;
    assert_eq!((world.ask("/x").await, world.last_token().as_str()), (StatusCode::OK, "Bearer t-2"));
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let world = world(1).await;
    until("another token", || async {
        assert_eq!(world.ask("/x").await, StatusCode::OK);
        world.last_token() == "Bearer t-2"
    })
    .await;
}

#[tokio::test]
async fn a_token_that_is_no_longer_taken_is_replaced_once() {
    let world = world(3600).await;
    assert_eq!(world.ask("/x").await, StatusCode::OK);
    world.refused.lock().push("t-1".to_owned());
    assert_eq!(world.ask("/x").await, StatusCode::OK, "the client sees nothing of it");
    assert_eq!(world.last_token(), "Bearer t-2");
    assert_eq!((world.datasource.seen().len(), world.endpoint.seen().len()), (3, 2));
    world.refused.lock().push("t-2".to_owned());
    assert_eq!(world.ask("/api/v1/query?query=up&time=1").await, StatusCode::OK, "a query as well");

    // A datasource that takes none answers for itself, and costs no token for every request.
    world.refused.lock().push("*".to_owned());
    for _ in 0..5 {
        assert_eq!(world.ask("/x").await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(world.endpoint.seen().len(), 4);
}

#[tokio::test]
async fn the_style_is_the_one_that_the_endpoint_takes() {
    let header_only = Arc::new(AtomicBool::new(true));
    let flag = header_only.clone();
    let endpoint = Upstream::start(move |seen| {
        let by_header = seen.header("authorization").is_some();
        let good = by_header == flag.load(Ordering::SeqCst);
        Box::pin(async move {
            if good {
                return json_answer(r#"{"access_token": "t"}"#);
            }
            let mut answer = json_answer(r#"{"error": "invalid_client", "error_description": "me and hunter2"}"#);
            *answer.status_mut() = StatusCode::UNAUTHORIZED;
            answer
        })
    })
    .await;
    let upstream = Upstream::saying(super::SUCCESS).await;
    let pod = Pod::start().await;
    pod.datasource(&upstream.url(), json!({"secret": "idp"})).await;
    for (takes_header, style, asked, good) in [
        (true, 2, 1, true),
        (true, 1, 1, false),
        (false, 1, 1, true),
        (false, 2, 1, false),
        (true, 0, 1, true),
        (false, 0, 2, true),
    ] {
        header_only.store(takes_header, Ordering::SeqCst);
        let before = endpoint.seen().len();
        // Another scope each time: another token.
        let oauth = json!({"clientID": "me", "clientSecret": "hunter2", "tokenURL": endpoint.url(), "authStyle": style,
            "scopes": [format!("{takes_header}{style}")]});
        pod.apply("globalsecrets", "GlobalSecret", "idp", &json!({"oauth": oauth})).await;
        let answer = pod.get(&format!("{DATASOURCE}/x")).await;
        assert_eq!(endpoint.seen().len() - before, asked, "{takes_header} {style}");
        assert_eq!(answer.status() == StatusCode::OK, good, "{takes_header} {style}");
        if !good {
            let (status, text) = message(answer).await;
            assert_eq!(status, StatusCode::BAD_GATEWAY);
            assert!(text.contains("127.0.0.1 answered 401 (invalid_client)"), "{text}");
            assert!(text.contains("\"prom\"") && !text.contains("hunter2"), "{text}");
        } else if style == 1 {
            let body = String::from_utf8(endpoint.last().body.to_vec()).unwrap();
            assert!(body.contains("client_id=me&client_secret=hunter2"), "{body}");
        }
    }
}

#[tokio::test]
async fn without_a_token_nothing_is_asked() {
    let upstream = Upstream::saying(super::SUCCESS).await;
    let answers = Arc::new(Mutex::new(String::new()));
    let text = answers.clone();
    let endpoint = Upstream::start(move |_| {
        let text = text.lock().clone();
        Box::pin(async move {
            let redirect = text.strip_prefix("to ").map(str::to_owned);
            match redirect {
                Some(place) => Response::builder().status(302).header("location", place).body(text.into()).unwrap(),
                None => json_answer(text),
            }
        })
    })
    .await;
    let pod = Pod::start().await;
    pod.datasource(&upstream.url(), json!({"secret": "idp"})).await;
    let oauth = |url: &str| json!({"oauth": {"clientID": "me", "clientSecret": "hunter2", "tokenURL": url}});
    pod.apply("globalsecrets", "GlobalSecret", "idp", &oauth(&endpoint.url())).await;
    for (answer, part) in [
        ("<html>hunter2", "not the JSON of a token"),
        ("{}", "no access_token"),
        (&format!("to {}/elsewhere", endpoint.url()), "answered 302"),
    ] {
        answer.clone_into(&mut answers.lock());
        let (status, text) = message(pod.get(&format!("{DATASOURCE}/x")).await).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{answer}");
        assert!(text.contains(part) && !text.contains("hunter2"), "{answer}: {text}");
    }
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    pod.apply("globalsecrets", "GlobalSecret", "idp", &oauth(&format!("http://127.0.0.1:{port}/token"))).await;
    let (status, text) = message(pod.get(&format!("{DATASOURCE}/x")).await).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(text.contains("token endpoint cannot be reached") && text.contains("refused"), "{text}");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_real_provider_gives_the_token() {
    let provider = crate::sign_in::shared_provider().await;
    let datasource = Upstream::start(|_| Box::pin(async { json_answer(super::SUCCESS) })).await;
    let pod = Pod::start().await;
    pod.datasource(&datasource.url(), json!({"secret": "idp"})).await;
    let sign_in_with = async |secret: &str| {
        let oauth =
            json!({"clientID": "robot", "clientSecret": secret, "tokenURL": format!("{}/token", provider.issuer())});
        pod.apply("globalsecrets", "GlobalSecret", "idp", &json!({"oauth": oauth})).await;
    };
    sign_in_with("wrong").await;
    let (status, text) = message(pod.get(&format!("{DATASOURCE}/x")).await).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{text}");
    assert!(text.contains("invalid_client") && datasource.seen().is_empty(), "{text}");

    sign_in_with(crate::sign_in::SECRET).await;
    let mut tokens = Vec::new();
    for _ in 0..2 {
        assert_eq!(pod.get(&format!("{DATASOURCE}/x")).await.status(), StatusCode::OK);
        tokens.push(datasource.last().header("authorization").unwrap().to_owned());
    }
    assert_eq!(tokens[0], tokens[1], "one token for both");
    assert!(tokens[0].strip_prefix("Bearer ").is_some_and(|token| token.len() > 20), "{}", tokens[0]);
}
