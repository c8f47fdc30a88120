//! The edge of the server: connections that are slow, large, many or encrypted; other sites; the prefix.

use std::time::{Duration, Instant};

use perses_api_server::config::{ConfigDuration, Cors, ServerTls};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::pod::{Pod, until};
use crate::upstream::Upstream;

const fn millis(millis: u64) -> ConfigDuration {
    ConfigDuration(Duration::from_millis(millis))
}

/// Far more than anything here should take.
const LONG: Duration = Duration::from_secs(60);

/// Sends `head`, then `piece` again and again, until the server has closed the connection; what it said until then.
async fn drip(pod: &Pod, head: &str, piece: &[u8]) -> String {
    let (mut reader, mut writer) = TcpStream::connect(pod.address()).await.unwrap().into_split();
    writer.write_all(head.as_bytes()).await.unwrap();
    let piece = piece.to_vec();
    let sender = tokio::spawn(async move {
        while !piece.is_empty() && writer.write_all(&piece).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        writer
    });
    let mut answer = Vec::new();
    // A reset is an end, too.
    let read = tokio::time::timeout(LONG, reader.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection was not cut");
    sender.abort();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn who_sends_a_byte_now_and_then_is_cut() {
    let pod = Pod::start_with(|config| {
        config.server.header_timeout = millis(800);
        config.server.body_timeout = millis(800);
    })
    .await;
    let upstream = Upstream::saying("{}").await;
    pod.datasource(&upstream.url(), Value::Null).await;
    let post = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n")
    };
    let chunked = "POST /api/v1/projects HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let started = Instant::now();
    for (what, head, piece, status) in [
        ("says nothing", String::new(), &b""[..], None),
        ("half the preface of HTTP/2", "PRI * HTTP/2.0\r\n".to_owned(), b"", None),
        ("stops in the head", "GET /livez HTTP/1.1\r\nhost: x\r\n".to_owned(), b"", None),
        ("a head by the byte", "GET /livez HTTP/1.1\r\nx: ".to_owned(), b"a", None),
        ("a body by the byte", post("/api/v1/projects"), b" ", Some("408")),
        ("a chunked body by the byte", chunked.to_owned(), b"1\r\n \r\n", Some("408")),
        ("a body that stops", post("/api/v1/projects"), b"", Some("408")),
        ("a sign-in by the byte", post("/api/auth/providers/native/login"), b" ", None),
        ("an upload to a datasource by the byte", post("/proxy/globaldatasources/prom/write"), b" ", Some("408")),
        ("an unsaved datasource by the byte", post("/proxy/unsaved/globaldatasources/x"), b" ", Some("408")),
    ] {
        let before = Instant::now();
        let answer = drip(&pod, &head, piece).await;
        assert!(before.elapsed() < LONG, "{what}");
        if let Some(status) = status {
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
            assert!(answer.contains("server.body_timeout"), "{what}: {answer}");
        }
    }
    assert!(started.elapsed() >= Duration::from_millis(800 * 6), "nobody was cut at once");

    // Who keeps asking on one connection is not cut.
    let mut connection = TcpStream::connect(pod.address()).await.unwrap();
    let mut buffer = vec![0; 4096];
    for _ in 0..8 {
        connection.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let read = connection.read(&mut buffer).await.unwrap();
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..read]));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let pod = Pod::start_with(|config| config.server.max_header_bytes = 8192).await;
    let ask = |length: usize| {
        format!("GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: {}\r\n\r\n", "a".repeat(length))
    };
    assert!(drip(&pod, &ask(4000), b"").await.starts_with("HTTP/1.1 200"));
    assert!(drip(&pod, &ask(20_000), b"").await.starts_with("HTTP/1.1 431"));
    let many = "x: 1\r\n".repeat(200);
    assert!(drip(&pod, &format!("GET /livez HTTP/1.1\r\n{many}\r\n"), b"").await.starts_with("HTTP/1.1 431"));
    assert!(drip(&pod, "GET / NONSENSE\r\n\r\n", b"").await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn a_draining_server_asks_its_clients_to_leave() {
    let mut pod = Pod::start_with(|config| config.server.drain_delay = millis(600_000)).await;
    let ask = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut kept = TcpStream::connect(pod.address()).await.unwrap();
    kept.write_all(ask).await.unwrap();
    let mut buffer = vec![0; 4096];
    let read = kept.read(&mut buffer).await.unwrap();
    assert!(!String::from_utf8_lossy(&buffer[..read]).contains("connection: close"), "asked to leave too early");

    pod.stop();
    until("the server to be unready", || async { pod.get("/readyz").await.status() == 503 }).await;
    for mut connection in [kept, TcpStream::connect(pod.address()).await.unwrap()] {
        connection.write_all(ask).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(LONG, connection.read_to_string(&mut answer)).await.expect("it stays open").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let pod = Pod::start_with(|config| config.server.max_connections = Some(2)).await;
    let ask = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut buffer = vec![0; 4096];
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(pod.address()).await.unwrap();
        stream.write_all(ask).await.unwrap();
        assert!(stream.read(&mut buffer).await.unwrap() > 0);
        open.push(stream);
    }
    let mut third = TcpStream::connect(pod.address()).await.unwrap();
    third.write_all(ask).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(300), third.read(&mut buffer)).await;
    assert!(early.is_err(), "the third was served beside the other two");
    open.pop();
    let read = tokio::time::timeout(LONG, third.read(&mut buffer)).await.expect("the third was never served").unwrap();
    assert!(buffer[..read].starts_with(b"HTTP/1.1 200"));
}

/// A certificate for 127.0.0.1 in the folder; its PEM.
fn certificate(tls: &ServerTls) -> String {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(&tls.cert_file, made.cert.pem()).unwrap();
    std::fs::write(&tls.key_file, made.signing_key.serialize_pem()).unwrap();
    made.cert.pem()
}

async fn over_tls(pod: &Pod, ca: &str, http1: bool) -> Result<Response, reqwest::Error> {
    let ca = reqwest::Certificate::from_pem(ca.as_bytes()).unwrap();
    let mut client = reqwest::Client::builder().no_proxy().tls_certs_only([ca]);
    if http1 {
        client = client.http1_only();
    }
    client.build().unwrap().get(format!("{}/livez", pod.url)).send().await
}

#[tokio::test]
async fn https_with_a_certificate_that_is_renewed() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let (cert_file, key_file) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let tls = ServerTls { cert_file, key_file, ..ServerTls::default() };
    let first = certificate(&tls);
    let pod = Pod::start_with(|config| {
        config.server.header_timeout = millis(800);
        config.server.tls = Some(tls.clone());
    })
    .await;
    for (http1, version) in [(true, reqwest::Version::HTTP_11), (false, reqwest::Version::HTTP_2)] {
        let response = over_tls(&pod, &first, http1).await.unwrap();
        assert_eq!((response.status(), response.version()), (StatusCode::OK, version), "chosen by ALPN");
    }
    // Somebody who never starts the handshake, and somebody who does not speak TLS.
    assert_eq!(drip(&pod, "", b"").await, "");
    assert!(!drip(&pod, "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n", b"").await.contains("200"));

    let second = certificate(&tls);
    until("the new certificate is served", || async { over_tls(&pod, &second, true).await.is_ok() }).await;
    assert!(over_tls(&pod, &first, true).await.is_err());
}

async fn preflight(pod: &Pod, path: &str, origin: &str) -> Response {
    let request = pod.client.request(Method::OPTIONS, format!("{}{path}", pod.url)).header("origin", origin);
    let request = request.header("access-control-request-method", "PUT");
    request.header("access-control-request-headers", "authorization,content-type").send().await.unwrap()
}

#[tokio::test]
async fn other_sites_call_when_they_are_let_in() {
    let signed_in = |config: &mut perses_api_server::config::Config| {
        config.security.enable_auth = true;
        config.security.encryption_key = Some("0123456789abcdef0123456789abcdef".into());
        config.security.authentication.providers.enable_native = true;
    };
    let closed = Pod::start_with(signed_in).await;
    let answer = preflight(&closed, "/api/v1/projects/p", "https://a.example").await;
    assert!(!answer.headers().contains_key("access-control-allow-origin"));

    let pod = Pod::start_with(|config| {
        signed_in(config);
        config.security.cors = Cors {
            enable: true,
            allow_origins: vec!["https://a.example".to_owned(), "https://*.b.example".to_owned()],
            allow_credentials: true,
            expose_headers: vec!["etag".to_owned()],
            max_age: 600,
            ..Cors::default()
        };
    })
    .await;
    // Before the sign-in: a preflight carries none.
    for origin in ["https://a.example", "https://x.b.example"] {
        let answer = preflight(&pod, "/api/v1/projects/p", origin).await;
        assert_eq!(answer.status(), StatusCode::OK, "{origin}");
        for (name, value) in [
            ("access-control-allow-origin", origin),
            ("access-control-allow-credentials", "true"),
            ("access-control-allow-methods", "GET,HEAD,PUT,PATCH,POST,DELETE"),
            ("access-control-allow-headers", "authorization,content-type"),
            ("access-control-max-age", "600"),
        ] {
            assert_eq!(answer.headers().get(name).map(|value| value.to_str().unwrap()), Some(value), "{origin} {name}");
        }
    }
    let get = |origin: &str| pod.client.get(format!("{}/api/v1/projects", pod.url)).header("origin", origin).send();
    let answer = get("https://a.example").await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "an error must be readable for the site, too");
    assert_eq!(answer.headers()["access-control-allow-origin"], "https://a.example");
    assert_eq!(answer.headers()["access-control-expose-headers"], "etag");
    for origin in ["https://evil.example", "https://a.example.evil", "null"] {
        assert!(!get(origin).await.unwrap().headers().contains_key("access-control-allow-origin"), "{origin}");
    }

    let open = Pod::start_with(|config| config.security.cors = Cors { enable: true, ..Cors::default() }).await;
    let answer = preflight(&open, "/api/v1/projects", "https://anybody.example").await;
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    let shown: Value = open.get("/api/config").await.json().await.unwrap();
    assert_eq!(shown["security"]["cors"]["enable"], json!(true));
}

#[tokio::test]
async fn the_prefix_is_added_with_302() {
    let pod = Pod::start_with(|config| {
        config.api_prefix = "/perses".to_owned();
        config.server.telemetry_path = Some("/telemetry".to_owned());
    })
    .await;
    for (path, place) in [
        ("/api/v1/projects?name=a%20b&x", "/perses/api/v1/projects?name=a%20b&x"),
        ("/", "/perses/"),
        ("//evil.example/x", "/perses//evil.example/x"),
        ("/persesx", "/perses/persesx"),
    ] {
        let answer = pod.get(path).await;
        assert_eq!(answer.status(), StatusCode::FOUND, "{path}");
        assert_eq!(answer.headers()["location"], place);
    }
    for path in ["/metrics", "/perses/metrics", "/telemetry", "/perses/telemetry", "/livez"] {
        assert_eq!(pod.get(path).await.status(), StatusCode::OK, "{path}");
    }
}
