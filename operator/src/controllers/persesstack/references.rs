//! PURE: values of the Secrets that people wrote into the spec, checked for the places that they go to.

use std::collections::BTreeMap;

use super::build::names::Names;
use super::observed::{Observed, SecretData};
use super::provider::READ_ONLY;
use super::validate::{
    Authority, Endpoint, Invalid, Login, PoolerCertificate, Redacted, SecretRef, ServingCertificate,
};
use crate::api::v1alpha1::{External, ExternalRedis, RedisAuth, SecretKey, ServingTls, SslMode};

/// Address and credentials of an external database.
pub(super) fn external_endpoint(external: &External, observed: &Observed) -> Result<Endpoint, Invalid> {
    let name = &external.secret_ref.name;
    let purpose = "credentials of the external database";
    let secret = observed.secrets.get(name).ok_or_else(|| Invalid::waiting(name, None, purpose))?;
    let keys = &external.keys;
    // A key that is named must be there; of the usual ones the first that is there.
    let key = |named: &Option<String>, usual: &[&str]| -> String {
        let present = || usual.iter().find(|key| secret.text(key).is_some()).or(usual.first());
        named.clone().unwrap_or_else(|| present().map_or_else(String::new, |key| (*key).to_owned()))
    };
    let text = |key: &str| required(secret, name, key, purpose).and_then(|value| plain_word(value, name, key));
    let port_key = key(&keys.port, &["port"]);
    let port = match (external.port, secret.text(&port_key)) {
        (Some(port), _) => tcp_port(port),
        (None, None) => 5432,
        (None, Some(port)) => {
            parse_port(port).ok_or_else(|| unreadable(name, &port_key, "is not a TCP port (1-65535)"))?
        }
    };
    let host = match &external.host {
        Some(host) => spec_word(host, "host")?,
        None => text(&key(&keys.host, &["host"]))?,
    };
    let dbname = match &external.dbname {
        Some(dbname) => spec_word(dbname, "dbname")?,
        None => text(&key(&keys.dbname, &["dbname", "database"]))?,
    };
    if dbname == READ_ONLY {
        return Err(Invalid::terminal(
            "DatabaseInvalid",
            format!(
                "the external database is called {READ_ONLY}, the pooler's name for replicas: use another database"
            ),
        ));
    }
    let direct = match &external.direct {
        Some(direct) => (direct.host.clone(), tcp_port(direct.port)),
        None => (host.clone(), port),
    };
    let read = match &external.read {
        Some(read) => Some((spec_word(&read.host, "read.host")?, tcp_port(read.port))),
        None => None,
    };
    let ca =
        external.ca.as_ref().map(|ca| authority(ca, observed, "authority of the external database")).transpose()?;
    let sslmode = external.ssl_mode.unwrap_or(if ca.is_some() { SslMode::VerifyFull } else { SslMode::Prefer });
    let (user_key, password_key) = (key(&keys.user, &["user", "username"]), key(&keys.password, &["password"]));
    Ok(Endpoint {
        port,
        dbname,
        login: Login { user: text(&user_key)?, password: password(secret, name, &password_key, purpose)? },
        sslmode: sslmode.as_str(),
        direct,
        host,
        secret: name.clone(),
        secret_keys: (user_key, password_key),
        read,
        ca,
    })
}

/// The schema allows 1 to 65535 only.
fn tcp_port(port: i32) -> u16 {
    u16::try_from(port).unwrap_or(5432)
}

/// A word of the spec that goes into a line of a configuration file.
fn spec_word(value: &str, field: &str) -> Result<String, Invalid> {
    if is_plain(value) {
        return Ok(value.to_owned());
    }
    Err(Invalid::terminal(
        "DatabaseInvalid",
        format!("spec.database.external.{field} contains white space, a quote or a backslash: write it without"),
    ))
}

/// Certificates of an authority, checked to be some.
fn authority(key: &SecretKey, observed: &Observed, purpose: &str) -> Result<Authority, Invalid> {
    let name = &key.secret_ref.name;
    let secret = observed.secrets.get(name).ok_or_else(|| Invalid::waiting(name, None, purpose))?;
    let pem = required(secret, name, &key.key, purpose)?;
    if !pem.contains("-----BEGIN CERTIFICATE-----") {
        return Err(unreadable(name, &key.key, "holds no certificate in PEM"));
    }
    let pem = secret.data.get(&key.key).cloned().unwrap_or_default();
    Ok(Authority { secret: name.clone(), key: key.key.clone(), pem })
}

/// A certificate for the pooler that somebody gave.
pub(super) fn pooler_certificate(name: &str, secret: Option<&SecretData>) -> Result<PoolerCertificate, Invalid> {
    let purpose = "certificate of the pooler";
    let secret = secret.ok_or_else(|| Invalid::waiting(name, None, purpose))?;
    for key in CERTIFICATE_KEYS {
        required(secret, name, key, purpose)?;
    }
    Ok(PoolerCertificate { secret: name.to_owned(), fingerprint: fingerprint(&secret.data, &CERTIFICATE_KEYS) })
}

/// Keys of a Secret with a certificate: the certificate, its key, and who signed it.
pub(super) const CERTIFICATE_KEYS: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// Stands for the values of some keys.
pub(super) fn fingerprint(data: &BTreeMap<String, Vec<u8>>, keys: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for key in keys {
        let value = data.get(*key).map(Vec::as_slice).unwrap_or_default();
        hasher.update(&(value.len() as u64).to_le_bytes()).update(value);
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// How to sign in to an external Redis. The values stay in their Secrets, which pods mount; only user names are copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisLogin {
    /// Credentials of the servers.
    pub server: Option<RedisCredentials>,
    /// Credentials of the sentinels.
    pub sentinel: Option<RedisCredentials>,
    /// Who signed the servers' certificates.
    pub ca: Option<Authority>,
}

/// ACL user and where its password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisCredentials {
    /// ACL user; the default one when `None`.
    pub username: Option<String>,
    /// Secret.
    pub secret: String,
    /// Key of the password.
    pub password_key: String,
}

/// Checks that everything is there that the server needs to reach an external Redis.
pub(super) fn redis_login(external: &ExternalRedis, observed: &Observed) -> Result<RedisLogin, Invalid> {
    let credentials = |auth: &RedisAuth, purpose: &str| -> Result<RedisCredentials, Invalid> {
        let name = &auth.secret_ref.name;
        let secret = observed.secrets.get(name).ok_or_else(|| Invalid::waiting(name, None, purpose))?;
        password(secret, name, &auth.password_key, purpose)?;
        let username = secret.text(&auth.username_key).map(|user| plain_word(user, name, &auth.username_key));
        Ok(RedisCredentials {
            username: username.transpose()?,
            secret: name.clone(),
            password_key: auth.password_key.clone(),
        })
    };
    let server = external.auth.as_ref().map(|auth| credentials(auth, "credentials of the external Redis"));
    let sentinel = external.sentinel.as_ref().and_then(|sentinel| sentinel.auth.as_ref());
    let sentinel = sentinel.map(|auth| credentials(auth, "credentials of the sentinels"));
    let ca = external.tls.as_ref().and_then(|tls| tls.ca.as_ref());
    let ca = ca.map(|ca| authority(ca, observed, "authority of the external Redis"));
    Ok(RedisLogin { server: server.transpose()?, sentinel: sentinel.transpose()?, ca: ca.transpose()? })
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

pub(super) fn required<'a>(secret: &'a SecretData, name: &str, key: &str, purpose: &str) -> Result<&'a str, Invalid> {
    secret.text(key).ok_or_else(|| Invalid::waiting(name, Some(key), purpose))
}

pub(super) fn password(secret: &SecretData, name: &str, key: &str, purpose: &str) -> Result<Redacted, Invalid> {
    let value = required(secret, name, key, purpose)?;
    if value.chars().any(char::is_control) {
        return Err(unreadable(
            name,
            key,
            "contains a control character such as a line break: write the value without it",
        ));
    }
    Ok(Redacted(value.to_owned()))
}

/// A value that goes into a line of somebody else's configuration file: no white space, quote or control character.
fn plain_word(value: &str, name: &str, key: &str) -> Result<String, Invalid> {
    if !is_plain(value) {
        return Err(unreadable(name, key, "contains white space, a quote or a backslash: write the value without it"));
    }
    Ok(value.to_owned())
}

fn is_plain(value: &str) -> bool {
    !value.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '\'' | '"' | '\\'))
}

pub(super) fn unreadable(name: &str, key: &str, what: &str) -> Invalid {
    Invalid {
        reason: "SecretInvalid",
        message: format!("key {key} in Secret {name} {what}"),
        // A corrected Secret is noticed by the same watch as a missing one.
        waiting_for: Some(SecretRef { name: name.to_owned(), key: Some(key.to_owned()) }),
        terminal: false,
    }
}

/// The certificate of the API pods; `None` when they serve plain HTTP.
pub(super) fn serving_tls(
    tls: Option<&ServingTls>,
    names: &Names,
    observed: &Observed,
) -> Result<Option<ServingCertificate>, Invalid> {
    let Some(tls) = tls else { return Ok(None) };
    let (name, purpose) = match &tls.secret {
        Some(secret) => (secret.name.clone(), "certificate of the API pods"),
        None => (names.api_tls(), "certificate of the API pods, which OpenShift's service CA makes"),
    };
    let secret = observed.secrets.get(&name).ok_or_else(|| Invalid::waiting(&name, None, purpose))?;
    for key in ["tls.crt", "tls.key"] {
        required(secret, &name, key, purpose)?;
    }
    let ca = secret.text("ca.crt").map(str::to_owned);
    Ok(Some(ServingCertificate { secret: name, ca }))
}
