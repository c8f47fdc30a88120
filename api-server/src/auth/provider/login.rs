//! A login in progress: what must be remembered between sending the browser away and its return, sealed in a cookie, so that
//! any pod can finish what another one began. A second login in another tab has a cookie of its own.

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::ProviderKind;
use crate::auth::cookies;
use crate::auth::crypto::SecretBox;

/// How long the user may take at the provider, in seconds.
const LIFE: i64 = 600;
/// The keys of these cookies are derived from the encryption key for this purpose alone.
const PURPOSE: &str = "perses-stack 2026 login in progress";
/// What a cookie's name starts with.
const NAME: &str = "persesLogin";
/// A longer path to return to does not fit into a cookie.
const MAX_RETURN: usize = 1500;

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Kind and slug of the provider: `oidc/keycloak`.
    provider: String,
    /// Comes back in the address: proves that this browser began the login.
    pub state: String,
    /// Comes back in the ID token: proves that the token was made for this login.
    pub nonce: String,
    /// Proves to the provider that we began the login (PKCE, RFC 7636).
    pub verifier: String,
    /// The redirect address that was sent; it must be repeated.
    pub redirect_uri: String,
    /// Where to go in the end: a path of ours.
    pub target: String,
    /// End, in seconds since 1970.
    until: i64,
}

impl Login {
    /// A new login with secrets of its own.
    pub fn begin(kind: ProviderKind, slug: &str, redirect_uri: String, target: String, now: Timestamp) -> Self {
        let target = if target.len() > MAX_RETURN { "/".to_owned() } else { target };
        Self {
            provider: provider(kind, slug),
            state: random(),
            nonce: random(),
            verifier: random(),
            redirect_uri,
            target,
            until: now.as_second() + LIFE,
        }
    }

    /// The PKCE challenge, method `S256`.
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.as_bytes()))
    }
}

/// Seals logins and opens them.
#[derive(Debug)]
pub struct Logins {
    seal: SecretBox,
}

/// How the cookies are sent.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// The path below which the browser returns them.
    pub path: &'a str,
    /// Over TLS only.
    pub secure: bool,
}

impl Logins {
    /// With keys derived from the encryption key.
    pub fn new(secrets: &SecretBox) -> Self {
        Self { seal: secrets.derive(PURPOSE) }
    }

    /// The `Set-Cookie` line of a login. `SameSite=Lax` whatever the sign-in cookies have: the browser comes back from
    /// another site.
    pub fn cookie(&self, login: &Login, attributes: Attributes<'_>) -> Option<HeaderValue> {
        let plain = serde_json::to_vec(login).ok()?;
        let sealed = self.seal.encrypt(&plain).ok()?;
        line(&name(&login.state), &sealed, LIFE, attributes)
    }

    /// The `Set-Cookie` line that ends it.
    pub fn end(state: &str, attributes: Attributes<'_>) -> Option<HeaderValue> {
        line(&name(state), "", 0, attributes)
    }

    /// The login of this browser that has this state, when it is of this provider and not over.
    pub fn find(
        &self,
        headers: &HeaderMap,
        state: &str,
        kind: ProviderKind,
        slug: &str,
        now: Timestamp,
    ) -> Option<Login> {
        let sealed = cookies::read(headers, &name(state))?;
        let login: Login = serde_json::from_slice(&self.seal.decrypt_own(sealed).ok()?).ok()?;
        let fits = login.state == state && login.provider == provider(kind, slug) && now.as_second() < login.until;
        fits.then_some(login)
    }
}

fn provider(kind: ProviderKind, slug: &str) -> String {
    format!("{}/{slug}", kind.as_str())
}

/// The state is in addresses, so a part of its hash may be in a name.
fn name(state: &str) -> String {
    let hash = blake3::hash(state.as_bytes()).to_hex();
    format!("{NAME}{}", &hash[..16])
}

fn line(name: &str, value: &str, max_age: i64, attributes: Attributes<'_>) -> Option<HeaderValue> {
    let secure = if attributes.secure { "; Secure" } else { "" };
    let path = attributes.path;
    let text = format!("{name}={value}; Path={path}; Max-Age={max_age}; HttpOnly{secure}; SameSite=Lax");
    HeaderValue::from_str(&text).ok()
}

/// 256 random bits as text.
fn random() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use axum::http::header;

    use super::*;

    const PATH: Attributes<'static> = Attributes { path: "/api", secure: true };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn headers(line: &HeaderValue) -> HeaderMap {
        let pair = line.to_str().unwrap().split(';').next().unwrap().to_owned();
        HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_str(&pair).unwrap())])
    }

    #[test]
    fn any_pod_with_the_key_finds_a_login_until_it_ends() {
        let logins = |key: u8| Logins::new(&SecretBox::new(&[key; 32]).unwrap());
        let login = Login::begin(ProviderKind::Oidc, "kc", "http://a/callback".into(), "/x".into(), at(0));
        let line = logins(1).cookie(&login, PATH).unwrap();
        let text = line.to_str().unwrap();
        assert!(text.ends_with("; Path=/api; Max-Age=600; HttpOnly; Secure; SameSite=Lax"), "{text}");
        for secret in [&login.state, &login.nonce, &login.verifier] {
            assert!(!text.contains(secret.as_str()));
        }
        let cookies = headers(&line);
        let find = |logins: &Logins, state: &str, kind, slug, now| logins.find(&cookies, state, kind, slug, at(now));
        assert_eq!(find(&logins(1), &login.state, ProviderKind::Oidc, "kc", 599), Some(login.clone()));
        assert_eq!(find(&logins(1), &login.state, ProviderKind::Oidc, "kc", 600), None);
        assert_eq!(find(&logins(2), &login.state, ProviderKind::Oidc, "kc", 1), None);
        assert_eq!(find(&logins(1), "another", ProviderKind::Oidc, "kc", 1), None);
        assert_eq!(find(&logins(1), &login.state, ProviderKind::Oauth, "kc", 1), None);
        assert_eq!(find(&logins(1), &login.state, ProviderKind::Oidc, "other", 1), None);
    }

    #[test]
    fn a_cookie_under_another_states_name_is_not_taken() {
        let logins = Logins::new(&SecretBox::new(&[1; 32]).unwrap());
        let begin = || Login::begin(ProviderKind::Oidc, "kc", String::new(), "/".into(), at(0));
        let (mine, other) = (begin(), begin());
        assert_ne!((&mine.state, &mine.nonce, &mine.verifier), (&other.state, &other.nonce, &other.verifier));
        let sealed = logins.cookie(&other, PATH).unwrap();
        let value = sealed.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap().1.to_owned();
        let forged = HeaderValue::from_str(&format!("{}={value}", name(&mine.state))).unwrap();
        let cookies = HeaderMap::from_iter([(header::COOKIE, forged)]);
        assert_eq!(logins.find(&cookies, &mine.state, ProviderKind::Oidc, "kc", at(1)), None);
    }

    #[test]
    fn the_challenge_is_that_of_the_standard() {
        // RFC 7636, appendix B.
        let mut login = Login::begin(ProviderKind::Oidc, "kc", String::new(), "/".into(), at(0));
        login.verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        assert_eq!(login.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
