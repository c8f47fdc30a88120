//! `POST /api/v1/query/explain`: why the answer to a query would come from where it would. Nothing is asked of the datasource.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::post;
use serde::Deserialize;
use serde_json::Value;

use crate::error::ApiError;
use crate::handlers::{body, proxy};
use crate::middleware::caller::Caller;
use crate::query::params::Params;
use crate::state::AppState;

/// The one route.
pub fn routes() -> Router<AppState> {
    Router::new().route("/api/v1/query/explain", post(explain))
}

/// A request to a datasource.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Explain {
    /// The path, from `/proxy/` on.
    path: String,
    /// Its parameters: texts, numbers, or lists of them.
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
}

async fn explain(State(state): State<AppState>, caller: Caller, request: Request) -> Result<Response, ApiError> {
    let headers = request.headers().clone();
    let explain: Explain = body::bind(request, &state).await?;
    let params = parameters(&explain.parameters)?;
    let question = state.proxy.question(&explain.path)?;
    let right = question.right();
    caller.require(&state, right.action, right.kind, right.project.as_deref()).await?;
    let scope = proxy::scope(&state, &caller, question.reference()).await?;
    let query = params.single("query").ok().flatten().map(str::to_owned);
    let mut explained = state.proxy.explain(question, params, &headers, &scope).await?;
    if let Some(query) = query {
        let findings = state.checks.linter().lint_query(&query);
        explained.advice.extend(findings.into_iter().map(|finding| finding.text));
    }
    // A key is a digest of what only the server knows, too.
    if !state.authorizer.is_administrator(caller.0.as_ref()).await? {
        explained.keys = None;
    }
    let value = serde_json::to_value(&explained).map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(body::json(StatusCode::OK, &value))
}

fn parameters(all: &BTreeMap<String, Value>) -> Result<Params, ApiError> {
    let text = |name: &str, value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(ApiError::BadRequest(format!("parameters.{name} is neither a text, a number nor a list of them"))),
    };
    let mut pairs = Vec::new();
    for (name, value) in all {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in values {
            pairs.push((name.clone(), text(name, value)?));
        }
    }
    Ok(pairs.into_iter().collect())
}
