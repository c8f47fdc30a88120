//! `limits_file`: what may change while the server runs, in a file of its own: the limits of queries, the mode of validation, the
//! rate of failed sign-ins, what protects datasources. It has the keys of the configuration at their places and wins over them; a key that it leaves out
//! is as configured.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, DatasourceLimits, DatasourceQuery, RequestLimits, SignInRate, Validation};
use crate::follow;
use crate::state::AppState;

/// The parts of the configuration that the file may have, as they are in force.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// `validation`.
    pub validation: Validation,
    /// `security`.
    pub security: Security,
    /// `query`.
    pub query: Query,
}

/// `query` in the file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// `query.limits`.
    pub limits: RequestLimits,
    /// `query.datasources`: entries that count before those of the configuration.
    pub datasources: Vec<Datasource>,
}

/// An entry of `query.datasources` in the file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Datasource {
    /// `metadata.name` of the datasource; `*` fits every name.
    pub name: String,
    /// The project that it is in.
    pub project: Option<String>,
    /// Its limits.
    pub limits: DatasourceLimits,
}

impl Query {
    /// The configured settings with these limits.
    pub fn over(&self, configured: &config::Query) -> config::Query {
        let entries: Vec<_> = self
            .datasources
            .iter()
            .map(|entry| DatasourceQuery {
                name: entry.name.clone(),
                project: entry.project.clone(),
                limits: Some(entry.limits.clone()),
                ..DatasourceQuery::default()
            })
            .collect();
        configured.limited(self.limits.clone(), &entries)
    }
}

/// `security` in the file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Security {
    /// `security.authentication`.
    pub authentication: Authentication,
}

/// `security.authentication` in the file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authentication {
    /// `security.authentication.rate_limit`.
    pub rate_limit: SignInRate,
}

/// The file, and what holds without it.
#[derive(Debug, Clone)]
pub struct LimitsFile {
    path: PathBuf,
    configured: Limits,
}

/// The content of the file that is in force.
#[derive(Debug, Clone)]
pub struct Applied {
    /// What it says, over the configuration.
    pub limits: Limits,
    /// SHA-256 of the file's bytes in lower-case hexadecimal: the label of `perses_limits_applied`.
    pub sha256: String,
}

impl LimitsFile {
    /// The file of the configuration, if it has one.
    pub fn of(config: &Config) -> Option<Self> {
        let rate_limit = config.security.authentication.rate_limit;
        let security = Security { authentication: Authentication { rate_limit } };
        let query = Query { limits: config.query.limits.clone(), datasources: Vec::new() };
        let configured = Limits { validation: config.validation.clone(), security, query };
        Some(Self { path: config.limits_file.clone()?, configured })
    }

    /// Reads it. An empty file changes nothing.
    ///
    /// # Errors
    /// It cannot be read, is not YAML, or has a key that it may not have.
    pub fn read(&self) -> Result<Applied, String> {
        self.parse(&self.bytes()?)
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        std::fs::read(&self.path).map_err(|error| format!("cannot read limits_file {}: {error}", self.path.display()))
    }

    fn parse(&self, bytes: &[u8]) -> Result<Applied, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("limits_file {}: {error}", self.path.display());
        let text = std::str::from_utf8(bytes).map_err(|error| wrong(&error))?;
        let said: Value = if text.trim().is_empty() {
            Value::Null
        } else {
            serde_saphyr::from_str(text).map_err(|error| wrong(&error))?
        };
        let mut tree = serde_json::to_value(&self.configured).map_err(|error| wrong(&error))?;
        merge(&mut tree, said);
        let limits = serde_json::from_value(tree).map_err(|error| {
            wrong(&format!(
                "{error}; it may have validation, security.authentication.rate_limit, query.limits and query.datasources (name, project, limits), as the configuration has them"
            ))
        })?;
        let sha256 = Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Ok(Applied { limits, sha256 })
    }
}

/// Objects are merged, everything else is replaced; an empty section says nothing.
fn merge(tree: &mut Value, said: Value) {
    match (tree, said) {
        (_, Value::Null) => {}
        (Value::Object(tree), Value::Object(said)) => {
            for (key, value) in said {
                merge(tree.entry(key).or_insert(Value::Null), value);
            }
        }
        (tree, said) => *tree = said,
    }
}

/// Follows the file until told to stop. What cannot be used is reported once; the limits in force go on.
pub async fn follow(file: LimitsFile, state: AppState, stop: CancellationToken) {
    let reader = file.clone();
    let take = |found: &Result<Vec<u8>, String>| match found
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|bytes| file.parse(bytes))
    {
        Ok(applied) => {
            if state.metrics.limits_in_force(&applied.sha256) {
                tracing::info!(sha256 = applied.sha256, "the limits were read again");
            }
            state.checks.set_limits(&applied.limits.validation);
            state.proxy.queries().set(&applied.limits.query.over(&state.configured_queries));
            state.limits.set(applied.limits.security.authentication.rate_limit);
        }
        Err(error) => {
            state.metrics.limits_rejected.set(1);
            tracing::warn!(error, "the changed limits cannot be used; those in force go on");
        }
    };
    follow::changes(move || reader.bytes(), take, stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ValidationMode;

    #[test]
    fn the_file_wins_key_by_key_and_takes_no_other_key() {
        let config: Config = serde_json::from_value(serde_json::json!({
            "limits_file": "/limits.yaml",
            "validation": {"mode": "off", "query_limits": {"max_query_length": 7, "required_label_filters": ["a"]}},
        }))
        .unwrap();
        let file = LimitsFile::of(&config).unwrap();
        let read = |text: &str| file.parse(text.as_bytes());
        let limits = read(
            "validation: {query_limits: {max_query_length: 9}}\nsecurity:\n  authentication: {rate_limit: {per_login: 3}}\n",
        );
        let limits = limits.unwrap().limits;
        assert_eq!(limits.validation.query_limits.max_query_length, 9);
        assert_eq!(limits.validation.query_limits.required_label_filters, ["a"]);
        assert_eq!(limits.validation.mode, ValidationMode::Off);
        assert_eq!(limits.security.authentication.rate_limit.per_login, 3);
        assert_eq!(limits.security.authentication.rate_limit.per_address, SignInRate::default().per_address);
        for nothing in ["", "\n", "validation:\n", "# nothing\n"] {
            assert_eq!(read(nothing).unwrap().limits.validation.query_limits.max_query_length, 7, "{nothing:?}");
        }
        for (wrong, part) in [
            ("security: {enable_auth: false}", "enable_auth"),
            ("cache: {}", "cache"),
            ("query: {timeout: 5s}", "timeout"),
            ("query: {limits: {max_serie: 5}}", "max_serie"),
            ("query: {datasources: [{name: prom, cache: false}]}", "cache"),
            ("validation: {mode: strict}", "strict"),
            ("validation: [", "limits_file /limits.yaml"),
        ] {
            let error = read(wrong).unwrap_err();
            assert!(error.contains(part) && error.contains("limits_file"), "{error}");
        }
        // printf '' | sha256sum
        assert_eq!(read("").unwrap().sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
