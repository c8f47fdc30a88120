//! Command line. Everything but `run` works without a cluster.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::apply::kind::Kind;
use crate::controllers::persesstack::observed::{Availability, Capabilities};
use crate::run::RunArgs;
use crate::settings::Settings;
use crate::{crd, explain, rbac, render};

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}; name a file with a PersesStack, or - for standard input")]
    Read {
        /// As given.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Standard output cannot be written.
    #[error("standard output cannot be written: {0}")]
    Write(io::Error),
    /// The stack cannot be rendered.
    #[error(transparent)]
    Render(#[from] render::RenderError),
    /// The definition cannot be written.
    #[error(transparent)]
    Crd(#[from] crd::CrdError),
    /// The roles cannot be written.
    #[error("the roles cannot be written as YAML: {0}")]
    Rbac(#[from] serde_saphyr::ser::Error),
    /// Nothing is derived under this name.
    #[error("no field {field} is derived; there are: {known}")]
    NoField {
        /// As asked.
        field: String,
        /// What there is.
        known: String,
    },
}

/// Turns a number of users into a running, sized, self-healing dashboard service.
#[derive(Debug, Parser)]
#[command(name = "persesstack-operator", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controller against a cluster.
    Run(RunArgs),
    /// Print the CustomResourceDefinition.
    Crd,
    /// Print the roles that the operator needs.
    Rbac,
    /// Print what the operator would apply for the PersesStacks of a file. Needs no cluster.
    Render(RenderArgs),
    /// Print why numbers are what they are.
    Explain(ExplainArgs),
}

/// Arguments of `render`.
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// File with PersesStacks, and Secrets that they refer to; `-` for standard input.
    #[arg(short = 'f', long = "file")]
    file: PathBuf,
    /// Optional APIs that the cluster has.
    #[arg(long, value_delimiter = ',')]
    assume_api: Vec<OptionalApi>,
}

/// An optional API that changes what is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OptionalApi {
    /// OpenShift: user ids come from the platform.
    Openshift,
    /// Routes of OpenShift.
    Route,
    /// HTTPRoutes of the Gateway API.
    Httproute,
    /// PostgresClusters of Crunchy's operator.
    Crunchy,
    /// Metrics of pods for the autoscaler, from an adapter.
    CustomMetrics,
    /// ServiceMonitors, PodMonitors and PrometheusRules of the Prometheus operator.
    Monitoring,
}

impl OptionalApi {
    fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Openshift | Self::CustomMetrics => &[],
            Self::Route => &[Kind::Route],
            Self::Httproute => &[Kind::HttpRoute],
            Self::Crunchy => &[Kind::PostgresCluster],
            Self::Monitoring => &[Kind::ServiceMonitor, Kind::PodMonitor, Kind::PrometheusRule],
        }
    }

    /// A cluster that has these optional APIs and no other.
    pub fn capabilities(apis: &[Self]) -> Capabilities {
        let kinds: Vec<Kind> = apis.iter().flat_map(|api| api.kinds().iter().copied()).collect();
        let mut capabilities = Capabilities::with(&kinds);
        if apis.contains(&Self::Openshift) {
            capabilities.openshift = Availability::Present;
        }
        if apis.contains(&Self::CustomMetrics) {
            capabilities.custom_metrics = Availability::Present;
        }
        capabilities
    }
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// File with PersesStacks; `-` for standard input.
    #[arg(short = 'f', long = "file")]
    file: PathBuf,
    /// Field, for example `api.maxReplicas` or `pooler`; all of them when absent.
    field: Option<String>,
}

/// Runs the offline command that is asked for.
pub fn offline_render(args: &RenderArgs, settings: &Settings) -> Result<(), CliError> {
    let capabilities = OptionalApi::capabilities(&args.assume_api);
    let mut text = String::new();
    for rendered in render::render(&read(&args.file)?, settings, capabilities)? {
        text += &render::yaml(&rendered)?;
    }
    print(&text)
}

/// Prints the derivations that are asked for.
pub fn offline_explain(args: &ExplainArgs, settings: &Settings) -> Result<(), CliError> {
    let mut text = String::new();
    for rendered in render::render(&read(&args.file)?, settings, Capabilities::with(&[]))? {
        let derivations = explain::text(&rendered.sizing, args.field.as_deref()).ok_or_else(|| CliError::NoField {
            field: args.field.clone().unwrap_or_default(),
            known: explain::fields(&rendered.sizing).join(", "),
        })?;
        text += &derivations;
    }
    print(&text)
}

/// Prints the CustomResourceDefinition.
pub fn offline_crd() -> Result<(), CliError> {
    print(&crd::yaml()?)
}

/// Prints the roles.
pub fn offline_rbac() -> Result<(), CliError> {
    print(&rbac::yaml()?)
}

fn read(path: &PathBuf) -> Result<String, CliError> {
    let text = if path.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    text.map_err(|source| CliError::Read { path: path.display().to_string(), source })
}

fn print(text: &str) -> Result<(), CliError> {
    match io::stdout().write_all(text.as_bytes()) {
        // The reader, such as `head`, has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(CliError::Write),
    }
}
