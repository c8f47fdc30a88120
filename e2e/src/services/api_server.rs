//! The server of this project as a process of its own, on a folder of files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Child;

use crate::perses::Perses;
use crate::services::Port;
use crate::{paths, wait};

const READY: Duration = Duration::from_mins(1);

/// A server with sign-in. Dropping it ends the process and removes its files.
#[derive(Debug)]
pub struct ApiServer {
    child: Option<Child>,
    port: Port,
    folder: TempDir,
    user: String,
    password: String,
    /// Who signed its certificate, when it serves TLS.
    authority: Option<String>,
    /// What it has as `/etc/hosts`, when that is not the machine's.
    hosts: Option<PathBuf>,
}

/// A server's certificate with its key and who signed it, all PEM.
#[derive(Debug, Clone, Copy)]
pub struct Tls<'a> {
    /// The certificate, for 127.0.0.1.
    pub certificate: &'a str,
    /// Its private key.
    pub key: &'a str,
    /// The authority's certificate.
    pub authority: &'a str,
}

impl ApiServer {
    /// Starts a server whose first user is an administrator of this name and password. `more` is merged over the
    /// configuration, key by key at the top; a `database.postgres` in it is migrated first.
    pub async fn start(user: &str, password: &str, more: &Value) -> Result<Self> {
        Self::launch(user, password, more, None, None).await
    }

    /// As [`Self::start`]; the server looks names up in this file in place of `/etc/hosts`.
    pub async fn start_with_hosts(user: &str, password: &str, more: &Value, hosts: &Path) -> Result<Self> {
        Self::launch(user, password, more, None, Some(hosts.to_owned())).await
    }

    /// As [`Self::start`], serving TLS with this certificate.
    pub async fn start_with_tls(user: &str, password: &str, tls: Tls<'_>) -> Result<Self> {
        Self::launch(user, password, &json!({}), Some(tls), None).await
    }

    async fn launch(
        user: &str,
        password: &str,
        more: &Value,
        tls: Option<Tls<'_>>,
        hosts: Option<PathBuf>,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("username"), user)?;
        std::fs::write(path("password"), password)?;
        std::fs::write(path("key"), rand::random::<[u8; 32]>())?;
        let mut config = json!({
            "security": {
                "enable_auth": true,
                "encryption_key_file": path("key"),
                "authentication": {
                    "disable_sign_up": true,
                    "providers": {"enable_native": true},
                    "initial_admin": {"username_file": path("username"), "password_file": path("password")},
                },
            },
            "database": {"file": {"folder": path("documents"), "extension": "json"}},
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        if tls.is_some() {
            config["server"]["tls"] = json!({"cert_file": path("tls.crt"), "key_file": path("tls.key")});
        }
        // JSON is YAML.
        std::fs::write(path("config.yaml"), config.to_string())?;
        if config["database"]["postgres"].is_object() {
            let binary = tokio::task::spawn_blocking(binary).await??;
            let config = format!("--config={}", path("config.yaml").display());
            let output = tokio::process::Command::new(binary).args(["migrate", &config]).output().await?;
            if !output.status.success() {
                bail!("migrate: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
        let (user, password) = (user.to_owned(), password.to_owned());
        let mut server = Self { child: None, port: Port::reserve()?, folder, user, password, authority: None, hosts };
        if let Some(tls) = tls {
            server.present(tls)?;
        }
        server.start_again().await?;
        Ok(server)
    }

    /// The base address.
    pub fn url(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port.number())
    }

    /// Gives a server that serves TLS this certificate, for its next start.
    pub fn present(&mut self, tls: Tls<'_>) -> Result<()> {
        std::fs::write(self.folder.path().join("tls.crt"), tls.certificate)?;
        std::fs::write(self.folder.path().join("tls.key"), tls.key)?;
        self.authority = Some(tls.authority.to_owned());
        Ok(())
    }

    /// The port, on loopback.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Ends the process; its address refuses connections from now on.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Starts the stopped server on its files and waits until the administrator can sign in.
    pub async fn start_again(&mut self) -> Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log"))?;
        let binary = tokio::task::spawn_blocking(binary).await??;
        let mut command = match &self.hosts {
            None => tokio::process::Command::new(&binary),
            // In a mount namespace of its own, of which nothing is left when the server has ended.
            Some(hosts) => {
                let mut command = tokio::process::Command::new("unshare");
                command.args(["--mount", "sh", "-c", r#"mount --bind "$0" /etc/hosts && exec "$@""#]);
                command.arg(hosts).arg(&binary);
                command
            }
        };
        let mut child = command
            .arg("serve")
            .arg(format!("--config={}", self.folder.path().join("config.yaml").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", self.port.number()))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let ready = wait::wait_for("the server to let the administrator in", READY, || async {
            Ok(self.client().await.ok().map(drop))
        });
        tokio::select! {
            ready = ready => ready.with_context(|| self.log())?,
            ended = child.wait() => bail!("the server has ended ({}): {}", ended?, self.log()),
        }
        self.child = Some(child);
        Ok(())
    }

    /// A client that is signed in as the administrator.
    pub async fn client(&self) -> Result<Perses> {
        let client = match &self.authority {
            Some(authority) => Perses::trusting(&self.url(), authority),
            None => Perses::new(&self.url()),
        };
        client?.sign_in(&self.user, &self.password).await
    }

    /// Runs `perses-api-server lint --strict` on a document; an error when it finds anything.
    pub async fn lint(document: &Value) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("documents.json");
        std::fs::write(&file, document.to_string())?;
        let binary = tokio::task::spawn_blocking(binary).await??;
        let output = tokio::process::Command::new(binary).args(["lint", "--strict", "-f"]).arg(&file).output().await?;
        if !output.status.success() {
            bail!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// The program, compiled once by this process.
fn binary() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))).clone().map_err(|text| anyhow!(text))
}

fn build() -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg("build").current_dir(paths::workspace_dir());
    // What cargo tells a running test would change the fingerprints of build scripts that look at it.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_") && !matches!(&*text, "CARGO_HOME" | "CARGO_TARGET_DIR") {
            cargo.env_remove(&name);
        }
    }
    // The whole workspace: with `--package` cargo would choose other features for shared crates and compile them again.
    let status = cargo.args(["--quiet", "--workspace", "--bin", "perses-api-server"]).status();
    let status = status.context("starting cargo")?;
    if !status.success() {
        bail!("cargo build of the server failed ({status}); its messages are above");
    }
    Ok(paths::target_dir().join("debug/perses-api-server"))
}
