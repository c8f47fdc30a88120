//! Logging set-up.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging to standard error. `level` is a level or a filter such as `info,perses_api_server=debug`; with `place` each
/// line says where in the source it comes from.
pub fn init(level: &str, format: &str, place: bool) -> Result<(), String> {
    let filter = EnvFilter::try_new(level).map_err(|error| format!("--log.level {level:?}: {error}"))?;
    let colours = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    let builder = builder.with_file(place).with_line_number(place);
    let done = if format == "json" { builder.json().try_init() } else { builder.try_init() };
    done.map_err(|error| error.to_string())
}
