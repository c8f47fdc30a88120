//! Where a provider's endpoints are, and with which keys it signs: discovered (OpenID Connect Discovery 1.0) when first
//! needed, kept for an hour, and used further when the provider is away then. No log line or error holds a secret.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::JwkSet;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use url::Url;

/// How long endpoints and keys are taken as they are.
const FRESH: Duration = Duration::from_secs(3600);
/// How long a failure is repeated without asking again, and how often keys are looked for after an unknown one.
const PAUSE: Duration = Duration::from_secs(5);
/// Longest answer of a provider, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// How a client proves who it is at the token endpoint (RFC 6749 section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// In the `Authorization` header.
    Basic,
    /// In the form.
    Post,
    /// Not known: the header first, the form when that is refused.
    Either,
}

/// A provider's addresses.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// `iss` of its tokens; `None` at OAuth providers.
    pub issuer: Option<String>,
    /// Where the browser is sent to.
    pub authorization: Url,
    /// Where codes become tokens.
    pub token: Url,
    /// Who the user is.
    pub user_info: Option<Url>,
    /// Where device codes come from.
    pub device: Option<Url>,
    /// Where the browser signs out.
    pub end_session: Option<Url>,
    /// How to sign in at the token endpoint.
    pub client_auth: ClientAuth,
}

/// The document under `/.well-known/openid-configuration`, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    userinfo_endpoint: Option<String>,
    jwks_uri: String,
    device_authorization_endpoint: Option<String>,
    end_session_endpoint: Option<String>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

/// What is known of an OIDC provider.
#[derive(Debug)]
pub struct Discovery {
    issuer: String,
    url: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: Option<Known>,
    failed: Option<(Instant, String)>,
}

#[derive(Debug)]
struct Known {
    endpoints: Arc<Endpoints>,
    keys: Arc<JwkSet>,
    keys_url: Url,
    until: Instant,
    keys_at: Instant,
}

impl Discovery {
    /// Of an issuer; its document is below it unless `url` says where else.
    pub fn new(issuer: &str, url: &str) -> Self {
        let url = match url {
            "" => format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/')),
            url => url.to_owned(),
        };
        Self { issuer: issuer.to_owned(), url, state: Mutex::default() }
    }

    /// Endpoints and keys. The error says for the log why there are none.
    pub async fn get(&self, http: &reqwest::Client) -> Result<(Arc<Endpoints>, Arc<JwkSet>), String> {
        // Held while asking: one request for all who wait.
        let mut state = self.state.lock().await;
        if let Some(known) = &state.known
            && Instant::now() < known.until
        {
            return Ok((known.endpoints.clone(), known.keys.clone()));
        }
        if let Some((at, reason)) = &state.failed
            && at.elapsed() < PAUSE
        {
            return Err(reason.clone());
        }
        match self.discover(http).await {
            Ok(known) => {
                let found = (known.endpoints.clone(), known.keys.clone());
                *state = State { known: Some(known), failed: None };
                Ok(found)
            }
            Err(reason) => {
                if let Some(known) = &mut state.known {
                    tracing::warn!(reason, "the sign-in provider cannot be asked again: what is known of it goes on");
                    known.until = Instant::now() + PAUSE;
                    return Ok((known.endpoints.clone(), known.keys.clone()));
                }
                state.failed = Some((Instant::now(), reason.clone()));
                Err(reason)
            }
        }
    }

    /// The keys as they are now, after a token with a key that is not among the known ones: the provider may have a new one.
    pub async fn new_keys(&self, http: &reqwest::Client) -> Result<Arc<JwkSet>, String> {
        let mut state = self.state.lock().await;
        let known = state.known.as_mut().ok_or("nothing is known of the provider")?;
        // Anybody can send a token with a made-up key id.
        if known.keys_at.elapsed() >= PAUSE {
            known.keys_at = Instant::now();
            known.keys = Arc::new(get_json(http, known.keys_url.clone()).await?);
        }
        Ok(known.keys.clone())
    }

    async fn discover(&self, http: &reqwest::Client) -> Result<Known, String> {
        let document: Document = get_json(http, url(&self.url)?).await?;
        // A slash at the end is the one difference that people do not see.
        if document.issuer.trim_end_matches('/') != self.issuer.trim_end_matches('/') {
            return Err(format!("{} says that it is {:?}, not {:?}", self.url, document.issuer, self.issuer));
        }
        let keys_url = url(&document.jwks_uri)?;
        let keys = get_json(http, keys_url.clone()).await?;
        let optional = |text: &Option<String>| text.as_deref().map(url).transpose();
        let client_auth = match &document.token_endpoint_auth_methods_supported {
            Some(methods) if methods.iter().any(|method| method == "client_secret_basic") => ClientAuth::Basic,
            Some(methods) if methods.iter().any(|method| method == "client_secret_post") => ClientAuth::Post,
            // The default of the standard.
            None => ClientAuth::Basic,
            Some(_) => ClientAuth::Either,
        };
        let endpoints = Endpoints {
            issuer: Some(document.issuer),
            authorization: url(&document.authorization_endpoint)?,
            token: url(&document.token_endpoint)?,
            user_info: optional(&document.userinfo_endpoint)?,
            device: optional(&document.device_authorization_endpoint)?,
            end_session: optional(&document.end_session_endpoint)?,
            client_auth,
        };
        let now = Instant::now();
        Ok(Known { endpoints: Arc::new(endpoints), keys: Arc::new(keys), keys_url, until: now + FRESH, keys_at: now })
    }
}

fn url(text: &str) -> Result<Url, String> {
    Url::parse(text).map_err(|_| format!("{text:?} is no URL"))
}

async fn get_json<T: DeserializeOwned>(http: &reqwest::Client, url: Url) -> Result<T, String> {
    let request = http.get(url.clone()).header(reqwest::header::ACCEPT, "application/json");
    let response = request.send().await.map_err(|error| reason(&error))?;
    if !response.status().is_success() {
        return Err(format!("GET {url} answers {}", response.status()));
    }
    let body = read(response).await?;
    serde_json::from_slice(&body).map_err(|error| format!("GET {url} does not answer what it should: {error}"))
}

/// Reads an answer of bounded length.
pub(super) async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| reason(&error))? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(format!("the answer has more than {MAX_ANSWER} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// An error and what caused it. URLs here hold no secret: credentials are in headers and forms.
pub(super) fn reason(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
