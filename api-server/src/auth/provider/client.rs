//! What is asked of a provider: codes, tokens, who the user is (I/O).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jsonwebtoken::jwk::JwkSet;
use reqwest::header::{ACCEPT, AUTHORIZATION};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use super::ProviderKind;
use super::id_token::{self, Expected, IdTokenError};
use super::identity::Identity;
use super::login::Login;
use super::metadata::{ClientAuth, Discovery, Endpoints, read, reason};
use super::transport::{basic, http_client, read_secret};
use crate::config::{self, ClientOverride, OauthProvider, OidcProvider};
use crate::error::ApiError;

/// Grant of the device flow (RFC 8628).
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Claim with the groups, unless one is configured.
const GROUPS: &str = "groups";

/// A configured provider.
#[derive(Debug)]
pub struct ProviderClient {
    /// What it speaks.
    pub kind: ProviderKind,
    settings: config::Client,
    protocol: Protocol,
    http: reqwest::Client,
    /// The form worked where the header did not ([`ClientAuth::Either`]).
    by_form: AtomicBool,
}

#[derive(Debug)]
enum Protocol {
    Oidc { config: Box<OidcProvider>, discovery: Box<Discovery> },
    Oauth { config: Box<OauthProvider>, endpoints: Arc<Endpoints> },
}

/// Which client of ours speaks.
#[derive(Debug, Clone, Copy)]
enum Flow {
    Code,
    Device,
    Credentials,
}

/// A client at the provider.
struct Credentials {
    id: String,
    secret: Option<String>,
    scopes: Vec<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    access_token: String,
    id_token: Option<String>,
}

/// An error of RFC 6749 section 5.2. Some providers send it with status 200.
#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl ProviderClient {
    /// Of an OIDC provider.
    pub fn oidc(config: &OidcProvider) -> Result<Self, String> {
        let discovery = Box::new(Discovery::new(&config.issuer, &config.discovery_url));
        let plain = config.issuer.starts_with("http:");
        let http = http_client(&config.client.http, plain).map_err(|reason| naming(&config.client, &reason))?;
        let protocol = Protocol::Oidc { config: Box::new(config.clone()), discovery };
        Ok(Self::new(ProviderKind::Oidc, &config.client, protocol, http))
    }

    /// Of an OAuth provider.
    pub fn oauth(config: &OauthProvider) -> Result<Self, String> {
        let url = |name: &str, text: &str| {
            Url::parse(text).map_err(|_| naming(&config.client, &format!("{name} {text:?} is no URL")))
        };
        let device = match config.device_auth_url.as_str() {
            "" => None,
            text => Some(url("device_auth_url", text)?),
        };
        let endpoints = Endpoints {
            issuer: None,
            authorization: url("auth_url", &config.auth_url)?,
            token: url("token_url", &config.token_url)?,
            user_info: Some(url("user_infos_url", &config.user_infos_url)?),
            device,
            end_session: None,
            client_auth: ClientAuth::Either,
        };
        let plain = endpoints.token.scheme() == "http";
        let http = http_client(&config.client.http, plain).map_err(|reason| naming(&config.client, &reason))?;
        let protocol = Protocol::Oauth { config: Box::new(config.clone()), endpoints: Arc::new(endpoints) };
        Ok(Self::new(ProviderKind::Oauth, &config.client, protocol, http))
    }

    fn new(kind: ProviderKind, client: &config::Client, protocol: Protocol, http: reqwest::Client) -> Self {
        Self { kind, settings: client.clone(), protocol, http, by_form: AtomicBool::new(false) }
    }

    /// Its name in paths.
    pub fn slug(&self) -> &str {
        &self.settings.slug_id
    }

    /// Name of the claim with the groups.
    pub fn groups_claim(&self) -> &str {
        if self.settings.groups_claim.is_empty() { GROUPS } else { &self.settings.groups_claim }
    }

    /// The configured address that the browser comes back to; empty: it is made from the request.
    pub fn redirect_uri(&self) -> &str {
        &self.settings.redirect_uri
    }

    /// Where to send the browser to begin a login.
    pub async fn authorization_url(&self, login: &Login) -> Result<Url, ApiError> {
        let (endpoints, _) = self.endpoints().await?;
        let credentials = self.credentials(Flow::Code).await?;
        let mut url = endpoints.authorization.clone();
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &credentials.id)
            .append_pair("redirect_uri", &login.redirect_uri)
            .append_pair("state", &login.state);
        if !credentials.scopes.is_empty() {
            query.append_pair("scope", &credentials.scopes.join(" "));
        }
        let mut with_pkce = true;
        if let Protocol::Oidc { config, .. } = &self.protocol {
            query.append_pair("nonce", &login.nonce);
            query.extend_pairs(&config.url_params);
            with_pkce = !config.disable_pkce;
        }
        if with_pkce {
            query.append_pair("code_challenge", &login.challenge()).append_pair("code_challenge_method", "S256");
        }
        drop(query);
        Ok(url)
    }

    /// Finishes a login: who comes back with this code. `issuer` is what came with it (RFC 9207), if anything did.
    pub async fn exchange(&self, code: &str, issuer: Option<&str>, login: &Login) -> Result<Identity, ApiError> {
        let (endpoints, _) = self.endpoints().await?;
        if let (Some(ours), Some(theirs)) = (&endpoints.issuer, issuer)
            && ours != theirs
        {
            return Err(oauth("invalid_request", "the answer comes from another provider than the one that was asked"));
        }
        let credentials = self.credentials(Flow::Code).await?;
        let mut form =
            vec![("grant_type", "authorization_code"), ("code", code), ("redirect_uri", &login.redirect_uri)];
        if !matches!(&self.protocol, Protocol::Oidc { config, .. } if config.disable_pkce) {
            form.push(("code_verifier", &login.verifier));
        }
        let answer = self.token(&credentials, &form).await?;
        self.identify(answer, &credentials.id, Some(&login.nonce)).await
    }

    /// Begins the device flow: the provider's answer as it is. `challenge` is the caller's own PKCE, passed through.
    pub async fn device_code(&self, challenge: Option<(&str, &str)>) -> Result<Value, ApiError> {
        let (endpoints, _) = self.endpoints().await?;
        let Some(url) = endpoints.device.clone() else {
            return Err(ApiError::NotImplemented("device code flow is not supported by this provider".to_owned()));
        };
        let credentials = self.credentials(Flow::Device).await?;
        let scopes = credentials.scopes.join(" ");
        let mut form = vec![("client_id", credentials.id.as_str())];
        if !scopes.is_empty() {
            form.push(("scope", &scopes));
        }
        if let Some((challenge, method)) = challenge {
            form.extend([("code_challenge", challenge), ("code_challenge_method", method)]);
        }
        self.post(url, &credentials, &form).await
    }

    /// Asks once whether the user has come with a device code. Until then the error is `authorization_pending`.
    pub async fn device_token(&self, device_code: &str, verifier: Option<&str>) -> Result<Identity, ApiError> {
        let credentials = self.credentials(Flow::Device).await?;
        let mut form = vec![("grant_type", DEVICE_GRANT), ("device_code", device_code)];
        if let Some(verifier) = verifier {
            form.push(("code_verifier", verifier));
        }
        let answer = self.token(&credentials, &form).await?;
        self.identify(answer, &credentials.id, None).await
    }

    /// Signs a program in with credentials of its own.
    pub async fn client_credentials(&self, id: &str, secret: &str) -> Result<Identity, ApiError> {
        let scopes = self.credentials(Flow::Credentials).await?.scopes;
        let scope = scopes.join(" ");
        let credentials = Credentials { id: id.to_owned(), secret: Some(secret.to_owned()), scopes };
        let mut form = vec![("grant_type", "client_credentials")];
        if !scope.is_empty() {
            form.push(("scope", &scope));
        }
        let answer = self.token(&credentials, &form).await?;
        match &self.protocol {
            // There is no user: the provider has taken the credentials, and that is who it is.
            Protocol::Oidc { config, .. } => Ok(Identity::client(id, &config.issuer)),
            Protocol::Oauth { .. } => self.identify(answer, id, None).await,
        }
    }

    /// Where the browser signs out at the provider and comes back from to `home`; `None` when that is not wanted or not
    /// possible.
    pub async fn end_session_url(&self, home: &Url) -> Option<Url> {
        let Protocol::Oidc { config, .. } = &self.protocol else { return None };
        if !config.logout.enabled {
            return None;
        }
        let (endpoints, _) = self.endpoints().await.ok()?;
        let mut url = endpoints.end_session.clone()?;
        let name = match config.logout.logout_redirect_param_name.as_str() {
            "" => "post_logout_redirect_uri",
            name => name,
        };
        let client = self.settings.client_id.expose();
        url.query_pairs_mut().append_pair(name, home.as_str()).append_pair("client_id", client);
        Some(url)
    }

    async fn endpoints(&self) -> Result<(Arc<Endpoints>, Arc<JwkSet>), ApiError> {
        match &self.protocol {
            Protocol::Oidc { discovery, .. } => discovery.get(&self.http).await.map_err(|reason| self.away(&reason)),
            Protocol::Oauth { endpoints, .. } => Ok((endpoints.clone(), Arc::new(JwkSet { keys: Vec::new() }))),
        }
    }

    /// Who an answer of the token endpoint is about.
    async fn identify(&self, answer: TokenAnswer, client: &str, nonce: Option<&str>) -> Result<Identity, ApiError> {
        let (endpoints, keys) = self.endpoints().await?;
        match &self.protocol {
            Protocol::Oidc { config, discovery } => {
                let token = answer.id_token.as_deref().ok_or_else(|| {
                    oauth("invalid_request", "the provider sent no ID token: is \"openid\" among the client's scopes?")
                })?;
                let issuer = endpoints.issuer.as_deref().unwrap_or(&config.issuer);
                let expected = Expected { issuer, client_id: client, nonce };
                let mut verified = id_token::verify(token, &keys, expected);
                if verified == Err(IdTokenError::UnknownKey) {
                    let keys = discovery.new_keys(&self.http).await.map_err(|reason| self.away(&reason))?;
                    verified = id_token::verify(token, &keys, expected);
                }
                let mut claims = verified.map_err(|error| {
                    tracing::warn!(provider = self.slug(), %error, "an ID token is not taken");
                    oauth("invalid_request", &error.to_string())
                })?;
                if let Some(url) = &endpoints.user_info {
                    let info = self.user_info(url, &answer.access_token).await?;
                    if info.get("sub") != claims.get("sub") {
                        return Err(oauth("invalid_request", "the provider's user information is about another user"));
                    }
                    claims.extend(info);
                }
                Ok(Identity::oidc(claims, &config.issuer))
            }
            Protocol::Oauth { config, endpoints } => {
                let Some(url) = &endpoints.user_info else { return Err(self.away("there is no user_infos_url")) };
                let info = self.user_info(url, &answer.access_token).await?;
                let host = endpoints.authorization.host_str().unwrap_or_default();
                Ok(Identity::oauth(info, host, &config.custom_login_property))
            }
        }
    }

    async fn user_info(&self, url: &Url, token: &str) -> Result<Map<String, Value>, ApiError> {
        let request = self.http.get(url.clone()).bearer_auth(token).header(ACCEPT, "application/json");
        let response = request.send().await.map_err(|error| self.away(&reason(&error)))?;
        if !response.status().is_success() {
            return Err(self.away(&format!("GET {url} answers {}", response.status())));
        }
        let body = read(response).await.map_err(|reason| self.away(&reason))?;
        serde_json::from_slice(&body).map_err(|_| self.away(&format!("GET {url} does not answer a JSON object")))
    }

    async fn token(&self, credentials: &Credentials, form: &[(&str, &str)]) -> Result<TokenAnswer, ApiError> {
        let url = self.endpoints().await?.0.token.clone();
        let answer = self.post(url, credentials, form).await?;
        let answer: TokenAnswer =
            serde_json::from_value(answer).map_err(|_| self.away("the token endpoint answers in another form"))?;
        if answer.access_token.is_empty() {
            return Err(self.away("the token endpoint sent no access token"));
        }
        Ok(answer)
    }

    /// Posts a form as this client.
    async fn post(&self, url: Url, credentials: &Credentials, form: &[(&str, &str)]) -> Result<Value, ApiError> {
        let (endpoints, _) = self.endpoints().await?;
        let mut by_form = match endpoints.client_auth {
            ClientAuth::Basic => false,
            ClientAuth::Post => true,
            ClientAuth::Either => self.by_form.load(Ordering::Relaxed),
        };
        let may_try = endpoints.client_auth == ClientAuth::Either && !by_form && credentials.secret.is_some();
        let mut answer = self.post_once(&url, credentials, form, by_form).await;
        if may_try && matches!(&answer, Err(ApiError::OAuth { code, .. }) if code == "invalid_client") {
            by_form = true;
            answer = self.post_once(&url, credentials, form, by_form).await;
            if answer.is_ok() {
                self.by_form.store(true, Ordering::Relaxed);
            }
        }
        answer
    }

    async fn post_once(
        &self,
        url: &Url,
        credentials: &Credentials,
        form: &[(&str, &str)],
        by_form: bool,
    ) -> Result<Value, ApiError> {
        let mut form = form.to_vec();
        let mut request = self.http.post(url.clone()).header(ACCEPT, "application/json");
        match &credentials.secret {
            Some(secret) if !by_form => request = request.header(AUTHORIZATION, basic(&credentials.id, secret)),
            secret => {
                form.retain(|(name, _)| *name != "client_id");
                form.push(("client_id", &credentials.id));
                form.extend(secret.as_deref().map(|secret| ("client_secret", secret)));
            }
        }
        let response = request.form(&form).send().await.map_err(|error| self.away(&reason(&error)))?;
        let status = response.status();
        let body = read(response).await.map_err(|reason| self.away(&reason))?;
        if let Ok(error) = serde_json::from_slice::<ErrorAnswer>(&body) {
            if error.error != "authorization_pending" && error.error != "slow_down" {
                tracing::warn!(provider = self.slug(), error = error.error, "the sign-in provider refuses");
            }
            return Err(oauth(&error.error, &error.error_description));
        }
        if status == reqwest::StatusCode::UNAUTHORIZED {
            return Err(oauth("invalid_client", "the provider does not know these credentials"));
        }
        if !status.is_success() {
            return Err(self.away(&format!("POST {url} answers {status}")));
        }
        serde_json::from_slice(&body).map_err(|_| self.away(&format!("POST {url} does not answer JSON")))
    }

    /// The client of a flow: what it does not say is that of the provider.
    async fn credentials(&self, flow: Flow) -> Result<Credentials, ApiError> {
        let base = &self.settings;
        let other: Option<&ClientOverride> = match flow {
            Flow::Code => None,
            Flow::Device => base.device_code.as_ref(),
            Flow::Credentials => base.client_credentials.as_ref(),
        };
        let id = other.and_then(|other| other.client_id.as_ref()).unwrap_or(&base.client_id);
        let own = other.filter(|other| other.client_secret.is_some() || other.client_secret_file.is_some());
        let (text, file) = own.map_or((&base.client_secret, &base.client_secret_file), |other| {
            (&other.client_secret, &other.client_secret_file)
        });
        let secret = match (file, text) {
            (Some(path), _) => Some(read_secret(path).await.map_err(|reason| self.away(&reason))?),
            (None, text) => text.as_ref().map(|secret| secret.expose().to_owned()),
        };
        let scopes = other.map(|other| &other.scopes).filter(|scopes| !scopes.is_empty()).unwrap_or(&base.scopes);
        let mut scopes = scopes.clone();
        let for_user = !matches!(flow, Flow::Credentials);
        if self.kind == ProviderKind::Oidc && for_user && !scopes.iter().any(|scope| scope == "openid") {
            // Without it there is no ID token.
            scopes.insert(0, "openid".to_owned());
        }
        Ok(Credentials { id: id.expose().to_owned(), secret: secret.filter(|secret| !secret.is_empty()), scopes })
    }

    /// The detail goes to the log: it is about our side.
    fn away(&self, detail: &str) -> ApiError {
        tracing::warn!(provider = self.slug(), detail, "the sign-in provider does not answer as it should");
        ApiError::BadGateway(format!(
            "the sign-in provider {:?} does not answer as it should: try again later",
            self.slug()
        ))
    }
}

/// The error of OAuth.
pub(crate) fn oauth(code: &str, description: &str) -> ApiError {
    ApiError::OAuth { code: code.to_owned(), description: description.to_owned() }
}

fn naming(client: &config::Client, reason: &str) -> String {
    format!("security.authentication.providers: {:?}: {reason}", client.slug_id)
}
