//! A TCP proxy on loopback that breaks on command, to put between a program and one of its services.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
};

use crate::services::port::Port;

/// What the proxy does with bytes and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Forwards; each piece waits this long first.
    Pass(Duration),
    /// Accepts and reads nothing: connections hang, as behind a firewall that drops packets.
    Stall,
    /// Refuses new connections and has reset the old ones, as a host whose service died.
    Cut,
}

/// A running proxy; dropping it closes its connections. Needs the runtime it was started on.
#[derive(Debug)]
pub struct TcpProxy {
    port: Port,
    mode: watch::Sender<Mode>,
    target: watch::Sender<SocketAddr>,
    /// Told after each change of mode, when the listener has followed it.
    settled: Arc<Notify>,
    task: JoinHandle<()>,
}

impl TcpProxy {
    /// Starts a proxy to `target`.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let port = Port::reserve()?;
        let (mode, watched) = watch::channel(Mode::Pass(Duration::ZERO));
        let listener = listen(port.number()).await?;
        let settled = Arc::new(Notify::new());
        let (target, targets) = watch::channel(target);
        let task = tokio::spawn(serve(listener, port.number(), targets, watched, Arc::clone(&settled)));
        Ok(Self { port, mode, target, settled, task })
    }

    /// As [`Self::start`], to a port on 127.0.0.1.
    pub async fn to_port(port: u16) -> Result<Self> {
        Self::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
    }

    /// The proxy's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Sends new connections to another port on 127.0.0.1, as when an address moves; [`Self::cut`] ends the old ones.
    pub fn retarget(&self, port: u16) {
        self.target.send_replace(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }

    /// Resets all connections and refuses new ones.
    pub async fn cut(&self) {
        self.set(Mode::Cut).await;
    }

    /// Lets all connections hang, new ones too.
    pub async fn stall(&self) {
        self.set(Mode::Stall).await;
    }

    /// Holds each piece of data back for `delay`, in both directions.
    pub async fn delay(&self, delay: Duration) {
        self.set(Mode::Pass(delay)).await;
    }

    /// Back to normal; connections that hang go on.
    pub async fn heal(&self) {
        self.set(Mode::Pass(Duration::ZERO)).await;
    }

    async fn set(&self, mode: Mode) {
        let settled = self.settled.notified();
        if self.mode.send_if_modified(|now| std::mem::replace(now, mode) != mode) {
            settled.await;
        }
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(|| format!("listen on 127.0.0.1:{port}"))
}

async fn serve(
    listener: TcpListener,
    port: u16,
    target: watch::Receiver<SocketAddr>,
    mut mode: watch::Receiver<Mode>,
    settled: Arc<Notify>,
) {
    let mut listener = Some(listener);
    // Dropping the set aborts the connections.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            changed = mode.changed() => {
                if changed.is_err() {
                    return;
                }
                if *mode.borrow_and_update() == Mode::Cut {
                    listener = None;
                    // Each connection sees the cut itself and resets its peers.
                    while connections.join_next().await.is_some() {}
                } else if listener.is_none() {
                    // The port is reserved, so nobody else can have taken it.
                    listener = listen(port).await.ok();
                }
                settled.notify_one();
            }
            Some(client) = accept(listener.as_ref()) => {
                let target = *target.borrow();
                connections.spawn(forward(client, target, mode.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The next connection; never ready without a listener.
async fn accept(listener: Option<&TcpListener>) -> Option<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(stream, _)| stream),
        None => std::future::pending().await,
    }
}

/// One connection, until both sides have ended it or the proxy is cut.
async fn forward(mut client: TcpStream, target: SocketAddr, mode: watch::Receiver<Mode>) {
    let mut cut = mode.clone();
    let mut server = None;
    let cut = tokio::select! {
        () = relay(&mut client, &mut server, target, mode) => false,
        mode = cut.wait_for(|mode| *mode == Mode::Cut) => mode.is_ok(),
    };
    if cut {
        // The peers see a reset instead of an orderly end.
        for stream in std::iter::once(&client).chain(&server) {
            _ = stream.set_zero_linger();
        }
    }
}

async fn relay(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    target: SocketAddr,
    mut mode: watch::Receiver<Mode>,
) {
    if passing(&mut mode).await.is_none() {
        return;
    }
    let Ok(connected) = TcpStream::connect(target).await else { return };
    let server = server.insert(connected);
    _ = client.set_nodelay(true);
    _ = server.set_nodelay(true);
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    tokio::join!(copy(client_read, server_write, mode.clone()), copy(server_read, client_write, mode));
}

async fn copy(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut mode: watch::Receiver<Mode>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        // The mode counts after the read: bytes that arrive during a stall stay here.
        let Some(delay) = passing(&mut mode).await else { break };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    _ = to.shutdown().await;
}

/// Waits until the proxy forwards; `None` when it never will again.
async fn passing(mode: &mut watch::Receiver<Mode>) -> Option<Duration> {
    match *mode.wait_for(|mode| matches!(mode, Mode::Pass(_))).await.ok()? {
        Mode::Pass(delay) => Some(delay),
        Mode::Stall | Mode::Cut => None,
    }
}
