//! A real Redis Cluster for tests.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use tokio::net::TcpStream;

use crate::services::{
    port::Port,
    sandbox::{DATA, Sandbox},
};
use crate::wait::wait_until;

const TIMEOUT: Duration = Duration::from_mins(1);
/// Three primaries, and a replica of each.
const SERVERS: usize = 6;

/// Three primaries with a replica each. Dropping it stops all.
#[derive(Debug)]
pub struct RedisCluster {
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    sandbox: Sandbox,
    port: Port,
    /// Where the servers talk with each other.
    bus: Port,
}

impl RedisCluster {
    /// Starts a cluster that anybody on loopback may use, and waits until all of it works.
    pub async fn start() -> Result<Self> {
        let cluster = Self { servers: try_join_all((0..SERVERS).map(|_| Server::start())).await? };
        let addresses = cluster.addresses();
        let mut create = vec!["--cluster", "create"];
        create.extend(addresses.iter().map(String::as_str));
        create.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        cluster.tool(&create).await.context("make a cluster of the servers")?;
        wait_until("the cluster to work", TIMEOUT, || async {
            for server in 0..SERVERS {
                let info = cluster.cli(server, &["CLUSTER", "INFO"]).await?;
                let replication = cluster.cli(server, &["INFO", "replication"]).await?;
                let follows = replication.contains("role:master") || replication.contains("master_link_status:up");
                if !info.contains("cluster_state:ok") || !follows {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await?;
        Ok(cluster)
    }

    /// `host:port` of every server.
    pub fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(Server::address).collect()
    }

    /// Runs a command at one server through `redis-cli`, which follows no redirection. An error of Redis is an error here.
    pub async fn cli(&self, server: usize, command: &[&str]) -> Result<String> {
        let port = self.server(server)?.port.number().to_string();
        let args = [&["-h", "127.0.0.1", "-p", &port, "-e", "--raw"], command].concat();
        Ok(self.tool(&args).await?.trim_end().to_owned())
    }

    /// Which server holds a key; only its primary serves it.
    pub async fn holder(&self, key: &str) -> Result<usize> {
        for server in 0..SERVERS {
            // Other servers redirect, and one that was killed does not answer.
            if self.cli(server, &["TYPE", key]).await.is_ok() {
                return Ok(server);
            }
        }
        bail!("no server serves {key}")
    }

    /// Moves the slot of a key, with this one key in it, from its primary to another one, as resharding does.
    pub async fn move_slot(&self, key: &str) -> Result<()> {
        let slot = self.cli(0, &["CLUSTER", "KEYSLOT", key]).await?;
        let from = self.holder(key).await?;
        let mut to = None;
        for server in (0..SERVERS).filter(|server| *server != from) {
            if self.cli(server, &["ROLE"]).await?.starts_with("master") {
                to = Some(server);
            }
        }
        let to = to.context("there is no other primary")?;
        let (source, target) = (self.cli(from, &["CLUSTER", "MYID"]).await?, self.cli(to, &["CLUSTER", "MYID"]).await?);
        self.cli(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]).await?;
        self.cli(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]).await?;
        let port = self.server(to)?.port.number().to_string();
        self.cli(from, &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await?;
        for server in [to, from] {
            self.cli(server, &["CLUSTER", "SETSLOT", &slot, "NODE", &target]).await?;
        }
        Ok(())
    }

    /// Ends a server at once.
    pub async fn kill(&self, server: usize) -> Result<()> {
        self.server(server)?.sandbox.end("KILL", Duration::from_secs(10)).await
    }

    fn server(&self, server: usize) -> Result<&Server> {
        self.servers.get(server).with_context(|| format!("there is no server {server}"))
    }

    async fn tool(&self, args: &[&str]) -> Result<String> {
        self.server(0)?.sandbox.run_ok("redis-cli", args, &[], "").await
    }
}

impl Server {
    async fn start() -> Result<Self> {
        let server =
            Self { sandbox: Sandbox::new("redis-cluster").await?, port: Port::reserve()?, bus: Port::reserve()? };
        let conf = format!(
            "bind 127.0.0.1\nport {}\ncluster-port {}\ncluster-enabled yes\ncluster-config-file nodes.conf\n\
             cluster-node-timeout 1000\ndir {DATA}\nsave \"\"\nappendonly no\ndaemonize no\n",
            server.port.number(),
            server.bus.number()
        );
        server.sandbox.write("redis.conf", &conf)?;
        server.sandbox.start(&["redis-server", &format!("{DATA}/redis.conf")]).await?;
        let number = server.port.number();
        server.sandbox.ready(|| async move { Ok(TcpStream::connect(("127.0.0.1", number)).await.is_ok()) }).await?;
        Ok(server)
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }
}
