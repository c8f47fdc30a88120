//! As much of a browser as a sign-in needs: cookies, redirects, and the forms of the provider's pages.

use std::collections::HashMap;

use axum::http::HeaderMap;
use axum::http::header::SET_COOKIE;
use regex::Regex;
use reqwest::{Client, Method, Response, Url};

/// Cookies by host, and a client that follows no redirect by itself.
#[derive(Debug)]
pub struct Browser {
    client: Client,
    jar: HashMap<String, HashMap<String, String>>,
}

impl Browser {
    pub fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { client, jar: HashMap::new() }
    }

    /// Keeps the cookies of an answer of `host`.
    pub fn keep(&mut self, host: &str, headers: &HeaderMap) {
        let jar = self.jar.entry(host.to_owned()).or_default();
        for line in headers.get_all(SET_COOKIE) {
            let line = line.to_str().unwrap();
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            if value.is_empty() || line.contains("Max-Age=0") {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    /// The `Cookie` header for `host`.
    pub fn cookies(&self, host: &str) -> String {
        let pairs = self.jar.get(host).into_iter().flatten();
        pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    async fn send(&mut self, method: Method, url: &Url, form: &[(String, String)]) -> Response {
        let host = url.host_str().unwrap().to_owned();
        let request = self.client.request(method, url.clone()).header("cookie", self.cookies(&host)).form(form);
        let response = request.send().await.unwrap();
        self.keep(&host, response.headers());
        response
    }

    /// Opens an address at the provider and goes on until it sends the browser elsewhere: that address, or the last page.
    pub async fn visit(&mut self, url: &str) -> Result<Url, String> {
        self.go(Method::GET, Url::parse(url).unwrap(), Vec::new()).await
    }

    async fn go(&mut self, method: Method, start: Url, form: Vec<(String, String)>) -> Result<Url, String> {
        let (mut url, mut method, mut form) = (start.clone(), method, form);
        for _ in 0..20 {
            let response = self.send(method, &url, &form).await;
            let Some(target) = response.headers().get("location") else { return Err(response.text().await.unwrap()) };
            url = url.join(target.to_str().unwrap()).unwrap();
            if url.origin() != start.origin() {
                return Ok(url);
            }
            (method, form) = (Method::GET, Vec::new());
        }
        panic!("too many redirects, last to {url}");
    }

    /// Enters a user code on the provider's page and agrees.
    pub async fn enter_code(&mut self, page: &str) {
        let mut html = self.visit(page).await.unwrap_err();
        let action = Regex::new("action=\"([^\"]+)\"").unwrap();
        let hidden = Regex::new("name=\"([^\"]+)\"[^>]*value=\"([^\"]*)\"").unwrap();
        // The code, then the question whether it is the right device.
        for _ in 0..2 {
            let target = Url::parse(page).unwrap().join(&action.captures(&html).unwrap()[1]).unwrap();
            let form: Vec<_> =
                hidden.captures_iter(&html).map(|found| (found[1].to_owned(), found[2].to_owned())).collect();
            html = self.go(Method::POST, target, form).await.unwrap_err();
        }
        assert!(html.contains("Sign-in Success") || html.contains("successful"), "{html}");
    }
}
