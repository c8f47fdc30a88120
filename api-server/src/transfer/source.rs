//! Where documents come from.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::{ImportOptions, http, mysql};
use crate::domain::document::{Document, Key, Origin};
use crate::domain::kind::Kind;
use crate::store::file::{self, Metadata};

/// A place to import from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder in the layout of Perses.
    Folder(PathBuf),
    /// A Perses server.
    Server(Url),
    /// Its MySQL or MariaDB.
    MySql(Url),
}

/// What a source holds.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) documents: Vec<Document>,
    /// What could not be read, with the reason.
    pub(super) unreadable: Vec<String>,
    /// Secrets are masked: they are not in the documents.
    pub(super) masked: bool,
}

/// A document as another Perses stores or sends it.
#[derive(Debug, Deserialize)]
pub(super) struct Sent {
    metadata: Metadata,
    spec: Option<Box<RawValue>>,
}

impl Sent {
    pub(super) fn document(self, kind: Kind) -> Document {
        let Metadata { name, project, created_at, updated_at, version, tags, .. } = self.metadata;
        let project = kind.is_project_scoped().then_some(project);
        Document {
            key: Key { kind, project, name },
            created_at: created_at.unwrap_or_default(),
            updated_at: updated_at.unwrap_or_default(),
            version,
            tags: tags.unwrap_or_default(),
            spec: self.spec.unwrap_or_else(crate::store::empty_spec).into(),
            origin: Origin::Api,
            revision: 0,
        }
    }
}

impl Source {
    /// Reads `--from`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.contains("://") {
            return Ok(Self::Folder(PathBuf::from(text)));
        }
        let url = Url::parse(text).map_err(|error| format!("--from {text}: {error}"))?;
        match url.scheme() {
            "http" | "https" => Ok(Self::Server(url)),
            "file" => url.to_file_path().map(Self::Folder).map_err(|()| format!("--from {text}: not a local folder")),
            "mysql" | "mariadb" => Ok(Self::MySql(url)),
            scheme => Err(format!(
                "--from: {scheme}:// is no source; give a folder, the http(s):// address of a Perses server, or \
                 mysql://user@host/database"
            )),
        }
    }

    pub(super) async fn read(&self, options: &ImportOptions) -> Result<Content, String> {
        match self {
            Self::Folder(folder) => {
                let folder = folder.clone();
                let read = tokio::task::spawn_blocking(move || file::read_folder(&folder)).await;
                let (documents, unreadable) =
                    read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
                Ok(Content { documents, unreadable, masked: false })
            }
            Self::Server(url) => http::read(url, options).await,
            Self::MySql(url) => mysql::read(url, options).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_apart() {
        assert_eq!(Source::parse("./db"), Ok(Source::Folder("./db".into())));
        assert_eq!(Source::parse("file:///var/db"), Ok(Source::Folder("/var/db".into())));
        assert!(matches!(Source::parse("https://perses.example/x"), Ok(Source::Server(_))));
        assert!(matches!(Source::parse("mysql://u@h/db"), Ok(Source::MySql(_))));
        assert!(Source::parse("ftp://u:hunter2@h/db").is_err_and(|error| !error.contains("hunter2")));
    }
}
