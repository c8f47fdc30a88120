//! Which headers pass the proxy, in both directions. Pure.

use std::net::IpAddr;

use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Headers of one connection, never forwarded (RFC 9110, 7.6.1), and `proxy-connection`, which old clients send.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers of a request that are for this server or are made anew.
const OWN_REQUEST: [&str; 7] = ["authorization", "content-length", "cookie", "expect", "host", "origin", "referer"];

/// Headers of an answer that would act on this server's origin in the browser: cookies, settings that outlive the answer, a
/// question for a password that the user would take for ours, a way to another place. `Access-Control-*` goes with them: which
/// sites may read our answers is `security.cors`.
const ORIGIN_RESPONSE: [&str; 11] = [
    "alt-svc",
    "clear-site-data",
    "nel",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "service-worker-allowed",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "www-authenticate",
];
const ACCESS_CONTROL: &str = "access-control-";

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Whether a header of a datasource's `headers` may be sent. Upstream ignores `Authorization` by design (a secret is the
/// place for it); the others belong to the connection.
pub(super) fn is_configurable(name: &HeaderName) -> bool {
    let name = name.as_str();
    !HOP_BY_HOP.contains(&name) && !matches!(name, "authorization" | "content-length" | "host")
}

/// The client's headers without those of its connection and of this server.
pub(super) fn end_to_end(client: &HeaderMap) -> HeaderMap {
    let named = connection_options(client);
    let mut out = HeaderMap::with_capacity(client.len() + 4);
    for (name, value) in client {
        if !is_hop_by_hop(name, &named) && !OWN_REQUEST.contains(&name.as_str()) {
            out.append(name, value.clone());
        }
    }
    out
}

/// Who asked, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct Forwarded {
    /// The other end of the connection.
    pub peer: Option<IpAddr>,
    /// Whether the connection is HTTPS.
    pub https: bool,
}

/// Adds who asked: `X-Forwarded-For` grows by the peer, the others are set when absent, as upstream does.
pub(super) fn add_forwarded(headers: &mut HeaderMap, forwarded: Forwarded) {
    if !headers.contains_key(&FORWARDED_PROTO) {
        let scheme = if forwarded.https { "https" } else { "http" };
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    let Some(peer) = forwarded.peer else { return };
    let mut chain = String::new();
    for value in headers.get_all(&FORWARDED_FOR) {
        if let Ok(value) = value.to_str() {
            chain.push_str(value);
            chain.push_str(", ");
        }
    }
    chain.push_str(&peer.to_string());
    if let Ok(value) = HeaderValue::try_from(chain) {
        headers.insert(FORWARDED_FOR, value);
    }
    if !headers.contains_key(&REAL_IP)
        && let Ok(value) = HeaderValue::try_from(peer.to_string())
    {
        headers.insert(REAL_IP, value);
    }
}

/// Removes from an answer what belongs to the other connection or would act on our origin.
pub(super) fn clean_response(headers: &mut HeaderMap) {
    let named = connection_options(headers);
    for name in HOP_BY_HOP.iter().chain(&ORIGIN_RESPONSE) {
        headers.remove(*name);
    }
    for name in named {
        headers.remove(name.as_str());
    }
    let other_sites: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(ACCESS_CONTROL)).cloned().collect();
    for name in other_sites {
        headers.remove(name);
    }
}

/// What a datasource sends is never a page of ours: a browser that opens it directly runs nothing.
pub(super) fn sandbox(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Client headers that may change an answer: all that are not known to be neutral. They are part of a cache key.
pub(super) fn is_neutral(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("accept")
        || name.starts_with("content-")
        || name.starts_with("sec-")
        || name.starts_with("if-")
        || matches!(
            name,
            "cache-control"
                | "pragma"
                | "user-agent"
                | "dnt"
                | "priority"
                | "range"
                | "upgrade-insecure-requests"
                | "via"
                | "forwarded"
                | "x-forwarded-for"
                | "x-forwarded-host"
                | "x-forwarded-port"
                | "x-forwarded-proto"
                | "x-real-ip"
                | "x-requested-with"
                | "x-request-id"
                | "traceparent"
                | "tracestate"
                | "baggage"
        )
}

fn connection_options(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|option| option.trim().to_ascii_lowercase())
        .filter(|option| !option.is_empty())
        .collect()
}

fn is_hop_by_hop(name: &HeaderName, named: &[String]) -> bool {
    HOP_BY_HOP.contains(&name.as_str()) || named.iter().any(|option| option == name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn credentials_and_connection_headers_stay_here() {
        let out = end_to_end(&map(&[
            ("authorization", "Bearer perses"),
            ("cookie", "jwtPayload=a; jwtSignature=b; other=c"),
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic x"),
            ("host", "perses"),
            ("origin", "http://perses"),
            ("accept", "application/json"),
            ("x-scope-orgid", "a"),
            ("x-scope-orgid", "b"),
        ]));
        assert_eq!(out, map(&[("accept", "application/json"), ("x-scope-orgid", "a"), ("x-scope-orgid", "b")]));
    }

    #[test]
    fn forwarded_headers_grow() {
        let mut headers = map(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https")]);
        add_forwarded(&mut headers, Forwarded { peer: Some("2.2.2.2".parse().unwrap()), https: false });
        assert_eq!(
            headers,
            map(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2"), ("x-forwarded-proto", "https"), ("x-real-ip", "2.2.2.2")])
        );
    }

    #[test]
    fn answers_cannot_act_on_our_origin() {
        let mut headers = map(&[
            ("set-cookie", "jwtPayload=evil"),
            ("set-cookie", "b=c"),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("www-authenticate", "Basic realm=\"Perses\""),
            ("refresh", "0; url=/api/auth/logout"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("content-type", "text/html"),
        ]);
        clean_response(&mut headers);
        sandbox(&mut headers);
        assert_eq!(
            headers,
            map(&[
                ("content-type", "text/html"),
                ("content-security-policy", "sandbox"),
                ("x-content-type-options", "nosniff")
            ])
        );
    }

    #[test]
    fn what_is_not_known_to_be_neutral_is_not() {
        for name in ["x-scope-orgid", "x-grafana-org-id", "x-api-key", "thanos-tenant"] {
            assert!(!is_neutral(&HeaderName::from_static(name)), "{name}");
        }
        assert!(is_neutral(&header::USER_AGENT));
    }
}
