//! The programs that are measured: our server and nginx, each on the server's core.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    bench::pin::Cores,
    perses::Perses,
    services::{PgBouncer, Port, Postgres},
    wait::{wait_for, wait_until},
};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const ADMIN: &str = "admin";
const PASSWORD: &str = "bench-admin-password";

/// A measured program; dropping it ends it.
pub(super) struct Subject {
    name: &'static str,
    child: Child,
    port: Port,
    log: PathBuf,
}

impl Subject {
    pub(super) fn start(
        name: &'static str,
        mut command: std::process::Command,
        port: Port,
        folder: &Path,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).context("create a log file")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("share a log file")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {name} through taskset (Debian package util-linux)"))?;
        Ok(Self { name, child, port, log })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.number()))
    }

    /// What the tables call it.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Resident memory now, in MB.
    pub(super) fn resident(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).context("read a server's status")?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in a server's status")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
        Ok(kilobytes / 1000.0)
    }

    /// Its process; `taskset` has become it.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) async fn ready(&mut self, path: &str) -> Result<()> {
        let url = format!("http://{}", self.address());
        let client = Perses::new(&url)?;
        let child = &mut self.child;
        let ended = std::cell::Cell::new(false);
        let what = format!("{url}{path} to answer");
        let answers = wait_until(&what, START_TIMEOUT, || {
            ended.set(ended.get() || !matches!(child.try_wait(), Ok(None)));
            let (client, ended) = (client.clone(), ended.get());
            // An ended program will not answer: no need to wait for the deadline.
            async move { Ok(ended || client.get(path).await?.status.is_success()) }
        });
        let result = answers.await;
        if result.is_err() || ended.get() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("{url} does not answer; the log says:\n{log}");
        }
        Ok(())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Where our server keeps its documents.
pub(super) enum Backend {
    /// Files, with caches as the operator sets them.
    Files,
    /// PostgreSQL through a pooler in transaction mode, and no cache at all.
    Database(Box<(Postgres, PgBouncer)>),
    /// Files of its own, and this section `cache`.
    Cached(Value),
    /// One of several on a database of PostgreSQL, and this section `cache`.
    Shared(Arc<Postgres>, Value),
}

/// Starts our server, with sign-in on, and signs in.
pub(super) async fn start_server(
    name: &'static str,
    binary: &Path,
    backend: &Backend,
    cores: Cores,
    folder: &Path,
) -> Result<(Subject, Perses)> {
    let folder = &folder.join(name.replace(' ', "-"));
    fs::create_dir_all(folder).context("create the server's folder")?;
    ensure!(
        binary.is_file(),
        "{} does not exist; build it: cargo build --release -p perses-api-server",
        binary.display()
    );
    let config = folder.join("config.yaml");
    // JSON is YAML.
    fs::write(&config, server_config(backend, folder)?.to_string()).context("write the server's configuration")?;
    let config_flag = format!("--config={}", config.display());
    if matches!(backend, Backend::Database(_) | Backend::Shared(..)) {
        let output = std::process::Command::new(binary).args(["migrate", &config_flag]).output();
        let output = output.with_context(|| format!("run {} migrate", binary.display()))?;
        ensure!(output.status.success(), "migrate failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let port = Port::reserve()?;
    let mut command = cores.on_server(binary);
    command.args(["serve", &config_flag, &format!("--web.listen-address=127.0.0.1:{}", port.number())]);
    let mut server = Subject::start(name, command, port, folder)?;
    server.ready("/readyz").await?;
    let client = Perses::new(&format!("http://{}", server.address()))?;
    // The server makes its first user in the background after it is ready.
    let sign_in = || async { client.clone().sign_in(ADMIN, PASSWORD).await.map(Some) };
    let client = wait_for("the first user to exist", START_TIMEOUT, sign_in).await?;
    Ok((server, client))
}

/// As the operator configures it, but for the life of the token, which has to outlast the benchmark.
fn server_config(backend: &Backend, folder: &Path) -> Result<Value> {
    let file = |name: &str, text: &str| -> Result<PathBuf> {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {name}"))?;
        Ok(path)
    };
    let mut config = json!({
        "security": {
            "enable_auth": true,
            "encryption_key_file": file("key", "0123456789abcdef0123456789abcdef")?,
            "authentication": {
                "access_token_ttl": "1d",
                "disable_sign_up": true,
                "providers": {"enable_native": true},
                "initial_admin": {"username_file": file("user", ADMIN)?, "password_file": file("password", PASSWORD)?},
            },
        },
        "cache": {"l1_max_bytes": if matches!(backend, Backend::Files) { 200 << 20 } else { 0 }},
    });
    let database = |postgres: &Postgres, port: u16| {
        let password = file("database-password", postgres.password())?;
        anyhow::Ok(json!({"postgres": {
            "host": postgres.host(), "port": port, "dbname": "bench", "sslmode": "prefer",
            "user": crate::services::USER, "password_file": password,
        }}))
    };
    config["database"] = match backend {
        Backend::Files | Backend::Cached(_) => json!({"file": {"folder": folder.join("db"), "extension": "json"}}),
        Backend::Database(services) => database(&services.0, services.1.port())?,
        Backend::Shared(postgres, _) => database(postgres, postgres.port())?,
    };
    if let Backend::Cached(cache) | Backend::Shared(_, cache) = backend {
        config["cache"] = cache.clone();
    }
    Ok(config)
}

/// Starts nginx as it serves files best: one process, sendfile, open files kept, no access log.
pub(super) async fn start_nginx(files: &Path, cores: Cores, folder: &Path) -> Result<Subject> {
    let port = Port::reserve()?;
    let temp = folder.join("nginx");
    fs::create_dir_all(&temp).context("create nginx' folder")?;
    let temp = temp.display();
    let paths =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {temp}/{name};"));
    let conf = format!(
        "daemon off; master_process off; worker_processes 1; pid {temp}/pid; error_log stderr error;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n{paths}\nsendfile on; tcp_nopush on; keepalive_timeout 75s; keepalive_requests 1000000000;\n\
         access_log off; gzip_static on; open_file_cache max=2000 inactive=1h; open_file_cache_valid 1h; default_type application/json;\n\
         server {{ listen 127.0.0.1:{port}; root {files}; }}\n}}\n",
        paths = paths.join("\n"),
        port = port.number(),
        files = files.display(),
    );
    let conf_file = folder.join("nginx.conf");
    fs::write(&conf_file, conf).context("write nginx' configuration")?;
    let mut command = cores.on_server("nginx");
    command.arg("-c").arg(&conf_file);
    let mut nginx = Subject::start("nginx", command, port, folder)?;
    nginx.ready("/ready").await.context("nginx (Debian package nginx-light)")?;
    Ok(nginx)
}

/// The real Perses, and the sign-in of its user.
pub(super) struct Peer {
    pub(super) subject: Subject,
    /// Value of `Authorization`.
    pub(super) authorization: String,
    _folder: tempfile::TempDir,
}

/// Starts the real Perses on files of its own with these documents, with sign-in and roles on as ours.
pub(super) async fn start_perses(program: &Path, cores: Cores, documents: &[Value]) -> Result<Peer> {
    // It writes the folder of its lists in lower case, the path to it included: no random letters here.
    let folder =
        tempfile::Builder::new().prefix(&format!("perses-bench-{}", std::process::id())).rand_bytes(0).tempdir();
    let folder = folder.context("create a folder for Perses")?;
    let database = folder.path().join("db");
    let all = json!({"permissions": [{"actions": ["*"], "scopes": ["*"]}]});
    let binding = json!({"role": "all", "subjects": [{"kind": "User", "name": ADMIN}]});
    let roles = [
        json!({"kind": "GlobalRole", "metadata": {"name": "all"}, "spec": all}),
        json!({"kind": "GlobalRoleBinding", "metadata": {"name": "all"}, "spec": binding}),
    ];
    for document in roles.iter().chain(documents) {
        write_document(&database, document)?;
    }
    let config = json!({
        "security": {
            "enable_auth": true,
            "encryption_key": "0123456789abcdef0123456789abcdef",
            "authentication": {"access_token_ttl": "1d", "providers": {"enable_native": true}},
        },
        "database": {"file": {"folder": database, "extension": "json"}},
        "plugin": {"path": folder.path().join("plugins"), "archive_paths": [folder.path().join("archives")]},
    });
    for name in ["plugins", "archives"] {
        fs::create_dir_all(folder.path().join(name)).context("create a folder for Perses")?;
    }
    let config_file = folder.path().join("config.yaml");
    fs::write(&config_file, config.to_string()).context("write the configuration of Perses")?;
    let port = Port::reserve()?;
    let mut command = cores.on_server(program);
    command.arg(format!("--config={}", config_file.display()));
    command.args([format!("--web.listen-address=127.0.0.1:{}", port.number()), "--log.level=error".to_owned()]);
    let mut subject = Subject::start("Perses (Go)", command, port, folder.path())?;
    subject.ready("/api/v1/health").await?;
    let client = Perses::new(&format!("http://{}", subject.address()))?;
    let user = json!({"kind": "User", "metadata": {"name": ADMIN}, "spec": {"nativeProvider": {"password": PASSWORD}}});
    client
        .send(reqwest::Method::POST, "/api/v1/users", Some(&user))
        .await?
        .ok()
        .context("create the user of Perses")?;
    let client = client.sign_in(ADMIN, PASSWORD).await?;
    let authorization = format!("Bearer {}", client.token().context("no token of Perses")?);
    Ok(Peer { subject, authorization, _folder: folder })
}

fn write_document(database: &Path, document: &Value) -> Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut document = document.clone();
    let metadata = &mut document["metadata"];
    metadata["createdAt"] = json!("2026-01-01T00:00:00Z");
    metadata["updatedAt"] = json!("2026-01-01T00:00:00Z");
    metadata["version"] = json!(0);
    let (project, name) = (text(&metadata["project"]), text(&metadata["name"]));
    let folder = database.join(format!("{}s", text(&document["kind"]).to_lowercase())).join(project);
    fs::create_dir_all(&folder).context("create a folder of Perses")?;
    fs::write(folder.join(format!("{name}.json")), document.to_string()).context("write a document of Perses")
}
