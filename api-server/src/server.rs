//! Listener, background tasks and the graceful stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use crate::config::Config;
use crate::router;
use crate::state::AppState;

/// A connection that sends no complete request head for so long is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// The other end of the connection, in the extensions of each request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Serves until SIGTERM or SIGINT, then drains.
pub async fn serve(config: Config, address: SocketAddr, ui_dir: Option<PathBuf>) -> Result<(), String> {
    if !config.security.enable_auth && !address.ip().is_loopback() {
        tracing::warn!(%address, "sign-in is off: everybody who reaches this address can read and change everything");
    }
    let state = AppState::build(config, ui_dir)?;
    let listener = TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    tracing::info!(%address, version = crate::state::VERSION, "serving");
    run(listener, state, stop_signal()).await;
    Ok(())
}

/// Serves on a listener until `stop` resolves, then drains: unready for `server.drain_delay` while still accepting (so that
/// balancers notice), then no new connections, and requests in flight get `server.drain_timeout`.
pub async fn run(listener: TcpListener, state: AppState, stop: impl Future<Output = ()> + Send) {
    let background = CancellationToken::new();
    let tasks = crate::state::spawn_background(&state, &background);
    let router = router::build(&state);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // No `pipeline_flush`: with it hyper buffers an answer without bound when the client reads slowly.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(30)));

    let graceful = GracefulShutdown::new();
    let delay = state.config.server.drain_delay.0;
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
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let _ = stream.set_nodelay(true);
                    let router = router.clone();
                    let service = service_fn(move |request: hyper::Request<Incoming>| {
                        let mut request = request.map(Body::new);
                        request.extensions_mut().insert(Peer(peer));
                        router.clone().call(request)
                    });
                    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
                    let connection = graceful.watch(connection);
                    tokio::spawn(async move {
                        if let Err(error) = connection.await {
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
    let limit = state.config.server.drain_timeout.0;
    if tokio::time::timeout(limit, graceful.shutdown()).await.is_err() {
        tracing::warn!(seconds = limit.as_secs_f64(), "requests were still running after server.drain_timeout");
    }
    background.cancel();
    for task in tasks {
        let _ = task.await;
    }
    tracing::info!("stopped");
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("cannot listen for signals: the server will not stop gracefully");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
