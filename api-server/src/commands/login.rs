//! `login`: a role of the database gets a password, so that two can take turns.

use std::path::Path;

use crate::cli::LoginOptions;
use crate::config::Config;
use crate::store::postgres::{Ensured, Login, ensure_login};

/// See [`ensure_login`].
///
/// # Errors
/// A file cannot be read, or the database refuses; in words.
pub async fn run(config: &Config, options: &LoginOptions) -> Result<Ensured, String> {
    let postgres = config.database.postgres.as_ref().ok_or("login needs database.postgres in the configuration")?;
    let known = options.known_password_file.as_deref().map(read).transpose()?;
    let login = Login {
        user: read(&options.user_file)?,
        password: read(&options.password_file)?,
        known: known.filter(|known| !known.is_empty()),
    };
    for (file, value) in [("user", &login.user), ("password", &login.password)] {
        if value.is_empty() {
            return Err(format!("--{file}-file is empty"));
        }
    }
    ensure_login(postgres, &login).await.map_err(|error| error.to_string())
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
        .map_err(|error| format!("cannot read {}: {error}", path.display()))
}
