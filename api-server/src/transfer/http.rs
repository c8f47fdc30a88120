//! Documents of another Perses server, by its API. It masks secrets.

use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, Client, StatusCode};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::ImportOptions;
use super::source::{Content, Sent};
use crate::domain::kind::Kind;

/// A list of all dashboards may take a while where every file is read for it.
const TIMEOUT: Duration = Duration::from_mins(2);

/// The answer to a sign-in.
#[derive(Deserialize)]
struct SignedIn {
    access_token: String,
}

/// Reads every kind that the server has.
pub(super) async fn read(base: &Url, options: &ImportOptions) -> Result<Content, String> {
    let client = client(options)?;
    let base = base.as_str().trim_end_matches('/');
    let token = token(&client, base, options).await?;
    let mut content = Content { masked: true, ..Content::default() };
    for kind in Kind::ALL {
        let url = format!("{base}/api/v1/{}", kind.plural());
        let mut request = client.get(&url);
        if let Some(token) = &token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(|error| format!("GET {url}: {}", without_url(error)))?;
        match response.status() {
            StatusCode::OK => {}
            // A kind that is switched off there.
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => continue,
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(format!(
                    "GET {url}: {status}; give --token-file, or --username and --password-file, of somebody who may read everything"
                ));
            }
            status => return Err(format!("GET {url}: {status}")),
        }
        let text = response.text().await.map_err(|error| format!("GET {url}: {}", without_url(error)))?;
        let sent: Vec<Sent> =
            serde_json::from_str(&text).map_err(|error| format!("GET {url}: not a list of documents: {error}"))?;
        content.documents.extend(sent.into_iter().map(|one| one.document(kind)));
    }
    Ok(content)
}

fn client(options: &ImportOptions) -> Result<Client, String> {
    let mut builder = Client::builder().timeout(TIMEOUT);
    if let Some(path) = &options.ca_file {
        let place = format!("--ca-file {}", path.display());
        let pem = std::fs::read(path).map_err(|error| format!("{place}: {error}"))?;
        let bundle = Certificate::from_pem_bundle(&pem).map_err(|_| format!("{place}: not PEM"))?;
        if bundle.is_empty() {
            return Err(format!("{place}: has no certificate"));
        }
        builder = builder.tls_certs_only(bundle);
    }
    builder.build().map_err(|error| format!("cannot make a client: {error}"))
}

/// The token that was given, or that of a sign-in.
async fn token(client: &Client, base: &str, options: &ImportOptions) -> Result<Option<String>, String> {
    if let Some(path) = &options.token_file {
        return read_line(path).map(Some);
    }
    let Some(login) = &options.username else { return Ok(None) };
    let path = options.password_file.as_deref().ok_or("--username needs --password-file")?;
    let url = format!("{base}/api/auth/providers/native/login");
    let body = json!({"login": login, "password": read_line(path)?});
    let response =
        client.post(&url).json(&body).send().await.map_err(|error| format!("POST {url}: {}", without_url(error)))?;
    if !response.status().is_success() {
        return Err(format!("POST {url}: {}: {login:?} cannot sign in there", response.status()));
    }
    let answer: SignedIn = response.json().await.map_err(|error| format!("POST {url}: {}", without_url(error)))?;
    Ok(Some(answer.access_token))
}

pub(super) fn read_line(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// With all causes. The address stands before it anyway, and may hold credentials.
fn without_url(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    if text.contains("certificate") {
        text.push_str("; give the authority that signed it with --ca-file");
    }
    text
}
