//! `datasource.deny_networks` and `deny_internal`: where no request goes, however it is asked for.

use perses_api_server::config::Network;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{SUCCESS, message};
use crate::pod::{Pod, prometheus};
use crate::upstream::Upstream;

fn network(text: &str) -> Network {
    serde_json::from_value(json!(text)).unwrap()
}

#[tokio::test]
async fn internal_addresses_are_out_of_reach_by_name_and_by_number() {
    let upstream = Upstream::saying(SUCCESS).await;
    let port = upstream.address.port();
    let pod = Pod::start_with(|config| config.datasource.deny_internal = true).await;
    for host in ["localhost", "127.0.0.1", "127.1", "0x7f000001", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{port}");
        pod.datasource(&url, Value::Null).await;
        let unsaved = json!({"method": "GET", "spec": prometheus(&url, Value::Null)});
        let unsaved = pod.client.post(format!("{}/proxy/unsaved/globaldatasources/x", pod.url)).json(&unsaved).send();
        for (way, answer) in [
            ("forwarded", pod.get("/proxy/globaldatasources/prom/api/v1/rules").await),
            ("query", pod.get("/proxy/globaldatasources/prom/api/v1/query?query=up").await),
            ("unsaved", unsaved.await.unwrap()),
        ] {
            let (status, text) = message(answer).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{host} {way}: {text}");
            assert!(text.contains("deny_internal"), "{text}");
            // What a name means inside is nobody's business.
            assert!(host != "localhost" || !text.contains("127.0.0.1"), "{text}");
        }
    }
    // With a TLS name of its own the host is still what counts.
    let tls = json!({"tlsConfig": {"serverName": "prom.test", "insecureSkipVerify": true}});
    pod.apply("globalsecrets", "GlobalSecret", "tls", &tls).await;
    for host in ["localhost", "127.0.0.1"] {
        pod.datasource(&format!("https://{host}:{port}"), json!({"secret": "tls"})).await;
        let (status, text) = message(pod.get("/proxy/globaldatasources/prom/x").await).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{host}: {text}");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn other_networks_stay_open_and_token_endpoints_count() {
    let upstream = Upstream::saying(SUCCESS).await;
    let pod = Pod::start_with(|config| config.datasource.deny_networks = vec![network("127.0.0.2")]).await;
    pod.datasource(&format!("http://localhost:{}", upstream.address.port()), json!({"secret": "idp"})).await;
    let oauth = |url: &str| json!({"oauth": {"clientID": "me", "clientSecret": "hunter2", "tokenURL": url}});
    pod.apply("globalsecrets", "GlobalSecret", "idp", &oauth("http://127.0.0.2:1/token")).await;
    let (status, text) = message(pod.get("/proxy/globaldatasources/prom/x").await).await;
    assert_eq!(status, StatusCode::FORBIDDEN, "{text}");
    assert!(text.contains("127.0.0.2") && text.contains("deny_networks"), "{text}");
    assert!(upstream.seen().is_empty());
    pod.datasource(&upstream.url(), Value::Null).await;
    assert_eq!(pod.get("/proxy/globaldatasources/prom/x").await.status(), StatusCode::OK);
}
