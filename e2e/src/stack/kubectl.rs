//! kubectl, as a person would call it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// kubectl bound to a kubeconfig.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// `program` is the kubectl to run, `kubeconfig` names the cluster.
    pub fn new(program: impl Into<PathBuf>, kubeconfig: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), kubeconfig: kubeconfig.into() }
    }

    /// The kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs kubectl and returns what it printed; an error holds what it complained about.
    pub async fn run(&self, args: &[&str]) -> Result<String> {
        self.run_with_input(args, None).await
    }

    /// `kubectl apply --server-side -f -` with a manifest.
    pub async fn apply(&self, namespace: &str, manifest: &str) -> Result<String> {
        self.run_with_input(&["-n", namespace, "apply", "--server-side", "-f", "-"], Some(manifest)).await
    }

    async fn run_with_input(&self, args: &[&str], input: Option<&str>) -> Result<String> {
        let mut child = Command::new(&self.program)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            stdin.write_all(input.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        if !output.status.success() {
            bail!("kubectl {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
