//! The secret of a datasource: `Secret` and `GlobalSecret` of Perses v0.54, decrypted in memory.

use std::fmt;
use std::path::{Path, PathBuf};

use axum::http::HeaderValue;
use serde::Deserialize;

use super::spec::basic;
use crate::auth::crypto::SecretBox;

/// How to authenticate, and how to trust.
#[derive(Debug, Clone, Default)]
pub(super) struct Credentials {
    /// The whole `Authorization` header.
    pub(super) authorization: Option<HeaderValue>,
    /// Settings of the TLS connection.
    pub(super) tls: TlsOptions,
    /// Whether part of it was read from files, which may change.
    pub(super) from_files: bool,
}

/// Settings of a TLS connection; equal settings share connections.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct TlsOptions {
    /// PEM bundle that replaces the system's authorities.
    pub(super) ca: Option<String>,
    /// PEM of the client certificate and its key.
    pub(super) identity: Option<String>,
    /// Name to ask for and to verify instead of the URL's host.
    pub(super) server_name: Option<String>,
    /// Any certificate is good.
    pub(super) insecure: bool,
    /// Lowest version, `TLS12` or `TLS13`.
    pub(super) min_version: Option<String>,
    /// Highest version.
    pub(super) max_version: Option<String>,
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("server_name", &self.server_name)
            .field("insecure", &self.insecure)
            .finish_non_exhaustive()
    }
}

/// Which files the secret may name.
#[derive(Debug, Clone, Copy)]
pub(super) enum FileAccess<'a> {
    /// Any: the operator of the server wrote the secret (provisioning).
    Any,
    /// Only below these folders: a client of the API wrote it, and the server's own files are none of its business.
    Below(&'a [PathBuf]),
}

/// Why a secret cannot be used. Names fields and files, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CredentialsError {
    /// Not a secret's spec.
    #[error("it is not as expected: {0}")]
    Spec(String),
    /// A field does not decrypt.
    #[error("{field}: {reason}")]
    Decrypt {
        /// The field.
        field: &'static str,
        /// What the cipher said.
        reason: String,
    },
    /// A file cannot be read.
    #[error("{field}: cannot read {path}: {reason}")]
    File {
        /// The field.
        field: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// A file that clients of the API may not name.
    #[error(
        "{field}: the file {path} may not be read for it: only provisioned secrets may name any file, others need \
         datasource.secret_file_folders in the server's configuration"
    )]
    Forbidden {
        /// The field.
        field: &'static str,
        /// The file.
        path: String,
    },
    /// A way to authenticate that is not served.
    #[error("it uses oauth, which this version does not support: use basicAuth or authorization")]
    OAuth,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSecret {
    basic_auth: Option<RawBasic>,
    authorization: Option<RawAuthorization>,
    oauth: Option<serde::de::IgnoredAny>,
    tls_config: Option<RawTls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct RawBasic {
    username: String,
    password: String,
    password_file: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawAuthorization {
    r#type: String,
    credentials: String,
    credentials_file: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawTls {
    ca: String,
    cert: String,
    key: String,
    ca_file: String,
    cert_file: String,
    key_file: String,
    server_name: String,
    insecure_skip_verify: bool,
    min_version: String,
    max_version: String,
}

/// Reads a secret's spec as the store keeps it.
pub(super) fn parse(spec: &str, secrets: &SecretBox, files: FileAccess<'_>) -> Result<Credentials, CredentialsError> {
    let raw: RawSecret = serde_json::from_str(spec).map_err(|error| {
        // The text of a serde error may quote a value: say only where.
        CredentialsError::Spec(format!("line {}, column {}", error.line(), error.column()))
    })?;
    if raw.oauth.is_some() {
        return Err(CredentialsError::OAuth);
    }
    let mut reader = Reader { secrets, files, from_files: false };
    let authorization = match (raw.basic_auth, raw.authorization) {
        (Some(raw), _) => {
            let password =
                reader.sealed("basicAuth.password", &raw.password, "basicAuth.passwordFile", &raw.password_file)?;
            let value = basic(&raw.username, &password).map_err(|error| CredentialsError::Spec(error.to_string()))?;
            Some(value)
        }
        (None, Some(raw)) => {
            let fields = ("authorization.credentials", "authorization.credentialsFile");
            let credentials = reader.sealed(fields.0, &raw.credentials, fields.1, &raw.credentials_file)?;
            let scheme = if raw.r#type.is_empty() { "Bearer" } else { raw.r#type.as_str() };
            let mut value = HeaderValue::try_from(format!("{scheme} {credentials}")).map_err(|_| {
                CredentialsError::Spec(
                    "authorization: the type or the credentials cannot be sent in a header".to_owned(),
                )
            })?;
            value.set_sensitive(true);
            Some(value)
        }
        (None, None) => None,
    };
    let tls = raw.tls_config.map(|raw| reader.tls(raw)).transpose()?.unwrap_or_default();
    Ok(Credentials { authorization, tls, from_files: reader.from_files })
}

struct Reader<'a> {
    secrets: &'a SecretBox,
    files: FileAccess<'a>,
    from_files: bool,
}

impl Reader<'_> {
    fn sealed(
        &mut self,
        field: &'static str,
        value: &str,
        file_field: &'static str,
        file: &str,
    ) -> Result<String, CredentialsError> {
        if !file.is_empty() {
            // Editors and `echo` leave a final newline.
            return Ok(self.file(file_field, file)?.trim_end_matches(['\r', '\n']).to_owned());
        }
        let error = |reason: String| CredentialsError::Decrypt { field, reason };
        let plain = self.secrets.decrypt(value).map_err(|reason| error(reason.to_string()))?;
        String::from_utf8(plain).map_err(|_| error("it is not UTF-8".to_owned()))
    }

    fn plain(&mut self, value: String, field: &'static str, file: &str) -> Result<Option<String>, CredentialsError> {
        if !file.is_empty() {
            return self.file(field, file).map(Some);
        }
        Ok((!value.is_empty()).then_some(value))
    }

    fn tls(&mut self, raw: RawTls) -> Result<TlsOptions, CredentialsError> {
        let ca = self.plain(raw.ca, "tlsConfig.caFile", &raw.ca_file)?;
        let cert = self.plain(raw.cert, "tlsConfig.certFile", &raw.cert_file)?;
        let key = self.sealed("tlsConfig.key", &raw.key, "tlsConfig.keyFile", &raw.key_file)?;
        let identity = match (cert, key.is_empty()) {
            (Some(cert), false) => Some(format!("{cert}\n{key}\n")),
            (None, true) => None,
            _ => return Err(CredentialsError::Spec("tlsConfig: cert and key are needed together".to_owned())),
        };
        let text = |value: String| (!value.is_empty()).then_some(value);
        Ok(TlsOptions {
            ca,
            identity,
            server_name: text(raw.server_name),
            insecure: raw.insecure_skip_verify,
            min_version: text(raw.min_version),
            max_version: text(raw.max_version),
        })
    }

    fn file(&mut self, field: &'static str, path: &str) -> Result<String, CredentialsError> {
        self.from_files = true;
        let error = |reason: &std::io::Error| CredentialsError::File {
            field,
            path: path.to_owned(),
            reason: reason.to_string(),
        };
        if let FileAccess::Below(folders) = self.files
            && !is_below(Path::new(path), folders)
        {
            return Err(CredentialsError::Forbidden { field, path: path.to_owned() });
        }
        std::fs::read_to_string(path).map_err(|reason| error(&reason))
    }
}

/// Whether the file, links resolved, lies in one of the folders, links resolved.
fn is_below(path: &Path, folders: &[PathBuf]) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    folders.iter().filter_map(|folder| folder.canonicalize().ok()).any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secrets() -> SecretBox {
        SecretBox::new(&[7; 32]).unwrap()
    }

    fn read(spec: &serde_json::Value, files: FileAccess<'_>) -> Result<Credentials, CredentialsError> {
        parse(&spec.to_string(), &secrets(), files)
    }

    #[test]
    fn decrypts_and_builds_the_header() {
        let sealed = secrets().encrypt(b"open:sesame").unwrap();
        let basic =
            read(&json!({"basicAuth": {"username": "me", "password": sealed}}), FileAccess::Below(&[])).unwrap();
        assert_eq!(basic.authorization.unwrap(), "Basic bWU6b3BlbjpzZXNhbWU=");
        let sealed = secrets().encrypt(b"token").unwrap();
        for (kind, expected) in [("", "Bearer token"), ("Api-Key", "Api-Key token")] {
            let spec = json!({"authorization": {"type": kind, "credentials": sealed}});
            let value = read(&spec, FileAccess::Below(&[])).unwrap().authorization.unwrap();
            assert_eq!(value, expected);
            assert!(value.is_sensitive());
        }
        assert!(read(&json!({}), FileAccess::Below(&[])).unwrap().authorization.is_none());
    }

    #[test]
    fn files_of_the_server_are_out_of_reach_for_clients() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("allowed");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(inside.join("password"), "secret\n").unwrap();
        std::fs::write(folder.path().join("encryption-key"), "the server's own").unwrap();
        std::os::unix::fs::symlink(folder.path().join("encryption-key"), inside.join("link")).unwrap();
        let spec = |file: &Path| json!({"basicAuth": {"username": "me", "passwordFile": file}});
        let folders = [inside.clone()];

        let good = read(&spec(&inside.join("password")), FileAccess::Below(&folders)).unwrap();
        assert_eq!(good.authorization.unwrap(), "Basic bWU6c2VjcmV0");
        assert!(good.from_files);
        for outside in [folder.path().join("encryption-key"), inside.join("link"), inside.join("../encryption-key")] {
            let error = read(&spec(&outside), FileAccess::Below(&folders)).unwrap_err();
            assert!(matches!(error, CredentialsError::Forbidden { .. }), "{outside:?}");
            assert!(read(&spec(&outside), FileAccess::Any).is_ok());
        }
        assert!(matches!(read(&spec(&inside.join("none")), FileAccess::Any), Err(CredentialsError::File { .. })));
    }

    #[test]
    fn errors_hold_no_value() {
        for spec in [
            json!({"oauth": {"clientID": "hunter2"}}),
            json!({"basicAuth": {"username": "me", "password": "hunter2"}}),
            json!({"basicAuth": {"username": "me", "password": ["hunter2"]}}),
            json!({"tlsConfig": {"cert": "hunter2"}}),
        ] {
            let error = read(&spec, FileAccess::Below(&[])).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
