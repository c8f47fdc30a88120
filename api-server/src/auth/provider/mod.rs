//! Sign-in at other places: OpenID Connect and plain OAuth 2.0.
//!
//! | part | does |
//! |---|---|
//! | [`metadata`] | where a provider's endpoints and keys are; discovered when first needed, and kept |
//! | [`client`], `transport` | requests to the provider (I/O) |
//! | [`id_token`], [`identity`], [`redirect`] | pure: is the token good, who is it, where may the browser go |
//! | [`login`] | the sealed cookie that a login in progress lives in |
//!
//! A provider that is away is no reason not to start: its own logins fail, nothing else does.

pub mod client;
pub mod id_token;
pub mod identity;
pub mod login;
pub mod metadata;
pub mod redirect;
mod transport;

use crate::auth::crypto::SecretBox;
use crate::config;
use client::ProviderClient;

/// What a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// OpenID Connect.
    Oidc,
    /// OAuth 2.0 with an endpoint that tells who the user is.
    Oauth,
}

impl ProviderKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Oidc, Self::Oauth];

    /// The name in paths and in `pkd` of tokens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Oidc => "oidc",
            Self::Oauth => "oauth",
        }
    }
}

/// The configured providers.
#[derive(Debug)]
pub struct Providers {
    all: Vec<ProviderClient>,
    /// Seals logins in progress.
    pub logins: login::Logins,
}

impl Providers {
    /// Reads TLS files; asks no provider for anything.
    pub fn new(config: &config::Providers, secrets: &SecretBox) -> Result<Self, String> {
        let oidc = config.oidc.iter().map(ProviderClient::oidc);
        let all = oidc.chain(config.oauth.iter().map(ProviderClient::oauth)).collect::<Result<_, _>>()?;
        Ok(Self { all, logins: login::Logins::new(secrets) })
    }

    /// The provider of a path.
    pub fn get(&self, kind: ProviderKind, slug: &str) -> Option<&ProviderClient> {
        self.all.iter().find(|one| one.kind == kind && one.slug() == slug)
    }

    /// The provider of a token's claims (`pkd`, `pid`).
    pub fn of_claims(&self, kind: &str, slug: &str) -> Option<&ProviderClient> {
        self.all.iter().find(|one| one.kind.as_str() == kind && one.slug() == slug)
    }
}
