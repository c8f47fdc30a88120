//! `import` and `export`: documents from and to a folder in upstream's layout, from another Perses server, from upstream's
//! MySQL. Documents keep their times, versions and specs; secrets stay readable.

mod apply;
mod export;
mod http;
mod mysql;
mod report;
mod source;

use std::path::PathBuf;

use clap::Args;

pub use self::export::export;
pub use self::report::{Report, Row};
pub use self::source::Source;

use crate::auth::crypto::SecretBox;
use crate::config::Config;
use crate::state;

/// `import`.
#[derive(Debug, Clone, Default, Args)]
pub struct ImportOptions {
    /// What to import: a folder in the layout of Perses, the address of a Perses server (http:// or https://), or its
    /// database (mysql://user@host:3306/perses)
    #[arg(long, value_name = "FOLDER|URL")]
    pub from: String,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Replace documents that are there and differ; without it they are skipped
    #[arg(long)]
    pub overwrite: bool,
    /// The key (32 bytes) that the secrets of a folder or database were encrypted with; without it the key of this server
    #[arg(long, value_name = "FILE")]
    pub source_encryption_key_file: Option<PathBuf>,
    /// User to sign in as at the server
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// File with the user's password, of the server or of the database
    #[arg(long, value_name = "FILE", env = "PERSES_IMPORT_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that the server's is checked with, instead of those of this machine
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// File with a bearer token for the server
    #[arg(long, value_name = "FILE", env = "PERSES_IMPORT_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
}

/// `export`.
#[derive(Debug, Clone, Default, Args)]
pub struct ExportOptions {
    /// The folder to write; it is made, and must not hold documents yet
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
    /// Form of the files: yaml or json
    #[arg(long, value_name = "FORMAT", default_value = "yaml", value_parser = ["yaml", "json"])]
    pub format: String,
    /// The key (32 bytes) to encrypt secrets with; without it they stay encrypted with the key of this server
    #[arg(long, value_name = "FILE")]
    pub target_encryption_key_file: Option<PathBuf>,
}

/// Imports into the configured store.
pub async fn import(config: &Config, options: &ImportOptions) -> Result<Report, String> {
    let target = state::open_secrets(config)?;
    let source_key = options.source_encryption_key_file.as_deref().map(read_key).transpose()?;
    let content = Source::parse(&options.from)?.read(options).await?;
    let store = state::open_store(config).map_err(|error| error.to_string())?;
    store.ready().await.map_err(|error| error.to_string())?;
    let importer = apply::Importer {
        store,
        keys: apply::Keys { source: source_key, target },
        fold: !state::case_sensitive(config),
        overwrite: options.overwrite,
        dry_run: options.dry_run,
    };
    importer.run(content).await
}

fn read_key(path: &std::path::Path) -> Result<SecretBox, String> {
    let key = std::fs::read(path).map_err(|error| format!("cannot read the key {}: {error}", path.display()))?;
    SecretBox::new(&key).map_err(|error| format!("{}: {error}", path.display()))
}
