//! Access tokens for datasources by OAuth 2.0 client credentials (RFC 6749, 4.4): fetched once, shared by all requests until
//! shortly before they expire. (Upstream, Perses v0.54, fetches one for every request.)

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::http::{HeaderValue, StatusCode, header};
use bytes::BytesMut;
use moka::sync::Cache;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::client::{ClientError, Clients, Route};
use super::credentials::TlsOptions;
use super::forward;
use super::network::Denied;
use super::spec::basic;
use crate::query::flight::Flights;

/// How long the token endpoint may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Longest answer of a token endpoint.
const MAX_ANSWER: usize = 256 << 10;
/// A token is renewed so long before it expires, or at nine tenths of its life when that is later.
const MARGIN: Duration = Duration::from_secs(30);
/// Life of a token that does not say when it expires.
const UNSAID_LIFE: Duration = Duration::from_hours(1);
/// A token that was never accepted is not replaced before this age: a datasource that refuses everybody would otherwise cost a
/// token for every request.
const UNPROVEN_AGE: Duration = Duration::from_secs(10);
/// Sources that are remembered, and for how long after their last use.
const MAX_SOURCES: u64 = 1024;
const SOURCE_IDLE: Duration = Duration::from_hours(1);
/// A flight whose work was lost (a panic) is tried again this often.
const ATTEMPTS: usize = 2;

/// How the client's credentials go to the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthStyle {
    /// In the header; when that is refused, in the body (as Go's oauth2 does).
    Detect,
    /// `client_id` and `client_secret` in the body.
    Params,
    /// HTTP basic authentication.
    Header,
}

/// `oauth` of a secret, decrypted.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct OauthSettings {
    pub(super) token_url: Url,
    pub(super) client_id: String,
    pub(super) client_secret: String,
    pub(super) scopes: Vec<String>,
    /// Further parameters of the request, in order.
    pub(super) params: Vec<(String, String)>,
    pub(super) style: AuthStyle,
}

impl fmt::Debug for OauthSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OauthSettings").field("host", &self.token_url.host_str()).finish_non_exhaustive()
    }
}

impl OauthSettings {
    /// Digest of everything that decides about the token.
    pub(super) fn digest(&self, tls: &TlsOptions) -> blake3::Hash {
        let mut digest = blake3::Hasher::new();
        let mut absorb = |text: &str| {
            digest.update(&(text.len() as u64).to_le_bytes());
            digest.update(text.as_bytes());
        };
        absorb(self.token_url.as_str());
        absorb(&self.client_id);
        absorb(&self.client_secret);
        absorb(&self.scopes.join(" "));
        for (name, value) in &self.params {
            absorb(name);
            absorb(value);
        }
        absorb(&format!("{:?}", self.style));
        for text in [&tls.ca, &tls.identity, &tls.server_name, &tls.min_version, &tls.max_version] {
            absorb(text.as_deref().unwrap_or_default());
        }
        absorb(if tls.insecure { "insecure" } else { "" });
        digest.finalize()
    }

    fn form(&self, style: AuthStyle) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !self.scopes.is_empty() {
            form.append_pair("scope", &self.scopes.join(" "));
        }
        for (name, value) in &self.params {
            form.append_pair(name, value);
        }
        if style == AuthStyle::Params {
            form.append_pair("client_id", &self.client_id).append_pair("client_secret", &self.client_secret);
        }
        form.finish()
    }

    /// RFC 6749, 2.3.1: both parts are form-encoded first.
    fn basic(&self) -> Result<HeaderValue, TokenError> {
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        basic(&encode(&self.client_id), &encode(&self.client_secret))
            .map_err(|_| TokenError::Answer("the client's name or secret cannot be sent".to_owned()))
    }
}

/// Why there is no token. Names the host of the endpoint, never credentials or what the endpoint said at length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    /// No connection, or no answer in time.
    #[error("the token endpoint cannot be reached: {0}")]
    Unreachable(String),
    /// An answer that is no token.
    #[error("the token endpoint did not give a token: {0}")]
    Answer(String),
    /// The endpoint is where nobody may go.
    #[error("the token endpoint {0}")]
    Denied(Denied),
}

/// A token.
#[derive(Debug)]
pub(super) struct Token {
    /// The whole `Authorization` header.
    pub(super) header: HeaderValue,
    fetched: Instant,
    renew_at: Instant,
    /// Whether the datasource has accepted it once.
    proven: AtomicBool,
}

impl Token {
    /// The datasource took it.
    pub(super) fn accepted(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }
}

/// Where the tokens of one client come from.
pub(super) struct TokenSource {
    settings: OauthSettings,
    route: Route,
    current: Mutex<Option<Arc<Token>>>,
    flights: Flights<(), Result<Arc<Token>, TokenError>>,
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl TokenSource {
    /// A token that is good for a while; those who need one at the same time share one request.
    pub(super) async fn token(self: &Arc<Self>) -> Result<Arc<Token>, TokenError> {
        for _ in 0..ATTEMPTS {
            if let Some(token) = self.kept() {
                return Ok(token);
            }
            let (_, ticket) = self.flights.join(&(), || {
                let source = self.clone();
                async move {
                    // Another flight may have landed between our look and our start.
                    if let Some(token) = source.kept() {
                        return Ok(token);
                    }
                    let token = Arc::new(source.fetch().await?);
                    *source.current.lock() = Some(token.clone());
                    Ok(token)
                }
            });
            if let Ok(result) = ticket.wait().await {
                return result;
            }
        }
        Err(TokenError::Unreachable("the request ended without a result".to_owned()))
    }

    /// The datasource answered 401 to a token. Whether another one may help: this one is forgotten then.
    pub(super) fn refused(&self, token: &Arc<Token>) -> bool {
        let mut current = self.current.lock();
        match &*current {
            Some(kept) if Arc::ptr_eq(kept, token) => {
                let replace = token.proven.load(Ordering::Relaxed) || token.fetched.elapsed() >= UNPROVEN_AGE;
                if replace {
                    *current = None;
                }
                replace
            }
            // Somebody else has replaced or forgotten it.
            _ => true,
        }
    }

    fn kept(&self) -> Option<Arc<Token>> {
        self.current.lock().clone().filter(|token| Instant::now() < token.renew_at)
    }

    async fn fetch(&self) -> Result<Token, TokenError> {
        let host = self.settings.token_url.host_str().unwrap_or_default();
        let first = if self.settings.style == AuthStyle::Params { AuthStyle::Params } else { AuthStyle::Header };
        let outcome = match self.ask(first).await? {
            Err(refusal) if self.settings.style == AuthStyle::Detect && refusal.status.is_client_error() => {
                self.ask(AuthStyle::Params).await?
            }
            outcome => outcome,
        };
        outcome.map_err(|refusal| TokenError::Answer(format!("{host} answered {refusal}")))
    }

    async fn ask(&self, style: AuthStyle) -> Result<Result<Token, Refusal>, TokenError> {
        let started = Instant::now();
        let mut request = self
            .route
            .client
            .post(self.route.url.clone())
            .timeout(TIMEOUT)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(self.settings.form(style));
        if style == AuthStyle::Header {
            request = request.header(header::AUTHORIZATION, self.settings.basic()?);
        }
        if let Some(host) = &self.route.host {
            request = request.header(header::HOST, host.clone());
        }
        let unreachable = |error: &reqwest::Error| match Denied::cause_of(error) {
            Some(denied) => TokenError::Denied(denied),
            None if error.is_timeout() => TokenError::Unreachable(format!("no answer within {} s", TIMEOUT.as_secs())),
            None => TokenError::Unreachable(forward::reason(error)),
        };
        let mut answer = request.send().await.map_err(|error| unreachable(&error))?;
        let status = answer.status();
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| unreachable(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(TokenError::Answer(format!("its answer is larger than {MAX_ANSWER} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        if status != StatusCode::OK {
            return Ok(Err(Refusal { status, code: error_code(&body) }));
        }
        read_token(&body, started).map(Ok)
    }
}

/// An answer other than 200.
struct Refusal {
    status: StatusCode,
    /// `error` of RFC 6749, 5.2.
    code: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status.as_u16())?;
        self.code.as_ref().map_or(Ok(()), |code| write!(f, " ({code})"))
    }
}

#[derive(Deserialize)]
struct RawToken {
    #[serde(default)]
    access_token: String,
    /// A number of seconds; some write it as a text.
    #[serde(default)]
    expires_in: Value,
}

fn read_token(body: &[u8], started: Instant) -> Result<Token, TokenError> {
    let wrong = |text: &str| TokenError::Answer(text.to_owned());
    // The text of a serde error may quote a value.
    let raw: RawToken = serde_json::from_slice(body).map_err(|_| wrong("its answer is not the JSON of a token"))?;
    if raw.access_token.is_empty() {
        return Err(wrong("its answer has no access_token"));
    }
    let mut header = HeaderValue::try_from(format!("Bearer {}", raw.access_token))
        .map_err(|_| wrong("its access_token cannot be sent in a header"))?;
    header.set_sensitive(true);
    let seconds = raw.expires_in.as_u64().or_else(|| raw.expires_in.as_str()?.trim().parse().ok());
    let life =
        seconds.filter(|seconds| *seconds > 0).map_or(UNSAID_LIFE, Duration::from_secs).min(Duration::from_hours(24));
    let renew_at = started + life.saturating_sub(MARGIN).max(life * 9 / 10);
    Ok(Token { header, fetched: started, renew_at, proven: AtomicBool::new(false) })
}

/// The error code, when it looks like one: anything else could quote what was sent.
fn error_code(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let code = value.get("error")?.as_str()?;
    let is_code = code.len() <= 40 && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    (is_code && !code.is_empty()).then(|| code.to_owned())
}

/// The sources in use; equal settings share one, however often the datasource is read again.
#[derive(Debug)]
pub(super) struct TokenSources(Cache<blake3::Hash, Arc<TokenSource>>);

impl TokenSources {
    pub(super) fn new() -> Self {
        Self(Cache::builder().max_capacity(MAX_SOURCES).time_to_idle(SOURCE_IDLE).build())
    }

    /// The source for the settings of a datasource at `datasource`.
    pub(super) fn get(
        &self,
        clients: &Clients,
        settings: &OauthSettings,
        tls: &TlsOptions,
        datasource: &Url,
    ) -> Result<Arc<TokenSource>, ClientError> {
        let mut tls = tls.clone();
        if settings.token_url.host_str() != datasource.host_str() {
            // The name on the certificate of the datasource is not that of another host.
            tls.server_name = None;
        }
        let digest = settings.digest(&tls);
        if let Some(source) = self.0.get(&digest) {
            return Ok(source);
        }
        let route = clients.get(&settings.token_url, &tls)?;
        let source =
            TokenSource { settings: settings.clone(), route, current: Mutex::default(), flights: Flights::default() };
        Ok(self.0.get_with(digest, || Arc::new(source)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_end_early_and_odd_answers_say_why() {
        let now = Instant::now();
        let life = |text: &str| read_token(text.as_bytes(), now).map(|token| (token.renew_at - now).as_secs());
        for (text, seconds) in [
            (r#"{"access_token":"a","expires_in":3600}"#, 3570),
            (r#"{"access_token":"a","expires_in":"100"}"#, 90),
            (r#"{"access_token":"a"}"#, 3570),
            (r#"{"access_token":"a","expires_in":0}"#, 3570),
            (r#"{"access_token":"a","expires_in":1e30}"#, 3570),
            (r#"{"access_token":"a","expires_in":18446744073709551615}"#, 24 * 3600 - 30),
        ] {
            assert_eq!(life(text), Ok(seconds), "{text}");
        }
        for text in ["", "<html>", "{}", r#"{"access_token":"a\nb"}"#, r#"{"access_token":["hunter2"]}"#] {
            let error = life(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn only_codes_of_the_standard_are_repeated() {
        assert_eq!(error_code(br#"{"error":"invalid_client"}"#).as_deref(), Some("invalid_client"));
        for text in [r#"{"error":"client me with secret hunter2"}"#, r#"{"error":""}"#, "{}", "no"] {
            assert_eq!(error_code(text.as_bytes()), None, "{text}");
        }
    }
}
