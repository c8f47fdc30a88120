//! How a provider is spoken to: TLS, deadlines, credentials in headers and files.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Certificate, redirect};

use super::metadata::reason;
use crate::config::ProviderHttp;

/// RFC 6749 section 2.3.1: both parts are form-encoded inside the header.
pub(super) fn basic(id: &str, secret: &str) -> String {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encode(id), encode(secret))))
}

/// The secret in a file, without the line end that editors leave.
pub(super) async fn read_secret(path: &Path) -> Result<String, String> {
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|error| format!("cannot read client_secret_file {}: {error}", path.display()))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

/// A client with the configured TLS. `plain`: the provider is reached without TLS, so that the system's authorities are not needed.
pub(super) fn http_client(config: &ProviderHttp, plain: bool) -> Result<reqwest::Client, String> {
    // reqwest takes the process' provider; a second installation is refused and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .timeout(config.timeout.0)
        // A form with a secret must not follow a redirect to another host.
        .redirect(redirect::Policy::none())
        .user_agent(concat!("perses-api-server/", env!("CARGO_PKG_VERSION")));
    let tls = config.tls_config.clone().unwrap_or_default();
    let file = |path: &Path| std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
    if let Some(path) = &tls.ca_file {
        let bundle = Certificate::from_pem_bundle(&file(path)?)
            .map_err(|_| format!("tls_config.ca_file {} has no PEM certificates", path.display()))?;
        builder = builder.tls_certs_only(bundle);
    } else if plain {
        builder = builder.tls_certs_only([]);
    }
    match (&tls.cert_file, &tls.key_file) {
        (Some(cert), Some(key)) => {
            let pem = [file(cert)?, b"\n".to_vec(), file(key)?].concat();
            let identity = reqwest::Identity::from_pem(&pem)
                .map_err(|_| "tls_config.cert_file and key_file are no PEM certificate and key".to_owned())?;
            builder = builder.identity(identity);
        }
        (None, None) => {}
        _ => return Err("tls_config.cert_file and key_file go together".to_owned()),
    }
    if tls.insecure_skip_verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    builder.build().map_err(|error| format!("its TLS settings cannot be used: {}", reason(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_encoded_inside_the_header() {
        let header = basic("a:b", "p%/+ä");
        let text = STANDARD.decode(header.strip_prefix("Basic ").unwrap()).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "a%3Ab:p%25%2F%2B%C3%A4");
    }
}
