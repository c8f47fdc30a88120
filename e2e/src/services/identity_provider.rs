//! A real OpenID provider for tests: `e2e/identity-provider`, run by Node.js.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::paths;
use crate::services::{READY_TIMEOUT, port::Port};
use crate::wait::wait_until;

/// Its files in the clone.
const FILES: [&str; 3] = ["package.json", "package-lock.json", "server.mjs"];

/// A running provider. Whoever is asked to sign in there is the account that `login_hint` names, and agrees to everything.
/// Dropping it stops it.
#[derive(Debug)]
pub struct IdentityProvider {
    port: Port,
    settings: Value,
    folder: TempDir,
    process: Option<Child>,
}

impl IdentityProvider {
    /// Starts one with these clients (metadata of OpenID dynamic registration) and accounts (id to claims).
    pub async fn start(clients: Value, accounts: Value) -> Result<Self> {
        let port = Port::reserve()?;
        let settings = json!({"port": port.number(), "clients": clients, "accounts": accounts});
        let mut provider = Self { port, settings, folder: tempfile::tempdir()?, process: None };
        provider.spawn().await?;
        Ok(provider)
    }

    /// Its issuer, which is its address.
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// Ends it.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().await.context("ending the identity provider")?;
        }
        Ok(())
    }

    /// Ends it and starts it at the same address: with new keys and without sessions.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.spawn().await
    }

    async fn spawn(&mut self) -> Result<()> {
        let installed = tokio::task::spawn_blocking(install).await??;
        let log = self.folder.path().join("log");
        let output = File::options().create(true).append(true).open(&log)?;
        let process = Command::new("node")
            .arg(installed.join("server.mjs"))
            .env("IDENTITY_PROVIDER", self.settings.to_string())
            // It ends when this pipe does, whatever ends us.
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .context("starting node: install Node.js 20.19 or newer")?;
        self.process = Some(process);
        _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        let url = format!("{}/.well-known/openid-configuration", self.issuer());
        let ready = wait_until("the identity provider to answer", READY_TIMEOUT, || {
            let request = http.get(&url);
            async move { Ok(request.send().await?.status().is_success()) }
        });
        ready.await.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())
    }
}

/// The folder in the cache with the provider and its packages; made by the first who asks.
fn install() -> Result<PathBuf> {
    let source = paths::workspace_dir().join("e2e/identity-provider");
    let mut hash = blake3::Hasher::new();
    for file in FILES {
        hash.update(&std::fs::read(source.join(file)).with_context(|| format!("reading {file}"))?);
    }
    let parent = paths::cache_dir()?;
    let folder = parent.join(format!("identity-provider-{}", &hash.finalize().to_hex()[..16]));
    if folder.is_dir() {
        return Ok(folder);
    }
    let lock = File::create(parent.join("identity-provider.lock"))?;
    lock.lock().context("locking the cache of the identity provider")?;
    if folder.is_dir() {
        return Ok(folder);
    }
    let temporary = tempfile::Builder::new().prefix("identity-provider.").tempdir_in(&parent)?;
    for file in FILES {
        std::fs::copy(source.join(file), temporary.path().join(file))?;
    }
    npm_ci(temporary.path())?;
    std::fs::rename(temporary.keep(), &folder).with_context(|| format!("renaming to {}", folder.display()))?;
    Ok(folder)
}

fn npm_ci(folder: &Path) -> Result<()> {
    let output = std::process::Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund"])
        .current_dir(folder)
        .output()
        .context("starting npm: install Node.js 20.19 or newer")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "npm ci in e2e/identity-provider failed ({}):\n{text}", output.status);
    Ok(())
}
