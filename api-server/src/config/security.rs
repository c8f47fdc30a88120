//! `security`: sign-in, keys, cookies.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::values::{ConfigDuration, Hidden};

/// `security`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// No resource can be written through the API.
    pub readonly: bool,
    /// Sign-in cookies.
    pub cookie: Cookie,
    /// 32 bytes; prefer `encryption_key_file`. Never printed.
    #[serde(skip_serializing)]
    pub encryption_key: Option<Hidden>,
    /// File with the 32 bytes.
    pub encryption_key_file: Option<PathBuf>,
    /// Whether requests need a sign-in.
    pub enable_auth: bool,
    /// Tokens and providers.
    pub authentication: Authentication,
}

/// `security.cookie`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cookie {
    /// `SameSite` of the sign-in cookies.
    pub same_site: SameSite,
    /// `Secure` of the sign-in cookies.
    pub secure: bool,
}

/// `security.cookie.same_site`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Sent with top-level navigation.
    #[default]
    Lax,
    /// Sent from the same site only.
    Strict,
    /// Always sent; needs `secure`.
    None,
}

/// `security.authentication`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authentication {
    /// Life of an access token.
    pub access_token_ttl: ConfigDuration,
    /// Life of a refresh token.
    pub refresh_token_ttl: ConfigDuration,
    /// Whether `POST /api/v1/users` is closed.
    pub disable_sign_up: bool,
    /// Ways to sign in.
    pub providers: Providers,
    /// The first user, created when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_admin: Option<InitialAdmin>,
}

impl Default for Authentication {
    fn default() -> Self {
        Self {
            access_token_ttl: ConfigDuration::from_secs(15 * 60),
            refresh_token_ttl: ConfigDuration::from_secs(24 * 3600),
            disable_sign_up: false,
            providers: Providers::default(),
            initial_admin: None,
        }
    }
}

/// `security.authentication.providers`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Providers {
    /// Users with a password in this server.
    pub enable_native: bool,
}

/// `security.authentication.initial_admin`: files with the first user's name and password.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InitialAdmin {
    /// File with the name.
    pub username_file: PathBuf,
    /// File with the password.
    pub password_file: PathBuf,
}
