//! `Secret`, `GlobalSecret` and `User`: what must be there and what excludes what. No value is repeated in an error.

use super::SpecError;
use super::node::Node;

pub(super) fn check_secret(spec: &Node<'_>) -> Result<(), SpecError> {
    let ways: Vec<&str> =
        ["basicAuth", "authorization", "oauth"].into_iter().filter(|way| spec.get(way).is_some()).collect();
    if ways.len() > 1 {
        return Err(spec.error("basicAuth, authorization and oauth are mutually exclusive, use one of them"));
    }
    if let Some(basic) = spec.get("basicAuth") {
        basic.object()?;
        let [user, password, file] = strings(&basic, ["username", "password", "passwordFile"])?;
        if !user || !(password || file) {
            return Err(basic.error("when using basicAuth, username and password/passwordFile cannot be empty"));
        }
        if password && file {
            return Err(basic.error("at most one of basicAuth password & passwordFile must be configured"));
        }
    }
    if let Some(authorization) = spec.get("authorization") {
        authorization.object()?;
        let [_, credentials, file] = strings(&authorization, ["type", "credentials", "credentialsFile"])?;
        if credentials && file {
            return Err(
                authorization.error("at most one of authorization credentials & credentialsFile must be configured")
            );
        }
    }
    if let Some(oauth) = spec.get("oauth") {
        oauth.object()?;
        let [id, secret, file, token] = strings(&oauth, ["clientID", "clientSecret", "clientSecretFile", "tokenURL"])?;
        if !id || !(secret || file) || !token {
            return Err(
                oauth.error("when using oauth, clientID, clientSecret/clientSecretFile, and tokenURL cannot be empty")
            );
        }
        if let Some(scopes) = oauth.get("scopes") {
            scopes.elements()?.try_for_each(|scope| scope.str().map(|_| ()))?;
        }
        if let Some(parameters) = oauth.get("endpointParams") {
            for (_, values) in parameters.members()? {
                values.elements()?.try_for_each(|value| value.str().map(|_| ()))?;
            }
        }
        oauth.opt_int("authStyle")?;
        if secret && file {
            return Err(oauth.error("at most one of oauth clientSecret & clientSecretFile must be configured"));
        }
    }
    if let Some(tls) = spec.get("tlsConfig") {
        tls.object()?;
        strings(&tls, ["ca", "cert", "key", "caFile", "certFile", "keyFile", "serverName"])?;
        tls.bool_or_false("insecureSkipVerify")?;
        for key in ["minVersion", "maxVersion"] {
            let version = tls.str_or_empty(key)?;
            if !matches!(version, "" | "TLS10" | "TLS11" | "TLS12" | "TLS13") {
                return Err(tls.error(format!("{key}: unknown TLS version {version:?} (TLS10, TLS11, TLS12 or TLS13)")));
            }
        }
    }
    Ok(())
}

pub(super) fn check_user(spec: &Node<'_>) -> Result<(), SpecError> {
    strings(spec, ["firstName", "lastName"])?;
    let mut password = false;
    if let Some(native) = spec.get("nativeProvider") {
        native.object()?;
        [password] = strings(&native, ["password"])?;
    }
    if let Some(providers) = spec.get("oauthProviders") {
        let mut any = false;
        for provider in providers.elements()? {
            provider.object()?;
            strings(&provider, ["issuer", "email", "subject"])?;
            any = true;
        }
        if any && password {
            return Err(spec.error("nativeProvider and oauthProviders are mutually exclusive, use one of them"));
        }
    }
    Ok(())
}

/// Which of the members are strings that are not empty; another type is an error.
fn strings<const N: usize>(node: &Node<'_>, keys: [&str; N]) -> Result<[bool; N], SpecError> {
    let mut found = [false; N];
    for (there, key) in found.iter_mut().zip(keys) {
        *there = !node.str_or_empty(key)?.is_empty();
    }
    Ok(found)
}
