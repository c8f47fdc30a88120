//! Logging and tracing set-up.

pub mod traces;

use std::io::IsTerminal as _;

use tokio::runtime::Handle;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use self::traces::Traces;

/// Starts logging to standard error, and traces when the environment asks for them (see [`traces`]); the result sends what
/// is left of them when it is dropped. `level` is a level or a filter such as `info,perses_api_server=debug`;
/// with `place` each line says where in the source it comes from.
///
/// The audit log is on at every level (it has a switch of its own), unless the filter names it.
pub fn init(level: &str, format: &str, place: bool, runtime: &Handle) -> Result<Option<Traces>, String> {
    let filter =
        EnvFilter::try_new(format!("audit=info,{level}")).map_err(|error| format!("--log.level {level:?}: {error}"))?;
    let traces = Traces::from_environment(runtime)?;
    let colours = std::io::stderr().is_terminal();
    match &traces {
        // One filter for all: whatever it leaves out costs nothing.
        None => {
            let builder = fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
            let builder = builder.with_file(place).with_line_number(place);
            if format == "json" { builder.json().try_init() } else { builder.try_init() }.map_err(|e| e.to_string())?;
        }
        Some(traces) => {
            let lines = fmt::layer().with_ansi(colours).with_writer(std::io::stderr);
            let lines = lines.with_file(place).with_line_number(place);
            let lines = if format == "json" { lines.json().boxed() } else { lines.boxed() };
            let registry = tracing_subscriber::registry().with(lines.with_filter(filter)).with(traces.layer());
            registry.try_init().map_err(|error| error.to_string())?;
            tracing::info!("traces are sent as the OTEL_* variables say");
        }
    }
    Ok(traces)
}
