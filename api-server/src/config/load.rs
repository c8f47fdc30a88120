//! Reads the configuration: file, then environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Config, environment};

const PREFIX: &str = "PERSES_";

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("the configuration file {} is not valid YAML: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A key is unknown or a value has the wrong type.
    #[error("the configuration is wrong: {0}")]
    Shape(String),
    /// Values that do not go together.
    #[error("the configuration is wrong: {0}")]
    Rule(String),
}

/// Loads the configuration from a file (defaults without one) and from `PERSES_*` variables, which win.
///
/// A variable names a path in upper case with `_` between the parts: `PERSES_CACHE_REDIS_ADDR` is `cache.redis.addr`; an
/// element of a list by its number, a whole list of texts with commas.
/// Variables that name no known path are ignored, as they may be meant for something else.
pub fn load(path: Option<&Path>, variables: &BTreeMap<String, String>) -> Result<Config, ConfigError> {
    let mut tree = match path {
        None => Value::Object(Map::new()),
        Some(path) => read(path)?,
    };
    let schema = environment::schema();
    for (name, text) in variables {
        if let Some(rest) = name.strip_prefix(PREFIX) {
            environment::set(&mut tree, &schema, &rest.to_ascii_lowercase(), text);
        }
    }
    let config: Config = serde_json::from_value(tree)
        .map_err(|error| ConfigError::Shape(format!("{error}; see docs/configuration.md")))?;
    check(&config)?;
    Ok(config)
}

fn read(path: &Path) -> Result<Value, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    if text.trim().is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    serde_saphyr::from_str(&text)
        .map_err(|error| ConfigError::Syntax { path: path.to_owned(), message: error.to_string() })
}

/// Refuses values that do not go together.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    let rule = |text: &str| Err(ConfigError::Rule(text.to_owned()));
    if config.database.file.is_some() && config.database.postgres.is_some() {
        return rule("database.file and database.postgres exclude each other: give one");
    }
    if config.database.sql.is_some() {
        return rule(
            "database.sql (MySQL) is no store of this server: use database.postgres, and `perses-api-server import` to move the documents",
        );
    }
    let security = &config.security;
    let providers = &security.authentication.providers;
    let kubernetes = providers.kubernetes.enable;
    if kubernetes != security.authorization.provider.kubernetes.enable {
        return rule(
            "security.authentication.providers.kubernetes and security.authorization.provider.kubernetes must be enabled together",
        );
    }
    let others = providers.enable_native || !providers.oidc.is_empty() || !providers.oauth.is_empty();
    if kubernetes && others {
        return rule("security.authentication.providers.kubernetes excludes the other providers");
    }
    if security.enable_auth && !kubernetes && !others {
        return rule(
            "security.enable_auth needs a way to sign in: set security.authentication.providers.enable_native, or give oidc, oauth or kubernetes",
        );
    }
    if let Some(slug) = repeated_slug(providers) {
        return rule(&format!(
            "security.authentication.providers: slug_id {slug:?} is used twice, or is no word of letters, digits, '-', '_' and '.'"
        ));
    }
    if security.encryption_key.as_ref().is_some_and(|key| key.expose().len() != 32) {
        return rule("security.encryption_key must have exactly 32 bytes");
    }
    if security.enable_auth && security.encryption_key.is_none() && security.encryption_key_file.is_none() {
        return rule(
            "security.enable_auth needs a key of your own: set security.encryption_key_file (32 bytes; for example `head -c 32 /dev/urandom > key`)",
        );
    }
    if let Err(reason) = super::authorization::check(&security.authorization) {
        return rule(&reason);
    }
    if let Err(reason) = super::tenancy::check(&config.query) {
        return rule(&reason);
    }
    if !config.api_prefix.is_empty() && (!config.api_prefix.starts_with('/') || config.api_prefix.ends_with('/')) {
        return rule("api_prefix must start with '/' and must not end with it, for example /perses");
    }
    let server = &config.server;
    if server.max_header_bytes < 8192 {
        return rule("server.max_header_bytes must be at least 8192: sign-in cookies alone take a few thousand");
    }
    if server.max_connections == Some(0) {
        return rule("server.max_connections must be at least 1; leave it out for no limit");
    }
    if server.telemetry_path.as_ref().is_some_and(|path| !is_free(path)) {
        return rule(
            "server.telemetry_path must start with '/', have neither {} nor * in it, and not be a path of the API, for example /metrics",
        );
    }
    if server
        .tls
        .as_ref()
        .is_some_and(|tls| tls.cert_file.as_os_str().is_empty() || tls.key_file.as_os_str().is_empty())
    {
        return rule("server.tls needs both cert_file and key_file (flags --web.tls-cert-file and --web.tls-key-file)");
    }
    if !config.datasource.global.discovery.is_empty() {
        return rule("datasource.global.discovery is not supported: provision the datasources (provisioning.folders)");
    }
    Ok(())
}

/// Whether the metrics can have this path.
fn is_free(path: &str) -> bool {
    let taken = ["/api", "/proxy", "/plugins", "/livez", "/readyz"];
    path.len() > 1
        && path.starts_with('/')
        && !path.contains(['{', '}', '*', '?', '#'])
        && !taken
            .iter()
            .any(|taken| path.strip_prefix(taken).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// What may be in a path and in a cookie as it is.
fn is_word(slug: &str) -> bool {
    let of_word = |one: char| one.is_ascii_alphanumeric() || matches!(one, '-' | '_' | '.');
    !slug.is_empty() && slug.chars().all(of_word) && !slug.starts_with('.')
}

/// Slugs name a provider in paths, OIDC and OAuth apart.
fn repeated_slug(providers: &super::Providers) -> Option<String> {
    let oidc: Vec<&str> = providers.oidc.iter().map(|one| one.client.slug_id.as_str()).collect();
    let oauth: Vec<&str> = providers.oauth.iter().map(|one| one.client.slug_id.as_str()).collect();
    [oidc, oauth].into_iter().find_map(|slugs| {
        let wrong = slugs.iter().enumerate().find(|(at, slug)| !is_word(slug) || slugs[..*at].contains(*slug));
        wrong.map(|(_, slug)| (*slug).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        std::fs::write(&path, text).unwrap();
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        load(Some(&path), &environment)
    }

    #[test]
    fn environment_wins_over_the_file_and_keeps_types() {
        let config = from(
            "cache: {redis: {addr: 'a:1'}, l1_max_bytes: 5}\ndatabase: {postgres: {host: h, password: '1'}}",
            &[
                ("PERSES_CACHE_REDIS_ADDR", "perses-redis:6379"),
                ("PERSES_CACHE_L1_MAX_BYTES", "7"),
                ("PERSES_DATABASE_POSTGRES_PASSWORD", "12345"),
                ("PERSES_API_SERVICE_PORT", "tcp://10.0.0.1:80"),
            ],
        )
        .unwrap();
        assert_eq!(config.cache.redis.unwrap().addr, "perses-redis:6379");
        assert_eq!(config.cache.l1_max_bytes, 7);
        assert_eq!(config.database.postgres.unwrap().password, Some("12345".into()));
    }

    #[test]
    fn wrong_configuration_is_refused_with_a_reason() {
        for (text, part) in [
            ("securty: {}", "securty"),
            ("security: {enable_auth: true}", "enable_native"),
            ("database: {sql: {db_name: perses}}", "perses-api-server import"),
            ("security: {authentication: {providers: {kubernetes: {enable: true}}}}", "enabled together"),
            ("datasource: {global: {discovery: [{name: a}]}}", "provisioning.folders"),
            (
                "security: {enable_auth: true, authentication: {providers: {enable_native: true}}}",
                "encryption_key_file",
            ),
            ("security: {encryption_key: short}", "32 bytes"),
            ("database: {file: {}, postgres: {}}", "exclude each other"),
            ("query: {timeout: soon}", "not a valid duration"),
            (
                "security: {authentication: {providers: {oidc: [{slug_id: 'a;b', name: A, client_id: c, issuer: 'https://i'}]}}}",
                "slug_id \"a;b\"",
            ),
            ("api_prefix: x/", "api_prefix"),
            ("datasource: {deny_networks: [10.0.0.0/33]}", "not a network such as"),
            ("server: {tls: {cert_file: a.pem}}", "key_file"),
            ("server: {telemetry_path: metrics}", "telemetry_path"),
            ("server: {max_header_bytes: 100}", "max_header_bytes"),
            ("a: [", "not valid YAML"),
        ] {
            let error = from(text, &[]).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_configuration_of_upstream_is_taken() {
        let text = include_str!("testdata/upstream.yaml");
        let config = from(text, &[]).unwrap();
        assert_eq!(config.security.authentication.providers.oidc[0].client.slug_id, "azure");
        assert_eq!(config.frontend.important_dashboards[0].dashboard, "cpu");
        assert_eq!(config.plugin.archive_paths, [PathBuf::from("/archive")]);
    }
}
