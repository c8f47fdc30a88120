//! The servers of the stacks over HTTP (I/O): sign-in, one request, and what is remembered between requests.
//!
//! A server that did not answer is left alone for a growing while, and everything that is asked of it meanwhile fails at
//! once: so one stack that is away costs the others nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use parking_lot::Mutex;
use reqwest::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::document::Place;
use super::select::Stack;
use super::transport;
use crate::backoff::delay;
use crate::controllers::persesstack::build::names::Names;
use crate::leader::Chain;

/// The wait after a sign-in that was refused: the server slows down who fails often.
const SIGN_IN_PAUSE: Duration = Duration::from_secs(30);
/// The operator's own token is no way in: whoever runs a stack chooses its image, which would get to see it.
const NO_NATIVE: &str = "spec.auth of the stack has no native sign-in, which syncing needs: nothing is synced into it";
const LOGIN: &str = "/api/auth/providers/native/login";

/// Where the server of a stack answers: a URL without a final slash.
pub type Addresses = Arc<dyn Fn(&Stack) -> String + Send + Sync>;

/// The Services of the stacks.
pub fn services() -> Addresses {
    Arc::new(|stack| {
        let scheme = if stack.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}.{}.svc:8080", Names::new(stack.name.clone()).api(), stack.namespace)
    })
}

/// Why a request did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No answer, or one that says to come again.
    Unreachable(String),
    /// The administrator cannot sign in.
    SignIn(String),
    /// Not found.
    NotFound,
    /// Somebody else wrote in between.
    Changed,
    /// The server understood and refuses; its words.
    Refused(String),
}

/// A stored document and its ETag.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The document.
    pub value: Value,
    /// Its `ETag`, for `If-Match`.
    pub etag: String,
}

/// What a conditional read found.
#[derive(Clone, Debug)]
pub enum Look {
    /// As it was when this digest was seen to be in place.
    Unchanged,
    /// This is stored.
    Stored(Stored),
    /// Nothing is stored.
    Absent,
}

/// The servers of all stacks.
pub struct Servers {
    kube: Client,
    /// For servers without TLS, or with a certificate that the public authorities vouch for.
    http: reqwest::Client,
    addresses: Addresses,
    /// By UID of the stack.
    sessions: Mutex<HashMap<String, Arc<Session>>>,
}

/// What is remembered of one server.
#[derive(Default)]
struct Session {
    /// Held while signing in, so that many requests sign in once.
    token: tokio::sync::Mutex<Option<Token>>,
    rest: Mutex<Rest>,
}

#[derive(Clone)]
struct Token {
    /// Trusts who signs the server's certificate, as it was at the sign-in.
    http: reqwest::Client,
    /// `None` when the server has no sign-in.
    bearer: Option<Arc<str>>,
    /// Key of the fingerprints.
    seal: [u8; 32],
}

#[derive(Default)]
struct Rest {
    failures: u32,
    away: Option<(Instant, Fault)>,
    /// By path: the ETag and the digest of what was in place with it.
    seen: HashMap<String, (String, String)>,
}

impl Servers {
    /// No server is known yet.
    ///
    /// # Errors
    /// When the HTTP client cannot be built.
    pub fn new(kube: Client, addresses: Addresses) -> reqwest::Result<Self> {
        Ok(Self { kube, http: transport::builder().build()?, addresses, sessions: Mutex::default() })
    }

    /// The server of a stack.
    pub fn of<'a>(&'a self, stack: &'a Stack) -> Server<'a> {
        let session = self.sessions.lock().entry(stack.uid.clone()).or_default().clone();
        Server { servers: self, stack, session }
    }

    /// Forgets the servers of stacks that are not among `stacks`.
    pub fn keep(&self, stacks: &[Stack]) {
        self.sessions.lock().retain(|uid, _| stacks.iter().any(|stack| stack.uid == *uid));
    }
}

/// The server of one stack.
pub struct Server<'a> {
    servers: &'a Servers,
    stack: &'a Stack,
    session: Arc<Session>,
}

struct Answer {
    status: StatusCode,
    etag: String,
    body: bytes::Bytes,
}

impl Server<'_> {
    /// How long this server is left alone from now on.
    pub fn pause(&self) -> Option<Duration> {
        let rest = self.session.rest.lock();
        rest.away.as_ref().and_then(|(until, _)| until.checked_duration_since(Instant::now()))
    }

    /// Key of the fingerprints of credentials: it comes from the administrator's password, which who may read the
    /// fingerprints cannot.
    pub async fn seal(&self) -> Result<[u8; 32], Fault> {
        self.guarded(async { Ok(self.token(None).await?.seal) }).await
    }

    /// Reads a document, unless it is still as when `digest` was seen to be in place.
    pub async fn look(&self, place: &Place, digest: &str) -> Result<Look, Fault> {
        let path = place.path();
        let seen = self.session.rest.lock().seen.get(&path).filter(|(_, seen)| seen == digest).cloned();
        let header = seen.map(|(etag, _)| (IF_NONE_MATCH, etag));
        match self.send(Method::GET, &path, header, None).await {
            Ok(answer) if answer.status == StatusCode::NOT_MODIFIED => Ok(Look::Unchanged),
            Ok(answer) => Ok(Look::Stored(Stored { value: parse(&answer.body)?, etag: answer.etag })),
            Err(Fault::NotFound) => Ok(Look::Absent),
            // Perses v0.54 answers so when the project does not exist.
            Err(Fault::Refused(text)) if text.contains("doesn't exist") => Ok(Look::Absent),
            Err(fault) => Err(fault),
        }
    }

    /// Notes that what has this digest is in place with this ETag.
    pub fn in_place(&self, place: &Place, etag: String, digest: String) {
        self.session.rest.lock().seen.insert(place.path(), (etag, digest));
    }

    /// Creates a document. Gives its ETag.
    pub async fn create(&self, place: &Place, body: &Value) -> Result<String, Fault> {
        Ok(self.send(Method::POST, &place.collection(), None, Some(body)).await?.etag)
    }

    /// Replaces the document that has this ETag. Gives the new one.
    pub async fn update(&self, place: &Place, etag: &str, body: &Value) -> Result<String, Fault> {
        let header = (IF_MATCH, etag.to_owned());
        Ok(self.send(Method::PUT, &place.path(), Some(header), Some(body)).await?.etag)
    }

    /// Deletes the document that has this ETag; one that is gone is fine.
    pub async fn delete(&self, place: &Place, etag: &str) -> Result<(), Fault> {
        let path = place.path();
        self.session.rest.lock().seen.remove(&path);
        match self.send(Method::DELETE, &path, Some((IF_MATCH, etag.to_owned())), None).await {
            Ok(_) | Err(Fault::NotFound) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Lists every document of a collection of all projects, without the specs where the server can leave them out.
    pub async fn list(&self, plural: &str) -> Result<Vec<Value>, Fault> {
        let answer = self.send(Method::GET, &format!("/api/v1/{plural}?metadata_only=true"), None, None).await?;
        match parse(&answer.body)? {
            Value::Array(items) => Ok(items),
            _ => Err(Fault::Unreachable("the answer is no list".to_owned())),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        header: Option<(reqwest::header::HeaderName, String)>,
        body: Option<&Value>,
    ) -> Result<Answer, Fault> {
        self.guarded(async {
            let token = self.token(None).await?;
            let answer = self.exchange(&method, path, header.as_ref(), body, &token).await?;
            // The token's time is over, or the server has another key by now.
            let answer = if answer.status == StatusCode::UNAUTHORIZED {
                let token = self.token(token.bearer.as_deref()).await?;
                self.exchange(&method, path, header.as_ref(), body, &token).await?
            } else {
                answer
            };
            judge(answer)
        })
        .await
    }

    /// Fails at once where nobody can sign in and while the server is left alone, and decides from the result for how long it is.
    async fn guarded<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        if !self.stack.native {
            return Err(Fault::SignIn(NO_NATIVE.to_owned()));
        }
        if let Some((until, fault)) = &self.session.rest.lock().away
            && *until > Instant::now()
        {
            return Err(fault.clone());
        }
        let result = work.await;
        let mut rest = self.session.rest.lock();
        match &result {
            Err(fault @ Fault::Unreachable(_)) => {
                let wait = delay(rest.failures, rand::random());
                rest.failures += 1;
                rest.away = Some((Instant::now() + wait, fault.clone()));
            }
            Err(fault @ Fault::SignIn(_)) => rest.away = Some((Instant::now() + SIGN_IN_PAUSE, fault.clone())),
            _ => (rest.failures, rest.away) = (0, None),
        }
        result
    }

    async fn exchange(
        &self,
        method: &Method,
        path: &str,
        header: Option<&(reqwest::header::HeaderName, String)>,
        body: Option<&Value>,
        token: &Token,
    ) -> Result<Answer, Fault> {
        let mut request = token.http.request(method.clone(), format!("{}{path}", self.address()));
        if let Some(bearer) = &token.bearer {
            request = request.bearer_auth(bearer);
        }
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = read(request).await;
        if answer.is_err() && self.stack.tls.is_some() {
            // The certificate may be another authority's by now: with the next sign-in it is asked for again.
            *self.session.token.lock().await = None;
        }
        answer
    }

    fn address(&self) -> String {
        (self.servers.addresses)(self.stack)
    }

    /// The session's token; a new one when there is none or it is the `stale` one.
    async fn token(&self, stale: Option<&str>) -> Result<Token, Fault> {
        let mut held = self.session.token.lock().await;
        if let Some(token) = &*held
            && (stale.is_none() || token.bearer.as_deref() != stale)
        {
            return Ok(token.clone());
        }
        *held = None;
        let token = self.sign_in().await?;
        *held = Some(token.clone());
        Ok(token)
    }

    /// Signs in as the administrator whose name and password the stack's Secret holds.
    async fn sign_in(&self) -> Result<Token, Fault> {
        let secrets: Api<Secret> = Api::namespaced(self.servers.kube.clone(), &self.stack.namespace);
        let name = Names::new(self.stack.name.clone()).admin();
        let secret = secrets.get_opt(&name).await;
        let secret = secret.map_err(|error| Fault::SignIn(format!("read Secret {name}: {error}")))?;
        let data = secret.and_then(|secret| secret.data).unwrap_or_default();
        let word = |key: &str| {
            let value = data.get(key).and_then(|value| std::str::from_utf8(&value.0).ok()).map(str::trim);
            let missing = || Fault::SignIn(format!("Secret {name} has no {key}: restore it from a backup"));
            value.filter(|value| !value.is_empty()).ok_or_else(missing)
        };
        let (user, password) = (word("username")?, word("password")?);
        let seal = blake3::derive_key("persesstack.io fingerprints of synced credentials v1", password.as_bytes());
        let url = format!("{}{LOGIN}", self.address());
        let http = transport::client(&self.servers.kube, self.stack, &self.servers.http).await?;
        let answer = read(http.post(url).json(&json!({"login": user, "password": password}))).await?;
        match answer.status {
            StatusCode::OK => {
                #[derive(Deserialize)]
                struct Body {
                    access_token: String,
                }
                let body: Body = serde_json::from_slice(&answer.body)
                    .map_err(|_| Fault::Unreachable("the answer to the sign-in is not understood".to_owned()))?;
                Ok(Token { http, bearer: Some(body.access_token.into()), seal })
            }
            // The server runs without sign-in.
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(Token { http, bearer: None, seal }),
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(Fault::Unreachable(format!("the sign-in is answered with {status}")))
            }
            _ => Err(Fault::SignIn(format!(
                "user {user} of Secret {name} cannot sign in ({}): give the Secret the password that the user has now",
                message(&answer.body)
            ))),
        }
    }
}

async fn read(request: reqwest::RequestBuilder) -> Result<Answer, Fault> {
    let away = |error: reqwest::Error| {
        // Without the address, which is in every message of reqwest and says nothing here.
        Fault::Unreachable(format!("the server does not answer ({})", Chain(&error.without_url())))
    };
    let response = request.send().await.map_err(away)?;
    let status = response.status();
    let etag = response.headers().get(ETAG).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let body = response.bytes().await.map_err(away)?;
    Ok(Answer { status, etag, body })
}

/// An answer as a result. PURE.
fn judge(answer: Answer) -> Result<Answer, Fault> {
    match answer.status {
        status if status.is_success() || status == StatusCode::NOT_MODIFIED => Ok(answer),
        StatusCode::NOT_FOUND => Err(Fault::NotFound),
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Err(Fault::Changed),
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            Err(Fault::Unreachable(format!("the server answers {status}")))
        }
        status => Err(Fault::Refused(format!("{}: {}", status.as_u16(), message(&answer.body)))),
    }
}

/// The `message` of an error's body, at most 1,000 characters.
fn message(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = value["message"].as_str().unwrap_or("no reason is given");
    text.chars().take(1000).collect()
}

fn parse(body: &[u8]) -> Result<Value, Fault> {
    serde_json::from_slice(body).map_err(|_| Fault::Unreachable("the answer is not JSON".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::select::Authority;
    use super::*;

    #[test]
    fn answers_are_told_apart_by_what_helps() {
        let fault = |status: u16, body: &str| {
            let (status, body) = (StatusCode::from_u16(status).unwrap(), bytes::Bytes::from(body.to_owned()));
            judge(Answer { status, etag: String::new(), body }).err()
        };
        assert_eq!(fault(200, "{}"), None);
        assert_eq!(fault(304, ""), None);
        assert_eq!(fault(404, ""), Some(Fault::NotFound));
        assert_eq!(fault(412, ""), Some(Fault::Changed));
        assert_eq!(fault(409, ""), Some(Fault::Changed));
        assert!(matches!(fault(503, ""), Some(Fault::Unreachable(_))));
        assert!(matches!(fault(429, ""), Some(Fault::Unreachable(_))));
        let text = r#"{"message":"bad request: spec.panels: wrong"}"#;
        assert_eq!(fault(400, text), Some(Fault::Refused("400: bad request: spec.panels: wrong".to_owned())));
        assert!(matches!(fault(405, "<html>"), Some(Fault::Refused(_))));
    }

    #[test]
    fn the_default_address_is_the_service() {
        let (namespace, name) = ("obs".to_owned(), "perses".to_owned());
        let stack =
            Stack { namespace, name, uid: String::new(), labels: [].into(), ready: true, tls: None, native: true };
        assert_eq!(services()(&stack), "http://perses-api.obs.svc:8080");
        assert_eq!(services()(&Stack { tls: Some(Authority::OpenShift), ..stack }), "https://perses-api.obs.svc:8080");
    }
}
