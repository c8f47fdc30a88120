use serde_json::json;

use super::*;

fn secrets() -> SecretBox {
    SecretBox::new(&[7; 32]).unwrap()
}

fn read(spec: &serde_json::Value, files: FileAccess<'_>) -> Result<Credentials, CredentialsError> {
    parse(&spec.to_string(), &secrets(), files)
}

#[test]
fn decrypts_and_builds_the_header() {
    let sealed = secrets().encrypt(b"open:sesame").unwrap();
    let basic = read(&json!({"basicAuth": {"username": "me", "password": sealed}}), FileAccess::Below(&[])).unwrap();
    assert_eq!(basic.authorization.unwrap(), "Basic bWU6b3BlbjpzZXNhbWU=");
    let sealed = secrets().encrypt(b"token").unwrap();
    for (kind, expected) in [("", "Bearer token"), ("Api-Key", "Api-Key token")] {
        let spec = json!({"authorization": {"type": kind, "credentials": sealed}});
        let value = read(&spec, FileAccess::Below(&[])).unwrap().authorization.unwrap();
        assert_eq!(value, expected);
        assert!(value.is_sensitive());
    }
    assert!(read(&json!({}), FileAccess::Below(&[])).unwrap().authorization.is_none());
}

#[test]
fn files_of_the_server_are_out_of_reach_for_clients() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("allowed");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(inside.join("password"), "secret\n").unwrap();
    std::fs::write(folder.path().join("encryption-key"), "the server's own").unwrap();
    std::os::unix::fs::symlink(folder.path().join("encryption-key"), inside.join("link")).unwrap();
    let spec = |file: &Path| json!({"basicAuth": {"username": "me", "passwordFile": file}});
    let folders = [inside.clone()];

    let good = read(&spec(&inside.join("password")), FileAccess::Below(&folders)).unwrap();
    assert_eq!(good.authorization.unwrap(), "Basic bWU6c2VjcmV0");
    assert!(good.from_files);
    for outside in [folder.path().join("encryption-key"), inside.join("link"), inside.join("../encryption-key")] {
        let error = read(&spec(&outside), FileAccess::Below(&folders)).unwrap_err();
        assert!(matches!(error, CredentialsError::Forbidden { .. }), "{outside:?}");
        assert!(read(&spec(&outside), FileAccess::Any).is_ok());
    }
    assert!(matches!(read(&spec(&inside.join("none")), FileAccess::Any), Err(CredentialsError::File { .. })));
}

#[test]
fn errors_hold_no_value() {
    for spec in [
        json!({"oauth": {"clientID": "hunter2", "tokenURL": "http://idp"}}),
        json!({"oauth": {"tokenURL": "hunter2"}}),
        json!({"oauth": {"tokenURL": "http://idp", "authStyle": "hunter2"}}),
        json!({"basicAuth": {"username": "me", "password": "hunter2"}}),
        json!({"basicAuth": {"username": "me", "password": ["hunter2"]}}),
        json!({"tlsConfig": {"cert": "hunter2"}}),
    ] {
        let error = read(&spec, FileAccess::Below(&[])).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn oauth_settings_are_read_whole() {
    let seal = |text: &str| secrets().encrypt(text.as_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "from-file\n").unwrap();
    let spec = json!({"oauth": {"clientID": seal("me"), "clientSecretFile": file, "tokenURL": "https://idp/token#x",
        "scopes": ["a", "b"], "endpointParams": {"audience": ["x", "y"]}, "authStyle": 2}});
    let read = read(&spec, FileAccess::Any).unwrap();
    assert!(read.from_files && read.authorization.is_none());
    let oauth = read.oauth.unwrap();
    assert_eq!((oauth.client_id.as_str(), oauth.client_secret.as_str()), ("me", "from-file"));
    assert_eq!(oauth.token_url.as_str(), "https://idp/token");
    assert_eq!(oauth.params, [("audience".to_owned(), "x".to_owned()), ("audience".to_owned(), "y".to_owned())]);
    assert_eq!(oauth.style, AuthStyle::Header);
    assert!(!format!("{oauth:?}").contains("from-file"));
}
