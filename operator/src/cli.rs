//! Command line. Everything but `run` and `plan` works without a cluster.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::apply::kind::Kind;
use crate::client::{self, ClientOptions};
use crate::controllers::persesstack::observed::{Availability, Capabilities};
use crate::plan::{self, PlanError, report};
use crate::run::RunArgs;
use crate::settings::Settings;
use crate::sizing::price::{PriceError, PriceTable};
use crate::{bundle, crd, explain, rbac, render};

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
    /// The bundle cannot be made.
    #[error(transparent)]
    Bundle(#[from] bundle::BundleError),
    /// A file of the bundle cannot be written.
    #[error("{path} cannot be written: {source}")]
    WriteFile {
        /// Which.
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
    /// The prices cannot be used.
    #[error(transparent)]
    Prices(#[from] PriceError),
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// No cluster.
    #[error("no cluster: {0}; set KUBECONFIG or --context")]
    Kubeconfig(String),
    /// The client or its runtime cannot be made.
    #[error("the client of the cluster cannot be made: {0}")]
    Client(String),
    /// The answer does not serialize.
    #[error("the answer cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
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
    /// Write the bundle for the Operator Lifecycle Manager. The RELATED_IMAGE_* variables name the images of a stack.
    Bundle(BundleArgs),
    /// Print what the operator would apply for the PersesStacks of a file. Needs no cluster.
    Render(RenderArgs),
    /// Show what applying a file would do to a cluster: objects, fields, disruption, costs. Writes nothing.
    ///
    /// Every object is sent to the API server as a dry run. Values of Secrets are masked. Exit code: 0 nothing changes,
    /// 1 something does, 2 an error.
    Plan(PlanArgs),
    /// Print why numbers are what they are: formula, inputs, what decided, what an override replaces. Needs no cluster.
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

/// Arguments of `bundle`.
#[derive(Debug, Args)]
pub struct BundleArgs {
    /// Folder for the files; made when it is absent.
    #[arg(short, long, default_value = "bundle")]
    output: PathBuf,
    /// The operator's own image; that of `config/manager` when absent.
    #[arg(long, env = "OPERATOR_IMAGE")]
    operator_image: Option<String>,
    /// Refuse images without a digest, as a release must.
    #[arg(long)]
    require_digests: bool,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// File with PersesStacks; `-` for standard input.
    #[arg(short = 'f', long = "file")]
    file: PathBuf,
    /// Field, for example `api.maxReplicas`, `pooler`, `quota` or `cost`; all of them when absent.
    field: Option<String>,
    /// Form of the answer.
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Output,
    /// Price table (YAML) instead of the built-in one; fields that it leaves out keep their defaults.
    #[arg(long)]
    prices: Option<PathBuf>,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// File with PersesStacks, and Secrets that they refer to; `-` for standard input.
    #[arg(short = 'f', long = "file")]
    file: PathBuf,
    /// Context of the kubeconfig; the current one when absent.
    #[arg(long)]
    context: Option<String>,
    /// Namespace of stacks that name none; that of the context when absent.
    #[arg(short = 'n', long)]
    namespace: Option<String>,
    /// Form of the answer.
    #[arg(short = 'o', long, value_enum, default_value_t)]
    output: Output,
    /// Price table (YAML) instead of the built-in one; fields that it leaves out keep their defaults.
    #[arg(long)]
    prices: Option<PathBuf>,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For reading.
    #[default]
    Text,
    /// One line for each number or object.
    Table,
    /// For programs.
    Json,
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
    let prices = prices(args.prices.as_ref())?;
    let mut found = Vec::new();
    for rendered in render::render(&read(&args.file)?, settings, Capabilities::with(&[]))? {
        let all = explain::of(&rendered, &prices);
        found.push(match &args.field {
            None => all,
            Some(field) => {
                let known = all.fields().join(", ");
                all.select(field).ok_or_else(|| CliError::NoField { field: field.clone(), known })?
            }
        });
    }
    print(&match args.output {
        Output::Text => found.iter().map(explain::Explanation::text).collect(),
        Output::Table => found.iter().map(explain::Explanation::table).collect(),
        Output::Json => serde_json::to_string_pretty(&found)? + "\n",
    })
}

/// Prints what applying a file would do. The exit code is that of `kubectl diff`: 0 nothing, 1 something.
pub fn online_plan(args: &PlanArgs, settings: &Settings) -> Result<ExitCode, CliError> {
    let (text, prices) = (read(&args.file)?, prices(args.prices.as_ref())?);
    // The one crypto provider of the workspace; an error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::Client(error.to_string()))?;
    let plans = runtime.block_on(async {
        let config = match &args.context {
            None => kube::Config::infer().await.map_err(|error| CliError::Kubeconfig(error.to_string()))?,
            Some(context) => {
                let options = kube::config::KubeConfigOptions { context: Some(context.clone()), ..Default::default() };
                let config = kube::Config::from_kubeconfig(&options).await;
                config.map_err(|error| CliError::Kubeconfig(error.to_string()))?
            }
        };
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let options = ClientOptions { dry_run_only: true, ..ClientOptions::default() };
        let client = client::build(config, &options).map_err(|error| CliError::Client(error.to_string()))?;
        Ok::<_, CliError>(plan::plan(&client, &text, settings, &namespace, &prices).await?)
    })?;
    print(&match args.output {
        Output::Text => plans.iter().map(report::text).collect::<Vec<_>>().join("\n"),
        Output::Table => plans.iter().map(|plan| report::objects(plan) + &report::summary(plan) + "\n").collect(),
        Output::Json => serde_json::to_string_pretty(&plans)? + "\n",
    })?;
    Ok(ExitCode::from(u8::from(plans.iter().any(plan::StackPlan::changes))))
}

fn prices(file: Option<&PathBuf>) -> Result<PriceTable, CliError> {
    file.map_or_else(|| Ok(PriceTable::default()), |file| Ok(PriceTable::parse(&read(file)?)?))
}

/// Prints the CustomResourceDefinition.
pub fn offline_crd() -> Result<(), CliError> {
    print(&crd::yaml()?)
}

/// Prints the roles.
pub fn offline_rbac() -> Result<(), CliError> {
    print(&rbac::yaml()?)
}

/// Writes the bundle.
pub fn offline_bundle(args: &BundleArgs, settings: &Settings) -> Result<(), CliError> {
    let input = bundle::Input {
        images: settings.images.clone(),
        operator_image: args.operator_image.clone(),
        require_digests: args.require_digests,
    };
    for (name, text) in bundle::files(&input)? {
        let path = args.output.join(name);
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, text));
        written.map_err(|source| CliError::WriteFile { path: path.display().to_string(), source })?;
    }
    Ok(())
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
