//! Who signs in to the database, and how a connection is made.

use std::path::Path;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::config;
use crate::store::StoreError;

/// User and password, as text.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    user: String,
    password: Option<String>,
}

impl Credentials {
    /// Stand in for files that are not there yet.
    pub(super) const fn unusable() -> Self {
        Self { user: String::new(), password: None }
    }

    /// A user and a password.
    pub(super) fn of(user: &str, password: &str) -> Self {
        Self { user: user.to_owned(), password: Some(password.to_owned()) }
    }

    /// Takes what the configuration says or its files hold now.
    pub(super) fn read(config: &config::Postgres) -> Result<Self, StoreError> {
        let file = |key: &str, path: &Path| {
            std::fs::read_to_string(path).map(|text| text.trim_end_matches(['\r', '\n']).to_owned()).map_err(|error| {
                StoreError::Unavailable(format!("cannot read database.postgres.{key} {}: {error}", path.display()))
            })
        };
        let user = match (&config.user_file, &config.user) {
            (Some(path), _) => file("user_file", path)?,
            (None, Some(user)) => user.clone(),
            (None, None) => "perses".to_owned(),
        };
        let password = match (&config.password_file, &config.password) {
            (Some(path), _) => Some(file("password_file", path)?),
            (None, password) => password.as_ref().map(|password| password.expose().to_owned()),
        };
        Ok(Self { user, password })
    }
}

/// How to connect, to the configured address or to another one.
pub(super) fn connect_options(
    config: &config::Postgres,
    credentials: &Credentials,
    address: Option<&config::Address>,
) -> PgConnectOptions {
    let (host, port) = address.map_or((&config.host, config.port), |address| (&address.host, address.port));
    let ssl_mode = match config.sslmode {
        config::SslMode::Disable => PgSslMode::Disable,
        config::SslMode::Prefer => PgSslMode::Prefer,
        config::SslMode::Require => PgSslMode::Require,
        config::SslMode::VerifyCa => PgSslMode::VerifyCa,
        config::SslMode::VerifyFull => PgSslMode::VerifyFull,
    };
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(host)
        .port(port)
        .database(&config.dbname)
        .username(&credentials.user)
        .ssl_mode(ssl_mode)
        .application_name("perses-api-server")
        // PgBouncer refuses start-up parameters that it does not track.
        .extra_float_digits(None)
        .statement_cache_capacity(config.statement_cache)
        .disable_statement_logging();
    if let Some(password) = &credentials.password {
        options = options.password(password);
    }
    if let Some(ca) = &config.ca_file {
        options = options.ssl_root_cert(ca);
    }
    options
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}
