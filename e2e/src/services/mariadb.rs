//! A real MariaDB for tests of the import.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::services::{
    port::Port,
    random_password, root,
    sandbox::{DATA, Sandbox},
};

/// The user and the database.
const NAME: &str = "perses";

/// A running server with an empty database. Dropping it stops it and removes its data.
#[derive(Debug)]
pub struct MariaDb {
    sandbox: Sandbox,
    port: Port,
    password: String,
}

impl MariaDb {
    /// Starts a server.
    pub async fn start() -> Result<Self> {
        let server = Self {
            sandbox: Sandbox::new_in("mariadb", root::ensure_mariadb).await?,
            port: Port::reserve()?,
            password: random_password(),
        };
        let datadir = format!("--datadir={DATA}/my");
        // `--force`: without looking the name of the machine up, which may have no address.
        let install =
            ["--no-defaults", "--force", &datadir, "--auth-root-authentication-method=normal", "--skip-test-db"];
        server.sandbox.run_ok("mariadb-install-db", &install, &[], "").await?;
        let (port, socket) = (format!("--port={}", server.port()), format!("--socket={DATA}/my.sock"));
        let tuning = ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M"];
        let words = ["mariadbd", "--no-defaults", &datadir, &port, &socket, "--bind-address=127.0.0.1"];
        server.sandbox.start(&[&words[..], &tuning].concat()).await?;
        server.sandbox.ready(|| async { Ok(server.sql("", "SELECT 1").await? == "1") }).await?;
        let setup = format!(
            "CREATE DATABASE {NAME}; CREATE USER {NAME}@'%' IDENTIFIED BY '{}'; GRANT ALL ON {NAME}.* TO {NAME}@'%'",
            server.password
        );
        server.sql("", &setup).await?;
        Ok(server)
    }

    /// Runs SQL as the superuser; rows come one a line.
    pub async fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let socket = format!("--socket={DATA}/my.sock");
        let mut args = vec!["--no-defaults", &socket, "--user=root", "--batch", "--skip-column-names"];
        args.extend((!database.is_empty()).then_some(database));
        let output = self.sandbox.run_ok("mariadb", &args, &[], sql).await;
        Ok(output.with_context(|| format!("SQL on database {database:?}"))?.trim_end().to_owned())
    }

    /// The server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Connection address of the database, without the password.
    pub fn url(&self) -> String {
        format!("mysql://{NAME}@127.0.0.1:{}/{NAME}", self.port())
    }

    /// The user's password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Stops the server.
    pub async fn stop(&self) -> Result<()> {
        self.sandbox.end("TERM", Duration::from_secs(30)).await
    }
}
