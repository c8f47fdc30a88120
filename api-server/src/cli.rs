//! Command line: upstream's flags with one or two dashes, and subcommands of our own.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::config::Config;

use crate::commands::lint::LintArgs;
use crate::commands::secrets::ReEncryptOptions;
use crate::service::flush::Flush;
use crate::transfer::{ExportOptions, ImportOptions};

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
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Serve the API and the web UI (the default)
    Serve,
    /// Bring the schema of the PostgreSQL database up to date, then exit
    Migrate,
    /// Check documents in files with the rules of this server, without a server
    Lint(LintArgs),
    /// Bring the documents of another Perses into the configured store
    Import(ImportOptions),
    /// Write all documents to a folder in the layout of Perses
    Export(ExportOptions),
    /// Work on the secrets of the configured store
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Work on the users of the configured store
    #[command(subcommand)]
    Users(UsersCommand),
    /// Work on the cache that servers share
    #[command(subcommand)]
    Cache(CacheCommand),
    /// See to it that a role of the database signs in with a password, then exit
    Login(LoginOptions),
}

/// Subcommands of `cache`.
#[derive(Debug, Clone, Subcommand)]
pub enum CacheCommand {
    /// Forget cached answers of datasources, in all servers that share the configured Redis
    Flush(Flush),
}

/// Subcommands of `users`.
#[derive(Debug, Clone, Subcommand)]
pub enum UsersCommand {
    /// Give the first user the password of `initial_admin.password_file`, unless it has chosen one that is in none of the files
    RenewAdminPassword,
}

/// Flags of `login`.
#[derive(Debug, Clone, Args)]
pub struct LoginOptions {
    /// File with the role's name
    #[arg(long, value_name = "FILE")]
    pub user_file: PathBuf,
    /// File with the password that it is to have
    #[arg(long, value_name = "FILE")]
    pub password_file: PathBuf,
    /// File with the password that it has had until now; with it the role changes its own, else the configured user makes it
    #[arg(long, value_name = "FILE")]
    pub known_password_file: Option<PathBuf>,
}

/// Subcommands of `secrets`.
#[derive(Debug, Clone, Subcommand)]
pub enum SecretsCommand {
    /// Encrypt everything with the current key that is encrypted with one before it, or in the old form of Perses
    ReEncrypt(ReEncryptOptions),
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
    /// Flags of the web server.
    #[command(flatten)]
    pub web: WebOptions,
}

/// Upstream's flags of the web server and of its log (Perses v0.54).
#[derive(Debug, Args)]
pub struct WebOptions {
    /// Certificate chain (PEM) to serve HTTPS with
    #[arg(long = "web.tls-cert-file", global = true, value_name = "FILE")]
    tls_cert_file: Option<PathBuf>,
    /// Key (PEM) of the certificate
    #[arg(long = "web.tls-key-file", global = true, value_name = "FILE")]
    tls_key_file: Option<PathBuf>,
    /// Lowest TLS version: VersionTLS12 (the default) or VersionTLS13
    #[arg(long = "web.tls-min-version", global = true, value_name = "VERSION")]
    tls_min_version: Option<String>,
    /// Highest TLS version
    #[arg(long = "web.tls-max-version", global = true, value_name = "VERSION")]
    tls_max_version: Option<String>,
    /// Cipher suites of TLS 1.2 by their names in Go, with commas
    #[arg(long = "web.tls-cipher-suites", global = true, value_name = "NAMES", value_delimiter = ',')]
    tls_cipher_suites: Vec<String>,
    /// Path of the metrics beside /metrics
    #[arg(long = "web.telemetry-path", global = true, value_name = "PATH")]
    telemetry_path: Option<String>,
    /// Accepted: upstream leaves the port out of its banner, and there is no banner here
    #[arg(long = "web.hide-port", global = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", default_value_t = false)]
    hide_port: bool,
    /// Add the place in the source to each line of the log
    #[arg(long = "log.method-trace", global = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", default_value_t = false)]
    pub method_trace: bool,
    /// Accepted and without effect: Go's profiles have no counterpart here
    #[arg(long, global = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", default_value_t = false)]
    pprof: bool,
}

impl WebOptions {
    /// Puts what the flags say into the configuration; they win.
    pub fn apply(&self, config: &mut Config) -> Result<(), String> {
        let server = &mut config.server;
        let mut tls = server.tls.clone().unwrap_or_default();
        let set_file = |to: &mut PathBuf, from: &Option<PathBuf>| {
            if let Some(file) = from.as_ref().filter(|file| !file.as_os_str().is_empty()) {
                to.clone_from(file);
            }
        };
        set_file(&mut tls.cert_file, &self.tls_cert_file);
        set_file(&mut tls.key_file, &self.tls_key_file);
        let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        tls.min_version = said(&self.tls_min_version).or(tls.min_version);
        tls.max_version = said(&self.tls_max_version).or(tls.max_version);
        let suites: Vec<String> = self.tls_cipher_suites.iter().filter(|name| !name.is_empty()).cloned().collect();
        if !suites.is_empty() {
            tls.cipher_suites = suites;
        }
        let has = |path: &PathBuf| !path.as_os_str().is_empty();
        match (has(&tls.cert_file), has(&tls.key_file)) {
            (true, true) => server.tls = Some(tls),
            // Versions and suites alone switch nothing on, as upstream has it.
            (false, false) => {}
            _ => return Err("--web.tls-cert-file and --web.tls-key-file are needed together".to_owned()),
        }
        if let Some(path) = said(&self.telemetry_path) {
            server.telemetry_path = Some(path);
        }
        if self.pprof {
            tracing::warn!("--pprof has no effect: this server has no profiles of Go's kind");
        }
        Ok(())
    }
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

    fn configured(args: &[&str]) -> Result<Config, String> {
        let args = std::iter::once("perses-api-server").chain(args.iter().copied()).map(str::to_owned);
        let mut config = Config::default();
        Cli::parse_from(normalise(args)).options.web.apply(&mut config)?;
        Ok(config)
    }

    #[test]
    fn flags_of_upstream_reach_the_configuration() {
        let config = configured(&[
            "-web.tls-cert-file=/c.pem",
            "--web.tls-key-file",
            "/k.pem",
            "-web.tls-min-version=VersionTLS13",
            "-web.tls-cipher-suites=A,B",
            "-web.telemetry-path=/m",
            "-web.hide-port",
            "-pprof=false",
            "-log.method-trace=true",
        ]);
        let server = config.unwrap().server;
        assert_eq!(server.telemetry_path.as_deref(), Some("/m"));
        let tls = server.tls.unwrap();
        assert_eq!((tls.cert_file.to_str(), tls.key_file.to_str()), (Some("/c.pem"), Some("/k.pem")));
        assert_eq!((tls.min_version.as_deref(), tls.cipher_suites.len()), (Some("VersionTLS13"), 2));
        assert!(configured(&["-web.tls-cert-file=/c.pem"]).unwrap_err().contains("together"));
        assert!(configured(&["-web.tls-min-version=VersionTLS12"]).unwrap().server.tls.is_none());
    }

    #[test]
    fn an_address_without_host_is_every_interface() {
        assert_eq!(listen_address(":8080").unwrap().to_string(), "0.0.0.0:8080");
        assert!(listen_address("8080").is_err());
    }
}
