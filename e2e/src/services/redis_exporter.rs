//! The Prometheus exporter for Redis.

use anyhow::Result;

use crate::services::{port::Port, root, sandbox::Sandbox};

/// A running exporter. Dropping it stops it.
#[derive(Debug)]
pub struct RedisExporter {
    // Held: with it the exporter ends.
    _sandbox: Sandbox,
    port: Port,
}

impl RedisExporter {
    /// Starts it with the arguments and the environment of a container, in which 9121 becomes its own port and 6379 that of
    /// a Redis on loopback.
    pub async fn start(redis: u16, args: &[String], env: &[(&str, &str)]) -> Result<Self> {
        let (sandbox, port) = (Sandbox::new_in("redis-exporter", root::ensure_exporters).await?, Port::reserve()?);
        let number = port.number();
        let env = env.iter().map(|(name, value)| format!("{name}={value}"));
        let args = args
            .iter()
            .map(|arg| arg.replace(":9121", &format!("127.0.0.1:{number}")).replace(":6379", &format!(":{redis}")));
        let words: Vec<_> = std::iter::once("env".to_owned())
            .chain(env)
            .chain(std::iter::once("prometheus-redis-exporter".to_owned()))
            .chain(args)
            .collect();
        sandbox.start(&words.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        sandbox
            .ready(|| async move { Ok(tokio::net::TcpStream::connect(("127.0.0.1", number)).await.is_ok()) })
            .await?;
        Ok(Self { _sandbox: sandbox, port })
    }

    /// Where `/metrics` is.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }
}
