//! PURE: certificates and keys (PEM) that specs name by Secret or ConfigMap.

use super::observed::Observed;
use super::references::{required, unreadable};
use super::validate::Invalid;
use crate::api::v1alpha1::PemSource;

/// The text of a source; `purpose` says what it is for.
///
/// # Errors
/// The object or the key is missing, or holds no PEM: never terminal.
pub(super) fn resolve(source: &PemSource, observed: &Observed, purpose: &str) -> Result<String, Invalid> {
    match (&source.secret, &source.config_map) {
        (Some(at), None) => {
            let secret = observed.secrets.get(&at.name);
            let secret = secret.ok_or_else(|| Invalid::waiting(&at.name, None, purpose))?;
            pem(required(secret, &at.name, &at.key, purpose)?, &at.name, &at.key)
        }
        (None, Some(at)) => {
            let absent = |what: String| Invalid {
                reason: "ConfigMapNotFound",
                message: format!("waiting for {what} ({purpose})"),
                waiting_for: None,
                terminal: false,
            };
            let data = observed.config_maps.get(&at.name);
            let data =
                data.ok_or_else(|| absent(format!("ConfigMap {}: create it in the stack's namespace", at.name)))?;
            let text = data.get(&at.key).map(|text| text.trim()).filter(|text| !text.is_empty());
            let text =
                text.ok_or_else(|| absent(format!("key {} in ConfigMap {}, absent or empty", at.key, at.name)))?;
            if text.contains("-----BEGIN ") {
                return Ok(text.to_owned());
            }
            let message = format!("key {} in ConfigMap {} holds no PEM certificate ({purpose})", at.key, at.name);
            Err(Invalid { reason: "ConfigMapInvalid", message, waiting_for: None, terminal: false })
        }
        _ => Err(Invalid::terminal("SpecInvalid", format!("{purpose}: set exactly one of secret and configMap"))),
    }
}

/// The text, when it looks like PEM.
pub(super) fn pem(text: &str, name: &str, key: &str) -> Result<String, Invalid> {
    if text.contains("-----BEGIN ") {
        return Ok(text.to_owned());
    }
    Err(unreadable(name, key, "holds no PEM (a text that starts with -----BEGIN): write the PEM itself"))
}
