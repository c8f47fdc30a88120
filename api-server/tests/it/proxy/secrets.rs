//! Secrets: who may have which, from where, and TLS.

use reqwest::StatusCode;
use serde_json::json;

use super::{SUCCESS, message};
use crate::pod::{Pod, until};
use crate::upstream::Upstream;

#[tokio::test]
async fn secrets_of_the_same_level_authenticate() {
    let upstream = Upstream::saying(SUCCESS).await;
    let pod = Pod::start().await;
    pod.apply(
        "globalsecrets",
        "GlobalSecret",
        "creds",
        &json!({"basicAuth": {"username": "me", "password": "open sesame"}}),
    )
    .await;
    pod.datasource(&upstream.url(), json!({"secret": "creds"})).await;
    let ask = || async {
        let request = pod.client.get(format!("{}/proxy/globaldatasources/prom/x", pod.url));
        let response = request.header("authorization", "Bearer perses").send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        upstream.last().header("authorization").map(str::to_owned)
    };
    assert_eq!(ask().await.as_deref(), Some("Basic bWU6b3BlbiBzZXNhbWU="));

    // A changed secret counts from the next request on.
    pod.apply("globalsecrets", "GlobalSecret", "creds", &json!({"authorization": {"credentials": "token"}})).await;
    assert_eq!(ask().await.as_deref(), Some("Bearer token"));

    // A client of the API cannot have the server's files sent to a place of its choice.
    pod.apply(
        "globalsecrets",
        "GlobalSecret",
        "creds",
        &json!({"authorization": {"credentialsFile": "/etc/hostname"}}),
    )
    .await;
    let arrived = upstream.seen().len();
    let (status, text) = message(pod.get("/proxy/globaldatasources/prom/x").await).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    assert!(text.contains("datasource.secret_file_folders"), "{text}");
    assert_eq!(upstream.seen().len(), arrived);
}

#[tokio::test]
async fn tls_follows_the_secret() {
    let (upstream, ca) = Upstream::over_tls("prom.test", SUCCESS).await;
    let pod = Pod::start().await;
    let url = format!("https://{}", upstream.address);
    pod.datasource(&url, json!({"secret": "tls"})).await;
    for (tls, expected) in [
        (json!({"ca": ca, "serverName": "prom.test"}), StatusCode::OK),
        (json!({"ca": ca}), StatusCode::BAD_GATEWAY),
        (json!({"ca": ca, "serverName": "other.test"}), StatusCode::BAD_GATEWAY),
        (json!({"serverName": "prom.test"}), StatusCode::BAD_GATEWAY),
        (json!({"insecureSkipVerify": true}), StatusCode::OK),
        (json!({"ca": "no certificate"}), StatusCode::BAD_GATEWAY),
    ] {
        pod.apply("globalsecrets", "GlobalSecret", "tls", &json!({"tlsConfig": tls})).await;
        for path in ["/api/v1/rules", "/api/v1/query?query=up&time=1"] {
            let response = pod.get(&format!("/proxy/globaldatasources/prom{path}")).await;
            let status = response.status();
            assert_eq!(status, expected, "{tls}: {}", response.text().await.unwrap());
        }
    }
    assert_eq!(upstream.seen().len(), 4);
    for seen in upstream.seen() {
        assert_eq!(seen.header("host"), Some(upstream.address.to_string().as_str()), "the TLS name is not the host");
    }
}

#[tokio::test]
async fn whoever_has_the_folder_may_name_any_file() {
    let upstream = Upstream::saying(SUCCESS).await;
    let files = tempfile::tempdir().unwrap();
    let token = files.path().join("token");
    std::fs::write(&token, "from-file\n").unwrap();
    let mut folder = std::path::PathBuf::new();
    let pod = Pod::start_with(|config| folder.clone_from(&config.database.file.as_ref().unwrap().folder)).await;
    pod.datasource(&upstream.url(), json!({"secret": "creds"})).await;
    let ask = || async { pod.get("/proxy/globaldatasources/prom/x").await.status() };

    // A document that the administrator writes (or that Perses once wrote there).
    let path = folder.join("globalsecrets").join("creds.yaml");
    let spec = json!({"authorization": {"credentialsFile": token}});
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let document = json!({"kind": "GlobalSecret", "metadata": {"name": "creds"}, "spec": spec});
    std::fs::write(&path, document.to_string()).unwrap();
    until("the file is seen", || async { ask().await == StatusCode::OK }).await;
    assert_eq!(upstream.last().header("authorization"), Some("Bearer from-file"));

    // The same words from a client are another thing, also once they stand in the folder.
    pod.apply("globalsecrets", "GlobalSecret", "creds", &spec).await;
    assert_eq!(ask().await, StatusCode::BAD_GATEWAY);
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written.contains("origin: api"), "{written}");
    std::fs::write(&path, written.replace("Bearer", "Token")).unwrap();
    until("the edit is seen", || async {
        pod.get("/api/v1/globalsecrets/creds").await.text().await.unwrap().contains("Token")
    })
    .await;
    assert_eq!(ask().await, StatusCode::BAD_GATEWAY);

    // And the administrator can take it over.
    let taken = std::fs::read_to_string(&path).unwrap().replace("origin: api", "origin: administrator");
    std::fs::write(&path, taken).unwrap();
    until("the file is seen", || async { ask().await == StatusCode::OK }).await;
}
