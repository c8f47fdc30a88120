//! Logs on standard error. Objects are named, their content never is: it may hold credentials.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;

/// Form of the log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging for the process.
///
/// `filter` is a level (`info`) or directives (`info,kube=debug`).
///
/// # Errors
/// When logging has been started before. A bad directive is dropped with a line on standard error.
pub fn init(filter: &str, format: LogFormat) -> Result<(), TryInitError> {
    use tracing_subscriber::util::SubscriberInitExt;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(false).finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init(),
    }
}
