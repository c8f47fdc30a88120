//! Reads the configuration: file, then environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::Config;

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
/// A variable names a path in upper case with `_` between the parts: `PERSES_CACHE_REDIS_ADDR` is `cache.redis.addr`.
/// Variables that name no known path are ignored, as they may be meant for something else.
pub fn load(path: Option<&Path>, environment: &BTreeMap<String, String>) -> Result<Config, ConfigError> {
    let mut tree = match path {
        None => Value::Object(Map::new()),
        Some(path) => read(path)?,
    };
    let known = known_paths();
    for (name, text) in environment {
        if let Some(path) = name.strip_prefix(PREFIX).and_then(|rest| known.get(&rest.to_ascii_lowercase())) {
            set(&mut tree, path, text);
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

/// Every leaf of the configuration that a variable can name: `cache_redis_addr` -> `["cache", "redis", "addr"]`.
fn known_paths() -> BTreeMap<String, Vec<&'static str>> {
    const LEAVES: &[&str] = &[
        "api_prefix",
        "security.readonly",
        "security.cookie.same_site",
        "security.cookie.secure",
        "security.encryption_key",
        "security.encryption_key_file",
        "security.enable_auth",
        "security.authentication.access_token_ttl",
        "security.authentication.refresh_token_ttl",
        "security.authentication.disable_sign_up",
        "security.authentication.providers.enable_native",
        "security.authentication.initial_admin.username_file",
        "security.authentication.initial_admin.password_file",
        "database.file.folder",
        "database.file.extension",
        "database.file.case_sensitive",
        "database.postgres.host",
        "database.postgres.port",
        "database.postgres.dbname",
        "database.postgres.user",
        "database.postgres.user_file",
        "database.postgres.password",
        "database.postgres.password_file",
        "database.postgres.sslmode",
        "database.postgres.ca_file",
        "database.postgres.max_connections",
        "database.postgres.acquire_timeout",
        "database.postgres.statement_timeout",
        "database.postgres.case_sensitive",
        "database.postgres.direct.host",
        "database.postgres.direct.port",
        "cache.l1_max_bytes",
        "cache.redis.addr",
        "cache.redis.username",
        "cache.redis.password",
        "cache.redis.password_file",
        "cache.dashboard_ttl",
        "query.timeout",
        "query.cache",
        "query.ttl.realtime",
        "query.ttl.recent",
        "query.ttl.historical",
        "query.max_cached_bytes",
        "server.drain_delay",
        "server.drain_timeout",
        "server.max_body_bytes",
        "provisioning.interval",
        "plugin.path",
        "datasource.global.disable",
        "datasource.project.disable",
        "datasource.disable_local",
        "frontend.disable",
        "frontend.explorer.enable",
        "frontend.information",
    ];
    LEAVES.iter().map(|leaf| (leaf.replace('.', "_"), leaf.split('.').collect())).collect()
}

/// Texts of variables take the type that they look like, except where a text is a text: names and passwords may be digits.
fn set(tree: &mut Value, path: &[&str], text: &str) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut node = tree;
    for part in parents {
        if !node.is_object() {
            *node = Value::Object(Map::new());
        }
        let Value::Object(map) = node else { return };
        node = map.entry((*part).to_owned()).or_insert_with(|| Value::Object(Map::new()));
    }
    if !node.is_object() {
        *node = Value::Object(Map::new());
    }
    let typed = match *last {
        "port" | "max_connections" | "l1_max_bytes" | "max_cached_bytes" | "max_body_bytes" => {
            text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from)
        }
        "readonly" | "secure" | "enable_auth" | "disable_sign_up" | "enable_native" | "case_sensitive" | "cache"
        | "disable" | "disable_local" | "enable" => {
            text.parse::<bool>().map_or_else(|_| Value::from(text), Value::from)
        }
        _ => Value::from(text),
    };
    if let Value::Object(map) = node {
        map.insert((*last).to_owned(), typed);
    }
}

fn check(config: &Config) -> Result<(), ConfigError> {
    let rule = |text: &str| Err(ConfigError::Rule(text.to_owned()));
    if config.database.file.is_some() && config.database.postgres.is_some() {
        return rule("database.file and database.postgres exclude each other: give one");
    }
    if config.security.enable_auth && !config.security.authentication.providers.enable_native {
        return rule(
            "security.enable_auth needs a way to sign in: set security.authentication.providers.enable_native",
        );
    }
    if config.security.encryption_key.as_ref().is_some_and(|key| key.expose().len() != 32) {
        return rule("security.encryption_key must have exactly 32 bytes");
    }
    if config.security.enable_auth
        && config.security.encryption_key.is_none()
        && config.security.encryption_key_file.is_none()
    {
        return rule(
            "security.enable_auth needs a key of your own: set security.encryption_key_file (32 bytes; for example `head -c 32 /dev/urandom > key`)",
        );
    }
    if !config.api_prefix.is_empty() && (!config.api_prefix.starts_with('/') || config.api_prefix.ends_with('/')) {
        return rule("api_prefix must start with '/' and must not end with it, for example /perses");
    }
    Ok(())
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
    fn every_variable_path_exists_in_the_configuration() {
        for (name, path) in known_paths() {
            let mut tree = Value::Object(Map::new());
            let sample = match *path.last().unwrap() {
                "port" | "max_connections" | "l1_max_bytes" | "max_cached_bytes" | "max_body_bytes" => "1",
                "readonly" | "secure" | "enable_auth" | "disable_sign_up" | "enable_native" | "case_sensitive"
                | "cache" | "disable" | "disable_local" | "enable" => "true",
                "same_site" => "lax",
                "extension" => "json",
                "sslmode" => "verify-full",
                leaf if leaf.ends_with("ttl")
                    || leaf.ends_with("timeout")
                    || leaf.ends_with("delay")
                    || ["interval", "realtime", "recent", "historical"].contains(&leaf) =>
                {
                    "1m"
                }
                _ => "x",
            };
            set(&mut tree, &path, sample);
            match path.as_slice() {
                // members of groups that must be complete
                [.., "direct", "host"] => set(&mut tree, &["database", "postgres", "direct", "port"], "1"),
                [.., "direct", "port"] => set(&mut tree, &["database", "postgres", "direct", "host"], "x"),
                [group @ .., "username_file"] => set(&mut tree, &[group, &["password_file"]].concat(), "x"),
                [group @ .., "password_file"] if group.contains(&"initial_admin") => {
                    set(&mut tree, &[group, &["username_file"]].concat(), "x");
                }
                _ => {}
            }
            serde_json::from_value::<Config>(tree).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn wrong_configuration_is_refused_with_a_reason() {
        for (text, part) in [
            ("securty: {}", "securty"),
            ("security: {enable_auth: true}", "enable_native"),
            (
                "security: {enable_auth: true, authentication: {providers: {enable_native: true}}}",
                "encryption_key_file",
            ),
            ("security: {encryption_key: short}", "32 bytes"),
            ("database: {file: {}, postgres: {}}", "exclude each other"),
            ("query: {timeout: soon}", "not a valid duration"),
            ("api_prefix: x/", "api_prefix"),
            ("a: [", "not valid YAML"),
        ] {
            let error = from(text, &[]).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
