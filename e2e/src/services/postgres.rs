//! A real PostgreSQL 17 for tests, with streaming standbys.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    services::{
        READY_TIMEOUT,
        port::Port,
        random_password,
        sandbox::{DATA, Sandbox},
    },
    wait::wait_until,
};

/// The owner of the databases that tests use: an ordinary user, as database operators create it.
pub const USER: &str = "perses";

/// The bootstrap superuser.
pub const SUPERUSER: &str = "postgres";

const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server. Dropping it stops it and removes its data.
#[derive(Debug)]
pub struct Postgres {
    sandbox: Sandbox,
    port: Port,
    passwords: Arc<Passwords>,
    databases: AtomicU32,
}

#[derive(Debug)]
struct Passwords {
    user: String,
    superuser: String,
}

/// A database of its own for one test.
#[derive(Debug, Clone)]
pub struct Database {
    /// The name.
    pub name: String,
    /// Connection address as the owner.
    pub url: String,
    /// Connection address as a superuser.
    pub superuser_url: String,
}

impl Postgres {
    /// Starts a primary with the defaults of the tests.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a primary with more settings, for example `("max_connections", "20")`. Values must hold no quotes.
    pub async fn start_with(settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_from(settings, &[]).await
    }

    /// Starts a primary that speaks TLS with this certificate and key (PEM).
    pub async fn start_with_tls(certificate: &str, key: &str) -> Result<Self> {
        let (certificate_file, key_file) = (format!("{DATA}/server.crt"), format!("{DATA}/server.key"));
        let settings = [("ssl", "on"), ("ssl_cert_file", &certificate_file), ("ssl_key_file", &key_file)];
        Self::start_from(&settings, &[("server.crt", certificate), ("server.key", key)]).await
    }

    async fn start_from(settings: &[(&str, &str)], files: &[(&str, &str)]) -> Result<Self> {
        let passwords = Arc::new(Passwords { user: random_password(), superuser: random_password() });
        let server = Self {
            sandbox: Sandbox::new("postgres").await?,
            port: Port::reserve()?,
            passwords,
            databases: AtomicU32::new(0),
        };
        server.sandbox.write("superuser-password", &server.passwords.superuser)?;
        for (name, text) in files {
            server.sandbox.write(name, text)?;
        }
        let pgdata = pgdata();
        let password_file = format!("--pwfile={DATA}/superuser-password");
        let init = ["--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256"];
        let init = [&init[..], &["--pgdata", &pgdata, "--username", SUPERUSER, &password_file]].concat();
        server.sandbox.run_ok("initdb", &init, &[], "").await?;

        let mut conf = format!(
            // No test outlives the machine, so nothing has to reach the disk; a killed server still loses nothing.
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{DATA}'\nfsync = off\n\
             full_page_writes = off\nmax_connections = 200\nwal_level = replica\nmax_wal_senders = 10\n\
             wal_keep_size = 256MB\nhot_standby = on\nlog_line_prefix = '%m [%p] %u@%d '\nautovacuum_naptime = 10s\n",
            server.port.number()
        );
        for (name, value) in settings {
            _ = writeln!(conf, "{name} = '{value}'");
        }
        server.append_conf(&conf).await?;
        server.start_again().await?;
        let create_user = format!("CREATE ROLE {USER} LOGIN PASSWORD '{}'", server.passwords.user);
        server.sql("postgres", &create_user).await?;
        Ok(server)
    }

    /// Starts a streaming standby of this server and waits until it is connected.
    pub async fn replica(&self) -> Result<Self> {
        self.replica_through(self.port()).await
    }

    /// As [`Self::replica`], but the standby reaches this server at another loopback port, for example through a
    /// [`TcpProxy`](crate::services::TcpProxy) that can cut it off.
    pub async fn replica_through(&self, port: u16) -> Result<Self> {
        let replica = Self {
            sandbox: Sandbox::new("postgres-replica").await?,
            port: Port::reserve()?,
            passwords: Arc::clone(&self.passwords),
            databases: AtomicU32::new(0),
        };
        // The password goes by environment for the copy and by a file that only the standby reads afterwards.
        let pass = format!("127.0.0.1:{port}:*:{SUPERUSER}:{}\n", self.passwords.superuser);
        replica.sandbox.write("pgpass", &pass)?;
        let source = format!("host=127.0.0.1 port={port} user={SUPERUSER} passfile={DATA}/pgpass");
        let pgdata = pgdata();
        let args = ["--dbname", &source, "--pgdata", &pgdata, "--write-recovery-conf", "--wal-method=stream"];
        let args = [&args[..], &["--checkpoint=fast", "--no-sync"]].concat();
        replica.sandbox.run_ok("pg_basebackup", &args, &[], "").await?;
        replica.append_conf(&format!("port = {}\nprimary_conninfo = '{source}'\n", replica.port())).await?;
        replica.start_again().await?;
        self.wait_for_replay(&replica).await?;
        Ok(replica)
    }

    /// Waits until `replica` has replayed everything that is committed here now.
    pub async fn wait_for_replay(&self, replica: &Self) -> Result<()> {
        let target = self.sql("postgres", "SELECT pg_current_wal_lsn()").await?;
        let query = format!("SELECT pg_last_wal_replay_lsn() >= '{target}'::pg_lsn");
        let replayed = || async { Ok(replica.sql("postgres", &query).await? == "t") };
        wait_until("the standby to replay the primary's changes", READY_TIMEOUT, replayed).await
    }

    /// Holds back what this standby replays; it goes on receiving.
    pub async fn pause_replay(&self) -> Result<()> {
        self.sql("postgres", "SELECT pg_wal_replay_pause()").await?;
        let paused = || async { Ok(self.sql("postgres", "SELECT pg_get_wal_replay_pause_state()").await? == "paused") };
        wait_until("the standby to pause", READY_TIMEOUT, paused).await
    }

    /// Ends [`Self::pause_replay`].
    pub async fn resume_replay(&self) -> Result<()> {
        self.sql("postgres", "SELECT pg_wal_replay_resume()").await.map(|_| ())
    }

    /// Makes a primary of this standby and waits until it takes writes.
    pub async fn promote(&self) -> Result<()> {
        self.sql("postgres", "SELECT pg_promote(true, 60)").await?;
        let promoted = || async { Ok(self.sql("postgres", "SELECT pg_is_in_recovery()").await? == "f") };
        wait_until("the standby to be a primary", READY_TIMEOUT, promoted).await
    }

    /// A new, empty database that belongs to [`USER`].
    pub async fn create_database(&self) -> Result<Database> {
        self.create_database_from("template1").await
    }

    /// A new database as a copy of `template` (to which nobody may be connected), for example one with the schema.
    pub async fn create_database_from(&self, template: &str) -> Result<Database> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER {USER} TEMPLATE \"{template}\"")).await?;
        Ok(Database { url: self.url(&name), superuser_url: self.superuser_url(&name), name })
    }

    /// Runs SQL as the superuser through `psql`; rows come one a line, columns separated by `|`.
    pub async fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let port = self.port().to_string();
        let args = ["--host", DATA, "--port", &port, "--username", SUPERUSER, "--dbname", database];
        let args =
            [&args[..], &["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "-v", "ON_ERROR_STOP=1"]].concat();
        // Absolute: the `psql` on the search path is a wrapper in Perl, which takes longer than the query.
        let psql = "/usr/lib/postgresql/17/bin/psql";
        let output = self.sandbox.run_ok(psql, &args, &[("PGPASSWORD", &self.passwords.superuser)], sql).await;
        Ok(output.with_context(|| format!("SQL on database {database}"))?.trim_end().to_owned())
    }

    /// The address of the server: always 127.0.0.1.
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The password of [`USER`].
    pub fn password(&self) -> &str {
        &self.passwords.user
    }

    /// The password of [`SUPERUSER`].
    pub fn superuser_password(&self) -> &str {
        &self.passwords.superuser
    }

    /// Connection address of a database as [`USER`].
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.passwords.user, self.port())
    }

    /// Connection address of a database as [`SUPERUSER`].
    pub fn superuser_url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{database}", self.passwords.superuser, self.port())
    }

    /// Stops the server in order; open transactions are rolled back ("fast shutdown").
    pub async fn stop(&self) -> Result<()> {
        self.sandbox.end("INT", STOP_TIMEOUT).await
    }

    /// Ends all processes of the server at once, as a dying machine or a killed container does.
    pub async fn kill(&self) -> Result<()> {
        self.sandbox.end("KILL", STOP_TIMEOUT).await
    }

    /// Starts the stopped or killed server with its data and waits until it answers.
    pub async fn start_again(&self) -> Result<()> {
        self.sandbox.start(&["postgres", "-D", &pgdata()]).await?;
        self.sandbox.ready(|| async { Ok(self.sql("postgres", "SELECT 1").await? == "1") }).await
    }

    /// Freezes the server: connections stay open, nothing answers.
    pub async fn pause(&self) -> Result<()> {
        self.sandbox.pause().await
    }

    /// Ends [`Self::pause`].
    pub async fn resume(&self) -> Result<()> {
        self.sandbox.resume().await
    }

    /// The end of the server's log.
    pub fn log_tail(&self) -> String {
        self.sandbox.log_tail()
    }

    /// Later lines win over earlier ones.
    async fn append_conf(&self, text: &str) -> Result<()> {
        let path = self.sandbox.data().join("pg/postgresql.conf");
        let old = tokio::fs::read_to_string(&path).await.context("read postgresql.conf")?;
        tokio::fs::write(&path, old + "\n" + text).await.context("write postgresql.conf")
    }
}

fn pgdata() -> String {
    format!("{DATA}/pg")
}
