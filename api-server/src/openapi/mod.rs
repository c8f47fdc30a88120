//! The OpenAPI 3.1 document of the server, made of one table of operations ([`operations`]). A test compares the table with
//! the routes that the router really has, another one the document with `docs/reference/openapi.json`.

mod operations;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use self::operations::{Body, Operation, Parameter};
use crate::domain::kind::Kind;
use crate::state::VERSION;

/// Statuses of errors and when they come; their texts are in `docs/reference/errors.md`.
const ERRORS: [(u16, &str, &str); 16] = [
    (400, "BadRequest", "The request is wrong; the text says what and where."),
    (401, "Unauthorized", "No sign-in, or one that does not count."),
    (403, "Forbidden", "Signed in, but not allowed."),
    (404, "NotFound", "There is no such document, or the configuration switches the path off."),
    (405, "MethodNotAllowed", "The path has other methods; `Allow` says which."),
    (408, "RequestTimeout", "The body of the request came too slowly."),
    (409, "Conflict", "The document exists already."),
    (412, "PreconditionFailed", "`If-Match` names another version than the stored one."),
    (413, "TooLarge", "The body is larger than `server.max_body_bytes`."),
    (415, "UnsupportedMediaType", "The body is not declared as `application/json`."),
    (429, "TooManyRequests", "Too many requests; `Retry-After` says when to try again."),
    (500, "InternalError", "A defect of the server; the detail is in its log, under the request's id."),
    (501, "NotImplemented", "A part of Perses that this server does not have."),
    (502, "BadGateway", "The datasource cannot be reached, or its specification cannot be used."),
    (503, "Unavailable", "The database is away; the same request may work later."),
    (504, "GatewayTimeout", "The datasource took too long."),
];

/// The text served at `/api/v1/openapi.json`, without a prefix.
static TEXT: LazyLock<String> = LazyLock::new(|| document("").to_string());

/// The document as text.
pub fn text(prefix: &str) -> String {
    if prefix.is_empty() { TEXT.clone() } else { document(prefix).to_string() }
}

/// The document: every route that any configuration can have. `prefix` is the prefix of the API, which may be empty.
pub fn document(prefix: &str) -> Value {
    let mut paths = Map::new();
    for operation in operations::all() {
        let path = paths.entry(operation.path.clone()).or_insert_with(|| json!({}));
        path[operation.method] = described(&operation);
    }
    let responses: Map<String, Value> = ERRORS
        .iter()
        .map(|(_, name, text)| {
            let schema = json!({"$ref": "#/components/schemas/Error"});
            ((*name).to_owned(), json!({"description": text, "content": {"application/json": {"schema": schema}}}))
        })
        .collect();
    let server = if prefix.is_empty() { "/" } else { prefix };
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Perses API",
            "version": VERSION,
            "description": "Dashboards as Perses v0.54 serves them, with caches, an audit log and ETags. Errors are `{\"message\": ...}`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server}],
        "tags": operations::TAGS.map(|(name, text)| json!({"name": name, "description": text})),
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "responses": responses,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "jwtPayload",
                    "description": "With `jwtSignature` beside it, as a sign-in sets them.",
                },
            },
        },
    })
}

fn described(operation: &Operation) -> Value {
    let mut out = json!({
        "operationId": operation.id(),
        "tags": [operation.tag],
        "summary": operation.summary,
    });
    let parameters: Vec<Value> = path_parameters(&operation.path)
        .into_iter()
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": path_schema(name)}))
        .chain(operation.parameters.iter().map(parameter))
        .collect();
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    if let Some(body) = &operation.body {
        let schema = match body {
            Body::Schema(name) => json!({"$ref": format!("#/components/schemas/{name}")}),
            Body::Any => json!({}),
        };
        let kind = if matches!(body, Body::Any) { "application/x-www-form-urlencoded" } else { "application/json" };
        out["requestBody"] = json!({"required": !matches!(body, Body::Any), "content": {kind: {"schema": schema}}});
    }
    let mut responses = Map::new();
    for (status, text, answer) in &operation.answers {
        let mut response = json!({"description": text});
        if let Some((kind, schema)) = answer {
            response["content"] = json!({*kind: {"schema": schema}});
        }
        responses.insert(status.clone(), response);
    }
    let mut errors: BTreeSet<u16> = operation.errors.iter().copied().collect();
    errors.insert(500);
    if !operation.open {
        errors.extend([401, 403]);
    }
    // Most routes can be switched off: then the path is unknown, or has fewer methods.
    if operation.tag != "Server" {
        errors.extend([404, 405]);
    }
    if !operation.open {
        // Sign-in is a matter of the configuration.
        out["security"] = json!([{"bearer": []}, {"cookie": []}, {}]);
    }
    if operation.body.is_some() {
        errors.extend([408, 413]);
    }
    for status in errors {
        // An operation may have an answer of its own for a status.
        let named = ERRORS.iter().find(|(known, ..)| *known == status).map_or("InternalError", |(_, name, _)| name);
        responses
            .entry(status.to_string())
            .or_insert_with(|| json!({"$ref": format!("#/components/responses/{named}")}));
    }
    out["responses"] = responses.into();
    out
}

/// Names in braces.
fn path_parameters(path: &str) -> Vec<&str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect()
}

fn path_schema(name: &str) -> Value {
    match name {
        "path" => {
            json!({"type": "string", "description": "What is asked of the datasource, with slashes as they are."})
        }
        _ => json!({"$ref": "#/components/schemas/Name"}),
    }
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.text,
        "schema": parameter.schema,
    })
}

/// Schemas of what lies within specs, beside those that end in `Spec`.
const IN_SPECS: [&str; 5] = ["Display", "Plugin", "Panel", "FolderItem", "Permission"];

/// Specs come back as they were sent, and in them null counts as absent.
fn null_is_absent(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            let required: Vec<String> =
                map.get("required").and_then(|names| serde_json::from_value(names.clone()).ok()).unwrap_or_default();
            map.values_mut().for_each(null_is_absent);
            let Some(Value::Object(properties)) = map.get_mut("properties") else { return };
            for (_, property) in properties.iter_mut().filter(|(name, _)| !required.contains(name)) {
                match &property["type"] {
                    Value::String(one) => property["type"] = json!([one, "null"]),
                    Value::Null if property.get("$ref").is_some() => {
                        *property = json!({"anyOf": [property.take(), {"type": "null"}]});
                    }
                    _ => {}
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(null_is_absent),
        _ => {}
    }
}

/// The shared schemas: those written by hand, and a document and a list for every kind.
fn schemas() -> Value {
    let written: Result<Map<String, Value>, _> = serde_json::from_str(include_str!("schemas.json"));
    let mut schemas = written.unwrap_or_default();
    schemas.iter_mut().filter(|(name, _)| IN_SPECS.contains(&name.as_str()) || name.ends_with("Spec")).for_each(
        |(_, schema)| {
            null_is_absent(schema);
        },
    );
    for kind in Kind::ALL {
        let metadata = if kind.is_project_scoped() { "ProjectMetadata" } else { "Metadata" };
        let spec = kind.as_str().strip_prefix("Global").unwrap_or(kind.as_str());
        let document = json!({
            "type": "object",
            "required": ["kind", "metadata", "spec"],
            "properties": {
                "kind": {"const": kind.as_str()},
                "metadata": {"$ref": format!("#/components/schemas/{metadata}")},
                "spec": {"$ref": format!("#/components/schemas/{spec}Spec")},
            },
        });
        schemas.insert(kind.as_str().to_owned(), document);
    }
    schemas.into()
}
