//! `/proxy/...`: requests to datasources, any method; below `/proxy/unsaved/` the body carries the datasource.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap};
use axum::response::Response;
use axum::routing::{any, post};

use crate::auth::authorize::{Authorizer, Reach};
use crate::auth::token::Principal;
use crate::config::Config;
use crate::domain::kind::Kind;
use crate::error::ApiError;
use crate::handlers::body;
use crate::middleware::caller::Caller;
use crate::proxy::{Asked, DatasourceRef, Forwarded};
use crate::query::protect::Asker;
use crate::query::tenancy::Scope;
use crate::server::{OverTls, Peer};
use crate::state::AppState;

/// The routes of the datasources that are not switched off, each with and without a path below it.
pub fn routes(config: &Config) -> Router<AppState> {
    let datasource = &config.datasource;
    let places = [
        (!datasource.global.disable).then_some("globaldatasources"),
        (!datasource.project.disable).then_some("projects/{project}/datasources"),
        (!datasource.disable_local).then_some("projects/{project}/dashboards/{dashboard}/datasources"),
    ];
    let mut router = Router::new();
    for place in places.into_iter().flatten() {
        for (base, method) in
            [(format!("/proxy/{place}/{{name}}"), any(saved)), (format!("/proxy/unsaved/{place}"), post(unsaved))]
        {
            router = router
                .route(&base, method.clone())
                .route(&format!("{base}/"), method.clone())
                .route(&format!("{base}/{{*path}}"), method);
        }
    }
    router
}

async fn saved(State(state): State<AppState>, caller: Caller, request: Request) -> Result<Response, ApiError> {
    serve(&state, &caller, request).await
}

async fn unsaved(State(state): State<AppState>, caller: Caller, request: Request) -> Result<Response, ApiError> {
    body::require_json(request.headers())?;
    serve(&state, &caller, request).await
}

/// Who asks, as datasources are told.
pub(super) fn forwarded(extensions: &Extensions) -> Forwarded {
    Forwarded { peer: extensions.get::<Peer>().map(|peer| peer.0.ip()), https: extensions.get::<OverTls>().is_some() }
}

/// Whose rate of queries counts.
pub(super) fn asker(state: &AppState, caller: &Caller, headers: &HeaderMap, extensions: &Extensions) -> Asker {
    caller.login().map_or_else(|| Asker::address(state.trusted_proxies.client(headers, extensions)), Asker::user)
}

/// The raw path counts, not the decoded parameters of the route.
async fn serve(state: &AppState, caller: &Caller, mut request: Request) -> Result<Response, ApiError> {
    let asker = asker(state, caller, request.headers(), request.extensions());
    request.extensions_mut().insert(asker);
    let forwarded = forwarded(request.extensions());
    let asked = state.proxy.read(request, forwarded).await?;
    answer(state, caller, asked).await
}

/// Answers what was read, if the caller may ask it.
pub(super) async fn answer(state: &AppState, caller: &Caller, asked: Asked) -> Result<Response, ApiError> {
    for right in asked.rights() {
        caller.require(state, right.action, right.kind, right.project.as_deref()).await?;
    }
    let reference = asked.reference().clone();
    let scope = scope(state, caller, &reference).await?;
    state.proxy.serve(asked, scope).await
}

/// Whose data the caller may see of the datasource: that of its project; of a global one that of all projects whose datasources
/// they may use.
pub(super) async fn scope(state: &AppState, caller: &Caller, reference: &DatasourceRef) -> Result<Scope, ApiError> {
    let Some(rule) = state.proxy.tenancy(reference) else { return Ok(Scope::Unlimited) };
    // Without roles everybody may do everything, and nobody is an administrator.
    let has_roles = !matches!(state.authorizer, Authorizer::Everyone);
    if rule.free_administrators && has_roles && state.authorizer.is_administrator(caller.0.as_ref()).await? {
        return Ok(Scope::Free);
    }
    let reach = match reference.project() {
        Some(project) => Reach::Projects([project.to_owned()].into()),
        None => caller.readable(state, Kind::Datasource).await?,
    };
    state.proxy.scope(rule, &reach, caller.0.as_ref().map(Principal::groups).unwrap_or_default()).await
}
