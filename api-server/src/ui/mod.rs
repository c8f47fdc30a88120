//! The web UI: files in the binary or in a folder, and the plugins that they load.
//!
//! `embedded` holds what build.rs packed, `disk` reads folders at start, `asset` turns one file into an answer. Nothing
//! is read from disk while serving, so no path of a request can leave a folder.

mod asset;
mod content_type;
mod disk;
mod embedded;
mod plugins;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Response};
use bytes::Bytes;
use percent_encoding::percent_decode_str;

use self::asset::Asset;
pub use self::disk::UiError;
use crate::domain::lint::plugins::PluginKinds;

/// First path segments that the UI routes itself, as upstream (`index.html` answers them); the empty one is `/`.
const ROUTES: [&str; 10] =
    ["", "admin", "sign-in", "sign-up", "projects", "import", "config", "explore", "profile", "delegated-auth-error"];

/// Scripts, connections, fonts and images from this server alone. Styles are inline because emotion writes them at run
/// time.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
    font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'";

const NO_UI: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Perses</title></head><body>\
    <h1>No web UI in this build</h1><p>This server was built with <code>PERSES_UI=none</code>. Its API works; for the \
    UI build it without that variable, or give a built UI with <code>--web.ui-dir=DIR</code>.</p></body></html>";

/// Where the UI comes from.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A built UI on disk, instead of the one in the binary.
    pub ui_dir: Option<PathBuf>,
    /// A folder with one plugin module per sub-folder, beside those in the binary.
    pub plugin_path: Option<PathBuf>,
    /// `api_prefix` of the configuration: empty, or `/x` without a slash at the end.
    pub api_prefix: String,
}

/// Every file that the server answers with, and the plugin modules that it offers.
#[derive(Debug)]
pub struct Assets {
    /// Files from disk, and embedded ones that had to be changed; they win over the embedded ones.
    loaded: HashMap<String, Asset>,
    /// Whether the UI is the one in the binary.
    is_embedded: bool,
    /// Version of each plugin module.
    versions: HashMap<String, String>,
    modules: Bytes,
}

impl Assets {
    /// Reads the folders of `options`.
    ///
    /// # Errors
    /// The folder of the UI can't be read, holds no `index.html` or is too large. A bad plugin is no error: it is
    /// listed with what is wrong with it, as upstream does.
    pub fn new(options: &Options) -> Result<Self, UiError> {
        let prefix = options.api_prefix.as_str();
        let mut loaded = if prefix.is_empty() { HashMap::new() } else { embedded::with_prefix(prefix) };
        if let Some(folder) = &options.ui_dir {
            loaded.extend(disk::read_ui(folder, prefix)?);
        }
        let mut modules = plugins::embedded_modules();
        if let Some(folder) = &options.plugin_path {
            let found = plugins::read_folder(folder, prefix);
            modules.extend(found.modules);
            loaded.extend(found.files);
        }
        let versions = modules.iter().map(|(name, module)| (name.clone(), plugins::version_of(module))).collect();
        let list: Vec<_> = modules.into_values().collect();
        let modules = Bytes::from(serde_json::Value::Array(list).to_string());
        Ok(Self { loaded, is_embedded: options.ui_dir.is_none(), versions, modules })
    }

    /// The answer of `GET /api/v1/plugins`: a JSON array of `PluginModule`.
    pub fn plugin_modules(&self) -> Bytes {
        self.modules.clone()
    }

    /// The plugins of the modules.
    pub fn plugin_kinds(&self) -> PluginKinds {
        serde_json::from_slice(&self.modules).map(|list| PluginKinds::from_modules(&list)).unwrap_or_default()
    }

    /// Answers a GET or HEAD of a file or of a page of the UI; `None` means 404 (or another method).
    ///
    /// `path` is the path of the request without `api_prefix`.
    pub fn handle(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let decoded = percent_decode_str(path.trim_start_matches('/')).decode_utf8().ok()?;
        let name = match decoded.strip_prefix("plugins/") {
            Some(rest) => Cow::Owned(self.plugin_file(rest)?),
            None => decoded,
        };
        if let Some(asset) = self.lookup(&name) {
            let mut response = asset.respond(&name, method, headers, self.is_immutable(&name));
            self.add_policy(&name, response.headers_mut());
            return Some(response);
        }
        let route = name.split('/').next().unwrap_or_default();
        if !ROUTES.contains(&route) {
            return None;
        }
        let index = self.lookup("index.html").unwrap_or_else(|| Asset::new(Bytes::from_static(NO_UI.as_bytes())));
        let mut response = index.respond("index.html", method, headers, false);
        self.add_policy("index.html", response.headers_mut());
        Some(response)
    }

    fn lookup(&self, name: &str) -> Option<Asset> {
        let loaded = self.loaded.get(name).cloned();
        // Plugins in the binary are there for a UI from disk too.
        loaded.or_else(|| (self.is_embedded || name.starts_with("plugins/")).then(|| embedded::lookup(name))?)
    }

    /// `<Module>[~version[~registry]]/<file>` as the name of a file; `None` for a version that isn't there.
    fn plugin_file(&self, rest: &str) -> Option<String> {
        let (module, file) = rest.split_once('/')?;
        let mut parts = module.split('~');
        let name = parts.next()?;
        let version = self.versions.get(name)?;
        if parts.next().is_some_and(|wanted| !wanted.is_empty() && wanted != version) {
            return None;
        }
        Some(format!("plugins/{name}/{file}"))
    }

    /// Names that change with the content may be kept forever.
    fn is_immutable(&self, name: &str) -> bool {
        name.contains("/__mf/") || (self.is_embedded && name.starts_with("assets/")) || asset::has_hash(name)
    }

    /// Only pages need the policy. A foreign UI is left alone: it may need what ours does not.
    fn add_policy(&self, name: &str, headers: &mut HeaderMap) {
        use axum::http::HeaderValue;
        use axum::http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY};
        if self.is_embedded && content_type::ending(name) == "html" {
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
            headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
        }
    }
}

#[cfg(test)]
mod tests;
