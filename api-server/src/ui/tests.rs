use super::*;
use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use http_body_util::BodyExt;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// The tests of this file are about a binary with its UI; CI never builds another.
fn has_ui() -> bool {
    let built = embedded::lookup("index.html").is_some();
    assert!(built || std::env::var_os("CI").is_none(), "CI must build the server with its UI");
    built
}

fn get(assets: &Assets, path: &str) -> Option<Response<Body>> {
    let headers = HeaderMap::from_iter([(axum::http::header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))]);
    assets.handle(&Method::GET, path, &headers)
}

async fn text(assets: &Assets, path: &str) -> String {
    let body = get(assets, path).unwrap_or_else(|| panic!("{path} is not served")).into_body();
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn write(root: &Path, name: &str, content: &str) {
    let file = root.join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
}

#[tokio::test]
async fn pages_of_the_ui_get_its_index_with_a_strict_policy() {
    if !has_ui() {
        return;
    }
    let assets = Assets::new(&Options::default()).unwrap();
    let index = text(&assets, "/").await;
    for path in ["/projects/a/dashboards/b", "/sign-in?rd=%2F".split('?').next().unwrap(), "/explore", "/index.html"] {
        assert_eq!(text(&assets, path).await, index, "{path}");
    }
    let page = get(&assets, "/projects").unwrap();
    assert_eq!(page.headers()[CACHE_CONTROL], "no-cache");
    assert_eq!(page.headers()[X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert!(page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'self';"));
    for path in
        ["/robots.txt", "/assets/none.js", "/proxy/x", "/plugins/None/mf-manifest.json", "/plugins", "/%ff", "/..%2f"]
    {
        assert!(get(&assets, path).is_none(), "{path}");
    }
    assert!(assets.handle(&Method::POST, "/", &HeaderMap::new()).is_none());
}

#[tokio::test]
async fn a_build_without_a_ui_says_so_and_how_to_get_one() {
    let bare = Assets {
        loaded: HashMap::new(),
        is_embedded: false,
        versions: HashMap::new(),
        modules: Bytes::from_static(b"[]"),
    };
    assert!(text(&bare, "/").await.contains("--web.ui-dir=DIR"));
    assert!(get(&bare, "/assets/index.js").is_none());
}

#[tokio::test]
async fn what_the_index_names_is_there_compressed_and_kept_forever() {
    if !has_ui() {
        return;
    }
    let assets = Assets::new(&Options::default()).unwrap();
    let index = text(&assets, "/").await;
    let scripts: Vec<&str> = index.split('"').filter_map(|part| part.strip_prefix("./assets/")).collect();
    assert!(scripts.iter().any(|name| content_type::ending(name) == "js"), "{index}");
    for name in scripts {
        let headers =
            HeaderMap::from_iter([(axum::http::header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"))]);
        let file = assets.handle(&Method::GET, &format!("/assets/{name}"), &headers).unwrap();
        assert_eq!(file.headers()[CONTENT_ENCODING], "br", "{name}");
        assert!(file.headers()[CACHE_CONTROL].to_str().unwrap().contains("immutable"), "{name}");
    }
}

#[tokio::test]
async fn every_listed_plugin_serves_its_manifest_and_entry_without_eval() {
    if !has_ui() {
        return;
    }
    let assets = Assets::new(&Options::default()).unwrap();
    let modules: Value = serde_json::from_slice(&assets.plugin_modules()).unwrap();
    let modules = modules.as_array().unwrap();
    assert!(modules.iter().any(|module| module["metadata"]["name"] == "Prometheus"));
    for module in modules {
        let name = module["metadata"]["name"].as_str().unwrap();
        let version = module["metadata"]["version"].as_str().unwrap();
        let manifest: Value =
            serde_json::from_str(&text(&assets, &format!("/plugins/{name}/mf-manifest.json")).await).unwrap();
        assert!(manifest["metaData"].get("getPublicPath").is_none(), "{name}");
        assert_eq!(manifest["metaData"]["publicPath"], format!("/plugins/{name}/"));
        let entry = manifest["metaData"]["remoteEntry"]["name"].as_str().unwrap();
        let entry = get(&assets, &format!("/plugins/{name}~{version}~/{entry}")).unwrap();
        assert!(entry.headers()[CONTENT_TYPE].to_str().unwrap().starts_with("text/javascript"));
        assert!(get(&assets, &format!("/plugins/{name}~0.0.1/mf-manifest.json")).is_none());
        for expose in manifest["exposes"].as_array().unwrap() {
            for file in ["sync", "async"].iter().flat_map(|kind| expose["assets"]["js"][kind].as_array().unwrap()) {
                assert!(
                    get(&assets, &format!("/plugins/{name}/{}", file.as_str().unwrap())).is_some(),
                    "{name} {file}"
                );
            }
        }
    }
}

#[tokio::test]
async fn an_api_prefix_moves_the_page_and_the_plugins() {
    if !has_ui() {
        return;
    }
    let assets = Assets::new(&Options { api_prefix: "/perses".to_owned(), ..Options::default() }).unwrap();
    assert!(text(&assets, "/").await.contains("<base href=\"/perses/\""));
    let manifest: Value = serde_json::from_str(&text(&assets, "/plugins/Prometheus/mf-manifest.json").await).unwrap();
    assert_eq!(manifest["metaData"]["publicPath"], "/perses/plugins/Prometheus/");
    let entry = manifest["metaData"]["remoteEntry"]["name"].as_str().unwrap();
    let entry = text(&assets, &format!("/plugins/Prometheus/{entry}")).await;
    assert!(entry.contains("\"/perses/plugins/Prometheus/\"") && !entry.contains("\"/plugins/"));
}

#[tokio::test]
async fn a_ui_from_a_folder_replaces_the_embedded_one_and_nothing_outside_is_reachable() {
    let outside = tempfile::tempdir().unwrap();
    let folder = outside.path().join("ui");
    write(outside.path(), "secret.txt", "secret");
    write(&folder, "index.html", "<script src=\"PREFIX_PATH_PLACEHOLDER/static/main.0a1b2c3d.js\"></script>");
    write(&folder, "static/main.0a1b2c3d.js", "fetch('PREFIX_PATH_PLACEHOLDER/api/v1/projects')");
    write(&folder, "locales/en.json", "{}");
    fs::write(folder.join("packed.css.gz"), crate::negotiate::gzip(b"a{}").unwrap()).unwrap();
    let options = Options { ui_dir: Some(folder), api_prefix: "/x".to_owned(), ..Options::default() };
    let assets = Assets::new(&options).unwrap();

    assert_eq!(text(&assets, "/projects/a").await, "<script src=\"/x/static/main.0a1b2c3d.js\"></script>");
    assert_eq!(text(&assets, "/static/main.0a1b2c3d.js").await, "fetch('/x/api/v1/projects')");
    assert_eq!(text(&assets, "/packed.css").await, "a{}");
    let hashed = get(&assets, "/static/main.0a1b2c3d.js").unwrap();
    assert!(hashed.headers()[CACHE_CONTROL].to_str().unwrap().contains("immutable"));
    assert_eq!(get(&assets, "/locales/en.json").unwrap().headers()[CACHE_CONTROL], "no-cache");
    assert!(get(&assets, "/").unwrap().headers().get(CONTENT_SECURITY_POLICY).is_none());
    for path in ["/../secret.txt", "/%2e%2e/secret.txt", "//etc/passwd", "/static/../../secret.txt", "/static"] {
        assert!(get(&assets, path).is_none(), "{path}");
    }
}

#[test]
fn a_folder_without_a_ui_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = |path: &Path| Options { ui_dir: Some(path.to_owned()), ..Options::default() };
    assert!(matches!(Assets::new(&options(folder.path())), Err(UiError::NoIndex { .. })));
    let missing = Assets::new(&options(&folder.path().join("none"))).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read ") && missing.contains("none"), "{missing}");
}

#[tokio::test]
async fn plugins_from_a_folder_are_offered_beside_the_embedded_ones() {
    let folder = tempfile::tempdir().unwrap();
    let manifest =
        r#"{"id":"Own","name":"Own","metaData":{"getPublicPath":"function() { return '/'; }"},"exposes":[]}"#;
    let package =
        r#"{"version":"1.2.3","perses":{"plugins":[{"kind":"Panel","spec":{"name":"Own","display":{"name":"Own"}}}]}}"#;
    write(folder.path(), "own/mf-manifest.json", manifest);
    write(folder.path(), "own/package.json", package);
    write(folder.path(), "own/__mf/js/Own.0a1b2c3d.js", "p=\"/plugins/Own/\"");
    write(folder.path(), "own/secret.txt", "not for the browser");
    write(folder.path(), "bad/package.json", "{}");
    let options =
        Options { plugin_path: Some(folder.path().to_owned()), api_prefix: "/x".to_owned(), ..Options::default() };
    let assets = Assets::new(&options).unwrap();

    let modules: Value = serde_json::from_slice(&assets.plugin_modules()).unwrap();
    let module =
        |name: &str| modules.as_array().unwrap().iter().find(|module| module["metadata"]["name"] == name).unwrap();
    assert_eq!(module("Own")["metadata"]["version"], "1.2.3");
    assert_eq!(module("Own")["spec"]["plugins"][0]["spec"]["name"], "Own");
    assert_eq!(module("bad")["status"]["isLoaded"], false);
    assert!(module("bad")["status"]["error"].as_str().unwrap().contains("package.json"));
    let served: Value = serde_json::from_str(&text(&assets, "/plugins/Own~1.2.3/mf-manifest.json").await).unwrap();
    assert_eq!(served["metaData"], serde_json::json!({"publicPath": "/x/plugins/Own/"}));
    assert_eq!(text(&assets, "/plugins/Own/__mf/js/Own.0a1b2c3d.js").await, "p=\"/x/plugins/Own/\"");
    assert!(get(&assets, "/plugins/Own/secret.txt").is_none());
    assert!(get(&assets, "/plugins/Own/../own/secret.txt").is_none());
}
