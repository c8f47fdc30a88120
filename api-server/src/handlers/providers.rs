//! Sign-in at OIDC and OAuth providers: `/api/auth/providers/{oidc|oauth}/<slug>/...` (Perses v0.54).

use std::collections::HashMap;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use crate::auth::provider::client::{ProviderClient, oauth};
use crate::auth::provider::identity::{Identity, that_fit};
use crate::auth::provider::login::{Attributes, Login, Logins};
use crate::auth::provider::{ProviderKind, redirect};
use crate::auth::rbac::mapped_entries;
use crate::auth::token::Claims;
use crate::config::RoleMapping;
use crate::error::ApiError;
use crate::handlers::auth::{self, Session};
use crate::handlers::body;
use crate::service::sign_in;
use crate::state::AppState;

/// Grant types of `.../token`.
const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
const CLIENT_CREDENTIALS: &str = "client_credentials";
/// Largest form, in bytes.
const MAX_FORM: u64 = 64 << 10;

/// Routes of both kinds of providers.
pub fn routes() -> Router<AppState> {
    ProviderKind::ALL.into_iter().fold(Router::new(), |router, kind| {
        let path = |end: &str| format!("/api/auth/providers/{}/{{slug}}/{end}", kind.as_str());
        router
            .route(&path("login"), get(move |state, slug, request| login(kind, state, slug, request)))
            .route(&path("callback"), get(move |state, slug, request| callback(kind, state, slug, request)))
            .route(&path("device/code"), post(move |state, slug, request| device_code(kind, state, slug, request)))
            .route(&path("token"), post(move |state, slug, request| token(kind, state, slug, request)))
    })
}

fn provider<'s>(state: &'s AppState, kind: ProviderKind, slug: &str) -> Result<&'s ProviderClient, ApiError> {
    state.providers.get(kind, slug).ok_or(ApiError::NoRoute)
}

/// A browser on its way to a provider or back.
struct Visit<'s> {
    provider: &'s ProviderClient,
    query: HashMap<String, String>,
    /// Where the cookie of the login is sent to.
    cookie_path: String,
    /// Whether that cookie is for TLS only.
    secure: bool,
}

fn visit<'s>(state: &'s AppState, kind: ProviderKind, slug: &str, request: &Request) -> Result<Visit<'s>, ApiError> {
    Ok(Visit {
        provider: provider(state, kind, slug)?,
        query: pairs(request.uri().query().unwrap_or_default().as_bytes()),
        cookie_path: format!("{}{}", state.config.api_prefix, redirect::callback_path(kind, slug)),
        secure: is_secure(state, request),
    })
}

/// Sends the browser to the provider.
async fn login(
    kind: ProviderKind,
    State(state): State<AppState>,
    Path(slug): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let Visit { provider, query, cookie_path, secure } = visit(&state, kind, &slug, &request)?;
    let prefix = &state.config.api_prefix;
    let root = redirect::root(request.headers(), request.extensions(), prefix);
    let redirect_uri = match (provider.redirect_uri(), &root) {
        ("", Some(root)) => redirect::callback(root, kind, &slug),
        ("", None) => return Err(ApiError::BadRequest("the request has no usable Host header".to_owned())),
        (configured, _) => configured.to_owned(),
    };
    let target = redirect::after_sign_in(query.get("rd").map(String::as_str), prefix);
    let login = Login::begin(kind, &slug, redirect_uri, target, Timestamp::now());
    let url = provider.authorization_url(&login).await?;
    let attributes = Attributes { path: &cookie_path, secure };
    let cookie = state.providers.logins.cookie(&login, attributes);
    redirect_to(url.as_str(), cookie)
}

/// The browser comes back from the provider.
async fn callback(
    kind: ProviderKind,
    State(state): State<AppState>,
    Path(slug): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let Visit { provider, query, cookie_path, secure } = visit(&state, kind, &slug, &request)?;
    let text = |name: &str| query.get(name).map(String::as_str);
    let now = Timestamp::now();
    let came_with = text("state").unwrap_or_default();
    let login = state.providers.logins.find(request.headers(), came_with, kind, &slug, now).ok_or_else(|| {
        oauth("invalid_request", "this sign-in was not begun in this browser, or too long ago: please start it again")
    })?;
    if let Some(code) = text("error") {
        return Err(oauth(code, text("error_description").unwrap_or_default()));
    }
    let code = text("code").ok_or_else(|| oauth("invalid_request", "the provider sent no code"))?;
    let identity = provider.exchange(code, text("iss"), &login).await?;
    let session = sign_in(&state, provider, &identity, now).await?;
    let attributes = Attributes { path: &cookie_path, secure };
    redirect_to(&login.target, session.cookies.into_iter().chain(Logins::end(&login.state, attributes)))
}

/// Begins the device flow, for percli.
async fn device_code(
    kind: ProviderKind,
    State(state): State<AppState>,
    Path(slug): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let provider = provider(&state, kind, &slug)?;
    let form = pairs(&body::read(request, MAX_FORM).await?);
    let challenge = form.get("code_challenge").zip(form.get("code_challenge_method"));
    let answer =
        provider.device_code(challenge.map(|(challenge, method)| (challenge.as_str(), method.as_str()))).await?;
    Ok(no_store(body::json(StatusCode::OK, &answer)))
}

/// Tokens for a device code or for a program's own credentials.
async fn token(
    kind: ProviderKind,
    State(state): State<AppState>,
    Path(slug): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let provider = provider(&state, kind, &slug)?;
    // The answer sets cookies: another site must not sign its own user in here.
    if request.headers().get("sec-fetch-site").is_some_and(|site| site.as_bytes() == b"cross-site") {
        return Err(ApiError::Forbidden("the request was started by another site".to_owned()));
    }
    let client = basic(request.headers());
    let address = state.trusted_proxies.client(request.headers(), request.extensions());
    let form = pairs(&body::read(request, MAX_FORM).await?);
    let text = |name: &str| form.get(name).map(String::as_str);
    let identity = match text("grant_type").unwrap_or_default() {
        DEVICE_CODE => {
            let code = text("device_code").ok_or_else(|| oauth("invalid_request", "device_code is missing"))?;
            provider.device_token(code, text("code_verifier")).await?
        }
        CLIENT_CREDENTIALS => {
            let (id, secret) = client.ok_or_else(|| {
                oauth("invalid_request", "client id and secret are expected in the Authorization header (Basic)")
            })?;
            let attempt = state.limits.attempt(address, &id).map_err(auth::too_many)?;
            let found = provider.client_credentials(&id, &secret).await;
            // Only a refusal says that the secret was wrong.
            if !matches!(found, Err(ApiError::OAuth { .. })) {
                attempt.succeeded();
            }
            found?
        }
        _ => {
            return Err(oauth(
                "unsupported_grant_type",
                "grant_type must be that of device codes or client_credentials",
            ));
        }
    };
    let session = sign_in(&state, provider, &identity, Timestamp::now()).await?;
    Ok(session.into_response())
}

/// Makes the user when it is new, and a session.
async fn sign_in(
    state: &AppState,
    provider: &ProviderClient,
    identity: &Identity,
    now: Timestamp,
) -> Result<Session, ApiError> {
    // The first user's name is theirs, and with it the rights of the administrator.
    let wants_admin = state.config.security.authentication.initial_admin.is_some();
    if wants_admin && state.metrics.initial_admin_exists.get() != 1 {
        return Err(ApiError::Unavailable("sign-in at a provider waits for the first user".to_owned()));
    }
    let user = sign_in::sync_user(&state.resources, identity).await?;
    let mut mappings = state.config.security.authorization.provider.native.role_mappings.clone();
    mappings.extend(state.config.query.tenant_groups().map(RoleMapping::without_role));
    let claims = serde_json::Value::Object(identity.claims.clone());
    let (groups, lost) = that_fit(mapped_entries(&mappings, provider.groups_claim(), &claims));
    if lost > 0 {
        tracing::warn!(
            user,
            lost,
            kept = groups.len(),
            "not all groups of the user that mean something here fit into a token"
        );
    }
    auth::session(state, &Claims::external(&user, provider.kind.as_str(), provider.slug(), groups), now)
}

/// Whether cookies are for TLS only: as configured, or when the browser came over TLS.
fn is_secure(state: &AppState, request: &Request) -> bool {
    let root = redirect::root(request.headers(), request.extensions(), "");
    state.config.security.cookie.secure || root.is_some_and(|root| root.scheme() == "https")
}

fn redirect_to(target: &str, cookies: impl IntoIterator<Item = HeaderValue>) -> Result<Response, ApiError> {
    let target = HeaderValue::from_str(target).map_err(|error| ApiError::Internal(error.to_string()))?;
    let mut response = no_store((StatusCode::FOUND, [(header::LOCATION, target)]).into_response());
    for cookie in cookies {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Names and values of a form or a query; of several with one name the first counts.
fn pairs(text: &[u8]) -> HashMap<String, String> {
    let mut pairs = HashMap::new();
    for (name, value) in form_urlencoded::parse(text) {
        pairs.entry(name.into_owned()).or_insert_with(|| value.into_owned());
    }
    pairs
}

/// Client id and secret of a `Basic` header. Clients of OAuth encode them as forms do (RFC 6749 section 2.3.1), `curl -u`
/// does not: without a percent sign they are taken as they are.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let plain = |text: &str| {
        if !text.contains('%') {
            return text.to_owned();
        }
        let spaced = text.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced)
            .decode_utf8()
            .map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned)
    };
    (!id.is_empty()).then(|| (plain(id), plain(secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_basic_header_is_read_in_both_forms() {
        let read = |text: &str| {
            let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(text))).unwrap();
            basic(&HeaderMap::from_iter([(header::AUTHORIZATION, value)]))
        };
        let pair = |id: &str, secret: &str| Some((id.to_owned(), secret.to_owned()));
        assert_eq!(read("id:a+b c"), pair("id", "a+b c"));
        assert_eq!(read("a%3Ab:p%25%2B+q"), pair("a:b", "p%+ q"));
        assert_eq!(read("id:"), pair("id", ""));
        assert_eq!(read(":x"), None);
        assert_eq!(read("no colon"), None);
        assert_eq!(basic(&HeaderMap::new()), None);
    }
}
