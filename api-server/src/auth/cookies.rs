//! The sign-in's cookies, by the names and attributes of Perses v0.54: the access token in two (the UI may read the payload,
//! never the signature), the refresh token in one.

use axum::http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;

use super::token::Tokens;
use crate::config::{Cookie, SameSite};

/// `header.payload` of the access token; readable by scripts.
pub const PAYLOAD: &str = "jwtPayload";
/// Signature of the access token.
pub const SIGNATURE: &str = "jwtSignature";
/// The refresh token.
pub const REFRESH: &str = "jwtRefreshToken";

/// The value of a cookie of the request.
pub fn read<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
        .filter(|value| !value.is_empty())
}

/// `Set-Cookie` lines for an access token. They outlive it, so that the browser goes on sending it and the answer is a 401,
/// upon which the UI refreshes.
pub fn access(tokens: &Tokens, config: &Cookie, token: &str, now: Timestamp) -> Vec<HeaderValue> {
    let max_age = tokens.access_ttl.max(tokens.refresh_ttl).as_secs();
    let ends = expires(now, tokens.access_ttl.as_secs());
    let Some((head, signature)) = token.rsplit_once('.') else { return Vec::new() };
    let lines =
        [line(PAYLOAD, head, &ends, max_age, false, config), line(SIGNATURE, signature, &ends, max_age, true, config)];
    lines.into_iter().flatten().collect()
}

/// `Set-Cookie` line for a refresh token.
pub fn refresh(tokens: &Tokens, config: &Cookie, token: &str, now: Timestamp) -> Option<HeaderValue> {
    let max_age = tokens.refresh_ttl.as_secs();
    line(REFRESH, token, &expires(now, max_age), max_age, true, config)
}

/// `Set-Cookie` lines that end all three.
pub fn clear() -> [HeaderValue; 3] {
    [
        HeaderValue::from_static("jwtRefreshToken=; Path=/; Max-Age=0; HttpOnly"),
        HeaderValue::from_static("jwtPayload=; Path=/; Max-Age=0"),
        HeaderValue::from_static("jwtSignature=; Path=/; Max-Age=0; HttpOnly"),
    ]
}

fn line(name: &str, value: &str, ends: &str, max_age: u64, hidden: bool, config: &Cookie) -> Option<HeaderValue> {
    let http_only = if hidden { "; HttpOnly" } else { "" };
    let secure = if config.secure { "; Secure" } else { "" };
    let same_site = match config.same_site {
        SameSite::Lax => "Lax",
        SameSite::Strict => "Strict",
        SameSite::None => "None",
    };
    let text =
        format!("{name}={value}; Path=/; Expires={ends}; Max-Age={max_age}{http_only}{secure}; SameSite={same_site}");
    HeaderValue::from_str(&text).ok()
}

/// The date form of RFC 9110.
fn expires(now: Timestamp, seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let end = Timestamp::from_second(now.as_second().saturating_add(seconds)).unwrap_or(Timestamp::MAX);
    end.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::crypto::SecretBox;

    #[test]
    fn reads_one_cookie_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("theme=dark; jwtPayloadX=no; jwtPayload=a.b"));
        headers.append(header::COOKIE, HeaderValue::from_static("jwtSignature=c; jwtRefreshToken="));
        assert_eq!(read(&headers, PAYLOAD), Some("a.b"));
        assert_eq!(read(&headers, SIGNATURE), Some("c"));
        assert_eq!(read(&headers, REFRESH), None);
    }

    #[test]
    fn writes_them_as_upstream_does() {
        let secrets = SecretBox::new(&[1; 32]).unwrap();
        let tokens = Tokens::new(&secrets, Duration::from_secs(900), Duration::from_secs(86_400));
        let now = Timestamp::from_second(0).unwrap();
        let lax = Cookie::default();
        let strict = Cookie { same_site: SameSite::Strict, secure: true };
        assert_eq!(
            access(&tokens, &lax, "a.b.c", now),
            [
                "jwtPayload=a.b; Path=/; Expires=Thu, 01 Jan 1970 00:15:00 GMT; Max-Age=86400; SameSite=Lax",
                "jwtSignature=c; Path=/; Expires=Thu, 01 Jan 1970 00:15:00 GMT; Max-Age=86400; HttpOnly; SameSite=Lax",
            ]
        );
        assert_eq!(
            refresh(&tokens, &strict, "r", now).unwrap(),
            "jwtRefreshToken=r; Path=/; Expires=Fri, 02 Jan 1970 00:00:00 GMT; Max-Age=86400; HttpOnly; Secure; SameSite=Strict"
        );
    }
}
