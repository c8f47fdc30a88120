//! `persesstack-operator`: parse, then hand over to the library.

use std::process::ExitCode;

use clap::Parser as _;
use persesstack_operator::cli::{self, Cli, Command};
use persesstack_operator::run;
use persesstack_operator::settings::Settings;

/// Exit code of every failure; `plan` needs 1 for "something changes", as `kubectl diff` does.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let settings = Settings::from_lookup(|name| std::env::var(name).ok());
    answer(Cli::parse().command, settings).unwrap_or_else(|error| {
        // Standard error may be closed: nobody is there to be told.
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("Error: {error:?}\n"));
        ExitCode::from(FAILED)
    })
}

fn answer(command: Command, settings: Settings) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(args, settings)?,
        Command::Crd => cli::offline_crd()?,
        Command::Rbac => cli::offline_rbac()?,
        Command::Bundle(args) => cli::offline_bundle(&args, &settings)?,
        Command::Render(args) => cli::offline_render(&args, &settings)?,
        Command::Plan(args) => return Ok(cli::online_plan(&args, &settings)?),
        Command::Explain(args) => cli::offline_explain(&args, &settings)?,
    }
    Ok(ExitCode::SUCCESS)
}
