//! A real Redis 8 for tests.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    services::{
        port::Port,
        random_password,
        sandbox::{DATA, Sandbox},
    },
    wait::wait_until,
};

const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How a [`Redis`] is set up.
#[derive(Debug, Clone, Default)]
pub struct RedisSettings {
    /// Turns the anonymous user off and makes this user, with a random password and all rights.
    pub user: Option<String>,
    /// `maxmemory` in bytes, with the policy `allkeys-lru`; without it there is no limit.
    pub max_memory: Option<u64>,
    /// Certificate and key (PEM) of a second port, which speaks TLS.
    pub tls: Option<(String, String)>,
    /// Port of a server on loopback whose data this one follows.
    pub replica_of: Option<u16>,
}

/// A running server without persistence. Dropping it stops it.
#[derive(Debug)]
pub struct Redis {
    sandbox: Sandbox,
    port: Port,
    tls_port: Option<Port>,
    user: Option<(String, String)>,
}

impl Redis {
    /// Starts a server that anybody on loopback may use.
    pub async fn start() -> Result<Self> {
        Self::start_with(RedisSettings::default()).await
    }

    /// Starts a server with these settings.
    pub async fn start_with(settings: RedisSettings) -> Result<Self> {
        let server = Self {
            sandbox: Sandbox::new("redis").await?,
            port: Port::reserve()?,
            tls_port: settings.tls.as_ref().map(|_| Port::reserve()).transpose()?,
            user: settings.user.map(|user| (user, random_password())),
        };
        let mut conf = format!(
            "bind 127.0.0.1\nport {}\ndir {DATA}\nsave \"\"\nappendonly no\ndaemonize no\n",
            server.port.number()
        );
        if let Some(bytes) = settings.max_memory {
            _ = write!(conf, "maxmemory {bytes}\nmaxmemory-policy allkeys-lru\n");
        }
        if let (Some((certificate, key)), Some(port)) = (&settings.tls, &server.tls_port) {
            server.sandbox.write("server.crt", certificate)?;
            server.sandbox.write("server.key", key)?;
            let port = port.number();
            _ = write!(
                conf,
                "tls-port {port}\ntls-cert-file {DATA}/server.crt\ntls-key-file {DATA}/server.key\ntls-auth-clients no\n"
            );
        }
        if let Some(port) = settings.replica_of {
            _ = writeln!(conf, "replicaof 127.0.0.1 {port}");
        }
        if let Some((user, password)) = &server.user {
            server
                .sandbox
                .write("users.acl", &format!("user default off\nuser {user} on >{password} ~* &* +@all\n"))?;
            _ = writeln!(conf, "aclfile {DATA}/users.acl");
        }
        server.sandbox.write("redis.conf", &conf)?;
        server.start_again().await?;
        Ok(server)
    }

    /// The server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The port that speaks TLS, when there is one.
    pub fn tls_port(&self) -> Option<u16> {
        self.tls_port.as_ref().map(Port::number)
    }

    /// `host:port`, as configurations want it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// User name and password, when the server asks for them.
    pub fn credentials(&self) -> Option<(&str, &str)> {
        self.user.as_ref().map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// Connection address with the credentials.
    pub fn url(&self) -> String {
        match &self.user {
            Some((user, password)) => format!("redis://{user}:{password}@{}/", self.address()),
            None => format!("redis://{}/", self.address()),
        }
    }

    /// Runs one command through `redis-cli` and returns its raw answer. An error of Redis is an error here.
    pub async fn cli(&self, command: &[&str]) -> Result<String> {
        let port = self.port().to_string();
        let mut args = vec!["-h", "127.0.0.1", "-p", &port, "-e", "--raw"];
        let mut env = Vec::new();
        if let Some((user, password)) = &self.user {
            args.extend(["--user", user]);
            env.push(("REDISCLI_AUTH", password.as_str()));
        }
        args.extend(command);
        let output = self.sandbox.run_ok("redis-cli", &args, &env, "").await?;
        Ok(output.trim_end().to_owned())
    }

    /// Stops the server; its content is lost, as with a restarted cache.
    pub async fn stop(&self) -> Result<()> {
        self.sandbox.end("TERM", STOP_TIMEOUT).await
    }

    /// Ends the server at once.
    pub async fn kill(&self) -> Result<()> {
        self.sandbox.end("KILL", STOP_TIMEOUT).await
    }

    /// Starts the stopped server, empty, and waits until it answers.
    pub async fn start_again(&self) -> Result<()> {
        self.sandbox.start(&["redis-server", &format!("{DATA}/redis.conf")]).await?;
        self.sandbox.ready(|| self.ping()).await
    }

    /// Freezes the server: connections stay open, nothing answers.
    pub async fn pause(&self) -> Result<()> {
        self.sandbox.pause().await
    }

    /// Ends [`Self::pause`].
    pub async fn resume(&self) -> Result<()> {
        self.sandbox.resume().await
    }

    /// Speaks the protocol itself: a `redis-cli` process for each look would cost more than the server's start.
    async fn ping(&self) -> Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port())).await.context("connect to Redis")?;
        if let Some((user, password)) = &self.user {
            stream.write_all(format!("AUTH {user} {password}\r\n").as_bytes()).await?;
        }
        stream.write_all(b"PING\r\nQUIT\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.context("read Redis' answer to PING")?;
        ensure!(!answer.contains("-ERR") && !answer.contains("-WRONGPASS"), "Redis answers {answer:?} to PING");
        Ok(answer.contains("+PONG"))
    }
}

/// A real Redis Sentinel that alone decides which of its servers is the primary. Dropping it stops it.
#[derive(Debug)]
pub struct Sentinel {
    sandbox: Sandbox,
    port: Port,
}

impl Sentinel {
    /// Watches the primary on this loopback port, and its replicas, under this name.
    pub async fn start(name: &str, primary: u16) -> Result<Self> {
        let (sandbox, port) = (Sandbox::new("sentinel").await?, Port::reserve()?);
        let conf = format!(
            "bind 127.0.0.1\nport {}\ndir {DATA}\nsentinel monitor {name} 127.0.0.1 {primary} 1\n\
             sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 3000\n",
            port.number()
        );
        sandbox.write("sentinel.conf", &conf)?;
        sandbox.start(&["redis-server", &format!("{DATA}/sentinel.conf"), "--sentinel"]).await?;
        let number = port.number();
        sandbox.ready(|| async move { Ok(TcpStream::connect(("127.0.0.1", number)).await.is_ok()) }).await?;
        Ok(Self { sandbox, port })
    }

    /// `host:port`, as configurations want it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Waits until the sentinel knows a replica that could take over.
    pub async fn knows_a_replica(&self, name: &str) -> Result<()> {
        let port = self.port.number().to_string();
        let args = ["-h", "127.0.0.1", "-p", &port, "--raw", "SENTINEL", "REPLICAS", name];
        let knows = || async {
            let text = self.sandbox.run_ok("redis-cli", &args, &[], "").await?;
            Ok(text.contains("master-link-status\nok"))
        };
        wait_until("the sentinel to know a replica", Duration::from_secs(60), knows).await
    }
}
