//! A datasource of our own making: it records what arrives and answers what the test says. For what no real program shows:
//! which headers were sent, how far a stream was read, a datasource that hangs.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub peer: SocketAddr,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// The running datasource; dropping it ends it.
#[derive(Debug)]
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Upstream {
    /// Reads each request whole, records it, and lets `answer` answer.
    pub async fn start(answer: impl Fn(Seen) -> BoxFuture<'static, Response> + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (seen.clone(), Arc::new(answer));
        let router = Router::new().fallback(move |ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request| {
            let (log, answer) = (log.clone(), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let target = parts.uri.path_and_query().unwrap().to_string();
                let body = body.collect().await.unwrap().to_bytes();
                let seen = Seen { method: parts.method, target, headers: parts.headers, body, peer };
                log.lock().push(seen.clone());
                answer(seen).await
            }
        });
        Self::serve(router, seen).await
    }

    /// Answers everything with this text as JSON.
    pub async fn saying(text: &'static str) -> Self {
        Self::start(move |_| Box::pin(async move { json(text) })).await
    }

    /// Hands requests to `handler` with their bodies unread; nothing is recorded.
    pub async fn raw(
        handler: impl Fn(Request) -> BoxFuture<'static, Response> + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Router::new().fallback(move |request: Request| handler(request)), Arc::default()).await
    }

    /// As [`Self::saying`], over TLS with a certificate of its own for `name`; also returns the certificate (PEM).
    pub async fn over_tls(name: &str, text: &'static str) -> (Self, String) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let inner = Self::saying(text).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, plain) = (listener.local_addr().unwrap(), inner.address);
        let seen = inner.seen.clone();
        // TLS ends here; the bytes go on to the plain server.
        let task = tokio::spawn(async move {
            let _inner = inner;
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    let mut server = tokio::net::TcpStream::connect(plain).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        (Self { address, seen, task }, made.cert.pem())
    }

    async fn serve(router: Router, seen: Arc<Mutex<Vec<Seen>>>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let task = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { address, seen, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    pub fn last(&self) -> Seen {
        self.seen.lock().last().expect("nothing arrived").clone()
    }
}

pub fn json(text: impl Into<Body>) -> Response {
    Response::builder().header("content-type", "application/json").body(text.into()).unwrap()
}

/// Sets a flag when it is dropped.
#[derive(Debug)]
pub struct OnDrop(pub Arc<std::sync::atomic::AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}
