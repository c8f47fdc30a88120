//! Listener, background tasks and the graceful stop.

mod tls;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

pub use self::tls::Tls;
use crate::config::{self, Config};
use crate::pace::{Pace, Paced};
use crate::router;
use crate::state::AppState;

/// Bytes of a request body that are due within `server.body_timeout`.
const BODY_BYTES_DUE: u64 = 16 << 10;

/// The other end of the connection, in the extensions of each request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// In the extensions of each request that came over HTTPS.
#[derive(Debug, Clone, Copy)]
pub struct OverTls;

/// Serves until SIGTERM or SIGINT, then drains.
pub async fn serve(config: Config, address: SocketAddr, ui_dir: Option<PathBuf>) -> Result<(), String> {
    // First of all: the first process of a container never hears of a signal that it does not listen for, and would stay for
    // the whole grace period of its pod.
    let stop = stop_signal();
    if !config.security.enable_auth && !address.ip().is_loopback() {
        tracing::warn!(%address, "sign-in is off: everybody who reaches this address can read and change everything");
    }
    let tls = config.server.tls.as_ref().map(Tls::open).transpose()?;
    let state = AppState::build(config, ui_dir)?;
    let listener = TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    tracing::info!(%address, version = crate::state::VERSION, tls = tls.is_some(), "serving");
    run_over(listener, tls, state, stop).await;
    Ok(())
}

/// [`run_over`] without TLS.
pub async fn run(listener: TcpListener, state: AppState, stop: impl Future<Output = ()> + Send) {
    run_over(listener, None, state, stop).await;
}

/// Serves on a listener until `stop` resolves, then drains: unready for `server.drain_delay` while still accepting (so that
/// balancers notice) and asking each client for a new connection, then no new connections, and requests in flight get
/// `server.drain_timeout`.
pub async fn run_over(listener: TcpListener, tls: Option<Tls>, state: AppState, stop: impl Future<Output = ()> + Send) {
    let background = CancellationToken::new();
    let mut tasks = crate::state::spawn_background(&state, &background);
    let tls = tls.map(Arc::new);
    if let Some(tls) = &tls {
        tasks.push(tokio::spawn(tls.clone().follow(background.clone())));
    }
    let config = &state.config.server;
    let connections = Arc::new(Connections::new(config, state.clone()));
    let room = config.max_connections.map(|most| Arc::new(Semaphore::new(most as usize)));

    let graceful = GracefulShutdown::new();
    let delay = config.drain_delay.0;
    let stopped = async {
        stop.await;
        state.start_draining();
        tracing::info!(seconds = delay.as_secs_f64(), "stopping: unready, still serving");
        tokio::time::sleep(delay).await;
    };
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = &mut stopped => break,
            (accepted, permit) = accept(&listener, room.as_ref()) => match accepted {
                Ok((stream, peer)) => {
                    let (connections, tls, watcher) = (connections.clone(), tls.clone(), graceful.watcher());
                    tokio::spawn(async move {
                        let _permit = permit;
                        if let Err(error) = connections.serve(stream, peer, tls.as_deref(), watcher).await {
                            tracing::debug!(%peer, %error, "connection ended");
                        }
                    });
                }
                Err(error) => {
                    // Most likely out of file descriptors: a pause lets connections end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }
    drop(listener);
    let limit = config.drain_timeout.0;
    if tokio::time::timeout(limit, graceful.shutdown()).await.is_err() {
        tracing::warn!(seconds = limit.as_secs_f64(), "requests were still running after server.drain_timeout");
    }
    background.cancel();
    for task in tasks {
        let _ = task.await;
    }
    tracing::info!("stopped");
}

type Accepted = std::io::Result<(TcpStream, SocketAddr)>;

/// The next connection, when there is room for one.
async fn accept(listener: &TcpListener, room: Option<&Arc<Semaphore>>) -> (Accepted, Option<OwnedSemaphorePermit>) {
    let permit = match room {
        // Never closed.
        Some(room) => room.clone().acquire_owned().await.ok(),
        None => None,
    };
    (listener.accept().await, permit)
}

/// What all connections have in common.
struct Connections {
    http: auto::Builder<TokioExecutor>,
    router: Router,
    state: AppState,
    header_timeout: Duration,
    body_pace: Pace,
}

impl Connections {
    fn new(config: &config::Server, state: AppState) -> Self {
        let header_timeout = config.header_timeout.0;
        let most = config.max_header_bytes;
        let mut http = auto::Builder::new(TokioExecutor::new());
        // No `pipeline_flush`: with it hyper buffers an answer without bound when the client reads slowly.
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(header_timeout)
            .max_buf_size(usize::try_from(most).unwrap_or(usize::MAX));
        http.http2()
            .timer(TokioTimer::new())
            .max_header_list_size(most)
            .keep_alive_interval(Some(Duration::from_secs(30)));
        let body_pace = Pace { within: config.body_timeout.0, bytes: BODY_BYTES_DUE };
        Self { http, router: router::build(&state), state, header_timeout, body_pace }
    }

    /// Serves one connection to its end. Until its first request is there, the TLS handshake and the choice of the HTTP
    /// version included, it has as long as for a head; hyper watches the later ones.
    async fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<&Tls>,
        watcher: Watcher,
    ) -> Result<(), BoxError> {
        let _ = stream.set_nodelay(true);
        let has_asked = AtomicBool::new(false);
        let silent = async {
            tokio::time::sleep(self.header_timeout).await;
            if has_asked.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let connection = async {
            match tls {
                None => self.http(stream, peer, false, &has_asked, watcher).await,
                Some(tls) => {
                    let stream = tls.acceptor().accept(stream).await?;
                    self.http(stream, peer, true, &has_asked, watcher).await
                }
            }
        };
        tokio::select! {
            ended = connection => ended,
            () = silent => Err("no request within server.header_timeout".into()),
        }
    }

    async fn http<S>(
        &self,
        stream: S,
        peer: SocketAddr,
        over_tls: bool,
        has_asked: &AtomicBool,
        watcher: Watcher,
    ) -> Result<(), BoxError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: hyper::Request<Incoming>| {
            has_asked.store(true, Ordering::Relaxed);
            let http1 = request.version() < Version::HTTP_2;
            let mut request = request.map(|body| Body::new(Paced::new(body, self.body_pace)));
            request.extensions_mut().insert(Peer(peer));
            if over_tls {
                request.extensions_mut().insert(OverTls);
            }
            let answer = self.router.clone().call(request);
            let state = self.state.clone();
            async move {
                let mut answer = answer.await?;
                // A connection that is closed between two requests can cross with the second one on its way; one that the
                // client was asked to leave cannot. hyper says the same with GOAWAY to HTTP/2 clients.
                if http1 && state.is_draining() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = self.http.serve_connection_with_upgrades(TokioIo::new(stream), service);
        watcher.watch(connection).await
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Listens for SIGTERM and SIGINT from now on; resolves at the first.
fn stop_signal() -> impl Future<Output = ()> + Send {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            tracing::error!("cannot listen for signals: the server will not stop gracefully");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
