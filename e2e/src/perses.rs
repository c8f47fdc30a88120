//! A small client of the Perses API, as the demo and the tests need it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// One server (or Service), signed in or not.
#[derive(Debug, Clone)]
pub struct Perses {
    base: Arc<str>,
    token: Option<Arc<str>>,
    http: reqwest::Client,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// `Cache-Status`, empty when there is none.
    pub cache_status: String,
    /// All headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body.
    pub body: bytes::Bytes,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("the answer is not JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The answer itself when the status is a success; an error with status and body when not.
    pub fn ok(self) -> Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        bail!("status {}: {}", self.status, String::from_utf8_lossy(&self.body).trim())
    }
}

impl Perses {
    /// A client for `base` (such as `http://10.96.1.2:8080`), not signed in.
    pub fn new(base: &str) -> Result<Self> {
        Self::with(base, reqwest::Client::builder())
    }

    /// A client that trusts these authorities (PEM) and no others.
    pub fn trusting(base: &str, authorities: &str) -> Result<Self> {
        let bundle =
            reqwest::Certificate::from_pem_bundle(authorities.as_bytes()).context("reading the authorities")?;
        Self::with(base, reqwest::Client::builder().tls_certs_only(bundle))
    }

    fn with(base: &str, builder: reqwest::ClientBuilder) -> Result<Self> {
        // A second provider in the process, should anybody link one, must not make the choice ambiguous.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http =
            builder.no_proxy().connect_timeout(Duration::from_secs(5)).timeout(Duration::from_secs(30)).build()?;
        Ok(Self { base: base.trim_end_matches('/').into(), token: None, http })
    }

    /// Signs in with a native user; the token goes with every later request.
    pub async fn sign_in(mut self, user: &str, password: &str) -> Result<Self> {
        let answer = self
            .send(Method::POST, "/api/auth/providers/native/login", Some(&json!({"login": user, "password": password})))
            .await?
            .ok()
            .context("signing in")?;
        let token = answer.json()?["access_token"].as_str().context("no access_token in the answer")?.to_owned();
        self.token = Some(token.into());
        Ok(self)
    }

    /// The same sign-in at another address.
    #[must_use]
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.trim_end_matches('/').into(), ..self.clone() }
    }

    /// The address.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The bearer token, when signed in.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Sends a request; a failed connection is an error, an HTTP error is an answer.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        answer(request).await
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, None).await
    }

    /// The body of a `GET` as it is sent to clients who take gzip.
    pub async fn packed(&self, path: &str) -> Result<bytes::Bytes> {
        let mut request = self.http.get(format!("{}{path}", self.base)).header("accept-encoding", "gzip");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = answer(request).await?.ok()?;
        let encoding = answer.headers.get("content-encoding").and_then(|value| value.to_str().ok());
        anyhow::ensure!(encoding == Some("gzip"), "{path} came with Content-Encoding {encoding:?}");
        Ok(answer.body)
    }

    /// `POST` of a form, as the UI sends queries.
    pub async fn post_form(&self, path: &str, form: &[(&str, &str)]) -> Result<Answer> {
        let mut request = self.http.post(format!("{}{path}", self.base)).form(form);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        answer(request).await
    }

    /// Creates a resource, or replaces it when its tags or spec differ. Returns whether anything was written.
    pub async fn apply(&self, resource: &Value) -> Result<bool> {
        let kind = resource["kind"].as_str().context("the resource has no kind")?;
        let name = resource["metadata"]["name"].as_str().context("the resource has no metadata.name")?;
        let plural = format!("{}s", kind.to_lowercase());
        let collection = match resource["metadata"]["project"].as_str() {
            Some(project) => format!("/api/v1/projects/{project}/{plural}"),
            None => format!("/api/v1/{plural}"),
        };
        let item = format!("{collection}/{name}");
        let stored = self.get(&item).await?;
        if stored.status == StatusCode::NOT_FOUND {
            self.send(Method::POST, &collection, Some(resource))
                .await?
                .ok()
                .with_context(|| format!("creating {item}"))?;
            return Ok(true);
        }
        let stored = stored.ok().with_context(|| format!("reading {item}"))?.json()?;
        if stored["spec"] == resource["spec"] && stored["metadata"]["tags"] == resource["metadata"]["tags"] {
            return Ok(false);
        }
        self.send(Method::PUT, &item, Some(resource)).await?.ok().with_context(|| format!("updating {item}"))?;
        Ok(true)
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<Answer> {
    let response = request.send().await?;
    let status = response.status();
    let headers = response.headers().clone();
    let cache_status = headers.get("cache-status").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    Ok(Answer { status, cache_status, headers, body: response.bytes().await? })
}
