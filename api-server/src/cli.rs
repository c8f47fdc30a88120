//! Command line: upstream's flags with one or two dashes, and subcommands of our own.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A Perses-compatible dashboard server on files or PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "perses-api-server", version, about, long_about = None, args_override_self = true)]
pub struct Cli {
    /// What to do; `serve` when left out.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of every subcommand.
    #[command(flatten)]
    pub options: Options,
}

/// Subcommands.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Serve the API and the web UI (the default)
    Serve,
    /// Bring the schema of the PostgreSQL database up to date, then exit
    Migrate,
}

/// Flags.
#[derive(Debug, Args)]
pub struct Options {
    /// Configuration file (YAML); every key can also be set by a variable `PERSES_<PATH>`
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address to listen on; `:8080` means all interfaces. Without sign-in the default is this machine only
    #[arg(long = "web.listen-address", global = true, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub listen_address: String,
    /// Serve the web UI from this folder instead of the one in the binary
    #[arg(long = "web.ui-dir", global = true, value_name = "DIR")]
    pub ui_dir: Option<PathBuf>,
    /// Least level to log: error, warn, info, debug, trace
    #[arg(long = "log.level", global = true, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
    /// Form of the log: text or json
    #[arg(long = "log.format", global = true, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
}

/// Turns upstream's one-dash flags into two-dash ones, so that both forms work.
pub fn normalise(args: impl Iterator<Item = String>) -> Vec<String> {
    args.map(|arg| {
        let long = arg.strip_prefix('-').is_some_and(|rest| rest.len() > 1 && !rest.starts_with('-'));
        if long { format!("-{arg}") } else { arg }
    })
    .collect()
}

/// Reads a listen address; a missing host means every interface.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    full.parse().map_err(|_| format!("--web.listen-address {text:?} is not an address such as :8080 or 127.0.0.1:8080"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn one_dash_or_two_and_the_last_wins() {
        Cli::command().debug_assert();
        let args = [
            "perses-api-server",
            "--web.listen-address=:8080",
            "-config=/a.yaml",
            "-web.listen-address=:9090",
            "serve",
        ];
        let cli = Cli::parse_from(normalise(args.into_iter().map(str::to_owned)));
        assert_eq!(cli.options.listen_address, ":9090");
        assert_eq!(cli.options.config.unwrap().to_str(), Some("/a.yaml"));
        assert!(matches!(cli.command, Some(Command::Serve)));
    }

    #[test]
    fn an_address_without_host_is_every_interface() {
        assert_eq!(listen_address(":8080").unwrap().to_string(), "0.0.0.0:8080");
        assert!(listen_address("8080").is_err());
    }
}
