//! The five verbs of every kind, on both path forms.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use bytes::Bytes;
use serde::Deserialize;

use crate::auth::authorize::{Action, Reach};
use crate::cache::Encoded;
use crate::domain::document::{Envelope, Key};
use crate::domain::kind::Kind;
use crate::domain::{name, spec};
use crate::error::ApiError;
use crate::handlers::body::{self, JsonBody};
use crate::handlers::warnings;
use crate::middleware::caller::{self, Caller};
use crate::negotiate::{self, matches_any, wants_gzip};
use crate::service::resources::{ListOptions, Read, Written};
use crate::state::AppState;
use crate::store::Precondition;

/// A list of so many bytes is sent in pieces, as the client takes them.
const STREAMED: usize = 1 << 20;

/// Routes of the kinds; with `readonly` only those that read.
pub fn routes(kinds: &[Kind], readonly: bool) -> Router<AppState> {
    let mut router = Router::new();
    for &kind in kinds {
        let plural = kind.plural();
        router = router.route(&format!("/api/v1/{plural}"), collection(kind, readonly));
        if kind.is_project_scoped() {
            router = router
                .route(&format!("/api/v1/projects/{{project}}/{plural}"), collection_of_project(kind, readonly))
                .route(&format!("/api/v1/projects/{{project}}/{plural}/{{name}}"), item_of_project(kind, readonly));
        } else {
            router = router.route(&format!("/api/v1/{plural}/{{name}}"), item(kind, readonly));
        }
    }
    router
}

fn collection(kind: Kind, readonly: bool) -> MethodRouter<AppState> {
    let list = get(
        move |State(state): State<AppState>,
              caller: Caller,
              Query(query): Query<ListParameters>,
              headers: HeaderMap| async move { list(&state, &caller, kind, None, query, &headers).await },
    );
    if readonly || kind == Kind::User {
        return list;
    }
    list.merge(post(move |State(state): State<AppState>, caller: Caller, body: JsonBody| async move {
        create(&state, &caller, kind, None, body).await
    }))
}

fn collection_of_project(kind: Kind, readonly: bool) -> MethodRouter<AppState> {
    let list = get(
        move |State(state): State<AppState>,
              caller: Caller,
              Path(project): Path<String>,
              Query(query): Query<ListParameters>,
              headers: HeaderMap| async move { list(&state, &caller, kind, Some(project), query, &headers).await },
    );
    if readonly {
        return list;
    }
    list.merge(post(
        move |State(state): State<AppState>, caller: Caller, Path(project): Path<String>, body: JsonBody| async move {
            create(&state, &caller, kind, Some(project), body).await
        },
    ))
}

fn item(kind: Kind, readonly: bool) -> MethodRouter<AppState> {
    let read = get(
        move |State(state): State<AppState>, caller: Caller, Path(name): Path<String>, headers: HeaderMap| async move {
            let key = Key::global(kind, state.resources.fold(&name));
            read(&state, &caller, &key, &headers).await
        },
    );
    if readonly {
        return read;
    }
    read.put(
        move |State(state): State<AppState>,
              caller: Caller,
              Path(name): Path<String>,
              headers: HeaderMap,
              body: JsonBody| async move {
            let key = Key::global(kind, state.resources.fold(&name));
            update(&state, &caller, &key, &headers, body).await
        },
    )
    .delete(
        move |State(state): State<AppState>, caller: Caller, Path(name): Path<String>, headers: HeaderMap| async move {
            let key = Key::global(kind, state.resources.fold(&name));
            delete(&state, &caller, &key, &headers).await
        },
    )
}

type ProjectAndName = Path<(String, String)>;

fn item_of_project(kind: Kind, readonly: bool) -> MethodRouter<AppState> {
    let read = get(
        move |State(state): State<AppState>,
              caller: Caller,
              Path((project, name)): ProjectAndName,
              headers: HeaderMap| async move {
            let key = Key::in_project(kind, state.resources.fold(&project), state.resources.fold(&name));
            read(&state, &caller, &key, &headers).await
        },
    );
    if readonly {
        return read;
    }
    read.put(
        move |State(state): State<AppState>,
              caller: Caller,
              Path((project, name)): ProjectAndName,
              headers: HeaderMap,
              body: JsonBody| async move {
            let key = Key::in_project(kind, state.resources.fold(&project), state.resources.fold(&name));
            update(&state, &caller, &key, &headers, body).await
        },
    )
    .delete(
        move |State(state): State<AppState>,
              caller: Caller,
              Path((project, name)): ProjectAndName,
              headers: HeaderMap| async move {
            let key = Key::in_project(kind, state.resources.fold(&project), state.resources.fold(&name));
            delete(&state, &caller, &key, &headers).await
        },
    )
}

async fn read(state: &AppState, caller: &Caller, key: &Key, headers: &HeaderMap) -> Result<Response, ApiError> {
    require_on(state, caller, Action::Read, key).await?;
    let Read { encoded, tier } = state.resources.get(key).await?;
    let zipped = if wants_gzip(headers, encoded.body.len()) { encoded.gzip().await } else { None };
    let etag = etag(&encoded, zipped.is_some());
    if etag.to_str().is_ok_and(|etag| matches_any(headers, etag)) {
        let vary = HeaderValue::from_static("accept-encoding");
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag), (header::VARY, vary)]).into_response());
    }
    let status = match tier {
        Some(tier) => HeaderValue::from_static(match tier.as_str() {
            "l1" => "perses; hit; detail=l1",
            _ => "perses; hit; detail=l2",
        }),
        None => HeaderValue::from_static("perses; fwd=miss"),
    };
    let mut response = body_of(encoded.body, zipped);
    response.headers_mut().insert(header::ETAG, etag);
    response.headers_mut().insert("cache-status", status);
    Ok(response)
}

async fn create(
    state: &AppState,
    caller: &Caller,
    kind: Kind,
    project: Option<String>,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let project = project.map(|project| state.resources.fold(&project));
    if let Some(project) = &project {
        state.resources.require_project(project).await?;
    }
    let envelope: Envelope = body::parse(&body)?;
    let project = match project {
        None if kind.is_project_scoped() => Some(state.resources.fold(&envelope.metadata.project)),
        project => project,
    };
    if project.as_deref() == Some("") {
        return Err(ApiError::BadRequest("metadata.project cannot be empty".to_owned()));
    }
    if kind == Kind::Project && state.authorizer.cluster().is_some() {
        // A project is a namespace: who may make dashboards in that one may make the project (Perses v0.54).
        let name = state.resources.fold(&envelope.metadata.name);
        if !caller.may(state, Action::Create, Kind::Dashboard, Some(&name)).await? {
            state.metrics.denied(Action::Create.as_str(), kind.as_str());
            return Err(ApiError::Forbidden(caller::missing(Action::Create, kind, Some(&name))));
        }
    } else {
        caller.require(state, Action::Create, kind, project.as_deref()).await?;
    }
    require_secrets(state, caller, kind, project.as_deref(), &envelope).await?;
    let result = match (kind, caller.login()) {
        (Kind::Project, Some(creator)) if state.authorizer.native().is_some() => {
            let encoded = state.resources.create_project(envelope, creator).await?;
            Written { encoded, warnings: Vec::new() }
        }
        _ => state.resources.create(kind, project.as_deref(), envelope).await?,
    };
    Ok(written(result))
}

async fn update(
    state: &AppState,
    caller: &Caller,
    key: &Key,
    headers: &HeaderMap,
    body: JsonBody,
) -> Result<Response, ApiError> {
    let envelope: Envelope = body::parse(&body)?;
    require_on(state, caller, Action::Update, key).await?;
    require_secrets(state, caller, key.kind, key.project.as_deref(), &envelope).await?;
    Ok(written(state.resources.update(key, envelope, precondition(headers)?).await?))
}

async fn delete(state: &AppState, caller: &Caller, key: &Key, headers: &HeaderMap) -> Result<StatusCode, ApiError> {
    require_on(state, caller, Action::Delete, key).await?;
    state.resources.delete_if(key, precondition(headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The right to act on one document. A project is its own scope: its members may read or delete it.
async fn require_on(state: &AppState, caller: &Caller, action: Action, key: &Key) -> Result<(), ApiError> {
    let project = if key.kind == Kind::Project { Some(&key.name) } else { key.project.as_ref() };
    caller.require(state, action, key.kind, project.map(String::as_str)).await
}

/// Who writes a datasource that names a secret could send its credentials anywhere, so they must be allowed to read secrets.
async fn require_secrets(
    state: &AppState,
    caller: &Caller,
    kind: Kind,
    project: Option<&str>,
    envelope: &Envelope,
) -> Result<(), ApiError> {
    match (kind.secrets(), &envelope.spec) {
        (Some(secrets), Some(spec)) if spec::names_secret(kind, spec) => {
            caller.require(state, Action::Read, secrets, project).await
        }
        _ => Ok(()),
    }
}

#[derive(Debug, Default, Deserialize)]
struct ListParameters {
    #[serde(default)]
    name: String,
    #[serde(default)]
    project: String,
    #[serde(default)]
    metadata_only: String,
    #[serde(default)]
    display: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    default: String,
}

async fn list(
    state: &AppState,
    caller: &Caller,
    kind: Kind,
    path_project: Option<String>,
    query: ListParameters,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let resources = &state.resources;
    let fold = |text: &str| (!text.is_empty()).then(|| resources.fold(text));
    let path_project = path_project.map(|project| resources.fold(&project));
    let query_project = fold(&query.project);
    if let Some(project) = &query_project {
        name::validate(project).map_err(|error| {
            ApiError::BadRequest(format!("the project name in the query parameter is invalid: {error}"))
        })?;
    }
    // Upstream looks for the project of the path only; one of the query just finds nothing.
    if let Some(project) = &path_project {
        resources.require_project(project).await?;
    }
    let project = match (path_project, query_project) {
        (Some(path), Some(query)) if path != query => {
            return Err(ApiError::BadRequest(format!(
                "the project name in the path ({path}) and the project name in the query parameter ({query}) are different"
            )));
        }
        (path, query) => path.or(query),
    };
    // A list of one place is refused to who may not read there; one of all projects leaves out what may not be read.
    let place = project.as_deref().filter(|_| kind.is_project_scoped());
    let within = if place.is_some() || !(kind.is_project_scoped() || kind == Kind::Project) {
        if !caller.may(state, Action::Read, kind, place).await? {
            return Err(Caller::refusal(state, Action::Read, kind, place));
        }
        None
    } else {
        match caller.readable(state, kind).await? {
            Reach::Everywhere => None,
            Reach::Projects(projects) => Some(projects),
        }
    };
    let is_datasource = matches!(kind, Kind::Datasource | Kind::GlobalDatasource);
    let options = ListOptions {
        project,
        within,
        name_prefix: fold(&query.name),
        metadata_only: !is_datasource && matches!(query.metadata_only.as_str(), "true" | "1"),
        titles: matches!(query.display.as_str(), "true" | "1"),
        plugin_kind: (is_datasource && !query.kind.is_empty()).then_some(query.kind),
        default: if is_datasource && !query.default.is_empty() {
            let parsed = query.default.parse();
            Some(parsed.map_err(|_| {
                ApiError::BadRequest(format!("query parameter default: {:?} is neither true nor false", query.default))
            })?)
        } else {
            None
        },
    };
    let list = resources.list(kind, &options).await?;
    if wants_gzip(headers, list.length()) {
        let plain = list.whole();
        let copy = plain.clone();
        let zipped = tokio::task::spawn_blocking(move || negotiate::gzip(&copy)).await.ok().and_then(Result::ok);
        return Ok(body_of(plain, zipped.map(Bytes::from)));
    }
    if list.length() < STREAMED {
        return Ok(body_of(list.whole(), None));
    }
    let pieces = futures::stream::iter(list.map(Ok::<_, std::convert::Infallible>));
    Ok(body_of(Body::from_stream(pieces), None))
}

fn written(written: Written) -> Response {
    let etag = etag(&written.encoded, false);
    let mut response = json(StatusCode::OK, written.encoded.body);
    response.headers_mut().insert(header::ETAG, etag);
    warnings::add(response.headers_mut(), &written.warnings);
    response
}

fn json(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.into()).into_response()
}

/// `200` with the body as it is or compressed.
fn body_of(plain: impl Into<Body>, zipped: Option<Bytes>) -> Response {
    let encoding = zipped.is_some().then_some(HeaderValue::from_static("gzip"));
    let mut response = json(StatusCode::OK, zipped.map_or_else(|| plain.into(), Body::from));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if let Some(encoding) = encoding {
        response.headers_mut().insert(header::CONTENT_ENCODING, encoding);
    }
    response
}

/// `"<version>-<revision>"`, `-gzip` after it when compressed: the revision tells a document that was created again from the
/// one before.
fn etag(encoded: &Encoded, zipped: bool) -> HeaderValue {
    let text = format!("\"{}-{}{}\"", encoded.version, encoded.revision, if zipped { "-gzip" } else { "" });
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("\"\""))
}

/// `If-Match` holds one of our ETags, or is absent.
fn precondition(headers: &HeaderMap) -> Result<Precondition, ApiError> {
    let Some(given) = headers.get(header::IF_MATCH) else { return Ok(Precondition::None) };
    let text = given.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(Precondition::None);
    }
    let parts = text.trim_matches('"').trim_end_matches("-gzip").split_once('-');
    let state = parts.and_then(|(version, revision)| {
        Some(Precondition::State { version: version.parse().ok()?, revision: revision.parse().ok()? })
    });
    state.ok_or_else(|| {
        ApiError::BadRequest(format!(
            "If-Match {text:?} is not an ETag of this server (expected \"<version>-<revision>\")"
        ))
    })
}
