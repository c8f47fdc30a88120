//! A real Prometheus for tests.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::services::{
    port::Port,
    sandbox::{DATA, Sandbox},
};

const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// One scrape job.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// The name, which becomes the label `job`.
    pub job: String,
    /// Addresses as `host:port`; `/metrics` is read there.
    pub targets: Vec<String>,
}

/// A running server. Dropping it stops it and removes its data.
#[derive(Debug)]
pub struct Prometheus {
    sandbox: Sandbox,
    port: Port,
    http: reqwest::Client,
}

impl Prometheus {
    /// Starts a server that scrapes itself (job `prometheus`) and `scrapes` once a second, and takes remote writes.
    pub async fn start(scrapes: &[Scrape]) -> Result<Self> {
        Self::start_with(scrapes, None).await
    }

    /// As [`Self::start`], with samples that are there from the beginning, as OpenMetrics text with timestamps in
    /// seconds (sorted by metric, ended by `# EOF`). So tests can ask about a known past.
    pub async fn start_with(scrapes: &[Scrape], open_metrics: Option<&str>) -> Result<Self> {
        _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        let server = Self { sandbox: Sandbox::new("prometheus").await?, port: Port::reserve()?, http };
        let itself = Scrape { job: "prometheus".to_owned(), targets: vec![server.address()] };
        server.sandbox.write("prometheus.yml", &config(std::iter::once(&itself).chain(scrapes)))?;
        if let Some(text) = open_metrics {
            server.sandbox.write("samples.txt", text)?;
            let (input, output) = (format!("{DATA}/samples.txt"), format!("{DATA}/tsdb"));
            let args = ["tsdb", "create-blocks-from", "openmetrics", &input, &output];
            server.sandbox.run_ok("promtool", &args, &[], "").await.context("load the given samples")?;
        }
        server.start_again().await?;
        Ok(server)
    }

    /// The server's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The base address, such as `http://127.0.0.1:20000`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Calls an endpoint of the API with parameters and returns its `data`. This is a query that
    /// [`Self::query_total`] counts, when the endpoint is `query` or `query_range`.
    pub async fn api(&self, endpoint: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let request = self.http.get(format!("{}/api/v1/{endpoint}", self.url())).query(parameters);
        let mut answer: Value = request.send().await?.error_for_status()?.json().await?;
        Ok(answer.get_mut("data").map(Value::take).unwrap_or_default())
    }

    /// How many instant and range queries the server has answered, by its own counter.
    ///
    /// Reads the metrics page, so it works before the first scrape and does not count itself.
    pub async fn query_total(&self) -> Result<u64> {
        let text = self.http.get(format!("{}/metrics", self.url())).send().await?.error_for_status()?.text().await?;
        Ok(sum_queries(&text))
    }

    /// The value of a counter without labels on its metrics page.
    pub async fn counter(&self, name: &str) -> Result<u64> {
        let text = self.http.get(format!("{}/metrics", self.url())).send().await?.error_for_status()?.text().await?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value: f64 = value.with_context(|| format!("Prometheus has no counter {name}"))?.parse()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter of whole things")]
        Ok(value as u64)
    }

    /// Stops the server in order.
    pub async fn stop(&self) -> Result<()> {
        self.sandbox.end("TERM", STOP_TIMEOUT).await
    }

    /// Starts the stopped server with its data and waits until it answers.
    pub async fn start_again(&self) -> Result<()> {
        let words = [
            "prometheus".to_owned(),
            format!("--config.file={DATA}/prometheus.yml"),
            format!("--storage.tsdb.path={DATA}/tsdb"),
            // Samples of a fixed past must not expire.
            "--storage.tsdb.retention.time=100y".to_owned(),
            format!("--web.listen-address={}", self.address()),
            "--web.enable-remote-write-receiver".to_owned(),
        ];
        self.sandbox.start(&words.each_ref().map(String::as_str)).await?;
        let url = format!("{}/-/ready", self.url());
        self.sandbox.ready(|| async { Ok(self.http.get(&url).send().await?.status().is_success()) }).await
    }

    /// Freezes the server: connections stay open, nothing answers.
    pub async fn pause(&self) -> Result<()> {
        self.sandbox.pause().await
    }

    /// Ends [`Self::pause`].
    pub async fn resume(&self) -> Result<()> {
        self.sandbox.resume().await
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }
}

/// JSON is YAML, and unlike a template it cannot be broken by a name.
fn config<'a>(scrapes: impl Iterator<Item = &'a Scrape>) -> String {
    let mut text = "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n".to_owned();
    for scrape in scrapes {
        let job = serde_json::json!({"job_name": scrape.job, "static_configs": [{"targets": scrape.targets}]});
        _ = writeln!(text, "- {job}");
    }
    text
}

/// Sums `prometheus_http_requests_total` of the two query endpoints over all codes.
fn sum_queries(metrics: &str) -> u64 {
    const HANDLERS: [&str; 2] = ["handler=\"/api/v1/query\"", "handler=\"/api/v1/query_range\""];
    let lines = metrics.lines().filter(|line| line.starts_with("prometheus_http_requests_total{"));
    let counted = lines.filter(|line| HANDLERS.iter().any(|handler| line.contains(handler)));
    counted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_the_query_endpoints() {
        let text = "# TYPE prometheus_http_requests_total counter\n\
            prometheus_http_requests_total{code=\"200\",handler=\"/api/v1/query\"} 3\n\
            prometheus_http_requests_total{code=\"400\",handler=\"/api/v1/query\"} 2\n\
            prometheus_http_requests_total{code=\"200\",handler=\"/api/v1/query_range\"} 10\n\
            prometheus_http_requests_total{code=\"200\",handler=\"/api/v1/query_exemplars\"} 100\n\
            prometheus_http_requests_total{code=\"200\",handler=\"/metrics\"} 1000\n";
        assert_eq!(sum_queries(text), 15);
    }

    #[test]
    fn config_is_valid_yaml() {
        let scrape = Scrape { job: "a \"b\": c".to_owned(), targets: vec!["127.0.0.1:1".to_owned()] };
        let value: Value = serde_saphyr::from_str(&config([&scrape].into_iter())).unwrap();
        assert_eq!(value["scrape_configs"][0]["job_name"], "a \"b\": c");
    }
}
