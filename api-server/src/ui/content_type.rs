//! Content types of the files that a web UI consists of.

/// The type by the file's ending; unknown ones are plain bytes, which no browser runs.
pub(super) fn of(name: &str) -> &'static str {
    match ending(name) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        "ttf" => "font/ttf",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

/// Whether compressing is worth it: pictures and fonts are compressed already.
pub(super) fn is_compressible(name: &str) -> bool {
    matches!(ending(name), "html" | "js" | "mjs" | "css" | "json" | "map" | "svg" | "txt" | "wasm" | "ttf")
}

/// Text in which `PREFIX_PATH_PLACEHOLDER` may stand, as upstream.
pub(super) fn may_hold_prefix(name: &str) -> bool {
    matches!(ending(name), "html" | "js" | "mjs" | "css")
}

/// What follows the last dot of a file's name.
pub(super) fn ending(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, ending)| ending)
}
