//! Prometheus' own tool for rules.

use anyhow::Result;

use super::sandbox::{DATA, Sandbox};

/// Runs `promtool <args> <file>` for the first of `files`; the others, named relative to it, are beside it.
///
/// # Errors
/// It fails; its output is in the error.
pub async fn promtool(args: &[&str], files: &[(&str, &str)]) -> Result<()> {
    let sandbox = Sandbox::new("promtool").await?;
    for (name, text) in files {
        sandbox.write(name, text)?;
    }
    let file = format!("{DATA}/{}", files.first().map_or("", |(name, _)| name));
    let args: Vec<&str> = args.iter().copied().chain([file.as_str()]).collect();
    sandbox.run_ok("promtool", &args, &[], "").await?;
    Ok(())
}
