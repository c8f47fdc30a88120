//! Plugin modules: those in the binary, and those in the folders below `plugin.path`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::asset::Asset;
use super::content_type;
use super::disk;
use super::embedded;

/// Module name -> `PluginModule`, sorted by name.
pub(super) type Modules = BTreeMap<String, Value>;

/// What a folder of plugins holds.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) modules: Modules,
    pub(super) files: HashMap<String, Asset>,
}

/// The part of a plugin's package.json that matters here.
#[derive(Deserialize)]
struct Package {
    version: String,
    perses: PersesBlock,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PersesBlock {
    #[serde(default)]
    schemas_path: String,
    plugins: Vec<Value>,
}

/// The modules in the binary.
pub(super) fn embedded_modules() -> Modules {
    let list: Vec<Value> = serde_json::from_str(embedded::PLUGINS).unwrap_or_default();
    list.into_iter().filter_map(|module| Some((module["metadata"]["name"].as_str()?.to_owned(), module))).collect()
}

/// Version of a `PluginModule`; empty when it has none.
pub(super) fn version_of(module: &Value) -> String {
    module["metadata"]["version"].as_str().unwrap_or_default().to_owned()
}

/// Every sub-folder is one plugin. A folder that isn't there holds none.
pub(super) fn read_folder(folder: &Path, prefix: &str) -> Found {
    let mut found = Found::default();
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::warn!(folder = %folder.display(), %error, "plugin.path cannot be read: no plugins beside those in the server");
            return found;
        }
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()) {
        match read_module(&path, prefix) {
            Ok((name, module, files)) => {
                found.modules.insert(name, module);
                found.files.extend(files);
            }
            Err(error) => {
                tracing::warn!(folder = %path.display(), %error, "a plugin cannot be loaded");
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                found.modules.insert(name.clone(), broken(&name, &error));
            }
        }
    }
    found
}

/// As upstream lists a plugin that it could not load.
fn broken(name: &str, error: &str) -> Value {
    json!({
        "kind": "PluginModule",
        "metadata": {"name": name, "version": "", "registry": ""},
        "spec": {"schemasPath": "", "plugins": []},
        "status": {"isLoaded": false, "inDev": false, "error": error},
    })
}

type Module = (String, Value, HashMap<String, Asset>);

fn read_module(folder: &Path, prefix: &str) -> Result<Module, String> {
    let file = |name: &str| {
        std::fs::read(folder.join(name)).map_err(|error| format!("cannot read {name} of the plugin: {error}"))
    };
    let bad = |name: &str, error: serde_json::Error| format!("{name} of the plugin is not as it should be: {error}");
    let package: Package =
        serde_json::from_slice(&file("package.json")?).map_err(|error| bad("package.json", error))?;
    let mut manifest: Value =
        serde_json::from_slice(&file("mf-manifest.json")?).map_err(|error| bad("mf-manifest.json", error))?;
    let name = manifest["name"].as_str().unwrap_or_default().to_owned();
    if name.is_empty() || name.contains(['/', '~']) {
        return Err("mf-manifest.json of the plugin has no usable name".to_owned());
    }
    // A function in a string, which the browser would have to eval(): the security policy forbids that.
    if let Some(data) = manifest["metaData"].as_object_mut() {
        data.remove("getPublicPath");
        data.insert("publicPath".to_owned(), format!("{prefix}/plugins/{name}/").into());
    }
    let root = format!("plugins/{name}");
    let manifest_name = format!("{root}/mf-manifest.json");
    let manifest = Asset::compressed(&manifest_name, manifest.to_string().into());
    let mut files = HashMap::from([(manifest_name, manifest)]);
    let bundle = folder.join("__mf");
    for (file, content) in disk::read_tree(&bundle).map_err(|error| error.to_string())? {
        let file = format!("{root}/__mf/{file}");
        let content = match std::str::from_utf8(&content) {
            Ok(text) if !prefix.is_empty() && names_its_path(&file) => move_under(text, prefix).into(),
            _ => content,
        };
        let asset = Asset::compressed(&file, content);
        files.insert(file, asset);
    }
    let module = json!({
        "kind": "PluginModule",
        "metadata": {"name": name, "version": package.version, "registry": ""},
        "spec": {"schemasPath": package.perses.schemas_path, "plugins": package.perses.plugins},
        "status": {"isLoaded": true, "inDev": false},
    });
    Ok((name, module, files))
}

/// Whether a plugin's file says where the plugin is served: its manifest and its entry scripts.
pub(super) fn names_its_path(path: &str) -> bool {
    let Some((_, file)) = path.strip_prefix("plugins/").and_then(|rest| rest.split_once('/')) else { return false };
    file == "mf-manifest.json"
        || file.strip_prefix("__mf/js/").is_some_and(|name| content_type::ending(name) == "js" && !name.contains('/'))
}

/// The text of such a file for a server with an `api_prefix`.
pub(super) fn move_under(text: &str, prefix: &str) -> String {
    text.replace("\"/plugins/", &format!("\"{prefix}/plugins/"))
}
