//! Other sites that may call the API from a browser (`security.cors`), with the meaning that the keys have in Perses v0.54.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

use crate::config::Cors;

const ANY: &str = "*";
/// Methods of an empty `allow_methods`.
const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::PUT, Method::PATCH, Method::POST, Method::DELETE];

/// The layer, when the switch is on.
pub fn layer(config: &Cors) -> Option<CorsLayer> {
    if !config.enable {
        return None;
    }
    let origins = origins(config);
    if config.allow_credentials && admits_all(&origins) {
        tracing::warn!(
            "security.cors.allow_credentials has no effect: browsers take it only with origins by name in allow_origins"
        );
    }
    let headers: Vec<HeaderName> = names(&config.allow_headers);
    // With no list the browser gets what it asks for. A wildcard would leave `Authorization` out.
    let headers = if headers.is_empty() { AllowHeaders::mirror_request() } else { AllowHeaders::list(headers) };
    let methods: Vec<Method> = names(&config.allow_methods);
    let methods = if config.allow_methods.iter().any(|method| method == ANY) {
        AllowMethods::mirror_request()
    } else {
        AllowMethods::list(if methods.is_empty() { METHODS.to_vec() } else { methods })
    };
    let expose: Vec<HeaderName> = names(&config.expose_headers);
    let mut layer = CorsLayer::new()
        .allow_headers(headers)
        .allow_methods(methods)
        .allow_credentials(with_credentials(config, &origins))
        .expose_headers(ExposeHeaders::list(expose));
    layer = if admits_all(&origins) {
        layer.allow_origin(AllowOrigin::any())
    } else {
        layer.allow_origin(AllowOrigin::predicate(move |origin, _| lists(&origins, origin)))
    };
    if config.max_age > 0 {
        layer = layer.max_age(Duration::from_secs(config.max_age.into()));
    }
    Some(layer)
}

/// Whether the site that a request says it comes from may use the visitor's cookies.
pub fn trusts(config: &Cors, headers: &HeaderMap) -> bool {
    let origins = origins(config);
    config.enable
        && with_credentials(config, &origins)
        && headers.get(header::ORIGIN).is_some_and(|origin| lists(&origins, origin))
}

/// An empty list admits everybody.
fn origins(config: &Cors) -> Vec<String> {
    if config.allow_origins.is_empty() { vec![ANY.to_owned()] } else { config.allow_origins.clone() }
}

fn admits_all(origins: &[String]) -> bool {
    origins.iter().any(|origin| origin == ANY)
}

fn with_credentials(config: &Cors, origins: &[String]) -> bool {
    config.allow_credentials && !admits_all(origins)
}

fn lists(origins: &[String], origin: &HeaderValue) -> bool {
    origin.to_str().is_ok_and(|origin| origins.iter().any(|pattern| matches(pattern.as_bytes(), origin.as_bytes())))
}

/// Whether a text matches a pattern in which `*` stands for any text and `?` for any character.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut pos) = (0, 0);
    // Where to go on when what follows the last `*` does not match.
    let mut retry: Option<(usize, usize)> = None;
    while pos < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, pos));
                at += 1;
            }
            Some(b'?') => (at, pos) = (at + 1, pos + 1),
            Some(byte) if byte.eq_ignore_ascii_case(&text[pos]) => (at, pos) = (at + 1, pos + 1),
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    (at, pos) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

fn names<T: std::str::FromStr>(texts: &[String]) -> Vec<T> {
    let known = texts.iter().filter(|text| text.as_str() != ANY);
    known
        .filter_map(|text| text.parse().inspect_err(|_| tracing::warn!(%text, "security.cors: this is no name")).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "https://a.example.evil", false),
            ("https://*.example", "https://a.b.example", true),
            ("https://*.example", "https://example", false),
            ("https://*.example", "https://a.example.evil", false),
            ("https://?.example", "https://a.example", true),
            ("https://?.example", "https://ab.example", false),
            ("*a*b", "xaabab", true),
            ("*a*b", "xaabac", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn cookies_are_for_sites_by_name_only() {
        let headers: HeaderMap =
            [(header::ORIGIN, HeaderValue::from_static("https://a.example"))].into_iter().collect();
        let config = |origins: &[&str], credentials: bool| Cors {
            enable: true,
            allow_origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            allow_credentials: credentials,
            ..Cors::default()
        };
        assert!(trusts(&config(&["https://a.example"], true), &headers));
        assert!(!trusts(&config(&["https://a.example"], false), &headers));
        assert!(!trusts(&config(&["https://b.example"], true), &headers));
        assert!(!trusts(&config(&["*"], true), &headers));
        assert!(!trusts(&config(&[], true), &headers));
        assert!(!trusts(&Cors { enable: false, ..config(&["https://a.example"], true) }, &headers));
        for origins in [&["*"][..], &[], &["https://a.example"]] {
            assert!(layer(&config(origins, true)).is_some(), "no combination panics");
        }
    }
}
