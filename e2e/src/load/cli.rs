//! `pstack load`: the load generator from a terminal.

use std::{net::ToSocketAddrs as _, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::load::{Failure, Pace, Plan, Request, run};

/// Options of `pstack load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Addresses to GET, all of one server: http://HOST:PORT/PATH
    #[arg(required = true)]
    urls: Vec<String>,
    /// Requests a second (open loop); without it each connection sends as fast as it gets answers
    #[arg(long)]
    rate: Option<f64>,
    /// Connections at most
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Seconds to run
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds that one request may take
    #[arg(long, default_value_t = 10.0)]
    timeout: f64,
    /// The only status that is no failure
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// Text that each body must hold
    #[arg(long)]
    contains: Option<String>,
    /// Header of each request, `Name: value`; may be given again
    #[arg(long = "header", short = 'H')]
    headers: Vec<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl LoadArgs {
    /// Runs the load and prints the result; failed requests make it an error.
    pub fn run(self) -> Result<()> {
        let report = run(&self.plan()?, seconds(self.seconds)?)?;
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print!("{report}");
        }
        ensure!(report.failed == 0, "{} of {} requests failed", report.failed, report.requests);
        Ok(())
    }

    fn plan(&self) -> Result<Plan> {
        let mut authority = None;
        let mut requests = Vec::new();
        let headers = self.headers.iter().map(|header| {
            let (name, value) = header.split_once(':').with_context(|| format!("no colon in the header {header:?}"))?;
            Ok((name.trim(), value.trim()))
        });
        let headers: Vec<_> = headers.collect::<Result<_>>()?;
        for url in &self.urls {
            let rest = url.strip_prefix("http://").with_context(|| format!("{url:?} does not start with http://"))?;
            let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
            if *authority.get_or_insert(host) != host {
                bail!("the addresses are of different servers; run one load for each");
            }
            requests.push(Request::get(host, path, &headers));
        }
        let host = authority.context("no address given")?;
        let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let address = address.to_socket_addrs().with_context(|| format!("find the address of {host}"))?.next();
        let (status, contains) = (self.status, self.contains.clone());
        let mut plan = Plan::new(address.with_context(|| format!("{host} has no address"))?, requests);
        plan.check = std::sync::Arc::new(move |_, response| {
            super::expect_status(response, status)?;
            match &contains {
                Some(text) if !holds(response.body, text.as_bytes()) => {
                    Err(Failure::Check(format!("the body does not hold {text:?}")))
                }
                _ => Ok(()),
            }
        });
        plan.pace = self.rate.map_or(Pace::Closed, Pace::PerSecond);
        plan.connections = self.connections;
        plan.timeout = seconds(self.timeout)?;
        Ok(plan)
    }
}

fn holds(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

fn seconds(value: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("{value} is not a number of seconds"))
}
