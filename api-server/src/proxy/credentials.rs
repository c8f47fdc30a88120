//! The secret of a datasource: `Secret` and `GlobalSecret` of Perses v0.54, decrypted in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use axum::http::HeaderValue;
use serde::Deserialize;
use url::Url;

use super::oauth::{AuthStyle, OauthSettings};
use super::spec::basic;
use crate::auth::crypto::SecretBox;

/// How to authenticate, and how to trust.
#[derive(Debug, Clone, Default)]
pub(super) struct Credentials {
    /// The whole `Authorization` header.
    pub(super) authorization: Option<HeaderValue>,
    /// Where to fetch the token of an `Authorization` header.
    pub(super) oauth: Option<OauthSettings>,
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
        "{field}: the file {path} may not be read for it: only secrets of the server's administrator (provisioned, or put into \
         the folder of the file store) may name any file, others need datasource.secret_file_folders in its configuration"
    )]
    Forbidden {
        /// The field.
        field: &'static str,
        /// The file.
        path: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSecret {
    basic_auth: Option<RawBasic>,
    authorization: Option<RawAuthorization>,
    oauth: Option<RawOauth>,
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
#[serde(default)]
struct RawOauth {
    #[serde(rename = "clientID")]
    client_id: String,
    #[serde(rename = "clientSecret")]
    client_secret: String,
    #[serde(rename = "clientSecretFile")]
    client_secret_file: String,
    #[serde(rename = "tokenURL")]
    token_url: String,
    scopes: Option<Vec<String>>,
    #[serde(rename = "endpointParams")]
    endpoint_params: Option<BTreeMap<String, Vec<String>>>,
    #[serde(rename = "authStyle")]
    auth_style: i64,
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
    let oauth = match raw.oauth.filter(|_| authorization.is_none()) {
        Some(raw) => Some(reader.oauth(raw)?),
        None => None,
    };
    let tls = raw.tls_config.map(|raw| reader.tls(raw)).transpose()?.unwrap_or_default();
    Ok(Credentials { authorization, oauth, tls, from_files: reader.from_files })
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

    fn oauth(&mut self, raw: RawOauth) -> Result<OauthSettings, CredentialsError> {
        let wrong = |text: &str| CredentialsError::Spec(text.to_owned());
        let mut token_url = Url::parse(&raw.token_url).map_err(|_| wrong("oauth.tokenURL is not a URL"))?;
        if !matches!(token_url.scheme(), "http" | "https") || !token_url.has_host() {
            return Err(wrong("oauth.tokenURL must start with http:// or https:// and name a host"));
        }
        token_url.set_fragment(None);
        let style = match raw.auth_style {
            0 => AuthStyle::Detect,
            1 => AuthStyle::Params,
            2 => AuthStyle::Header,
            _ => return Err(wrong("oauth.authStyle must be 0 (found out), 1 (in the body) or 2 (in the header)")),
        };
        // Upstream encrypts the client's name like a secret; there is no file for it.
        let client_id = self.sealed("oauth.clientID", &raw.client_id, "", "")?;
        let client_secret =
            self.sealed("oauth.clientSecret", &raw.client_secret, "oauth.clientSecretFile", &raw.client_secret_file)?;
        let mut params: Vec<(String, String)> = Vec::new();
        for (name, values) in raw.endpoint_params.unwrap_or_default() {
            params.extend(values.into_iter().map(|value| (name.clone(), value)));
        }
        Ok(OauthSettings { token_url, client_id, client_secret, scopes: raw.scopes.unwrap_or_default(), params, style })
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
mod tests;
