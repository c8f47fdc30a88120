//! A TCP proxy on loopback that breaks on command, to put between a program and one of its services.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{Notify, oneshot, watch},
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

/// Where new connections go, and what is waited for on all of them.
#[derive(Debug)]
struct Route {
    target: Mutex<SocketAddr>,
    trap: Mutex<Option<Trap>>,
}

/// Springs on the connection whose client sends `pattern`.
#[derive(Debug)]
struct Trap {
    pattern: Vec<u8>,
    hold: Hold,
}

/// What the relay of a connection does with the answer.
#[derive(Debug)]
struct Hold {
    arrived: oneshot::Sender<()>,
    released: oneshot::Receiver<()>,
}

/// An answer that is held back; dropping this lets it go on.
#[derive(Debug)]
pub struct HeldAnswer {
    arrived: oneshot::Receiver<()>,
    _release: oneshot::Sender<()>,
}

impl HeldAnswer {
    /// Waits until the server has answered. From then on nothing of its connection reaches the client.
    pub async fn arrived(&mut self) -> Result<()> {
        (&mut self.arrived).await.context("the connection ended, or another answer is held back instead")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running proxy; dropping it closes its connections. Needs the runtime it was started on.
#[derive(Debug)]
pub struct TcpProxy {
    port: Port,
    mode: watch::Sender<Mode>,
    route: Arc<Route>,
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
        let route = Arc::new(Route { target: Mutex::new(target), trap: Mutex::new(None) });
        let task = tokio::spawn(serve(listener, port.number(), Arc::clone(&route), watched, Arc::clone(&settled)));
        Ok(Self { port, mode, route, settled, task })
    }

    /// As [`Self::start`], to a port on 127.0.0.1.
    pub async fn to_port(port: u16) -> Result<Self> {
        Self::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
    }

    /// The proxy's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
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

    /// Sends new connections to another port on 127.0.0.1; those that are open stay where they are. So does a Service whose
    /// endpoints change.
    pub fn redirect(&self, port: u16) {
        *lock(&self.route.target) = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    }

    /// Holds back the next answer on the connection on which a client next sends `pattern` within one piece of data, and
    /// everything that follows it there. Other connections go on.
    pub fn hold_answer_to(&self, pattern: impl Into<Vec<u8>>) -> HeldAnswer {
        let (arrived, told) = oneshot::channel();
        let (release, released) = oneshot::channel();
        *lock(&self.route.trap) = Some(Trap { pattern: pattern.into(), hold: Hold { arrived, released } });
        HeldAnswer { arrived: told, _release: release }
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
    route: Arc<Route>,
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
                connections.spawn(forward(client, Arc::clone(&route), mode.clone()));
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
async fn forward(mut client: TcpStream, route: Arc<Route>, mode: watch::Receiver<Mode>) {
    let mut cut = mode.clone();
    let mut server = None;
    let cut = tokio::select! {
        () = relay(&mut client, &mut server, &route, mode) => false,
        mode = cut.wait_for(|mode| *mode == Mode::Cut) => mode.is_ok(),
    };
    if cut {
        // The peers see a reset instead of an orderly end.
        for stream in std::iter::once(&client).chain(&server) {
            _ = stream.set_zero_linger();
        }
    }
}

async fn relay(client: &mut TcpStream, server: &mut Option<TcpStream>, route: &Route, mut mode: watch::Receiver<Mode>) {
    if passing(&mut mode).await.is_none() {
        return;
    }
    let target = *lock(&route.target);
    let Ok(connected) = TcpStream::connect(target).await else { return };
    let server = server.insert(connected);
    _ = client.set_nodelay(true);
    _ = server.set_nodelay(true);
    let (client_read, client_write) = client.split();
    let (server_read, server_write) = server.split();
    let held = Mutex::new(None);
    let request = |data: &[u8]| {
        let mut trap = lock(&route.trap);
        if trap.as_ref().is_some_and(|trap| holds(data, &trap.pattern)) {
            *lock(&held) = trap.take().map(|trap| trap.hold);
        }
        None
    };
    let answer = |_: &[u8]| lock(&held).take();
    tokio::join!(copy(client_read, server_write, mode.clone(), request), copy(server_read, client_write, mode, answer));
}

/// Whether `data` has `pattern` in it.
fn holds(data: &[u8], pattern: &[u8]) -> bool {
    !pattern.is_empty() && data.windows(pattern.len()).any(|window| window == pattern)
}

async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut mode: watch::Receiver<Mode>,
    look: impl Fn(&[u8]) -> Option<Hold>,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut buffer).await {
        // The mode counts after the read: bytes that arrive during a stall stay here.
        let Some(delay) = passing(&mut mode).await else { break };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if let Some(Hold { arrived, released }) = look(&buffer[..read]) {
            _ = arrived.send(());
            // Also when its holder is gone.
            _ = released.await;
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
