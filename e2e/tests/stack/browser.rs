//! The web UI of the stack in a real browser (`e2e/browser`).

use anyhow::{Context, Result, ensure};
use e2e::paths::workspace_dir;
use tokio::process::Command;

use crate::world::World;

#[tokio::test]
async fn a_browser_signs_in_sees_charts_and_saves_without_loss() -> Result<()> {
    let world = World::enter().await?;
    let folder = workspace_dir().join("e2e/browser");
    let (login, password) = world.stack.admin().await?;
    let npm = Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder).status().await;
    ensure!(npm.context("starting npm: install Node.js 20 or newer")?.success(), "npm ci failed in e2e/browser");
    let status = Command::new("npm")
        .arg("test")
        .current_dir(&folder)
        .env("PERSES_URL", world.perses.base())
        .env("PERSES_LOGIN", login)
        .env("PERSES_PASSWORD", password)
        .env("PROMETHEUS_URL", format!("http://prometheus.{}.svc:9090", world.stack.namespace))
        .status()
        .await
        .context("starting npm")?;
    ensure!(status.success(), "the browser's stories failed: see above");
    Ok(())
}
