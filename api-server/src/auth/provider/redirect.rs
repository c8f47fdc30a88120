//! Where a browser is sent during a sign-in. Pure.

use axum::http::{Extensions, HeaderMap, header};
use url::Url;

use super::ProviderKind;
use crate::server::OverTls;

/// A host that cannot be: what stays on it is a path of ours.
const NOWHERE: &str = "http://perses.invalid/";

/// The path to go to after a sign-in: `wanted` when it is a path of this site, else its start. Another site's address, in
/// whichever disguise (`//host`, `/\host`, `https:host`, with tabs in it), would make us a stepping stone for phishing.
pub fn after_sign_in(wanted: Option<&str>, api_prefix: &str) -> String {
    let home = || if api_prefix.is_empty() { "/".to_owned() } else { api_prefix.to_owned() };
    let Some(wanted) = wanted.filter(|wanted| wanted.starts_with('/')) else { return home() };
    // What a browser would make of it is what the URL standard says.
    let Ok(base) = Url::parse(NOWHERE) else { return home() };
    let Ok(target) = base.join(wanted) else { return home() };
    if target.origin() != base.origin() || !target.username().is_empty() || target.path().starts_with("//") {
        return home();
    }
    let mut path = target.path().to_owned();
    for (mark, part) in [('?', target.query()), ('#', target.fragment())] {
        if let Some(part) = part {
            path.push(mark);
            path.push_str(part);
        }
    }
    path
}

/// Our own address as the browser knows it: `X-Forwarded-Proto` and `X-Forwarded-Host`, else `Host` and what the connection
/// speaks, as upstream. Providers take only addresses that were registered with them, so a made-up one leads nowhere.
pub fn root(headers: &HeaderMap, extensions: &Extensions, api_prefix: &str) -> Option<Url> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // Of several proxies in a row the first one spoke to the browser.
    let first = |name| text(name).and_then(|list| list.split(',').next()).map(str::trim).filter(|one| !one.is_empty());
    let scheme = first("x-forwarded-proto").filter(|scheme| matches!(*scheme, "http" | "https"));
    let scheme = scheme.unwrap_or(if extensions.get::<OverTls>().is_some() { "https" } else { "http" });
    let host = first("x-forwarded-host").or_else(|| text(header::HOST.as_str()))?;
    let root = Url::parse(&format!("{scheme}://{host}{api_prefix}")).ok()?;
    // Nothing but a host and a port.
    (root.username().is_empty() && root.password().is_none() && root.query().is_none()).then_some(root)
}

/// Where the provider sends the browser back to.
pub fn callback(root: &Url, kind: ProviderKind, slug: &str) -> String {
    let root = root.as_str().trim_end_matches('/');
    format!("{root}{}", callback_path(kind, slug))
}

/// The path of the callback below the prefix.
pub fn callback_path(kind: ProviderKind, slug: &str) -> String {
    format!("/api/auth/providers/{}/{slug}/callback", kind.as_str())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_paths_of_this_site_are_gone_to() {
        for (wanted, target) in [
            ("/projects/p?x=1&y=%2F#frag", "/projects/p?x=1&y=%2F#frag"),
            ("/", "/"),
            ("/a/../b", "/b"),
            ("/a b", "/a%20b"),
        ] {
            assert_eq!(after_sign_in(Some(wanted), ""), target);
        }
        for evil in [
            "",
            "projects",
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "javascript:alert(1)",
            "/..//evil.example",
            "/.//evil.example",
            "/%2e%2e//evil.example",
        ] {
            assert_eq!(after_sign_in(Some(evil), "/perses"), "/perses", "{evil:?}");
        }
        assert_eq!(after_sign_in(None, ""), "/");
    }

    proptest! {
        #[test]
        fn whatever_is_wanted_a_browser_stays_here(wanted in "[/\\\\.%2e:@?#a\\t\\n\\r -]{0,12}") {
            let here = Url::parse("https://here.example/login").unwrap();
            let target = here.join(&after_sign_in(Some(&wanted), "")).unwrap();
            prop_assert_eq!(target.origin(), here.origin());
        }
    }

    #[test]
    fn our_address_is_what_the_browser_sees() {
        let root_of = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            root(&headers, &Extensions::new(), "/perses").map(|root| root.to_string())
        };
        assert_eq!(root_of(&[("host", "a:8080")]).unwrap(), "http://a:8080/perses");
        let proxied = [("host", "pod"), ("x-forwarded-proto", "https, http"), ("x-forwarded-host", "b.example, c")];
        assert_eq!(root_of(&proxied).unwrap(), "https://b.example/perses");
        assert_eq!(root_of(&[("host", "a"), ("x-forwarded-proto", "gopher")]).unwrap(), "http://a/perses");
        assert_eq!(root_of(&[("host", "user:pass@a")]), None);
        assert_eq!(root_of(&[]), None);
        let mut over_tls = Extensions::new();
        over_tls.insert(OverTls);
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("a"))]);
        assert_eq!(root(&headers, &over_tls, "").unwrap().as_str(), "https://a/");
        let root = Url::parse("http://a:8080").unwrap();
        assert_eq!(callback(&root, ProviderKind::Oidc, "kc"), "http://a:8080/api/auth/providers/oidc/kc/callback");
    }
}
