//! A real PgBouncer in transaction mode for tests.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::services::{
    port::Port,
    postgres::{Postgres, SUPERUSER, USER},
    sandbox::{DATA, Sandbox},
};

/// The limits of the pooler, with PgBouncer's names.
#[derive(Debug, Clone, Copy)]
pub struct PoolSettings {
    /// Server connections for each pair of user and database.
    pub default_pool_size: u32,
    /// Further server connections when clients have waited for a while.
    pub reserve_pool_size: u32,
    /// Client connections in all.
    pub max_client_conn: u32,
    /// Prepared statements kept for each client; 0 turns their support in transaction mode off.
    pub max_prepared_statements: u32,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self { default_pool_size: 20, reserve_pool_size: 5, max_client_conn: 500, max_prepared_statements: 200 }
    }
}

/// A running pooler in front of one [`Postgres`]. Dropping it stops it.
#[derive(Debug)]
pub struct PgBouncer {
    sandbox: Sandbox,
    port: Port,
    password: String,
    superuser_password: String,
}

impl PgBouncer {
    /// Starts a pooler for all databases of `server`, for its ordinary user and its superuser.
    pub async fn start(server: &Postgres, settings: PoolSettings) -> Result<Self> {
        Self::start_at(server, server.port(), settings).await
    }

    /// As [`Self::start`], but reaches the server at another loopback port, for example through a
    /// [`TcpProxy`](crate::services::TcpProxy).
    pub async fn start_at(server: &Postgres, server_port: u16, settings: PoolSettings) -> Result<Self> {
        Self::start_for(server, &format!("* = host=127.0.0.1 port={server_port}"), settings).await
    }

    /// As [`Self::start`], but with these lines as its section of databases.
    pub async fn start_for(server: &Postgres, databases: &str, settings: PoolSettings) -> Result<Self> {
        let pooler = Self::idle(server).await?;
        let users = format!(
            "\"{USER}\" \"{}\"
\"{SUPERUSER}\" \"{}\"
",
            pooler.password, pooler.superuser_password
        );
        pooler.sandbox.write("users.txt", &users)?;
        let PoolSettings { default_pool_size, reserve_pool_size, max_client_conn, max_prepared_statements } = settings;
        let ini = format!(
            "[databases]\n{databases}\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {DATA}/users.txt\n\
             admin_users = {SUPERUSER}\npool_mode = transaction\ndefault_pool_size = {default_pool_size}\n\
             reserve_pool_size = {reserve_pool_size}\nmax_client_conn = {max_client_conn}\n\
             max_prepared_statements = {max_prepared_statements}\n\
             ignore_startup_parameters = extra_float_digits,options\n\
             server_login_retry = 1\n",
            port = pooler.port()
        );
        pooler.sandbox.write("pgbouncer.ini", &ini)?;
        pooler.start_again().await?;
        Ok(pooler)
    }

    /// Starts a pooler on a configuration that was made for pods: `files` lie in the folder [`Self::FOLDER`], `pgbouncer.ini`
    /// among them, whose port 6432 becomes the one of this pooler.
    pub async fn start_on(server: &Postgres, files: &[(&str, &str)]) -> Result<Self> {
        let pooler = Self::idle(server).await?;
        for (name, text) in files {
            let text = text.replace("listen_port = 6432", &format!("listen_port = {}", pooler.port()));
            let admin = format!("[pgbouncer]\nadmin_users = {SUPERUSER}\n");
            let text = if *name == "pgbouncer.ini" { text.replace("[pgbouncer]\n", &admin) } else { text };
            pooler.sandbox.write(name, &text)?;
        }
        pooler.start_again().await?;
        Ok(pooler)
    }

    /// Where the pooler finds its files.
    pub const FOLDER: &str = DATA;

    async fn idle(server: &Postgres) -> Result<Self> {
        Ok(Self {
            sandbox: Sandbox::new("pgbouncer").await?,
            port: Port::reserve()?,
            password: server.password().to_owned(),
            superuser_password: server.superuser_password().to_owned(),
        })
    }

    /// The pooler's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Connection address of a database, through the pooler, as the ordinary user.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port())
    }

    /// Runs a command on the pooler's own console, for example `SHOW POOLS`; rows one a line, columns separated by `|`.
    pub async fn console(&self, command: &str) -> Result<String> {
        let port = self.port().to_string();
        let args = ["--host", "127.0.0.1", "--port", &port, "--username", SUPERUSER, "--dbname", "pgbouncer"];
        let args = [&args[..], &["--no-psqlrc", "--tuples-only", "--no-align"]].concat();
        let psql = "/usr/lib/postgresql/17/bin/psql";
        let output = self.sandbox.run_ok(psql, &args, &[("PGPASSWORD", &self.superuser_password)], command).await;
        Ok(output.with_context(|| format!("{command} on PgBouncer's console"))?.trim_end().to_owned())
    }

    /// Runs statements as the ordinary user through the pooler, with this `sslmode`; rows one a line. The authority for
    /// `verify-full` is the file `client-ca.crt` of [`Self::start_on`].
    pub async fn sql(&self, database: &str, password: &str, sslmode: &str, statements: &str) -> Result<String> {
        let port = self.port().to_string();
        let args = ["--host", "127.0.0.1", "--port", &port, "--username", USER, "--dbname", database];
        let args =
            [&args[..], &["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "-v", "ON_ERROR_STOP=1"]].concat();
        let authority = format!("{DATA}/client-ca.crt");
        let environment = [("PGPASSWORD", password), ("PGSSLMODE", sslmode), ("PGSSLROOTCERT", &authority)];
        let output = self.sandbox.run_ok("/usr/lib/postgresql/17/bin/psql", &args, &environment, statements).await;
        Ok(output.with_context(|| format!("SQL on database {database} through PgBouncer"))?.trim_end().to_owned())
    }

    /// Stops the pooler at once; clients are disconnected.
    pub async fn stop(&self) -> Result<()> {
        self.sandbox.end("QUIT", Duration::from_secs(10)).await
    }

    /// Asks the pooler to end as the kubelet does: it takes no new clients, serves those that it has, and ends when the last
    /// one has gone. Fails when that takes longer than `timeout`.
    pub async fn drain(&self, timeout: Duration) -> Result<()> {
        self.sandbox.end("TERM", timeout).await
    }

    /// Starts the stopped pooler and waits until its console answers, which does not need the server behind it.
    pub async fn start_again(&self) -> Result<()> {
        self.sandbox.start(&["pgbouncer", &format!("{DATA}/pgbouncer.ini")]).await?;
        self.sandbox.ready(|| async { Ok(!self.console("SHOW VERSION").await?.is_empty()) }).await
    }

    /// Freezes the pooler: connections stay open, nothing answers.
    pub async fn pause(&self) -> Result<()> {
        self.sandbox.pause().await
    }

    /// Ends [`Self::pause`].
    pub async fn resume(&self) -> Result<()> {
        self.sandbox.resume().await
    }
}
