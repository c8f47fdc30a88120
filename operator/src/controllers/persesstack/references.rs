//! PURE: values of the Secrets that people wrote into the spec, checked for the places that they go to.

use super::build::names::Names;
use super::observed::{Observed, SecretData};
use super::validate::{
    Endpoint, Invalid, Login, Redacted, ResolvedAuth, ResolvedDatasource, SecretRef, ServingCertificate,
};
use crate::api::v1alpha1::{Datasource, External, ServingTls};

/// Address and credentials of an external database.
pub(super) fn external_endpoint(external: &External, observed: &Observed) -> Result<Endpoint, Invalid> {
    let name = &external.secret_ref.name;
    let purpose = "credentials of the external database";
    let secret = observed.secrets.get(name).ok_or_else(|| Invalid::waiting(name, None, purpose))?;
    let keys = &external.keys;
    let text = |key: &str| required(secret, name, key, purpose).and_then(|value| plain_word(value, name, key));
    let port = match secret.text(&keys.port) {
        None => 5432,
        Some(port) => parse_port(port).ok_or_else(|| unreadable(name, &keys.port, "is not a TCP port (1-65535)"))?,
    };
    let host = text(&keys.host)?;
    let direct = match &external.direct {
        Some(direct) => (direct.host.clone(), u16::try_from(direct.port).unwrap_or(5432)),
        None => (host.clone(), port),
    };
    Ok(Endpoint {
        port,
        dbname: text(&keys.dbname)?,
        login: Login { user: text(&keys.user)?, password: password(secret, name, &keys.password, purpose)? },
        sslmode: external.ssl_mode.as_str(),
        direct,
        host,
        secret: name.clone(),
        secret_keys: (keys.user.clone(), keys.password.clone()),
    })
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}

fn required<'a>(secret: &'a SecretData, name: &str, key: &str, purpose: &str) -> Result<&'a str, Invalid> {
    secret.text(key).ok_or_else(|| Invalid::waiting(name, Some(key), purpose))
}

fn password(secret: &SecretData, name: &str, key: &str, purpose: &str) -> Result<Redacted, Invalid> {
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
    if value.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '\'' | '"' | '\\')) {
        return Err(unreadable(name, key, "contains white space, a quote or a backslash: write the value without it"));
    }
    Ok(value.to_owned())
}

fn unreadable(name: &str, key: &str, what: &str) -> Invalid {
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

/// A datasource with its credentials.
pub(super) fn resolve_datasource(datasource: &Datasource, observed: &Observed) -> Result<ResolvedDatasource, Invalid> {
    let authority = datasource.url.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    if authority.contains('@') {
        return Err(Invalid::terminal(
            "DatasourceInvalid",
            format!(
                "the url of datasource {} carries credentials: put them into a Secret and use auth.basic",
                datasource.name
            ),
        ));
    }
    let purpose = format!("credentials of datasource {}", datasource.name);
    let find = |name: &str| observed.secrets.get(name).ok_or_else(|| Invalid::waiting(name, None, &purpose));
    let auth = match &datasource.auth {
        None => None,
        Some(auth) => match (&auth.basic, &auth.bearer) {
            (Some(basic), None) => {
                let name = &basic.secret_ref.name;
                let secret = find(name)?;
                Some(ResolvedAuth::Basic(Login {
                    user: required(secret, name, &basic.username_key, &purpose)?.to_owned(),
                    password: password(secret, name, &basic.password_key, &purpose)?,
                }))
            }
            (None, Some(bearer)) => {
                let name = &bearer.secret_ref.name;
                Some(ResolvedAuth::Bearer(password(find(name)?, name, &bearer.key, &purpose)?))
            }
            _ => {
                return Err(Invalid::terminal(
                    "DatasourceInvalid",
                    format!("datasource {}: set exactly one of auth.basic and auth.bearer", datasource.name),
                ));
            }
        },
    };
    Ok(ResolvedDatasource { spec: datasource.clone(), auth })
}
