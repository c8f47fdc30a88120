//! `docs/reference/errors.md`, from the comments and texts of `error.rs`.

use std::fmt::Write as _;

use super::{cell, check};

/// What a client, or who runs the server, does about a status.
const REMEDIES: [(u16, &str); 16] = [
    (400, "Change the request as the text says."),
    (401, "Sign in again; percli: `percli login`."),
    (403, "Ask for the right, or send what is allowed."),
    (404, "Check the path: kind, project and name."),
    (405, "Use one of the methods in the header `Allow`."),
    (408, "Send the body faster."),
    (409, "Use PUT to replace what exists, or another name."),
    (412, "Read the document again, apply the change to it, and send its new `ETag`."),
    (413, "Send less, or raise `server.max_body_bytes`."),
    (415, "Send `Content-Type: application/json`."),
    (422, "Ask for less, or have the limit raised for the datasource."),
    (429, "Wait as long as `Retry-After` says."),
    (500, "A defect: the log has the detail under the `X-Request-Id` of the answer."),
    (501, "Do without; this server does not have it."),
    (502, "Check the datasource: its address, its secret, whether it runs."),
    (503, "Send the same request again after `Retry-After`; look at the database, or the datasource."),
];

/// Statuses whose remedy is another one's.
fn remedy(status: u16) -> &'static str {
    let status = if status == 504 { 502 } else { status };
    let found = REMEDIES.iter().find(|(known, _)| *known == status);
    found.unwrap_or_else(|| panic!("say in REMEDIES what to do about {status}")).1
}

/// Status, when it comes, and the text, of each variant of `ApiError`.
fn variants() -> Vec<(u16, String, String)> {
    let source = include_str!("../../../src/error.rs");
    let body = source.split("pub enum ApiError {").nth(1).unwrap().split("\n}\n").next().unwrap();
    let mut found = Vec::new();
    let mut comment = String::new();
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("/// ") {
            comment = format!("{comment} {text}");
        } else if let Some(text) = line.strip_prefix("#[error(\"").and_then(|rest| rest.strip_suffix("\")]")) {
            let described = comment.trim().split_once(": ").or_else(|| comment.trim().split_once(' '));
            let (status, when) = described.unwrap_or_else(|| panic!("{comment:?} says no status"));
            let status = status
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap_or_else(|_| panic!("{comment:?} begins with no status"));
            let (first, rest) = when.split_at(1);
            found.push((status, first.to_uppercase() + rest, text.to_owned()));
        } else {
            // A field of a variant has a comment of its own.
            comment.clear();
        }
    }
    found.sort_by_key(|(status, ..)| *status);
    found
}

#[test]
fn the_reference_of_errors_is_current() {
    let mut text = "# Errors of the API\n\n\
        Generated from the code (`make generate`). Every error is `{\"message\": \"<text>\"}`; the texts are those of Perses v0.54\n\
        where it has one. Errors about Prometheus queries have the members of Prometheus beside it: `status`, `errorType`, `error`.\n\
        `{0}` stands for what differs from request to request.\n\n\
        | status | text | when | what to do |\n|---|---|---|---|\n"
        .to_owned();
    let variants = variants();
    assert!(variants.len() >= 16, "{variants:?}");
    for (status, when, message) in variants {
        writeln!(text, "| {status} | `{}` | {} | {} |", cell(&message), cell(&when), remedy(status)).unwrap();
    }
    check("docs/reference/errors.md", &text);
}
